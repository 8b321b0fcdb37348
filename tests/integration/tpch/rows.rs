//! Rows like those of TPC-H, made by a generator of our own: the specification's value lists and relations between columns, at a scale at
//! which each query still finds rows because some parts and orders are made for it.

use std::fmt::Write;

/// Customers, of whom a third has no orders.
const CUSTOMERS: u64 = 240;
const SUPPLIERS: u64 = 50;
const PARTS: u64 = 300;
const ORDERS: u64 = 2000;

const NATIONS: [(&str, u64); 25] = [
    ("ALGERIA", 0),
    ("ARGENTINA", 1),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("EGYPT", 4),
    ("ETHIOPIA", 0),
    ("FRANCE", 3),
    ("GERMANY", 3),
    ("INDIA", 2),
    ("INDONESIA", 2),
    ("IRAN", 4),
    ("IRAQ", 4),
    ("JAPAN", 2),
    ("JORDAN", 4),
    ("KENYA", 0),
    ("MOROCCO", 0),
    ("MOZAMBIQUE", 0),
    ("PERU", 1),
    ("CHINA", 2),
    ("ROMANIA", 3),
    ("SAUDI ARABIA", 4),
    ("VIETNAM", 2),
    ("RUSSIA", 3),
    ("UNITED KINGDOM", 3),
    ("UNITED STATES", 1),
];
const REGIONS: [&str; 5] = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"];
const SEGMENTS: [&str; 5] = ["AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD"];
const PRIORITIES: [&str; 5] = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];
const INSTRUCTIONS: [&str; 4] = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"];
const MODES: [&str; 7] = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"];
const SIZES: [&str; 6] = ["STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"];
const FINISHES: [&str; 5] = ["ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"];
const METALS: [&str; 5] = ["TIN", "NICKEL", "BRASS", "STEEL", "COPPER"];
const BOXES: [&str; 5] = ["SM", "LG", "MED", "JUMBO", "WRAP"];
const KINDS: [&str; 8] = ["CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM"];
const COLOURS: [&str; 12] =
    ["almond", "azure", "blush", "chocolate", "forest", "ghost", "green", "ivory", "lemon", "navy", "plum", "thistle"];
const WORDS: [&str; 10] =
    ["furiously", "regular", "deposits", "sleep", "carefully", "final", "packages", "above", "ironic", "accounts"];

/// Days from 1970-01-01 to 1992-01-01, the first day of an order, and to 1995-06-17, the specification's today.
const FIRST_DAY: u64 = 8035;
const TODAY: u64 = 9298;
/// Days in which orders are made.
const ORDER_DAYS: u64 = 2406;

/// A row of numbers that looks like chance and is the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        // Steele, Lea, Flood: splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn of<'l>(&mut self, list: &[&'l str]) -> &'l str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }

    fn words(&mut self, count: usize) -> String {
        (0..count).map(|_| self.of(&WORDS)).collect::<Vec<_>>().join(" ")
    }

    fn cents(&mut self, from: i64, to: i64) -> String {
        cents(from + i64::try_from(self.below(u64::try_from(to - from).unwrap())).unwrap())
    }
}

fn cents(amount: i64) -> String {
    format!("{}{}.{:02}", if amount < 0 { "-" } else { "" }, amount.abs() / 100, amount.abs() % 100)
}

/// A day as SQL writes it. Spec: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{}-{month:02}-{day:02}", year_of_era + era * 400 + u64::from(month <= 2))
}

/// A table's name and its rows as COPY text.
pub type TableRows = (&'static str, String);

/// All tables.
pub fn tables() -> Vec<TableRows> {
    let mut chance = Chance(20_261_121);
    let mut tables = vec![("region", String::new()), ("nation", String::new())];
    for (key, name) in REGIONS.iter().enumerate() {
        writeln!(tables[0].1, "{key}\t{name}\t{}", chance.words(4)).unwrap();
    }
    for (key, (name, region)) in NATIONS.iter().enumerate() {
        writeln!(tables[1].1, "{key}\t{name}\t{region}\t{}", chance.words(4)).unwrap();
    }
    tables.push(("part", parts(&mut chance)));
    tables.push(("supplier", suppliers(&mut chance)));
    tables.push(("partsupp", part_suppliers(&mut chance)));
    tables.push(("customer", customers(&mut chance)));
    let (orders, lines) = orders(&mut chance);
    tables.extend([("orders", orders), ("lineitem", lines)]);
    tables
}

fn parts(chance: &mut Chance) -> String {
    let mut out = String::new();
    for key in 1..=PARTS {
        let first = if key % 20 == 5 { "forest" } else { chance.of(&COLOURS) };
        let name = format!("{first} {} {}", chance.of(&COLOURS), chance.of(&COLOURS));
        let mut brand = format!("Brand#{}{}", 1 + chance.below(5), 1 + chance.below(5));
        let mut kind = format!("{} {} {}", chance.of(&SIZES), chance.of(&FINISHES), chance.of(&METALS));
        let mut container = format!("{} {}", chance.of(&BOXES), chance.of(&KINDS));
        let mut size = 1 + chance.below(50);
        match key % 20 {
            1 => (size, kind) = (15, "STANDARD POLISHED BRASS".to_owned()),
            2 => kind = "ECONOMY ANODIZED STEEL".to_owned(),
            3 => (brand, container, size) = ("Brand#23".to_owned(), "MED BOX".to_owned(), 1 + size % 10),
            4 => (brand, container, size) = ("Brand#12".to_owned(), "SM CASE".to_owned(), 1 + size % 5),
            6 => (brand, container, size) = ("Brand#34".to_owned(), "LG PACK".to_owned(), 1 + size % 15),
            _ => {}
        }
        let mfgr = &brand[6..7];
        let price = cents(retail_price(key));
        writeln!(out, "{key}\t{name}\tManufacturer#{mfgr}\t{brand}\t{kind}\t{size}\t{container}\t{price}\t{}", chance.words(1))
            .unwrap();
    }
    out
}

/// Spec: clause 4.2.3, P_RETAILPRICE.
fn retail_price(part: u64) -> i64 {
    i64::try_from(90_000 + part / 10 % 20_001 + 100 * (part % 1000)).unwrap()
}

/// The suppliers of a part: four, spread over all.
fn supplier_of(part: u64, number: u64) -> u64 {
    (part + number * (SUPPLIERS / 4 + (part - 1) / SUPPLIERS)) % SUPPLIERS + 1
}

fn suppliers(chance: &mut Chance) -> String {
    let mut out = String::new();
    for key in 1..=SUPPLIERS {
        let nation = key % 25;
        let comment = if key % 10 == 7 { "Customer slow Complaints".to_owned() } else { chance.words(5) };
        writeln!(
            out,
            "{key}\tSupplier#{key:09}\t{}\t{nation}\t{}-{:03}-{:03}-{:04}\t{}\t{comment}",
            chance.words(2),
            nation + 10,
            chance.below(1000),
            chance.below(1000),
            chance.below(10_000),
            chance.cents(-99_999, 999_999)
        )
        .unwrap();
    }
    out
}

fn part_suppliers(chance: &mut Chance) -> String {
    let mut out = String::new();
    for part in 1..=PARTS {
        for number in 0..4 {
            let (quantity, cost) = (1 + chance.below(9999), chance.cents(100, 100_000));
            writeln!(out, "{part}\t{}\t{quantity}\t{cost}\t{}", supplier_of(part, number), chance.words(6)).unwrap();
        }
    }
    out
}

fn customers(chance: &mut Chance) -> String {
    let mut out = String::new();
    for key in 1..=CUSTOMERS {
        let nation = chance.below(25);
        writeln!(
            out,
            "{key}\tCustomer#{key:09}\t{}\t{nation}\t{}-{:03}-{:03}-{:04}\t{}\t{}\t{}",
            chance.words(2),
            nation + 10,
            chance.below(1000),
            chance.below(1000),
            chance.below(10_000),
            chance.cents(-99_999, 999_999),
            chance.of(&SEGMENTS),
            chance.words(6)
        )
        .unwrap();
    }
    out
}

/// Orders and their lines.
fn orders(chance: &mut Chance) -> (String, String) {
    let (mut out, mut lines) = (String::new(), String::new());
    for number in 0..ORDERS {
        // Spec: only the first eight of 32 keys are used.
        let key = number / 8 * 32 + number % 8 + 1;
        let customer = loop {
            let customer = 1 + chance.below(CUSTOMERS);
            if !customer.is_multiple_of(3) {
                break customer;
            }
        };
        let day = FIRST_DAY + chance.below(ORDER_DAYS);
        let large = number % 200 == 9;
        let (mut total, mut finished, mut open) = (0, 0, 0);
        let count = if large { 7 } else { 1 + chance.below(7) };
        for line in 1..=count {
            let part = 1 + chance.below(PARTS);
            let quantity = if large { 45 + chance.below(6) } else { 1 + chance.below(50) };
            let price = i64::try_from(quantity).unwrap() * retail_price(part);
            let (discount, tax) = (i64::try_from(chance.below(11)).unwrap(), i64::try_from(chance.below(9)).unwrap());
            let shipped = day + 1 + chance.below(121);
            let (promised, received) = (day + 30 + chance.below(61), shipped + 1 + chance.below(30));
            let returned = if received > TODAY { "N" } else { chance.of(&["R", "A"]) };
            let status = if shipped > TODAY { "O" } else { "F" };
            if status == "O" {
                open += 1
            } else {
                finished += 1
            }
            total += price * (100 - discount) * (100 + tax) / 10_000;
            writeln!(
                lines,
                "{key}\t{part}\t{}\t{line}\t{quantity}\t{}\t{}\t{}\t{returned}\t{status}\t{}\t{}\t{}\t{}\t{}\t{}",
                supplier_of(part, chance.below(4)),
                cents(price),
                cents(discount),
                cents(tax),
                date(shipped),
                date(promised),
                date(received),
                chance.of(&INSTRUCTIONS),
                chance.of(&MODES),
                chance.words(2)
            )
            .unwrap();
        }
        let status = match (finished, open) {
            (_, 0) => "F",
            (0, _) => "O",
            _ => "P",
        };
        let comment = if number % 11 == 0 { "the special pending requests".to_owned() } else { chance.words(4) };
        writeln!(
            out,
            "{key}\t{customer}\t{status}\t{}\t{}\t{}\tClerk#{:09}\t0\t{comment}",
            cents(total),
            date(day),
            chance.of(&PRIORITIES),
            1 + chance.below(10)
        )
        .unwrap();
    }
    (out, lines)
}

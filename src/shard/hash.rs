//! PostgreSQL's hash of partition keys, bit by bit: what `PARTITION BY HASH` and `satisfies_hash_partition` compute.
//!
//! Texts are hashed as they are in the server's encoding, which is right for every deterministic collation.
//!
//! Spec: `src/common/hashfn.c` (Bob Jenkins' lookup3), `compute_partition_hash_value` in `src/backend/partitioning/partbounds.c`,
//! and the types' own `hash...extended` functions.

use super::key::KeyValue;
use crate::types::Decimal;
use crate::types::decimal::Number;

/// Spec: `HASH_PARTITION_SEED`.
const SEED: u64 = 0x7A5B_2236_7996_DCFD;
/// What the state starts from, beside the length.
const START: u32 = 0x9E37_79B9_u32.wrapping_add(3_923_095);

/// The hash of a key: what partitions take modulo their number. NULLs add nothing to it.
pub fn hash_key(key: &[KeyValue]) -> u64 {
    key.iter().filter_map(hash_value).fold(0, combine)
}

/// The hash of one value, as the extended hash function of its type gives it for the partitions' seed; `None` for NULL.
fn hash_value(value: &KeyValue) -> Option<u64> {
    Some(match value {
        KeyValue::Null => return None,
        KeyValue::Integer(value) | KeyValue::Timestamp(value) => hash_integer(*value, SEED),
        KeyValue::Date(days) => hash_integer(i64::from(*days), SEED),
        KeyValue::Text(bytes) | KeyValue::Bytes(bytes) => hash_bytes(bytes, SEED),
        KeyValue::Uuid(bytes) => hash_bytes(bytes, SEED),
        KeyValue::Numeric(Decimal::Finite(number)) => hash_number(number, SEED),
        KeyValue::Numeric(_) => SEED,
    })
}

/// Spec: `hash_combine64`.
fn combine(one: u64, two: u64) -> u64 {
    let mixed = two.wrapping_add(0x49A0_F4DD_15E5_A8E3).wrapping_add(one << 54).wrapping_add(one >> 7);
    one ^ mixed
}

/// A whole number has the same hash in all types of whole numbers. Spec: `hashint8extended`.
fn hash_integer(value: i64, seed: u64) -> u64 {
    let (low, high) = (value as u32, (value >> 32) as u32);
    let folded = low ^ if value >= 0 { high } else { !high };
    let mut state = State::new(4, seed);
    state.a = state.a.wrapping_add(folded);
    state.finish()
}

/// Spec: `hash_numeric_extended`. The sign is not part of it.
fn hash_number(number: &Number, seed: u64) -> u64 {
    if number.digits.is_empty() {
        return seed.wrapping_sub(1);
    }
    // The servers' own bytes, which are those of a little-endian machine nearly everywhere.
    let bytes: Vec<u8> = number.digits.iter().flat_map(|digit| digit.to_le_bytes()).collect();
    hash_bytes(&bytes, seed) ^ i64::from(number.weight).cast_unsigned()
}

/// Spec: `hash_bytes_extended`, on a little-endian machine.
pub(super) fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut state = State::new(bytes.len() as u32, seed);
    let (blocks, rest) = bytes.as_chunks::<12>();
    for block in blocks {
        state.add(block);
        state.mix();
    }
    // The third word's lowest byte stands for the length: what is left has at most eleven bytes.
    let mut last = [0; 12];
    let (words, tail) = rest.split_at(rest.len().min(8));
    last[..words.len()].copy_from_slice(words);
    last[9..9 + tail.len()].copy_from_slice(tail);
    state.add(&last);
    state.finish()
}

/// The state of lookup3.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(length: u32, seed: u64) -> State {
        let start = START.wrapping_add(length);
        let mut state = State { a: start, b: start, c: start };
        if seed != 0 {
            state.a = state.a.wrapping_add((seed >> 32) as u32);
            state.b = state.b.wrapping_add(seed as u32);
            state.mix();
        }
        state
    }

    fn add(&mut self, block: &[u8; 12]) {
        let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        self.a = self.a.wrapping_add(word(0));
        self.b = self.b.wrapping_add(word(4));
        self.c = self.c.wrapping_add(word(8));
    }

    fn mix(&mut self) {
        let State { a, b, c } = self;
        for (first, second) in [(4, 6), (16, 19)] {
            *a = a.wrapping_sub(*c) ^ c.rotate_left(first);
            *c = c.wrapping_add(*b);
            *b = b.wrapping_sub(*a) ^ a.rotate_left(second);
            *a = a.wrapping_add(*c);
            *c = c.wrapping_sub(*b) ^ b.rotate_left(if first == 4 { 8 } else { 4 });
            *b = b.wrapping_add(*a);
        }
    }

    fn finish(mut self) -> u64 {
        let State { a, b, c } = &mut self;
        let step = |target: &mut u32, other: u32, by: u32| *target = (*target ^ other).wrapping_sub(other.rotate_left(by));
        step(c, *b, 14);
        step(a, *c, 11);
        step(b, *a, 25);
        step(c, *b, 16);
        step(a, *c, 4);
        step(b, *a, 14);
        step(c, *b, 24);
        u64::from(self.b) << 32 | u64::from(self.c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says: `SELECT hashtextextended('...', 0)` and the like.
    #[test]
    fn what_servers_compute() {
        for (text, expect) in EXPECTED_TEXTS {
            assert_eq!(hash_bytes(text.as_bytes(), 0).cast_signed(), *expect, "{text}");
        }
        for (value, expect) in EXPECTED_INTEGERS {
            assert_eq!(hash_integer(*value, 0).cast_signed(), *expect, "{value}");
        }
        for (text, expect) in EXPECTED_NUMBERS {
            let Some(Decimal::Finite(number)) = Decimal::from_text(text) else { panic!("{text}") };
            assert_eq!(hash_number(&number, 7).cast_signed(), *expect, "{text}");
        }
    }

    #[test]
    fn nulls_add_nothing() {
        let one = KeyValue::Integer(1);
        assert_eq!(hash_key(&[KeyValue::Null]), 0);
        assert_eq!(hash_key(&[KeyValue::Null, one.clone()]), hash_key(std::slice::from_ref(&one)));
        assert_ne!(hash_key(&[one.clone(), one.clone()]), hash_key(&[one]));
    }

    const EXPECTED_TEXTS: &[(&str, i64)] = &[
        ("", -6_939_563_903_564_495_251),
        ("a", 3_591_986_179_850_072_241),
        ("abcdefgh", -8_882_191_227_074_733_005),
        ("abcdefghi", -3_278_210_106_038_014_113),
        ("abcdefghijk", 3_112_909_444_737_856_467),
        ("abcdefghijkl", -7_556_637_188_122_330_412),
        ("abcdefghijklmnopqrstuvwxyz", -6_612_928_417_832_572_997),
        ("é€😀", 2_183_806_408_597_293_420),
    ];
    const EXPECTED_INTEGERS: &[(i64, i64)] = &[
        (0, 4_154_612_158_245_552_303),
        (1, -3_670_598_878_359_251_130),
        (-1, -1_888_257_769_727_981_238),
        (2_147_483_647, -9_109_110_466_470_504_941),
        (-2_147_483_648, 1_977_219_185_673_256_887),
        (2_147_483_648, 1_977_219_185_673_256_887),
        (i64::MIN, -9_109_110_466_470_504_941),
        (i64::MAX, 1_977_219_185_673_256_887),
    ];
    const EXPECTED_NUMBERS: &[(&str, i64)] = &[
        ("0", 6),
        ("1", 8_050_509_489_636_599_726),
        ("-1", 8_050_509_489_636_599_726),
        ("0.5", 952_361_432_485_305_050),
        ("12345.6789", -6_193_089_060_423_869_473),
        ("1e20", 8_050_509_489_636_599_723),
        ("1e-9", -6_844_481_209_917_535_081),
        ("123456789012345678901234567890.123", -6_751_082_386_311_655_250),
    ];
}

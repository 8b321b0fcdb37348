//! Sharded databases.

use super::*;
use crate::shard::{KeyValue, QualifiedName, Scheme, ShardMap, TablePlace};

const SHOP: &str = "\
[[databases.shop.shards]]
name = 's0'
primary = 'postgres://u@a'
[[databases.shop.shards]]
name = 's1'
primary = 'postgres://u@b'
";

fn map_of(lines: &str) -> std::sync::Arc<ShardMap> {
    let settings = settings(&format!("{SHOP}{lines}"));
    settings.databases[0].sharding.as_ref().unwrap().map.clone()
}

fn place<'a>(map: &'a ShardMap, schema: &str, name: &str) -> &'a TablePlace {
    map.place(&QualifiedName { schema: schema.into(), name: name.into() }).unwrap()
}

fn shard_of(map: &ShardMap, table: &str, key: &[KeyValue]) -> Option<usize> {
    let TablePlace::Sharded(table) = place(map, "public", table) else { panic!("{table} is whole") };
    table.shard_of(key)
}

#[test]
fn the_example_says_where_rows_are() {
    let text = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sharded.toml")).unwrap();
    let settings = settings(&text);
    let sharding = settings.databases[0].sharding.as_ref().unwrap();
    let map = &sharding.map;
    assert_eq!(map.shards, ["s0", "s1", "s2"]);
    assert_eq!((map.tables.len(), &map.unlisted), (10, &None));
    assert_eq!(place(map, "public", "countries"), &TablePlace::Reference);
    assert_eq!(place(map, "public", "audit"), &TablePlace::Single(0));
    assert_eq!(shard_of(map, "warehouses", &[KeyValue::text(b"uk")]), Some(0));
    assert_eq!(shard_of(map, "warehouses", &[KeyValue::text(b"jp")]), Some(2));
    assert_eq!(shard_of(map, "events", &[KeyValue::Date(0)]), Some(0));
    assert_eq!(shard_of(map, "events", &[KeyValue::Date(i32::MAX)]), Some(2));
    assert!(shard_of(map, "documents", &[KeyValue::text(b"t"), KeyValue::Integer(1)]).is_some());
    let group = |table: &str| match place(map, "public", table) {
        TablePlace::Sharded(table) => table.group,
        other => panic!("{other:?}"),
    };
    assert_eq!(group("orders"), group("customers"));
    assert_eq!(BTreeSet::from(["orders", "warehouses", "events", "documents"].map(group)).len(), 4);
    assert_eq!(settings.databases[0].all_hosts().count(), 6);
}

#[test]
fn a_shard_is_a_database_of_its_own() {
    let text = "\
[defaults]
user = 'u'
[databases.shop]
pool_size = 7
max_lag = '3s'
database = 'real'
users = { al = { pool_size = 3 } }
unlisted_tables = 's1'
[[databases.shop.shards]]
name = 's0'
primary = 'a'
[[databases.shop.shards]]
name = 's1'
primary = 'postgres://v@a/other'
replicas = ['b']
";
    let settings = settings(text);
    let shop = &settings.databases[0];
    let sharding = shop.sharding.as_ref().unwrap();
    assert!(shop.hosts.is_empty());
    let [one, two] = sharding.shards.as_slice() else { panic!("two shards") };
    assert_eq!((one.name.as_str(), one.server_name.as_deref()), ("shop/s0", Some("real")));
    assert_eq!((two.name.as_str(), two.server_name.as_deref()), ("shop/s1", Some("other")));
    assert_eq!((one.pool.size, two.health.max_lag, two.users.len()), (7, Some(std::time::Duration::from_secs(3)), 1));
    assert_eq!((one.hosts[0].control.user.as_str(), one.hosts[0].control.database.as_str()), ("u", "real"));
    assert_eq!((two.hosts[1].control.user.as_str(), two.hosts[1].control.database.as_str()), ("u", "other"));
    assert!(one.sharding.is_none());
    assert_eq!(sharding.map.unlisted, Some(TablePlace::Single(1)));
    assert_eq!(sharding.gather_memory, 64 << 20);
}

#[test]
fn a_shard_without_a_database_of_its_own_has_the_clients() {
    let settings = settings(&format!("{SHOP}[databases.shop.tables]\na = 'reference'"));
    assert_eq!(settings.databases[0].sharding.as_ref().unwrap().shards[0].server_name.as_deref(), Some("shop"));
}

#[test]
fn keys_of_several_types_and_columns() {
    let map = map_of(
        "[[databases.shop.sharded_tables]]
tables = ['a', 'x.b']
key = ['k', 'l']
key_type = ['text', 'int4']
scheme = 'range'
ranges = [{ shard = 's1', from = ['b', 5] }, { shard = 's0', to = ['b', 5] }]
[[databases.shop.sharded_tables]]
tables = 'c'
key = 'k'
key_type = 'numeric'
scheme = 'list'
lists = [{ shard = 's0', values = [1.50, 2] }, { shard = 's1', values = [], default = true }]
[[databases.shop.sharded_tables]]
tables = 'd'
key = 'k'
",
    );
    assert_eq!(shard_of(&map, "a", &[KeyValue::text(b"b"), KeyValue::Integer(4)]), Some(0));
    assert_eq!(shard_of(&map, "a", &[KeyValue::text(b"b"), KeyValue::Integer(5)]), Some(1));
    let number = |text: &str| [KeyValue::Numeric(crate::types::Decimal::from_text(text).unwrap())];
    assert_eq!((shard_of(&map, "c", &number("1.5")), shard_of(&map, "c", &number("7"))), (Some(0), Some(1)));
    let TablePlace::Sharded(d) = place(&map, "public", "d") else { panic!() };
    assert_eq!((&d.scheme, &d.types, d.key.as_slice()), (&Scheme::Hash { shards: 2 }, &None, ["k".to_owned()].as_slice()));
    let TablePlace::Sharded(b) = place(&map, "x", "b") else { panic!() };
    assert_eq!(b.table, QualifiedName { schema: "x".into(), name: "b".into() });
}

fn check_shop(lines: &str, expect: &[&str]) {
    check(&format!("{SHOP}{lines}"), expect);
}

fn check_tables(lines: &str, expect: &[&str]) {
    check_shop(&format!("[[databases.shop.sharded_tables]]\ntables = 't'\n{lines}"), expect);
}

#[test]
fn what_is_wrong_with_shards() {
    let tables = "[databases.shop.tables]\nx = 'reference'\n";
    check_shop("", &["warning 1:18 no table has a place: every statement that names one is refused"]);
    check(&format!("[databases.shop]\nprimary = 'postgres://u@h'\n{SHOP}{tables}"), &["2:1 `primary` stands beside `shards`"]);
    check(
        &format!("{APP}gather_memory = '1MiB'\n[databases.app.tables]\nx = 's'"),
        &["gather_memory has no effect without shards", "tables has no effect without shards"],
    );
    check("[databases.shop]\nshards = []\n", &["shards has 0 entries: from 1 to 64 are possible"]);
    check("[databases.shop]\nshards = 3\n", &["shards has to be a list of tables", "shards has 0 entries"]);
    let shard = |name: &str, host: &str| format!("[[databases.shop.shards]]\n{name}\nprimary = 'postgres://u@{host}'\n");
    check(&format!("{}{}{tables}", shard("name = 'a'", "h"), shard("name = 'a'", "i")), &["two shards are called `a`"]);
    check(
        &format!("{}{}{tables}", shard("name = 'a'", "h"), shard("name = 'b'", "h")),
        &["`h:5432` serves the same database for two shards, also for `shop/a`"],
    );
    check(&format!("{}{}{tables}", shard("name = 'a'", "h"), shard("name = 'b'", "h/other")), &[]);
    check(&format!("{}{tables}", shard("", "h")), &["this shard has no `name`"]);
    check(&format!("{}{tables}", shard("name = 'a/b'", "h")), &["a shard can't be called `a/b`"]);
    check(&format!("{}{tables}", shard("name = 'refuse'", "h")), &["a shard can't be called `refuse`"]);
    check(
        &format!("{}{tables}", shard("name = 'a'\npool_size = 3", "h")),
        &["unknown key `pool_size` in [[databases.shop.shards]]"],
    );
    check(&format!("[[databases.shop.shards]]\nname = 'a'\n{tables}"), &["[[databases.shop.shards]] has no hosts"]);
    check(&SHOP.replace("shop", "'*'"), &["`*` cannot be sharded", "no table has a place"]);
    check_shop(
        "[databases.shop.tables]\nx = 's2'\ny = 7\n'a.b.c' = 'reference'\n",
        &["there is no shard `s2` / did you mean `s0`?", "the place of `y` is not a text", "`a.b.c` is not the name of a table"],
    );
    check(
        &format!("[databases.shop]\nunlisted_tables = 'nowhere'\n{SHOP}"),
        &["there is no shard `nowhere` / the shards are s0, s1"],
    );
}

#[test]
fn what_is_wrong_with_sharded_tables() {
    check_shop(
        "[[databases.shop.sharded_tables]]\nscheme = 'hash'\n",
        &["these sharded tables have no `tables`", "have no `key`"],
    );
    check_tables("key = 'k'\nscheme = 'hsah'\n", &["the scheme `hsah` is not known"]);
    check_tables("key = 'k'\nkeys = 'l'\n", &["unknown key `keys` in [[databases.NAME.sharded_tables]] / did you mean `key`?"]);
    check_tables("key = ['k', 'k']\n", &["the key has the column `k` twice"]);
    check_tables("key = []\n", &["key is empty"]);
    check_tables("key = 'k'\nweights = { s0 = 1 }\n", &["weights has no effect: the scheme is \"hash\""]);
    check_tables("key = 'k'\nkey_type = 'float8'\n", &["`float8` is not a type of keys"]);
    check_tables("key = 'k'\nkey_type = ['int4', 'int4']\n", &["the key has 1 columns, but key_type has 2 types"]);
    check_tables("key = 'k'\n[databases.shop.tables]\n'public.t' = 'reference'\n", &["`public.t` has two places"]);
    check_tables("key = 'k'\nscheme = 'ring'\nweights = { s0 = 0, s1 = 0 }\n", &["every shard has weight 0"]);
    check_tables(
        "key = 'k'\nscheme = 'ring'\nweights = { s5 = 1, s0 = -1 }\n",
        &["there is no shard `s5`", "`-1` is out of range"],
    );
    check_tables("key = 'k'\nscheme = 'range'\n", &["have no `ranges`", "have no `key_type`"]);
}

#[test]
fn what_is_wrong_with_ranges_and_lists() {
    let ranges = |ranges: &str, expect: &[&str]| {
        check_tables(&format!("key = 'k'\nkey_type = 'int4'\nscheme = 'range'\nranges = [{ranges}]\n"), expect);
    };
    ranges("{ shard = 's0', to = 10 }, { shard = 's1', from = 10 }", &[]);
    ranges("{ shard = 's0', to = 10 }, { shard = 's1', default = true }", &[]);
    ranges("{ shard = 's0', to = 10 }, { shard = 's1', from = 9 }", &["12:40 this range overlaps that of `s0`"]);
    ranges(
        "{ shard = 's0', from = 1, to = 10 }, { shard = 's1', from = 11, to = 20 }",
        &[
            "no range takes the keys below this one",
            "there is a gap between the range of `s0` and this one",
            "no range takes the keys above this one",
        ],
    );
    ranges("{ shard = 's0', from = 5, to = 5 }", &["this range is empty"]);
    ranges("{ shard = 's0', to = 'x' }", &["`x` can't be read as int4"]);
    ranges("{ shard = 's0', to = 5000000000 }", &["`5000000000` can't be read as int4"]);
    ranges("{ shard = 's0', to = [1, 2] }", &["this key has 2 values, but there are 1 key columns"]);
    ranges("{ to = 1 }", &["this entry has no `shard`"]);
    ranges("{ shard = 's0', default = true }, { shard = 's1', default = true }", &["there are two defaults"]);
    let lists = |lists: &str, expect: &[&str]| {
        check_tables(&format!("key = 'k'\nkey_type = 'timestamptz'\nscheme = 'list'\nlists = [{lists}]\n"), expect);
    };
    lists("{ shard = 's0', values = ['2026-01-01 00:00:00+00'] }", &[]);
    lists(
        "{ shard = 's0', values = ['2026-01-01'] }",
        &["can't be read as timestamptz / write it in quotes and with its offset"],
    );
    lists("{ shard = 's0', values = ['2026-01-01 00:00:00+00', '2026-01-01 01:00:00+01'] }", &["`s0` has this key already"]);
    lists("{ shard = 's0' }", &["this list has no `values`"]);
}

#[test]
fn a_reload_tells_what_moves() {
    let before = settings(&format!("{SHOP}[databases.shop.tables]\na = 'reference'\nb = 's0'\n"));
    let after = settings(&format!(
        "{SHOP}replicas = ['c']\n[databases.shop.tables]\na = 's1'\n[[databases.shop.sharded_tables]]\ntables = 'n'\nkey = 'k'\n"
    ));
    let plan = diff(&before, &after);
    assert_eq!(plan.needs_restart, Vec::<String>::new());
    assert_eq!(
        plan.changed,
        [
            "databases.shop.tables.public.b: removed",
            "databases.shop.shards.s1.hosts.c:5432: added",
            "databases.shop.tables.public.n: added",
            "databases.shop.tables.public.a: reference -> s1",
        ]
    );
}

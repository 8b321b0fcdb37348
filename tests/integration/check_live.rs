//! `pgyard check --live`: what is wrong with servers is found, and what is right is not complained of.

use super::harness::programs::psql;
use super::harness::shared_fleet;
use super::sharded::stage::{SHARDS, config, server, shard_url};
use pgyard::demo::{FleetOptions, LocalFleet};

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('bad', 'good');
CREATE TABLE countries (code text PRIMARY KEY, name text);
CREATE TABLE samples (id int PRIMARY KEY, v text);
CREATE TABLE orders (customer_id bigint, id bigint, mood mood, country text REFERENCES countries, PRIMARY KEY (customer_id, id));
CREATE TABLE order_lines (customer_id bigint, order_id bigint, n int, PRIMARY KEY (customer_id, order_id, n),
  FOREIGN KEY (customer_id, order_id) REFERENCES orders);
CREATE TABLE accounts (customer_id int PRIMARY KEY, owner text);
CREATE TABLE audit (at timestamptz, what text);
CREATE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE VIEW all_orders AS SELECT * FROM orders;
CREATE INDEX orders_country ON orders (country);
INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France');
CREATE TABLE by_hash (customer_id int) PARTITION BY HASH (customer_id)";

/// What `pgyard check --live` says of a configuration, and whether it was content.
fn look(text: &str) -> (String, bool) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text.replace("{listen}", "127.0.0.1:1").replace("{http}", "off")).unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_pgyard")).args(["check", "--live"]).arg(file.path()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (said, output.status.success())
}

fn prepare(fleet: &LocalFleet) {
    for (place, shard) in SHARDS.iter().enumerate() {
        psql(&shard_url(fleet, shard), SCHEMA);
        psql(
            &shard_url(fleet, shard),
            &format!(
                "INSERT INTO accounts SELECT i, 'o' || i FROM generate_series(1, 60) i
                  WHERE satisfies_hash_partition('by_hash'::regclass, 3, {place}, i); DROP TABLE by_hash"
            ),
        );
    }
}

#[test]
fn shards_that_agree_pass_and_every_difference_is_named() {
    let fleet = server();
    prepare(&fleet);
    psql(&fleet.primary().superuser_url(), "CREATE DATABASE shown");
    let coordinator = format!("\n[databases.app.coordinator]\nprimary = {:?}\n", shard_url(&fleet, "shown"));
    let good = format!("{}{coordinator}", config(&fleet, ""));
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), good.replace("{listen}", "127.0.0.1:1").replace("{http}", "off")).unwrap();
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_pgyard")).arg("coordinator").arg(file.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (said, well) = look(&good);
    assert!(well && said.contains("OK: the servers are as the settings say (0 warnings)"), "{said}");
    // A shard by another name of the same server.
    let twice = good.replacen(&shard_url(&fleet, "s1"), &shard_url(&fleet, "s0").replace("127.0.0.1", "localhost"), 1);
    let (said, well) = look(&twice);
    assert!(!well && said.contains("shards s0 and s1 are one and the same database \"s0\""), "{said}");

    let on = |shard: &str, sql: &str| psql(&shard_url(&fleet, shard), sql);
    on("s1", "ALTER TABLE orders ADD COLUMN extra text; ALTER TABLE accounts ALTER COLUMN owner TYPE varchar(20)");
    on("s2", "DROP TABLE order_lines; INSERT INTO countries VALUES ('it', 'Italy'); DROP INDEX orders_country");
    on("s0", "CREATE OR REPLACE FUNCTION twice(n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n + n'");
    on("s0", "ALTER TYPE mood ADD VALUE 'fine'; INSERT INTO samples VALUES (1, 'x')");
    for shard in ["s1", "s2"] {
        on(shard, "INSERT INTO samples VALUES (1, 'y')");
    }
    on("s1", "CREATE UNIQUE INDEX owners ON accounts (owner)");
    on("s0", "CREATE UNIQUE INDEX owners ON accounts (owner)");
    on("s2", "CREATE UNIQUE INDEX owners ON accounts (owner); UPDATE accounts SET customer_id = customer_id + 1000");
    on("shown", "DROP TABLE orders CASCADE");
    let (said, well) = look(&good);
    assert!(!well, "{said}");
    for expected in [
        "PROBLEM: column extra of public.orders is missing on s0, s2 (there on s1)",
        "-> there: ALTER TABLE \"public\".\"orders\" ADD COLUMN \"extra\" text",
        "PROBLEM: column owner of public.accounts differs: `character varying(20)` on s1; `text` on s0, s2",
        "PROBLEM: table public.order_lines is missing on s2 (there on s0, s1)",
        "PROBLEM: reference table public.countries has not the same rows everywhere: 2 on s0, s1; 3 on s2",
        "PROBLEM: reference table public.samples has as many rows, but others, on ",
        "warning: index public.orders_country of public.orders is missing on s2",
        "-> there: CREATE INDEX orders_country ON public.orders USING btree (country)",
        "PROBLEM: function public.twice(n bigint) differs between ",
        "PROBLEM: type public.mood differs: `'bad', 'good'` on s1, s2; `'bad', 'good', 'fine'` on s0",
        "warning: unique index public.owners of public.accounts has no customer_id",
        "rows of public.accounts looked at on s2, some belong elsewhere by the settings: ",
        "PROBLEM: the coordinator does not show table public.orders",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    // The key's column, and tables that the settings do not know or that no shard has.
    let odd = good.replace("\"accounts\"]", "\"accounts\", \"missing\"]").replace("key = \"customer_id\"", "key = \"customer\"");
    let (said, well) = look(&odd.replace("audit = \"s1\"\n", ""));
    assert!(!well, "{said}");
    for expected in [
        "PROBLEM: table public.accounts has no key column customer (on s2)",
        "warning: the settings list table public.missing, which no shard has",
        "tables without a place in the settings, which statements can't name: public.audit",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

#[test]
fn servers_that_cannot_prepare_and_hosts_that_do_not_belong_are_found() {
    let settings = vec!["max_prepared_transactions = 0".to_owned()];
    let fleet = LocalFleet::start(FleetOptions { replicas: 0, settings, ..FleetOptions::default() }, &mut |_| ()).unwrap();
    for shard in SHARDS {
        fleet.primary().sql(&format!("CREATE DATABASE {shard} OWNER app")).unwrap();
    }
    let (said, well) = look(&config(&fleet, ""));
    let port = fleet.primary().port();
    let expected =
        format!("PROBLEM: shard s2: max_prepared_transactions is 0 on 127.0.0.1:{port}: every write to several shards fails");
    assert!(!well && said.contains(&expected), "{said}");
    assert!(said.contains("-> ALTER SYSTEM SET max_prepared_transactions = 200, and restart the server"), "{said}");

    // An ordinary database: its own hosts are right, a stranger and a host that is down are not.
    let shared = shared_fleet();
    let hosts = |more: &str| {
        let replicas: Vec<String> = shared.replicas().iter().map(|replica| format!("{:?}", replica.superuser_url())).collect();
        let primary = shared.primary().superuser_url();
        format!(
            "listen = \"{{listen}}\"\nhttp = \"{{http}}\"\n[databases.app]\nprimary = {primary:?}\nreplicas = [{}{more}]\n",
            replicas.join(", ")
        )
    };
    let (said, well) = look(&hosts(""));
    assert!(well && said.contains("OK: the servers are as the settings say"), "{said}");
    assert!(said.contains("primary, PostgreSQL ") && said.contains("replica, PostgreSQL "), "{said}");
    let (said, well) =
        look(&hosts(&format!(", {:?}, \"postgres://postgres:x@127.0.0.1:1/app\"", fleet.primary().superuser_url())));
    assert!(!well, "{said}");
    for expected in ["host 127.0.0.1:1 can't be asked: ", "several hosts take writes: ", "is no copy of "] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

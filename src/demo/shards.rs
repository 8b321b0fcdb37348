//! The sharded demo: its shards are databases of one fleet's servers, so that a small machine can run it.

use super::fleet::LocalFleet;
use super::{DemoOptions, FleetError, database_url, reachable};
use std::fmt::Write;

/// What each shard has. The rows of a customer are on one shard: the one that PostgreSQL's own partition hash says.
const TABLES: &str = "
    SET ROLE app;
    CREATE TABLE customers (customer_id bigint PRIMARY KEY, name text NOT NULL, country text NOT NULL);
    CREATE TABLE orders (customer_id bigint NOT NULL, order_id bigint NOT NULL, product text NOT NULL, amount numeric(10,2) NOT NULL,
        PRIMARY KEY (customer_id, order_id));
    CREATE TABLE countries (country text PRIMARY KEY, name text NOT NULL);
    CREATE TABLE transfers (customer_id bigint PRIMARY KEY, balance numeric(10,2) NOT NULL);
    CREATE TEMP TABLE by_hash (customer_id bigint) PARTITION BY HASH (customer_id);
    INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France'), ('is', 'Iceland'), ('pt', 'Portugal');
    INSERT INTO customers SELECT i, 'customer ' || i, (ARRAY['de', 'fr', 'is', 'pt'])[i % 4 + 1]
        FROM generate_series(1, 1000) i WHERE satisfies_hash_partition('by_hash'::regclass, COUNT, NUMBER, i::bigint);
    INSERT INTO orders SELECT customer_id, o, (ARRAY['timber', 'grain', 'steel'])[(customer_id + o) % 3 + 1], (customer_id * 7 + o * 13) % 500 + 0.5
        FROM customers, generate_series(1, 10) o;
    INSERT INTO transfers SELECT customer_id, 100 FROM customers;
";

/// A shard's name, which is also that of its database.
fn name(number: usize) -> String {
    format!("shard{number}")
}

/// Makes the shards' databases and their rows, unless a kept directory has them.
pub(super) fn fill(fleet: &LocalFleet, count: usize) -> Result<(), FleetError> {
    for number in 0..count {
        let shard = name(number);
        if fleet.primary().sql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{shard}'"))? != "0" {
            continue;
        }
        fleet.primary().sql(&format!("CREATE DATABASE {shard} OWNER app"))?;
        let script = TABLES.replace("COUNT", &count.to_string()).replace("NUMBER", &number.to_string());
        fleet.primary().sql_in(&shard, &script)?;
    }
    Ok(())
}

/// The configuration of a pgyard in front of the shards.
pub fn sharded_configuration(fleet: &LocalFleet, options: &DemoOptions) -> String {
    let mut text = format!("listen = \"{}\"\nhttp = \"{}\"\n[databases.app]\n", options.listen, options.http);
    for number in 0..options.shards {
        let url = |host: &super::LocalHost| in_database(&host.superuser_url(), &name(number));
        let replicas: Vec<String> = fleet.replicas().iter().map(|replica| format!("{:?}", url(replica))).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "[[databases.app.shards]]\nname = \"{}\"\nprimary = {:?}\nreplicas = [{}]",
            name(number),
            url(fleet.primary()),
            replicas.join(", ")
        );
    }
    text.push_str(
        "[[databases.app.sharded_tables]]\ntables = [\"customers\", \"orders\", \"transfers\"]\nkey = \"customer_id\"\nscheme = \"hash\"\n\
         [databases.app.tables]\ncountries = \"reference\"\n",
    );
    text
}

fn in_database(url: &str, database: &str) -> String {
    let (before, rest) = url.rsplit_once('/').unwrap_or((url, ""));
    let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    format!("{before}/{database}{options}")
}

/// What is printed when pgyard is in front of the shards and ready.
pub fn sharded_welcome_text(fleet: &LocalFleet, options: &DemoOptions) -> String {
    let url = database_url(fleet, options.listen);
    let end = if fleet.deletes_its_data() {
        "Ctrl-C stops everything and deletes the data."
    } else {
        "Ctrl-C stops everything; the data stays."
    };
    format!(
        "
pgyard is ready, with 1000 customers and their orders on {} shards.

  DATABASE_URL  {url}
  metrics       http://{}/metrics

Try, in another terminal:

  # one customer: one shard
  psql '{url}' -c \"select current_database(), * from orders where customer_id = 42\"
  # every shard, put together
  psql '{url}' -c \"select country, count(*), sum(amount) from customers join orders using (customer_id) group by country order by country\"
  # a join across shards: customers who ordered for the same amount on the same day
  psql '{url}' -c \"select a.customer_id, b.customer_id, a.amount from orders a join orders b on a.amount = b.amount and a.order_id = b.order_id
       where a.customer_id < b.customer_id and a.order_id = 1 order by 1, 2 limit 5\"
  # a write on two shards: both or none
  psql '{url}' -c \"begin\" -c \"update transfers set balance = balance - 1 where customer_id = 1\" \\
       -c \"update transfers set balance = balance + 1 where customer_id = 2\" -c \"commit\" -c \"select sum(balance) from transfers\"

{end}
",
        options.shards,
        reachable(options.http)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_another_database() {
        assert_eq!(in_database("postgres://u:p@h:1/app?sslmode=disable", "shard0"), "postgres://u:p@h:1/shard0?sslmode=disable");
        assert_eq!(in_database("postgres://u:p@h:1/app", "shard0"), "postgres://u:p@h:1/shard0");
    }
}

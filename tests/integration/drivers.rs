//! Clients that people use: each creates a table, writes, reads, runs transactions, copies in and out, prepares, meets errors,
//! and cancels a long statement. Each runs against PostgreSQL itself too, which shows that the script is right.

use super::harness::Target;
use super::harness::programs::{node, psql, psql_output, python};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, pin_mut};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

/// Both variants of a driver use the same tables.
fn one_at_a_time<T>(lock: &Mutex<()>, run: impl FnOnce() -> T) -> T {
    let _alone = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    run()
}

macro_rules! drivers {
    ($($name:ident => $run:expr;)*) => {
        mod locks { $(#[allow(non_upper_case_globals)] pub static $name: std::sync::Mutex<()> = std::sync::Mutex::new(());)* }
        mod direct { $(#[test] fn $name() { super::one_at_a_time(&super::locks::$name, || $run(super::Target::Direct)); })* }
        mod through_pgyard { $(
            #[test]
            fn $name() { super::one_at_a_time(&super::locks::$name, || $run(super::Target::Pgyard)); }
        )* }
    };
}

drivers! {
    psql => super::drive_psql;
    psycopg_sync => |target: super::Target| super::python("psycopg_sync.py", &[&target.url()]);
    psycopg_async => |target: super::Target| super::python("psycopg_async.py", &[&target.url()]);
    asyncpg => |target: super::Target| super::python("asyncpg_drive.py", &[&target.url()]);
    node_postgres => |target: super::Target| super::node("drive.js", &[&target.url()]);
    tokio_postgres => super::drive_tokio_postgres;
}

fn drive_psql(target: Target) {
    let url = target.url();
    let script = r"
        SET client_min_messages = warning;
        DROP TABLE IF EXISTS driver_psql;
        CREATE TABLE driver_psql (id int PRIMARY KEY, name text);
        INSERT INTO driver_psql VALUES (1, 'one'), (2, 'two');
        BEGIN;
        DELETE FROM driver_psql;
        ROLLBACK;
        BEGIN;
        UPDATE driver_psql SET name = 'zwei' WHERE id = 2;
        COMMIT;
        COPY driver_psql FROM STDIN;
3	three
4	four
\.
        PREPARE by_id (int) AS SELECT name FROM driver_psql WHERE id = $1;
        EXECUTE by_id (2);
        DEALLOCATE by_id;
        COPY (SELECT * FROM driver_psql ORDER BY id) TO STDOUT;
        SELECT count(*) FROM driver_psql \gset
        SELECT :count + 1;
        SELECT 1 AS a \; SELECT 2 AS b;
    ";
    assert_eq!(psql(&url, script), "zwei\n1\tone\n2\tzwei\n3\tthree\n4\tfour\n5\n1\n2");
    assert!(psql(&url, r"\d driver_psql").contains("id|integer||not null|"));
    let failed = psql_output(&url, "SELECT * FROM no_such_table;");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("relation \"no_such_table\" does not exist"));
    psql(&url, "DROP TABLE driver_psql;");
    cancel_psql(&url);
}

/// psql turns SIGINT into a cancel request.
fn cancel_psql(url: &str) {
    let mut command = super::harness::shared_fleet().programs().command("psql");
    let mut child = command
        .args(["-X", "-c", "SELECT 'asleep'", "-c", "SELECT pg_sleep(60)", url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Before its first answer psql would simply end.
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(answers.any(|line| line.unwrap().contains("asleep")));
    super::harness::eventually("psql ends", Duration::from_secs(50), || {
        // A request that comes before its statement does nothing: it is sent until the statement ends.
        std::thread::sleep(Duration::from_millis(500));
        let ended = child.try_wait().unwrap().is_some();
        ended || !Command::new("sh").args(["-c", &format!("kill -s INT {}", child.id())]).status().unwrap().success()
    });
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("canceling statement due to user request"));
}

fn drive_tokio_postgres(target: Target) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, connection) = tokio_postgres::connect(&target.url(), NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        tables_and_transactions(&mut client).await;
        copies(&client).await;
        failures_and_pipelines(&client).await;
        cancels(&client).await;
        client.batch_execute("DROP TABLE driver_tokio").await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

async fn tables_and_transactions(client: &mut Client) {
    client
        .batch_execute("DROP TABLE IF EXISTS driver_tokio; CREATE TABLE driver_tokio (id int PRIMARY KEY, name text)")
        .await
        .unwrap();
    let insert = client.prepare("INSERT INTO driver_tokio VALUES ($1, $2)").await.unwrap();
    for id in 1..=10 {
        assert_eq!(client.execute(&insert, &[&id, &format!("name {id}")]).await.unwrap(), 1);
    }
    let select = client.prepare("SELECT name FROM driver_tokio WHERE id = $1").await.unwrap();
    for id in 1..=10 {
        assert_eq!(client.query_one(&select, &[&id]).await.unwrap().get::<_, String>(0), format!("name {id}"));
    }
    let transaction = client.transaction().await.unwrap();
    transaction.execute("DELETE FROM driver_tokio", &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.execute("DELETE FROM driver_tokio WHERE id = 10", &[]).await.unwrap();
    let portal = transaction.bind("SELECT id FROM driver_tokio ORDER BY id", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 4).await.unwrap().len(), 4);
    assert_eq!(transaction.query_portal(&portal, 0).await.unwrap().len(), 5);
    transaction.commit().await.unwrap();
    let count: i64 = client.query_one("SELECT count(*) FROM driver_tokio", &[]).await.unwrap().get(0);
    assert_eq!(count, 9);
}

async fn copies(client: &Client) {
    let sink = client.copy_in("COPY driver_tokio FROM STDIN").await.unwrap();
    pin_mut!(sink);
    for id in 100..1100 {
        sink.send(Bytes::from(format!("{id}\tcopied\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 1000);
    let stream = client.copy_out("COPY (SELECT id FROM driver_tokio WHERE id >= 100) TO STDOUT").await.unwrap();
    pin_mut!(stream);
    let mut lines = 0;
    while let Some(chunk) = stream.next().await {
        lines += chunk.unwrap().iter().filter(|byte| **byte == b'\n').count();
    }
    assert_eq!(lines, 1000);
}

async fn failures_and_pipelines(client: &Client) {
    for (wrong, code) in [("SELECT * FROM no_such_table", SqlState::UNDEFINED_TABLE), ("SELECT 1/0", SqlState::DIVISION_BY_ZERO)]
    {
        assert_eq!(client.simple_query(wrong).await.unwrap_err().code(), Some(&code));
        assert_eq!(client.query(wrong, &[]).await.unwrap_err().code(), Some(&code));
    }
    // Requests that are polled together go out together: a pipeline, with a failure in the middle.
    let select = client.prepare("SELECT 10 / $1::int").await.unwrap();
    let answers = futures_util::future::join_all([1, 2, 0, 5].iter().map(|by| {
        let select = &select;
        async move { client.query_one(select, &[by]).await.ok().map(|row| row.get::<_, i32>(0)) }
    }));
    assert_eq!(answers.await, [Some(10), Some(5), None, Some(2)]);
}

async fn cancels(client: &Client) {
    let token = client.cancel_token();
    let sleeping = client.batch_execute("SELECT pg_sleep(60)");
    pin_mut!(sleeping);
    // A request that comes before its statement does nothing, as with PostgreSQL: it is sent until the statement ends.
    let slept = loop {
        match tokio::time::timeout(Duration::from_millis(500), &mut sleeping).await {
            Ok(slept) => break slept,
            Err(_) => token.cancel_query(NoTls).await.unwrap(),
        }
    };
    assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    // A request that was still under way may reach this one.
    drop(client.batch_execute("SELECT 1").await);
    client.batch_execute("SELECT 1").await.unwrap();
}

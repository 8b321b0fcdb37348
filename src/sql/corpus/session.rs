#![cfg(test)]
use super::facts;
use crate::sql::{
    Access, Command, Discard, Isolation, Pins, SessionEffect, SessionEffect::*, StatementFacts, TransactionModes, WriteReason,
};

fn only(text: &str) -> StatementFacts {
    let facts = facts(text);
    assert_eq!(facts.statements.len(), 1, "{text}");
    facts.statements[0].clone()
}

fn set(name: &str, value: Option<&str>) -> Vec<SessionEffect> {
    vec![Set { name: name.into(), value: value.map(Into::into) }]
}

fn set_local(name: &str, value: Option<&str>) -> Vec<SessionEffect> {
    vec![SetLocal { name: name.into(), value: value.map(Into::into) }]
}

fn prepare(name: &str, body: std::ops::Range<usize>) -> Vec<SessionEffect> {
    vec![Prepare { name: name.into(), body }]
}

fn modes(read_only: Option<bool>, isolation: Option<Isolation>, deferrable: Option<bool>) -> TransactionModes {
    TransactionModes { read_only, isolation, deferrable }
}

#[test]
fn transactions() {
    use Isolation::*;
    let none = TransactionModes::default();
    for (text, expect) in [
        ("BEGIN", Command::Begin(none)),
        ("begin work;", Command::Begin(none)),
        ("BEGIN TRANSACTION READ ONLY", Command::Begin(modes(Some(true), None, None))),
        ("BEGIN READ WRITE", Command::Begin(modes(Some(false), None, None))),
        ("START TRANSACTION", Command::Begin(none)),
        (
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY DEFERRABLE",
            Command::Begin(modes(Some(true), Some(RepeatableRead), Some(true))),
        ),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE NOT DEFERRABLE", Command::Begin(modes(None, Some(Serializable), Some(false)))),
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", Command::Begin(modes(None, Some(ReadCommitted), None))),
        ("/* x */ BEGIN -- y", Command::Begin(none)),
        ("COMMIT", Command::Commit { chain: false }),
        ("END WORK", Command::Commit { chain: false }),
        ("COMMIT TRANSACTION AND CHAIN", Command::Commit { chain: true }),
        ("COMMIT AND NO CHAIN", Command::Commit { chain: false }),
        ("ROLLBACK", Command::Rollback { chain: false }),
        ("ABORT AND CHAIN", Command::Rollback { chain: true }),
        ("ROLLBACK TO a", Command::RollbackTo("a".into())),
        ("ROLLBACK WORK TO SAVEPOINT \"A b\"", Command::RollbackTo("A b".into())),
        ("ROLLBACK TO savepoint", Command::RollbackTo("savepoint".into())),
        ("SAVEPOINT Sp1", Command::Savepoint("sp1".into())),
        ("RELEASE a", Command::Release("a".into())),
        ("RELEASE SAVEPOINT a", Command::Release("a".into())),
        ("SET TRANSACTION READ WRITE", Command::SetTransaction(modes(Some(false), None, None))),
        ("SET LOCAL TRANSACTION READ ONLY", Command::SetTransaction(modes(Some(true), None, None))),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", Command::SetTransaction(modes(None, Some(Serializable), None))),
        ("SET transaction_read_only = off", Command::SetTransaction(modes(Some(false), None, None))),
        ("SET transaction_read_only TO 'on'", Command::SetTransaction(modes(Some(true), None, None))),
        ("SET transaction_isolation = 'repeatable read'", Command::SetTransaction(modes(None, Some(RepeatableRead), None))),
        ("SHOW Search_Path", Command::Show("search_path".into())),
        ("SHOW ALL", Command::Show("all".into())),
        ("SHOW TIME ZONE", Command::Show("timezone".into())),
        ("SHOW TRANSACTION ISOLATION LEVEL", Command::Show("transaction_isolation".into())),
        ("SHOW pgyard.lsn", Command::Show("pgyard.lsn".into())),
    ] {
        let statement = only(text);
        assert_eq!((statement.command, statement.access), (expect, Access::Session), "{text}");
        assert!(statement.effects.is_empty() && statement.pins.is_empty() && facts(text).needs_care, "{text}");
    }
    for text in ["PREPARE TRANSACTION 'a'", "COMMIT PREPARED 'a'", "ROLLBACK PREPARED 'a'"] {
        assert_eq!(only(text).command, Command::TwoPhase, "{text}");
    }
    for text in ["BEGIN SOMEHOW", "COMMIT AND", "ROLLBACK TO", "SAVEPOINT", "BEGIN READ ONLY,", "START", "COMMIT a"] {
        assert_eq!(only(text).access, Access::Write(WriteReason::Unparsed), "{text}");
    }
}

#[test]
fn settings() {
    for (text, expect) in [
        ("SET a = 1", set("a", Some("1"))),
        ("SET SESSION Work_Mem TO '64MB';", set("work_mem", Some("'64MB'"))),
        ("SET search_path TO a, \"B\" , c -- x", set("search_path", Some("a, \"B\" , c"))),
        ("SET search_path = DEFAULT", set("search_path", None)),
        ("SET app.tenant = 'x''y'", set("app.tenant", Some("'x''y'"))),
        ("SET local.x = 1", set("local.x", Some("1"))),
        ("SET session.x = 1", set("session.x", Some("1"))),
        ("SET TIME ZONE 'UTC'", set("timezone", Some("'UTC'"))),
        ("SET TIME ZONE LOCAL", set("timezone", None)),
        ("SET TIME ZONE DEFAULT", set("timezone", None)),
        ("SET TIME ZONE -7", set("timezone", Some("-7"))),
        ("SET SESSION TIME ZONE 'Asia/Tokyo'", set("timezone", Some("'Asia/Tokyo'"))),
        ("SET NAMES 'utf8'", set("client_encoding", Some("'utf8'"))),
        ("SET NAMES", set("client_encoding", None)),
        ("SET ROLE admin", set("role", Some("admin"))),
        ("SET ROLE NONE", set("role", Some("NONE"))),
        ("SET role = 'x'", set("role", Some("'x'"))),
        ("SET SESSION AUTHORIZATION x", set("session_authorization", Some("x"))),
        ("SET SESSION AUTHORIZATION DEFAULT", set("session_authorization", None)),
        ("SET SESSION SESSION AUTHORIZATION x", set("session_authorization", Some("x"))),
        ("SET SCHEMA 'x'", set("search_path", Some("'x'"))),
        ("SET XML OPTION DOCUMENT", set("xmloption", Some("DOCUMENT"))),
        ("SET pgyard.route = 'primary'", set("pgyard.route", Some("'primary'"))),
        ("SET LOCAL a = 1", set_local("a", Some("1"))),
        ("SET LOCAL ROLE x", set_local("role", Some("x"))),
        ("SET LOCAL TIME ZONE 'UTC'", set_local("timezone", Some("'UTC'"))),
        ("SET LOCAL a TO DEFAULT", set_local("a", None)),
        ("SET LOCAL SESSION AUTHORIZATION x", set_local("session_authorization", Some("x"))),
        ("SET CONSTRAINTS ALL DEFERRED", vec![]),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", set("default_transaction_read_only", Some("on"))),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            set("default_transaction_isolation", Some("'serializable'")),
        ),
        ("RESET a", vec![Reset("a".into())]),
        ("RESET a.B", vec![Reset("a.b".into())]),
        ("RESET ALL", vec![ResetAll]),
        ("RESET TIME ZONE", vec![Reset("timezone".into())]),
        ("RESET SESSION AUTHORIZATION", vec![Reset("session_authorization".into())]),
        ("RESET ROLE", vec![Reset("role".into())]),
    ] {
        let statement = only(text);
        assert_eq!((statement.effects, statement.access, statement.pins), (expect, Access::Session, Pins::NONE), "{text}");
    }
    for (text, pins) in [
        ("SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", Pins::PARAMETER),
        ("SET search_path = pg_temp, public", Pins::TEMPORARY),
        ("SET seed = 0.5", Pins::PARAMETER),
    ] {
        assert_eq!(only(text).pins, pins, "{text}");
    }
    for text in ["SET", "SET a", "SET a =", "SET a FROM CURRENT", "RESET", "RESET a b", "SHOW", "SET 1 = 2", "SET a.= 1"] {
        assert_eq!(only(text).access, Access::Write(WriteReason::Unparsed), "{text}");
    }
}

#[test]
fn what_stands_in_the_session() {
    let session = Access::Session;
    let bound = Access::Write(WriteReason::SessionBound);
    for (text, access, effects, pins) in [
        ("PREPARE a AS SELECT 1", session, prepare("a", 13..21), Pins::NONE),
        ("PREPARE A (int, numeric(1,2)) AS DELETE FROM t", session, prepare("a", 33..46), Pins::NONE),
        ("PREPARE transaction AS SELECT 1", session, prepare("transaction", 23..31), Pins::NONE),
        ("EXECUTE a", session, vec![Execute("a".into())], Pins::NONE),
        ("EXECUTE \"A\" (1, 2)", session, vec![Execute("A".into())], Pins::NONE),
        ("EXPLAIN ANALYZE EXECUTE a", session, vec![Execute("a".into())], Pins::NONE),
        ("EXPLAIN EXECUTE a(1)", session, vec![Execute("a".into())], Pins::NONE),
        ("EXECUTE a(lower('x'))", session, vec![Execute("a".into())], Pins::NONE),
        ("EXECUTE a(nextval('s'))", Access::Write(WriteReason::VolatileFunction), vec![Execute("a".into())], Pins::NONE),
        ("EXECUTE a(nobody_knows(1))", Access::Write(WriteReason::UnknownFunction), vec![Execute("a".into())], Pins::NONE),
        ("CREATE TABLE t AS EXECUTE a (1)", Access::Write(WriteReason::Utility), vec![Execute("a".into())], Pins::NONE),
        ("SELECT * FROM Pg_Prepared_Statements", Access::Server, vec![ListStatements], Pins::NONE),
        ("DEALLOCATE a", session, vec![Deallocate(Some("a".into()))], Pins::NONE),
        ("DEALLOCATE PREPARE a", session, vec![Deallocate(Some("a".into()))], Pins::NONE),
        ("DEALLOCATE prepare", session, vec![Deallocate(Some("prepare".into()))], Pins::NONE),
        ("DEALLOCATE PREPARE ALL", session, vec![Deallocate(None)], Pins::NONE),
        ("DISCARD ALL", session, vec![DiscardAll], Pins::NONE),
        ("DISCARD PLANS", session, vec![DiscardSome(Discard::Plans)], Pins::NONE),
        ("DISCARD SEQUENCES", session, vec![DiscardSome(Discard::Sequences)], Pins::NONE),
        ("DISCARD TEMPORARY", session, vec![DiscardSome(Discard::Temp)], Pins::NONE),
        ("LISTEN A", bound, vec![Listen("a".into())], Pins::LISTEN),
        ("UNLISTEN a", bound, vec![Unlisten(Some("a".into()))], Pins::NONE),
        ("UNLISTEN *", bound, vec![Unlisten(None)], Pins::NONE),
        ("NOTIFY a", bound, vec![], Pins::NONE),
        ("LOAD 'x'", bound, vec![], Pins::LOAD),
        ("DECLARE c CURSOR FOR SELECT 1", bound, vec![], Pins::NONE),
        ("DECLARE c BINARY NO SCROLL CURSOR WITH HOLD FOR SELECT 1", bound, vec![DeclareHold("c".into())], Pins::HOLD_CURSOR),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT lastval()", bound, vec![], Pins::SEQUENCE),
        ("CLOSE c", session, vec![CloseCursor(Some("c".into()))], Pins::NONE),
        ("CLOSE ALL", session, vec![CloseCursor(None)], Pins::NONE),
        ("FETCH 10 FROM c", session, vec![], Pins::NONE),
        ("MOVE BACKWARD ALL IN c", session, vec![], Pins::NONE),
    ] {
        let statement = only(text);
        assert_eq!((statement.access, statement.effects, statement.pins), (access, effects, pins), "{text}");
    }
}

#[test]
fn pins_of_functions_and_objects() {
    for (text, pins) in [
        ("SELECT pg_advisory_lock(1)", Pins::ADVISORY),
        ("SELECT pg_try_advisory_lock_shared(1)", Pins::ADVISORY),
        ("SELECT pg_advisory_xact_lock(1)", Pins::NONE),
        ("SELECT pg_advisory_unlock_all()", Pins::NONE),
        ("SELECT currval('s')", Pins::SEQUENCE),
        ("SELECT lastval()", Pins::SEQUENCE),
        ("SELECT nextval FROM t", Pins::NONE),
        ("INSERT INTO t VALUES (nextval('s'))", Pins::NONE),
        ("SELECT * FROM v_sequence", Pins::NONE),
        ("SELECT f_opaque()", Pins::OPAQUE),
        ("SELECT (t).f_opaque FROM t", Pins::OPAQUE),
        ("SELECT f_calls_opaque()", Pins::OPAQUE),
        ("SELECT f_python()", Pins::OPAQUE),
        ("SELECT agg_opaque(a) FROM t", Pins::OPAQUE),
        ("SELECT f_volatile()", Pins::NONE),
        ("SELECT dblink_exec('x')", Pins::OPAQUE),
        ("SELECT f_own_c()", Pins::OPAQUE),
        ("SELECT f_own_c_stable()", Pins::NONE),
        ("SELECT f_extension_c()", Pins::NONE),
        ("UPDATE t_c_trigger SET a = 1", Pins::OPAQUE),
        ("UPDATE t_extension_trigger SET a = 1", Pins::NONE),
        ("SELECT setseed(0.1)", Pins::OPAQUE),
        ("INSERT INTO t_trigger VALUES (1)", Pins::OPAQUE),
        ("INSERT INTO t_default VALUES (1)", Pins::OPAQUE),
        ("COPY t_trigger FROM STDIN", Pins::OPAQUE),
        ("COPY t FROM STDIN", Pins::NONE),
        ("INSERT INTO t_plain_trigger VALUES (1)", Pins::NONE),
        ("CALL unknown_procedure()", Pins::OPAQUE),
        ("CALL f_volatile()", Pins::NONE),
        ("DO $$ BEGIN SET a = 1; END $$", Pins::OPAQUE),
        ("DO $$ BEGIN PERFORM unknown_function(); END $$", Pins::OPAQUE),
        ("DO $$ BEGIN PERFORM f_opaque(); END $$", Pins::OPAQUE),
        ("DO LANGUAGE plpython3u $$ x $$", Pins::OPAQUE),
        ("DO E'BEGIN \\x41 END'", Pins::OPAQUE),
        ("DO LANGUAGE plpgsql $$ BEGIN UPDATE t SET a = lower(b); END $$", Pins::NONE),
        ("CREATE TEMP TABLE x (a int)", Pins::TEMPORARY),
        ("CREATE TEMPORARY VIEW x AS SELECT 1", Pins::TEMPORARY),
        ("CREATE OR REPLACE TEMP VIEW x AS SELECT 1", Pins::TEMPORARY),
        ("CREATE LOCAL TEMP SEQUENCE x", Pins::TEMPORARY),
        ("CREATE TABLE pg_temp.x (a int)", Pins::TEMPORARY),
        ("CREATE FUNCTION \"pg_temp\".x() RETURNS int LANGUAGE sql AS 'select 1'", Pins::TEMPORARY),
        ("CREATE TABLE x (temp int)", Pins::NONE),
        ("SELECT a INTO TEMP x FROM t", Pins::TEMPORARY),
        ("SELECT temp INTO x FROM t", Pins::NONE),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", Pins::TEMPORARY),
        ("EXPLAIN CREATE TEMP TABLE x AS SELECT 1", Pins::NONE),
        ("SELECT 'pg_advisory_lock(1)'", Pins::NONE),
    ] {
        assert_eq!(only(text).pins, pins, "{text}");
        assert_eq!(facts(text).needs_care, !pins.is_empty(), "{text}");
    }
}

#[test]
fn set_config_is_followed_where_it_can_be() {
    for (text, effects, pins) in [
        ("SELECT set_config('A.b', 'c''d', false)", set("a.b", Some("'c''d'")), Pins::NONE),
        ("SELECT pg_catalog.set_config('a.b', NULL, false) AS x", set("a.b", None), Pins::NONE),
        ("SELECT set_config('a.b', $$c'd$$, FALSE)", set("a.b", Some("'c''d'")), Pins::NONE),
        ("SELECT set_config('a.b', 'c', true)", set_local("a.b", Some("'c'")), Pins::NONE),
        ("SELECT set_config('a.b', $1, true)", set_local("a.b", None), Pins::NONE),
        ("SELECT set_config($1, $2, true)", set_local("", None), Pins::NONE),
        ("SELECT set_config('a.b', $1, false)", vec![], Pins::PARAMETER),
        ("SELECT set_config($1, 'c', false)", vec![], Pins::PARAMETER),
        ("SELECT set_config('a.b', 'c', $1)", vec![], Pins::PARAMETER),
        ("SELECT set_config('a' || 'b', 'c', false)", vec![], Pins::PARAMETER),
        ("SELECT set_config('a.b', f(1, 2), false)", vec![], Pins::PARAMETER),
        ("SELECT set_config('a.b', 'c', false) FROM t", vec![], Pins::PARAMETER),
        ("SELECT set_config('a.b', 'c', false) WHERE false", vec![], Pins::PARAMETER),
        ("SELECT CASE WHEN x THEN set_config('a.b', 'c', false) END", vec![], Pins::PARAMETER),
        ("INSERT INTO t VALUES (set_config('a.b', 'c', false))", vec![], Pins::PARAMETER),
        ("SELECT set_config('a.b', 'c'", vec![], Pins::PARAMETER),
    ] {
        let statement = only(text);
        assert_eq!((statement.effects, statement.pins), (effects, pins), "{text}");
        assert!(matches!(statement.access, Access::Write(_)), "{text}");
    }
}

#[test]
fn what_defines_code() {
    for (text, expect) in [
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'", true),
        ("CREATE TEMP TABLE x (a int); CREATE TRIGGER r BEFORE INSERT ON x EXECUTE FUNCTION f()", true),
        ("CREATE EXTENSION hstore", true),
        ("ALTER TABLE t ENABLE TRIGGER ALL", true),
        ("CREATE OR REPLACE PROCEDURE p() LANGUAGE sql AS ''", true),
        ("CREATE RULE r AS ON INSERT TO t DO NOTHING", true),
        ("DO $$ BEGIN EXECUTE 'x'; END $$", true),
        ("CREATE TABLE t (id serial, function text DEFAULT 'x')", true),
        ("CREATE TABLE t (id serial, a text DEFAULT 'function')", false),
        ("GRANT EXECUTE ON FUNCTION f TO x", false),
        ("DROP FUNCTION f", false),
        ("SELECT 1 AS function", false),
        ("INSERT INTO t VALUES (1)", false),
    ] {
        assert_eq!(facts(text).defines_code, expect, "{text}");
    }
}

#[test]
fn what_changes_defaults() {
    for (text, expect) in [
        ("ALTER ROLE app SET work_mem = '8MB'", true),
        ("alter user \"App\" in database d reset all", true),
        ("ALTER ROLE ALL SET DateStyle = 'German'", true),
        ("ALTER DATABASE d SET search_path = a, b", true),
        ("ALTER ROLE app NOSUPERUSER", true),
        ("DROP ROLE app", true),
        ("BEGIN; ALTER DATABASE d RESET work_mem; COMMIT", true),
        ("ALTER ROLE app PASSWORD 'x'", false),
        ("ALTER ROLE app VALID UNTIL 'infinity'", false),
        ("ALTER TABLE t SET (fillfactor = 50)", false),
        ("DROP TABLE role", false),
        ("CREATE ROLE app", false),
        ("SET work_mem = '8MB'", false),
    ] {
        let changes = facts(text).statements.iter().any(|one| one.effects.contains(&SessionEffect::ChangeDefaults));
        assert_eq!(changes, expect, "{text}");
    }
}

#[test]
fn what_needs_a_database_alone() {
    for (text, expect) in [
        ("DROP DATABASE old", Some("old")),
        ("drop database if exists \"Old\" with (force)", Some("Old")),
        ("ALTER DATABASE old RENAME TO new", Some("old")),
        ("ALTER DATABASE old SET TABLESPACE pg_default", Some("old")),
        ("CREATE DATABASE new WITH OWNER app TEMPLATE = old", Some("old")),
        ("CREATE DATABASE new TEMPLATE old", Some("old")),
        ("CREATE DATABASE new", None),
        ("ALTER DATABASE old OWNER TO app", None),
        ("ALTER DATABASE old SET work_mem = '1MB'", None),
        ("DROP TABLE database", None),
    ] {
        let facts = facts(text);
        let found = facts.statements[0].effects.iter().find_map(|effect| match effect {
            SessionEffect::NeedDatabaseAlone(name) => Some(&**name),
            _ => None,
        });
        assert_eq!(found, expect, "{text}");
    }
}

#[test]
fn catalogue_changes_and_copies() {
    for (text, expect) in [
        ("CREATE VIEW v AS SELECT 1", true),
        ("ALTER FUNCTION f() STABLE", true),
        ("DROP TABLE t", true),
        ("GRANT SELECT ON t TO x", true),
        ("CREATE TEMP TABLE t (a int)", true),
        ("SELECT * INTO x FROM t", true),
        ("BEGIN; DROP TABLE t; COMMIT", true),
        ("DO $$ BEGIN CREATE TABLE x (); END $$", true),
        ("DO $$ BEGIN EXECUTE 'x'; END $$", true),
        ("DO $$ BEGIN UPDATE t SET a = 'create'; END $$", false),
        ("WITH x AS (INSERT INTO t VALUES (1)) SELECT 1", false),
        ("INSERT INTO t VALUES (1)", false),
        ("VACUUM t", false),
        ("SELECT 1", false),
    ] {
        assert_eq!(facts(text).changes_catalogue, expect, "{text}");
    }
    for (text, expect) in [
        ("COPY t FROM STDIN", Command::CopyIn),
        ("COPY t FROM STDOUT", Command::CopyIn),
        ("COPY t TO STDOUT", Command::CopyOut),
        ("COPY (SELECT 1) TO STDOUT", Command::CopyOut),
        ("COPY t FROM '/x'", Command::Other),
        ("COPY t TO '/x'", Command::Other),
        ("SELECT 1", Command::Query),
        ("EXPLAIN DELETE FROM t", Command::Query),
        ("INSERT INTO t VALUES (1)", Command::Other),
    ] {
        assert_eq!(only(text).command, expect, "{text}");
    }
}

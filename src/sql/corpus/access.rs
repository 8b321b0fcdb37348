#![cfg(test)]
use super::{catalogue, facts};
use crate::sql::{Access, Access::*, Catalogue, Lexing, Pins, WriteReason, WriteReason::*, classify};

fn check_all(expect: Access, texts: &[&str]) {
    let catalogue = catalogue();
    for text in texts {
        assert_eq!(classify(text.as_bytes(), &catalogue, Lexing::default()).access, expect, "{text}");
    }
}

fn check_writes(table: &[(&str, WriteReason)]) {
    let catalogue = catalogue();
    for (text, reason) in table {
        assert_eq!(classify(text.as_bytes(), &catalogue, Lexing::default()).access, Write(*reason), "{text}");
    }
}

#[test]
fn plain_reads() {
    check_all(
        Read,
        &[
            "SELECT abalance FROM pgbench_accounts WHERE aid = 5",
            "SELECT abalance FROM pgbench_accounts WHERE aid = $1;",
            "select 1",
            "select 1;;",
            ";select 1",
            "",
            "  -- nothing\n",
            "SELECT",
            "SELECT * FROM t",
            "TABLE t",
            "TABLE ONLY t",
            "VALUES (1, 'a'), (2, 'b')",
            "(SELECT 1)",
            "((SELECT 1) UNION ALL (SELECT 2)) ORDER BY 1",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "WITH x AS MATERIALIZED (SELECT 1) SELECT * FROM x",
            "WITH x AS NOT MATERIALIZED (SELECT 1) SELECT * FROM x",
            "WITH RECURSIVE x (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM x WHERE n < 5) SELECT * FROM x",
            "WITH a (x) AS (SELECT 1), b (y) AS (SELECT 2) SELECT * FROM a JOIN b ON x = y",
            "SELECT count(*) FROM t WHERE a IN (1, 2, 3) AND (b > 1 OR c IS NULL) AND NOT (d LIKE 'x%')",
            "SELECT a, count(*) FILTER (WHERE b > 0), sum(c) OVER (PARTITION BY d ORDER BY e) FROM t GROUP BY a HAVING count(*) > 1",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t",
            "SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY a)",
            "SELECT a FROM t GROUP BY GROUPING SETS ((a), ())",
            "SELECT a FROM t GROUP BY ROLLUP (a, b), CUBE (c)",
            "SELECT DISTINCT ON (a) a, lower(b) FROM t ORDER BY a",
            "SELECT a FROM t LIMIT 10 OFFSET 5",
            "SELECT a FROM t FETCH FIRST 5 ROWS ONLY",
            "SELECT a::varchar(10), CAST(b AS numeric(10, 2)), c::text COLLATE \"C\" FROM t",
            "SELECT extract(epoch FROM a), EXTRACT(YEAR FROM now()) FROM t",
            "SELECT substring(a FROM 1 FOR 3), substring(a for 3), overlay(a placing 'x' from 1 for 2) FROM t",
            "SELECT position('a' in b), trim(both 'x' from c) FROM t",
            "SELECT a BETWEEN SYMMETRIC 1 AND 2 FROM t",
            "SELECT coalesce(a, b), nullif(a, b), greatest(1, 2), least(1, 2) FROM t",
            "SELECT CASE WHEN a THEN 1 ELSE 2 END FROM t",
            "SELECT (SELECT max(a) FROM u WHERE u.id = t.id) FROM t",
            "SELECT EXISTS (SELECT 1 FROM t)",
            "SELECT * FROM t WHERE a = ANY ($1) AND b <> ALL (ARRAY[1, 2])",
            "SELECT * FROM t WHERE (a, b) IN (SELECT c, d FROM u)",
            "SELECT * FROM generate_series(1, 10) AS g(i)",
            "SELECT * FROM generate_series(1, 10) g(i)",
            "SELECT * FROM unnest($1::int[], $2::text[]) WITH ORDINALITY AS u (a, b, n)",
            "SELECT * FROM jsonb_to_recordset('[]') AS x(a int, b text)",
            "SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3)) AS x(a, b)",
            "SELECT * FROM t CROSS JOIN LATERAL (SELECT 1) l NATURAL JOIN u",
            "SELECT * FROM t LEFT JOIN u USING (id) FULL OUTER JOIN (SELECT 1 AS id) v USING (id)",
            "SELECT * FROM t TABLESAMPLE bernoulli (10) REPEATABLE (5)",
            "SELECT * FROM t TABLESAMPLE system (10)",
            "SELECT a -> 'b' ->> 'c', d @> '{}', e ? 'f', g #>> '{h}' FROM t",
            "SELECT a OPERATOR(pg_catalog.+) b FROM t",
            "SELECT current_timestamp(3), localtime, current_user, session_user, now(), current_database()",
            "SELECT random(), clock_timestamp(), timeofday(), gen_random_uuid(), statement_timestamp()",
            "SELECT pg_sleep(1), pg_sleep_for('1s'), pg_sleep_until('tomorrow')",
            "SELECT pg_relation_size('t'), pg_size_pretty(pg_total_relation_size('t'::regclass))",
            "SELECT pg_catalog.lower('A'), pg_catalog.\"upper\"('a')",
            "SELECT public.f_stable(1)",
            "SELECT * FROM f_stable() AS x",
            "SELECT uuid_generate_v4()",
            "SELECT current_setting('cluster_name')",
            "SELECT current_setting('cluster_name', true), inet_server_port()",
            "SELECT version()",
            "SELECT set FROM t",
            "SELECT \"into\" FROM t",
            "SELECT \"update\", t.delete, t.into FROM t",
            "SELECT update, insert FROM t",
            "SELECT a AS delete FROM t",
            "SELECT a, lock, share, key, no FROM t WHERE lock = 1",
            "SELECT 'INSERT INTO t', $$DELETE FROM t$$, 'it''s FOR UPDATE' FROM t",
            "SELECT 1 -- FOR UPDATE\n",
            "SELECT /* INSERT INTO t; */ 1",
            "SELECT E'\\' FOR UPDATE' FROM t",
            "SELECT 'nextval(''s'')'",
            "SELECT '1'::regclass, 't'::regclass",
            "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace",
            "SELECT * FROM information_schema.tables",
            "SELECT * FROM pg_tables",
            "SELECT * FROM pg_stats",
            "SELECT * FROM v_plain",
            "SELECT * FROM v_tenant",
            "SELECT * FROM t_tenant",
            "SELECT * FROM t_domain",
            "SELECT a::int4, b::int FROM t",
            "SELECT agg_plain(a) FROM t",
            "SELECT 1::d_plain",
            "SELECT größe FROM maße WHERE \"Straße\" = 'ß'",
            "SELECT 1into2 FROM t",
            "SELECT count(*) FROM t AS x (a, b)",
            "SELECT * FROM t x (a, b)",
            "COPY t TO STDOUT",
            "COPY t (a, b) TO STDOUT WITH (FORMAT csv, HEADER)",
            "COPY public.t TO STDOUT",
            "COPY BINARY t TO STDOUT",
            "COPY t TO STDIN",
            "COPY (SELECT * FROM t) TO STDOUT",
            "COPY (SELECT lower(a) FROM t) TO STDOUT (FORMAT csv, FORCE_QUOTE (a))",
            "COPY (VALUES (1)) TO STDOUT",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT * FROM t",
            "EXPLAIN ANALYZE VERBOSE SELECT * FROM t",
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM t",
            "EXPLAIN (SELECT 1)",
            "EXPLAIN VERBOSE WITH x AS (SELECT 1) TABLE x",
            "SELECT 1; SELECT 2",
            "SELECT jsonb_build_object('a', (1)), array_agg(x ORDER BY x) FROM t",
            "SELECT * FROM xmltable('/a' PASSING '<a/>' COLUMNS x text, n FOR ORDINALITY)",
            "SELECT timestamp '2020-01-01', interval '1 day', date '2020-01-01', interval(3) '1'",
            "SELECT a FROM t WHERE b SIMILAR TO ('x') AND c ILIKE ('y') ESCAPE ('z')",
            "SELECT a AT TIME ZONE ('UTC') FROM t",
            "SELECT string_agg(a, ',') FROM t WHERE b ~* 'x' AND c !~ 'y'",
            "SELECT left(a, 3), right(b, 2), replace(c, 'x', 'y') FROM t",
            "SELECT x.\"y\".z, (t).a, (t.*) FROM x.t",
            "SELECT to_char(now(), 'YYYY'), date_trunc('day', created_at) FROM orders WHERE deleted_at IS NULL",
            "SELECT \"users\".* FROM \"users\" WHERE \"users\".\"id\" = $1 ORDER BY \"users\".\"id\" ASC LIMIT $2",
            "SELECT EXISTS(SELECT 1 FROM pg_catalog.pg_type WHERE typname = $1)",
            "SELECT has_table_privilege('t', 'INSERT')",
            "SELECT regexp_replace(a, 'x', 'y', 'g') FROM t UNION SELECT b FROM u EXCEPT SELECT c FROM v INTERSECT SELECT d FROM w",
        ],
    );
}

#[test]
fn what_describes_a_server_or_session() {
    check_all(
        Server,
        &[
            "SELECT pg_backend_pid()",
            "SELECT pg_is_in_recovery()",
            "SELECT pg_catalog.pg_is_in_recovery()",
            "SELECT inet_server_addr()",
            "SELECT * FROM pg_stat_activity",
            "SELECT * FROM pg_catalog.pg_stat_replication",
            "SELECT * FROM pg_locks",
            "SELECT * FROM pg_cursors",
            "SELECT * FROM pg_prepared_statements",
            "SELECT * FROM pg_settings",
            "SELECT name FROM PG_SETTINGS WHERE name = 'x'",
            "SELECT * FROM v_server",
            "SELECT current_setting('port')",
            "SELECT current_setting('cluster_name'), current_setting('port')",
            "SELECT current_setting($1)",
            "SELECT current_setting('cluster_name' || 'x')",
            "SELECT txid_current_if_assigned()",
            "SELECT pg_current_snapshot()",
            "SELECT pg_last_wal_replay_lsn()",
            "SELECT pg_postmaster_start_time()",
            "COPY (SELECT * FROM pg_stat_activity) TO STDOUT",
            "EXPLAIN SELECT pg_backend_pid()",
        ],
    );
}

#[test]
fn what_only_looks_like_a_read() {
    check_writes(&[
        ("SELECT nextval('s')", VolatileFunction),
        ("SELECT pg_catalog.nextval('s')", VolatileFunction),
        ("SELECT \"nextval\"('s')", VolatileFunction),
        ("SELECT NEXTVAL ( 's' )", VolatileFunction),
        ("SELECT nextval/**/('s')", VolatileFunction),
        ("SELECT nextval\n--x\n('s')", VolatileFunction),
        ("SELECT u&\"nextval\"('s')", SuspectObject),
        ("VALUES (nextval('s'))", VolatileFunction),
        ("SELECT (SELECT (SELECT setval('s', 1)))", VolatileFunction),
        ("SELECT currval('s')", VolatileFunction),
        ("SELECT lastval()", VolatileFunction),
        ("SELECT agg_plain(a), agg_opaque(a) FROM t", SessionBound),
        ("SELECT pg_advisory_lock(1)", SessionBound),
        ("SELECT pg_catalog.pg_try_advisory_lock(77)", SessionBound),
        ("SELECT 1 WHERE pg_try_advisory_xact_lock(1)", SessionBound),
        ("SELECT coalesce(pg_advisory_unlock(1), false)", SessionBound),
        ("SELECT pg_advisory_unlock_all()", SessionBound),
        ("SELECT pg_notify('a', 'b')", SessionBound),
        ("SELECT pg_export_snapshot()", SessionBound),
        ("SELECT lo_create(0)", VolatileFunction),
        ("SELECT lo_import('/x')", VolatileFunction),
        ("SELECT lo_get(1)", VolatileFunction),
        ("SELECT txid_current()", VolatileFunction),
        ("SELECT pg_current_xact_id()", VolatileFunction),
        ("SELECT set_config('a.b', 'c', false)", VolatileFunction),
        ("SELECT setseed(0.5)", VolatileFunction),
        ("SELECT query_to_xml('select nextval(''s'')', true, true, '')", VolatileFunction),
        ("SELECT table_to_xml('v_sequence', true, true, '')", VolatileFunction),
        ("SELECT * FROM ts_stat('select f_volatile()')", VolatileFunction),
        ("SELECT pg_terminate_backend(1)", VolatileFunction),
        ("SELECT pg_switch_wal()", VolatileFunction),
        ("SELECT pg_current_wal_lsn()", VolatileFunction),
        ("SELECT pg_stat_reset()", VolatileFunction),
        ("SELECT f_volatile()", VolatileFunction),
        ("SELECT * FROM f_volatile()", VolatileFunction),
        ("SELECT * FROM t, LATERAL public.f_volatile(t.a) x", VolatileFunction),
        ("SELECT t.f_volatile FROM t", VolatileFunction),
        ("SELECT (t).f_volatile FROM t", VolatileFunction),
        ("SELECT \"F_Quoted\"()", VolatileFunction),
        ("SELECT mixed(1)", VolatileFunction),
        ("SELECT public.mixed(1)", VolatileFunction),
        ("SELECT dblink_exec('x')", VolatileFunction),
        ("SELECT F_Quoted()", UnknownFunction),
        ("SELECT nobody_knows(1)", UnknownFunction),
        ("SELECT lower(nobody_knows(1))", UnknownFunction),
        ("SELECT * FROM nobody_knows(1) AS x(a)", UnknownFunction),
        ("SELECT DISTINCT ON (a) nobody_knows(1) FROM t", UnknownFunction),
        ("SELECT (a) OPERATOR(pg_catalog.+) nobody_knows(1) FROM t", UnknownFunction),
        ("SELECT pg_catalog.varying(1)", UnknownFunction),
        ("SELECT * FROM v_sequence", SuspectObject),
        ("SELECT * FROM v_over_view", SuspectObject),
        ("SELECT * FROM public.\"v_over_view\"", SuspectObject),
        ("TABLE v_sequence", SuspectObject),
        ("COPY (TABLE v_sequence) TO STDOUT", SuspectObject),
        ("SELECT * FROM v_locks", SuspectObject),
        ("SELECT * FROM v_operator", SuspectObject),
        ("SELECT last_value FROM s", SuspectObject),
        ("SELECT * FROM t_unlogged", SuspectObject),
        ("SELECT * FROM t_foreign", SuspectObject),
        ("SELECT * FROM t_parent", SuspectObject),
        ("SELECT * FROM t_policy", SuspectObject),
        ("COPY t_policy TO STDOUT", SuspectObject),
        ("SELECT * FROM pg_sequences", SuspectObject),
        ("SELECT 1::d_volatile", SuspectObject),
        ("SELECT CAST(1 AS d_over)", SuspectObject),
        ("SELECT d_volatile '1'", SuspectObject),
        ("SELECT NULL::t_domain", SuspectObject),
        ("SELECT t_domain '(1)'", SuspectObject),
        ("SELECT * FROM t_cast", SuspectObject),
        ("SELECT a::c_target FROM t", SuspectObject),
        ("SELECT a::bigint FROM t", SuspectObject),
        ("SELECT f_default()", SuspectObject),
        ("SELECT agg_volatile(a) FROM t", VolatileFunction),
        ("SELECT a <~~> b FROM t", SuspectObject),
        ("SELECT a OPERATOR(public.<~~>) b FROM t", SuspectObject),
        ("SELECT a<~~>-b FROM t", SuspectObject),
        ("SELECT * INTO x FROM t", Nested),
        ("SELECT INTO x FROM t", Nested),
        ("SELECT 1INTO x", Nested),
        ("SELECT a INTO TEMP x FROM t", Nested),
        ("SELECT * FROM t FOR UPDATE", Lock),
        ("SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", Lock),
        ("SELECT * FROM t FOR SHARE", Lock),
        ("SELECT * FROM t FOR KEY SHARE", Lock),
        ("SELECT * FROM (SELECT * FROM t FOR/**/UPDATE) x", Lock),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM t for share of t nowait)", Lock),
        ("(SELECT 1 FROM t) FOR UPDATE", Lock),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x", Nested),
        ("WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x", Nested),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", Nested),
        ("WITH x AS MATERIALIZED (DELETE FROM t RETURNING *) SELECT * FROM x", Nested),
        ("WITH x AS (WITH y AS (SELECT 1) DELETE FROM t RETURNING *) SELECT * FROM x", Nested),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", Nested),
        ("WITH x AS (SELECT 1) DELETE FROM t USING x", Nested),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", Nested),
        ("WITH x AS (SELECT 1) MERGE INTO t USING x ON true WHEN MATCHED THEN DELETE", Nested),
        ("EXPLAIN ANALYZE UPDATE t SET a = 1", Nested),
        ("EXPLAIN (ANALYZE) DELETE FROM t", Nested),
        ("EXPLAIN (FORMAT json, ANALYZE true) INSERT INTO t VALUES (1)", Nested),
        ("EXPLAIN UPDATE t SET a = 1", Nested),
        ("EXPLAIN ANALYZE SELECT nextval('s')", VolatileFunction),
        ("EXPLAIN CREATE TABLE x AS SELECT 1", Utility),
        ("EXPLAIN ANALYZE (SELECT * FROM t FOR UPDATE)", Lock),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", Nested),
        ("COPY (INSERT INTO t VALUES (1) RETURNING *) TO STDOUT", Nested),
        ("COPY (SELECT nextval('s')) TO STDOUT", VolatileFunction),
        ("COPY t TO '/tmp/x'", ServerFile),
        ("COPY t TO PROGRAM 'cat'", ServerFile),
        ("COPY (SELECT 1) TO '/tmp/x' WITH (FORMAT csv)", ServerFile),
        ("SELECT '/* pgyard: replica */', nextval('s')", VolatileFunction),
        ("SELECT 1 \\; DELETE FROM t", Unparsed),
        ("SELECT 'unterminated", Unparsed),
        ("SELECT /* unterminated", Unparsed),
        ("SELECT $x$ unterminated", Unparsed),
        ("SELECT 1 \u{0}", Unparsed),
        ("42", Unparsed),
        ("foo bar", Unparsed),
        ("SELECT delete FROM t x y z (1", Unparsed),
    ]);
}

#[test]
fn commands_that_write() {
    check_writes(&[
        ("INSERT INTO t VALUES (1)", WriteReason::Command),
        ("INSERT INTO t (a) SELECT 1 ON CONFLICT (a) DO UPDATE SET a = 1", WriteReason::Command),
        ("UPDATE t SET a = 1 WHERE b = 2", WriteReason::Command),
        ("DELETE FROM t", WriteReason::Command),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", WriteReason::Command),
        ("TRUNCATE t", WriteReason::Command),
        ("COPY t FROM STDIN", WriteReason::Command),
        ("COPY t FROM '/tmp/x'", WriteReason::Command),
        ("COPY t (a) FROM STDIN WITH (FORMAT csv) WHERE a > 1", WriteReason::Command),
        ("CALL p()", WriteReason::Command),
        ("DO $$ BEGIN END $$", WriteReason::Command),
        ("LOCK TABLE t", Lock),
        ("CREATE TABLE t (a int)", Utility),
        ("CREATE INDEX CONCURRENTLY i ON t (a)", Utility),
        ("CREATE TABLE x AS SELECT 1", Utility),
        ("ALTER TABLE t ADD b int", Utility),
        ("DROP TABLE t", Utility),
        ("GRANT SELECT ON t TO x", Utility),
        ("REVOKE ALL ON t FROM x", Utility),
        ("VACUUM t", Utility),
        ("ANALYZE", Utility),
        ("REFRESH MATERIALIZED VIEW m", Utility),
        ("REINDEX TABLE t", Utility),
        ("COMMENT ON TABLE t IS 'x'", Utility),
        ("CHECKPOINT", Utility),
        ("PREPARE TRANSACTION 'x'", Utility),
        ("COMMIT PREPARED 'x'", Utility),
        ("ROLLBACK PREPARED 'x'", Utility),
        ("CREATE TEMP TABLE x (a int)", SessionBound),
        ("LISTEN a", SessionBound),
        ("UNLISTEN *", SessionBound),
        ("NOTIFY a, 'b'", SessionBound),
        ("DECLARE c CURSOR FOR SELECT 1", SessionBound),
        ("LOAD 'x'", SessionBound),
        ("SET TRANSACTION SNAPSHOT 'x'", SessionBound),
        ("SELECT 1; DELETE FROM t", SeveralStatements),
        ("BEGIN; INSERT INTO t VALUES (1); COMMIT", SeveralStatements),
        ("DELETE FROM t; DELETE FROM u", WriteReason::Command),
        ("CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END", Utility),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v)", Utility),
    ]);
}

#[test]
fn statements_are_told_apart() {
    for (text, count) in [
        ("SELECT 1; SELECT 2;", 2),
        ("SELECT ';'; SELECT $$;$$ -- ;\n", 2),
        ("CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3", 2),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v); SELECT 3", 2),
        ("CREATE FUNCTION g() RETURNS int AS 'begin atomic' LANGUAGE sql; SELECT 3", 2),
        (" ; ;", 0),
    ] {
        let facts = facts(text);
        assert_eq!(facts.statements.len(), count, "{text}");
        for statement in &facts.statements {
            let part = &text[statement.span.clone()];
            assert!(!part.is_empty() && part.trim() == part && !part.ends_with(';'), "{part}");
        }
    }
}

#[test]
fn an_unsafe_text_goes_to_the_primary() {
    let catalogue = catalogue();
    let backslashes = Lexing { standard_conforming_strings: false, ascii_safe_encoding: true };
    let halves = Lexing { standard_conforming_strings: true, ascii_safe_encoding: false };
    for (text, lexing, expect) in [
        ("SELECT 'a'", backslashes, Read),
        (r"SELECT 'a\'; DELETE FROM t; --'", backslashes, Write(UnsafeLexing)),
        (r"SELECT '\'", Lexing::default(), Read),
        ("SELECT 'a'", halves, Read),
        ("SELECT 'ä'", halves, Write(UnsafeLexing)),
        ("SELECT 'ä'", Lexing::default(), Read),
    ] {
        assert_eq!(classify(text.as_bytes(), &catalogue, lexing).access, expect, "{text}");
    }
    assert_eq!(classify(r"SET x.y = 'ä\'".as_bytes(), &catalogue, halves).pins, Pins::OPAQUE);
    assert_eq!(classify("SET x.y = 'ä'".as_bytes(), &catalogue, halves).statements[0].effects.len(), 1);
}

#[test]
fn without_a_catalogue_only_known_functions_are_reads() {
    let catalogue = Catalogue::builtin();
    assert!(!catalogue.is_complete());
    for (text, expect) in [
        ("SELECT abalance FROM pgbench_accounts WHERE aid = 5", Read),
        ("SELECT lower(a), count(*) FROM t", Read),
        ("SELECT f_stable()", Write(UnknownFunction)),
        ("SELECT nextval('s')", Write(VolatileFunction)),
        ("SELECT * FROM pg_stat_activity", Server),
    ] {
        assert_eq!(classify(text.as_bytes(), &catalogue, Lexing::default()).access, expect, "{text}");
    }
    assert!(!classify(b"INSERT INTO t VALUES (1)", &catalogue, Lexing::default()).statements[0].plain_write);
}

#[test]
fn a_volatile_equality_taints_what_uses_it_silently() {
    let row = |name: &str| [Some("operator".to_owned()), None, Some(name.to_owned()), Some("f".to_owned()), None, None, None];
    let catalogue = Catalogue::from_rows(["=", "<"].map(row));
    for (text, read) in [
        ("SELECT a FROM t WHERE a = 1", false),
        ("SELECT a FROM t WHERE a IN (1)", false),
        ("SELECT DISTINCT a FROM t", false),
        ("SELECT a FROM t ORDER BY a", false),
        ("SELECT a FROM t NATURAL JOIN u", false),
        ("SELECT a FROM t WHERE a > 1", true),
    ] {
        assert_eq!(classify(text.as_bytes(), &catalogue, Lexing::default()).access == Read, read, "{text}");
    }
}

#[test]
fn plain_writes() {
    let catalogue = catalogue();
    for (text, expect) in [
        ("INSERT INTO t VALUES (1)", true),
        ("INSERT INTO public.t (a, b) VALUES ($1, lower($2)), (3, now()) RETURNING a", true),
        ("INSERT INTO \"T\" (a) SELECT b FROM u WHERE c IN (1, 2)", true),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET b = excluded.b", true),
        ("UPDATE t SET a = a + $1 WHERE id = $2", true),
        ("UPDATE t SET (a, b) = (1, 2)", true),
        ("DELETE FROM t WHERE id = ANY ($1)", true),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)", true),
        ("INSERT INTO t_plain_trigger VALUES (1)", true),
        ("INSERT INTO t VALUES (random())", true),
        ("INSERT INTO t VALUES (nextval('s'))", false),
        ("INSERT INTO t VALUES (f_volatile())", false),
        ("INSERT INTO t VALUES (f_python())", false),
        ("INSERT INTO t VALUES (unknown_function())", false),
        ("INSERT INTO t_foreign VALUES (1)", false),
        ("INSERT INTO t_trigger VALUES (1)", false),
        ("INSERT INTO t_default VALUES (1)", false),
        ("INSERT INTO t WITH x AS (DELETE FROM u RETURNING *) SELECT * FROM x", false),
        ("TRUNCATE t", false),
        ("SELECT 1", false),
    ] {
        assert_eq!(classify(text.as_bytes(), &catalogue, Lexing::default()).statements[0].plain_write, expect, "{text}");
    }
}

//! Tables of statements with what must be said of them, over a catalogue with everything that can make a read a write.

#![cfg(test)]

mod access;
mod properties;
mod session;

use crate::sql::{Catalogue, CatalogueRow, Facts, Lexing, classify};

fn row(parts: [&str; 7]) -> CatalogueRow {
    parts.map(|part| if part.is_empty() { None } else { Some(part.to_owned()) })
}

/// A database with user functions, views and the rest. Names say what they are.
pub(super) fn catalogue() -> Catalogue {
    let builtin = include_str!("catalogue/builtin.txt");
    let mut class = "";
    let mut rows = Vec::new();
    for line in builtin.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("= ") {
            Some(next) => class = next,
            None => rows.extend(line.split_whitespace().map(|name| row(["builtin", "", name, class, "", "", ""]))),
        }
    }
    rows.extend(
        [
            ["function", "public", "f_stable", "s", "sql", "", "SELECT 1"],
            ["function", "public", "f_volatile", "v", "plpgsql", "", "BEGIN UPDATE t SET a = 1; END"],
            ["function", "public", "F_Quoted", "v", "sql", "", "SELECT 1"],
            ["function", "public", "f_opaque", "v", "plpgsql", "", "BEGIN SET search_path = x; END"],
            ["function", "public", "f_calls_opaque", "s", "sql", "", "SELECT f_opaque()"],
            ["function", "public", "f_python", "s", "plpython3u", "", ""],
            ["function", "public", "mixed", "s", "sql", "", "SELECT 1"],
            ["function", "other", "mixed", "v", "sql", "", "SELECT 1"],
            ["function", "public", "uuid_generate_v4", "v", "c", "uuid-ossp", ""],
            ["function", "public", "f_own_c", "v", "c", "", ""],
            ["function", "public", "f_own_c_stable", "s", "c", "", ""],
            ["function", "public", "f_extension_c", "v", "c", "postgis", ""],
            ["trigger_function", "public", "trg_c", "v", "c", "", ""],
            ["trigger_function", "public", "trg_extension_c", "v", "c", "lo", ""],
            ["trigger", "", "t_c_trigger", "trg_c", "", "", ""],
            ["trigger", "", "t_extension_trigger", "trg_extension_c", "", "", ""],
            ["function", "public", "dblink_exec", "v", "c", "dblink", ""],
            ["view", "public", "v_plain", " SELECT a, lower(b) AS b FROM t;", "", "", ""],
            ["view", "public", "v_sequence", " SELECT nextval('s'::regclass) AS nextval;", "", "", ""],
            ["view", "public", "v_over_view", " SELECT v.nextval FROM v_sequence v(nextval);", "", "", ""],
            ["view", "public", "v_locks", " SELECT a FROM t FOR UPDATE;", "", "", ""],
            ["view", "public", "v_server", " SELECT pid FROM pg_stat_activity;", "", "", ""],
            ["view", "public", "v_tenant", " SELECT a FROM t WHERE current_setting('app.tenant'::text) = b;", "", "", ""],
            ["view", "public", "v_operator", " SELECT a <~~> b AS x FROM t;", "", "", ""],
            ["sequence", "public", "s", "", "", "", ""],
            ["unlogged", "public", "t_unlogged", "", "", "", ""],
            ["foreign", "public", "t_foreign", "", "", "", ""],
            ["inherits", "", "t_parent", "t_foreign", "", "", ""],
            ["policy", "", "t_policy", "f_volatile(a)", "", "", ""],
            ["policy", "", "t_tenant", "(tenant = current_setting('app.tenant'::text))", "", "", ""],
            ["domain", "", "d_volatile", "CHECK (f_volatile(VALUE))", "", "", ""],
            ["domain", "", "d_plain", "CHECK ((VALUE > 0))", "", "", ""],
            ["uses", "", "d_over", "d_volatile", "type", "", ""],
            ["uses", "", "t_domain", "d_volatile", "table", "", ""],
            ["operator", "", "<~~>", "f_volatile", "", "", ""],
            ["cast", "", "c_source", "c_target", "", "user", "user"],
            ["cast", "", "c_source", "int4", "", "user", ""],
            ["cast", "", "circle", "int8", "", "", ""],
            ["argument", "", "f_default", "nextval('s'::regclass)", "", "", ""],
            ["function", "public", "f_default", "s", "sql", "", "SELECT 1"],
            ["function", "public", "agg_volatile", "v", "aggregate", "", "f_volatile"],
            ["function", "public", "agg_opaque", "i", "aggregate", "", "f_python"],
            ["function", "public", "agg_plain", "i", "aggregate", "", "int4pl"],
            ["uses", "", "t_cast", "c_source", "table", "", ""],
            ["trigger", "", "t_trigger", "trg_opaque", "", "", ""],
            ["trigger_function", "public", "trg_opaque", "v", "plpgsql", "", "BEGIN PERFORM set_config('a.b', 'c', false); END"],
            ["trigger", "", "t_plain_trigger", "trg_plain", "", "", ""],
            ["trigger_function", "public", "trg_plain", "v", "plpgsql", "", "BEGIN NEW.a := 1; RETURN NEW; END"],
            ["default", "", "t_default", "f_opaque()", "", "", ""],
            ["function", "public", "f_lies", "s", "sql", "", "SELECT f_volatile()"],
            ["inherits", "", "t_parent", "t_child", "", "", ""],
            ["inherits", "", "t_child", "t_grandchild", "", "", ""],
            ["inherits", "", "t_plain_trigger", "t_triggered_child", "", "", ""],
            ["default", "", "t_default_writes", "f_volatile()", "", "", ""],
            ["default", "", "d_default_writes", "f_volatile()", "", "", ""],
            ["uses", "", "t_domain_default", "d_default_writes", "table", "", ""],
            ["default", "", "t_default_plain", "now()", "", "", ""],
            ["reading_operator", "", "<->", "", "", "", ""],
            ["function", "public", "f_reads", "i", "sql", "", "SELECT count(*) FROM u"],
            ["domain", "", "d_reads", "CHECK (f_reads(VALUE))", "", "", ""],
            ["nonsense", "", "x", "", "", "", ""],
            ["view", "", "", "", "", "", ""],
        ]
        .map(row),
    );
    Catalogue::from_rows(rows)
}

pub(super) fn facts(text: &str) -> Facts {
    classify(text.as_bytes(), &catalogue(), Lexing::default())
}

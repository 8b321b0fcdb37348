//! Which tables a text reads and writes, for reads that must show every acknowledged write to them.
//!
//! May name too many, never too few: what is not certain is [`TableSet::Unknown`]. What is written stands behind a statement's first
//! word, so that a scan finds it; what is read needs a tree, and whatever may read or write without being named makes it unknown
//! (views, policies, triggers, rules, cascading keys, functions, operators).

use super::catalogue::Catalogue;
use super::classify::{Setting, lexes_safely};
use super::commands::{self, Kind, calls_known_only, inner_change};
use super::cursor::{Cursor, identifier};
use super::scan::{Lexing, Scanner, Token, TokenKind};
use super::survey::{Survey, survey};
use super::tree;
use super::words::WordFlags;

/// A table, for those who only compare: its name without its schema, or that of its inheritance tree's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey(pub u64);

/// Tables of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableSet {
    /// Any.
    Unknown,
    /// These at most, sorted.
    Known(Box<[TableKey]>),
}

impl TableSet {
    /// No table at all.
    pub fn none() -> Self {
        TableSet::Known(Box::default())
    }

    fn of(keys: Option<Vec<TableKey>>) -> Self {
        let Some(mut keys) = keys else { return TableSet::Unknown };
        keys.sort_unstable();
        keys.dedup();
        TableSet::Known(keys.into())
    }
}

/// The tables of a text, as one catalogue has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// The catalogue's id.
    pub catalogue: u64,
    /// What it may read, if it is a read.
    pub read: TableSet,
    /// What others may see of it when it is committed.
    pub written: TableSet,
}

/// The tables that a text uses. Parses it, which costs fifty times a scan: not for the hot path.
pub fn tables_used(text: &[u8], catalogue: &Catalogue, lexing: Lexing) -> TableUse {
    let setting = Setting { text, catalogue, lexing };
    let certain = catalogue.is_complete() && lexes_safely(text, lexing);
    let (mut read, mut written) = (certain.then(Vec::new), certain.then(Vec::new));
    let mut scanner = Scanner::new(text, lexing);
    while let Some(statement) = survey(&mut scanner, catalogue) {
        extend(&mut read, || keys_read(&setting, &statement));
        extend(&mut written, || keys_written(&setting, &statement));
    }
    TableUse { catalogue: catalogue.id, read: TableSet::of(read), written: TableSet::of(written) }
}

fn extend(all: &mut Option<Vec<TableKey>>, more: impl FnOnce() -> Option<Vec<TableKey>>) {
    if let Some(keys) = all {
        match more() {
            Some(more) => keys.extend(more),
            None => *all = None,
        }
    }
}

/// The tables of a query; `None` if they are not certain, or it is no query.
fn keys_read(setting: &Setting<'_>, survey: &Survey) -> Option<Vec<TableKey>> {
    let all = survey.names | survey.calls;
    let hidden = WordFlags::TREE | WordFlags::READS_TABLES | WordFlags::OPAQUE | WordFlags::ONLY;
    if all.has(hidden) || setting.catalogue.has_reading_casts() || uses_reading_operator(setting, survey) {
        return None;
    }
    let relations = tree::relations(setting.text, survey)?;
    relations.iter().map(|name| key_of(setting, name)).collect()
}

/// What a statement writes that other sessions can see; `None` if that is not certain.
fn keys_written(setting: &Setting<'_>, survey: &Survey) -> Option<Vec<TableKey>> {
    let lead = survey.lead.filter(|_| survey.trusted)?;
    let mut cursor = Cursor::new(setting.text, survey.span.clone(), setting.lexing);
    let first = cursor.take()?;
    let kind = commands::kind_of(lead.bytes(setting.text));
    match kind {
        Kind::Commit | Kind::Rollback if cursor.at("prepared") => None,
        Kind::Begin | Kind::Start | Kind::Commit | Kind::Rollback | Kind::Savepoint | Kind::Release => Some(Vec::new()),
        Kind::Set | Kind::Reset | Kind::Show | Kind::Discard | Kind::Prepare | Kind::Deallocate => Some(Vec::new()),
        Kind::Listen | Kind::Unlisten | Kind::Notify | Kind::Lock => Some(Vec::new()),
        Kind::Query if !survey.data_change && !survey.names.has(WordFlags::INTO) && !survey.unknown_calls => {
            calls_write_no_table(setting, survey).then(Vec::new)
        }
        Kind::Change | Kind::Copy | Kind::Truncate if first == lead => {
            let reaches_further =
                WordFlags::TREE | WordFlags::SIDE_EFFECTS | WordFlags::OPAQUE_WRITE | WordFlags::SUSPECT_IF_CAST;
            let certain = !(survey.names | survey.calls).has(reaches_further)
                && !inner_change(setting, survey)
                && calls_write_no_table(setting, survey)
                && (kind == Kind::Copy || calls_known_only(setting, cursor.clone()));
            if certain { targets(setting, &mut cursor, kind, lead) } else { None }
        }
        _ => None,
    }
}

/// The tables that stand where a statement names what it changes.
fn targets(setting: &Setting<'_>, cursor: &mut Cursor<'_>, kind: Kind, lead: Token) -> Option<Vec<TableKey>> {
    match kind {
        Kind::Copy => {
            let key = target(setting, cursor)?;
            if cursor.eat_kind(TokenKind::OpenParen) {
                cursor.skip_parenthesis()?;
            }
            if cursor.eat("to") {
                return Some(Vec::new());
            }
            // What it calls stands behind WHERE.
            (cursor.eat("from") && calls_known_only(setting, cursor.clone())).then(|| vec![key])
        }
        Kind::Truncate => {
            cursor.eat("table");
            let mut keys = Vec::new();
            loop {
                cursor.eat("only");
                keys.push(target(setting, cursor)?);
                if cursor.peek().is_some_and(|token| token.bytes(setting.text) == b"*") {
                    cursor.take();
                }
                if !cursor.eat_kind(TokenKind::Comma) {
                    break;
                }
            }
            // RESTART IDENTITY concerns sequences, which only the primary shows.
            let cascades = std::iter::from_fn(|| cursor.take()).any(|token| token.is_word(setting.text, "cascade"));
            (!cascades).then_some(keys)
        }
        _ => {
            let before = match () {
                () if lead.is_word(setting.text, "update") => None,
                () if lead.is_word(setting.text, "delete") => Some("from"),
                () => Some("into"),
            };
            if before.is_some_and(|word| !cursor.eat(word)) {
                return None;
            }
            cursor.eat("only");
            Some(vec![target(setting, cursor)?])
        }
    }
}

/// Takes `[[database.]schema.]table`.
fn target(setting: &Setting<'_>, cursor: &mut Cursor<'_>) -> Option<TableKey> {
    loop {
        let name = identifier(setting.text, cursor.take()?)?;
        if !cursor.eat_kind(TokenKind::Dot) {
            return key_of(setting, &name);
        }
    }
}

fn key_of(setting: &Setting<'_>, name: &str) -> Option<TableKey> {
    // What a longer name is cut to, or which bytes another client's encoding has for it, is not known here.
    (name.is_ascii() && name.len() <= 63).then(|| setting.catalogue.table_key(name))
}

/// Whether everything that the statement calls is known to write no table. Sequences are read on the primary only.
fn calls_write_no_table(setting: &Setting<'_>, survey: &Survey) -> bool {
    let all = survey.names | survey.calls;
    if all.has(WordFlags::OPAQUE | WordFlags::SUSPECT)
        || survey.suspect_operator
        || survey.casts && all.has(WordFlags::SUSPECT_IF_CAST)
    {
        return false;
    }
    if !all.has(WordFlags::VOLATILE) {
        return true;
    }
    let text = setting.text.get(..survey.span.end).unwrap_or_default();
    let words = setting.catalogue.words();
    Scanner::starting_at(text, survey.span.start, setting.lexing).all(|token| {
        let flags = match token.kind {
            TokenKind::Word => words.word(token.bytes(text)),
            TokenKind::QuotedName => words.quoted(&text[token.start + 1..token.end - 1]),
            _ => return true,
        };
        let of_a_sequence = token.is_word(text, "nextval") || token.is_word(text, "setval");
        // A user's function of the same name reads tables, for all that is known.
        let tableless = flags.has(WordFlags::SESSION_BOUND | WordFlags::SEQUENCE) || of_a_sequence;
        !flags.has(WordFlags::VOLATILE) || tableless && !flags.has(WordFlags::READS_TABLES)
    })
}

fn uses_reading_operator(setting: &Setting<'_>, survey: &Survey) -> bool {
    let operators = setting.catalogue.reading_operators();
    if operators.is_empty() {
        return false;
    }
    let text = setting.text.get(..survey.span.end).unwrap_or_default();
    let mut tokens =
        Scanner::starting_at(text, survey.span.start, setting.lexing).filter(|token| token.kind == TokenKind::Operator);
    tokens.any(|token| operators.iter().any(|name| memchr::memmem::find(token.bytes(text), name).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::CatalogueRow;
    use crate::sql::corpus::catalogue;

    fn shown(set: &TableSet, catalogue: &Catalogue) -> String {
        let names = "t u U t_plain_trigger t_parent t_child t_grandchild x pg_class t_default_plain";
        match set {
            TableSet::Unknown => "?".to_owned(),
            TableSet::Known(keys) => {
                let known = |key: &TableKey| names.split(' ').find(|name| catalogue.table_key(name) == *key).unwrap_or("other");
                let mut names: Vec<&str> = keys.iter().map(known).collect();
                names.sort_unstable();
                names.join(" ")
            }
        }
    }

    fn check(catalogue: &Catalogue, text: &str, read: &str, written: &str) {
        let found = tables_used(text.as_bytes(), catalogue, Lexing::default());
        assert_eq!(
            (shown(&found.read, catalogue).as_str(), shown(&found.written, catalogue).as_str()),
            (read, written),
            "{text}"
        );
    }

    #[test]
    fn what_a_query_reads() {
        let catalogue = catalogue();
        for (text, read) in [
            ("SELECT 1", ""),
            ("SELECT * FROM T JOIN s1.\"U\" ON true", "U t"),
            ("SELECT * FROM generate_series(1, 2) g, t", "t"),
            ("SELECT (SELECT a FROM u LIMIT 1) FROM t WHERE EXISTS (SELECT FROM \"U\")", "U t u"),
            ("WITH x AS (SELECT * FROM u) SELECT * FROM t, LATERAL (SELECT * FROM x) y", "t u x"),
            ("SELECT a FROM t UNION SELECT a FROM u", "t u"),
            ("SELECT * FROM t_plain_trigger", "t_plain_trigger"),
            ("SELECT * FROM t_parent", "t_parent"),
            ("SELECT * FROM other_schema.t_grandchild", "t_parent"),
            ("SELECT 1 FROM t; SELECT 2 FROM u", "t u"),
            ("SELECT * FROM v_plain", "?"),
            ("SELECT * FROM t_policy", "?"),
            ("SELECT f_stable() FROM t", "?"),
            ("SELECT f_lies() FROM t", "?"),
            ("SELECT a <-> b FROM t", "?"),
            ("SELECT a - b FROM t", "t"),
            ("SELECT pg_table_size($1)", "?"),
            ("SELECT a::d_reads FROM t", "?"),
            ("SELECT * FROM ONLY t", "?"),
            ("SELECT * FROM größe", "?"),
            (&format!("SELECT * FROM {}", "x".repeat(64)), "?"),
            ("TABLE t", "?"),
            ("EXPLAIN SELECT * FROM t", "?"),
            ("not sql", "?"),
        ] {
            let found = tables_used(text.as_bytes(), &catalogue, Lexing::default());
            assert_eq!(shown(&found.read, &catalogue), read, "{text}");
        }
    }

    #[test]
    fn what_a_statement_writes() {
        let catalogue = catalogue();
        for (text, written) in [
            ("INSERT INTO t SELECT * FROM u", "t"),
            ("insert into \"public\".\"U\" (a, b) values (1, nextval('s')) on conflict (a) do update set b = 2 returning a", "U"),
            ("UPDATE ONLY s1.t SET a = u.b FROM u", "t"),
            ("DELETE FROM t USING u WHERE t.a = u.a", "t"),
            ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)", "t"),
            ("INSERT INTO t_default_plain VALUES (1)", "t_default_plain"),
            ("COPY t FROM STDIN", "t"),
            ("COPY s1.t (a, b) FROM STDIN WITH (FORMAT csv)", "t"),
            ("COPY t FROM STDIN WHERE f_unknown(a)", "?"),
            ("COPY t TO STDOUT", ""),
            ("TRUNCATE t", "t"),
            ("TRUNCATE TABLE ONLY t, s1.u * RESTART IDENTITY", "t u"),
            ("TRUNCATE t CASCADE", "?"),
            ("BEGIN; INSERT INTO t VALUES (1); UPDATE u SET a = 1; COMMIT", "t u"),
            ("INSERT INTO t_child VALUES (1)", "t_parent"),
            ("INSERT INTO t_grandchild VALUES (1)", "t_parent"),
            ("SELECT nextval('s'), pg_advisory_lock(1), pg_notify('a', 'b')", ""),
            ("SELECT a FROM t FOR UPDATE", ""),
            ("SELECT lo_create(0)", "?"),
            ("INSERT INTO t SELECT lo_create(0)", "?"),
            ("LOCK TABLE t", ""),
            ("NOTIFY x", ""),
            ("COMMIT PREPARED 'x'", "?"),
            ("INSERT INTO t_plain_trigger VALUES (1)", "?"),
            ("INSERT INTO t_trigger VALUES (1)", "?"),
            ("INSERT INTO t_default_writes VALUES (1)", "?"),
            ("INSERT INTO t_domain_default VALUES (1)", "?"),
            ("INSERT INTO t_triggered_child VALUES (1)", "?"),
            ("INSERT INTO v_plain VALUES (1)", "?"),
            ("INSERT INTO t_domain VALUES (1)", "?"),
            ("INSERT INTO t VALUES (f_volatile())", "?"),
            ("INSERT INTO t VALUES (f_lies())", "?"),
            ("INSERT INTO t VALUES (f_unknown())", "?"),
            ("INSERT INTO t VALUES (1 <~~> 2)", "?"),
            ("WITH y AS (INSERT INTO u VALUES (1)) SELECT * FROM y", "?"),
            ("INSERT INTO t WITH y AS (DELETE FROM u RETURNING *) SELECT * FROM y", "?"),
            ("WITH y AS (SELECT 1) INSERT INTO t SELECT * FROM y", "?"),
            ("SELECT a INTO n FROM t", "?"),
            ("SELECT f_volatile()", "?"),
            ("CALL f_volatile()", "?"),
            ("DO 'begin end'", "?"),
            ("EXECUTE a", "?"),
            ("FETCH c", "?"),
            ("DECLARE c CURSOR FOR SELECT 1", "?"),
            ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", "?"),
            ("REFRESH MATERIALIZED VIEW t", "?"),
            ("ALTER TABLE t RENAME TO u", "?"),
            ("CREATE TABLE n AS SELECT 1", "?"),
            ("INSERT INTO größe VALUES (1)", "?"),
            ("INSERT INTO U&\"t\" VALUES (1)", "?"),
            ("INSERT INTO t VALUES ('", "?"),
        ] {
            let found = tables_used(text.as_bytes(), &catalogue, Lexing::default());
            assert_eq!(shown(&found.written, &catalogue), written, "{text}");
        }
    }

    #[test]
    fn without_a_catalogue_nothing_is_certain() {
        check(&Catalogue::builtin(), "SELECT * FROM t", "?", "?");
        check(&Catalogue::builtin(), "INSERT INTO t VALUES (1)", "?", "?");
    }

    #[test]
    fn a_cast_or_operator_of_the_users_may_read_anything() {
        let row = |kind: &str, name: &str| -> CatalogueRow {
            [Some(kind.to_owned()), None, Some(name.to_owned()), None, None, None, None]
        };
        check(&Catalogue::from_rows([row("reading_cast", "a")]), "SELECT a FROM t", "?", "");
        let catalogue = Catalogue::from_rows([row("reading_operator", "=")]);
        check(&catalogue, "SELECT a FROM t WHERE a = 1", "?", "");
        check(&catalogue, "SELECT DISTINCT a FROM t", "?", "");
        check(&catalogue, "SELECT a FROM t WHERE a > 1", "t", "");
    }
}

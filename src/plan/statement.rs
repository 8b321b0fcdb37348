//! From a text to its plan.

use super::collect::Whole;
use super::functions::{FunctionKind, kind_of};
use super::scope::{Reader, Scope};
use super::select::{Question, gather, refusal};
use super::steps::{KeyCondition, Plan};
use super::{Schema, tree};
use crate::shard::{ShardMap, ShardSet};
use crate::sql::scan::{Scanner, TokenKind};
use crate::sql::survey::{Survey, survey};
use crate::sql::{Catalogue, Lexing};
use sqlparser::ast::{Query, Statement};

/// Plans statements of one database.
#[derive(Clone, Copy, Debug)]
pub struct Planner<'a> {
    /// Its tables and types.
    pub schema: &'a Schema,
    /// Its functions.
    pub catalogue: &'a Catalogue,
    /// Where its rows are.
    pub map: &'a ShardMap,
    /// The session's search path: schemas in their order, `$user` replaced.
    pub search_path: &'a [String],
    /// How the session's texts are read.
    pub lexing: Lexing,
}

impl Planner<'_> {
    /// What is done with a text that is one statement. The plan can be kept for the same text, search path, schema, catalogue and
    /// map: parameters and their types only matter where it is resolved.
    pub fn plan(&self, text: &str) -> Plan {
        let readable = self.lexing.standard_conforming_strings && self.lexing.ascii_safe_encoding;
        let mut scanner = Scanner::new(text.as_bytes(), Lexing::default());
        let Some(seen) = survey(&mut scanner, self.catalogue) else { return Plan::Anywhere };
        if !readable || !seen.trusted {
            return self.by_words(text, &seen, "the text cannot be read with certainty");
        }
        if scanner.any(|token| token.kind != TokenKind::Semicolon) {
            return Plan::Refused(refusal("several statements in one text are not planned together"));
        }
        let statement = text.get(seen.span.clone()).unwrap_or_default();
        if let Some(plan) = super::utility::plan(self, statement) {
            return plan;
        }
        let respelled = super::spelling::known(statement);
        let (statement, seen) = match respelled.as_deref() {
            Some(text) => match survey(&mut Scanner::new(text.as_bytes(), Lexing::default()), self.catalogue) {
                Some(seen) => (text, seen),
                None => return Plan::Anywhere,
            },
            None => (statement, seen),
        };
        let plan = match tree::parse(statement, &seen) {
            Some(Statement::Query(query)) => self.plan_query(statement, &query),
            Some(Statement::Insert(insert)) => super::insert::plan(self, statement, &insert),
            Some(Statement::Update(update)) => super::change::update(self, &update),
            Some(Statement::Delete(delete)) => super::change::delete(self, &delete),
            _ => self.by_words(statement, &seen, "the statement is not of a form that is planned for shards"),
        };
        // A name that is not known must not be a misread one: what it hides would be answered by one shard.
        if plan == first_shard() && super::utility::names_listed_tables(self, statement) {
            return Plan::Refused(refusal("a relation of the statement is not known"));
        }
        plan
    }

    pub(super) fn plan_query(&self, text: &str, query: &Query) -> Plan {
        let statement = Statement::Query(Box::new(query.clone()));
        let whole = Whole::of(&statement);
        let mut reader = Reader::new(self);
        let mut level = None;
        let model = reader.read_query_with_level(query, &Scope::default(), &mut level);
        let kinds = self.kinds(&whole, &reader);
        if let Some(plan) = self.without_shards(&whole, &kinds, &reader) {
            return plan;
        }
        let shards = reader.statement_condition();
        let question =
            Question { text, query, model: &model, level, whole: &whole, kinds: &kinds, reader: &reader, shards: shards.clone() };
        confined_or(self.map.shards.len(), shards, || gather(&question))
    }

    /// What the functions of a statement are.
    pub(super) fn kinds(&self, whole: &Whole, reader: &Reader<'_>) -> Vec<FunctionKind> {
        let names = whole.functions.iter().chain(&reader.view_functions);
        names.map(|name| kind_of(name, self.schema, self.catalogue)).collect()
    }

    /// The plan of a statement that is refused wherever its rows are, or that needs no rows of any shard in particular.
    pub(super) fn without_shards(&self, whole: &Whole, kinds: &[FunctionKind], reader: &Reader<'_>) -> Option<Plan> {
        if let Some(table) = reader.unlisted.first() {
            let name = format!("{}.{}", table.schema, table.name);
            return Some(Plan::Refused(refusal(&format!(
                "the place of table \"{name}\" is not known: it is not in the settings"
            ))));
        }
        if whole.into {
            return Some(Plan::Refused(refusal("SELECT INTO is not supported: CREATE TABLE, then INSERT")));
        }
        if whole.strange {
            return Some(Plan::Refused(refusal("the statement has a clause whose meaning over shards is not known")));
        }
        if reader.unread {
            return Some(Plan::Refused(refusal("a statement that changes data inside another is not supported")));
        }
        let opaque = |name: &&String| kind_of(name, self.schema, self.catalogue) == FunctionKind::Opaque;
        if let Some(name) = whole.functions.iter().chain(&reader.view_functions).find(opaque) {
            return Some(Plan::Refused(refusal(&format!("what function \"{name}\" reads or changes is not known"))));
        }
        let spread = (0..reader.instances.len()).any(|number| reader.is_spread(number));
        if reader.unknown_tables {
            return Some(match spread {
                true => Plan::Refused(refusal("a relation of the statement is not known")),
                false => first_shard(),
            });
        }
        let session = kinds.contains(&FunctionKind::Session);
        (!spread).then(|| if session { first_shard() } else { Plan::Anywhere })
    }

    /// Without a tree: a statement that names no table whose rows are on some shards only is left to any of them.
    fn by_words(&self, text: &str, seen: &Survey, reason: &str) -> Plan {
        let bytes = text.as_bytes();
        let names = |name: &str| {
            self.map.tables.keys().any(|table| table.name == name)
                || self.schema.tables().any(|(table, _)| table.name == name)
                || kind_of(name, self.schema, self.catalogue) == FunctionKind::Opaque && self.catalogue.is_user_function(name)
        };
        let harmless = seen.trusted
            && !seen.data_change
            && Scanner::new(bytes, Lexing::default())
                .filter_map(|token| crate::sql::cursor::identifier(bytes, token))
                .all(|name| !names(&name));
        if harmless { Plan::Anywhere } else { Plan::Refused(refusal(reason)) }
    }
}

/// The first shard, which has what only one can have: temporary tables, advisory locks.
pub fn first_shard() -> Plan {
    Plan::Confined { shards: KeyCondition::Shards(ShardSet::one(0)), several: Box::new(Plan::Anywhere) }
}

/// One shard if the condition leads to one.
pub(super) fn confined_or(count: usize, shards: KeyCondition, several: impl FnOnce() -> Plan) -> Plan {
    match shards {
        KeyCondition::All if count > 1 => several(),
        KeyCondition::All => Plan::Confined { shards: KeyCondition::Shards(ShardSet::all(1)), several: Box::new(several()) },
        shards => Plan::Confined { shards, several: Box::new(several()) },
    }
}

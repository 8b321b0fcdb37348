//! LIMIT, OFFSET and FETCH.

use sqlparser::ast::{Expr, Ident, LimitClause, Query, Value};

/// How many rows, as far as the text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Not given.
    None,
    /// A number.
    Number(u64),
    /// A parameter.
    Parameter(usize),
    /// Something that is computed.
    Other,
}

/// The limits of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Rows shown.
    pub(super) limit: Bound,
    /// Rows left out before.
    pub(super) offset: Bound,
    /// WITH TIES.
    pub(super) ties: bool,
}

impl Limits {
    pub(super) fn of(query: &Query) -> Self {
        let mut limits = Limits { limit: Bound::None, offset: Bound::None, ties: false };
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
                limits.limit = limit.as_ref().map_or(Bound::None, bound);
                limits.offset = offset.as_ref().map_or(Bound::None, |offset| bound(&offset.value));
            }
            Some(_) => limits.limit = Bound::Other,
        }
        if let Some(fetch) = &query.fetch {
            limits.ties = fetch.with_ties;
            limits.limit = match &fetch.quantity {
                _ if fetch.percent || limits.limit != Bound::None => Bound::Other,
                Some(quantity) => bound(quantity),
                None => Bound::Number(1),
            };
        }
        limits
    }

    pub(super) fn is_none(&self) -> bool {
        self.limit == Bound::None && self.offset == Bound::None
    }

    /// Whether pgyard can apply them to rows in no particular order.
    pub(super) fn is_simple(&self) -> bool {
        !self.ties && self.is_counted()
    }

    /// Whether they are numbers that the text or a parameter gives.
    pub(super) fn is_counted(&self) -> bool {
        self.limit != Bound::Other && self.offset != Bound::Other
    }

    /// The clauses for a finishing query.
    pub(super) fn clause(&self, query: &Query) -> String {
        let limit = query.limit_clause.as_ref().map(ToString::to_string).unwrap_or_default();
        let fetch = query.fetch.as_ref().map(|fetch| format!(" {fetch}")).unwrap_or_default();
        format!("{limit}{fetch}")
    }

    /// The query with the most rows that one shard may have to give.
    pub(super) fn pushed(&self, mut query: Query) -> Query {
        let most = match (self.limit, self.offset) {
            (Bound::None | Bound::Other, _) | (_, Bound::Other) => None,
            (Bound::Number(limit), Bound::None) => Some(limit.to_string()),
            (Bound::Number(limit), Bound::Number(offset)) => {
                limit.checked_add(offset).filter(|sum| i64::try_from(*sum).is_ok()).map(|sum| sum.to_string())
            }
            (Bound::Parameter(limit), Bound::None) => Some(format!("${limit}")),
            (limit, offset) => {
                // More than the greatest number of rows is no limit; NULL is none either.
                let sum = format!("{} + {}", as_numeric(limit), as_numeric(offset));
                Some(format!("CAST(least({sum}, {}) AS bigint)", i64::MAX))
            }
        };
        let ties = self.ties.then_some(query.fetch.take()).flatten();
        query.fetch = None;
        query.limit_clause = None;
        let Some(most) = most else { return query };
        let most = Expr::Identifier(Ident::new(most));
        match ties {
            Some(mut fetch) => {
                fetch.quantity = Some(Expr::Nested(Box::new(most)));
                query.fetch = Some(fetch);
            }
            None => {
                query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(most), offset: None, limit_by: Vec::new() });
            }
        }
        query
    }
}

fn as_numeric(bound: Bound) -> String {
    match bound {
        Bound::Number(number) => number.to_string(),
        Bound::Parameter(number) => format!("CAST(CAST(${number} AS bigint) AS numeric)"),
        Bound::None | Bound::Other => "0".to_owned(),
    }
}

fn bound(expr: &Expr) -> Bound {
    let Expr::Value(value) = super::conditions::peel(expr) else { return Bound::Other };
    match &value.value {
        Value::Number(digits, _) => digits.parse().map_or(Bound::Other, Bound::Number),
        Value::Placeholder(name) => {
            name.strip_prefix('$').and_then(|digits| digits.parse().ok()).map_or(Bound::Other, Bound::Parameter)
        }
        _ => Bound::Other,
    }
}

//! What the columns of a result are called, and which of them an entry of GROUP BY means.

use super::tree::{last_part, stored};
use sqlparser::ast::{Expr, Ident, Select, SelectItem, Value};

/// The expression that an entry of GROUP BY stands for: an input column, else an output column's name, or a position.
pub(super) fn group_target<'s>(select: &'s Select, expr: &'s Expr, is_input: impl Fn(&[Ident]) -> bool) -> Option<&'s Expr> {
    match expr {
        Expr::Identifier(name) if !is_input(std::slice::from_ref(name)) => {
            let wanted = stored(name);
            let mut named = select.projection.iter().filter_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if stored(alias) == wanted => Some(expr),
                _ => None,
            });
            named.next()
        }
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => {
                if select
                    .projection
                    .iter()
                    .any(|item| !matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }))
                {
                    return None;
                }
                let place: usize = digits.parse().ok()?;
                match select.projection.get(place.checked_sub(1)?)? {
                    SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
                    _ => None,
                }
            }
            _ => None,
        },
        other => Some(other),
    }
}

/// The name that PostgreSQL gives to a column without an alias, where that is simple.
/// Spec: FigureColname in parse_target.c.
pub(super) fn implied_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(stored(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(stored),
        Expr::Function(function) => Some(last_part(&function.name)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } | Expr::Cast { expr: inner, .. } => {
            implied_name(inner).filter(|name| name != UNNAMED || !matches!(expr, Expr::Cast { .. }))
        }
        Expr::BinaryOp { .. } | Expr::UnaryOp { .. } | Expr::Value(_) | Expr::IsNull(_) | Expr::IsNotNull(_) => {
            Some(UNNAMED.to_owned())
        }
        _ => None,
    }
}

/// What PostgreSQL calls a column without a name.
const UNNAMED: &str = "?column?";

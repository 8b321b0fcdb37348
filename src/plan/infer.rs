//! The kind of number that an expression is, where that is certain.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// Kinds of numbers whose averages are computed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NumberKind {
    /// smallint, integer, bigint.
    Integer,
    /// numeric.
    Numeric,
    /// real, double precision.
    Float,
}

/// What an expression is; `type_of` knows columns.
pub(super) fn number_kind(expr: &Expr, type_of: &dyn Fn(&Expr) -> Option<u32>) -> Option<NumberKind> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => match type_of(expr)? {
            20 | 21 | 23 => Some(NumberKind::Integer),
            1700 => Some(NumberKind::Numeric),
            700 | 701 => Some(NumberKind::Float),
            _ => None,
        },
        Expr::Nested(inner) => number_kind(inner, type_of),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => number_kind(expr, type_of),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) if digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.len() < 19 => {
                Some(NumberKind::Integer)
            }
            Value::Number(..) => Some(NumberKind::Numeric),
            _ => None,
        },
        Expr::Cast { data_type, .. } => kind_of_type(&data_type.to_string().to_ascii_lowercase()),
        Expr::BinaryOp { left, op, right } => {
            let arithmetic = matches!(
                op,
                BinaryOperator::Plus
                    | BinaryOperator::Minus
                    | BinaryOperator::Multiply
                    | BinaryOperator::Divide
                    | BinaryOperator::Modulo
            );
            // Types that are not known here, such as those of parameters, could make it anything.
            arithmetic.then_some(())?;
            Some(number_kind(left, type_of)?.max(number_kind(right, type_of)?))
        }
        _ => None,
    }
}

fn kind_of_type(name: &str) -> Option<NumberKind> {
    let base = name.split('(').next()?.trim();
    match base {
        "smallint" | "int2" | "int" | "integer" | "int4" | "bigint" | "int8" => Some(NumberKind::Integer),
        "numeric" | "decimal" | "dec" => Some(NumberKind::Numeric),
        "real" | "float4" | "float" | "float8" | "double precision" => Some(NumberKind::Float),
        _ => None,
    }
}

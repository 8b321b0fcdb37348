//! Changes of rows as SQL. Pure.
//!
//! Values stand in the statements as literals without a type: the server reads each as its column's, as COPY does.

use super::pgoutput::{OldRow, StreamValue};
use super::side::{identifier, literal};
use super::tables::{ReshardTable, TableIdentity};

/// Why a change can't be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeProblem {
    /// A value is not in the stream.
    #[error("a large value of a row of {0} is not in the stream")]
    Unchanged(String),
    /// A text that is not UTF-8.
    #[error("a value of a row of {0} is not UTF-8")]
    Encoding(String),
    /// Another number of values than the table has columns.
    #[error("the columns of {0} were changed")]
    Shape(String),
}

impl ReshardTable {
    /// The row is new.
    ///
    /// # Errors
    /// See [`ChangeProblem`].
    pub fn insert(&self, row: &[StreamValue]) -> Result<String, ChangeProblem> {
        self.fits(row)?;
        let values: Vec<String> = row.iter().map(|value| self.value(value)).collect::<Result<_, _>>()?;
        Ok(format!(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            self.sql_name(),
            self.column_list(),
            values.join(", ")
        ))
    }

    /// The row is another. Values that the stream does not repeat stay.
    ///
    /// # Errors
    /// See [`ChangeProblem`].
    pub fn update(&self, old: Option<&OldRow>, new: &[StreamValue]) -> Result<String, ChangeProblem> {
        self.fits(new)?;
        let mut sets = Vec::new();
        for (column, value) in self.columns.iter().zip(new) {
            // An identity that is always generated can't be set, and so has not been changed either.
            if *value != StreamValue::Unchanged && !column.always_generated {
                sets.push(format!("{} = {}", identifier(&column.name), self.value(value)?));
            }
        }
        if sets.is_empty() {
            let settable = self.columns.iter().find(|column| !column.always_generated).or(self.columns.first());
            let column = settable.map(|column| identifier(&column.name)).unwrap_or_default();
            sets.push(format!("{column} = {column}"));
        }
        let found = self.found(old, new)?;
        Ok(format!("UPDATE {} SET {} WHERE {found}", self.sql_name(), sets.join(", ")))
    }

    /// The row is gone.
    ///
    /// # Errors
    /// See [`ChangeProblem`].
    pub fn delete(&self, old: &OldRow) -> Result<String, ChangeProblem> {
        let found = self.found(Some(old), &old.values)?;
        Ok(format!("DELETE FROM {} WHERE {found}", self.sql_name()))
    }

    /// A query for columns of a row that is on a target as it was.
    ///
    /// # Errors
    /// See [`ChangeProblem`].
    pub fn select(&self, columns: &[usize], old: Option<&OldRow>, new: &[StreamValue]) -> Result<String, ChangeProblem> {
        let names: Vec<String> = columns.iter().map(|place| identifier(&self.columns[*place].name)).collect();
        Ok(format!("SELECT {} FROM {} WHERE {}", names.join(", "), self.sql_name(), self.found(old, new)?))
    }

    /// The condition that one row meets.
    fn found(&self, old: Option<&OldRow>, new: &[StreamValue]) -> Result<String, ChangeProblem> {
        let row = old.map_or(new, |old| &old.values);
        self.fits(row)?;
        let places: &[usize] = match &self.identity {
            TableIdentity::Columns(places) => places,
            TableIdentity::Whole => return self.found_whole(row),
        };
        let mut conditions = Vec::new();
        for place in places {
            conditions.push(format!("{} = {}", identifier(&self.columns[*place].name), self.value(&row[*place])?));
        }
        Ok(conditions.join(" AND "))
    }

    /// Rows without a key are found by all that they have, and any of several alike will do. Texts are compared, since not every type has an
    /// equality.
    fn found_whole(&self, row: &[StreamValue]) -> Result<String, ChangeProblem> {
        let mut conditions = Vec::new();
        for (column, value) in self.columns.iter().zip(row) {
            let name = identifier(&column.name);
            conditions.push(match value {
                StreamValue::Null => format!("{name} IS NULL"),
                value => format!("{name}::pg_catalog.text = {}", self.value(value)?),
            });
        }
        let name = self.sql_name();
        let conditions = conditions.join(" AND ");
        Ok(format!("(tableoid, ctid) = (SELECT tableoid, ctid FROM {name} WHERE {conditions} LIMIT 1)"))
    }

    fn fits(&self, row: &[StreamValue]) -> Result<(), ChangeProblem> {
        if row.len() == self.columns.len() { Ok(()) } else { Err(ChangeProblem::Shape(self.sql_name())) }
    }

    fn value(&self, value: &StreamValue) -> Result<String, ChangeProblem> {
        match value {
            StreamValue::Null => Ok("NULL".to_owned()),
            StreamValue::Unchanged => Err(ChangeProblem::Unchanged(self.sql_name())),
            StreamValue::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(literal(text)),
                Err(_) => Err(ChangeProblem::Encoding(self.sql_name())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::fixtures::table;
    use super::*;

    fn text(value: &str) -> StreamValue {
        StreamValue::Text(value.as_bytes().to_vec())
    }

    fn old(whole: bool, values: &[StreamValue]) -> OldRow {
        OldRow { whole, values: values.to_vec() }
    }

    #[test]
    fn changes_become_statements() {
        let t = table(&["id", "no\"te"], TableIdentity::Columns(vec![0]));
        let check = |found: Result<String, ChangeProblem>, expect: &str| assert_eq!(found.unwrap(), expect);
        check(
            t.insert(&[text("1"), text("it's \\")]),
            r#"INSERT INTO "public"."t" ("id", "no""te") OVERRIDING SYSTEM VALUE VALUES ('1', 'it''s \')"#,
        );
        check(
            t.update(None, &[text("1"), StreamValue::Null]),
            r#"UPDATE "public"."t" SET "id" = '1', "no""te" = NULL WHERE "id" = '1'"#,
        );
        check(
            t.update(Some(&old(false, &[text("0"), StreamValue::Null])), &[text("1"), StreamValue::Unchanged]),
            r#"UPDATE "public"."t" SET "id" = '1' WHERE "id" = '0'"#,
        );
        check(t.delete(&old(false, &[text("1"), StreamValue::Null])), r#"DELETE FROM "public"."t" WHERE "id" = '1'"#);
        let whole = table(&["a", "b"], TableIdentity::Whole);
        check(
            whole.delete(&old(true, &[text("x"), StreamValue::Null])),
            r#"DELETE FROM "public"."t" WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM "public"."t" WHERE "a"::pg_catalog.text = 'x' AND "b" IS NULL LIMIT 1)"#,
        );
    }

    #[test]
    fn an_identity_that_is_always_generated_is_not_set() {
        let mut t = table(&["id", "v"], TableIdentity::Columns(vec![0]));
        t.columns[0].always_generated = true;
        let update = t.update(None, &[text("1"), text("2")]).unwrap();
        assert_eq!(update, r#"UPDATE "public"."t" SET "v" = '2' WHERE "id" = '1'"#);
        let nothing = t.update(None, &[text("1"), StreamValue::Unchanged]).unwrap();
        assert_eq!(nothing, r#"UPDATE "public"."t" SET "v" = "v" WHERE "id" = '1'"#);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let t = table(&["id", "v"], TableIdentity::Columns(vec![0]));
        assert!(matches!(t.insert(&[text("1"), StreamValue::Unchanged]), Err(ChangeProblem::Unchanged(_))));
        assert!(matches!(t.insert(&[text("1")]), Err(ChangeProblem::Shape(_))));
        let bad = StreamValue::Text(vec![0xff]);
        assert!(matches!(t.insert(&[text("1"), bad]), Err(ChangeProblem::Encoding(_))));
    }
}

//! What a database is like: everything that has a name and must be alike on all shards.

use super::read::{ReadRow, column};
use crate::shard::QualifiedName;
use std::collections::BTreeMap;

/// Reads a [`Shape`]: kind, schema, relation, name, definition. The search path must be `pg_catalog` alone, so that definitions name schemas.
pub const SHAPE_QUERY: &str = r"
WITH tables AS (
  SELECT c.*, n.nspname AS space FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.oid >= 16384 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
SELECT 'locale', '', '', '', pg_encoding_to_char(encoding) || ' ' || datcollate || ' ' || datctype FROM pg_database WHERE datname = current_database()
UNION ALL
SELECT 'relation', space, relname, '',
       CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table partitioned by ' || pg_get_partkeydef(oid) WHEN 'v' THEN 'view'
                    WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END
       || CASE WHEN relpersistence = 'u' THEN ', unlogged' ELSE '' END || CASE WHEN relrowsecurity THEN ', with row security' ELSE '' END
       || CASE WHEN relispartition THEN ', a partition ' || pg_get_expr(relpartbound, oid) ELSE '' END
  FROM tables WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
UNION ALL
SELECT 'view', space, relname, '', pg_get_viewdef(oid) FROM tables WHERE relkind IN ('v', 'm')
UNION ALL
SELECT 'order of columns', space, relname, '', string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
  FROM tables JOIN pg_attribute a ON a.attrelid = tables.oid
 WHERE relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped GROUP BY space, relname
UNION ALL
SELECT 'column', space, relname, a.attname,
       format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attcollation NOT IN (0, t.typcollation) THEN ' COLLATE ' || (SELECT quote_ident(o.collname) FROM pg_collation o WHERE o.oid = a.attcollation) ELSE '' END
       || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || CASE WHEN a.attidentity <> '' THEN ' GENERATED ' || CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END || ' AS IDENTITY'
               WHEN a.attgenerated <> '' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') STORED'
               WHEN d.oid IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) ELSE '' END
  FROM tables JOIN pg_attribute a ON a.attrelid = tables.oid JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE relkind IN ('r', 'p', 'f') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint', space, relname, k.conname, pg_get_constraintdef(k.oid) || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END
  FROM tables JOIN pg_constraint k ON k.conrelid = tables.oid WHERE k.contype IN ('c', 'f', 'p', 'u', 'x')
UNION ALL
SELECT 'index', space, relname, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' (not valid)' END
  FROM tables JOIN pg_index i ON i.indrelid = tables.oid
 WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = i.indrelid)
UNION ALL
SELECT 'unique', space, relname, i.indexrelid::regclass::text,
       (SELECT coalesce(string_agg(a.attname, chr(1) ORDER BY a.attnum), '')
          FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS u(number, place) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.number
         WHERE u.place <= i.indnkeyatts)
  FROM tables JOIN pg_index i ON i.indrelid = tables.oid WHERE i.indisunique OR i.indisexclusion
UNION ALL
SELECT 'reference', space, tables.relname, k.conname,
       rn.nspname || chr(2) || r.relname || chr(2)
       || (SELECT string_agg(a.attname, chr(1) ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY AS u(number, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number) || chr(2)
       || (SELECT string_agg(a.attname, chr(1) ORDER BY u.place) FROM unnest(k.confkey) WITH ORDINALITY AS u(number, place)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number)
  FROM tables JOIN pg_constraint k ON k.conrelid = tables.oid JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
UNION ALL
SELECT 'trigger', space, relname, g.tgname, pg_get_triggerdef(g.oid) || CASE g.tgenabled WHEN 'O' THEN '' ELSE ' (' || g.tgenabled::text || ')' END
  FROM tables JOIN pg_trigger g ON g.tgrelid = tables.oid WHERE NOT g.tgisinternal
UNION ALL
SELECT 'policy', space, relname, p.polname,
       p.polcmd::text || ' ' || coalesce(pg_get_expr(p.polqual, p.polrelid), '') || ' ' || coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '')
  FROM tables JOIN pg_policy p ON p.polrelid = tables.oid
UNION ALL
SELECT 'type', n.nspname, '', t.typname,
       CASE t.typtype WHEN 'e' THEN (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)
                      WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
                           || coalesce((SELECT string_agg(' ' || pg_get_constraintdef(k.oid), '' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'), '')
                      ELSE (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                              FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) END
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE t.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
   AND (t.typtype IN ('e', 'd') OR t.typtype = 'c' AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL
SELECT 'function', n.nspname, '', p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', pg_get_functiondef(p.oid)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE p.oid >= 16384 AND p.prokind IN ('f', 'p', 'w') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'extension', '', '', extname, extversion FROM pg_extension
UNION ALL
SELECT 'schema', '', '', nspname, '' FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_' AND nspname <> 'pgyard'";

/// What has a definition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeItem {
    /// The table that it belongs to; its name is empty for what stands alone.
    pub table: QualifiedName,
    /// What it is: `column`, `index`, `type` ...
    pub kind: String,
    /// Its name within the table or schema; empty for the table itself.
    pub name: String,
}

impl ShapeItem {
    /// In words, such as `column amount of public.orders`.
    pub fn describe(&self) -> String {
        let QualifiedName { schema, name: table } = &self.table;
        let full = if schema.is_empty() { self.name.clone() } else { format!("{schema}.{}", self.name) };
        match (table.is_empty(), self.name.is_empty(), self.kind.as_str()) {
            (true, true, _) => self.kind.clone(),
            (true, false, _) => format!("{} {full}", self.kind),
            (false, true, "relation") => format!("table {schema}.{table}"),
            (false, true, kind) => format!("{kind} of {schema}.{table}"),
            (false, false, kind) => format!("{kind} {} of {schema}.{table}", self.name),
        }
    }
}

/// All items of a database with their definitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// By item.
    pub items: BTreeMap<ShapeItem, String>,
}

impl Shape {
    /// From the rows of [`SHAPE_QUERY`].
    pub fn from_rows(rows: &[ReadRow]) -> Shape {
        let item = |row: &ReadRow| {
            let text = |place| column(row, place).to_owned();
            let table = QualifiedName { schema: text(1), name: text(2) };
            (ShapeItem { table, kind: text(0), name: text(3) }, text(4))
        };
        Shape { items: rows.iter().map(item).collect() }
    }

    /// The encoding of the database.
    pub fn encoding(&self) -> &str {
        let locale = self.items.iter().find(|(item, _)| item.kind == "locale").map(|(_, locale)| locale.as_str());
        locale.and_then(|locale| locale.split(' ').next()).unwrap_or_default()
    }

    /// The definition of a table itself.
    pub fn relation(&self, table: &QualifiedName) -> Option<&str> {
        self.get("relation", table, "")
    }

    /// A definition.
    pub fn get(&self, kind: &str, table: &QualifiedName, name: &str) -> Option<&str> {
        let item = ShapeItem { table: table.clone(), kind: kind.to_owned(), name: name.to_owned() };
        self.items.get(&item).map(String::as_str)
    }

    /// The tables (with partitioned and foreign ones), without views and partitions.
    pub fn tables(&self) -> impl Iterator<Item = &QualifiedName> {
        let is_table = |definition: &str| {
            (definition.starts_with("table") || definition.starts_with("foreign")) && !definition.contains(", a partition ")
        };
        self.items
            .iter()
            .filter(move |(item, definition)| item.kind == "relation" && is_table(definition))
            .map(|(item, _)| &item.table)
    }

    /// What a table has of one kind: names and definitions.
    pub fn of_table<'s>(&'s self, kind: &'s str, table: &'s QualifiedName) -> impl Iterator<Item = (&'s str, &'s str)> {
        let wanted = move |item: &ShapeItem| item.kind == kind && item.table == *table;
        self.items
            .iter()
            .filter(move |(item, _)| wanted(item))
            .map(|(item, definition)| (item.name.as_str(), definition.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_told_in_words() {
        let check = |kind: &str, schema: &str, table: &str, name: &str, expect: &str| {
            let table = QualifiedName { schema: schema.into(), name: table.into() };
            assert_eq!(ShapeItem { table, kind: kind.into(), name: name.into() }.describe(), expect);
        };
        check("locale", "", "", "", "locale");
        check("extension", "", "", "citext", "extension citext");
        check("type", "extra", "", "mood", "type extra.mood");
        check("relation", "public", "t", "", "table public.t");
        check("order of columns", "public", "t", "", "order of columns of public.t");
        check("column", "public", "t", "a", "column a of public.t");
    }

    #[test]
    fn a_shape_is_read() {
        let row = |parts: [&str; 5]| parts.map(|part| Some(part.to_owned())).to_vec();
        let shape = Shape::from_rows(&[
            row(["locale", "", "", "", "UTF8 C C"]),
            row(["relation", "public", "t", "", "table"]),
            row(["relation", "public", "v", "", "view"]),
            row(["relation", "public", "t1", "", "table, a partition FOR VALUES IN (1)"]),
            row(["column", "public", "t", "a", "integer"]),
        ]);
        assert_eq!(shape.encoding(), "UTF8");
        let tables: Vec<&str> = shape.tables().map(|table| table.name.as_str()).collect();
        assert_eq!(tables, ["t"]);
        let table = QualifiedName { schema: "public".into(), name: "t".into() };
        assert_eq!(shape.of_table("column", &table).collect::<Vec<_>>(), [("a", "integer")]);
    }
}

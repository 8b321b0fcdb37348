//! The query that reads a schema.

/// The query's text, which two constants need.
macro_rules! schema_query {
    () => {
        r#"
SELECT 'database', CASE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c')
                     WHEN 'i' THEN 'icu:' || coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale', '')
                     WHEN 'b' THEN 'builtin:' || coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', '')
                     ELSE d.datcollate::text END,
       NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text
  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
UNION ALL
SELECT 'table', n.nspname::text, c.relname::text, c.relkind::text,
       CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384 AND c.relpersistence <> 't'
UNION ALL
SELECT 'column', k.nspname, k.relname, k.attname, k.base::text || ':' || k.modifier::text, k.type_name, k.collation_name, k.flags, k.default_kind
  FROM (SELECT n.nspname::text, c.relname::text, a.attname::text,
               CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE a.atttypid END AS base,
               CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END AS modifier,
               pg_catalog.format_type(a.atttypid, a.atttypmod) AS type_name,
               CASE WHEN a.attcollation = 100 THEN 'default'
                    ELSE pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) END AS collation_name,
               CASE WHEN a.attnotnull THEN 'n' ELSE '' END || CASE WHEN t.typtype = 'd' THEN 'd' ELSE '' END
                 || CASE WHEN co.oid IS NOT NULL AND NOT co.collisdeterministic THEN 'x' ELSE '' END AS flags,
               CASE WHEN a.attgenerated <> '' THEN 'generated'
                    WHEN a.attidentity <> '' THEN 'computed'
                    WHEN d.oid IS NULL THEN NULL
                    WHEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ '\(|CURRENT_|LOCALTIME|_USER' THEN 'computed'
                    ELSE 'constant' END AS default_kind
          FROM pg_catalog.pg_attribute a
          JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
          LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
          LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
          LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid >= 16384 AND c.relpersistence <> 't'
           AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attrelid, a.attnum) k
UNION ALL
SELECT CASE WHEN i.indisprimary THEN 'primary' ELSE 'unique' END, n.nspname::text, c.relname::text,
       (SELECT pg_catalog.string_agg(a.attname, pg_catalog.chr(1) ORDER BY u.place)
          FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS u(number, place)
          JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.number
         WHERE u.place <= i.indnkeyatts),
       NULL, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indisvalid AND i.indimmediate
   AND c.relkind IN ('r', 'p') AND c.oid >= 16384 AND c.relpersistence <> 't'
UNION ALL
SELECT 'trigger', n.nspname::text, c.relname::text, NULL, NULL, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f') AND c.oid >= 16384 AND c.relpersistence <> 't'
   AND (EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
        OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1'))
UNION ALL
SELECT 'guarded', n.nspname::text, c.relname::text, NULL, NULL, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f') AND c.oid >= 16384 AND c.relpersistence <> 't'
   AND (c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.confrelid = c.oid AND k.contype = 'f'))
UNION ALL
SELECT 'aggregate', p.proname::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_proc p WHERE p.prokind = 'a' AND p.oid >= 16384
UNION ALL
SELECT 'type', t.oid::text, pg_catalog.format_type(t.oid, NULL), NULL, NULL, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_type t
 WHERE t.typtype IN ('b', 'e', 'r', 'm', 'd') OR t.typtype = 'c' AND t.oid >= 16384
"#
    };
}

/// Reads everything that a [`Schema`](super::Schema) holds: nine text columns, see [`SchemaRow`](super::SchemaRow). Runs on
/// PostgreSQL 12 to 18, as any role, on primaries and replicas.
///
/// A collation is named as SQL names it, in quotes and with its schema, unless it is the database's. Unique indexes with a
/// condition, over expressions, or not valid are left out: they promise nothing for all rows.
pub const SCHEMA_QUERY: &str = schema_query!();

/// The same as a script of a connection's own: names of types and in views have their schemas, whatever the connection's search path.
pub const SCHEMA_SCRIPT: &str = concat!("SET LOCAL search_path = pg_catalog;", schema_query!());

//! What is read from the first shard and from the coordinator to make the one like the other. All rows come as text.

/// Tables that a coordinator may show: name, and whether rows are hidden from some users by policies. Columns: schema, name, `t` or `f`.
pub const TABLES: &str = "
SELECT n.nspname, c.relname, c.relrowsecurity
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't' AND c.oid >= 16384
   AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
 ORDER BY 1, 2";

/// Schemas of the user's. One column: the statement that makes one.
pub const SCHEMAS: &str = "
SELECT pg_catalog.format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname)
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard') ORDER BY 1";

/// Types of the user's. Columns: the type's name for `to_regtype`, the statement that makes it, and statements that bring an older one up to date.
/// Enumerations come first, then what may rest on them.
pub const TYPES: &str = "
SELECT name, make, renew FROM (
SELECT 1 AS kind, t.oid, pg_catalog.format('%I.%I', n.nspname, t.typname) AS name,
       pg_catalog.format('CREATE TYPE %I.%I AS ENUM (%s)', n.nspname, t.typname,
         (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
            FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)) AS make,
       (SELECT pg_catalog.string_agg(pg_catalog.format('ALTER TYPE %I.%I ADD VALUE IF NOT EXISTS %L%s', n.nspname, t.typname, e.enumlabel,
                 CASE WHEN e.before IS NULL THEN '' ELSE pg_catalog.format(' AFTER %L', e.before) END), E';\\n' ORDER BY e.enumsortorder)
          FROM (SELECT e.*, pg_catalog.lag(e.enumlabel) OVER (ORDER BY e.enumsortorder) AS before
                  FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid) e) AS renew
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.typtype = 'e' AND t.oid >= 16384
UNION ALL
SELECT 2, t.oid, pg_catalog.format('%I.%I', n.nspname, t.typname),
       pg_catalog.format('CREATE DOMAIN %I.%I AS %s', n.nspname, t.typname, pg_catalog.format_type(t.typbasetype, t.typtypmod)), NULL
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
 WHERE t.typtype = 'd' AND t.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL
SELECT 3, t.oid, pg_catalog.format('%I.%I', n.nspname, t.typname),
       pg_catalog.format('CREATE TYPE %I.%I AS (%s)', n.nspname, t.typname,
         (SELECT pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)), NULL
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
 WHERE t.typtype = 'c' AND c.relkind = 'c' AND t.oid >= 16384
) types
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = types.oid AND d.deptype = 'e')
 ORDER BY kind, oid";

/// Extensions that bring types or functions with them. One column: the statement that makes one.
pub const EXTENSIONS: &str = "
SELECT pg_catalog.format('CREATE EXTENSION IF NOT EXISTS %I', e.extname)
  FROM pg_catalog.pg_extension e WHERE e.extname NOT IN ('plpgsql', 'postgres_fdw') ORDER BY e.oid";

/// Functions of the user's, without triggers and procedures. Columns: name, definition.
pub const FUNCTIONS: &str = "
SELECT p.oid::pg_catalog.regprocedure::text, pg_catalog.pg_get_functiondef(p.oid)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND p.prokind IN ('f', 'w') AND l.lanname IN ('sql', 'plpgsql') AND p.prorettype NOT IN (2279, 3838)
   AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
 ORDER BY p.oid";

/// Views of the user's. Columns: name, the statement that makes one. Those that others rest on come first.
pub const VIEWS: &str = "
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
       pg_catalog.format('CREATE OR REPLACE VIEW %I.%I AS %s', n.nspname, c.relname, pg_catalog.pg_get_viewdef(c.oid))
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'v' AND c.oid >= 16384 AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY c.oid";

/// Who may read what. Columns: the role, the statement. Owners may read what is theirs.
pub const GRANTS: &str = "
SELECT g.grantee, pg_catalog.format('GRANT SELECT ON %I.%I TO %s', g.nspname, g.relname,
                                    CASE WHEN g.grantee = '' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(g.grantee) END)
  FROM (SELECT n.nspname, c.relname, coalesce(r.rolname::text, '') AS grantee
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) a
          LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
         WHERE a.privilege_type = 'SELECT' AND c.relkind IN ('r', 'p', 'v') AND c.oid >= 16384 AND NOT c.relispartition AND c.relpersistence <> 't'
           AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')) g
UNION
SELECT coalesce(r.rolname::text, ''), pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %s', n.nspname,
                                                  CASE WHEN r.rolname IS NULL THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END)
  FROM pg_catalog.pg_namespace n
  CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
 WHERE a.privilege_type = 'USAGE' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgyard')
 ORDER BY 2";

/// What an earlier synchronisation made in the coordinator. One column: the statement that drops it.
pub const MADE_BEFORE: &str = "
SELECT pg_catalog.format('DROP %s IF EXISTS %I.%I CASCADE',
         CASE c.relkind WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, n.nspname, c.relname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE pg_catalog.obj_description(c.oid, 'pg_class') = 'pgyard coordinator'
 ORDER BY c.relkind = 'v' DESC, c.oid";

/// The encoding and the order of texts of a database. One column.
pub const COLLATION: &str = "
SELECT pg_catalog.pg_encoding_to_char(d.encoding) || ' ' || d.datcollate || ' ' || d.datctype
  FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

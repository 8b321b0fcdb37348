//! The query that reads a catalogue.

/// Reads everything that a [`Catalogue`](super::Catalogue) holds: seven text columns, see
/// [`CatalogueRow`](super::CatalogueRow). Runs on PostgreSQL 10 to 18, as any role, on primaries and replicas.
///
/// 2281 is `internal`, 2279 `trigger`, 3838 `event_trigger`: no statement can call a function that takes or gives one. Objects
/// below 16384 are PostgreSQL's own. An aggregate's own `provolatile` says nothing: it is as volatile as the functions that it is
/// made of, whose names stand as its source.
pub const CATALOGUE_QUERY: &str = r#"
SELECT 'builtin', NULL::text, p.proname::text, max(p.provolatile::text), NULL::text, NULL::text, NULL::text
  FROM pg_catalog.pg_proc p
 WHERE p.oid < 16384 AND NOT 2281::oid = ANY (p.proargtypes::oid[]) AND p.prorettype NOT IN (2279, 3838, 2281)
 GROUP BY p.proname
UNION ALL
SELECT 'system_view', NULL, c.relname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_class c
 WHERE c.relkind = 'v' AND c.oid < 16384
UNION ALL
SELECT CASE WHEN p.prorettype IN (2279, 3838) THEN 'trigger_function' ELSE 'function' END,
       n.nspname::text, p.proname::text,
       CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc step
                             ON step.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
                          WHERE a.aggfnoid = p.oid AND step.provolatile = 'v') THEN 'v' ELSE p.provolatile::text END,
       CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid) THEN 'aggregate' ELSE l.lanname::text END,
       (SELECT e.extname::text
          FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
           AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass LIMIT 1),
       CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid) THEN
              (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(step.proname), ' ')
                 FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc step
                   ON step.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
                WHERE a.aggfnoid = p.oid)
            WHEN l.lanname NOT IN ('sql', 'plpgsql') THEN NULL
            WHEN p.prosrc = '' THEN pg_catalog.pg_get_functiondef(p.oid)
            ELSE pg_catalog.left(p.prosrc, 65537) END
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND NOT 2281::oid = ANY (p.proargtypes::oid[]) AND p.prorettype <> 2281
UNION ALL
SELECT 'argument', NULL, p.proname::text, pg_catalog.pg_get_expr(p.proargdefaults, 0), NULL, NULL, NULL
  FROM pg_catalog.pg_proc p
 WHERE p.oid >= 16384 AND p.proargdefaults IS NOT NULL
UNION ALL
SELECT 'view', n.nspname::text, c.relname::text, pg_catalog.pg_get_viewdef(c.oid), NULL, NULL, NULL
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'v' AND c.oid >= 16384
UNION ALL
SELECT CASE WHEN c.relkind = 'S' THEN 'sequence' WHEN c.relkind = 'f' THEN 'foreign' ELSE 'unlogged' END,
       n.nspname::text, c.relname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid >= 16384
   AND (c.relkind IN ('S', 'f') OR c.relpersistence = 'u' AND c.relkind IN ('r', 'p', 'm'))
UNION ALL
SELECT 'inherits', NULL, parent.relname::text, child.relname::text, NULL, NULL, NULL
  FROM pg_catalog.pg_inherits i
  JOIN pg_catalog.pg_class parent ON parent.oid = i.inhparent
  JOIN pg_catalog.pg_class child ON child.oid = i.inhrelid
 WHERE parent.relkind IN ('r', 'p', 'f')
UNION ALL
SELECT 'policy', NULL, c.relname::text, pg_catalog.pg_get_expr(p.polqual, p.polrelid), NULL, NULL, NULL
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
 WHERE p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
UNION ALL
SELECT 'domain', NULL, t.typname::text, pg_catalog.pg_get_constraintdef(k.oid), NULL, NULL, NULL
  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid = k.contypid
 WHERE k.contypid >= 16384 AND k.contype = 'c'
UNION ALL
SELECT 'uses', NULL, t.typname::text, coalesce(element.typname, used.typname)::text, 'type', NULL, NULL
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_type used ON used.oid = t.typbasetype
  LEFT JOIN pg_catalog.pg_type element ON element.oid = used.typelem AND used.typlen = -1
 WHERE t.typtype = 'd' AND t.typbasetype >= 16384
UNION ALL
SELECT 'uses', NULL, t.typname::text, used.typname::text, 'type', NULL, NULL
  FROM pg_catalog.pg_range r
  JOIN pg_catalog.pg_type t ON t.oid = r.rngtypid
  JOIN pg_catalog.pg_type used ON used.oid = r.rngsubtype
 WHERE r.rngsubtype >= 16384
UNION ALL
SELECT 'uses', NULL, c.relname::text, coalesce(element.typname, used.typname)::text,
       CASE WHEN c.relkind = 'c' THEN 'type' ELSE 'table' END, NULL, NULL
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_type used ON used.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type element ON element.oid = used.typelem AND used.typlen = -1
 WHERE a.atttypid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped AND used.typtype <> 'e'
   AND coalesce(element.typtype, 'b') <> 'e' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
UNION ALL
SELECT 'operator', NULL, o.oprname::text, p.proname::text, NULL, NULL, NULL
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
 WHERE p.provolatile = 'v'
UNION ALL
SELECT DISTINCT 'reading_operator', NULL, o.oprname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND l.lanname NOT IN ('internal', 'c')
UNION ALL
SELECT DISTINCT 'reading_cast', NULL, p.proname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_cast k
  JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND l.lanname NOT IN ('internal', 'c')
UNION ALL
SELECT 'cast', NULL, source.typname::text, target.typname::text, NULL,
       CASE WHEN k.castsource >= 16384 THEN 'user' END, CASE WHEN k.casttarget >= 16384 THEN 'user' END
  FROM pg_catalog.pg_cast k
  JOIN pg_catalog.pg_proc p ON p.oid = k.castfunc
  JOIN pg_catalog.pg_type source ON source.oid = k.castsource
  JOIN pg_catalog.pg_type target ON target.oid = k.casttarget
 WHERE p.provolatile = 'v'
UNION ALL
SELECT 'type_io', NULL, t.typname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_type t
 WHERE t.oid >= 16384
   AND EXISTS (SELECT FROM pg_catalog.pg_proc p
                WHERE p.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend) AND p.provolatile = 'v')
   AND t.typtype = 'b' AND NOT (t.typlen = -1 AND t.typelem <> 0)
UNION ALL
SELECT 'trigger', NULL, c.relname::text, p.proname::text, NULL, NULL, NULL
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
 WHERE NOT t.tgisinternal
UNION ALL
SELECT 'side_effects', NULL, c.relname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.confrelid
 WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
UNION ALL
SELECT 'side_effects', NULL, c.relname::text, NULL, NULL, NULL, NULL
  FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
 WHERE r.ev_type <> '1' AND c.oid >= 16384
UNION ALL
SELECT 'default', NULL, c.relname::text, pg_catalog.pg_get_expr(d.adbin, d.adrelid), NULL, NULL, NULL
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_class c ON c.oid = d.adrelid
 WHERE c.oid >= 16384 AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE '%(%'
   AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) !~ '^nextval\(''[^'']*''::regclass\)$'
UNION ALL
SELECT 'default', NULL, t.typname::text, t.typdefault, NULL, NULL, NULL
  FROM pg_catalog.pg_type t
 WHERE t.typtype = 'd' AND t.oid >= 16384 AND t.typdefault LIKE '%(%'
   AND t.typdefault !~ '^nextval\(''[^'']*''::regclass\)$'
UNION ALL
SELECT 'default', NULL, c.relname::text, pg_catalog.pg_get_constraintdef(k.oid), NULL, NULL, NULL
  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
 WHERE k.contype = 'c'
   AND EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid
                  AND d.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass))
UNION ALL
SELECT 'default', NULL, c.relname::text,
       pg_catalog.concat_ws(' AND ', pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)),
       NULL, NULL, NULL
  FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
 WHERE p.polcmd <> 'r'
"#;

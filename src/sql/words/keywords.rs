//! Keywords that the survey looks at.
//!
//! Spec: PostgreSQL documentation, appendix "SQL Key Words"; src/include/parser/kwlist.h.

use super::WordFlags;

/// Groups of words; a word may stand in several.
pub(super) const KEYWORDS: &[(WordFlags, &str)] = &[
    // Reserved, and the column-name keywords: none can be a function's name without quotes.
    (
        WordFlags::RESERVED,
        "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create \
         current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc \
         distinct do else end except false fetch for foreign from grant group having in initially intersect into lateral \
         leading limit localtime localtimestamp not null offset on only or order placing primary references returning select \
         session_user some symmetric table then to trailing true union unique user using variadic when where window with",
    ),
    (
        WordFlags::RESERVED,
        "between bigint bit boolean char character coalesce dec decimal exists extract float greatest grouping inout int \
         integer interval least national nchar none normalize nullif numeric out overlay position precision real row setof \
         smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat xmlelement xmlexists xmlforest \
         xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable",
    ),
    // May be a function's name, and then the catalogue knows that function. (The json ones are keywords since version 16.)
    (
        WordFlags::GRAMMAR,
        "by conflict cross cube cycle document escape exclude explain filter first full groups ilike inner inherits is \
         isnull join key like materialized merge_action natural next notnull operator ordinality outer over overlaps \
         partition passing prior range repeatable rollup rows search set sets share similar uescape value varying within \
         without zone bernoulli system at json json_array json_arrayagg json_exists json_object json_objectagg json_query \
         json_scalar json_serialize json_table json_value columns path plan keep omit",
    ),
    (WordFlags::INTO, "into"),
    (WordFlags::FOR, "for"),
    (WordFlags::LOCK_STRENGTH, "update no share key"),
    (WordFlags::DATA_CHANGE, "insert update delete merge"),
    (
        WordFlags::BEFORE_EXPRESSION,
        "select distinct all where and or not by on as when then else case having from in between like ilike limit offset",
    ),
    (WordFlags::BEFORE_DEFINITION, "as with recursive"),
    (WordFlags::CAST, "cast treat"),
    (WordFlags::JUXTAPOSES, "distinct operator"),
    (WordFlags::TEMPORARY, "temp temporary pg_temp"),
    (WordFlags::CHAINS, "and or union except intersect is not collate at like ilike similar in between select join"),
    (WordFlags::ONLY, "only"),
    (
        WordFlags::CLAUSE,
        "from where case union except intersect coalesce and or limit offset having exists with nullif fetch when values",
    ),
    (WordFlags::ORDERING, "order group limit offset fetch"),
];

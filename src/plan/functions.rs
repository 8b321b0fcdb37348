//! What a function means for a statement that several shards answer.

use super::schema::Schema;
use crate::sql::Catalogue;
use crate::sql::words::WordFlags;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FunctionKind {
    /// Its result follows from its arguments and the session's settings.
    Plain,
    /// The time of the transaction or statement.
    Clock,
    /// An aggregate.
    Aggregate,
    /// A window function that is no aggregate.
    Window,
    /// Another value each time, and nothing else: `random()`.
    Random,
    /// It describes the server or session.
    Server,
    /// Session-bound: advisory locks, notifications.
    Session,
    /// It answers from a sequence, or from the session's memory of one.
    Sequence,
    /// What it says of its arguments depends on how their table is stored or named.
    Physical,
    /// It writes, reads tables, or is not known.
    Opaque,
}

/// PostgreSQL's aggregates.
const AGGREGATES: &str = "count sum min max avg bool_and bool_or every bit_and bit_or bit_xor array_agg string_agg json_agg jsonb_agg \
    json_object_agg jsonb_object_agg json_agg_strict jsonb_agg_strict json_object_agg_strict jsonb_object_agg_strict \
    json_object_agg_unique jsonb_object_agg_unique json_object_agg_unique_strict jsonb_object_agg_unique_strict \
    json_arrayagg json_objectagg xmlagg range_agg range_intersect_agg any_value stddev stddev_pop stddev_samp variance var_pop var_samp \
    corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy \
    percentile_cont percentile_disc mode";
/// Window functions; `rank` and its like are hypothetical-set aggregates too.
const WINDOWS: &str = "row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value";
/// Aggregates whose result does not depend on the order of their rows.
const ORDERLESS: &str = "count sum min max avg bool_and bool_or every bit_and bit_or bit_xor stddev stddev_pop stddev_samp variance \
    var_pop var_samp range_agg range_intersect_agg corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 \
    regr_slope regr_sxx regr_sxy regr_syy percentile_cont percentile_disc";
const CLOCKS: &str = "now transaction_timestamp statement_timestamp current_timestamp current_date current_time localtime \
    localtimestamp age";
/// They make another value each time.
const RANDOM: &str = "random random_normal clock_timestamp timeofday gen_random_uuid uuidv4 uuidv7 pg_sleep pg_sleep_for pg_sleep_until \
    uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 gen_random_bytes gen_salt";
/// They say of a value how it is stored, or what a table is on one server.
const PHYSICAL: &str = "pg_typeof pg_column_size pg_column_compression current_query pg_relation_size pg_table_size pg_indexes_size \
    pg_total_relation_size pg_database_size row_security_active";
const SEQUENCES: &str = "currval lastval nextval setval pg_get_serial_sequence";
/// Words that the parser takes for functions.
const SYNTAX: &str = "coalesce nullif greatest least grouping array row cast exists any all current_user session_user user current_role \
    current_catalog current_schema cube rollup overlay xmlelement xmlforest xmlconcat";

fn listed(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|word| word == name)
}

/// What a function of this name is. A user's function of the name of one of PostgreSQL's counts as opaque unless it is immutable.
pub(super) fn kind_of(name: &str, schema: &Schema, catalogue: &Catalogue) -> FunctionKind {
    let flags = catalogue.stored_name(name);
    if flags.has(WordFlags::READS_TABLES | WordFlags::OPAQUE) && !schema.is_aggregate(name) {
        return FunctionKind::Opaque;
    }
    if flags.has(WordFlags::SESSION_BOUND | WordFlags::ADVISORY) {
        return FunctionKind::Session;
    }
    if listed(AGGREGATES, name) || schema.is_aggregate(name) {
        return FunctionKind::Aggregate;
    }
    for (list, kind) in [
        (WINDOWS, FunctionKind::Window),
        (CLOCKS, FunctionKind::Clock),
        (RANDOM, FunctionKind::Random),
        (PHYSICAL, FunctionKind::Physical),
        (SEQUENCES, FunctionKind::Sequence),
        (SYNTAX, FunctionKind::Plain),
    ] {
        if listed(list, name) {
            return kind;
        }
    }
    if flags.has(WordFlags::SERVER_CALL) {
        return FunctionKind::Server;
    }
    if !flags.has(WordFlags::FUNCTION) || flags.has(WordFlags::VOLATILE | WordFlags::SEQUENCE | WordFlags::SET_CONFIG) {
        return FunctionKind::Opaque;
    }
    FunctionKind::Plain
}

/// Whether an aggregate gives the same whatever the order of its rows.
pub(super) fn is_orderless(name: &str) -> bool {
    listed(ORDERLESS, name)
}

/// Whether a call can be made on a shard as well as where the answers are put together: a short list of what conditions use.
pub(super) fn listed_immutable(name: &str) -> bool {
    listed("lower upper length abs coalesce mod round trunc floor ceil substr left right btrim ltrim rtrim nullif", name)
}

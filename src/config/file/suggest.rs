//! What somebody meant who wrote an unknown word.

/// The known word that is near enough to `text` to be what was meant.
pub(in crate::config) fn closest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let text = plain(text);
    let limit = (text.chars().count() / 3).clamp(1, 4);
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&plain(name), &text), *name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Words of other programs for what has another name here: their name, ours.
pub(super) const FOREIGN: &[(&str, &str)] = &[
    ("default_pool_size", "pool_size"),
    ("max_db_connections", "max_per_host"),
    ("min_pool_size", "min_idle"),
    ("min_pool_connections", "min_idle"),
    ("query_wait_timeout", "checkout_timeout"),
    ("server_connect_timeout", "connect_timeout"),
    ("server_idle_timeout", "idle_timeout"),
    ("server_lifetime", "max_age"),
    ("idle_in_transaction_session_timeout", "idle_transaction_timeout"),
    ("statement_timeout", "query_timeout"),
    ("max_prepared_statements", "max_prepared"),
    ("prepared_statements_limit", "max_prepared"),
    ("auth_type", "auth"),
    ("auth_method", "auth"),
    ("auth_query", "lookup_query"),
    ("dbname", "database"),
    ("database_name", "database"),
    ("username", "user"),
    ("auth_user", "user"),
    ("load_balancing_mode", "balance"),
    ("load_balancing_strategy", "balance"),
    ("load_balance", "balance"),
    ("max_replica_lag", "max_lag"),
    ("max_replication_lag", "max_lag"),
    ("ban_replica_lag", "max_lag"),
    ("ban_replica_lag_bytes", "max_lag_bytes"),
    ("healthcheck_interval", "probe_interval"),
    ("health_check_period", "probe_interval"),
    ("healthcheck_timeout", "probe_timeout"),
    ("read_write_split", "split"),
    ("query_parser_read_write_splitting", "split"),
    ("listen_addr", "listen"),
    ("listen_port", "listen"),
    ("bind", "listen"),
    ("port", "listen"),
    ("worker_threads", "workers"),
    ("threads", "workers"),
    ("shutdown_timeout", "drain_timeout"),
    ("address", "host"),
    ("hostname", "host"),
    ("primaries", "primary"),
    ("master", "primary"),
    ("standbys", "replicas"),
    ("replica", "replicas"),
    ("servers", "hosts"),
    ("max_client_conn", "max_clients"),
    ("client_login_timeout", "login_timeout"),
    ("log_min_duration", "min_duration"),
    ("log_min_duration_statement", "min_duration"),
    ("filter", "level"),
    ("log_level", "level"),
    ("log_format", "format"),
    ("cert", "certificate"),
    ("tls_certificate", "certificate"),
    ("client_tls_cert_file", "certificate"),
    ("tls_private_key", "key"),
    ("private_key", "key"),
    ("client_tls_key_file", "key"),
    ("ca", "client_ca"),
    ("server_tls_sslmode", "sslmode"),
    ("tls_mode", "sslmode"),
];

/// Our name for what another program calls `text`.
pub(in crate::config) fn translate(text: &str) -> impl Iterator<Item = &'static str> {
    let text = plain(text);
    FOREIGN.iter().filter(move |(theirs, _)| *theirs == text).map(|(_, ours)| *ours)
}

fn plain(text: &str) -> String {
    text.trim().replace('-', "_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let known = ["max_lag", "max_lag_bytes", "pool_size", "split"];
        for (text, expect) in [
            ("max_lagg", Some("max_lag")),
            ("max-lag", Some("max_lag")),
            ("MAX_LAG", Some("max_lag")),
            ("maxlag", Some("max_lag")),
            ("pool_sise", Some("pool_size")),
            ("slpit", Some("split")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(text, &known), expect, "{text}");
        }
        assert_eq!(translate("default-pool-size").collect::<Vec<_>>(), ["pool_size"]);
        assert_eq!(translate("nothing").count(), 0);
    }
}

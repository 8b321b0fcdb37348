//! PostgreSQL's own functions and views that `provolatile` describes wrongly for our purpose: in one place, each group with its
//! reason. User functions are never looked up here, so that a user's `random()` is judged by its own volatility.

use crate::sql::words::WordFlags;

/// Volatile in the catalogue, but a replica answers as well as the primary and nothing stays behind.
const HARMLESS: &[(&str, &str)] = &[
    ("random", "a random number; its seed is per session, and only setseed() makes it repeatable"),
    ("random_normal", "as random() (version 16)"),
    ("clock_timestamp", "reads the clock"),
    ("timeofday", "reads the clock"),
    ("gen_random_uuid", "random bytes from the operating system"),
    ("uuidv4", "as gen_random_uuid() (version 18)"),
    ("uuidv7", "clock and random bytes (version 18)"),
    ("pg_sleep", "waits"),
    ("pg_sleep_for", "waits"),
    ("pg_sleep_until", "waits"),
    ("current_query", "the text that the client sent, which is forwarded unchanged"),
    ("pg_relation_size", "sizes of files, which a replica has too"),
    ("pg_table_size", "as pg_relation_size()"),
    ("pg_indexes_size", "as pg_relation_size()"),
    ("pg_total_relation_size", "as pg_relation_size()"),
    ("pg_database_size", "as pg_relation_size()"),
    ("pg_tablespace_size", "as pg_relation_size()"),
    ("pg_partition_tree", "reads the catalogue"),
    ("pg_partition_ancestors", "reads the catalogue"),
];

/// Of well-known extensions, volatile but harmless: (extension, functions).
const HARMLESS_IN_EXTENSIONS: &[(&str, &str)] = &[
    // Random bytes and the clock.
    ("uuid-ossp", "uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4"),
    // Random bytes, and encryption with a random session key.
    (
        "pgcrypto",
        "gen_random_bytes gen_random_uuid gen_salt pgp_sym_encrypt pgp_sym_encrypt_bytea pgp_pub_encrypt pgp_pub_encrypt_bytea",
    ),
];

/// Functions that must run on the primary, whatever their `provolatile` says, with what else is known of them.
const WRITES: &[(WordFlags, &str)] = &[
    // Session-level advisory locks stay until they are released or the session ends.
    (
        WordFlags(WordFlags::SESSION_BOUND.0 | WordFlags::ADVISORY.0),
        "pg_advisory_lock pg_advisory_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared",
    ),
    // Releases, and locks that end with the transaction: bound to the primary's lock table, but nothing new stays.
    (
        WordFlags::SESSION_BOUND,
        "pg_advisory_unlock pg_advisory_unlock_shared pg_advisory_unlock_all pg_advisory_xact_lock \
         pg_advisory_xact_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared pg_notify pg_export_snapshot",
    ),
    // They leave a memory in the session, but no more than every INSERT into a serial column does.
    (WordFlags::NONE, "nextval setval"),
    // They answer from that memory.
    (WordFlags::SEQUENCE, "currval lastval"),
    // The seed stays in the server process, where a later random() of this session must find it.
    (WordFlags::OPAQUE, "setseed"),
    (WordFlags::SET_CONFIG, "set_config"),
    // Assign a transaction id, which a standby cannot; STABLE in the catalogue.
    (WordFlags::NONE, "txid_current pg_current_xact_id"),
    // Run a query or read a relation that only a literal names: it may be a view over something volatile.
    (
        WordFlags::NONE,
        "table_to_xml table_to_xmlschema table_to_xml_and_xmlschema schema_to_xml schema_to_xmlschema \
         schema_to_xml_and_xmlschema database_to_xml database_to_xmlschema database_to_xml_and_xmlschema query_to_xml \
         query_to_xmlschema query_to_xml_and_xmlschema cursor_to_xml cursor_to_xmlschema ts_stat ts_rewrite",
    ),
];

/// Functions that describe the server or the session, so that another server would answer another thing.
const DESCRIBES_SERVER: &str = "pg_backend_pid pg_is_in_recovery inet_server_addr inet_client_addr inet_client_port \
    pg_blocking_pids pg_safe_snapshot_blocking_pids pg_isolation_test_session_is_blocked pg_lock_status pg_cursor \
    pg_prepared_statement pg_prepared_xact pg_show_all_settings pg_show_all_file_settings pg_settings_get_flags \
    pg_hba_file_rules pg_ident_file_mappings pg_listening_channels pg_notification_queue_usage pg_my_temp_schema \
    pg_is_other_temp_schema pg_conf_load_time pg_postmaster_start_time pg_config pg_jit_available pg_current_logfile \
    pg_collation_actual_version pg_database_collation_actual_version pg_get_backend_memory_contexts \
    pg_get_shmem_allocations pg_get_multixact_members pg_get_replication_slots pg_get_wal_replay_pause_state \
    pg_get_wal_resource_managers pg_get_wait_events pg_get_wal_summarizer_state pg_available_wal_summaries \
    pg_wal_summary_contents pg_is_wal_replay_paused pg_last_committed_xact pg_last_wal_receive_lsn \
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_walfile_name pg_walfile_name_offset pg_split_walfile_name \
    pg_control_checkpoint pg_control_init pg_control_recovery pg_control_system pg_ls_archive_statusdir pg_ls_dir \
    pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_tmpdir pg_ls_waldir \
    pg_ls_summariesdir pg_read_file pg_read_file_old pg_read_binary_file pg_stat_file pg_stat_have_stats \
    pg_replication_origin_progress pg_replication_origin_session_is_setup pg_replication_origin_session_progress \
    pg_show_replication_origin_status pg_current_snapshot pg_current_xact_id_if_assigned pg_xact_status \
    pg_xact_commit_timestamp pg_xact_commit_timestamp_origin txid_current_if_assigned txid_current_snapshot \
    txid_status pg_available_extensions pg_available_extension_versions pg_get_aios pg_get_loaded_modules pg_numa_available \
    pg_get_shmem_allocations_numa";

/// Relations of `pg_catalog` that describe the server or the session. `pg_stat_*` and `pg_statio_*` go by their prefix.
const SERVER_RELATIONS: &str = "pg_locks pg_cursors pg_prepared_statements pg_prepared_xacts pg_settings \
    pg_file_settings pg_hba_file_rules pg_ident_file_mappings pg_replication_slots pg_replication_origin_status \
    pg_backend_memory_contexts pg_shmem_allocations pg_shmem_allocations_numa pg_config pg_wait_events pg_aios \
    pg_available_extensions pg_available_extension_versions pg_stat_activity pg_stat_replication pg_stat_wal_receiver \
    pg_stat_database pg_stat_all_tables pg_stat_user_tables pg_stat_sys_tables pg_stat_all_indexes pg_stat_user_indexes \
    pg_stat_sys_indexes pg_stat_archiver pg_stat_bgwriter pg_stat_checkpointer pg_stat_io pg_stat_database_conflicts \
    pg_stat_gssapi pg_stat_ssl pg_stat_progress_analyze pg_stat_progress_basebackup pg_stat_progress_cluster \
    pg_stat_progress_copy pg_stat_progress_create_index pg_stat_progress_vacuum pg_stat_recovery_prefetch \
    pg_stat_replication_slots pg_stat_slru pg_stat_subscription pg_stat_subscription_stats pg_stat_user_functions \
    pg_stat_wal pg_stat_xact_all_tables pg_stat_xact_sys_tables pg_stat_xact_user_functions pg_stat_xact_user_tables \
    pg_statio_all_indexes pg_statio_all_sequences pg_statio_all_tables pg_statio_sys_indexes pg_statio_sys_sequences \
    pg_statio_sys_tables pg_statio_user_indexes pg_statio_user_sequences pg_statio_user_tables pg_stat_statements \
    pg_stat_statements_info";

/// Relations of `pg_catalog` that a replica answers differently in substance: a sequence's position is up to 32 ahead there.
const SUSPECT_RELATIONS: &str = "pg_sequences";

/// What is known of one of PostgreSQL's own functions.
pub(crate) fn builtin_flags(name: &str, volatile: bool) -> WordFlags {
    if let Some((flags, _)) = WRITES.iter().find(|(_, names)| lists(names, name)) {
        return WordFlags::FUNCTION | WordFlags::VOLATILE | *flags;
    }
    if name == "current_setting" {
        return WordFlags::FUNCTION | WordFlags::CURRENT_SETTING;
    }
    if HARMLESS.iter().any(|(harmless, _)| *harmless == name) {
        // Files grow by what others write.
        let reads = if name.ends_with("_size") { WordFlags::READS_TABLES } else { WordFlags::NONE };
        return WordFlags::FUNCTION | reads;
    }
    if name.starts_with("pg_stat_get_") || lists(DESCRIBES_SERVER, name) {
        return WordFlags::FUNCTION | WordFlags::SERVER_CALL;
    }
    if volatile { WordFlags::FUNCTION | WordFlags::VOLATILE } else { WordFlags::FUNCTION }
}

/// Whether a function of an extension is known to be harmless though it is volatile.
pub(crate) fn harmless_in_extension(extension: &str, name: &str) -> bool {
    HARMLESS_IN_EXTENSIONS.iter().any(|(known, names)| *known == extension && lists(names, name))
}

/// What is known of one of PostgreSQL's own views.
pub(crate) fn system_view_flags(name: &str) -> WordFlags {
    let statistics = name.starts_with("pg_stat_") || name.starts_with("pg_statio_");
    if statistics || lists(SERVER_RELATIONS, name) {
        WordFlags::SERVER_NAME
    } else if lists(SUSPECT_RELATIONS, name) {
        WordFlags::SUSPECT
    } else {
        WordFlags::NONE
    }
}

/// Every system view that is known without a catalogue.
pub(crate) fn known_system_views() -> impl Iterator<Item = &'static str> {
    SERVER_RELATIONS.split_ascii_whitespace().chain(SUSPECT_RELATIONS.split_ascii_whitespace())
}

fn lists(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|listed| listed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_what_provolatile_does_not() {
        let known = WordFlags::FUNCTION;
        for (name, volatile, expect) in [
            ("lower", false, known),
            ("random", true, known),
            ("pg_sleep", true, known),
            ("lastval", true, known | WordFlags::VOLATILE | WordFlags::SEQUENCE),
            ("nextval", true, known | WordFlags::VOLATILE),
            ("txid_current", false, known | WordFlags::VOLATILE),
            ("set_config", true, known | WordFlags::VOLATILE | WordFlags::SET_CONFIG),
            ("pg_advisory_lock", true, known | WordFlags::VOLATILE | WordFlags::SESSION_BOUND | WordFlags::ADVISORY),
            ("pg_advisory_xact_lock", true, known | WordFlags::VOLATILE | WordFlags::SESSION_BOUND),
            ("pg_backend_pid", false, known | WordFlags::SERVER_CALL),
            ("pg_stat_get_activity", false, known | WordFlags::SERVER_CALL),
            ("inet_server_port", false, known),
            ("lo_get", true, known | WordFlags::VOLATILE),
            ("something_new", true, known | WordFlags::VOLATILE),
        ] {
            assert_eq!(builtin_flags(name, volatile), expect, "{name}");
        }
        assert_eq!(system_view_flags("pg_stat_anything_new"), WordFlags::SERVER_NAME);
        assert_eq!(system_view_flags("pg_stats"), WordFlags::NONE);
        assert_eq!(system_view_flags("pg_sequences"), WordFlags::SUSPECT);
        assert!(harmless_in_extension("uuid-ossp", "uuid_generate_v4"));
        assert!(!harmless_in_extension("pgcrypto", "uuid_generate_v4"));
    }

    #[test]
    fn no_name_stands_in_two_lists() {
        let mut names: Vec<&str> = HARMLESS.iter().map(|(name, _)| *name).collect();
        names.extend(WRITES.iter().flat_map(|(_, names)| names.split_ascii_whitespace()));
        names.extend(DESCRIBES_SERVER.split_ascii_whitespace());
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(HARMLESS.iter().all(|(_, reason)| !reason.is_empty()));
    }
}

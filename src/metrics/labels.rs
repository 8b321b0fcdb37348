//! The values that labels of fixed vocabulary may have. Each is an array index on the hot path and a text at the scrape.

/// Defines an enum whose values are label texts and, in order, array indexes.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $(#[doc = $help:literal] $value:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $help] $value,)+
        }

        impl $name {
            /// Every value, in the order of its index (`as usize`).
            pub const ALL: [$name; [$($label),+].len()] = [$($name::$value),+];

            /// The label's text: lower-case words with underscores.
            pub const fn label(self) -> &'static str {
                match self {
                    $($name::$value => $label,)+
                }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $($name::$value => $help.trim_ascii(),)+
                }
            }

            /// The value with this label text. A search: not for the way of a statement.
            pub fn from_label(label: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.label() == label)
            }
        }
    };
}

label_values! {
    /// Which kind of host served a statement.
    QueryRoute {
        /// The primary.
        Primary = "primary",
        /// A replica.
        Replica = "replica",
    }
}

label_values! {
    /// Why a statement went where it went. The values from `Write` on are the reasons for which a text is not a read.
    QueryReason {
        /// A read, balanced over the hosts in rotation.
        Read = "read",
        /// A read, but no replica was eligible.
        NoReplica = "no_replica",
        /// A read, but no eligible replica had replayed what the session must see.
        Freshness = "freshness",
        /// Says something of the session (SET, SHOW, DEALLOCATE ...).
        Session = "session",
        /// Describes a server (`pg_stat_activity`, `pg_backend_pid()` ...).
        Server = "server",
        /// Belongs to a transaction that runs on that host.
        Transaction = "transaction",
        /// The session is bound to its server.
        Pinned = "pinned",
        /// Begins a READ ONLY transaction.
        ReadOnlyTransaction = "read_only_transaction",
        /// A routing comment said so.
        Hint = "hint",
        /// `SET pgyard.route` or the configuration said so.
        Setting = "setting",
        /// `reads_on_primary = "always"` put the primary into the rotation.
        Rotation = "rotation",
        /// `split = false`: everything goes to the primary.
        SplitOff = "split_off",
        /// The catalogue has not been read since it last changed.
        Catalogue = "catalogue",
        /// A replica could not answer it, so it was sent again.
        Retry = "retry",
        /// INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY FROM, CALL, DO.
        Write = "write",
        /// DDL and other utility statements.
        Utility = "utility",
        /// A write inside what looks like a read.
        NestedWrite = "nested_write",
        /// A row or table lock.
        Lock = "lock",
        /// Calls a volatile function.
        VolatileFunction = "volatile_function",
        /// Calls a function that the catalogue does not know.
        UnknownFunction = "unknown_function",
        /// Reads an object that rests on something volatile.
        SuspectObject = "suspect_object",
        /// Bound to a session on the primary (LISTEN, advisory locks, temporary objects, functions that may leave something behind ...).
        SessionBound = "session_bound",
        /// Several statements that are not all reads.
        SeveralStatements = "several_statements",
        /// Nothing could be proven of the text.
        Unparsed = "unparsed",
        /// The session's settings make the text unsafe to scan.
        UnsafeLexing = "unsafe_lexing",
        /// COPY TO a file or a program of the server.
        ServerFile = "server_file",
    }
}

impl QueryReason {
    /// Whether a replica can serve a statement for this reason. The other reasons are not rendered for replicas while they are 0, which is always.
    pub(super) const fn possible_on_replica(self) -> bool {
        (self as usize) < (QueryReason::Write as usize)
            && !matches!(
                self,
                QueryReason::NoReplica
                    | QueryReason::Freshness
                    | QueryReason::Rotation
                    | QueryReason::SplitOff
                    | QueryReason::Catalogue
            )
    }
}

label_values! {
    /// Why a request was sent again.
    RetryReason {
        /// The replica went away before it answered.
        ReplicaLost = "replica_lost",
        /// The replica refused what the primary may allow (25006, 0A000, 55000).
        ReplicaRefused = "replica_refused",
        /// The replica cancelled the statement for its replay (40001, 40P01, 57P04).
        RecoveryConflict = "recovery_conflict",
        /// The replica does not have the object yet (42P01, 42703, 42883, 3F000).
        MissingObject = "missing_object",
        /// The host did not answer its probe any more while it worked on a read.
        HostSilent = "host_silent",
        /// The primary went away before the request could have had an effect.
        PrimaryLost = "primary_lost",
        /// "cached plan must not change result type", outside a transaction.
        StalePlan = "stale_plan",
    }
}

label_values! {
    /// Why a session is bound to its server connection; the order is that of the bits of `sql::facts::Pins`.
    PinCause {
        /// Temporary objects.
        Temporary = "temporary",
        /// Session-level advisory locks.
        AdvisoryLock = "advisory_lock",
        /// LISTEN.
        Listen = "listen",
        /// WITH HOLD cursors.
        HoldCursor = "hold_cursor",
        /// LOAD.
        Load = "load",
        /// currval, lastval.
        Sequence = "sequence",
        /// SQL PREPARE of what cannot be made again elsewhere.
        Prepare = "prepare",
        /// Code that pgyard cannot look into.
        Opaque = "opaque",
        /// A setting whose effect cannot be followed.
        Parameter = "parameter",
        /// A replication connection.
        Replication = "replication",
    }
}

label_values! {
    /// The way that bytes took.
    ByteDirection {
        /// From a client to pgyard.
        ClientIn = "client_in",
        /// From pgyard to a client.
        ClientOut = "client_out",
    }
}

label_values! {
    /// Why a log-in failed.
    LoginFailureReason {
        /// The password or proof is wrong.
        WrongPassword = "wrong_password",
        /// There is no such role, or no secret for it.
        UnknownUser = "unknown_user",
        /// There is no such database.
        UnknownDatabase = "unknown_database",
        /// The role may not log in, has expired, or may not connect to the database.
        NotPermitted = "not_permitted",
        /// The client must use TLS and did not.
        TlsRequired = "tls_required",
        /// The log-in took longer than `login_timeout`.
        Timeout = "timeout",
        /// The client broke the protocol.
        Protocol = "protocol",
        /// The client went away in the middle of it.
        ClientGone = "client_gone",
        /// The look-up of the role failed, or no server could be asked.
        Lookup = "lookup",
        /// This user has as many clients as it may have.
        TooManyClients = "too_many_clients",
        /// A rule of the access list refused it, or none let it in.
        AccessRule = "access_rule",
        /// The certificate or the process at the other end does not stand for the role.
        WrongIdentity = "wrong_identity",
        /// The database has as many clients as it may have.
        TooManyDatabaseClients = "too_many_database_clients",
        /// A replication client found no place on the primary's host (`max_per_host`).
        HostFull = "host_full",
        /// Too many log-ins from the address (`login_rate_per_address`).
        AddressRate = "address_rate",
        /// Too many log-ins of the user (`login_rate_per_user`).
        UserRate = "user_rate",
        /// Too many log-ins have failed from the address or for the user; this one was not tried.
        TooManyFailures = "too_many_failures",
    }
}

label_values! {
    /// Why a connection was refused before its log-in.
    RefusalReason {
        /// `max_clients` are connected.
        MaxClients = "max_clients",
        /// `max_clients_per_address` are connected from that address.
        MaxClientsPerAddress = "max_clients_per_address",
        /// `max_logging_in` have not logged in yet.
        MaxLoggingIn = "max_logging_in",
        /// pgyard is stopping.
        Draining = "draining",
    }
}

label_values! {
    /// Whose statements were too many.
    RateScope {
        /// Those of one user (`statement_rate_per_user`).
        User = "user",
        /// Those from one address (`statement_rate_per_address`).
        Address = "address",
    }
}

label_values! {
    /// What became of statements beyond a rate.
    RateOutcome {
        /// The client got an error.
        Refused = "refused",
        /// They waited, because they were in a transaction.
        Delayed = "delayed",
    }
}

label_values! {
    /// Which time of a client was over.
    TimeoutKind {
        /// A statement ran longer than `query_timeout` and was cancelled (57014).
        Query = "query",
        /// A transaction waited for its client longer than `idle_transaction_timeout` and was rolled back (25P03).
        IdleTransaction = "idle_transaction",
    }
}

label_values! {
    /// What became of a cancel request.
    CancelOutcome {
        /// Passed on to the server that runs the client's statement.
        Forwarded = "forwarded",
        /// The client was running nothing: there was nothing to cancel.
        Idle = "idle",
        /// Passed on to the pgyard that the key names.
        Peer = "peer",
        /// No client has that key.
        UnknownKey = "unknown_key",
        /// The server could not be told.
        Failed = "failed",
    }
}

/// The documentation of the label values, in Markdown: a table for each vocabulary.
pub(super) fn markdown_tables() -> String {
    let mut text = String::new();
    let mut table = |title: &str, rows: &[(&str, &str)]| {
        text.push_str(&format!("\n### {title}\n\n| value | meaning |\n|---|---|\n"));
        rows.iter().for_each(|(label, meaning)| text.push_str(&format!("| `{label}` | {meaning} |\n")));
    };
    table("`reason` of `pgyard_queries_total`", &QueryReason::ALL.map(|value| (value.label(), value.meaning())));
    table("`reason` of `pgyard_retries_total`", &RetryReason::ALL.map(|value| (value.label(), value.meaning())));
    table("`reason` of `pgyard_login_failures_total`", &LoginFailureReason::ALL.map(|value| (value.label(), value.meaning())));
    table("`reason` of `pgyard_connections_refused_total`", &RefusalReason::ALL.map(|value| (value.label(), value.meaning())));
    table("`cause` of `pgyard_clients_pinned`", &PinCause::ALL.map(|value| (value.label(), value.meaning())));
    table("`scope` of `pgyard_statements_rate_limited_total`", &RateScope::ALL.map(|value| (value.label(), value.meaning())));
    table("`outcome` of `pgyard_statements_rate_limited_total`", &RateOutcome::ALL.map(|value| (value.label(), value.meaning())));
    table("`kind` of `pgyard_timeouts_total`", &TimeoutKind::ALL.map(|value| (value.label(), value.meaning())));
    table("`outcome` of `pgyard_cancel_requests_total`", &CancelOutcome::ALL.map(|value| (value.label(), value.meaning())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_and_lead_back_to_their_value() {
        for (index, reason) in QueryReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(QueryReason::from_label(reason.label()), Some(reason));
            assert!(reason.label().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
        assert_eq!(QueryReason::from_label("no such reason"), None);
    }

    #[test]
    fn only_reads_reach_replicas() {
        let possible = |reason: QueryReason| reason.possible_on_replica();
        let on_replicas: Vec<&str> = QueryReason::ALL.into_iter().filter(|r| possible(*r)).map(|r| r.label()).collect();
        assert_eq!(
            on_replicas,
            ["read", "session", "server", "transaction", "pinned", "read_only_transaction", "hint", "setting", "retry"]
        );
    }
}

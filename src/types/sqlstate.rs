//! SQLSTATE codes.

use std::fmt;

/// A five-character SQLSTATE.
///
/// Spec: PostgreSQL documentation, appendix "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

macro_rules! states {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl SqlState {
            $(#[doc = $doc] pub const $name: SqlState = SqlState(*$code);)*
        }
    };
}

states! {
    CONNECTION_FAILURE = b"08006", "connection_failure";
    TRANSACTION_RESOLUTION_UNKNOWN = b"08007", "transaction_resolution_unknown";
    PROTOCOL_VIOLATION = b"08P01", "protocol_violation";
    CANNOT_CONNECT = b"08001", "sqlclient_unable_to_establish_sqlconnection";
    FEATURE_NOT_SUPPORTED = b"0A000", "feature_not_supported";
    INVALID_PARAMETER_VALUE = b"22023", "invalid_parameter_value";
    CANT_CHANGE_RUNTIME_PARAM = b"55P02", "cant_change_runtime_param";
    ACTIVE_SQL_TRANSACTION = b"25001", "active_sql_transaction";
    READ_ONLY_SQL_TRANSACTION = b"25006", "read_only_sql_transaction";
    IDLE_IN_TRANSACTION_TIMEOUT = b"25P03", "idle_in_transaction_session_timeout";
    IN_FAILED_SQL_TRANSACTION = b"25P02", "in_failed_sql_transaction";
    INVALID_STATEMENT_NAME = b"26000", "invalid_sql_statement_name";
    INVALID_AUTHORIZATION = b"28000", "invalid_authorization_specification";
    INVALID_PASSWORD = b"28P01", "invalid_password";
    INVALID_CATALOG_NAME = b"3D000", "invalid_catalog_name";
    INSUFFICIENT_PRIVILEGE = b"42501", "insufficient_privilege";
    SYNTAX_ERROR = b"42601", "syntax_error";
    UNDEFINED_OBJECT = b"42704", "undefined_object";
    DUPLICATE_PREPARED_STATEMENT = b"42P05", "duplicate_prepared_statement";
    TOO_MANY_CONNECTIONS = b"53300", "too_many_connections";
    CONFIGURATION_LIMIT_EXCEEDED = b"53400", "configuration_limit_exceeded";
    PROGRAM_LIMIT_EXCEEDED = b"54000", "program_limit_exceeded";
    OBJECT_NOT_IN_PREREQUISITE_STATE = b"55000", "object_not_in_prerequisite_state";
    QUERY_CANCELED = b"57014", "query_canceled";
    ADMIN_SHUTDOWN = b"57P01", "admin_shutdown";
    CRASH_SHUTDOWN = b"57P02", "crash_shutdown";
    CANNOT_CONNECT_NOW = b"57P03", "cannot_connect_now";
    INTERNAL_ERROR = b"XX000", "internal_error";
}

impl SqlState {
    /// The code's text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// The class: the first two characters.
    pub fn class(&self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

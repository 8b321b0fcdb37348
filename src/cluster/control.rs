//! Connections of the control plane: pgyard's own log-ins to the hosts, apart from the clients'.

use super::control_tls::ControlTls;
use super::snapshot::Host;
use crate::config::{HostSettings, ServerTlsMode};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;

/// Answers the TLS configuration towards a host; `None` where its mode is `disable`.
pub type ServerTlsLookup = Arc<dyn Fn(&HostSettings) -> Option<Arc<rustls::ClientConfig>> + Send + Sync>;

/// What pgyard's own connections are called in `pg_stat_activity`.
pub const CONTROL_APPLICATION_NAME: &str = "pgyard control";

/// How to reach one host with the control role.
#[derive(Clone)]
pub struct ControlTarget {
    config: tokio_postgres::Config,
    tls: ControlTls,
}

/// One open connection. Dropping it closes the socket at once, whatever the server is doing.
pub struct ControlConnection {
    /// The client half.
    pub client: tokio_postgres::Client,
    driver: JoinHandle<()>,
}

impl ControlTarget {
    /// `timeout` bounds the connect.
    pub fn new(host: &Host, tls: &ServerTlsLookup, timeout: Duration) -> Self {
        let settings = &host.settings;
        let tls = tls(settings);
        let mode = match settings.tls.mode {
            ServerTlsMode::Disable => SslMode::Disable,
            ServerTlsMode::Allow | ServerTlsMode::Prefer if tls.is_none() => SslMode::Disable,
            // tokio-postgres has no `allow`; what it tries first makes no difference to a control connection.
            ServerTlsMode::Allow | ServerTlsMode::Prefer => SslMode::Prefer,
            ServerTlsMode::Require | ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull => SslMode::Require,
        };
        // A Unix socket has no TLS.
        let mode = if settings.address.starts_with('/') { SslMode::Disable } else { mode };
        let mut config = tokio_postgres::Config::new();
        config
            .host(&settings.address)
            .port(settings.port)
            .user(&settings.control.user)
            .dbname(&settings.control.database)
            .application_name(CONTROL_APPLICATION_NAME)
            .ssl_mode(mode)
            .connect_timeout(timeout)
            .keepalives_idle(Duration::from_secs(60));
        if let Some(password) = &settings.control.password {
            config.password(password.reveal());
        }
        ControlTarget { config, tls: ControlTls::new(tls) }
    }

    /// The same host and role, another database.
    pub fn with_database(mut self, database: &str) -> Self {
        self.config.dbname(database);
        self
    }

    /// Opens a connection; a DNS name is resolved anew each time.
    ///
    /// # Errors
    /// Those of tokio-postgres. The caller bounds the time of the whole.
    pub async fn connect(&self) -> Result<ControlConnection, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(self.tls.clone()).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        Ok(ControlConnection { client, driver })
    }

    /// A small pool of such connections: for look-ups and the catalogue, which come in bursts and may wait for each other.
    pub fn pool(&self, size: usize, wait: Duration) -> Result<deadpool_postgres::Pool, deadpool_postgres::BuildError> {
        let manager = deadpool_postgres::Manager::new(self.config.clone(), self.tls.clone());
        let builder = deadpool_postgres::Pool::builder(manager).max_size(size).runtime(deadpool_postgres::Runtime::Tokio1);
        builder.wait_timeout(Some(wait)).create_timeout(Some(wait)).recycle_timeout(Some(wait)).build()
    }
}

impl ControlConnection {
    /// Returns when the connection has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&mut self) {
        if !self.driver.is_finished() {
            // The driver answers nothing; that it panicked is as good an end as any.
            let _ = (&mut self.driver).await;
        }
    }
}

impl Drop for ControlConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The whole chain of an error, since tokio-postgres keeps what the server said in the source.
pub fn describe_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

//! TLS of the control plane: a thin adapter that lets tokio-postgres speak through tokio-rustls.
//!
//! It offers no channel binding: the control plane logs in with SCRAM-SHA-256 without `-PLUS`.

use rustls::pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// Makes TLS connectors for one host. Without a configuration every attempt fails; use it with `sslmode=disable` then.
#[derive(Clone)]
pub struct ControlTls {
    config: Option<Arc<rustls::ClientConfig>>,
}

impl ControlTls {
    /// Which certificates are accepted, and whether names are compared, is the configuration's verifier's to say.
    pub fn new(config: Option<Arc<rustls::ClientConfig>>) -> Self {
        ControlTls { config }
    }
}

/// One attempt to speak TLS.
pub struct ControlTlsConnect {
    config: Option<Arc<rustls::ClientConfig>>,
    domain: String,
}

/// A TLS stream of the control plane.
pub struct ControlTlsStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for ControlTls {
    type Stream = ControlTlsStream<S>;
    type TlsConnect = ControlTlsConnect;
    type Error = io::Error;

    /// Never fails: tokio-postgres asks for a connector also when it is not going to use it.
    fn make_tls_connect(&mut self, domain: &str) -> io::Result<ControlTlsConnect> {
        Ok(ControlTlsConnect { config: self.config.clone(), domain: domain.to_owned() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ControlTlsConnect {
    type Stream = ControlTlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ControlTlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let config = self.config.ok_or_else(|| io::Error::other("no TLS configuration for this host"))?;
            let name = ServerName::try_from(self.domain.clone());
            let name = name.map_err(|_| io::Error::other(format!("\"{}\" cannot be named in TLS", self.domain)))?;
            tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map(ControlTlsStream)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for ControlTlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ControlTlsStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ControlTlsStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connector_that_is_not_used_costs_nothing_and_one_that_is_says_what_is_missing() {
        let mut tls = ControlTls::new(None);
        let made = MakeTlsConnect::<tokio::io::DuplexStream>::make_tls_connect(&mut tls, "not a/name").unwrap();
        let refused = made.connect(tokio::io::duplex(16).0).await.err().unwrap();
        assert_eq!(refused.to_string(), "no TLS configuration for this host");
    }
}

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
    connector: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
}

/// A TLS stream of the control plane.
pub struct ControlTlsStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for ControlTls {
    type Stream = ControlTlsStream<S>;
    type TlsConnect = ControlTlsConnect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, domain: &str) -> io::Result<ControlTlsConnect> {
        let config = self.config.clone().ok_or_else(|| io::Error::other("no TLS configuration for this host"))?;
        let name = ServerName::try_from(domain.to_owned());
        let name = name.map_err(|_| io::Error::other(format!("\"{domain}\" cannot be named in TLS")))?;
        Ok(ControlTlsConnect { connector: config.into(), name })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for ControlTlsConnect {
    type Stream = ControlTlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<ControlTlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(ControlTlsStream) })
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

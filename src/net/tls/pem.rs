//! PEM files into rustls' types.

use super::error::TlsError;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;

/// The certificates of a file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(path).map_err(|error| TlsError::read(path, error))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| TlsError::file(path, format!("damaged PEM: {error}")))?;
    if chain.is_empty() {
        return Err(TlsError::file(path, "no certificate in it (expected PEM: -----BEGIN CERTIFICATE-----)"));
    }
    Ok(chain)
}

/// The private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = std::fs::read(path).map_err(|error| TlsError::read(path, error))?;
    let encrypted = [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.windows(mark.len()).any(|window| window == *mark)) {
        return Err(TlsError::file(
            path,
            "the key is encrypted with a passphrase; decrypt it: openssl pkey -in KEY -out PLAIN_KEY",
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        TlsError::file(path, format!("no private key in it ({error}; expected PEM: -----BEGIN PRIVATE KEY-----)"))
    })
}

/// The certificates of a file as trust anchors.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::file(path, format!("a certificate in it can't be trusted: {error}")))?;
    }
    Ok(roots)
}

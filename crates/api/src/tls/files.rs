//! The files of TLS: certificate, key and authority, and what may be wrong with them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where the TLS files of a program are, each in PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The program's certificate; certificates between it and the authority's may follow it.
    pub certificate: PathBuf,
    /// The key of that certificate.
    pub key: PathBuf,
    /// Certificates of the authorities that the other side's certificate may come from.
    pub authority: PathBuf,
}

/// A file of TLS that cannot be used: which one, what is wrong, what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{kind} {}: {what}; {remedy}", path.display())]
pub struct TlsError {
    /// What the file should be.
    pub kind: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl TlsError {
    /// An error about a file.
    pub fn new(
        kind: &'static str,
        path: &Path,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> TlsError {
        TlsError { kind, path: path.into(), what: what.into(), remedy: remedy.into() }
    }
}

/// When a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Seconds since 1970.
    pub from: i64,
    /// Seconds since 1970.
    pub until: i64,
}

impl TlsFiles {
    /// The three files, to ask whether they have changed.
    pub fn paths(&self) -> [&Path; 3] {
        [&self.certificate, &self.key, &self.authority]
    }

    /// The certificate with its key, checked: readable, of each other, valid today, the key private.
    ///
    /// # Errors
    /// Says which file is wrong.
    pub fn certified_key(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates("certificate", &self.certificate)?;
        valid_today(&self.certificate, &chain)?;
        let key = private_key(&self.key)?;
        let made = CertifiedKey::from_der(chain, key, &super::provider());
        made.map(Arc::new).map_err(|e| self.unmatched(&e))
    }

    fn unmatched(&self, e: &tokio_rustls::rustls::Error) -> TlsError {
        use tokio_rustls::rustls::{Error, InconsistentKeys};
        let certificate = self.certificate.display();
        match e {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::new(
                "key",
                &self.key,
                format!("does not match certificate {certificate}"),
                "give the key that was made with the certificate",
            ),
            Error::InvalidCertificate(_) => TlsError::new(
                "certificate",
                &self.certificate,
                format!("cannot be used: {e}"),
                "issue another one",
            ),
            _ => TlsError::new(
                "key",
                &self.key,
                format!("cannot be used: {e}"),
                "use an ECDSA P-256 or P-384, Ed25519 or RSA key in PKCS #8",
            ),
        }
    }
}

/// Reads a file.
///
/// # Errors
/// Where that is not possible.
pub fn read(kind: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|e| {
        let remedy = match e.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => "let the user of this program read it",
            _ => "check the file",
        };
        TlsError::new(kind, path, format!("cannot be read: {e}"), remedy)
    })
}

/// Reads a file with a secret, which others must not read or write, nor its group write.
///
/// # Errors
/// Where it cannot be read or is open to others.
pub fn private_file(kind: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = read(kind, path)?;
    let mode = fs::metadata(path).map_or(0, |m| m.permissions().mode());
    if mode & 0o027 != 0 {
        let what = format!("is open to other users (mode {:04o})", mode & 0o7777);
        return Err(TlsError::new(kind, path, what, format!("chmod 600 {}", path.display())));
    }
    Ok(bytes)
}

/// Reads certificates, of which there is at least one.
///
/// # Errors
/// Where the file cannot be read or is no PEM with a certificate.
pub fn certificates(kind: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(kind, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let remedy = "give a PEM file, which has a line -----BEGIN CERTIFICATE-----";
    match read {
        Ok(all) if all.is_empty() => Err(TlsError::new(kind, path, "has no certificate in PEM", remedy)),
        Ok(all) => Ok(all),
        Err(e) => Err(TlsError::new(kind, path, format!("is no PEM: {e}"), remedy)),
    }
}

/// Reads the authorities.
///
/// # Errors
/// Where the file has none, or one that cannot be used.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("authority", path)? {
        roots.add(certificate).map_err(|e| {
            let what = format!("has a certificate that cannot be used: {e}");
            TlsError::new("authority", path, what, "give the certificate of the authority")
        })?;
    }
    Ok(roots)
}

/// When a certificate is good.
///
/// # Errors
/// What is wrong with it.
pub fn validity(certificate: &[u8]) -> Result<Validity, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| format!("is no X.509: {e}"))?;
    let v = parsed.validity();
    Ok(Validity { from: v.not_before.timestamp(), until: v.not_after.timestamp() })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = private_file("key", path)?;
    let remedy = "give a PEM file, which has a line -----BEGIN PRIVATE KEY-----";
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| match e {
        pem::Error::NoItemsFound => TlsError::new("key", path, "has no private key in PEM", remedy),
        e => TlsError::new("key", path, format!("is no PEM: {e}"), remedy),
    })
}

fn valid_today(path: &Path, chain: &[CertificateDer<'static>]) -> Result<(), TlsError> {
    let bad = |what: String, remedy: &str| Err(TlsError::new("certificate", path, what, remedy));
    let Some(own) = chain.first() else { return Ok(()) };
    let parsed = match X509Certificate::from_der(own) {
        Ok((_, parsed)) => parsed,
        Err(e) => return bad(format!("is no X.509 certificate: {e}"), "issue another one"),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let valid = parsed.validity();
    if now > valid.not_after.timestamp() {
        return bad(
            format!("expired on {}", valid.not_after),
            "renew it (godwitctl pki renew, where that made it) and check this host's clock",
        );
    }
    if now < valid.not_before.timestamp() {
        return bad(format!("is not valid before {}", valid.not_before), "check this host's clock");
    }
    Ok(())
}

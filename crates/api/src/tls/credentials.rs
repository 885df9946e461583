//! What a client shows to an NVA, read again when its files change.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, version};

use super::{ALPN, Stamp, TlsError, TlsFiles, provider, roots};

/// A client's certificate and the authority that it trusts, or the authority alone: a client without a certificate
/// proves itself with a token.
pub struct Credentials {
    authority: PathBuf,
    own: Option<TlsFiles>,
    now: Mutex<Current>,
}

struct Current {
    config: Arc<ClientConfig>,
    stamp: Stamp,
    /// Why the files as they are now are not in use.
    error: Option<TlsError>,
}

impl Credentials {
    /// A client with a certificate.
    ///
    /// # Errors
    /// Says which file is wrong.
    pub fn load(files: TlsFiles) -> Result<Arc<Credentials>, TlsError> {
        Credentials::new(files.authority.clone(), Some(files))
    }

    /// A client without one.
    ///
    /// # Errors
    /// Where the authority's file is wrong.
    pub fn anonymous(authority: PathBuf) -> Result<Arc<Credentials>, TlsError> {
        Credentials::new(authority, None)
    }

    fn new(authority: PathBuf, own: Option<TlsFiles>) -> Result<Arc<Credentials>, TlsError> {
        let stamp = stamp(&authority, own.as_ref());
        let config = config(&authority, own.as_ref())?;
        let now = Mutex::new(Current { config, stamp, error: None });
        Ok(Arc::new(Credentials { authority, own, now }))
    }

    /// Whether it has a certificate to show.
    pub fn has_certificate(&self) -> bool {
        self.own.is_some()
    }

    /// The configuration for the next connection; it is that of the files as they are now, or, where these cannot be
    /// used (one of them may have been written and another not yet), the last one that could.
    pub(crate) fn config(&self) -> (Arc<ClientConfig>, Option<TlsError>) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.authority, self.own.as_ref());
        if stamp != now.stamp || now.error.is_some() {
            match config(&self.authority, self.own.as_ref()) {
                Ok(config) => *now = Current { config, stamp, error: None },
                Err(e) => now.error = Some(e),
            }
        }
        (now.config.clone(), now.error.clone())
    }
}

fn stamp(authority: &Path, own: Option<&TlsFiles>) -> Stamp {
    match own {
        Some(files) => Stamp::of(files.paths()),
        None => Stamp::of([authority]),
    }
}

fn config(authority: &Path, own: Option<&TlsFiles>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = roots(authority)?;
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&version::TLS13]).map_err(|e| unusable(authority, &e))?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        Some(files) => {
            let key = files.certified_key()?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn unusable(authority: &Path, e: &tokio_rustls::rustls::Error) -> TlsError {
    TlsError::new("authority", authority, format!("cannot be used: {e}"), "give the authority's certificate")
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Credentials) -> bool {
        (&self.authority, &self.own) == (&other.authority, &other.own)
    }
}

impl Eq for Credentials {}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("authority", &self.authority).field("own", &self.own).finish()
    }
}

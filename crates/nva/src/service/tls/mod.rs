//! TLS towards NVEs and operators: the NVA's certificate, who may connect, and both read again when files change (R68).

mod live;
mod refusals;
mod verifier;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use godwit_api::tls::rustls::ServerConfig;
use godwit_api::tls::rustls::pki_types::{CertificateDer, UnixTime};
use godwit_api::tls::rustls::server::NoServerSessionStorage;
use godwit_api::tls::rustls::server::danger::ClientCertVerifier as _;
use godwit_api::tls::rustls::sign::SingleCertAndKey;
use godwit_api::tls::rustls::version::TLS13;
use godwit_api::tls::tokio_rustls::TlsAcceptor;
use godwit_api::tls::tokio_rustls::server::TlsStream;
use godwit_api::tls::{ALPN, Stamp, TlsError, TlsFiles, identity, provider, validity};
use godwit_model::Identity;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tokens::Tokens;
use live::Live;
pub(super) use live::Registration;
use refusals::{Refusals, explain};
use verifier::Verifier;

/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// So long before a certificate expires the log says so.
const WARN_BEFORE_S: i64 = 14 * 86_400;
/// How often it says so of the NVA's own.
const WARN_EVERY_S: i64 = 86_400;

/// What connections are secured with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Security {
    /// The NVA's certificate and key, and the authorities of those who connect.
    pub files: TlsFiles,
    /// Certificates that are good no longer: lists of the authorities, in PEM.
    pub revoked: Option<PathBuf>,
    /// Operators that prove themselves with a token instead of a certificate.
    pub tokens: Option<PathBuf>,
}

/// A stream, whom its certificate names, and its place among those that stand; both `None` without a certificate.
pub(super) type Secured<T> = (TlsStream<T>, Option<Identity>, Option<Registration>);

/// The NVA's end of TLS.
pub(super) struct Tls {
    settings: Security,
    now: RwLock<Current>,
    warned_s: Mutex<i64>,
    live: Arc<Live>,
    refusals: Refusals,
    tokens: Option<Arc<Tokens>>,
}

/// What the files say that could be used last.
struct Current {
    config: Arc<ServerConfig>,
    verifier: Arc<Verifier>,
    /// Until when the NVA's certificate is good, in seconds since 1970.
    until: i64,
    stamp: Stamp,
    /// Why the files as they are now are not in use.
    error: Option<TlsError>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Says which one is wrong.
    pub fn new(settings: Security) -> Result<Tls, TlsError> {
        let tokens = settings.tokens.clone().map(Tokens::read).transpose()?.map(Arc::new);
        let now = RwLock::new(read(&settings)?);
        let refusals = Refusals::default();
        Ok(Tls { settings, now, warned_s: Mutex::new(0), live: Arc::default(), refusals, tokens })
    }

    /// The operators that have a token.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.clone()
    }

    fn current(&self) -> (Arc<ServerConfig>, Arc<Verifier>) {
        let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
        (now.config.clone(), now.verifier.clone())
    }

    /// Makes TLS of a connection.
    ///
    /// # Errors
    /// Why the other side is refused.
    pub async fn accept<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: T,
        address: SocketAddr,
    ) -> Result<Secured<T>, String> {
        let (config, verifier) = self.current();
        let stream = TlsAcceptor::from(config).accept(stream).await.map_err(|e| explain(&e))?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<CertificateDer<'static>> =
            shown.iter().cloned().map(CertificateDer::into_owned).collect();
        let Some(own) = chain.first() else { return Ok((stream, None, None)) };
        let identity = identity(own).map_err(|e| e.to_string())?;
        let until = validity(own)?.until;
        self.warn_of_peer(&identity.to_string(), until);
        let registration = self.live.add(format!("{identity} at {address}"), chain.clone(), until);
        // Read again since the handshake began: the certificates that were looked through then did not have this one.
        let (_, newest) = self.current();
        if !Arc::ptr_eq(&verifier, &newest) {
            let rest = chain.get(1..).unwrap_or_default();
            newest.verify_client_cert(own, rest, UnixTime::now()).map_err(|e| refusals::words(&e))?;
        }
        Ok((stream, Some(identity), Some(registration)))
    }

    /// Writes to the log that a connection was refused.
    pub fn refused(&self, address: SocketAddr, why: &str) {
        self.refusals.log(address, why);
    }

    /// Reads files that have changed, and ends the connections of those who may connect no longer.
    ///
    /// What cannot be used is said in the log once; what could be used last stays in use.
    pub fn refresh(&self) {
        if let Some(tokens) = &self.tokens {
            tokens.refresh();
        }
        let seen = {
            let now = self.now.read().unwrap_or_else(PoisonError::into_inner);
            (now.stamp != stamp(&self.settings) || now.error.is_some()).then(|| now.error.clone())
        };
        if let Some(error) = seen {
            self.read_again(error.as_ref());
        }
        let now_s = seconds();
        self.live.end_expired(now_s);
        self.warn_of_own(now_s);
    }

    fn read_again(&self, earlier: Option<&TlsError>) {
        match read(&self.settings) {
            Ok(new) => {
                let verifier = new.verifier.clone();
                *self.now.write().unwrap_or_else(PoisonError::into_inner) = new;
                tracing::info!("certificates and revocation list are read again");
                self.live.end_refused(&verifier);
            }
            Err(e) => {
                if earlier != Some(&e) {
                    tracing::warn!("{e}; what was read before stays in use");
                }
                self.now.write().unwrap_or_else(PoisonError::into_inner).error = Some(e);
            }
        }
    }

    fn warn_of_own(&self, now_s: i64) {
        let until = self.now.read().unwrap_or_else(PoisonError::into_inner).until;
        let mut warned = self.warned_s.lock().unwrap_or_else(PoisonError::into_inner);
        if until - now_s < WARN_BEFORE_S && now_s - *warned >= WARN_EVERY_S {
            *warned = now_s;
            let file = self.settings.files.certificate.display();
            let left = remaining(until - now_s);
            tracing::warn!("certificate {file} of this NVA {left}; renew it, it is read without a restart");
        }
    }

    fn warn_of_peer(&self, who: &str, until: i64) {
        let left = until - seconds();
        if left < WARN_BEFORE_S {
            tracing::warn!("the certificate of {who} {}; renew it", remaining(left));
        }
    }
}

fn remaining(seconds: i64) -> String {
    if seconds < 0 { "has expired".into() } else { format!("expires in {} hours", seconds / 3600) }
}

fn seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn stamp(settings: &Security) -> Stamp {
    Stamp::of(settings.files.paths().into_iter().chain(settings.revoked.as_deref()))
}

fn read(settings: &Security) -> Result<Current, TlsError> {
    // First, so that a file which is written meanwhile is read once more.
    let stamp = stamp(settings);
    let verifier = Arc::new(Verifier::read(settings)?);
    let key = settings.files.certified_key()?;
    let file = &settings.files.certificate;
    let unusable = |what: String| TlsError::new("certificate", file, what, "issue another one");
    let until = match key.cert.first() {
        Some(own) => validity(own).map_err(unusable)?.until,
        None => 0,
    };
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|e| unusable(format!("cannot be used: {e}")))?;
    let mut config = builder
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A session that is taken up again shows no certificate: that of a revoked one would do.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Current { config: Arc::new(config), verifier, until, stamp, error: None })
}

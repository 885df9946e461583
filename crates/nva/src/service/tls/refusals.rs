//! What the log says of connections that were refused.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use godwit_api::tls::rustls::{CertificateError, Error};

/// The same reason of one address is written once in so long.
const AGAIN: Duration = Duration::from_secs(60);
/// Addresses that are remembered; those beyond them are not written.
const ADDRESSES: usize = 1024;

/// Refusals of late, so that one who tries again and again does not fill the log.
#[derive(Default)]
pub(super) struct Refusals {
    by_address: Mutex<HashMap<IpAddr, (String, Instant)>>,
}

impl Refusals {
    /// Writes a refusal, unless the same one was written a short while ago.
    pub fn log(&self, address: SocketAddr, why: &str) {
        if self.is_new(address.ip(), why, Instant::now()) {
            tracing::warn!("a connection from {address} is refused: {why}");
        }
    }

    fn is_new(&self, ip: IpAddr, why: &str, now: Instant) -> bool {
        let mut known = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&ip).is_some_and(|(text, at)| text == why && now.duration_since(*at) < AGAIN) {
            return false;
        }
        if known.len() >= ADDRESSES && !known.contains_key(&ip) {
            known.retain(|_, (_, at)| now.duration_since(*at) < AGAIN);
            if known.len() >= ADDRESSES {
                return false;
            }
        }
        known.insert(ip, (why.into(), now));
        true
    }
}

/// What went wrong in a handshake.
pub(super) fn explain(e: &io::Error) -> String {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(e) => words(e),
        None => format!("it went away in the handshake: {e}"),
    }
}

/// The same, of TLS's own error.
pub(super) fn words(e: &Error) -> String {
    match e {
        Error::InvalidMessage(_) => {
            "it speaks no TLS; the NVA's address in its settings has to begin with https://".into()
        }
        Error::NoCertificatesPresented => "it shows no certificate".into(),
        Error::PeerIncompatible(why) => format!("it does not speak TLS 1.3 as this NVA does ({why:?})"),
        Error::AlertReceived(alert) => format!("it does not accept this NVA's certificate ({alert:?})"),
        Error::InvalidCertificate(why) => of_certificate(why),
        other => format!("TLS: {other}"),
    }
}

fn of_certificate(e: &CertificateError) -> String {
    use CertificateError as E;
    match e {
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => "its certificate is not valid yet".into(),
        E::Revoked => "its certificate is revoked".into(),
        E::UnknownIssuer | E::BadSignature => "its certificate is from an authority that is not ours".into(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            "its certificate is not made for clients".into()
        }
        E::Other(why) => why.to_string(),
        other => format!("its certificate is refused: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r68_a_client_that_tries_on_does_not_fill_the_log() {
        let refusals = Refusals::default();
        let (start, ip) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        assert!(refusals.is_new(ip, "expired", start));
        assert!(!refusals.is_new(ip, "expired", start + AGAIN / 2));
        assert!(refusals.is_new(ip, "revoked", start + AGAIN / 2));
        assert!(refusals.is_new(ip, "revoked", start + AGAIN * 2));
    }

    #[test]
    fn r67_the_memory_of_refusals_is_bounded() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let ip = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..ADDRESSES {
            assert!(refusals.is_new(ip(n), "expired", start));
        }
        assert!(!refusals.is_new(ip(ADDRESSES), "expired", start));
        assert!(refusals.is_new(ip(ADDRESSES), "expired", start + AGAIN * 2));
        assert_eq!(refusals.by_address.lock().unwrap().len(), 1);
    }
}

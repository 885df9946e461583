//! The connections that stand, with their certificates: they end when those are good no longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_api::tls::rustls::pki_types::{CertificateDer, UnixTime};
use godwit_api::tls::rustls::server::danger::ClientCertVerifier as _;
use tokio::sync::oneshot;

use super::refusals::words;
use super::verifier::Verifier;

/// All connections with a certificate.
#[derive(Default)]
pub(super) struct Live {
    all: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    next: u64,
    by_number: HashMap<u64, Entry>,
}

struct Entry {
    who: String,
    chain: Vec<CertificateDer<'static>>,
    /// Seconds since 1970.
    until: i64,
    /// Dropped to end the connection.
    _alive: oneshot::Sender<()>,
}

/// A connection's place among them, for as long as it stands.
pub(in crate::service) struct Registration {
    live: Arc<Live>,
    number: u64,
    /// Ends when the connection has to.
    pub ended: oneshot::Receiver<()>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.live.entries().by_number.remove(&self.number);
    }
}

impl Live {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection.
    pub fn add(
        self: &Arc<Live>,
        who: String,
        chain: Vec<CertificateDer<'static>>,
        until: i64,
    ) -> Registration {
        let (alive, ended) = oneshot::channel();
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.by_number.insert(number, Entry { who, chain, until, _alive: alive });
        Registration { live: self.clone(), number, ended }
    }

    /// Ends connections whose certificate has expired by this second.
    pub fn end_expired(&self, now_s: i64) {
        let expired = |entry: &Entry| (entry.until < now_s).then(|| "its certificate has expired".to_owned());
        self.end(expired);
    }

    /// Ends connections whose certificate would be refused now.
    pub fn end_refused(&self, verifier: &Verifier) {
        let now = UnixTime::now();
        self.end(|entry| {
            let (own, between) = entry.chain.split_first()?;
            verifier.verify_client_cert(own, between, now).err().map(|e| words(&e))
        });
    }

    fn end(&self, reason: impl Fn(&Entry) -> Option<String>) {
        self.entries().by_number.retain(|_, entry| {
            let reason = reason(entry);
            if let Some(why) = &reason {
                tracing::warn!("the connection of {} is ended: {why}", entry.who);
            }
            reason.is_none()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r68_a_connection_ends_with_its_certificate_and_not_before() {
        let live = Arc::new(Live::default());
        let mut registration = live.add("a".into(), vec![], 100);
        live.end_expired(100);
        assert!(matches!(registration.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        live.end_expired(101);
        assert!(matches!(registration.ended.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let other = live.add("b".into(), vec![], 200);
        drop((registration, other));
        assert!(live.entries().by_number.is_empty(), "what is gone is forgotten");
    }
}

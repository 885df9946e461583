//! Datagrams between NVEs: sealed with the key of the pair that the NVA gave out, opened once (R47, D13).
//!
//! The NVA gives each NVE a secret of its own, from which the key of every sender follows
//! ([`godwit_model::channel`]), and to each sender the keys of its pairs. So a datagram that opens comes from the
//! session whose number it has, from that locator to this one, unchanged, and not a second time. A nonce is the
//! sender's number, which the NVA gives to no other session, and its counter, which goes on under new keys; another
//! NVA, and one that was started anew, has other secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use godwit_model::message::PairKey;
use godwit_model::{Secret, channel};
use godwit_wire::peer::{BODY_LEN, Datagram, HEAD_LEN, Head, LEN, Notice};

/// Senders whose counters are remembered under one key. Beyond it the sender of the oldest session is not
/// listened to any more.
const MAX_SENDERS: usize = 16_384;
/// Keys of pairs that are kept: two for each other NVE. What has no key goes by the NVA.
const MAX_PAIRS: usize = 2 * 16_384;

/// Why a datagram is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// Its key is not known here.
    UnknownKey,
    /// Its seal is wrong.
    Forged,
    /// It came before, or is too old to tell.
    Replayed,
    /// Its content makes no sense.
    Nonsense,
}

/// The counters of one sender that were seen.
#[derive(Clone, Copy, Default, Debug)]
struct Window {
    highest: u64,
    /// Bit n: `highest - n` was seen.
    seen: u64,
}

impl Window {
    /// Takes a counter; false where it was seen or may have been.
    fn take(&mut self, counter: u64) -> bool {
        if self.seen == 0 || counter > self.highest {
            let ahead = if self.seen == 0 { u64::MAX } else { counter - self.highest };
            self.seen = self.seen.checked_shl(u32::try_from(ahead).unwrap_or(u32::MAX)).unwrap_or(0) | 1;
            self.highest = counter;
            return true;
        }
        let bit = self.highest - counter;
        let fresh = bit < 64 && self.seen >> bit & 1 == 0;
        if fresh {
            self.seen |= 1 << bit;
        }
        fresh
    }
}

/// What others seal for this NVE by one of its secrets.
struct Opens {
    number: u32,
    secret: Secret,
    windows: BTreeMap<u32, Window>,
    /// Senders below are not listened to: their counters were forgotten.
    floor: u32,
}

/// A key to seal with.
struct Seal {
    number: u32,
    cipher: ChaCha20Poly1305,
}

/// Keys, counters, windows.
#[derive(Default)]
pub(crate) struct Seals {
    /// The own number, and what was sent by it.
    sender: u32,
    counter: u64,
    /// By the own locator and the other one.
    pairs: BTreeMap<(IpAddr, IpAddr), Seal>,
    current: Option<Opens>,
    /// The secret before, by which others may still speak.
    previous: Option<Opens>,
}

impl core::fmt::Debug for Seals {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Seals(key {:?})", self.current.as_ref().map(|k| k.number))
    }
}

fn cipher(secret: &Secret) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&secret.0.into())
}

impl Seals {
    /// The secret of this NVE, and its number. `alone`: what others sealed before is not opened any more.
    pub(crate) fn set_key(&mut self, number: u32, sender: u32, secret: Secret, alone: bool) {
        if self.sender != sender {
            // A new session. The keys of its pairs come.
            (self.sender, self.counter) = (sender, 0);
            self.pairs.clear();
        }
        // What was seen stays seen where the secret is the same.
        let known = self.current.as_ref().is_some_and(|k| k.number == number && k.secret == secret);
        if !known {
            self.previous = self.current.take();
            self.current = Some(Opens { number, secret, windows: BTreeMap::new(), floor: 0 });
        }
        if alone {
            self.previous = None;
        }
    }

    /// Keys of pairs in which this NVE is the sender.
    pub(crate) fn add_pairs(&mut self, keys: &[PairKey]) {
        for k in keys {
            let at = (k.from, k.to);
            if self.pairs.len() < MAX_PAIRS || self.pairs.contains_key(&at) {
                self.pairs.insert(at, Seal { number: k.number, cipher: cipher(&k.secret) });
            }
        }
    }

    /// There is a secret, so that others may be spoken to where the key of the pair is there, too.
    pub(crate) fn has_key(&self) -> bool {
        self.current.is_some()
    }

    /// Seals a notice from one locator to another; `None` without the key of the pair.
    pub(crate) fn seal(&mut self, src: IpAddr, dst: IpAddr, notice: &Notice) -> Option<Datagram> {
        let key = self.pairs.get(&(src, dst))?;
        self.counter = self.counter.checked_add(1)?;
        let head = Head { key: key.number, sender: self.sender, counter: self.counter };
        let mut body = notice.emit();
        let tag = key
            .cipher
            .encrypt_inout_detached(&nonce(&head).into(), &bound(&head, src, dst), body.as_mut_slice().into())
            .ok()?;
        let mut out = [0; LEN];
        out[..HEAD_LEN].copy_from_slice(&head.emit());
        out[HEAD_LEN..HEAD_LEN + BODY_LEN].copy_from_slice(&body);
        out[HEAD_LEN + BODY_LEN..].copy_from_slice(&tag);
        Some(out)
    }

    /// Opens a datagram that came from `src` to `dst`.
    pub(crate) fn open(&mut self, src: IpAddr, dst: IpAddr, datagram: &Datagram) -> Result<Notice, Refused> {
        let head = Head::parse(datagram).map_err(|_| Refused::Forged)?;
        let keys = self.current.iter_mut().chain(self.previous.iter_mut());
        let k = keys.into_iter().find(|k| k.number == head.key).ok_or(Refused::UnknownKey)?;
        let mut body = [0; BODY_LEN];
        body.copy_from_slice(&datagram[HEAD_LEN..HEAD_LEN + BODY_LEN]);
        let mut tag = [0; LEN - HEAD_LEN - BODY_LEN];
        tag.copy_from_slice(&datagram[HEAD_LEN + BODY_LEN..]);
        cipher(&channel::pair(&k.secret, head.sender, src, dst))
            .decrypt_inout_detached(
                &nonce(&head).into(),
                &bound(&head, src, dst),
                body.as_mut_slice().into(),
                &tag.into(),
            )
            .map_err(|_| Refused::Forged)?;
        if !k.fresh(head.sender, head.counter) {
            return Err(Refused::Replayed);
        }
        Notice::parse(&body).map_err(|_| Refused::Nonsense)
    }
}

impl Opens {
    fn fresh(&mut self, sender: u32, counter: u64) -> bool {
        if sender < self.floor {
            return false;
        }
        let fresh = self.windows.entry(sender).or_default().take(counter);
        if self.windows.len() > MAX_SENDERS
            && let Some((oldest, _)) = self.windows.pop_first()
        {
            self.floor = oldest + 1;
        }
        fresh
    }
}

fn nonce(head: &Head) -> [u8; 12] {
    let mut n = [0; 12];
    n[..4].copy_from_slice(&head.sender.to_be_bytes());
    n[4..].copy_from_slice(&head.counter.to_be_bytes());
    n
}

/// What the seal covers beside the body: the head and both locators.
fn bound(head: &Head, src: IpAddr, dst: IpAddr) -> [u8; HEAD_LEN + 32] {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    };
    let mut b = [0; HEAD_LEN + 32];
    b[..HEAD_LEN].copy_from_slice(&head.emit());
    b[HEAD_LEN..HEAD_LEN + 16].copy_from_slice(&octets(src));
    b[HEAD_LEN + 16..].copy_from_slice(&octets(dst));
    b
}

#[cfg(test)]
mod tests;

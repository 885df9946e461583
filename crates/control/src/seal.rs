//! Datagrams between NVEs: sealed with the key that the NVA gave out, opened once (R47).
//!
//! One key for all NVEs of an NVA. It proves that a datagram comes from one of them, unchanged, from that
//! locator to this one, and not a second time; not which of them: that is for whoever reads it to match with
//! what it knows. A nonce is the sender's number, which the NVA gives to no other session, and its counter.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use godwit_model::Secret;
use godwit_wire::peer::{BODY_LEN, Datagram, HEAD_LEN, Head, LEN, Notice};

/// Senders whose counters are remembered under one key. Beyond it the sender of the oldest session is not
/// listened to any more.
const MAX_SENDERS: usize = 16_384;

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

struct Keyed {
    number: u32,
    cipher: ChaCha20Poly1305,
    /// Our number, and what we sent by it.
    sender: u32,
    counter: u64,
    windows: BTreeMap<u32, Window>,
    /// Senders below are not listened to: their counters were forgotten.
    floor: u32,
}

/// Key, counters, windows.
#[derive(Default)]
pub(crate) struct Seals {
    current: Option<Keyed>,
    /// The key before, by which others may still speak.
    previous: Option<Keyed>,
}

impl core::fmt::Debug for Seals {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Seals(key {:?})", self.current.as_ref().map(|k| k.number))
    }
}

impl Seals {
    /// The NVA's key, and our number under it.
    pub(crate) fn set_key(&mut self, number: u32, sender: u32, secret: Secret) {
        if let Some(k) = self.current.as_mut().filter(|k| k.number == number) {
            // A new session: what others sent by this key stays seen.
            if k.sender != sender {
                (k.sender, k.counter) = (sender, 0);
            }
            return;
        }
        self.previous = self.current.take();
        let cipher = ChaCha20Poly1305::new(&secret.0.into());
        self.current = Some(Keyed { number, cipher, sender, counter: 0, windows: BTreeMap::new(), floor: 0 });
    }

    /// There is a key to speak by.
    pub(crate) fn has_key(&self) -> bool {
        self.current.is_some()
    }

    /// Seals a notice from one locator to another; `None` without a key.
    pub(crate) fn seal(&mut self, src: IpAddr, dst: IpAddr, notice: &Notice) -> Option<Datagram> {
        let k = self.current.as_mut()?;
        k.counter = k.counter.checked_add(1)?;
        let head = Head { key: k.number, sender: k.sender, counter: k.counter };
        let mut body = notice.emit();
        let tag = k
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
        k.cipher
            .decrypt_inout_detached(
                &nonce(&head).into(),
                &bound(&head, src, dst),
                body.as_mut_slice().into(),
                &tag.into(),
            )
            .map_err(|_| Refused::Forged)?;
        if head.sender == k.sender || !k.fresh(head.sender, head.counter) {
            return Err(Refused::Replayed);
        }
        Notice::parse(&body).map_err(|_| Refused::Nonsense)
    }
}

impl Keyed {
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
mod tests {
    use std::net::Ipv4Addr;

    use godwit_wire::peer::Kind;
    use godwit_wire::{Mac, Vni};

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2));

    fn notice() -> Notice {
        let (vni, mac) = (Vni::from_low24(7), Mac([2, 0, 0, 0, 0, 1]));
        Notice { kind: Kind::NotHere, vni, mac, version: (1, 2), v4: None, v6: None }
    }

    fn pair() -> (Seals, Seals) {
        let (mut a, mut b) = (Seals::default(), Seals::default());
        a.set_key(1, 10, Secret([1; 32]));
        b.set_key(1, 11, Secret([1; 32]));
        (a, b)
    }

    #[test]
    fn r47_what_is_sealed_opens_once() {
        let (mut a, mut b) = pair();
        let d = a.seal(A, B, &notice()).unwrap();
        assert_eq!(b.open(A, B, &d), Ok(notice()));
        assert_eq!(b.open(A, B, &d), Err(Refused::Replayed));
        assert_eq!(a.open(A, B, &d), Err(Refused::Replayed), "reflected");
        assert_eq!(Seals::default().seal(A, B, &notice()), None);
    }

    #[test]
    fn r47_a_changed_or_redirected_datagram_is_forged() {
        let (mut a, mut b) = pair();
        let d = a.seal(A, B, &notice()).unwrap();
        assert_eq!(b.open(B, B, &d), Err(Refused::Forged), "from elsewhere");
        assert_eq!(b.open(A, A, &d), Err(Refused::Forged), "to elsewhere");
        for at in 8..LEN {
            let mut bad = d;
            bad[at] ^= 1;
            assert_eq!(b.open(A, B, &bad), Err(Refused::Forged), "byte {at}");
        }
        let mut other = d;
        other[7] ^= 1;
        assert_eq!(b.open(A, B, &other), Err(Refused::UnknownKey));
        let mut stranger = Seals::default();
        stranger.set_key(1, 12, Secret([2; 32]));
        let d2 = stranger.seal(A, B, &notice()).unwrap();
        assert_eq!(b.open(A, B, &d2), Err(Refused::Forged));
        assert_eq!(b.open(A, B, &d), Ok(notice()), "what was refused spent nothing");
    }

    #[test]
    fn r47_datagrams_may_overtake_each_other_within_a_window() {
        let (mut a, mut b) = pair();
        let sent: Vec<Datagram> = (0..100).map(|_| a.seal(A, B, &notice()).unwrap()).collect();
        assert_eq!(b.open(A, B, &sent[70]), Ok(notice()));
        assert_eq!(b.open(A, B, &sent[10]), Ok(notice()));
        assert_eq!(b.open(A, B, &sent[10]), Err(Refused::Replayed));
        assert_eq!(b.open(A, B, &sent[6]), Err(Refused::Replayed), "too old to tell");
        assert_eq!(b.open(A, B, &sent[99]), Ok(notice()));
        assert_eq!(b.open(A, B, &sent[70]), Err(Refused::Replayed));
    }

    #[test]
    fn r47_a_new_key_and_a_new_session_keep_what_was_seen() {
        let (mut a, mut b) = pair();
        let old = a.seal(A, B, &notice()).unwrap();
        let late = a.seal(A, B, &notice()).unwrap();
        assert_eq!(b.open(A, B, &old), Ok(notice()));
        b.set_key(1, 15, Secret([1; 32]));
        assert_eq!(b.open(A, B, &old), Err(Refused::Replayed), "the same key on a new session");
        b.set_key(2, 1, Secret([3; 32]));
        assert_eq!(b.open(A, B, &late), Ok(notice()), "A has not heard of the new key");
        assert_eq!(b.open(A, B, &late), Err(Refused::Replayed));
        b.set_key(3, 1, Secret([4; 32]));
        assert_eq!(b.open(A, B, &late), Err(Refused::UnknownKey), "two keys back");
    }
}

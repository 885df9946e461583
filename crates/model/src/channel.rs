//! Keys of datagrams between NVEs, each derived from one secret that only the NVA has (R47, D13).
//!
//! An NVE has a secret by which it opens what others send to it. From that follows, for each sender, the key of the
//! pair: by the sender's number and both locators. The NVA gives a sender the keys of its pairs, and no others. So an
//! NVE that turns bad speaks for itself only, and a receiver needs to know nothing of its senders.

use std::net::IpAddr;

use hkdf::Hkdf;
use sha2::Sha256;

use crate::{NveId, Secret};

/// HKDF (RFC 5869) with SHA-256: a key of its own for each list of parts.
fn derive(from: &Secret, label: &[u8], parts: &[&[u8]]) -> Secret {
    let mut key = [0; 32];
    let mut info = Vec::with_capacity(128);
    for part in [label].iter().chain(parts) {
        // With its length, so that no two lists look alike.
        info.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        info.extend(*part);
    }
    // 32 bytes are never too many for SHA-256.
    let done = Hkdf::<Sha256>::new(None, &from.0).expand(&info, &mut key);
    debug_assert!(done.is_ok());
    Secret(key)
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// The secret by which an NVE opens what is sent to it, by its number, which the NVA gives to no other secret.
#[must_use]
pub fn receiver(nva: &Secret, number: u32, nve: &NveId) -> Secret {
    derive(nva, b"godwit receiver", &[&number.to_be_bytes(), nve.as_str().as_bytes()])
}

/// The key of what the sender with this number seals at one locator for the receiver's other one.
#[must_use]
pub fn pair(receiver: &Secret, sender: u32, from: IpAddr, to: IpAddr) -> Secret {
    derive(receiver, b"godwit pair", &[&sender.to_be_bytes(), &octets(from), &octets(to)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d13_each_pair_has_a_key_of_its_own() {
        let nva = Secret([7; 32]);
        let [a, b] = ["a", "b"].map(|n| NveId::new(n).unwrap());
        let (x, y): (IpAddr, IpAddr) = ("198.18.0.1".parse().unwrap(), "198.18.0.2".parse().unwrap());
        let mut keys = Vec::new();
        for number in [1, 2] {
            for nve in [&a, &b] {
                let receiver = receiver(&nva, number, nve);
                keys.push(receiver.0);
                for sender in [1, 2] {
                    keys.extend(
                        [(x, y), (y, x), (x, x)].map(|(from, to)| pair(&receiver, sender, from, to).0),
                    );
                }
            }
        }
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}

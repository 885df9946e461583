//! What a VM may call its own beside the addresses that its definition lists: virtual addresses (R92), addresses
//! that it binds by itself (R93), and what stands behind it (R94).
//!
//! [`Allowed`] is the operator's word and lets things happen; [`Bound`] is what has happened. Both are part of the
//! VM's record, so they move along with it and have its version.

use core::fmt;
use core::str::FromStr;
use std::net::IpAddr;

use godwit_wire::{Mac, Prefix};

/// Addresses of one family that a MAC binds by itself, where nobody said how many (R93).
pub const LEARNED_DEFAULT: u8 = 8;
/// The most that can be asked for.
pub const LEARNED_MAX: u8 = 64;
/// Prefixes of a VM at most, virtual and routed ones each (R92, R94).
pub const MAX_PREFIXES: usize = 32;
/// Nested MACs of a VM at most, and virtual MACs likewise (R92, R94).
pub const MAX_MACS: usize = 64;
/// Addresses that a VM has bound at most, with all its MACs together.
pub const MAX_BOUND: usize = 256;

/// Whose word binds the addresses of a family to a VM (R93).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Learning {
    /// The operator's only: what its record lists.
    Recorded,
    /// The VM's own as well: so many beside the recorded ones, from 1 to [`LEARNED_MAX`].
    Learned(u8),
}

impl Learning {
    /// Addresses that may be learned.
    pub fn room(self) -> u8 {
        match self {
            Learning::Recorded => 0,
            Learning::Learned(n) => n,
        }
    }
}

impl fmt::Display for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Learning::Recorded => f.write_str("recorded"),
            Learning::Learned(n) => write!(f, "learned={n}"),
        }
    }
}

/// A text that is no [`Learning`]; says what is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is neither `recorded` nor `learned` nor `learned=N` with N from 1 to {LEARNED_MAX}")]
pub struct BadLearning(pub String);

impl FromStr for Learning {
    type Err = BadLearning;

    fn from_str(text: &str) -> Result<Learning, BadLearning> {
        let n = match text.split_once('=') {
            None if text == "recorded" => return Ok(Learning::Recorded),
            None if text == "learned" => Some(LEARNED_DEFAULT),
            Some(("learned", n)) => n.parse().ok(),
            _ => None,
        };
        n.filter(|n| (1..=LEARNED_MAX).contains(n))
            .map(Learning::Learned)
            .ok_or_else(|| BadLearning(text.into()))
    }
}

/// [`Learning`] of both families; `None`: what the VN says, and where that says nothing, learned exactly where no
/// address of the family is recorded (R93).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct LearningOf {
    /// Of IPv4.
    pub v4: Option<Learning>,
    /// Of IPv6, link-local addresses excepted: these are always learned, [`LEARNED_DEFAULT`] of them.
    pub v6: Option<Learning>,
}

impl LearningOf {
    /// What is said of one family.
    pub fn family(&self, is_ipv4: bool) -> Option<Learning> {
        if is_ipv4 { self.v4 } else { self.v6 }
    }
}

/// What the operator allows a VM beside its recorded addresses.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Allowed {
    /// Whose word binds addresses.
    pub learning: LearningOf,
    /// Addresses that it shares with other VMs: who announced one last has it (R92). Sorted.
    pub virtual_ips: Vec<Prefix>,
    /// MACs that it shares with other VMs, as VRRP's (RFC 9568 section 7.3): who spoke last from one has it (R92).
    /// Sorted.
    pub virtual_macs: Vec<Mac>,
    /// Prefixes that it routes for: it may send from their addresses (R94). Sorted.
    pub routes: Vec<Prefix>,
    /// MACs of VMs within it: what is theirs is its own (R94). Sorted.
    pub nested: Vec<Mac>,
}

impl Allowed {
    /// Nothing beyond the recorded addresses was allowed.
    pub fn is_empty(&self) -> bool {
        *self == Allowed::default()
    }

    /// It may announce `ip` as a virtual address.
    pub fn shares_ip(&self, ip: IpAddr) -> bool {
        self.virtual_ips.iter().any(|p| p.contains(ip))
    }

    /// It may speak from `mac` as a virtual one.
    pub fn shares_mac(&self, mac: Mac) -> bool {
        self.virtual_macs.binary_search(&mac).is_ok()
    }

    /// `mac` is of a VM within it.
    pub fn nests(&self, mac: Mac) -> bool {
        self.nested.binary_search(&mac).is_ok()
    }

    /// It routes for `ip`.
    pub fn routes_ip(&self, ip: IpAddr) -> bool {
        self.routes.iter().any(|p| p.contains(ip))
    }
}

/// Why an address is bound.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BoundKind {
    /// The VM, or one within it, used it first (R93).
    Learned,
    /// It is virtual, and the VM announced it last (R92).
    Virtual,
}

/// An address that a VM has by its own word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BoundIp {
    /// The address.
    pub ip: IpAddr,
    /// The MAC that answers for it: the VM's, a nested or a virtual one.
    pub mac: Mac,
    /// Virtual, not learned.
    pub is_virtual: bool,
}

impl BoundIp {
    /// Why it is bound.
    pub fn kind(&self) -> BoundKind {
        if self.is_virtual { BoundKind::Virtual } else { BoundKind::Learned }
    }
}

/// What a VM has by its own word, granted by the directory.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Bound {
    /// Addresses; sorted, each once.
    pub ips: Vec<BoundIp>,
    /// Of the virtual MACs that it is allowed, those that it has; sorted.
    pub macs: Vec<Mac>,
}

impl Bound {
    /// It has nothing by its own word.
    pub fn is_empty(&self) -> bool {
        self.ips.is_empty() && self.macs.is_empty()
    }

    /// What is bound at `ip`.
    pub fn at(&self, ip: IpAddr) -> Option<&BoundIp> {
        self.ips.iter().find(|b| b.ip == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r93_learning_is_read_and_written() {
        for good in ["recorded", "learned=1", "learned=64"] {
            assert_eq!(good.parse::<Learning>().unwrap().to_string(), good);
        }
        assert_eq!("learned".parse(), Ok(Learning::Learned(LEARNED_DEFAULT)));
        for bad in ["", "learned=0", "learned=65", "learned=", "recorded=3", "Learned"] {
            assert!(bad.parse::<Learning>().is_err(), "{bad}");
        }
    }
}

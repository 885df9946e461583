//! The IP addresses that a port's VM may send from (R65).

use core::net::IpAddr;

use crate::topology::OutOfRange;

/// Addresses of one family that a port is bound to at most.
pub const MAX_SOURCES: usize = 16;

/// What a burst compares a frame's source with: the address that the port is bound to first, and
/// which bits of it count. Without a binding none do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usual {
    v4: (u32, u32),
    v6: (u128, u128),
}

impl Usual {
    /// The frame comes from the usual address. `false` says only: look closer.
    #[inline(always)]
    pub fn is_v4(&self, source: u32) -> bool {
        (source ^ self.v4.0) & self.v4.1 == 0
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn is_v6(&self, source: u128) -> bool {
        (source ^ self.v6.0) & self.v6.1 == 0
    }
}

/// The addresses of one port. With none, every source is allowed: nobody said what its VM has.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    v4: [u32; MAX_SOURCES],
    v6: [u128; MAX_SOURCES],
    counts: [u8; 2],
}

impl Sources {
    /// No binding.
    pub const NONE: Sources = Sources { v4: [0; MAX_SOURCES], v6: [0; MAX_SOURCES], counts: [0; 2] };

    fn v4(&self) -> &[u32] {
        &self.v4[..usize::from(self.counts[0])]
    }

    fn v6(&self) -> &[u128] {
        &self.v6[..usize::from(self.counts[1])]
    }

    /// There is a binding.
    pub fn is_bound(&self) -> bool {
        self.counts != [0; 2]
    }

    /// What a burst compares with.
    pub fn usual(&self) -> Usual {
        let mask = |bound: bool| if bound { u128::MAX } else { 0 };
        let bits = mask(self.is_bound());
        Usual {
            v4: (self.v4().first().copied().unwrap_or(0), bits as u32),
            v6: (self.v6().first().copied().unwrap_or(0), bits),
        }
    }

    /// A frame may have this source. Beside its own addresses a VM uses the unspecified one, before
    /// it has others (DHCP, RFC 4862 section 5.4.2), and its link-local ones, which no directory
    /// lists.
    pub fn allows(&self, ip: IpAddr) -> bool {
        if !self.is_bound() || ip.is_unspecified() {
            return true;
        }
        match ip {
            IpAddr::V4(a) => self.v4().contains(&a.to_bits()),
            IpAddr::V6(a) => a.is_unicast_link_local() || self.v6().contains(&a.to_bits()),
        }
    }

    pub(crate) fn add(&mut self, ip: IpAddr) -> Result<(), OutOfRange> {
        if self.is_bound() && self.lists(ip) {
            return Ok(());
        }
        let family = usize::from(ip.is_ipv6());
        let at = usize::from(self.counts[family]);
        match ip {
            IpAddr::V4(a) => *self.v4.get_mut(at).ok_or(OutOfRange)? = a.to_bits(),
            IpAddr::V6(a) => *self.v6.get_mut(at).ok_or(OutOfRange)? = a.to_bits(),
        }
        self.counts[family] += 1;
        Ok(())
    }

    fn lists(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(a) => self.v4().contains(&a.to_bits()),
            IpAddr::V6(a) => self.v6().contains(&a.to_bits()),
        }
    }

    pub(crate) fn remove(&mut self, ip: IpAddr) {
        let at = match ip {
            IpAddr::V4(a) => self.v4().iter().position(|&x| x == a.to_bits()),
            IpAddr::V6(a) => self.v6().iter().position(|&x| x == a.to_bits()),
        };
        let Some(at) = at else { return };
        let family = usize::from(ip.is_ipv6());
        self.counts[family] -= 1;
        let last = usize::from(self.counts[family]);
        match ip {
            IpAddr::V4(_) => self.v4.swap(at, last),
            IpAddr::V6(_) => self.v6.swap(at, last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn r65_without_a_binding_all_is_allowed() {
        let s = Sources::NONE;
        assert!(s.allows(ip("10.0.0.1")) && s.allows(ip("2001:db8::1")));
        assert!(s.usual().is_v4(7) && s.usual().is_v6(7));
    }

    #[test]
    fn r65_a_binding_binds_both_families() {
        let mut s = Sources::NONE;
        s.add(ip("10.0.0.1")).unwrap();
        s.add(ip("10.0.0.1")).unwrap();
        s.add(ip("10.0.0.2")).unwrap();
        for good in ["10.0.0.1", "10.0.0.2", "0.0.0.0", "::", "fe80::1"] {
            assert!(s.allows(ip(good)), "{good}");
        }
        assert!(!s.allows(ip("10.0.0.3")) && !s.allows(ip("2001:db8::1")));
        assert!(s.usual().is_v4(0x0a00_0001) && !s.usual().is_v4(0x0a00_0002));
        assert!(!s.usual().is_v6(1));
        s.remove(ip("10.0.0.1"));
        assert!(!s.allows(ip("10.0.0.1")) && s.allows(ip("10.0.0.2")));
        s.remove(ip("10.0.0.1"));
        s.remove(ip("10.0.0.2"));
        assert!(!s.is_bound());
    }

    #[test]
    fn a_full_list_says_so() {
        let mut s = Sources::NONE;
        for n in 0..16 {
            s.add(IpAddr::V6(core::net::Ipv6Addr::from(n + 1))).unwrap();
        }
        assert_eq!(s.add(ip("2001:db8::1")), Err(OutOfRange));
    }
}

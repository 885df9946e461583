//! Address prefixes of both families.

use core::fmt;
use core::net::IpAddr;

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

impl Prefix {
    /// The addresses whose first `len` bits are those of `addr`; the other bits of `addr` must be 0.
    ///
    /// `None` where there are no so many bits, or others are set.
    pub fn new(addr: IpAddr, len: u8) -> Option<Prefix> {
        let prefix = Prefix { addr, len };
        (len <= prefix.bits() && prefix.head(addr) == aligned(addr)).then_some(prefix)
    }

    /// The prefix of `len` bits that contains `ip`; of all bits where there are no so many.
    pub fn of(ip: IpAddr, len: u8) -> Prefix {
        let len = len.min(if ip.is_ipv4() { 32 } else { 128 });
        let head = Prefix { addr: ip, len }.head(ip);
        let addr = match ip {
            IpAddr::V4(_) => IpAddr::V4(((head >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(head.into()),
        };
        Prefix { addr, len }
    }

    /// The prefix of one address: /32 or /128.
    pub const fn host(addr: IpAddr) -> Prefix {
        let len = if addr.is_ipv4() { 32 } else { 128 };
        Prefix { addr, len }
    }

    /// Its lowest address.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Its highest address.
    pub fn last(&self) -> IpAddr {
        let rest =
            if self.len == 0 { u128::MAX } else { u128::MAX.checked_shr(self.len.into()).unwrap_or(0) };
        let last = aligned(self.addr) | rest;
        match self.addr {
            IpAddr::V4(_) => IpAddr::V4(((last >> 96) as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(last.into()),
        }
    }

    /// Bits that its addresses share.
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// It has one address only.
    pub fn is_host(&self) -> bool {
        self.len == self.bits()
    }

    /// It is of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.addr.is_ipv4()
    }

    /// Bits of an address of its family.
    fn bits(&self) -> u8 {
        if self.is_ipv4() { 32 } else { 128 }
    }

    /// The bits that count.
    fn head(&self, ip: IpAddr) -> u128 {
        if self.len == 0 { 0 } else { aligned(ip) & u128::MAX << (128 - u32::from(self.len.min(128))) }
    }

    /// `ip` is one of its addresses.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.addr.is_ipv4() && self.head(ip) == aligned(self.addr)
    }

    /// They have an address in common.
    pub fn overlaps(&self, other: &Prefix) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }
}

/// An address alone where it is a whole one.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { write!(f, "{}", self.addr) } else { write!(f, "{}/{}", self.addr, self.len) }
    }
}

/// A text that is no prefix; says what is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPrefix;

impl fmt::Display for BadPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a prefix: write ADDRESS or ADDRESS/LENGTH, with all bits beyond LENGTH clear")
    }
}

impl core::error::Error for BadPrefix {}

impl core::str::FromStr for Prefix {
    type Err = BadPrefix;

    fn from_str(text: &str) -> Result<Prefix, BadPrefix> {
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len.parse().map_err(|_| BadPrefix)?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| BadPrefix)?;
        len.map_or(Some(Prefix::host(addr)), |len| Prefix::new(addr, len)).ok_or(BadPrefix)
    }
}

/// The address in the highest bits.
fn aligned(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::Prefix;

    #[test]
    fn prefixes_are_read_and_written() {
        for good in ["10.0.0.0/8", "10.0.0.1", "2001:db8::/32", "2001:db8::1", "0.0.0.0/0", "::/0"] {
            assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
        }
        assert_eq!("10.0.0.1/32".parse::<Prefix>().unwrap().to_string(), "10.0.0.1");
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "2001:db8::1/64", "10.0.0.0/8/8", "x/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_address_of_a_prefix_is_its_highest() {
        for (prefix, last) in [
            ("10.0.0.0/8", "10.255.255.255"),
            ("10.0.0.1", "10.0.0.1"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("2001:db8::/112", "2001:db8::ffff"),
            ("2001:db8::1", "2001:db8::1"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(prefix.parse::<Prefix>().unwrap().last().to_string(), last);
        }
    }

    #[test]
    fn an_address_is_in_its_prefix_of_every_length() {
        for ip in ["203.0.113.255", "255.255.255.255", "2001:db8::ffff", "::"] {
            let ip: core::net::IpAddr = ip.parse().unwrap();
            for len in 0..=if ip.is_ipv4() { 32 } else { 128 } {
                let prefix = Prefix::of(ip, len);
                assert!(prefix.contains(ip) && prefix.prefix_len() == len, "{ip}/{len}");
                assert_eq!(Prefix::new(prefix.addr(), len), Some(prefix));
            }
        }
        assert_eq!(Prefix::of("10.1.2.3".parse().unwrap(), 24).to_string(), "10.1.2.0/24");
        assert_eq!(Prefix::of("10.1.2.3".parse().unwrap(), 99).to_string(), "10.1.2.3");
    }

    #[test]
    fn prefixes_overlap_where_one_contains_the_other() {
        let p = |s: &str| s.parse::<Prefix>().unwrap();
        assert!(p("10.0.0.0/8").overlaps(&p("10.1.0.0/16")) && p("10.1.0.0/16").overlaps(&p("10.0.0.0/8")));
        assert!(!p("10.0.0.0/16").overlaps(&p("10.1.0.0/16")));
        assert!(!p("0.0.0.0/0").overlaps(&p("::/0")), "families are apart");
    }
}

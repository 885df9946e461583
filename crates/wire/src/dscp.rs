//! The differentiated services field of an IP header: six bits of DSCP before the two of ECN (RFC 2474, R6, R23).

use core::fmt;

use crate::ecn::Ecn;

/// A DSCP, 0 to 63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dscp(u8);

/// Names of code points: class selectors (RFC 2474), assured and expedited forwarding (RFC 2597, RFC 3246), admitted
/// voice (RFC 5865) and lower effort (RFC 8622).
pub const NAMES: [(&str, u8); 23] = [
    ("CS0", 0),
    ("LE", 1),
    ("CS1", 8),
    ("AF11", 10),
    ("AF12", 12),
    ("AF13", 14),
    ("CS2", 16),
    ("AF21", 18),
    ("AF22", 20),
    ("AF23", 22),
    ("CS3", 24),
    ("AF31", 26),
    ("AF32", 28),
    ("AF33", 30),
    ("CS4", 32),
    ("AF41", 34),
    ("AF42", 36),
    ("AF43", 38),
    ("CS5", 40),
    ("VA", 44),
    ("EF", 46),
    ("CS6", 48),
    ("CS7", 56),
];

impl Dscp {
    /// The code point with a number; `None` beyond 63.
    #[inline]
    pub const fn new(number: u8) -> Option<Dscp> {
        if number < 64 { Some(Dscp(number)) } else { None }
    }

    /// From a type-of-service byte or traffic class; the two low bits, which are ECN, are ignored.
    #[inline]
    pub const fn of_class(class: u8) -> Dscp {
        Dscp(class >> 2)
    }

    /// Its number, 0 to 63.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(_, n)| *n == self.0).map(|(name, _)| *name)
    }
}

/// The name, or the number where there is none.
impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A whole type-of-service byte or traffic class: DSCP and ECN. One byte, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Class(u8);

impl Class {
    /// Both; DSCP 0 where there is none.
    #[inline(always)]
    pub const fn new(dscp: Option<Dscp>, ecn: Ecn) -> Class {
        match dscp {
            Some(Dscp(dscp)) => Class(dscp << 2 | ecn.bits()),
            None => Class(ecn.bits()),
        }
    }

    /// The byte.
    #[inline(always)]
    pub const fn bits(self) -> u8 {
        self.0
    }
}

/// DSCP 0.
impl From<Ecn> for Class {
    #[inline(always)]
    fn from(ecn: Ecn) -> Class {
        Class(ecn.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r23_a_code_point_has_six_bits_and_sometimes_a_name() {
        assert_eq!(Dscp::new(63).map(Dscp::get), Some(63));
        assert_eq!(Dscp::new(64), None);
        assert_eq!(Dscp::of_class(0xbb), Dscp(46));
        let said = [0, 10, 34, 40, 46, 47].map(|n| Dscp(n).to_string());
        assert_eq!(said, ["CS0", "AF11", "AF41", "CS5", "EF", "47"]);
    }

    #[test]
    fn r6_the_bits_of_dscp_and_ecn_do_not_touch() {
        for n in 0..64 {
            for bits in 0..4 {
                let class = Class::new(Dscp::new(n), Ecn::from_bits(bits)).bits();
                assert_eq!((Dscp::of_class(class).get(), Ecn::from_bits(class).bits()), (n, bits));
            }
        }
        assert_eq!(Class::from(Ecn::Ce), Class::new(None, Ecn::Ce));
    }
}

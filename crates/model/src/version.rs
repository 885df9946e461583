//! Versions of locations.

use core::fmt;

/// A location's version: assigned by the NVA only, compared lexicographically (R20).
///
/// The epoch rises with every start of the NVA, the sequence with every change of a location.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Version {
    /// The NVA's incarnation.
    pub epoch: u32,
    /// The change within it; never reused.
    pub seq: u64,
}

impl Version {
    /// Below every version that an NVA assigns.
    pub const ZERO: Version = Version { epoch: 0, seq: 0 };
}

/// Compares 32-bit sequence numbers that come from elsewhere and wrap around, as RFC 1982 does: 0 is
/// newer than 0xFFFF_FFFF (R20). `None` where two are 2^31 apart, so that neither is newer.
pub fn serial_cmp(a: u32, b: u32) -> Option<core::cmp::Ordering> {
    match a.wrapping_sub(b).cast_signed() {
        i32::MIN => None,
        ahead => Some(ahead.cmp(&0)),
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use core::cmp::Ordering;

    use super::serial_cmp;

    #[test]
    fn r20_imported_sequences_wrap_around() {
        assert_eq!(serial_cmp(0, u32::MAX), Some(Ordering::Greater));
        assert_eq!(serial_cmp(u32::MAX, 0), Some(Ordering::Less));
        assert_eq!(serial_cmp(8, 7), Some(Ordering::Greater));
        assert_eq!(serial_cmp(7, 7), Some(Ordering::Equal));
        assert_eq!(serial_cmp(0x7fff_ffff, 0), Some(Ordering::Greater), "the farthest that counts");
        assert_eq!(serial_cmp(0x8000_0000, 0), None);
        assert_eq!(serial_cmp(0, 0x8000_0000), None);
    }
}

//! Why a header was refused.

use core::fmt;

/// Why bytes are not the header they should be. Small and `Copy`: one value, one drop counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum WireError {
    /// The buffer ends before the header, or before the length that the header claims.
    Truncated,
    /// The IP version nibble is not the one of this header.
    BadVersion,
    /// A length field contradicts itself: below its minimum, or larger than what contains it.
    BadLength,
    /// A checksum was computed and is wrong.
    BadChecksum,
    /// A field has a value that the protocol forbids here.
    BadField,
    /// The hop limit is not 255 where the protocol demands it (RFC 4861 section 7.1).
    BadHopLimit,
    /// More chained headers, tags or options than this parser is willing to walk.
    TooDeep,
    /// A well-formed packet of another kind than asked for.
    NotThis,
    /// The packet is an IP fragment where only whole packets are of use.
    Fragment,
    /// The caller's buffer is too small for what should be written into it.
    NoSpace,
}

impl WireError {
    /// A short name for counters and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            WireError::Truncated => "truncated",
            WireError::BadVersion => "bad_version",
            WireError::BadLength => "bad_length",
            WireError::BadChecksum => "bad_checksum",
            WireError::BadField => "bad_field",
            WireError::BadHopLimit => "bad_hop_limit",
            WireError::TooDeep => "too_deep",
            WireError::NotThis => "not_this",
            WireError::Fragment => "fragment",
            WireError::NoSpace => "no_space",
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for WireError {}

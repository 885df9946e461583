//! VXLAN (RFC 7348 section 5, R1).

use crate::addr::Vni;
use crate::bytes::{put_u32, u32_at};
use crate::error::WireError;

mod field {
    pub const FLAGS: usize = 0;
    pub const VNI: usize = 4;
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// The UDP port that IANA assigned.
pub const UDP_PORT: u16 = 4789;
/// The I flag: the VNI is valid. The only bit that is ever sent.
pub const FLAG_I: u8 = 0x08;

/// A view of a VXLAN header and the frame in it.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<T> {
    buf: T,
}

impl<T: AsRef<[u8]>> Vxlan<T> {
    /// Checks length and I flag; reserved bits may have any value.
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::BadField`] where the I flag is 0.
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        if b.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        if b[field::FLAGS] & FLAG_I == 0 {
            return Err(WireError::BadField);
        }
        Ok(Vxlan { buf })
    }

    /// The network identifier.
    #[inline]
    pub fn vni(&self) -> Vni {
        Vni::from_low24(u32_at(self.buf.as_ref(), field::VNI) >> 8)
    }

    /// The inner Ethernet frame, of any length.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buf.as_ref()[HEADER_LEN..]
    }
}

/// Writes a header with the I flag and zero reserved bits; returns 8.
///
/// # Errors
/// [`WireError::NoSpace`].
#[inline]
pub fn emit(buf: &mut [u8], vni: Vni) -> Result<usize, WireError> {
    if buf.len() < HEADER_LEN {
        return Err(WireError::NoSpace);
    }
    put_u32(buf, field::FLAGS, u32::from(FLAG_I) << 24);
    put_u32(buf, field::VNI, vni.get() << 8);
    Ok(HEADER_LEN)
}

//! Ethernet II and IEEE 802.1Q tags (R10). Frames are without FCS, as the NIC and vhost give them.

use crate::addr::Mac;
use crate::bytes::{mac_at, put, put_u16, u16_at};
use crate::error::WireError;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;

mod field {
    pub const DST: usize = 0;
    pub const SRC: usize = 6;
    pub const TYPE: usize = 12;
}

/// Bytes of an untagged Ethernet header.
pub const HEADER_LEN: usize = 14;
/// Bytes that one 802.1Q tag adds.
pub const TAG_LEN: usize = 4;
/// Tags that are looked through on the way to the network layer; a third one is payload.
pub const MAX_TAGS: usize = 2;

/// What follows the Ethernet header. Values below 0x0600 are 802.3 lengths.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP (RFC 826).
    pub const ARP: EtherType = EtherType(0x0806);
    /// RARP (RFC 903), with which hypervisors announce a moved VM (R26).
    pub const RARP: EtherType = EtherType(0x8035);
    /// An 802.1Q customer tag follows.
    pub const VLAN: EtherType = EtherType(0x8100);
    /// An 802.1ad service tag follows.
    pub const QINQ: EtherType = EtherType(0x88a8);
    /// IPv6.
    pub const IPV6: EtherType = EtherType(0x86dd);

    /// A tag protocol identifier: two bytes of tag and another type follow.
    #[inline]
    pub const fn is_tag(self) -> bool {
        self.0 == Self::VLAN.0 || self.0 == Self::QINQ.0
    }
}

/// The number of a VLAN: 1 to 4094 (IEEE 802.1Q table 9-2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct VlanId(NonZeroU16);

impl VlanId {
    /// The highest number of a VLAN.
    pub const MAX: u16 = 4094;

    /// `None` for 0, which marks a frame that has a priority and no VLAN, and beyond [`VlanId::MAX`].
    #[inline]
    pub const fn new(id: u16) -> Option<VlanId> {
        match NonZeroU16::new(id) {
            Some(id) if id.get() <= Self::MAX => Some(VlanId(id)),
            _ => None,
        }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a frame's first 802.1Q tag says of where it belongs. Tags of 802.1ad are not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Membership {
    /// No such tag.
    Untagged,
    /// A tag with VLAN 0: a priority, and no VLAN. Receivers take the frame for an untagged one
    /// (IEEE 802.1Q clause 6.9).
    Priority,
    /// Of this VLAN; 4095 is none, and comes as it is.
    Vlan(u16),
}

/// What the first tag says; of a frame too short for one, that it has none.
#[inline]
pub fn membership(frame: &[u8]) -> Membership {
    let Some(head) = frame.first_chunk::<{ HEADER_LEN + TAG_LEN }>() else { return Membership::Untagged };
    if u16_at(head, field::TYPE) != EtherType::VLAN.0 {
        return Membership::Untagged;
    }
    match u16_at(head, HEADER_LEN) & 0x0fff {
        0 => Membership::Priority,
        id => Membership::Vlan(id),
    }
}

/// A view of an Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<T> {
    buf: T,
    l3_type: EtherType,
    l3_offset: u8,
}

impl<T: AsRef<[u8]>> Ethernet<T> {
    /// Checks the header and up to [`MAX_TAGS`] tags.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below 14 bytes or inside a tag (R10).
    #[inline]
    pub fn new_checked(buf: T) -> Result<Self, WireError> {
        let b = buf.as_ref();
        if b.len() < HEADER_LEN {
            return Err(WireError::Truncated);
        }
        let mut l3_type = EtherType(u16_at(b, field::TYPE));
        let mut offset = HEADER_LEN;
        while l3_type.is_tag() && offset < HEADER_LEN + MAX_TAGS * TAG_LEN {
            if b.len() < offset + TAG_LEN {
                return Err(WireError::Truncated);
            }
            l3_type = EtherType(u16_at(b, offset + 2));
            offset += TAG_LEN;
        }
        Ok(Ethernet { buf, l3_type, l3_offset: offset as u8 })
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Mac {
        mac_at(self.buf.as_ref(), field::DST)
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Mac {
        mac_at(self.buf.as_ref(), field::SRC)
    }

    /// The type field right after the addresses: a tag's identifier where the frame is tagged.
    #[inline]
    pub fn outer_type(&self) -> EtherType {
        EtherType(u16_at(self.buf.as_ref(), field::TYPE))
    }

    /// The frame carries at least one 802.1Q or 802.1ad tag.
    #[inline]
    pub fn is_tagged(&self) -> bool {
        usize::from(self.l3_offset) != HEADER_LEN
    }

    /// Priority, DEI and VLAN id (16 bits) of the first tag.
    #[inline]
    pub fn tci(&self) -> Option<u16> {
        self.is_tagged().then(|| u16_at(self.buf.as_ref(), HEADER_LEN))
    }

    /// The type after all tags that were looked through.
    #[inline]
    pub fn ethertype(&self) -> EtherType {
        self.l3_type
    }

    /// Where the payload begins, in bytes from the start of the frame: 14, 18 or 22.
    #[inline]
    pub fn l3_offset(&self) -> usize {
        usize::from(self.l3_offset)
    }

    /// What follows the header and its tags, Ethernet padding included.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        &self.buf.as_ref()[self.l3_offset()..]
    }

    /// The bytes given to [`Ethernet::new_checked`].
    #[inline]
    pub fn into_inner(self) -> T {
        self.buf
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Ethernet<T> {
    /// Replaces the destination.
    #[inline]
    pub fn set_dst(&mut self, mac: Mac) {
        put(self.buf.as_mut(), field::DST, mac.0);
    }

    /// Replaces the source.
    #[inline]
    pub fn set_src(&mut self, mac: Mac) {
        put(self.buf.as_mut(), field::SRC, mac.0);
    }

    /// What follows the header and its tags, to be changed in place.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let at = self.l3_offset();
        &mut self.buf.as_mut()[at..]
    }
}

/// Writes an untagged header at the start of `buf`; returns its 14 bytes of length.
///
/// # Errors
/// [`WireError::NoSpace`].
#[inline]
pub fn emit(buf: &mut [u8], dst: Mac, src: Mac, ty: EtherType) -> Result<usize, WireError> {
    if buf.len() < HEADER_LEN {
        return Err(WireError::NoSpace);
    }
    put(buf, field::DST, dst.0);
    put(buf, field::SRC, src.0);
    put_u16(buf, field::TYPE, ty.0);
    Ok(HEADER_LEN)
}

/// Removes the first tag by moving the addresses four bytes towards the end. The frame then begins
/// at `frame[4..]`; the caller trims the four bytes. Returns the tag's TCI (R10, default mode).
///
/// # Errors
/// [`WireError::NotThis`] where the frame is untagged, [`WireError::Truncated`] inside the tag.
#[inline]
pub fn strip_tag(frame: &mut [u8]) -> Result<u16, WireError> {
    let eth = Ethernet::new_checked(&*frame)?;
    let tci = eth.tci().ok_or(WireError::NotThis)?;
    frame.copy_within(0..12, TAG_LEN);
    Ok(tci)
}

/// Inserts an 802.1Q tag: `frame` begins with four bytes of headroom that the caller prepended to
/// an untagged frame.
///
/// # Errors
/// [`WireError::Truncated`] where what follows the headroom is no Ethernet header.
#[inline]
pub fn push_tag(frame: &mut [u8], tci: u16) -> Result<(), WireError> {
    if frame.len() < TAG_LEN + HEADER_LEN {
        return Err(WireError::Truncated);
    }
    frame.copy_within(TAG_LEN..TAG_LEN + 12, 0);
    put_u16(frame, field::TYPE, EtherType::VLAN.0);
    put_u16(frame, HEADER_LEN, tci);
    Ok(())
}

/// The group MAC of an IPv4 multicast address (RFC 1112 section 6.4).
#[inline]
pub const fn multicast_mac_v4(group: Ipv4Addr) -> Mac {
    let [_, b, c, d] = group.octets();
    Mac([0x01, 0x00, 0x5e, b & 0x7f, c, d])
}

/// The group MAC of an IPv6 multicast address (RFC 2464 section 7).
#[inline]
pub const fn multicast_mac_v6(group: Ipv6Addr) -> Mac {
    let o = group.octets();
    Mac([0x33, 0x33, o[12], o[13], o[14], o[15]])
}

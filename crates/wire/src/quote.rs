//! The packet that an ICMP error quotes: what a router says about our own tunnel packets (R9).

use crate::addr::Vni;
use crate::bytes::{u16_at, u32_at};
use crate::error::WireError;
use crate::ethernet::{EtherType, Ethernet};
use crate::icmpv4::{self, Icmpv4};
use crate::icmpv6::{self, Icmpv6};
use crate::ipv4::{self, Ipv4};
use crate::ipv6::{self, Ipv6};
use crate::{proto, udp, vxlan};
use core::net::IpAddr;

/// A "packet too big" about a VXLAN packet that claims to be ours. Nothing in it is proven: the
/// caller matches locators and VNI against what it sends (R9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TunnelTooBig {
    /// Quoted source: must be an own locator.
    pub local: IpAddr,
    /// Quoted destination: must be a known NVE.
    pub remote: IpAddr,
    /// Quoted VNI; `None` where the router quoted too little (RFC 792 asks for 8 bytes only).
    pub vni: Option<Vni>,
    /// The MTU of the next hop in bytes, as reported: 0 from routers older than RFC 1191.
    pub mtu: u32,
}

/// Parses a frame that carries an ICMP 3/4 or an ICMPv6 type 2 about a VXLAN packet.
///
/// # Errors
/// [`WireError::NotThis`] for all other traffic; [`WireError::BadChecksum`], or what the headers'
/// gates say.
pub fn parse_too_big(frame: &[u8], vxlan_port: u16) -> Result<TunnelTooBig, WireError> {
    let eth = Ethernet::new_checked(frame)?;
    match eth.ethertype() {
        EtherType::IPV4 => too_big_v4(eth.payload(), vxlan_port),
        EtherType::IPV6 => too_big_v6(eth.payload(), vxlan_port),
        _ => Err(WireError::NotThis),
    }
}

fn too_big_v4(packet: &[u8], vxlan_port: u16) -> Result<TunnelTooBig, WireError> {
    let ip = Ipv4::new_checked(packet)?;
    if ip.proto() != proto::ICMP || ip.is_fragment() {
        return Err(WireError::NotThis);
    }
    let icmp = Icmpv4::new_checked(ip.payload())?;
    if icmp.kind() != icmpv4::UNREACHABLE || icmp.code() != icmpv4::CODE_FRAG_NEEDED {
        return Err(WireError::NotThis);
    }
    if !ip.verify_checksum() || !icmp.verify_checksum() {
        return Err(WireError::BadChecksum);
    }
    let quoted = ipv4::parse_quoted(icmp.payload())?;
    if quoted.proto != proto::UDP || quoted.later_fragment {
        return Err(WireError::NotThis);
    }
    Ok(TunnelTooBig {
        local: quoted.src.into(),
        remote: quoted.dst.into(),
        vni: quoted_vni(&icmp.payload()[quoted.header_len..], vxlan_port)?,
        mtu: icmp.rest() & 0xffff,
    })
}

fn too_big_v6(packet: &[u8], vxlan_port: u16) -> Result<TunnelTooBig, WireError> {
    let ip = Ipv6::new_checked(packet)?;
    if ip.next_header() != proto::ICMPV6 {
        return Err(WireError::NotThis);
    }
    let icmp = Icmpv6::new_checked(ip.payload())?;
    if icmp.kind() != icmpv6::PACKET_TOO_BIG {
        return Err(WireError::NotThis);
    }
    if !icmp.verify_checksum(ip.src(), ip.dst()) {
        return Err(WireError::BadChecksum);
    }
    let quoted = ipv6::parse_quoted(icmp.payload())?;
    // What we send has no extension header (R4).
    if quoted.next_header != proto::UDP {
        return Err(WireError::NotThis);
    }
    Ok(TunnelTooBig {
        local: quoted.src.into(),
        remote: quoted.dst.into(),
        vni: quoted_vni(&icmp.payload()[ipv6::HEADER_LEN..], vxlan_port)?,
        mtu: icmp.rest(),
    })
}

/// The VNI behind a quoted UDP header, if the port is ours and the quote is long enough.
fn quoted_vni(quoted: &[u8], vxlan_port: u16) -> Result<Option<Vni>, WireError> {
    if quoted.len() < udp::HEADER_LEN {
        return Err(WireError::Truncated);
    }
    if u16_at(quoted, 2) != vxlan_port {
        return Err(WireError::NotThis);
    }
    if quoted.len() < udp::HEADER_LEN + vxlan::HEADER_LEN {
        return Ok(None);
    }
    if quoted[udp::HEADER_LEN] & vxlan::FLAG_I == 0 {
        return Err(WireError::BadField);
    }
    Ok(Some(Vni::from_low24(u32_at(quoted, udp::HEADER_LEN + 4) >> 8)))
}

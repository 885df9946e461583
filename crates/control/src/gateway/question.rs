//! What a punted frame asks for.

use std::net::Ipv6Addr;

use godwit_wire::{Frame, Mac, Ndp, Udp, proto};

/// UDP ports of DHCP servers.
const SERVER_V4: u16 = 67;
const SERVER_V6: u16 = 547;
const IGMP: u8 = 2;
/// Queries, reports and leaves of MLD (RFC 2710, RFC 3810).
const MLD: [u8; 4] = [130, 131, 132, 143];

/// A VM's frame for the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Question<'a> {
    /// Source of the frame.
    pub(crate) mac: Mac,
    /// What it asks for.
    pub(crate) asked: Asked<'a>,
}

/// What a frame asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked<'a> {
    /// A router advertisement: `src` is `::` for a host without an address.
    Router { src: Ipv6Addr },
    /// A DHCP server for IPv4: the UDP payload.
    Dhcp4(&'a [u8]),
    /// A DHCP server for IPv6.
    Dhcp6 { src: Ipv6Addr, dst: Ipv6Addr, message: &'a [u8] },
    /// Nothing: it says which groups the VM listens to (R61).
    Membership,
}

impl<'a> Question<'a> {
    /// Of a frame. Frames behind a tag have none: the gateway is in no VLAN of the tenant's.
    ///
    /// Checksums of UDP are not looked at: a guest may leave them to its device (R11), and between it and here is
    /// memory only.
    pub(crate) fn of(frame: &'a [u8]) -> Option<Question<'a>> {
        let read = Frame::read(frame).ok()?;
        if read.outer_type().is_tag() {
            return None;
        }
        let (upper, message) = read.upper()?;
        if upper.fragment.is_some() {
            return None;
        }
        let asked = match upper.proto {
            proto::UDP => datagram(&read, message)?,
            IGMP => Asked::Membership,
            proto::ICMPV6 if message.first().is_some_and(|kind| MLD.contains(kind)) => Asked::Membership,
            proto::ICMPV6 => solicitation(&read, message)?,
            _ => return None,
        };
        Some(Question { mac: read.src(), asked })
    }
}

fn datagram<'a>(frame: &Frame<'a>, message: &'a [u8]) -> Option<Asked<'a>> {
    let udp = Udp::new_checked(message).ok()?;
    let payload = message.get(godwit_wire::udp::HEADER_LEN..udp.total_len())?;
    match (frame.ipv6(), udp.dst_port()) {
        (None, SERVER_V4) => Some(Asked::Dhcp4(payload)),
        (Some(ip), SERVER_V6) => Some(Asked::Dhcp6 { src: ip.src(), dst: ip.dst(), message: payload }),
        _ => None,
    }
}

/// A router solicitation that is valid by RFC 4861 section 6.1.1.
fn solicitation<'a>(frame: &Frame<'a>, message: &[u8]) -> Option<Asked<'a>> {
    let (Ok(Ndp::RouterSolicit), Some(ip)) = (frame.ndp(), frame.ipv6()) else { return None };
    let mut options = message.get(8..)?;
    while !options.is_empty() {
        let (&kind, &units) = (options.first()?, options.get(1)?);
        let no_address = ip.src().is_unspecified() && kind == 1;
        if units == 0 || no_address {
            return None;
        }
        options = options.get(8 * usize::from(units)..)?;
    }
    Some(Asked::Router { src: ip.src() })
}

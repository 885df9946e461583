//! What only routers and DHCP servers say, and what is only for DHCP servers (R66).

use crate::bytes::u16_at;
use crate::ethernet::{EtherType, HEADER_LEN, TAG_LEN};
use crate::ipv4::Ipv4;
use crate::ipv6::{self, Ipv6};
use crate::proto;

const ROUTER_ADVERT: u8 = 134;
const REDIRECT: u8 = 137;
/// UDP ports of DHCP servers, for IPv4 and for IPv6.
const SERVERS: [u16; 2] = [67, 547];
/// UDP ports of DHCP clients.
pub(crate) const CLIENTS: [u16; 2] = [68, 546];

/// Whose business a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// A router advertisement, a redirect, or something to a DHCP client: only routers and servers say it.
    OfServer,
    /// Something to a DHCP server.
    ToServer,
}

/// Looks at an Ethernet frame, through one 802.1Q tag. Never fails; `None` for everything else.
pub fn word(frame: &[u8]) -> Option<Word> {
    let first = u16_at(frame.get(..HEADER_LEN)?, HEADER_LEN - 2);
    let (ethertype, at) = if EtherType(first).is_tag() {
        (u16_at(frame.get(..HEADER_LEN + TAG_LEN)?, HEADER_LEN + TAG_LEN - 2), HEADER_LEN + TAG_LEN)
    } else {
        (first, HEADER_LEN)
    };
    match EtherType(ethertype) {
        EtherType::IPV4 => v4(&frame[at..]),
        EtherType::IPV6 => v6(&frame[at..]),
        _ => None,
    }
}

fn v4(packet: &[u8]) -> Option<Word> {
    let ip = Ipv4::new_checked(packet).ok()?;
    let first = ip.proto() == proto::UDP && ip.fragment_offset() == 0;
    if first { udp(ip.payload(), 0) } else { None }
}

fn v6(packet: &[u8]) -> Option<Word> {
    let ip = Ipv6::new_checked(packet).ok()?;
    let upper = ip.upper().ok()?;
    let message = ip.payload().get(upper.offset.checked_sub(ipv6::HEADER_LEN)?..)?;
    match upper.proto {
        proto::ICMPV6 if matches!(message.first(), Some(&(ROUTER_ADVERT | REDIRECT))) => Some(Word::OfServer),
        proto::UDP => udp(message, 1),
        _ => None,
    }
}

fn udp(message: &[u8], family: usize) -> Option<Word> {
    let to = u16_at(message.get(..4)?, 2);
    if to == CLIENTS[family] {
        Some(Word::OfServer)
    } else if to == SERVERS[family] {
        Some(Word::ToServer)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 frame to a UDP port, 4 bytes of UDP.
    fn v4_to(port: u16) -> Vec<u8> {
        let mut f = vec![0; HEADER_LEN + 28];
        f[12..16].copy_from_slice(&[0x08, 0, 0x45, 0]);
        f[17] = 28;
        f[23] = proto::UDP;
        f[36..38].copy_from_slice(&port.to_be_bytes());
        f
    }

    #[test]
    fn r66_dhcp_is_known_by_its_port_whatever_the_other_one_is() {
        assert_eq!(word(&v4_to(68)), Some(Word::OfServer));
        assert_eq!(word(&v4_to(67)), Some(Word::ToServer));
        assert_eq!(word(&v4_to(53)), None);
        let mut tagged = v4_to(68);
        tagged.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(word(&tagged), Some(Word::OfServer));
        for n in 0..tagged.len() {
            assert_eq!(word(&tagged[..n]), None, "{n} bytes");
        }
    }
}

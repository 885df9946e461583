//! What only routers and DHCP servers say, and what is only for DHCP servers (R66).

use crate::bytes::u16_at;
use crate::frame::Frame;
use crate::ndp::{REDIRECT, ROUTER_ADVERT};
use crate::proto;

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

/// Looks at what a frame carries, behind its tags. Never fails; `None` for everything else.
pub fn word(frame: &Frame<'_>) -> Option<Word> {
    let (upper, message) = frame.upper()?;
    // Later fragments begin with neither a type nor ports.
    if upper.is_later() {
        return None;
    }
    match (upper.proto, frame.is_v6()) {
        (proto::UDP, six) => udp(message, six.into()),
        (proto::ICMPV6, true) if matches!(message.first(), Some(&(ROUTER_ADVERT | REDIRECT))) => {
            Some(Word::OfServer)
        }
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
    use crate::ethernet::HEADER_LEN;

    fn word(frame: &[u8]) -> Option<Word> {
        super::word(&Frame::read(frame).ok()?)
    }

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
        tagged.splice(12..12, [0x88, 0xa8, 0, 9]);
        assert_eq!(word(&tagged), Some(Word::OfServer));
        for n in 0..tagged.len() {
            assert_eq!(word(&tagged[..n]), None, "{n} bytes");
        }
    }

    #[test]
    fn r66_later_fragments_say_nothing() {
        // The fragment header names UDP, and what follows it looks like ports to a first fragment.
        let fragment = |offset: u8| {
            let mut f = vec![0; HEADER_LEN + 40 + 8 + 8];
            f[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
            (f[19], f[20], f[54], f[57]) = (16, proto::FRAGMENT, proto::UDP, offset);
            f[64..66].copy_from_slice(&546u16.to_be_bytes());
            f
        };
        assert_eq!(word(&fragment(1)), Some(Word::OfServer), "the first of several");
        assert_eq!(word(&fragment(8)), None);
    }
}

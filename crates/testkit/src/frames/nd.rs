//! Neighbour discovery messages.

use super::{Ck, V6, ethernet, icmpv6};
use godwit_wire::Mac;
use std::net::Ipv6Addr;

/// ff02::1:ffXX:XXXX with the last three bytes of `target`.
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let s = target.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 + s[6] % 256, s[7])
}

/// 33:33 and the last four bytes of an IPv6 group.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let o = group.octets();
    Mac([0x33, 0x33, o[12], o[13], o[14], o[15]])
}

/// A neighbour discovery message as a frame, with knobs.
#[derive(Clone, Debug)]
pub struct Nd {
    /// Ethernet source and destination.
    pub eth: (Mac, Mac),
    /// IP source and destination.
    pub ip: (Ipv6Addr, Ipv6Addr),
    /// 133 RS, 134 RA, 135 NS, 136 NA, 137 Redirect.
    pub kind: u8,
    /// Code; 0.
    pub code: u8,
    /// First byte after the checksum. NA: 0x80 router, 0x40 solicited, 0x20 override.
    pub flags: u8,
    /// Target.
    pub target: Ipv6Addr,
    /// Options as they stand.
    pub options: Vec<u8>,
    /// Hop limit; 255.
    pub hop_limit: u8,
    /// The ICMPv6 checksum.
    pub checksum: Ck,
}

impl Nd {
    /// A multicast solicitation for `target` with source link-layer address.
    pub fn solicit(mac: Mac, ip: Ipv6Addr, target: Ipv6Addr) -> Nd {
        let group = solicited_node(target);
        Nd {
            eth: (mac, group_mac(group)),
            ip: (ip, group),
            kind: 135,
            code: 0,
            flags: 0,
            target,
            options: mac_option(1, mac),
            hop_limit: 255,
            checksum: Ck::Good,
        }
    }

    /// A duplicate address detection probe for `target`.
    pub fn dad(mac: Mac, target: Ipv6Addr) -> Nd {
        Nd { options: Vec::new(), ..Nd::solicit(mac, Ipv6Addr::UNSPECIFIED, target) }
    }

    /// An unsolicited advertisement to all nodes: O set, R and S not.
    pub fn announce(mac: Mac, ip: Ipv6Addr) -> Nd {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        Nd {
            eth: (mac, group_mac(all)),
            ip: (ip, all),
            kind: 136,
            code: 0,
            flags: 0x20,
            target: ip,
            options: mac_option(2, mac),
            hop_limit: 255,
            checksum: Ck::Good,
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut body = vec![self.flags, 0, 0, 0];
        body.extend(self.target.octets());
        body.extend(&self.options);
        let (src, dst) = self.ip;
        let message = icmpv6(src, dst, self.kind, self.code, &body, self.checksum);
        let mut ip = V6::new(src, dst, 58);
        ip.hop_limit = self.hop_limit;
        ethernet(self.eth.1, self.eth.0, 0x86dd, &ip.packet(&message))
    }
}

/// A link-layer address option: kind 1 source, 2 target.
pub fn mac_option(kind: u8, mac: Mac) -> Vec<u8> {
    let mut o = vec![kind, 1];
    o.extend(mac.0);
    o
}

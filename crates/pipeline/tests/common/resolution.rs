//! ARP frames, and what control is told of them.

use std::net::{IpAddr, Ipv6Addr};

use godwit_tables::event::{AnnounceKind, Event};
use godwit_testkit::frames::{self, Arp};
use godwit_wire::Mac;

use super::{M1, P1};

pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub fn announce(kind: AnnounceKind, ip: Option<IpAddr>) -> Event {
    Event::Announce { port: P1, kind, mac: M1, ip }
}

pub fn arp_frame(dst: Mac, src: Mac, ethertype: u16, arp: Arp) -> Vec<u8> {
    frames::ethernet(dst, src, ethertype, &arp.packet())
}

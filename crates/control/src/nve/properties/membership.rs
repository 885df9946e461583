//! Multicast membership as an input.

use std::net::Ipv4Addr;

use godwit_model::message::NvaToNve;
use godwit_testkit::frames;

use super::{Input, PortIdx, location, mac, vni};

/// What VMs and other NVEs want of multicast.
pub(super) fn input(kind: u8, n: u8, at: u8, seq: u64) -> Input {
    let port = PortIdx(u16::from(n % 4) + 1);
    let group = Ipv4Addr::new(239, 1, 1, at % 3);
    let from = (mac(n), Ipv4Addr::new(10, 0, 0, n));
    let frame = match (kind, seq % 3) {
        (50, 0) => frames::igmp2_query(from),
        (50, _) => frames::igmp_one(from, 0x16, group),
        (51, 0) => frames::igmp3_report(from, &[(3, group)], false),
        (51, _) => frames::igmp_one(from, 0x17, group),
        _ => {
            let groups = vec![group.into(), Ipv4Addr::UNSPECIFIED.into()];
            let (joined, left) = if seq.is_multiple_of(2) { (groups, vec![]) } else { (vec![], groups) };
            let nve = location(at).nve;
            return Input::Nva(NvaToNve::Groups { vni: vni(), nve, reset: kind == 52, joined, left });
        }
    };
    Input::Punted { port, frame }
}

//! Several ways to one NVE: each flow keeps to its own, on every path that a frame may take (R95).

use crate::common::*;
use godwit_pipeline::trace::{Step, trace};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Vxlan};
use godwit_wire::Mac;
use godwit_wire::ethernet::Ethernet;
use godwit_wire::outer::OuterHeader;

const SECOND: PortIdx = PortIdx(30);
const HOPS: [Mac; 2] = [mac(0xbb01), mac(0xbb02)];
const FLOWS: u16 = 60;

/// The tunnel to B goes by two uplinks, with half of the shares each.
fn two_ways() -> Lab {
    let mut lab = Lab::new();
    let role = PortRole::Uplink {
        mac: mac(0xaa01),
        v4: Some(LOC4),
        v6: Some(LOC6),
        link_v4: Some([10, 0, 2, 1].into()),
        link_v6: None,
        v6_link_local: None,
        exception: None,
        vlan: None,
    };
    lab.apply(Update::PortSet { port: SECOND, role });
    for (at, uplink) in [(0, UPLINK), (1, SECOND)] {
        let header = OuterHeader::v4(UP_MAC, HOPS[usize::from(at)], LOC4, NVE_B, 4789, 64);
        lab.apply(Update::TunnelWay { tunnel: T4, at, uplink, mtu: MTU, header });
    }
    spread(&mut lab, |share| (share % 2) as u8);
    lab
}

fn spread(lab: &mut Lab, way: impl Fn(usize) -> u8) {
    lab.apply(Update::TunnelSpread { tunnel: T4, shares: Some(core::array::from_fn(way)) });
}

fn flow(n: u16, dst: Mac) -> Vec<u8> {
    frames::tcp_frame((M1, v4(1).into(), 1000 + n), (dst, v4(2).into(), 80), (1, 2), 0x10, b"x")
}

/// By which uplink a frame left, and to which next hop; alone.
fn way_of(lab: &mut Lab, port: PortIdx, frame: &[u8]) -> (PortIdx, Mac) {
    lab.clear();
    lab.one(port, frame);
    let sent: Vec<_> = [UPLINK, SECOND]
        .iter()
        .flat_map(|p| {
            lab.to(*p).into_iter().map(|f| (*p, Ethernet::new_checked(f).unwrap().dst())).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(sent.len(), 1, "one copy by one way");
    sent[0]
}

fn ways(lab: &mut Lab) -> Vec<(PortIdx, Mac)> {
    (0..FLOWS).map(|n| way_of(lab, P1, &flow(n, R4))).collect()
}

#[test]
fn r95_each_flow_keeps_to_its_way_on_every_path() {
    let mut lab = two_ways();
    let straight = ways(&mut lab);
    for way in [(UPLINK, HOPS[0]), (SECOND, HOPS[1])] {
        let count = straight.iter().filter(|w| **w == way).count();
        assert!(count >= usize::from(FLOWS) / 4, "{count} of {FLOWS} flows by {way:?}");
    }
    // The whole burst, and a trace of each.
    lab.clear();
    let burst: Vec<Vec<u8>> = (0..FLOWS).map(|n| flow(n, R4)).collect();
    lab.input(P1, &burst);
    let by = |port| straight.iter().filter(|(p, _)| *p == port).count();
    assert_eq!((lab.to(UPLINK).len(), lab.to(SECOND).len()), (by(UPLINK), by(SECOND)));
    for (frame, way) in burst.iter().zip(&straight) {
        let t = trace(&lab.tables, P1, frame, lab.now);
        let told = t.steps().iter().find_map(|s| match s {
            Step::Tunnel { hop, .. } => *hop,
            _ => None,
        });
        assert_eq!(told, Some(*way), "{t}");
    }
    // On the way back out of a hold, and in flight for another NVE.
    lab.vm(R4, VmState::Departed { to: through(T4), until: lab.now + ms(10_000) });
    for (n, way) in (0..FLOWS).zip(&straight) {
        let outer = vxlan_from(NVE_C.into(), vni()).frame(&flow(n, R4));
        assert_eq!(way_of(&mut lab, UPLINK, &outer), *way, "in flight");
        assert_eq!(way_of(&mut lab, P1, &flow(n, R4)), *way, "by the cold path");
    }
    lab.balance();
}

#[test]
fn r95_broadcast_goes_by_one_way_too() {
    let mut lab = two_ways();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let ways: Vec<_> = (0..FLOWS).map(|n| way_of(&mut lab, P1, &flow(n, Mac::BROADCAST))).collect();
    assert!(ways.contains(&(UPLINK, HOPS[0])) && ways.contains(&(SECOND, HOPS[1])));
}

#[test]
fn r95_a_way_that_goes_moves_only_its_own_flows() {
    let mut lab = two_ways();
    let before = ways(&mut lab);
    spread(&mut lab, |_| 1);
    assert!(ways(&mut lab).iter().all(|w| *w == (SECOND, HOPS[1])));
    spread(&mut lab, |share| (share % 2) as u8);
    assert_eq!(ways(&mut lab), before);
    // Without any, frames wait for the next hop, and leave in order when one answers.
    lab.apply(Update::TunnelSpread { tunnel: T4, shares: None });
    lab.apply(Update::TunnelPending { tunnel: T4, remote: NVE_B.into() });
    lab.clear();
    lab.input(P1, &[flow(1, R4), flow(2, R4)]);
    assert_eq!(lab.to(UPLINK).len() + lab.to(SECOND).len(), 0);
    lab.tunnel(T4, NVE_B.into());
    lab.settle();
    assert_eq!(lab.to(UPLINK).len(), 2);
}

#[test]
fn r95_vxlan_to_the_locator_is_taken_on_every_uplink_and_arp_answered_for_the_links_address() {
    let mut lab = two_ways();
    let outer = vxlan_from(NVE_B.into(), vni());
    for uplink in [UPLINK, SECOND] {
        lab.clear();
        let macs = (HOP_MAC, if uplink == UPLINK { UP_MAC } else { mac(0xaa01) });
        let frame = Vxlan { eth: macs, ..outer.clone() }.frame(&numbered(R4, M1, 1));
        lab.one(uplink, &frame);
        assert_eq!(lab.to(P1).len(), 1, "{uplink:?}");
    }
    for (target, answered) in [([10, 0, 2, 1], true), (LOC4.octets(), true), ([10, 0, 2, 7], false)] {
        lab.clear();
        lab.one(SECOND, &frames::arp_request(HOP_MAC, [10, 0, 2, 0].into(), target.into()));
        assert_eq!(lab.to(SECOND).len(), usize::from(answered), "{target:?}");
    }
    // VXLAN to the link's address is nobody's.
    lab.clear();
    let ip = (NVE_B.into(), std::net::IpAddr::from([10, 0, 2, 1]));
    let frame = Vxlan { eth: (HOP_MAC, mac(0xaa01)), ip, ..outer }.frame(&numbered(R4, M1, 1));
    lab.one(SECOND, &frame);
    assert_eq!(lab.to(P1).len(), 0);
}

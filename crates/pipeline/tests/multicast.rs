//! Multicast goes to those who want it (R61), and over the underlay to NVEs that have some (R60).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::*;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_testkit::frames;
use godwit_wire::Mac;
use proptest::prelude::*;

const G4: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 2);
const G6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);
const P4: PortIdx = PortIdx(4);
const EVERY4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const EVERY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

fn lab(multicast: Multicast) -> Lab {
    let mut lab = Lab::new();
    lab.apply(Update::VnMulticastSet { vn: VN, multicast });
    lab.access(P4, VN, mac(7), Admission::Activated);
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T6 });
    lab
}

fn join(lab: &mut Lab, group: impl Into<IpAddr>, member: Member) {
    lab.apply(Update::GroupMemberSet { vn: VN, group: group.into(), member });
}

fn leave(lab: &mut Lab, group: impl Into<IpAddr>, member: Member) {
    lab.apply(Update::GroupMemberRemove { vn: VN, group: group.into(), member });
}

fn data(group: Ipv4Addr) -> Vec<u8> {
    frames::udp_frame((M1, v4(1).into(), 9), (frames::group_mac_v4(group), group.into(), 5004), b"stream")
}

fn data6(group: Ipv6Addr) -> Vec<u8> {
    frames::udp_frame((M1, v6(1).into(), 9), (frames::group_mac(group), group.into(), 5004), b"stream")
}

/// Ports that a frame left by, sorted.
fn exits(lab: &mut Lab) -> Vec<PortIdx> {
    let mut ports: Vec<PortIdx> = lab.out.sent.iter().map(|(port, _)| *port).collect();
    ports.sort_unstable();
    lab.clear();
    ports
}

#[test]
fn r61_a_group_goes_to_its_members_and_no_others() {
    let mut lab = lab(Multicast::Snoop);
    join(&mut lab, G4, Member::Port(P2));
    join(&mut lab, G4, Member::Tunnel(T4));
    join(&mut lab, G6, Member::Port(P4));
    lab.one(P1, &data(G4));
    assert_eq!(open(lab.to(UPLINK)[0]).1, data(G4));
    assert_eq!(open(lab.to(UPLINK)[0]).0.dst, IpAddr::V4(NVE_B));
    assert_eq!(exits(&mut lab), [UPLINK, P2]);
    lab.one(P1, &data6(G6));
    assert_eq!(exits(&mut lab), [P4], "each family has its groups");
    leave(&mut lab, G4, Member::Port(P2));
    lab.one(P1, &data(G4));
    assert_eq!(exits(&mut lab), [UPLINK], "who leaves gets nothing more");
    leave(&mut lab, G4, Member::Tunnel(T4));
    dropped(&mut lab, P1, &data(G4), DropReason::NoMember);
}

#[test]
fn r60_three_of_a_hundred_nves_have_members_and_three_copies_leave() {
    let config = TablesConfig { tunnel_capacity: 128, replica_limit: 128, ..config() };
    let mut lab = Lab::with(&config);
    lab.apply(Update::VnMulticastSet { vn: VN, multicast: Multicast::Snoop });
    for n in 0..100 {
        let tunnel = TunnelIdx(10 + n);
        lab.tunnel(tunnel, Ipv4Addr::new(198, 18, 1, n as u8).into());
        lab.apply(Update::ReplicaAdd { vn: VN, tunnel });
    }
    for n in [3, 50, 99] {
        join(&mut lab, G4, Member::Tunnel(TunnelIdx(10 + n)));
    }
    lab.one(P1, &data(G4));
    let to: Vec<IpAddr> = lab.to(UPLINK).iter().map(|f| open(f).0.dst).collect();
    let mut last: Vec<u8> =
        to.iter().map(|ip| if let IpAddr::V4(v4) = ip { v4.octets()[3] } else { 0 }).collect();
    last.sort_unstable();
    assert_eq!(last, [3, 50, 99]);
    assert_eq!(lab.out.sent.len(), 3);
    // What comes in from one of them goes to no other (R46a).
    lab.clear();
    join(&mut lab, G4, Member::Port(P2));
    lab.one(UPLINK, &vxlan().frame(&data(G4)));
    assert_eq!(exits(&mut lab), [P2]);
}

#[test]
fn r61_multicast_routers_get_every_group_of_their_family_once() {
    let mut lab = lab(Multicast::Snoop);
    join(&mut lab, EVERY4, Member::Port(P4));
    join(&mut lab, EVERY4, Member::Tunnel(T6));
    join(&mut lab, G4, Member::Port(P4));
    join(&mut lab, G4, Member::Port(P2));
    lab.one(P1, &data(G4));
    assert_eq!(exits(&mut lab), [UPLINK, P2, P4]);
    lab.one(P1, &data(OTHER));
    assert_eq!(exits(&mut lab), [UPLINK, P4], "unknown groups, too");
    dropped(&mut lab, P1, &data6(G6), DropReason::NoMember);
    join(&mut lab, EVERY6, Member::Port(P1));
    dropped(&mut lab, P1, &data6(G6), DropReason::NoMember);
}

#[test]
fn r61_a_report_goes_to_routers_and_to_control_and_to_nobody_else() {
    let mut lab = lab(Multicast::Snoop);
    let from = (M1, v4(1));
    let report = frames::igmp_one(from, 0x16, G4);
    join(&mut lab, G4, Member::Port(P2));
    lab.one(P1, &report);
    assert_eq!(lab.out.punted, [(P1, report.clone())]);
    assert_eq!(exits(&mut lab), [], "members would take it for their own and be silent");
    join(&mut lab, EVERY4, Member::Port(P4));
    join(&mut lab, EVERY4, Member::Tunnel(T4));
    for frame in [&report, &frames::igmp3_report(from, &[(4, G4)], false), &frames::igmp_one(from, 0x17, G4)]
    {
        lab.one(P1, frame);
        assert_eq!(lab.out.punted, [(P1, frame.clone())]);
        assert_eq!(exits(&mut lab), [UPLINK, P4]);
    }
    let mld = frames::mld2_report((M1, M1.link_local()), &[(4, G6)], false);
    lab.one(P1, &mld);
    assert_eq!(lab.out.punted, [(P1, mld)]);
    assert_eq!(exits(&mut lab), []);
    // From the overlay: to routers here, and control hears it from the directory.
    lab.one(UPLINK, &vxlan().frame(&frames::igmp_one((R4, v4(9)), 0x16, G4)));
    assert!(lab.out.punted.is_empty());
    assert_eq!(exits(&mut lab), [P4]);
    assert_eq!(lab.tables.counters.worker.memberships, 5);
}

#[test]
fn r61_only_routers_ask_and_everybody_hears_them() {
    let mut lab = lab(Multicast::Snoop);
    let query = frames::igmp2_query((M1, v4(1)));
    dropped(&mut lab, P1, &query, DropReason::NotRouter);
    assert_eq!(lab.take_events(), [Event::NotRouter { port: P1 }]);
    assert!(lab.out.punted.is_empty());
    lab.apply(Update::ServerSet { port: P1, server: true });
    lab.one(P1, &query);
    assert_eq!(lab.out.punted, [(P1, query.clone())]);
    assert_eq!(exits(&mut lab), [UPLINK, UPLINK, P2, P4]);
    lab.one(UPLINK, &vxlan().frame(&frames::mld1_query((R4, R4.link_local()))));
    assert_eq!(exits(&mut lab), [P1, P2, P4]);
}

#[test]
fn r61_link_local_groups_and_broadcast_go_to_everybody() {
    let mut lab = lab(Multicast::Snoop);
    let link = Ipv4Addr::new(224, 0, 0, 251);
    let link6 = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
    for frame in [data(link), data6(link6), frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"all")] {
        lab.one(P1, &frame);
        assert_eq!(exits(&mut lab), [UPLINK, UPLINK, P2, P4]);
    }
    // Groups of another kind than IP's.
    lab.one(P1, &frames::ethernet(Mac([1, 0x1b, 0x19, 0, 0, 0]), M1, 0x88f7, b"ptp"));
    assert_eq!(exits(&mut lab), [UPLINK, UPLINK, P2, P4]);
}

#[test]
fn r61_a_vn_without_multicast_has_link_local_groups_only() {
    let mut lab = lab(Multicast::Off);
    join(&mut lab, G4, Member::Port(P2));
    dropped(&mut lab, P1, &data(G4), DropReason::MulticastOff);
    dropped(&mut lab, P1, &data6(G6), DropReason::MulticastOff);
    lab.one(UPLINK, &vxlan().frame(&data(G4)));
    assert_eq!(lab.drops(DropReason::MulticastOff), 3);
    lab.one(P1, &data(Ipv4Addr::new(224, 0, 0, 251)));
    assert_eq!(exits(&mut lab), [UPLINK, UPLINK, P2, P4]);
}

#[test]
fn r61_other_vns_and_vns_that_flood_are_as_before() {
    let mut lab = lab(Multicast::Flood);
    lab.one(P1, &data(G4));
    assert_eq!(exits(&mut lab), [UPLINK, UPLINK, P2, P4]);
    let report = frames::igmp_one((M1, v4(1)), 0x16, G4);
    lab.one(P1, &report);
    assert_eq!((lab.out.punted.len(), exits(&mut lab).len()), (0, 4));
    lab.apply(Update::VnMulticastSet { vn: VN, multicast: Multicast::Snoop });
    join(&mut lab, G4, Member::Port(P3));
    lab.one(P1, &data(G4));
    assert_eq!(exits(&mut lab), [], "a port of another VN gets nothing (R13)");
    assert_eq!(lab.drops(DropReason::PortGone), 1);
}

#[test]
fn r61_malformed_messages_are_dropped_and_control_hears_a_bounded_number() {
    let mut lab = lab(Multicast::Snoop);
    let mut bad = frames::igmp_one((M1, v4(1)), 0x16, G4);
    let last = bad.len() - 1;
    bad[last] ^= 1;
    dropped(&mut lab, P1, &bad, DropReason::MembershipMalformed);
    let report = frames::igmp_one((M1, v4(1)), 0x16, G4);
    for _ in 0..4 {
        lab.input(P1, &vec![report.clone(); 40]);
    }
    assert_eq!(lab.out.punted.len(), 128);
    let w = lab.tables.counters.worker;
    assert_eq!((w.memberships, w.memberships_lost), (128, 32));
    lab.one(P4, &frames::igmp_one((mac(7), v4(4)), 0x16, G4));
    assert_eq!(lab.out.punted.len(), 129, "of each port");
    lab.wait(ms(50));
    lab.one(P1, &report);
    assert_eq!(lab.out.punted.len(), 130);
    lab.out.punt_room = 0;
    lab.wait(ms(50));
    lab.one(P1, &report);
    assert_eq!(lab.tables.counters.worker.memberships_lost, 33, "no room");
}

#[test]
fn r61_more_groups_than_there_is_room_for_are_refused() {
    let config = TablesConfig { group_capacity: 2, member_capacity: 3, ..config() };
    let mut lab = Lab::with(&config);
    lab.apply(Update::VnMulticastSet { vn: VN, multicast: Multicast::Snoop });
    join(&mut lab, G4, Member::Port(P2));
    join(&mut lab, OTHER, Member::Port(P2));
    join(&mut lab, G6, Member::Port(P2));
    assert_eq!(lab.tables.counters.worker.table_full, 1);
    join(&mut lab, OTHER, Member::Tunnel(T4));
    join(&mut lab, OTHER, Member::Tunnel(T6));
    assert_eq!(lab.tables.counters.worker.table_full, 2);
    dropped(&mut lab, P1, &data6(G6), DropReason::NoMember);
    lab.apply(Update::VnRemove { vn: VN });
    assert!(lab.tables.groups.is_empty());
    assert_eq!(lab.tables.groups.members_in_all(), 0);
}

#[test]
fn r61_what_a_vm_may_not_get_by_its_policy_it_does_not_get_by_a_group() {
    let mut lab = lab(Multicast::Snoop);
    join(&mut lab, G4, Member::Port(P2));
    lab.apply(Update::PolicySet {
        port: P2,
        rules: 0,
        default: godwit_wire::policy::Verdict::Deny,
        rate: godwit_wire::Rate::UNLIMITED,
        dscp: None,
    });
    lab.one(P1, &data(G4));
    assert_eq!((lab.drops(DropReason::PolicyDenied), lab.out.sent.len()), (1, 0));
}

const UNDERLAY: Ipv4Addr = Ipv4Addr::new(239, 0, 0, 77);
const TG: TunnelIdx = TunnelIdx(9);

/// A VN with more members than copies, and a group of the underlay.
fn crowded() -> Lab {
    let mut lab = Lab::new();
    for n in 0..5 {
        lab.tunnel(TunnelIdx(3 + n), Ipv4Addr::new(198, 18, 1, n as u8).into());
        lab.apply(Update::ReplicaAdd { vn: VN, tunnel: TunnelIdx(3 + n) });
    }
    lab.tunnel(TG, UNDERLAY.into());
    lab.apply(Update::VnUnderlayGroup { vn: VN, tunnel: Some(TG) });
    lab.take_events();
    lab
}

#[test]
fn r60_beyond_the_limit_one_packet_to_the_underlays_group_takes_the_place_of_all_copies() {
    let mut lab = crowded();
    let all = frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"all");
    lab.one(P1, &all);
    let [packet] = &lab.to(UPLINK)[..] else { panic!("one packet") };
    let (outer, inner) = open(packet);
    assert_eq!((outer.dst, outer.ttl, inner), (IpAddr::V4(UNDERLAY), 64, &all[..]));
    assert_eq!((lab.to(P2), lab.drops(DropReason::ReplicationLimit)), (vec![&all[..]], 0));
    lab.clear();
    lab.apply(Update::ReplicaRemove { vn: VN, tunnel: TunnelIdx(3) });
    lab.one(P1, &all);
    assert_eq!(exits(&mut lab), [UPLINK, UPLINK, UPLINK, P2], "below it copies are fewer packets for others");
}

#[test]
fn r60_what_comes_from_the_underlays_group_goes_to_vms_here_and_no_further() {
    let mut lab = crowded();
    let all = frames::ethernet(Mac::BROADCAST, R4, 0x1234, b"all");
    let to = |group: Ipv4Addr, sender: Ipv4Addr, vni, inner: &[u8]| {
        let macs = (HOP_MAC, frames::group_mac_v4(group));
        frames::Vxlan::new(macs, (sender.into(), group.into()), vni).frame(inner)
    };
    lab.one(UPLINK, &to(UNDERLAY, NVE_C, vni(), &all));
    assert_eq!(exits(&mut lab), [P1, P2]);
    let ours = DropReason::NotOurLocator;
    dropped(&mut lab, UPLINK, &to(Ipv4Addr::new(239, 0, 0, 78), NVE_C, vni(), &all), ours);
    dropped(&mut lab, UPLINK, &to(UNDERLAY, NVE_C, other_vni(), &all), ours);
    dropped(&mut lab, UPLINK, &to(UNDERLAY, LOC4, vni(), &all), ours);
    dropped(&mut lab, UPLINK, &to(UNDERLAY, NVE_C, vni(), &numbered(R4, M1, 1)), ours);
    lab.apply(Update::VnUnderlayGroup { vn: VN, tunnel: None });
    dropped(&mut lab, UPLINK, &to(UNDERLAY, NVE_C, vni(), &all), ours);
}

#[test]
fn r60_a_group_with_more_members_than_copies() {
    let mut lab = crowded();
    lab.apply(Update::VnMulticastSet { vn: VN, multicast: Multicast::Snoop });
    for n in 0..5 {
        join(&mut lab, G4, Member::Tunnel(TunnelIdx(3 + n)));
    }
    lab.one(P1, &data(G4));
    assert_eq!(exits(&mut lab), [UPLINK], "to the group of the underlay");
    lab.apply(Update::VnUnderlayGroup { vn: VN, tunnel: None });
    lab.one(P1, &data(G4));
    assert_eq!(lab.drops(DropReason::ReplicationLimit), 1);
    assert_eq!(exits(&mut lab), [UPLINK; 4]);
}

/// Multicast and what is said of it, as VMs may send it, for the properties.
pub fn frame(mac: impl Strategy<Value = Mac>) -> impl Strategy<Value = Vec<u8>> {
    (mac, 0u8..8, 0usize..7).prop_map(|(m, from, kind)| {
        let (host, ll) = ((m, v4(from)), (m, m.link_local()));
        let data = |group: Ipv4Addr| {
            frames::udp_frame((m, host.1.into(), 1), (frames::group_mac_v4(group), group.into(), 2), b"data")
        };
        match kind {
            0 => frames::igmp_one(host, 0x16, G4),
            1 => frames::igmp3_report(host, &[(3, G4)], false),
            2 => frames::igmp2_query(host),
            3 => frames::mld1_query(ll),
            4 => frames::mld2_report(ll, &[(4, G6)], false),
            5 => data(Ipv4Addr::new(224, 0, 0, 251)),
            _ => data(G4),
        }
    })
}

/// A member of a group, or of every group, comes or goes; or the VN takes multicast otherwise.
pub fn change(lab: &mut Lab, kind: u8, tunnel: TunnelIdx, n: u8) {
    let group = if n.is_multiple_of(2) { G4.into() } else { EVERY4 };
    let member = match n / 2 {
        0 => Member::Port(P1),
        1 => Member::Port(P2),
        _ => Member::Tunnel(tunnel),
    };
    let multicast =
        [Multicast::Flood, Multicast::Snoop, Multicast::Snoop, Multicast::Off][usize::from(n % 4)];
    lab.apply(match (kind, n) {
        (0, _) => Update::VnMulticastSet { vn: VN, multicast },
        (1, 7) => Update::VnUnderlayGroup { vn: VN, tunnel: Some(tunnel) },
        (_, 7) => Update::GroupMemberRemove { vn: VN, group, member },
        _ => Update::GroupMemberSet { vn: VN, group, member },
    });
}

//! Multicast only where it is wanted (R61): from IGMP and MLD of VMs to workers and to other NVEs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::*;
use godwit_control::{Input, WorkerSet};
use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{Domain, DomainId, Multicast, Subnet, VnRouting};
use godwit_tables::update::{Member, Multicast as Policy, PortIdx, VnIdx};
use godwit_testkit::frames;
use godwit_wire::membership::{self, Message, Query, Version};
use godwit_wire::{Frame, Mac};

const A: usize = 0;
const B: usize = 1;
const G: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const G6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 7);
const EVERY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Of a general query's interval, with all that may be lost.
const MEMBERSHIP_MS: u64 = 260_000;

fn lab(count: usize) -> Lab {
    let mut lab = Lab::new(count);
    lab.nva.settings.multicast = Multicast::Snoop;
    lab
}

fn port(n: u8) -> PortIdx {
    PortIdx(n.into())
}

fn from(n: u8) -> (Mac, Ipv4Addr) {
    (mac(n), Ipv4Addr::new(10, 0, 0, n))
}

fn said(lab: &mut Lab, i: usize, n: u8, frame: Vec<u8>) {
    lab.input(i, Input::Punted { port: port(n), frame });
    lab.settle();
}

fn join(lab: &mut Lab, i: usize, n: u8, group: Ipv4Addr) {
    said(lab, i, n, frames::igmp_one(from(n), 0x16, group));
}

/// The queries that NVE `i` sent to the VM since the last call.
fn queries(lab: &mut Lab, i: usize, n: u8) -> Vec<Query> {
    let frames = std::mem::take(&mut lab.hosts[i].frames);
    let (own, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(|(to, _)| *to == port(n));
    lab.hosts[i].frames = others;
    let read = |f: &[u8]| match membership::read(&Frame::read(f).unwrap()) {
        Some(Ok(Message::Query(query))) => Some(query),
        _ => None,
    };
    own.iter().filter_map(|(_, f)| read(f)).collect()
}

/// Where NVE `i` copies a group to: ports here, and other NVEs.
fn members(lab: &Lab, i: usize, group: impl Into<IpAddr>) -> (Vec<PortIdx>, Vec<IpAddr>) {
    let (group, tables) = (group.into(), &lab.hosts[i].tables);
    let of = tables.members.iter().filter(|(vn, g, _)| (*vn, *g) == (VnIdx(0), group));
    let (mut ports, mut nves) = (Vec::new(), Vec::new());
    for (.., member) in of {
        match member {
            Member::Port(port) => ports.push(*port),
            Member::Tunnel(tunnel) => nves.push(tables.tunnels[tunnel].0),
        }
    }
    (ports, nves)
}

#[test]
fn r61_a_report_here_is_a_member_here_and_at_every_other_nve_of_the_vn() {
    let mut lab = lab(3);
    for i in 0..3 {
        lab.run_vm(i, i as u8 + 1);
    }
    assert_eq!(lab.hosts[A].tables.multicast[&VnIdx(0)], Policy::Snoop);
    join(&mut lab, A, 1, G);
    assert_eq!(members(&lab, A, G), (vec![port(1)], vec![]));
    assert_eq!(members(&lab, B, G), (vec![], vec![locator(A)]));
    assert_eq!(members(&lab, 2, G), (vec![], vec![locator(A)]));
    said(&mut lab, B, 2, frames::mld2_report((mac(2), mac(2).link_local()), &[(4, G6)], false));
    assert_eq!(members(&lab, A, G6), (vec![], vec![locator(B)]));
    // One who repeats it, or joins what is of the link, changes nothing.
    let before = lab.hosts[A].said.len();
    join(&mut lab, A, 1, G);
    join(&mut lab, A, 1, Ipv4Addr::new(224, 0, 0, 251));
    assert_eq!(lab.hosts[A].said.len(), before);
}

#[test]
fn r61_who_leaves_is_asked_twice_whether_somebody_behind_it_stays() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    join(&mut lab, A, 1, G);
    lab.pass(3000);
    queries(&mut lab, A, 1);
    said(&mut lab, A, 1, frames::igmp_one(from(1), 0x17, G));
    let asked = queries(&mut lab, A, 1);
    assert_eq!(
        asked.iter().map(|q| (q.group, q.max_response.as_ms())).collect::<Vec<_>>(),
        [(Some(G.into()), 1000)]
    );
    lab.pass(1500);
    assert_eq!(queries(&mut lab, A, 1).len(), 1);
    assert_eq!(members(&lab, B, G).1, [locator(A)], "until nobody has answered");
    lab.pass(600);
    assert_eq!((members(&lab, A, G), members(&lab, B, G)), ((vec![], vec![]), (vec![], vec![])));

    join(&mut lab, A, 1, G);
    said(&mut lab, A, 1, frames::igmp3_report(from(1), &[(3, G)], false));
    join(&mut lab, A, 1, G);
    lab.pass(10_000);
    assert_eq!(members(&lab, A, G).0, [port(1)], "somebody behind it answered");
}

#[test]
fn r61_a_member_that_says_nothing_is_none_after_its_time_and_one_that_answers_is() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    join(&mut lab, A, 1, G);
    lab.pass(MEMBERSHIP_MS - 100);
    assert_eq!(members(&lab, B, G).1, [locator(A)]);
    join(&mut lab, A, 1, G);
    lab.pass(MEMBERSHIP_MS - 100);
    assert_eq!(members(&lab, B, G).1, [locator(A)]);
    lab.pass(200);
    assert_eq!((members(&lab, A, G).0, members(&lab, B, G).1), (vec![], vec![]));
}

#[test]
fn r61_every_vm_is_asked_by_the_switch_every_125_seconds_in_both_families() {
    let mut lab = lab(1);
    lab.run_vm(A, 1);
    lab.pass(40_000);
    queries(&mut lab, A, 1);
    lab.pass(125_000);
    let asked = queries(&mut lab, A, 1);
    let versions: Vec<_> = asked.iter().map(|q| (q.version, q.group, q.max_response.as_ms())).collect();
    assert_eq!(versions, [(Version::Igmp3, None, 10_000), (Version::Mld2, None, 10_000)]);
    // Without a gateway no address, which wins no election; MLD has to have one.
    assert_eq!(asked[0].src, EVERY);
    assert_eq!(asked[1].src, IpAddr::V6(Mac::PROBER.link_local()));
}

/// Gives the VN a gateway; returns its MAC address.
fn with_gateway(lab: &mut Lab, gateway: IpAddr) -> Mac {
    let subnet = Subnet { prefix: "10.0.0.0/24".parse().unwrap(), gateway, advertise: None, dhcp: None };
    let (id, gateway_mac) = (DomainId(1), Mac([2, 0x67, 0, 0, 0, 9]));
    lab.nva.routing.insert(vni(), VnRouting { domain: id, routed_only: false, subnets: vec![subnet] });
    let domain = Domain { id, name: "d".into(), gateway_mac, vns: vec![vni()] };
    lab.nva.domains.insert(id, (domain, Vec::new()));
    gateway_mac
}

/// Defines VM 9 as a router and runs it at A.
fn run_router(lab: &mut Lab) {
    lab.nva.define(vm(9), vm_ip(9));
    let r = lab.nva.records.get_mut(&vm(9)).unwrap();
    (r.router, r.router_pinned) = (true, true);
    lab.add_port(A, port(9), 9);
    lab.settle();
    lab.announce(A, port(9), 9);
    lab.settle();
}

#[test]
fn r61_the_gateway_asks_where_there_is_one() {
    let mut lab = lab(1);
    let gateway = Ipv4Addr::new(10, 0, 0, 254).into();
    let gateway_mac = with_gateway(&mut lab, gateway);
    lab.run_vm(A, 1);
    let asked = queries(&mut lab, A, 1);
    let from: Vec<IpAddr> = asked.iter().map(|q| q.src).collect();
    assert_eq!(from, [gateway, gateway_mac.link_local().into()]);
}

/// The router's address is 10.0.0.9 in both; whoever has the lower one asks (RFC 2236 section 3).
#[test]
fn r61_a_gateway_gives_way_to_a_router_with_a_lower_address_only() {
    for (gateway, asks) in [(1, true), (254, false)] {
        let mut lab = lab(1);
        with_gateway(&mut lab, Ipv4Addr::new(10, 0, 0, gateway).into());
        lab.run_vm(A, 1);
        run_router(&mut lab);
        lab.pass(40_000);
        for _ in 0..2 {
            said(&mut lab, A, 9, frames::igmp2_query(from(9)));
            queries(&mut lab, A, 1);
            lab.pass(125_000);
            let asked = queries(&mut lab, A, 1);
            let versions: Vec<_> = asked.iter().map(|q| q.version).filter(|v| *v != Version::Mld2).collect();
            // Its hosts follow the router's version, whoever asks (RFC 3376 section 7.3.1).
            assert_eq!(
                versions,
                if asks { vec![Version::Igmp2] } else { vec![] },
                "gateway 10.0.0.{gateway}"
            );
        }
        assert_eq!(members(&lab, A, EVERY).0, [port(9)], "a router gets everything, elected or not");
        assert_eq!(queries(&mut lab, A, 9), [], "and is not asked, or it would be known as one no longer");
        lab.pass(256_000);
        assert!(queries(&mut lab, A, 1).iter().any(|q| q.version == Version::Igmp3), "the switch asks again");
    }
}

#[test]
fn r61_an_arriving_vm_is_asked_alone_and_the_stream_follows_it() {
    let mut lab = lab(3);
    for i in 0..3 {
        lab.run_vm(i, i as u8 + 1);
    }
    join(&mut lab, A, 1, G);
    lab.order_move("m", 1, A, B);
    lab.add_port(B, port(1), 1);
    lab.settle();
    lab.input(A, Input::PausePort { port: port(1) });
    lab.settle();
    lab.pass(2000);
    queries(&mut lab, B, 1);
    queries(&mut lab, B, 2);
    assert_eq!(members(&lab, 2, G).1, [locator(A)], "its packets are held there");
    lab.announce(B, port(1), 1);
    lab.settle();
    let asked = queries(&mut lab, B, 1);
    let general: Vec<_> = asked.iter().map(|q| (q.version, q.group, q.max_response.as_ms())).collect();
    assert_eq!(general, [(Version::Igmp3, None, 1000), (Version::Mld2, None, 1000)]);
    assert_eq!(queries(&mut lab, B, 2), [], "nobody else is asked");
    assert_eq!(members(&lab, 2, G), (vec![], vec![]), "it is gone from its old NVE at once");
    join(&mut lab, B, 1, G);
    assert_eq!(members(&lab, 2, G).1, [locator(B)]);
    assert_eq!(members(&lab, B, G).0, [port(1)]);
    // A question may be lost while the VM starts.
    lab.pass(1100);
    assert_eq!(queries(&mut lab, B, 1).len(), 2);
}

#[test]
fn r61_a_port_that_goes_takes_its_memberships_along() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(A, 3);
    lab.run_vm(B, 2);
    join(&mut lab, A, 1, G);
    join(&mut lab, A, 3, G);
    lab.input(A, Input::PortRemoved { port: port(1) });
    lab.settle();
    assert_eq!((members(&lab, A, G).0, members(&lab, B, G).1), (vec![port(3)], vec![locator(A)]));
    lab.input(A, Input::PortRemoved { port: port(3) });
    lab.settle();
    assert_eq!(members(&lab, B, G).1, [IpAddr::V4(G); 0]);
}

#[test]
fn r61_a_router_that_asks_gets_everything_and_the_switch_is_quiet() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    run_router(&mut lab);
    lab.pass(200_000);
    assert_eq!(queries(&mut lab, A, 9), [], "it might give way to the switch, which routes nothing");
    said(&mut lab, A, 9, frames::igmp2_query(from(9)));
    assert_eq!((members(&lab, A, EVERY).0, members(&lab, B, EVERY).1), (vec![port(9)], vec![locator(A)]));
    queries(&mut lab, A, 1);
    lab.pass(130_000);
    said(&mut lab, A, 9, frames::igmp2_query(from(9)));
    let families: Vec<_> = queries(&mut lab, A, 1).iter().map(|q| q.version).collect();
    assert_eq!(families, [Version::Mld2], "in the router's family");
    lab.pass(256_000);
    assert_eq!((members(&lab, A, EVERY).0, members(&lab, B, EVERY).1), (vec![], vec![]), "it asks no more");
    assert!(queries(&mut lab, A, 1).iter().any(|q| q.version == Version::Igmp3), "so the switch does");
    // A VM that was not defined as one is no router.
    said(&mut lab, A, 1, frames::igmp2_query(from(1)));
    assert_eq!(members(&lab, A, EVERY).0, []);
}

#[test]
fn r61_a_port_and_a_vn_have_limits_and_one_alarm_says_so() {
    let mut lab = lab(1);
    lab.run_vm(A, 1);
    lab.run_vm(A, 2);
    let alarms = lab.hosts[A].alarms();
    let group = |n: u16| Ipv4Addr::new(239, 2, (n / 200) as u8, (n % 200) as u8);
    for n in 0..70 {
        join(&mut lab, A, 1, group(n));
    }
    assert_eq!(lab.hosts[A].tables.members.len(), 64);
    assert_eq!(lab.hosts[A].nve.counts().groups_refused, 6);
    assert_eq!(lab.hosts[A].alarms(), alarms + 1);
    join(&mut lab, A, 2, group(69));
    assert_eq!(members(&lab, A, group(69)).0, [port(2)], "of each port");
    lab.pass(MEMBERSHIP_MS + 1000);
    assert!(lab.hosts[A].tables.members.is_empty(), "their time is over");
}

#[test]
fn r72_without_the_nva_what_is_known_goes_on_and_is_said_again() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    join(&mut lab, A, 1, G);
    lab.disconnect(A);
    assert_eq!(members(&lab, B, G).1, [locator(A)]);
    let other = Ipv4Addr::new(239, 1, 1, 2);
    join(&mut lab, A, 1, other);
    assert_eq!(members(&lab, A, other).0, [port(1)]);
    lab.connect(A);
    lab.settle();
    assert_eq!((members(&lab, B, G).1, members(&lab, B, other).1), (vec![locator(A)], vec![locator(A)]));
    let all = lab.hosts[A].said.iter().rev().find_map(|m| match m {
        NveToNva::Groups { reset: true, joined, .. } => Some(joined.clone()),
        _ => None,
    });
    assert_eq!(all, Some(vec![G.into(), other.into()]));
    // An NVA that has started anew knows of no groups until their NVEs say them.
    lab.nva.groups.clear();
    lab.disconnect(B);
    lab.connect(B);
    lab.settle();
    assert_eq!(members(&lab, B, G).1, [locator(A)], "nobody has said otherwise");
}

#[test]
fn r61_an_nve_that_leaves_the_vn_gets_nothing_more() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    join(&mut lab, A, 1, G);
    let change = Change::MemberLeft(nve_id(A));
    lab.input(B, Input::Nva(NvaToNve::Update { vni: vni(), revision: 3, ack_id: 0, change }));
    assert_eq!(members(&lab, B, G).1, [IpAddr::V4(G); 0]);
    let groups = |joined| NvaToNve::Groups { vni: vni(), nve: nve_id(A), reset: true, joined, left: vec![] };
    lab.input(B, Input::Nva(groups(vec![G.into()])));
    assert_eq!(members(&lab, B, G).1, [IpAddr::V4(G); 0], "nor by a word that comes late");
}

#[test]
fn r61_the_setting_may_change_while_vms_run_and_a_new_worker_hears_of_it() {
    let mut lab = lab(2);
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    join(&mut lab, A, 1, G);
    let told = lab.hosts[B].tables.clone();
    lab.hosts[B].tables = Default::default();
    lab.input(B, Input::WorkerLeft { worker: 0 });
    lab.input(B, Input::WorkerJoined { worker: 0 });
    assert_eq!(
        (&lab.hosts[B].tables.members, &lab.hosts[B].tables.multicast),
        (&told.members, &told.multicast)
    );

    let mut set = |multicast| {
        lab.nva.settings.multicast = multicast;
        for i in [A, B] {
            lab.disconnect(i);
            lab.connect(i);
        }
        lab.settle();
        (lab.hosts[B].tables.multicast[&VnIdx(0)], lab.hosts[B].tables.members.len())
    };
    assert_eq!(set(Multicast::Off), (Policy::Off, 0));
    assert_eq!(set(Multicast::Flood), (Policy::Flood, 0));
    assert_eq!(set(Multicast::Snoop).0, Policy::Snoop);
    assert!(!queries(&mut lab, A, 1).is_empty(), "its members are asked at once");
}

#[test]
fn r61_other_frames_and_other_ports_are_nothing_to_it() {
    let mut lab = lab(1);
    lab.run_vm(A, 1);
    let udp = frames::udp_frame((mac(1), vm_ip(1), 68), (Mac::BROADCAST, vm_ip(9), 67), b"dhcp");
    said(&mut lab, A, 1, udp);
    said(&mut lab, A, 1, vec![0; 9]);
    lab.input(A, Input::Punted { port: UPLINK, frame: frames::igmp_one(from(1), 0x16, G) });
    lab.input(A, Input::Punted { port: PortIdx(77), frame: frames::igmp_one(from(1), 0x16, G) });
    assert!(lab.hosts[A].tables.members.is_empty());
    // A port that is not open yet is no member.
    let (name, workers) = (String::from("two"), WorkerSet::first(1));
    lab.input(A, Input::PortAdded { port: port(2), name, spec: access(2), workers });
    join(&mut lab, A, 2, G);
    assert!(lab.hosts[A].tables.members.is_empty());
}

#[test]
fn r60_the_underlays_group_is_joined_by_the_uplink_said_again_and_left() {
    let mut lab = Lab::new(1);
    let group = Ipv4Addr::new(239, 0, 0, 77);
    lab.nva.settings.underlay_group.v4 = Some(group);
    lab.run_vm(A, 1);
    let tunnel = lab.hosts[A].tables.underlay_groups[&VnIdx(0)];
    let (remote, ready) = lab.hosts[A].tables.tunnels[&tunnel];
    let (header, _) = ready.expect("nobody is asked for a group's MAC");
    assert_eq!((remote, header.dst_mac()), (IpAddr::V4(group), frames::group_mac_v4(group)));
    let reports = |lab: &mut Lab| {
        let frames = std::mem::take(&mut lab.hosts[A].frames);
        let read = |f: &[u8]| match membership::read(&Frame::read(f).unwrap()) {
            Some(Ok(Message::Report(report))) => report.wishes().next(),
            _ => None,
        };
        let of = frames.iter().filter(|(port, _)| *port == UPLINK);
        of.filter_map(|(_, f)| read(f)).collect::<Vec<_>>()
    };
    let member = (IpAddr::V4(group), membership::Wish::Member);
    assert_eq!(reports(&mut lab), [member]);
    lab.pass(1500);
    assert_eq!(reports(&mut lab), [member], "the first may be lost");
    lab.pass(121_000);
    assert_eq!(reports(&mut lab), [member; 2]);
    lab.input(A, Input::PortRemoved { port: port(1) });
    lab.pass(10_000);
    assert_eq!(reports(&mut lab), [(group.into(), membership::Wish::Left)]);
    assert!(lab.hosts[A].tables.underlay_groups.is_empty());
}

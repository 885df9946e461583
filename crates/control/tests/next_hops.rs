//! Several uplinks and next hops towards one locator (R95).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::lab::said::{A, B, warned};
use crate::lab::{self, Lab, PORT, UPLINK, locator, mac};
use godwit_control::{
    Input, Level, NveConfig, PortSpec, Route, RouteHop, RouteOrigin, UplinkSpec, UplinkV4, WorkerSet,
};
use godwit_model::Locators;
use godwit_model::message::NveToNva;
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, PortRole, SHARES, TunnelIdx, VmState};
use godwit_wire::Mac;

const SECOND: PortIdx = PortIdx(50);
const OWN: [u8; 4] = [192, 0, 2, 1];

fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

/// The leaf's address on the link of an uplink.
fn leaf(uplink: PortIdx) -> IpAddr {
    if uplink == UPLINK { ip("10.0.1.0") } else { ip("10.0.2.0") }
}

fn link(uplink: PortIdx) -> UplinkSpec {
    let third = if uplink == UPLINK { 1 } else { 2 };
    let addr = [10, 0, third, 1].into();
    UplinkSpec {
        mac: Mac([2, 0xff, 0, 0, 1, third]),
        v4: Some(UplinkV4 { addr, prefix_len: 31, gateway: None }),
        ..lab::uplink(A)
    }
}

fn loopback(c: &mut NveConfig) {
    if c.nve.as_str() == "a" {
        c.locators = Locators { v4: Some(OWN.into()), v6: None };
    }
}

fn by(uplinks: &[PortIdx]) -> Vec<Route> {
    let hops = uplinks.iter().map(|&uplink| RouteHop { uplink, ip: Some(leaf(uplink)) }).collect();
    vec![Route { to: ip("198.18.0.0"), len: 24, hops }]
}

fn routes(lab: &mut Lab, origin: RouteOrigin, uplinks: &[PortIdx]) {
    lab.input(A, Input::Routes { origin, routes: by(uplinks) });
}

/// NVE A behind two leaves, with a VM at each of two NVEs. Leaves answer only where a test lets them.
fn two_leaves() -> Lab {
    let mut lab = Lab::with(2, loopback);
    lab.answer_arp = false;
    for (port, name) in [(UPLINK, "up0"), (SECOND, "up1")] {
        let (spec, workers) = (PortSpec::Uplink(link(port)), WorkerSet::first(1));
        lab.input(A, Input::PortAdded { port, name: name.into(), spec, workers });
    }
    routes(&mut lab, RouteOrigin::Fixed, &[UPLINK, SECOND]);
    lab.run_vm(A, 1);
    lab.answer_arp = true;
    lab.run_vm(B, 2);
    lab.answer_arp = false;
    for uplink in [UPLINK, SECOND] {
        answers(&mut lab, uplink);
    }
    lab
}

fn answers(lab: &mut Lab, uplink: PortIdx) {
    let mac = mac(if uplink == UPLINK { 0x71 } else { 0x72 });
    lab.event(A, Event::Neighbor { uplink, ip: leaf(uplink), mac, solicited: true });
}

fn tunnel(lab: &Lab) -> TunnelIdx {
    match lab.hosts[A].state(2) {
        Some(VmState::Remote { to }) => to.tunnel,
        other => panic!("{other:?}"),
    }
}

/// The uplink of each share of the flows to B; none where frames wait.
fn uplinks(lab: &Lab) -> Vec<PortIdx> {
    let (t, tables) = (tunnel(lab), &lab.hosts[A].tables);
    let ready = tables.tunnels[&t].1;
    match (tables.spread.get(&t), ready) {
        (Some(shares), Some(_)) => shares.iter().map(|at| tables.ways[&(t, *at)].0).collect(),
        (None, Some((header, _))) => {
            let second = header.dst_mac() == mac(0x72);
            vec![if second { SECOND } else { UPLINK }; SHARES]
        }
        (_, None) => Vec::new(),
    }
}

fn halves(lab: &Lab) -> BTreeMap<PortIdx, usize> {
    uplinks(lab).into_iter().fold(BTreeMap::new(), |mut n, u| {
        *n.entry(u).or_default() += 1;
        n
    })
}

/// Lets time pass by milliseconds, with the leaves that live answering what they are asked.
fn pass(lab: &mut Lab, ms: u64, alive: &[PortIdx]) {
    for _ in 0..ms {
        lab.hosts[A].frames.clear();
        lab.pass(1);
        let asked: Vec<PortIdx> = lab.hosts[A].frames.iter().map(|(port, _)| *port).collect();
        alive.iter().filter(|u| asked.contains(u)).for_each(|u| answers(lab, *u));
    }
}

#[test]
fn r95_flows_go_by_all_next_hops_from_the_loopback() {
    let lab = two_leaves();
    assert_eq!(halves(&lab), [(UPLINK, SHARES / 2), (SECOND, SHARES / 2)].into());
    let tables = &lab.hosts[A].tables;
    let sources: Vec<IpAddr> = tables.ways.values().map(|(_, header, _)| header.src_ip()).collect();
    assert_eq!(sources, [IpAddr::from(OWN); 2]);
    for port in [UPLINK, SECOND] {
        let PortRole::Uplink { v4, link_v4, .. } = tables.ports[&port] else { panic!() };
        assert_eq!((v4, link_v4), (Some(OWN.into()), link(port).v4.map(|n| n.addr)));
    }
    let hello = lab.hosts[A].said.iter().rev().find_map(|m| match m {
        NveToNva::Hello { locators, .. } => Some(*locators),
        _ => None,
    });
    assert_eq!(hello, Some(Locators { v4: Some(OWN.into()), v6: None }));
}

#[test]
fn r95_a_next_hop_that_falls_silent_is_out_in_time_and_moves_nobody_elses_flows() {
    let mut lab = two_leaves();
    pass(&mut lab, 5000, &[UPLINK, SECOND]);
    let before = uplinks(&lab);
    assert_eq!(halves(&lab).len(), 2, "both answer");
    // An interval of a second and three questions of 300 ms: 1.9 s at the most.
    pass(&mut lab, 899, &[UPLINK]);
    assert_eq!(uplinks(&lab), before, "not before three questions went unanswered");
    pass(&mut lab, 1001, &[UPLINK]);
    assert_eq!(halves(&lab), [(UPLINK, SHARES)].into());
    assert!(warned(&lab, A, "next hop 10.0.2.0 on up1 stopped answering"));
    assert_eq!(lab.hosts[A].alarms(), 0, "another goes on");
    // Back within a second of its next answer, for as many flows as it had.
    pass(&mut lab, 1100, &[UPLINK, SECOND]);
    let after = uplinks(&lab);
    assert_eq!(halves(&lab), [(UPLINK, SHARES / 2), (SECOND, SHARES / 2)].into());
    assert_eq!(after.len(), before.len());
    assert!(lab.hosts[A].notes.iter().any(|n| n.text.contains("10.0.2.0 on up1 answers again")));
}

#[test]
fn r95_without_its_last_next_hop_a_locator_waits_with_an_alarm() {
    let mut lab = two_leaves();
    lab.input(A, Input::PortLink { port: SECOND, up: false });
    assert_eq!(halves(&lab), [(UPLINK, SHARES)].into(), "at once");
    assert_eq!(lab.hosts[A].alarms(), 0);
    lab.input(A, Input::PortLink { port: UPLINK, up: false });
    assert_eq!(uplinks(&lab), [], "held, as for an unknown destination");
    let alarm = lab.hosts[A].notes.iter().rfind(|n| n.level == Level::Alarm).unwrap();
    for part in ["uplink up0 lost its link", "198.18.0.2", "hold_expired"] {
        assert!(alarm.text.contains(part), "{alarm}");
    }
    lab.input(A, Input::PortLink { port: SECOND, up: true });
    assert_eq!(halves(&lab), [(SECOND, SHARES)].into());
    lab.input(A, Input::PortLink { port: UPLINK, up: true });
    assert_eq!(halves(&lab).len(), 2);
    // And silence instead of the link.
    pass(&mut lab, 3000, &[]);
    assert_eq!(uplinks(&lab), []);
    assert_eq!(lab.hosts[A].alarms(), 2);
}

#[test]
fn r95_routes_of_the_kernel_come_and_go_and_the_longest_prefix_counts() {
    let mut lab = two_leaves();
    routes(&mut lab, RouteOrigin::Fixed, &[]);
    assert_eq!(uplinks(&lab), [], "a route to nowhere leads nowhere");
    lab.input(A, Input::Routes { origin: RouteOrigin::Fixed, routes: Vec::new() });
    routes(&mut lab, RouteOrigin::Kernel, &[UPLINK, SECOND]);
    answers(&mut lab, UPLINK);
    answers(&mut lab, SECOND);
    assert_eq!(halves(&lab).len(), 2);
    // The daemon takes one out.
    routes(&mut lab, RouteOrigin::Kernel, &[SECOND]);
    assert_eq!(halves(&lab), [(SECOND, SHARES)].into());
    let longer = vec![
        Route { len: 32, to: locator(B), hops: vec![RouteHop { uplink: UPLINK, ip: Some(leaf(UPLINK)) }] },
        by(&[SECOND]).remove(0),
    ];
    lab.input(A, Input::Routes { origin: RouteOrigin::Kernel, routes: longer });
    answers(&mut lab, UPLINK);
    assert_eq!(halves(&lab), [(UPLINK, SHARES)].into());
    // The configuration's word goes before the kernel's of the same length.
    routes(&mut lab, RouteOrigin::Kernel, &[UPLINK]);
    routes(&mut lab, RouteOrigin::Fixed, &[SECOND]);
    answers(&mut lab, SECOND);
    assert_eq!(halves(&lab), [(SECOND, SHARES)].into());
}

#[test]
fn r95_a_next_hop_may_be_of_the_other_family() {
    let mut lab = two_leaves();
    let hop = RouteHop { uplink: UPLINK, ip: Some(ip("fe80::1")) };
    lab.hosts[A].frames.clear();
    let route = Route { to: ip("198.18.0.0"), len: 24, hops: vec![hop] };
    lab.input(A, Input::Routes { origin: RouteOrigin::Fixed, routes: vec![route] });
    assert_eq!(uplinks(&lab), [], "asked for first");
    // From the link-local address that the uplink's MAC makes.
    let own = link(UPLINK).mac.link_local().octets();
    assert!(lab.hosts[A].frames.iter().any(|(_, f)| f.windows(16).any(|w| w == own)));
    let mac = mac(0x71);
    lab.event(A, Event::Neighbor { uplink: UPLINK, ip: ip("fe80::1"), mac, solicited: true });
    assert_eq!(halves(&lab), [(UPLINK, SHARES)].into());
    let (header, _) = lab.hosts[A].tables.tunnels[&tunnel(&lab)].1.unwrap();
    assert_eq!(header.src_ip(), IpAddr::from(OWN));
}

#[test]
fn r95_where_each_uplink_has_its_own_locator_frames_leave_by_theirs() {
    let mut lab = Lab::new(2);
    let gateway = Some([198, 18, 0, 254].into());
    let second =
        UplinkV4 { addr: [203, 0, 113, 1].into(), prefix_len: 24, gateway: Some([203, 0, 113, 254].into()) };
    let first = UplinkV4 { gateway, ..lab::uplink(A).v4.unwrap() };
    for (port, v4) in [(UPLINK, first), (SECOND, second)] {
        let spec = PortSpec::Uplink(UplinkSpec { v4: Some(v4), ..lab::uplink(A) });
        lab.input(
            A,
            Input::PortAdded { port, name: format!("up{}", port.0), spec, workers: WorkerSet::first(1) },
        );
    }
    lab.run_vm(A, 1);
    lab.run_vm(B, 2);
    assert!(lab.hosts[A].tables.spread.is_empty());
    lab.input(A, Input::PortLink { port: UPLINK, up: false });
    let (header, _) = lab.hosts[A].tables.tunnels[&tunnel(&lab)].1.unwrap();
    assert_eq!(header.src_ip(), ip("203.0.113.1"), "the other takes over");
}

#[test]
fn r14_a_worker_that_joins_is_told_of_all_ways() {
    let mut lab = two_leaves();
    let mut out = godwit_control::Outputs::default();
    let h = &mut lab.hosts[A];
    h.nve.handle(lab.now, 0, Input::WorkerJoined { worker: 1 }, &mut out);
    let mut joined = lab::worker::Tables::default();
    out.updates.into_iter().for_each(|(_, update)| joined.apply_checked(update));
    assert_eq!((&joined.ways, &joined.spread), (&h.tables.ways, &h.tables.spread));
    assert_eq!(joined.ways.len(), 2);
    lab.input(A, Input::PortRemoved { port: PORT });
}

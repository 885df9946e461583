//! An update describes what is to be: said once more, it changes nothing.

use std::fmt::Debug;
use std::net::IpAddr;

use crate::common::*;
use godwit_tables::Tables;
use godwit_tables::update::*;
use godwit_wire::policy::{Direction, Rule, Verdict};
use godwit_wire::{Dscp, Instant, Prefix, Rate};
use proptest::prelude::*;

fn vn() -> impl Strategy<Value = VnIdx> {
    (0u16..4).prop_map(VnIdx)
}

fn port() -> impl Strategy<Value = PortIdx> {
    (0u16..4).prop_map(PortIdx)
}

fn tunnel() -> impl Strategy<Value = TunnelIdx> {
    (0u32..4).prop_map(TunnelIdx)
}

fn vm_update() -> impl Strategy<Value = Update> {
    let key = || (vn(), 0u64..6).prop_map(|(vn, n)| Key::new(vn, mac(n)));
    let target = || tunnel().prop_map(to);
    let hold = || (0u32..3).prop_map(limits);
    let until = || (0u64..100).prop_map(|t| NOW + ms(t));
    let state = prop_oneof![
        port().prop_map(|port| VmState::Local { port }),
        (port(), hold()).prop_map(|(port, hold)| VmState::Arrived { port, hold }),
        target().prop_map(|to| VmState::Remote { to }),
        target().prop_map(|to| VmState::Ageing { to }),
        (proptest::option::of(target()), hold()).prop_map(|(via, hold)| VmState::Expected { via, hold }),
        hold().prop_map(|hold| VmState::Paused { hold }),
        (target(), until()).prop_map(|(to, until)| VmState::Departed { to, until }),
        until().prop_map(|until| VmState::Absent { until }),
        any::<bool>().prop_map(|reset| VmState::Detached { reset }),
    ];
    let ip = || (0u8..5).prop_map(v4);
    prop_oneof![
        4 => (key(), state).prop_map(|(key, state)| Update::VmSet { key, state }),
        1 => key().prop_map(|key| Update::VmRemove { key }),
        1 => (key(), hold()).prop_map(|(key, hold)| Update::VmSettle { key, hold }),
        1 => (vn(), ip(), 0u64..3).prop_map(|(vn, ip, n)| Update::NeighborSet { vn, ip, mac: mac(n), router: n == 0 }),
        1 => (vn(), ip(), until()).prop_map(|(vn, ip, until)| Update::NeighborAbsent { vn, ip, until }),
        1 => (vn(), ip()).prop_map(|(vn, ip)| Update::NeighborRemove { vn, ip }),
    ]
}

fn port_update() -> impl Strategy<Value = Update> {
    let ip = || (0u8..5).prop_map(v4);
    let prefix = || (0u8..3).prop_map(|n| Prefix::new(v4(n << 4), 28).expect("a prefix"));
    let kind = || proptest::sample::select(&[PrefixKind::Routed, PrefixKind::Shared][..]);
    let admission =
        proptest::sample::select(&[Admission::Closed, Admission::Associated, Admission::Activated][..]);
    let rule =
        proptest::sample::select(&[SourceRule::Any, SourceRule::Full, SourceRule::Listed { room: 1 }][..]);
    prop_oneof![
        4 => (port(), vn(), 0u64..4, admission).prop_map(|(port, vn, n, a)| access(port, vn, mac(n), a)),
        1 => port().prop_map(|port| Update::PortRemove { port }),
        1 => (port(), rule).prop_map(|(port, rule)| {
            Update::SourceRulesSet { port, rules: SourceRules { v4: rule, v6: rule, link_local: SourceRule::Any } }
        }),
        1 => (port(), 0u64..5).prop_map(|(port, n)| Update::MacSet { port, mac: mac(n), shared: n == 0 }),
        1 => (port(), 0u64..5).prop_map(|(port, n)| Update::MacRemove { port, mac: mac(n) }),
        1 => (port(), prefix(), kind()).prop_map(|(port, prefix, kind)| Update::PrefixSet { port, prefix, kind }),
        1 => (port(), prefix(), kind()).prop_map(|(port, prefix, kind)| Update::PrefixRemove { port, prefix, kind }),
        2 => (port(), ip()).prop_map(|(port, ip)| Update::SourceSet { port, ip }),
        1 => (port(), ip()).prop_map(|(port, ip)| Update::SourceRemove { port, ip }),
        1 => (port(), any::<bool>()).prop_map(|(port, server)| Update::ServerSet { port, server }),
        1 => (port(), 0u8..2).prop_map(|(port, at)| {
            let rule = Rule { verdict: Verdict::Deny, direction: Direction::In, ..Rule::ANY };
            Update::PolicyRule { port, at, rule }
        }),
        1 => (port(), 0u8..3).prop_map(|(port, rules)| {
            let (default, rate) = (Verdict::Allow, Rate::UNLIMITED);
            Update::PolicySet { port, rules, default, rate, dscp: Dscp::new(rules) }
        }),
        1 => port().prop_map(|port| Update::PolicyClear { port }),
    ]
}

fn group() -> impl Strategy<Value = IpAddr> {
    (0u8..3).prop_map(|n| if n == 0 { [0, 0, 0, 0].into() } else { [239, 1, 1, n].into() })
}

fn member() -> impl Strategy<Value = Member> {
    prop_oneof![port().prop_map(Member::Port), tunnel().prop_map(Member::Tunnel)]
}

fn vn_update() -> impl Strategy<Value = Update> {
    let twin = || proptest::option::of(tunnel());
    let way = |(tunnel, at): (TunnelIdx, u8)| match tunnel_set(tunnel) {
        Update::TunnelSet { uplink, mtu, header, .. } => {
            Update::TunnelWay { tunnel, at, uplink, mtu, header }
        }
        other => other,
    };
    let multicast = proptest::sample::select(&[Multicast::Flood, Multicast::Snoop, Multicast::Off][..]);
    prop_oneof![
        3 => (vn(), 1u32..6, any::<bool>()).prop_map(|(vn, n, transparent_vlan)| {
            Update::VnSet { vn, vni: vni(n), mtu: 1400, transparent_vlan }
        }),
        1 => vn().prop_map(|vn| Update::VnRemove { vn }),
        1 => (vn(), any::<bool>())
            .prop_map(|(vn, on)| Update::VnSilent { vn, flood_gap: on.then_some(ms(100)) }),
        1 => (vn(), multicast).prop_map(|(vn, multicast)| Update::VnMulticastSet { vn, multicast }),
        1 => (vn(), twin()).prop_map(|(vn, tunnel)| Update::VnUnderlayGroup { vn, tunnel }),
        3 => (vn(), group(), member())
            .prop_map(|(vn, group, member)| Update::GroupMemberSet { vn, group, member }),
        2 => (vn(), group(), member())
            .prop_map(|(vn, group, member)| Update::GroupMemberRemove { vn, group, member }),
        2 => (vn(), tunnel()).prop_map(|(vn, tunnel)| Update::ReplicaAdd { vn, tunnel }),
        1 => (vn(), tunnel()).prop_map(|(vn, tunnel)| Update::ReplicaRemove { vn, tunnel }),
        2 => (vn(), 0u8..3).prop_map(|(vn, n)| Update::SenderAdd { vn, ip: [198, 18, 0, n].into() }),
        1 => (vn(), 0u8..3).prop_map(|(vn, n)| Update::SenderRemove { vn, ip: [198, 18, 0, n].into() }),
        1 => (vn(), any::<bool>()).prop_map(|(vn, known)| Update::SendersKnown { vn, known }),
        2 => tunnel().prop_map(tunnel_set),
        1 => tunnel().prop_map(tunnel_pending),
        1 => tunnel().prop_map(|tunnel| Update::TunnelRemove { tunnel }),
        1 => (tunnel(), twin()).prop_map(|(tunnel, twin)| Update::TunnelTwin { tunnel, twin }),
        1 => (tunnel(), 0u8..2).prop_map(way),
        1 => (tunnel(), 0u8..3).prop_map(|(tunnel, way)| {
            Update::TunnelSpread { tunnel, shares: (way < 2).then_some([way; SHARES]) }
        }),
    ]
}

fn update() -> impl Strategy<Value = Update> {
    prop_oneof![vm_update(), port_update(), vn_update()]
}

fn push(all: &mut Vec<String>, what: impl Debug) {
    all.push(format!("{what:?}"));
}

/// Everything that the tables answer.
fn answers(t: &Tables, now: Instant) -> Vec<String> {
    let mut all = Vec::new();
    let ips: Vec<IpAddr> = (0..5).map(v4).collect();
    for vn in (0..4).map(VnIdx) {
        push(&mut all, t.vns.get(vn));
        push(&mut all, t.vns.replicas(vn).collect::<Vec<_>>());
        for group in [[0, 0, 0, 0], [239, 1, 1, 1], [239, 1, 1, 2]] {
            push(&mut all, t.groups.members(vn, group.into()).collect::<Vec<_>>());
        }
        let mut ports: Vec<PortIdx> = t.ports.activated(vn).collect();
        ports.sort_unstable();
        push(&mut all, ports);
        for n in 0..6 {
            let key = Key::new(vn, mac(n));
            push(&mut all, (state(t, key), t.vms.special_of(key).map(|s| (s.limits, s.stats, s.waiting()))));
        }
        ips.iter().for_each(|ip| push(&mut all, t.neighbors.get(vn, *ip, now)));
    }
    for port in (0..4).map(PortIdx) {
        push(&mut all, (t.ports.role(port), t.ports.is_server(port), t.ports.is_filtered(port)));
        push(&mut all, (t.ports.dscp(port), t.ports.has_more(port)));
        push(&mut all, (0..4).map(|vn| t.ports.serves(port, VnIdx(vn))).collect::<Vec<_>>());
        for from in 0..3 {
            push(&mut all, t.ports.may_get(port, &frame(v4(from), v4(9), 0)));
        }
        let Some(s) = t.ports.sources(port) else { continue };
        for &ip in &ips {
            let listed = (s.lists(ip), s.routes(ip), s.shares(ip), s.is_refused(ip, now), s.waits(ip, now));
            push(&mut all, listed);
        }
        (0..5).for_each(|n| push(&mut all, (s.nests(mac(n)), s.shares_mac(mac(n), now))));
        push(&mut all, (s.has_rules(), s.is_bound(), s.is_quiet()));
    }
    for tunnel in (0..4).map(TunnelIdx) {
        for hash in 0..3 {
            let way = t.tunnels.for_frame(tunnel, hash == 0, godwit_wire::FlowHash(hash));
            push(&mut all, way.map(|(n, t)| (n, t.uplink, t.remote, t.mtu, t.inner_max, t.header.is_some())));
        }
    }
    push(&mut all, (1..6).map(|n| t.vns.by_vni(vni(n))).collect::<Vec<_>>());
    push(&mut all, (t.vms.len(), t.vms.specials(), t.neighbors.len(), t.waiting()));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn r14_a_repeated_update_changes_nothing(updates in proptest::collection::vec(update(), 0..60)) {
        let (mut once, mut twice) = (tables(), tables());
        for update in updates {
            let event = once.apply(update, NOW);
            prop_assert_eq!(twice.apply(update, NOW), event, "{:?}", update);
            let after = answers(&twice, NOW);
            prop_assert_eq!(answers(&once, NOW), &after[..], "{:?}", update);
            // What cannot be done is said again; nothing else is.
            let again = twice.apply(update, NOW);
            prop_assert!(again.is_none() || again == event, "{:?}: {:?}", update, again);
            prop_assert_eq!(answers(&twice, NOW), after, "{:?}", update);
        }
        // Both go on alike.
        for after in [10, 50, 200] {
            let now = NOW + ms(after);
            prop_assert_eq!(tick(&mut once, now), tick(&mut twice, now));
            prop_assert_eq!(answers(&once, now), answers(&twice, now));
        }
    }
}

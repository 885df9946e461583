//! What holds for every sequence of inputs, sensible or not.

mod membership;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use godwit_model::message::{Change, MoveRole, NvaToNve};
use godwit_model::{
    BindRefusal, DenyReason, Learning, LearningOf, Location, MoveId, MoveMode, Multicast, NveId, OperState,
    UnderlayGroup, VmRecord, VnSettings, WhilePaused,
};
use godwit_tables::event::{AnnounceKind, Event, HandoverStats, Refused};
use godwit_tables::update::{Key, SourceRule, SourceRules, Update, VmState, VnIdx};
use godwit_wire::policy::{Rule, Verdict};
use godwit_wire::{Dscp, Mac, Prefix, Vni};
use proptest::prelude::*;

use crate::config::WorkerSet;
use crate::io::{PortSpec, UplinkSpec, UplinkV4};
use crate::mobility::{Phase, Run};

use super::*;

mod questions;
mod records;
mod routing;

use records::record;

fn vni() -> Vni {
    Vni::from_low24(77)
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n % 3])
}

fn vm(n: u8) -> VmKey {
    VmKey { vni: vni(), mac: mac(n) }
}

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n % 4).into()
}

/// Nested in one VM or in another, or shared by them.
fn inner(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 1, n % 2])
}

/// One of the VM's MACs, or one that is not.
fn some_mac(n: u8, at: u8) -> Mac {
    if at.is_multiple_of(3) { inner(at) } else { mac(n) }
}

/// Recorded of some VM, virtual, learned, routed, or nobody's.
fn some_ip(n: u8, at: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, at % 3, n % 4).into()
}

fn refused_for(n: u8) -> Refused {
    use Refused::*;
    [Mac, Address, Full, Taken, NotAnnounced][usize::from(n % 5)]
}

fn bind_refusal(n: u8) -> BindRefusal {
    use BindRefusal::*;
    [UnknownVm, NotHere, NotAllowed, Full, Taken][usize::from(n % 5)]
}

fn locator(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, n % 3 + 1)
}

fn location(n: u8) -> Location {
    let nve = NveId::new(["a", "b", "c"][usize::from(n % 3)]).unwrap();
    Location { nve, locators: Locators { v4: Some(locator(n)), v6: None } }
}

fn move_id(n: u8) -> MoveId {
    MoveId(format!("m{}", n % 2))
}

fn uplink() -> PortSpec {
    let v4 = Some(UplinkV4 { addr: locator(0), prefix_len: 24, gateway: None });
    PortSpec::Uplink(UplinkSpec {
        mac: Mac([2, 0xff, 0, 0, 0, 1]),
        v4,
        v6: None,
        v6_link_local: None,
        mtu: 1550,
        exception: None,
        vlan: None,
    })
}

/// Four small numbers make any input.
fn input(kind: u8, n: u8, at: u8, seq: u64) -> Input {
    let port = PortIdx(u16::from(n % 4) + 1);
    let nva = Input::Nva;
    let event = |event| Input::Worker { worker: usize::from(at % 2), event };
    let key = Key::new(VnIdx(u16::from(seq > 15)), mac(n));
    let workers = WorkerSet::first(2);
    match kind {
        0 => Input::NvaConnected,
        1 => Input::NvaLost,
        2 | 3 => nva(NvaToNve::Welcome { epoch: 1 + u32::from(seq > 18), keepalive_ms: 3000 }),
        4..=7 => {
            let spec = PortSpec::Access { vni: vni(), mac: mac(n), explicit_activation: at == 1 };
            Input::PortAdded { port, name: format!("p{n}"), spec, workers }
        }
        8 => Input::PortAdded { port: PortIdx(0), name: "up".into(), spec: uplink(), workers },
        9 => Input::PortRemoved { port: PortIdx(u16::from(n % 5)) },
        10 => Input::PortLink { port, up: at.is_multiple_of(2) },
        11 => Input::PausePort { port },
        12 => Input::ActivatePort { port },
        13 | 14 => {
            let ip = at.is_multiple_of(2).then(|| ip(n));
            event(Event::Announce {
                port,
                kind: AnnounceKind::GratuitousArp,
                mac: mac(n.wrapping_sub(1 + at % 2)),
                ip,
            })
        }
        15 => event(Event::MissMac { key, port }),
        16 => event(Event::MissIp { vn: VnIdx(0), ip: ip(n), port }),
        17 => event(Event::Neighbor {
            uplink: PortIdx(0),
            ip: locator(at).into(),
            mac: mac(n),
            solicited: true,
        }),
        18 => {
            let stats = HandoverStats { held: seq, forwarded: seq / 2, ..HandoverStats::default() };
            event(Event::Handover { key, stats })
        }
        19 => event(Event::StaleSender { key, sender: locator(at).into() }),
        20 => nva(NvaToNve::Snapshot { vni: vni(), vms: vec![record(n, at, seq)] }),
        21 => {
            let members = vec![location(at)];
            let settings = VnSettings {
                flood_silent: at.is_multiple_of(2),
                rarp: at.is_multiple_of(3),
                underlay_group: UnderlayGroup {
                    v4: at.is_multiple_of(3).then_some(Ipv4Addr::new(239, 0, 0, 1)),
                    v6: None,
                },
                multicast: [Multicast::Snoop, Multicast::Flood, Multicast::Snoop, Multicast::Off]
                    [usize::from(at % 4)],
                learning: LearningOf { v4: (at == 4).then_some(Learning::Learned(2)), v6: None },
                routing: routing::part(0, n, at),
                ..VnSettings::default()
            };
            nva(NvaToNve::End {
                vni: vni(),
                revision: seq,
                known: true,
                settings,
                gateway: None,
                members,
                lingering: Vec::new(),
            })
        }
        22..=25 => {
            let change = Change::Vm(record(n, at, seq));
            nva(NvaToNve::Update { vni: vni(), revision: seq, ack_id: u64::from(at), change })
        }
        26 => {
            let change = Change::Removed { key: vm(n), version: Version { epoch: 1, seq } };
            nva(NvaToNve::Update { vni: vni(), revision: seq, ack_id: 0, change })
        }
        27 => nva(NvaToNve::Response { seq, record: Some(record(n, at, seq)), lifetime_ms: 1000 }),
        28 => nva(NvaToNve::Response { seq, record: None, lifetime_ms: 0 }),
        29 | 30 => nva(NvaToNve::Grant { seq, record: record(n, 3, seq) }),
        31 => {
            let record = at.is_multiple_of(2).then(|| record(n, at, seq));
            nva(NvaToNve::Deny {
                seq,
                key: vm(n),
                reason: DenyReason::OwnedElsewhere,
                text: String::new(),
                record,
            })
        }
        32 | 33 => {
            let role = if at.is_multiple_of(2) { MoveRole::Source } else { MoveRole::Target };
            let (from, to) = if role == MoveRole::Source { (3, 4) } else { (4, 3) };
            let (from, to, record) = (location(from), location(to), record(n, at, seq));
            nva(NvaToNve::MovePrepare { id: move_id(at), role, record, from, to, mode: MoveMode::Hot })
        }
        34 => nva(NvaToNve::MoveAbort { id: move_id(at), key: vm(n), reason: String::new() }),
        35 => {
            nva(NvaToNve::Provision { key: vm(n), record: at.is_multiple_of(2).then(|| record(n, at, seq)) })
        }
        36 => Input::Applied { worker: usize::from(at % 2), token: seq },
        37 => Input::WorkerLeft { worker: 1 },
        38 => Input::WorkerJoined { worker: 1 },
        39 => nva(NvaToNve::ForwardExtend { key: vm(n), version: Version { epoch: 1, seq } }),
        40..=42 => {
            let state = OperState::from_number(i32::from(at) + 7 * i32::from(seq > 10) + 1);
            Input::VmState { port, state: state.unwrap_or(OperState::Running) }
        }
        43 => nva(policies(n, at)),
        44..=49 => by_own_word(kind, n, at, seq),
        50..=54 => routing::input(kind, n, at, seq),
        55 | 56 => Input::Punted { port, frame: questions::frame(n, at, seq) },
        57..=60 => membership::input(kind - 7, n, at, seq),
        _ => Input::Tick,
    }
}

/// What VMs use by their own word, and what the directory says to it.
fn by_own_word(kind: u8, n: u8, at: u8, seq: u64) -> Input {
    let port = PortIdx(u16::from(n % 4) + 1);
    let (key, mac, announced) = (vm(n), some_mac(n, at), seq.is_multiple_of(2));
    let ip = (!seq.is_multiple_of(5)).then(|| some_ip(n, at));
    let event = |event| Input::Worker { worker: usize::from(at % 2), event };
    match kind {
        44 | 45 => event(Event::SourceSeen { port, mac, ip, announced }),
        46 if announced => event(Event::Spoofed { port, mac, ip, why: refused_for(at) }),
        46 => event(Event::Announce { port, kind: AnnounceKind::Alive, mac, ip }),
        47 => Input::Nva(NvaToNve::Bound { seq, record: record(n, at, seq) }),
        48 => {
            let (reason, text) = (bind_refusal(at), String::from("why"));
            Input::Nva(NvaToNve::BindRefused { seq, key, mac, ip, reason, text })
        }
        _ => Input::Nva(NvaToNve::VerifyIp { key, ip: some_ip(n, at) }),
    }
}

fn policies(n: u8, at: u8) -> NvaToNve {
    let name = |n: u8| format!("policy{}", n % 2);
    let policy = Policy {
        name: name(n),
        rules: vec![Rule::ANY; at.into()],
        default: Verdict::Deny,
        rate: at.into(),
        burst: 1,
        dscp: Dscp::new(n),
    };
    let gone = at.is_multiple_of(3).then(|| name(n + 1)).into_iter().collect();
    NvaToNve::Policies { reset: at.is_multiple_of(4), policies: vec![policy], gone }
}

/// What workers begin with.
const UNSAID: SourceRules =
    SourceRules { v4: SourceRule::Any, v6: SourceRule::Any, link_local: SourceRule::Any };

/// The parts of a worker's tables that matter here.
fn apply(tables: &mut BTreeMap<String, String>, update: Update) {
    let put = match update {
        // Staged ones of before may be left.
        Update::VmSettle { .. } | Update::PolicyRule { .. } => return,
        Update::VmSet { key, .. } | Update::VmRemove { key } => format!("vm {key:?}"),
        Update::PortSet { port, .. } | Update::PortRemove { port } => format!("port {port:?}"),
        Update::SourceSet { port, ip } | Update::SourceRemove { port, ip } => format!("source {port:?} {ip}"),
        Update::SourceRulesSet { port, .. } => format!("source {port:?} rules"),
        Update::MacSet { port, mac, .. } | Update::MacRemove { port, mac } => {
            format!("source {port:?} {mac}")
        }
        Update::PrefixSet { port, prefix, kind } | Update::PrefixRemove { port, prefix, kind } => {
            format!("source {port:?} {prefix} {kind:?}")
        }
        Update::ServerSet { port, .. } => format!("server {port:?}"),
        Update::PolicySet { port, .. } | Update::PolicyClear { port } => format!("policy {port:?}"),
        Update::VnSet { vn, .. } | Update::VnRemove { vn } => format!("vn {vn:?}"),
        Update::VnSilent { vn, .. } => format!("silent {vn:?}"),
        Update::NeighborSet { vn, ip, .. }
        | Update::NeighborAbsent { vn, ip, .. }
        | Update::NeighborRemove { vn, ip } => format!("ip {vn:?} {ip}"),
        Update::TunnelSet { tunnel, .. }
        | Update::TunnelPending { tunnel, .. }
        | Update::TunnelRemove { tunnel } => format!("tunnel {tunnel:?}"),
        Update::TunnelTwin { tunnel, .. } => format!("twin {tunnel:?}"),
        Update::TunnelWay { tunnel, at, .. } => format!("way {tunnel:?} {at}"),
        Update::TunnelSpread { tunnel, .. } => format!("spread {tunnel:?}"),
        Update::SenderAdd { vn, ip } | Update::SenderRemove { vn, ip } => format!("sender {vn:?} {ip}"),
        Update::SendersKnown { vn, .. } => format!("senders {vn:?}"),
        Update::ReplicaAdd { vn, tunnel } | Update::ReplicaRemove { vn, tunnel } => {
            format!("copy {vn:?} {tunnel:?}")
        }
        Update::VnMulticastSet { vn, .. } => format!("multicast {vn:?}"),
        Update::VnUnderlayGroup { vn, .. } => format!("underlay group {vn:?}"),
        Update::GroupMemberSet { vn, group, member } | Update::GroupMemberRemove { vn, group, member } => {
            format!("member {vn:?} {group} {member:?}")
        }
        Update::DomainSet { domain, .. } | Update::DomainRemove { domain } => format!("domain {domain:?}"),
        Update::VnRoutingSet { vn, .. } => format!("routing {vn:?}"),
        Update::SubnetSet { vn, prefix, .. } | Update::SubnetRemove { vn, prefix } => {
            format!("subnet {vn:?} {prefix}")
        }
        Update::RouteSet { domain, prefix, .. } | Update::RouteRemove { domain, prefix } => {
            format!("route {domain:?} {prefix}")
        }
    };
    if let Update::TunnelRemove { tunnel } = update {
        tables.remove(&format!("twin {tunnel:?}"));
    }
    if let Update::TunnelRemove { tunnel }
    | Update::TunnelPending { tunnel, .. }
    | Update::TunnelSpread { tunnel, shares: None } = update
    {
        tables.remove(&format!("spread {tunnel:?}"));
        tables.retain(|k, _| !k.starts_with(&format!("way {tunnel:?} ")));
    }
    if let Update::TunnelSpread { tunnel, shares: Some(shares) } = update {
        // A way that no share takes is of no consequence.
        let way = format!("way {tunnel:?} ");
        tables
            .retain(|k, _| k.strip_prefix(&way).is_none_or(|at| shares.iter().any(|s| s.to_string() == at)));
    }
    if let Update::PortRemove { port } = update {
        tables.remove(&format!("server {port:?}"));
        tables.remove(&format!("policy {port:?}"));
        // With the port go its sources.
        tables.retain(|k, _| !k.starts_with(&format!("source {port:?} ")));
    }
    match update {
        Update::VmRemove { .. }
        | Update::SourceRemove { .. }
        | Update::MacRemove { .. }
        | Update::PrefixRemove { .. }
        | Update::ServerSet { server: false, .. }
        | Update::SourceRulesSet { rules: UNSAID, .. }
        | Update::PolicyClear { .. }
        | Update::PortRemove { .. }
        | Update::VnRemove { .. }
        | Update::NeighborRemove { .. }
        | Update::TunnelRemove { .. }
        | Update::TunnelTwin { twin: None, .. }
        | Update::TunnelSpread { shares: None, .. }
        | Update::ReplicaRemove { .. }
        | Update::SenderRemove { .. }
        | Update::SendersKnown { known: false, .. }
        | Update::VnSilent { flood_gap: None, .. }
        | Update::VnMulticastSet { multicast: godwit_tables::update::Multicast::Flood, .. }
        | Update::GroupMemberRemove { .. }
        | Update::VnUnderlayGroup { tunnel: None, .. }
        | Update::DomainRemove { .. }
        | Update::VnRoutingSet { routing: None, .. }
        | Update::SubnetRemove { .. }
        | Update::RouteRemove { .. }
        // Negative entries end by themselves.
        | Update::NeighborAbsent { .. }
        | Update::VmSet { state: VmState::Absent { until: Instant(..=0xffff_ffff_ffff) }, .. } => tables.remove(&put),
        _ => tables.insert(put, format!("{update:?}")),
    };
}

fn check(nve: &Nve) {
    assert_eq!(
        nve.desired.vn(vni()).is_some(),
        nve.mirror.vns().any(|v| v == vni()),
        "mirrored and not served"
    );
    for (key, vm) in &nve.vms {
        if let Some(f) = &vm.forward {
            assert!(f.version > vm.hosted, "R46b: {key} is forwarded to {} after {}", f.version, vm.hosted);
            assert!(!vm.is_hosted(), "R46c: {key} runs here and is forwarded");
        }
        let vn = nve.desired.vn(key.vni).map(|vn| Key::new(vn, key.mac));
        let state = vn.and_then(|k| nve.desired.vm(k));
        match vm.phase {
            Phase::Running(Run { port, .. }) => {
                let hold = nve.config.handover_hold;
                let wanted = match vm.while_paused() {
                    None => VmState::Local { port },
                    Some(WhilePaused::Hold) => VmState::Paused { hold },
                    Some(WhilePaused::Drop) => VmState::Blocked,
                };
                assert_eq!(state, Some(wanted));
                for mac in nve.macs_of(*key) {
                    let nested = nve.desired.vn(key.vni).and_then(|vn| nve.desired.vm(Key::new(vn, mac)));
                    assert_eq!(nested, state, "R94: {mac} is where {key} is");
                }
                assert!(nve.ports.contains_key(&port));
            }
            Phase::Paused(_) => assert!(matches!(state, Some(VmState::Paused { .. } | VmState::Blocked))),
            _ => assert!(!matches!(
                state,
                Some(VmState::Local { .. } | VmState::Paused { .. } | VmState::Blocked)
            )),
        }
    }
    assert!(nve.next_deadline().is_none_or(|t| t > nve.now), "a timer that is due stayed behind");
}

/// What the directory is asked for is of VMs that are here, or were a moment ago.
fn check_words(nve: &Nve, before: &[VmKey], out: &Outputs) {
    for message in &out.to_nva {
        if let NveToNva::Bind { key, .. } | NveToNva::Unbind { key, .. } = message {
            assert!(nve.is_hosted(*key) || before.contains(key), "{message:?} of a VM that is not here");
        }
    }
}

fn versions(nve: &Nve) -> BTreeMap<VmKey, (Version, Version)> {
    let of = |key: VmKey| {
        let record = nve.mirror.record(key).map_or(Version::ZERO, |r| r.version);
        (record, nve.vms.get(&key).map_or(Version::ZERO, |vm| vm.hosted))
    };
    (0..3).map(|n| (vm(n), of(vm(n)))).collect()
}

fn run(steps: &[(u8, u8, u8, u64, u32)]) -> Outputs {
    let mut nve = Nve::new(NveConfig::new(NveId::new("a").unwrap(), 2));
    let (mut all, mut tables) = (Outputs::default(), BTreeMap::new());
    let mut now = Instant(1_000_000_000);
    let mut seen = versions(&nve);
    for &(kind, n, at, seq, ms) in steps {
        now = now + Span::from_ms(ms.into());
        let input = input(kind, n, at, seq);
        let joined = matches!(input, Input::WorkerJoined { .. });
        let mut out = Outputs::default();
        let hosted: Vec<VmKey> = (0..3).map(vm).filter(|key| nve.is_hosted(*key)).collect();
        nve.handle(now, 1_000_000 + now.0 / 1000, input, &mut out);
        check(&nve);
        let is = versions(&nve);
        for (key, (record, hosted)) in &is {
            let (old_record, old_hosted) = seen[key];
            assert!(*record >= old_record || *record == Version::ZERO, "R20: {key} went back");
            // A VM that was forgotten meanwhile begins anew.
            assert!(*hosted >= old_hosted || *hosted == Version::ZERO);
        }
        seen = is;
        assert!(nve.session.connected || out.to_nva.is_empty());
        check_words(&nve, &hosted, &out);
        assert!(out.frames.iter().all(|(_, f)| f.len() <= 1514));
        // Worker 1 comes and goes; worker 0 hears everything.
        out.updates.iter().filter(|(w, _)| *w == 0).for_each(|(_, u)| apply(&mut tables, *u));
        routing::check(&nve, &tables);
        if joined {
            let mut fresh = BTreeMap::new();
            out.updates.iter().filter(|(w, _)| *w == 1).for_each(|(_, u)| apply(&mut fresh, *u));
            assert_eq!(fresh, tables, "R14: all workers have the same");
        }
        all.updates.extend(out.updates);
        all.to_nva.extend(out.to_nva);
        all.frames.extend(out.frames);
        all.barriers.extend(out.barriers);
        all.notes.extend(out.notes);
    }
    routing::nothing_is_left(nve, now, tables);
    all
}

fn step() -> impl Strategy<Value = (u8, u8, u8, u64, u32)> {
    let ms = prop_oneof![4 => Just(0u32), 4 => 0..300u32, 1 => 0..70_000u32];
    (0..62u8, 0..5u8, 0..6u8, 0..22u64, ms)
}

fn opening() -> Vec<(u8, u8, u8, u64, u32)> {
    vec![(8, 0, 0, 0, 0), (0, 0, 0, 0, 0), (2, 0, 0, 0, 0), (4, 1, 0, 0, 0)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_nothing_panics_and_the_rules_hold(tail in prop::collection::vec(step(), 0..120)) {
        let mut steps = opening();
        steps.extend(tail);
        let first = run(&steps);
        prop_assert_eq!(first, run(&steps), "the same inputs give the same outputs");
    }
}

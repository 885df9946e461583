//! Encapsulation and decapsulation over frames in memory: the pipeline that runs on mbufs, fed with
//! bursts of 32. Figures are for 32 frames of 60 bytes (64 with FCS).
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use godwit_pipeline::mem::{MemPacket, MemPool};
use godwit_pipeline::{Output, Pipeline};
use godwit_tables::event::Event;
use godwit_tables::update::{
    Admission, DomainIdx, Key, MAX_LENGTHS, NO_LENGTH, NextHop, PortIdx, PortRole, PrefixKind, SourceRule,
    SourceRules, Target, TunnelIdx, Update, VmState, VnIdx, VnRouting,
};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::outer::{OuterHeader, Patch};
use godwit_wire::{FlowHash, Instant, Mac, Prefix, Vni};

const BURST: usize = 32;
const NOW: Instant = Instant(1_000_000_000);
const VN: VnIdx = VnIdx(0);
const VNI: u32 = 100;
const ACCESS: PortIdx = PortIdx(1);
const UPLINK: PortIdx = PortIdx(0);
const UPLINK_MAC: Mac = Mac([2, 0, 0, 0, 1, 1]);
const NEXT_HOP: Mac = Mac([2, 0, 0, 0, 1, 2]);
const OURS4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const OURS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const THEIRS4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
const THEIRS6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const TENANT: Mac = Mac([2, 0x10, 0, 0, 0, 1]);

/// Keeps frames so that their memory is not freed inside the measurement.
struct Keep(Vec<MemPacket>);

impl Output<MemPacket> for Keep {
    #[inline]
    fn send(&mut self, _: PortIdx, packet: MemPacket) {
        self.0.push(packet);
    }

    fn event(&mut self, _: Event) -> bool {
        true
    }
}

fn mac(i: u32) -> Mac {
    Mac::from_u64(0x0220_0000_0000 | u64::from(i))
}

fn header(v6: bool) -> (IpAddr, OuterHeader) {
    if v6 {
        (THEIRS6.into(), OuterHeader::v6(UPLINK_MAC, NEXT_HOP, OURS6, THEIRS6, 4789, 64))
    } else {
        (THEIRS4.into(), OuterHeader::v4(UPLINK_MAC, NEXT_HOP, OURS4, THEIRS4, 4789, 64))
    }
}

/// A worker's tables with `vms` VMs: remote ones behind one tunnel, or local ones on one port.
fn tables(vms: u32, v6: bool, local: bool) -> Tables {
    let mut t = Tables::new(&TablesConfig::default());
    let uplink = PortRole::Uplink {
        mac: UPLINK_MAC,
        v4: Some(OURS4),
        v6: Some(OURS6),
        link_v4: None,
        link_v6: None,
        v6_link_local: None,
        exception: None,
        vlan: None,
    };
    let (remote, header) = header(v6);
    let updates = [
        Update::VnSet { vn: VN, vni: Vni::from_low24(VNI), mtu: 1450, transparent_vlan: false },
        Update::PortSet { port: UPLINK, role: uplink },
        Update::PortSet {
            port: ACCESS,
            role: PortRole::Access { vn: VN, mac: TENANT, admission: Admission::Activated },
        },
        Update::TunnelSet { tunnel: TunnelIdx(0), uplink: UPLINK, remote, mtu: 1550, header },
    ];
    for u in updates {
        assert_eq!(t.apply(u, NOW), None);
    }
    let to = Target { tunnel: TunnelIdx(0), vni: Vni::from_low24(VNI) };
    let state = if local { VmState::Local { port: ACCESS } } else { VmState::Remote { to } };
    for i in 0..vms {
        assert_eq!(t.apply(Update::VmSet { key: Key::new(VN, mac(i)), state }, NOW), None);
    }
    t
}

/// A 60-byte frame between two MACs: IPv4, UDP.
fn inner(src: Mac, dst: Mac, n: u32) -> Vec<u8> {
    inner_from((src, Ipv4Addr::new(10, 1, 0, 1)), dst, n)
}

/// The same from any address.
fn inner_from((src, a): (Mac, Ipv4Addr), dst: Mac, n: u32) -> Vec<u8> {
    use godwit_testkit::frames;
    let b = Ipv4Addr::from(0x0a80_0000 + n);
    frames::udp_frame((src, a.into(), 1024 + (n % 60_000) as u16), (dst, b.into(), 5678), &[0; 18])
}

/// The same frame in VXLAN, addressed to us.
fn outer(n: u32, v6: bool) -> Vec<u8> {
    let inner = inner(mac(n), mac(n), n);
    let header = if v6 {
        OuterHeader::v6(NEXT_HOP, UPLINK_MAC, THEIRS6, OURS6, 4789, 64)
    } else {
        OuterHeader::v4(NEXT_HOP, UPLINK_MAC, THEIRS4, OURS4, 4789, 64)
    };
    let mut frame = vec![0; header.len()];
    let vni = Vni::from_low24(VNI);
    let patch = Patch { vni, hash: FlowHash::with(50_000, 1), class: godwit_wire::Ecn::NotEct.into() };
    header.write(&mut frame, inner.len(), 64, patch);
    frame.extend(inner);
    frame
}

/// Many different bursts, in no order of destinations.
fn bursts(vms: u32, make: impl Fn(u32) -> Vec<u8>) -> Vec<Vec<MemPacket>> {
    let pick = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) as u32 % vms;
    (0..256).map(|b| (0..BURST).map(|i| MemPacket::new(&make(pick(b * BURST + i)))).collect()).collect()
}

fn run(
    c: &mut Criterion,
    name: &str,
    ingress: PortIdx,
    mut t: Tables,
    bursts: &[Vec<MemPacket>],
    id: BenchmarkId,
) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(BURST as u64));
    let (mut pipeline, mut pool) = (Pipeline::new(), MemPool::endless());
    let mut at = 0;
    group.bench_function(id, |b| {
        b.iter_batched(
            || {
                at = (at + 1) % bursts.len();
                (bursts[at].clone(), Keep(Vec::with_capacity(BURST)))
            },
            |(mut burst, mut out)| {
                pipeline.process(&mut burst, ingress, &mut t, &mut out, &mut pool, NOW);
                assert_eq!(out.0.len(), BURST, "every frame goes out");
                black_box((burst, out))
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn packet_path(c: &mut Criterion) {
    for (family, v6) in [("v4", false), ("v6", true)] {
        for vms in [1, 1_000, 1_000_000] {
            let sent = bursts(vms, |n| inner(TENANT, mac(n), n));
            run(c, "encapsulate", ACCESS, tables(vms, v6, false), &sent, BenchmarkId::new(family, vms));
        }
        for vms in [1, 1_000] {
            let came = bursts(vms, |n| outer(n, v6));
            run(c, "decapsulate", UPLINK, tables(vms, v6, true), &came, BenchmarkId::new(family, vms));
        }
    }
}

/// Where the `n`-th frame of a VM is from.
type From = fn(u32) -> (Mac, Ipv4Addr);

/// A VM that sends from more than one address or MAC (R65, R94): what its rules are, and where its frames are from.
fn senders() -> [(&'static str, Vec<Update>, From); 5] {
    let port = ACCESS;
    let bound = SourceRule::Listed { room: 0 };
    let rules = SourceRules { v4: bound, v6: bound, link_local: SourceRule::Listed { room: 8 } };
    let own = |n: u32| Ipv4Addr::from(0x0a01_0001 + n);
    let nested = |n: u32| Mac::from_u64(0x0230_0000_0000 | u64::from(n));
    let with = |more: Vec<Update>| {
        let first = [Update::SourceRulesSet { port, rules }, Update::SourceSet { port, ip: own(0).into() }];
        first.into_iter().chain(more).collect::<Vec<_>>()
    };
    let addresses = |n| (0..n).map(|n| Update::SourceSet { port, ip: own(n).into() });
    let macs = (0..3).map(|n| Update::MacSet { port, mac: nested(n), shared: false });
    let prefix = "10.1.0.0/16".parse().expect("a prefix");
    [
        ("one", with(vec![]), |_| (TENANT, Ipv4Addr::from(0x0a01_0001))),
        ("twenty", with(addresses(20).collect()), |n| (TENANT, Ipv4Addr::from(0x0a01_0001 + n % 20))),
        ("nested", with(addresses(3).chain(macs).collect()), |n| {
            (Mac::from_u64(0x0230_0000_0000 | u64::from(n % 3)), Ipv4Addr::from(0x0a01_0001 + n % 3))
        }),
        ("routed", with(vec![Update::PrefixSet { port, prefix, kind: PrefixKind::Routed }]), |n| {
            (TENANT, Ipv4Addr::from(0x0a01_1000 + n % 250))
        }),
        ("router", with(vec![Update::ServerSet { port, server: true }]), |n| {
            (TENANT, Ipv4Addr::from(0xcb00_7100 + n % 250))
        }),
    ]
}

fn second_look(c: &mut Criterion) {
    for (name, updates, from) in senders() {
        let mut t = tables(1_000, false, false);
        for u in updates {
            assert_eq!(t.apply(u, NOW), None);
        }
        let sent = bursts(1_000, |n| inner_from(from(n), mac(n), n));
        run(c, "sources", ACCESS, t, &sent, BenchmarkId::new(name, 1_000));
    }
}

const GATEWAY: Mac = Mac([2, 0xff, 0, 0, 0, 1]);
const DOMAIN: DomainIdx = DomainIdx(0);
const OTHER_VN: VnIdx = VnIdx(1);
/// Lengths of prefixes, longest first.
const LENGTHS: [u8; 4] = [28, 24, 20, 16];

/// The address of the `n`-th route's VM.
fn routed_ip(n: u32, v6: bool) -> IpAddr {
    match v6 {
        false => Ipv4Addr::from(0x0b00_0000 + n).into(),
        true => Ipv6Addr::from((0xfd00_u128 << 112) + u128::from(n)).into(),
    }
}

/// The `n`-th prefix: those of one length do not overlap, nor do those of different ones.
fn prefix(n: u32) -> Prefix {
    let len = LENGTHS[n as usize % LENGTHS.len()];
    let net = (n / LENGTHS.len() as u32) << (32 - u32::from(len));
    let base = [0x1000_0000, 0x2000_0000, 0x3000_0000, 0x4000_0000][n as usize % LENGTHS.len()];
    Prefix::of(Ipv4Addr::from(base + net).into(), len)
}

/// Tables with a VN that is bridged and routed, and VMs in another one behind one tunnel.
fn routed(vms: u32, routes: impl Iterator<Item = (Prefix, Key)>) -> Tables {
    let mut t = Tables::new(&TablesConfig { route_capacity: 1 << 20, ..TablesConfig::default() });
    let (remote, header) = header(false);
    let from = PortRole::Access { vn: VN, mac: TENANT, admission: Admission::Activated };
    let to = Target { tunnel: TunnelIdx(0), vni: Vni::from_low24(VNI + 1) };
    let mut apply = |u| assert_eq!(t.apply(u, NOW), None);
    for (vn, vni) in [(VN, VNI), (OTHER_VN, VNI + 1)] {
        apply(Update::VnSet { vn, vni: Vni::from_low24(vni), mtu: 1450, transparent_vlan: false });
    }
    apply(Update::PortSet { port: ACCESS, role: from });
    apply(Update::TunnelSet { tunnel: TunnelIdx(0), uplink: UPLINK, remote, mtu: 1550, header });
    let lengths = core::array::from_fn(|i| LENGTHS.get(i).copied().unwrap_or(NO_LENGTH));
    apply(Update::DomainSet { domain: DOMAIN, v4: lengths, v6: [NO_LENGTH; MAX_LENGTHS] });
    let routing = VnRouting { domain: DOMAIN, mac: GATEWAY, routed_only: false };
    apply(Update::VnRoutingSet { vn: VN, routing: Some(routing) });
    for i in 0..vms {
        apply(Update::VmSet { key: Key::new(OTHER_VN, mac(i)), state: VmState::Remote { to } });
    }
    for (prefix, vm) in routes {
        apply(Update::RouteSet { domain: DOMAIN, prefix, to: NextHop::Vm(vm) });
    }
    t
}

/// A 60-byte frame to the gateway, for an address beyond it.
fn to_gateway(to: IpAddr, n: u32) -> Vec<u8> {
    let from: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::new(10, 1, 0, 1).into(),
        IpAddr::V6(_) => "fd00:1::1".parse().expect("an address"),
    };
    let payload = if to.is_ipv4() { &[0; 18][..] } else { &[] };
    let (from, to) = ((TENANT, from, 1024 + (n % 60_000) as u16), (GATEWAY, to, 5678));
    godwit_testkit::frames::udp_frame(from, to, payload)
}

/// Routed frames, beside `encapsulate` of bridged ones: as many VMs, each with a host route, and prefixes of four
/// lengths.
fn route(c: &mut Criterion) {
    let vm = |n| Key::new(OTHER_VN, mac(n));
    for (family, v6) in [("v4", false), ("v6", true)] {
        for vms in [1, 1_000, 1_000_000] {
            let t = routed(vms, (0..vms).map(|n| (Prefix::host(routed_ip(n, v6)), vm(n))));
            let sent = bursts(vms, |n| to_gateway(routed_ip(n, v6), n));
            run(c, "route", ACCESS, t, &sent, BenchmarkId::new(family, vms));
        }
    }
    let t = routed(1_000, (0..10_000).map(|n| (prefix(n), vm(n % 1_000))));
    let sent = bursts(10_000, |n| to_gateway(prefix(n).last(), n));
    run(c, "route", ACCESS, t, &sent, BenchmarkId::new("prefixes", 10_000));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = packet_path, second_look, route
}
criterion_main!(benches);

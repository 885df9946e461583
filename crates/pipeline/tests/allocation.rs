//! R14: once the tables stand, neither frames nor updates nor time ask for memory.

mod common;

use common::*;
use godwit_pipeline::packet::{Packet, PacketSource};
use godwit_pipeline::{Output, Pipeline};
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd};
use godwit_wire::{Instant, Mac};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const GATEWAY: Mac = mac(0xffff);

thread_local! {
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all work is the system allocator's; counting touches a thread-local integer that is
// initialised at compile time and so does not allocate itself.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are handed on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REQUESTS.set(REQUESTS.get() + 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are handed on.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A packet whose buffer goes back to its pool.
struct Pooled {
    bytes: Vec<u8>,
    from: usize,
}

impl Packet for Pooled {
    fn data(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
    fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..]
    }
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.from = self.from.checked_sub(n)?;
        Some(self.data_mut())
    }
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        let old = self.bytes.len();
        self.bytes.resize(old + n, 0);
        Some(&mut self.bytes[old..])
    }
    fn trim_front(&mut self, n: usize) {
        self.from += n;
    }
    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.from + len);
    }
    fn set(&mut self, bytes: &[u8]) -> bool {
        self.bytes.truncate(self.from);
        self.bytes.extend_from_slice(bytes);
        true
    }
}

#[derive(Clone)]
struct Pool(Rc<RefCell<Vec<Vec<u8>>>>);

impl PacketSource<Pooled> for Pool {
    fn alloc(&mut self) -> Option<Pooled> {
        let mut bytes = self.0.borrow_mut().pop()?;
        bytes.clear();
        bytes.resize(128, 0);
        Some(Pooled { bytes, from: 128 })
    }
}

impl Output<Pooled> for Pool {
    fn send(&mut self, _: PortIdx, packet: Pooled) {
        self.discard(packet);
    }
    fn event(&mut self, _: Event) -> bool {
        true
    }
    fn discard(&mut self, packet: Pooled) {
        self.0.borrow_mut().push(packet.bytes);
    }
}

fn updates(now: Instant) -> Vec<Update> {
    let mut all = Vec::new();
    let until = now + ms(10);
    for n in 0..40 {
        let k = key(mac(0x100 + n));
        for state in [
            VmState::Remote { to: through(T4) },
            VmState::Ageing { to: through(T4) },
            VmState::Paused { hold: limits(4, 100) },
            VmState::Departed { to: through(T6), until },
            VmState::Absent { until },
            VmState::Local { port: P1 },
        ] {
            all.push(Update::VmSet { key: k, state });
        }
        if n % 3 > 0 {
            all.push(Update::VmRemove { key: k });
        }
        let ip = v4(n as u8).into();
        all.push(Update::NeighborSet { vn: VN, ip, mac: mac(0x100 + n), router: false });
        all.push(Update::NeighborRemove { vn: VN, ip });
        all.push(Update::NeighborAbsent { vn: VN, ip: v6(n as u16).into(), until });
        all.push(Update::NeighborRemove { vn: VN, ip: v6(n as u16).into() });
    }
    all.extend(sources());
    all.extend(routes());
    all.push(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    all.push(Update::TunnelPending { tunnel: TunnelIdx(9), remote: NVE_C.into() });
    all.push(Update::TunnelRemove { tunnel: TunnelIdx(9) });
    all.push(Update::VnRemove { vn: OTHER_VN });
    all.push(Update::VnSet { vn: OTHER_VN, vni: other_vni(), mtu: 1500, transparent_vlan: false });
    all
}

/// A VN that is routed, and routes that come, lead elsewhere and go.
fn routes() -> Vec<Update> {
    let (domain, v6) = (DomainIdx(1), [64, 48, 0, NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH, NO_LENGTH]);
    let routing = Some(VnRouting::new(domain, GATEWAY, false));
    let mut all = vec![
        Update::DomainSet { domain, v4: [NO_LENGTH; MAX_LENGTHS], v6 },
        Update::VnRoutingSet { vn: VN, routing },
        Update::SubnetSet {
            vn: VN,
            prefix: godwit_wire::Prefix::of(v4(0).into(), 24),
            gateway: v4(254).into(),
        },
    ];
    for n in 0..40_u16 {
        let ips = [v4(n as u8).into(), std::net::IpAddr::from(common::v6(n))];
        for (ip, len) in ips.into_iter().flat_map(|ip| [(ip, 128), (ip, 64)]) {
            let prefix = godwit_wire::Prefix::of(ip, len);
            let vm = key(if n % 2 == 0 { R4 } else { mac(0x100 + u64::from(n) % 40) });
            all.push(Update::RouteSet { domain, prefix, to: NextHop::Vm(vm) });
            if n % 3 == 0 {
                all.push(Update::RouteSet { domain, prefix, to: NextHop::Subnet { vn: VN, ask: false } });
            }
            if n % 5 == 0 {
                all.push(Update::RouteRemove { domain, prefix });
            }
        }
    }
    for state in [VmState::Local { port: P2 }, VmState::Remote { to: through(T4) }] {
        all.push(Update::VmSet { key: key(R4), state });
    }
    all
}

/// What a VM may send from, as much as a port takes and a little more, and nothing again.
fn sources() -> Vec<Update> {
    let (port, room) = (P2, SourceRule::Listed { room: 64 });
    let mut all =
        vec![Update::SourceRulesSet { port, rules: SourceRules { v4: room, v6: room, link_local: room } }];
    for n in 0..330_u16 {
        all.push(Update::SourceSet { port, ip: v6(n).into() });
        all.push(Update::SourceSet { port, ip: v4(n as u8).into() });
    }
    for n in 0..70 {
        let prefix = godwit_wire::Prefix::host(v4(n as u8).into());
        all.push(Update::MacSet { port, mac: mac(0x1000 + n), shared: n & 1 == 0 });
        all.push(Update::PrefixSet { port, prefix, kind: PrefixKind::Routed });
        all.push(Update::PrefixSet { port, prefix, kind: PrefixKind::Shared });
        all.push(Update::SourceRemove { port, ip: v6(n as u16).into() });
    }
    all.push(Update::PortRemove { port });
    all.push(Update::PortSet {
        port,
        role: PortRole::Access { vn: VN, mac: M2, admission: Admission::Activated },
    });
    // That of the VM whose frames come in: of all new addresses control refuses some and sets some.
    let rules = SourceRules { v4: room, v6: room, link_local: room };
    all.push(Update::SourceRulesSet { port: P1, rules });
    all.push(Update::SourceRemove { port: P1, ip: v4(1).into() });
    all.push(Update::SourceSet { port: P1, ip: v4(2).into() });
    all
}

#[test]
fn r14_nothing_asks_for_memory() {
    let lab = Lab::new();
    let (mut tables, mut now) = (lab.tables, lab.now);
    let pool = Pool(Rc::new(RefCell::new((0..200).map(|_| Vec::with_capacity(4096)).collect())));
    let (mut out, mut src) = (pool.clone(), pool.clone());
    let mut pipe = Pipeline::new();
    let mut burst: Vec<Pooled> = Vec::with_capacity(64);
    let from_vms: Vec<Vec<u8>> = vec![
        numbered(M1, M2, 1),
        numbered(M1, R4, 1),
        numbered(M1, R6, 1),
        numbered(M1, STRANGER, 1),
        frames::udp_frame((M1, v4(1).into(), 1), (GATEWAY, v4(2).into(), 2), b"routed"),
        frames::udp_frame((M1, v6(1).into(), 1), (GATEWAY, v6(4).into(), 2), b"routed"),
        numbered(M1, mac(0x101), 1),
        frames::garp(M1, v4(1)),
        frames::arp_request(M1, v4(1), v4(4)),
        frames::arp_request(M1, v4(1), v4(200)),
        Nd::solicit(M1, v6(1), v6(4)).frame(),
        frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"all"),
        frames::tagged(&numbered(M1, R4, 1), 0x8100, 1),
    ];
    let inner = [numbered(R4, M1, 1), numbered(R4, mac(0x102), 1), frames::garp(R4, v4(4))];
    let mut from_nves: Vec<Vec<u8>> = inner.iter().map(|f| vxlan().frame(f)).collect();
    from_nves.push(frames::arp_request(HOP_MAC, NVE_B, LOC4));
    let mut input = |tables: &mut _, port, frames: &[Vec<u8>], now| {
        for f in frames {
            let mut p = src.alloc().expect("buffers come back");
            p.set(f);
            burst.push(p);
        }
        pipe.process(&mut burst, port, tables, &mut out, &mut src, now);
        pipe.tick(tables, &mut out, &mut src, now);
    };
    let updates = updates(now);
    let before = REQUESTS.get();
    for _ in 0..50 {
        for &u in &updates {
            let _ = tables.apply(u, now);
            input(&mut tables, P1, &from_vms[..6], now);
        }
        input(&mut tables, P1, &from_vms, now);
        input(&mut tables, UPLINK, &from_nves, now);
        now = now + ms(20);
    }
    assert_eq!(REQUESTS.get() - before, 0, "requests for memory");
}

//! A small NVE in memory: one uplink, two VNs, a few VMs and tunnels, a clock that a test moves.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod moves;
pub mod resolution;
pub mod routing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_pipeline::Pipeline;
use godwit_pipeline::mem::{MemOutput, MemPacket, MemPool};
use godwit_pipeline::packet::Packet;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_tables::{DropReason, Tables, TablesConfig};
use godwit_testkit::frames::{self, Vxlan};
use godwit_wire::outer::{Outer, OuterHeader, parse_outer};
use godwit_wire::{HashKey, Instant, Mac, Rate, Span, VlanId, Vni, flow};

pub const UPLINK: PortIdx = PortIdx(0);
pub const P1: PortIdx = PortIdx(1);
pub const P2: PortIdx = PortIdx(2);
/// A port of the other VN, with the same MAC as `P1`.
pub const P3: PortIdx = PortIdx(3);
pub const EXCEPTION: PortIdx = PortIdx(9);
pub const VN: VnIdx = VnIdx(1);
pub const OTHER_VN: VnIdx = VnIdx(2);
pub const T4: TunnelIdx = TunnelIdx(0);
pub const T6: TunnelIdx = TunnelIdx(1);
/// Its next hop does not answer.
pub const PENDING: TunnelIdx = TunnelIdx(2);

pub const UP_MAC: Mac = mac(0xaa00);
pub const HOP_MAC: Mac = mac(0xbb00);
pub const M1: Mac = mac(1);
pub const M2: Mac = mac(2);
/// A VM behind `T4`.
pub const R4: Mac = mac(4);
/// A VM behind `T6`.
pub const R6: Mac = mac(6);
/// A VM that nobody knows.
pub const STRANGER: Mac = mac(0x99);

pub const LOC4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const LOC6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const LL6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub const NVE_B: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
pub const NVE_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub const NVE_C: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);

pub const MTU: u16 = 1600;

pub const fn mac(n: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 | n)
}

pub fn vni() -> Vni {
    Vni::from_low24(1)
}

pub fn other_vni() -> Vni {
    Vni::from_low24(16_777_215)
}

/// Another NVE with VMs of the VN.
pub fn through(tunnel: TunnelIdx) -> Target {
    Target { tunnel, vni: vni() }
}

pub fn key(mac: Mac) -> Key {
    Key::new(VN, mac)
}

pub fn v4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

pub fn v6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n)
}

pub fn ms(n: u64) -> Span {
    Span::from_ms(n)
}

pub fn outer_header(remote: IpAddr) -> OuterHeader {
    match remote {
        IpAddr::V4(r) => OuterHeader::v4(UP_MAC, HOP_MAC, LOC4, r, 4789, 64),
        IpAddr::V6(r) => OuterHeader::v6(UP_MAC, HOP_MAC, LOC6, r, 4789, 64),
    }
}

pub fn limits(packets: u32, age_ms: u64) -> HoldLimits {
    HoldLimits { packets, age: ms(age_ms) }
}

/// A UDP frame whose payload tells its number.
pub fn numbered(src: Mac, dst: Mac, n: u32) -> Vec<u8> {
    frames::udp_frame((src, v4(1).into(), 1000), (dst, v4(2).into(), 2000), &n.to_be_bytes())
}

/// The number in the last four bytes of a frame made by [`numbered`], whatever is before it.
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[frame.len() - 4..].try_into().unwrap())
}

pub fn numbers(frames: &[&[u8]]) -> Vec<u32> {
    frames.iter().map(|f| number(f)).collect()
}

/// The packet that encapsulation must give, built by the test kit alone.
pub fn golden(inner: &[u8], remote: IpAddr, tos: u8) -> Vec<u8> {
    let own = if remote.is_ipv4() { LOC4.into() } else { LOC6.into() };
    let hash = flow::flow_hash(inner, &HashKey::new(0, 0));
    let mut x = Vxlan::new((UP_MAC, HOP_MAC), (own, remote), vni());
    x.ports = (hash.src_port(), 4789);
    x.label = hash.flow_label();
    x.tos = tos;
    x.frame(inner)
}

/// What another NVE sends to us.
pub fn vxlan_from(sender: IpAddr, vni: Vni) -> Vxlan {
    let own = if sender.is_ipv4() { IpAddr::V4(LOC4) } else { IpAddr::V6(LOC6) };
    Vxlan::new((HOP_MAC, UP_MAC), (sender, own), vni)
}

pub fn vxlan() -> Vxlan {
    vxlan_from(NVE_C.into(), vni())
}

pub fn config() -> TablesConfig {
    TablesConfig {
        // More than there are: what they count is summed up after each step.
        port_capacity: 64,
        location_capacity: 1000,
        vn_capacity: 16,
        tunnel_capacity: 16,
        neighbor_capacity: 100,
        special_capacity: 64,
        miss_capacity: 32,
        misses_per_port: 16,
        // Tests of these say so.
        question_rate: Rate::UNLIMITED,
        resolution_rate: Rate::UNLIMITED,
        ask_capacity: 16,
        asks_per_port: 8,
        hold_bytes: 1 << 20,
        replica_limit: 4,
        ..TablesConfig::default()
    }
}

pub struct Lab {
    pub tables: Tables,
    pub pipe: Pipeline,
    pub pool: MemPool,
    pub out: MemOutput<MemPacket>,
    pub now: Instant,
    sent: u64,
    entered: usize,
    left: usize,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(&config())
    }

    pub fn bare(config: &TablesConfig) -> Lab {
        Lab {
            tables: Tables::new(config),
            pipe: Pipeline::new(),
            pool: MemPool::endless(),
            out: MemOutput::new(),
            now: Instant(1_000_000_000),
            sent: 0,
            entered: 0,
            left: 0,
        }
    }

    pub fn with(config: &TablesConfig) -> Lab {
        let mut lab = Lab::bare(config);
        lab.set_uplink(None);
        lab.vn(VN, vni(), false);
        lab.vn(OTHER_VN, other_vni(), false);
        lab.access(P1, VN, M1, Admission::Activated);
        lab.access(P2, VN, M2, Admission::Activated);
        lab.access(P3, OTHER_VN, M1, Admission::Activated);
        lab.tunnel(T4, NVE_B.into());
        lab.tunnel(T6, NVE_B6.into());
        lab.apply(Update::TunnelPending { tunnel: PENDING, remote: NVE_C.into() });
        lab.vm(M1, VmState::Local { port: P1 });
        lab.vm(M2, VmState::Local { port: P2 });
        lab.apply(Update::VmSet { key: Key::new(OTHER_VN, M1), state: VmState::Local { port: P3 } });
        lab.vm(R4, VmState::Remote { to: through(T4) });
        lab.vm(R6, VmState::Remote { to: through(T6) });
        lab
    }

    pub fn set_uplink(&mut self, exception: Option<PortIdx>) {
        self.set_uplink_in(exception, None);
    }

    pub fn set_uplink_in(&mut self, exception: Option<PortIdx>, vlan: Option<VlanId>) {
        let role = PortRole::Uplink {
            mac: UP_MAC,
            v4: Some(LOC4),
            v6: Some(LOC6),
            link_v4: None,
            link_v6: None,
            v6_link_local: Some(LL6),
            exception,
            vlan,
        };
        self.apply(Update::PortSet { port: UPLINK, role });
        if let Some(port) = exception {
            self.apply(Update::PortSet { port, role: PortRole::Exception { uplink: UPLINK } });
        }
    }

    pub fn vn(&mut self, vn: VnIdx, vni: Vni, transparent_vlan: bool) {
        self.apply(Update::VnSet { vn, vni, mtu: 1500, transparent_vlan });
    }

    pub fn access(&mut self, port: PortIdx, vn: VnIdx, mac: Mac, admission: Admission) {
        self.apply(Update::PortSet { port, role: PortRole::Access { vn, mac, admission } });
    }

    pub fn tunnel(&mut self, tunnel: TunnelIdx, remote: IpAddr) {
        self.tunnel_of_mtu(tunnel, remote, MTU);
    }

    /// An uplink in a VLAN, with its tunnels.
    pub fn in_vlan(id: u16, exception: Option<PortIdx>) -> Lab {
        let mut lab = Lab::new();
        let vlan = VlanId::new(id).expect("a VLAN");
        lab.set_uplink_in(exception, Some(vlan));
        for (tunnel, remote) in [(T4, NVE_B.into()), (T6, NVE_B6.into())] {
            let header = outer_header(remote).in_vlan(vlan);
            lab.apply(Update::TunnelSet { tunnel, uplink: UPLINK, remote, mtu: MTU, header });
        }
        lab
    }

    pub fn tunnel_of_mtu(&mut self, tunnel: TunnelIdx, remote: IpAddr, mtu: u16) {
        let header = outer_header(remote);
        self.apply(Update::TunnelSet { tunnel, uplink: UPLINK, remote, mtu, header });
    }

    pub fn apply(&mut self, update: Update) {
        if let Some(e) = self.tables.apply(update, self.now) {
            self.out.events.push(e);
        }
        self.balance();
    }

    pub fn vm(&mut self, mac: Mac, state: VmState) {
        self.apply(Update::VmSet { key: key(mac), state });
    }

    pub fn neighbor(&mut self, ip: impl Into<IpAddr>, mac: Mac) {
        self.apply(Update::NeighborSet { vn: VN, ip: ip.into(), mac, router: false });
    }

    pub fn wait(&mut self, span: Span) {
        self.now = self.now + span;
    }

    /// Processes frames as one burst.
    pub fn input(&mut self, port: PortIdx, frames: &[Vec<u8>]) {
        let burst = frames.iter().map(|f| MemPacket::new(f)).collect();
        self.input_packets(port, burst);
    }

    pub fn input_packets(&mut self, port: PortIdx, mut burst: Vec<MemPacket>) {
        self.entered += burst.len();
        self.pipe.process(&mut burst, port, &mut self.tables, &mut self.out, &mut self.pool, self.now);
        assert!(burst.is_empty());
        self.balance();
    }

    pub fn one(&mut self, port: PortIdx, frame: &[u8]) {
        self.input(port, &[frame.to_vec()]);
    }

    pub fn tick(&mut self) {
        self.pipe.tick(&mut self.tables, &mut self.out, &mut self.pool, self.now);
        self.balance();
    }

    /// Ticks until nothing more comes of it.
    pub fn settle(&mut self) {
        loop {
            let before = self.out.sent.len() + self.out.discarded;
            self.tick();
            if self.out.sent.len() + self.out.discarded == before {
                return;
            }
        }
    }

    /// Every frame and every buffer is accounted for, at every moment.
    pub fn balance(&self) {
        let t = self.tables.counters.total();
        let w = &self.tables.counters.worker;
        assert_eq!(
            t.rx_packets + w.copies,
            t.tx_packets + w.consumed + t.dropped() + self.tables.waiting(),
            "rx + copies = tx + consumed + drops + waiting"
        );
        assert_eq!(t.tx_packets, self.sent + self.out.sent.len() as u64);
        let buffers = self.entered + self.pool.taken();
        assert_eq!(buffers, self.left + self.out.sent.len() + self.out.discarded, "no buffer is lost");
    }

    pub fn drops(&self, reason: DropReason) -> u64 {
        self.tables.counters.dropped(reason)
    }

    pub fn to(&self, port: PortIdx) -> Vec<&[u8]> {
        self.out.to(port)
    }

    /// A pool that gave `taken` buffers was exchanged for another one.
    pub fn forget_buffers(&mut self, taken: usize) {
        self.entered += taken;
    }

    /// So many frames were sent by another output.
    pub fn forget_sent(&mut self, frames: u64) {
        self.sent += frames;
    }

    /// Forgets what was sent and said.
    pub fn clear(&mut self) {
        self.sent += self.out.sent.len() as u64;
        self.left += self.out.sent.len() + self.out.discarded;
        self.out.clear();
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.out.events)
    }

    /// The only frame sent, and its port.
    pub fn only(&self) -> (PortIdx, &[u8]) {
        assert_eq!(self.out.sent.len(), 1, "one frame is sent");
        (self.out.sent[0].0, self.out.sent[0].1.data())
    }
}

/// One frame leads to one drop for a reason, and nothing is sent.
#[track_caller]
pub fn dropped(lab: &mut Lab, port: PortIdx, frame: &[u8], reason: DropReason) {
    let (before, sent) = (lab.drops(reason), lab.out.sent.len());
    lab.one(port, frame);
    assert_eq!(lab.drops(reason), before + 1, "dropped as {}", reason.name());
    assert_eq!(lab.out.sent.len(), sent, "nothing is sent");
}

/// Outer header and inner frame of an encapsulated one.
pub fn open(frame: &[u8]) -> (Outer, &[u8]) {
    let outer = parse_outer(frame, 4789).expect("a valid VXLAN packet");
    (outer, &frame[outer.inner_offset..outer.inner_end])
}

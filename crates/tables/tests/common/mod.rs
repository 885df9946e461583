//! Small tables, and what goes into them.

use std::net::{IpAddr, Ipv4Addr};

use godwit_tables::event::Event;
use godwit_tables::holds::{About, Origin};
use godwit_tables::update::*;
use godwit_tables::vms::{Fib, State};
use godwit_tables::{Dispatch, DropReason, Tables, TablesConfig};
use godwit_wire::outer::OuterHeader;
use godwit_wire::{Instant, Mac, Rate, Span, Vni};

pub const NOW: Instant = Instant(1_000_000_000);
pub const VN: VnIdx = VnIdx(1);
pub const OTHER_VN: VnIdx = VnIdx(2);
pub const UPLINK: PortIdx = PortIdx(0);
pub const P1: PortIdx = PortIdx(1);
pub const P2: PortIdx = PortIdx(2);
pub const READY: TunnelIdx = TunnelIdx(0);
pub const PENDING: TunnelIdx = TunnelIdx(1);
pub const MISSING: TunnelIdx = TunnelIdx(2);
/// Largest outer packet by [`READY`].
pub const MTU: u16 = 1550;

pub fn config() -> TablesConfig {
    TablesConfig {
        port_capacity: 8,
        location_capacity: 200,
        vn_capacity: 4,
        tunnel_capacity: 4,
        neighbor_capacity: 8,
        special_capacity: 32,
        miss_capacity: 8,
        misses_per_port: 4,
        question_rate: Rate::UNLIMITED,
        ask_capacity: 8,
        hold_bytes: 1 << 18,
        miss_hold_packets: 4,
        replica_limit: 3,
        ..TablesConfig::default()
    }
}

pub const fn mac(n: u64) -> Mac {
    Mac::from_u64(0x0200_0000_0000 | n)
}

pub fn key(n: u64) -> Key {
    Key::new(VN, mac(n))
}

pub fn vni(n: u32) -> Vni {
    Vni::from_low24(n)
}

pub fn to(tunnel: TunnelIdx) -> Target {
    Target { tunnel, vni: vni(7) }
}

pub fn ms(n: u64) -> Span {
    Span::from_ms(n)
}

pub fn limits(packets: u32) -> HoldLimits {
    HoldLimits { packets, age: ms(100) }
}

pub fn v4(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

pub fn vn_set(vn: VnIdx, n: u32) -> Update {
    Update::VnSet { vn, vni: vni(n), mtu: 1450, transparent_vlan: false }
}

pub fn access(port: PortIdx, vn: VnIdx, mac: Mac, admission: Admission) -> Update {
    Update::PortSet { port, role: PortRole::Access { vn, mac, admission } }
}

pub fn tunnel_set(tunnel: TunnelIdx) -> Update {
    let remote = Ipv4Addr::new(198, 18, 1, tunnel.0 as u8);
    let header = OuterHeader::v4(mac(0xaa), mac(0xbb), Ipv4Addr::new(198, 18, 0, 1), remote, 4789, 64);
    Update::TunnelSet { tunnel, uplink: UPLINK, remote: remote.into(), mtu: MTU, header }
}

pub fn tunnel_pending(tunnel: TunnelIdx) -> Update {
    Update::TunnelPending { tunnel, remote: IpAddr::from([198, 18, 1, tunnel.0 as u8]) }
}

/// A VN with VM 1 at [`P1`] and VM 2 at [`P2`], another VN, a tunnel that is ready and one that is not.
pub fn tables_of(config: &TablesConfig) -> Tables {
    let mut t = Tables::new(config);
    for update in [
        vn_set(VN, 1),
        vn_set(OTHER_VN, 2),
        access(P1, VN, mac(1), Admission::Activated),
        access(P2, VN, mac(2), Admission::Activated),
        Update::VmSet { key: key(1), state: VmState::Local { port: P1 } },
        Update::VmSet { key: key(2), state: VmState::Local { port: P2 } },
        tunnel_set(READY),
        tunnel_pending(PENDING),
    ] {
        assert_eq!(t.apply(update, NOW), None);
    }
    t
}

pub fn tables() -> Tables {
    tables_of(&config())
}

/// An IPv4 packet with UDP from one address to another, with a payload of `len` bytes.
pub fn frame(src: IpAddr, dst: IpAddr, len: usize) -> Vec<u8> {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else { panic!("IPv4 alone") };
    let mut f = [mac(2).0, mac(1).0].concat();
    f.extend([0x08, 0x00, 0x45, 0]);
    f.extend((28 + len as u16).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    f.extend(src.octets());
    f.extend(dst.octets());
    f.extend([0x10, 0, 0x20, 0]);
    f.extend((8 + len as u16).to_be_bytes());
    f.extend([0, 0]);
    f.resize(f.len() + len, 7);
    f
}

pub fn about(origin: Origin, now: Instant) -> About {
    match origin {
        Origin::Local => About::local(now, P1, None),
        Origin::Overlay => About::overlay(now, UPLINK, v4(9), 64, None),
    }
}

/// What control said of a VM, as the table has it: plain words and special entries alike.
pub fn state(t: &Tables, key: Key) -> Option<State> {
    Some(match t.vms.get(key)? {
        Fib::Local(port) => State::Known(VmState::Local { port }),
        Fib::Remote(to) => State::Known(VmState::Remote { to }),
        Fib::Ageing(to) => State::Known(VmState::Ageing { to }),
        Fib::Detached(reset) => State::Known(VmState::Detached { reset }),
        Fib::Special(at) => t.vms.special(at).state,
    })
}

/// Does what time asks for, as packet processing does, and answers with the frames that went and the events.
pub fn tick(t: &mut Tables, now: Instant) -> (Vec<(Vec<u8>, Dispatch)>, Vec<Event>) {
    let (mut gone, mut events) = (Vec::new(), Vec::new());
    if t.specials_due(now) {
        t.begin_scan();
        let mut place = 0;
        while let Some(at) = t.special_at(place) {
            let done = t.service(at, now);
            place += usize::from(!done.gone);
            events.extend(done.event);
        }
    }
    for _ in 0..t.ready() {
        let Some(at) = t.pop_ready() else { continue };
        while let Some((origin, dispatch)) = t.next_held(at) {
            if let Dispatch::Drop(reason) = dispatch {
                t.drop_held(at, origin, reason);
                continue;
            }
            let mut bytes = Vec::new();
            assert!(t.take_held(at, origin, &mut bytes).is_some(), "a frame that may go");
            t.flushed(at, now);
            gone.push((bytes, dispatch));
        }
        events.extend(t.drained(at, now).event);
    }
    (gone, events)
}

/// Frames dropped for a reason.
pub fn drops(t: &Tables, reason: DropReason) -> u64 {
    t.counters.dropped(reason)
}

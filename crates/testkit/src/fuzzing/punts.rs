//! VMs' frames for the gateway, in a control that has one.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_control::{Input, Nve, NveConfig, Outputs, PortSpec, WorkerSet};
use godwit_model::message::NvaToNve;
use godwit_model::{
    Advertise, Dhcp, Domain, DomainId, GATEWAY_MAC, Location, Locators, NveId, Subnet, Version, VmKey,
    VmRecord, VnRouting, VnSettings,
};
use godwit_tables::update::PortIdx;
use godwit_wire::{Frame, Instant, Ipv4, Ipv6, Mac, Span, Udp, Vni, proto};

use crate::clients;

const PORT: PortIdx = PortIdx(1);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What hosts ask.
pub fn seeds() -> Vec<Vec<u8>> {
    clients::seeds(MAC, GATEWAY_MAC, (V4, V6))
}

/// A VM's frame, as a worker shows it to control. Whatever it is: nothing panics, and what the gateway sends is a
/// sound packet of the gateway's to the port that asked.
pub fn punted(frame: &[u8]) {
    thread_local!(static NVE: RefCell<(Nve, Instant)> = RefCell::new(gateway()));
    NVE.with_borrow_mut(|(nve, now)| {
        // Far enough for all that limits a rate.
        *now = *now + Span::from_ms(4_000);
        let mut out = Outputs::default();
        nve.handle(*now, 0, Input::Punted { port: PORT, frame: frame.to_vec() }, &mut out);
        for (port, frame) in out.frames.iter().filter(|(_, f)| f.get(6..12) == Some(&GATEWAY_MAC.0)) {
            assert_eq!(*port, PORT);
            sound(frame);
        }
    });
}

fn sound(frame: &[u8]) {
    assert!(frame.len() <= 1514, "{} bytes", frame.len());
    let read = Frame::read(frame).expect("a header");
    assert_eq!(read.src(), GATEWAY_MAC);
    let (upper, message) = read.upper().expect("an IP packet");
    match (read.ipv4(), read.ipv6()) {
        (Some(ip), _) => datagram_v4(&ip, message),
        (_, Some(ip)) if upper.proto == proto::UDP => datagram_v6(&ip, message),
        (_, Some(_)) => assert_eq!(read.ndp(), Ok(godwit_wire::Ndp::RouterAdvert)),
        _ => panic!("neither family"),
    }
}

fn datagram_v4(ip: &Ipv4<&[u8]>, message: &[u8]) {
    let udp = Udp::new_checked(message).expect("UDP");
    assert!(ip.verify_checksum() && udp.verify_v4(ip.src(), ip.dst()));
    assert_eq!((udp.src_port(), udp.dst_port()), (67, 68));
}

fn datagram_v6(ip: &Ipv6<&[u8]>, message: &[u8]) {
    let udp = Udp::new_checked(message).expect("UDP");
    assert!(udp.verify_v6(ip.src(), ip.dst()));
    assert_eq!((udp.src_port(), udp.dst_port()), (547, 546));
}

/// An NVE with one VM, whose VN has a subnet of each family with all services.
fn gateway() -> (Nve, Instant) {
    let (vni, id, us) = (Vni::from_low24(7), NveId::new("a").expect("a name"), DomainId(1));
    let mut nve = Nve::new(NveConfig::new(id.clone(), 1));
    let mut now = Instant(1_000_000_000);
    let v4: Ipv4Addr = [198, 51, 100, 1].into();
    let key = VmKey { vni, mac: MAC };
    let workers = WorkerSet::first(1);
    let uplink = godwit_control::UplinkSpec {
        mac: Mac([2, 0xff, 0, 0, 0, 1]),
        v4: Some(godwit_control::UplinkV4 { addr: v4, prefix_len: 24, gateway: None }),
        v6: None,
        v6_link_local: None,
        mtu: 1550,
        exception: None,
        vlan: None,
    };
    let access = PortSpec::Access { vni, mac: MAC, explicit_activation: false };
    let record = VmRecord {
        name: "vm".into(),
        key,
        ipv4: vec![V4],
        ipv6: vec![V6],
        bindings: Some(Location { nve: id, locators: Locators { v4: Some(v4), v6: None } }).into(),
        version: Version { epoch: 1, seq: 1 },
        router: false,
        router_pinned: false,
        no_override: Vec::new(),
        pinned: false,
        moving: None,
        policy: None,
        frozen: false,
        allowed: Default::default(),
        bound: Default::default(),
        standby: None,
        pause: None,
        former: None,
    };
    let domain = Domain { id: us, name: "d".into(), gateway_mac: GATEWAY_MAC, vns: vec![vni] };
    let routing = VnRouting { domain: us, routed_only: false, subnets: subnets() };
    let settings = VnSettings { routing: Some(routing), ..VnSettings::default() };
    let (members, lingering) = (Vec::new(), Vec::new());
    let end = NvaToNve::End { vni, revision: 1, known: true, settings, gateway: None, members, lingering };
    for input in [
        Input::PortAdded { port: PortIdx(0), name: "up".into(), spec: PortSpec::Uplink(uplink), workers },
        Input::NvaConnected,
        Input::Nva(NvaToNve::Welcome { epoch: 1, keepalive_ms: 3000 }),
        Input::PortAdded { port: PORT, name: "vm".into(), spec: access, workers },
        Input::Nva(NvaToNve::Domain { domain, reset: true }),
        Input::Nva(NvaToNve::Snapshot { vni, vms: vec![record] }),
        Input::Nva(end),
    ] {
        now = now + Span::from_ms(1);
        nve.handle(now, 0, input, &mut Outputs::default());
    }
    nve.handle(now, 0, Input::NvaLost, &mut Outputs::default());
    (nve, now)
}

fn subnets() -> Vec<Subnet> {
    let subnet = |gateway: IpAddr, len, dns: IpAddr| Subnet {
        prefix: godwit_wire::Prefix::of(gateway, len),
        gateway,
        advertise: gateway.is_ipv6().then_some(Advertise { managed: true, other: true, lifetime_s: 1800 }),
        dhcp: Some(Dhcp { lease_s: 3600, dns: vec![dns] }),
    };
    let v6 = |n| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n));
    vec![subnet([203, 0, 113, 254].into(), 24, [203, 0, 113, 53].into()), subnet(v6(0xfe), 64, v6(0x53))]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers, and most of what clients say.
    const FIRST: usize = 400;

    #[test]
    fn r58_whatever_a_vm_sends_to_the_gateway_its_answers_are_sound() {
        seeds().iter().for_each(|seed| punted(seed));
        crate::fuzzing::walk(&seeds(), FIRST, 0x6a09_e667, 100_000, punted);
    }
}

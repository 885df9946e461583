//! Who may send from which addresses (R65).

mod common;

use common::*;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Nd};
use godwit_wire::Mac;
use std::net::IpAddr;

/// P1's VM has 10.0.0.1, 10.0.0.3 and fd00::1.
fn bound() -> Lab {
    let mut lab = Lab::new();
    for ip in [IpAddr::V4(v4(1)), v4(3).into(), v6(1).into()] {
        lab.apply(Update::SourceSet { port: P1, ip });
    }
    lab
}

fn udp_from(mac: Mac, ip: IpAddr) -> Vec<u8> {
    let to = if ip.is_ipv4() { v4(2).into() } else { v6(2).into() };
    frames::udp_frame((mac, ip, 1000), (R4, to, 2000), b"hello")
}

#[test]
fn r65_own_addresses_pass() {
    let mut lab = bound();
    for ip in [
        IpAddr::V4(v4(1)),
        v4(3).into(),
        v6(1).into(),
        "0.0.0.0".parse().unwrap(),
        "fe80::7".parse().unwrap(),
    ] {
        lab.one(P1, &udp_from(M1, ip));
    }
    lab.one(P1, &frames::ethernet(R4, M1, 0x1234, b"no IP at all"));
    assert_eq!(lab.to(UPLINK).len(), 6);
    assert_eq!(lab.take_events(), []);
}

#[test]
fn r65_five_ways_to_spoof_lead_nowhere() {
    let mut lab = bound();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let to_all = Nd::announce(M1, v6(9));
    let arp = |a: Arp| frames::ethernet(Mac::BROADCAST, M1, 0x0806, &a.packet());
    let spoofs = [
        udp_from(M2, v4(1).into()),
        udp_from(M1, v4(2).into()),
        udp_from(M1, v6(2).into()),
        arp(Arp { sha: M2, spa: v4(1), tpa: v4(2), ..Arp::default() }),
        to_all.frame(),
        // And those beside them: an announcement and a question in another's name.
        frames::garp(M1, v4(2)),
        frames::arp_request(M1, v4(2), v4(77)),
    ];
    for f in spoofs {
        dropped(&mut lab, P1, &f, DropReason::SpoofedSource);
    }
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1 }], "no claim, no query, one alarm");
    lab.wait(ms(1000));
    lab.one(P1, &udp_from(M1, v4(2).into()));
    assert_eq!(lab.take_events(), [Event::Spoofed { port: P1 }], "and another after a second");
}

#[test]
fn r65_what_cannot_be_read_is_not_trusted() {
    let mut lab = bound();
    let mut f = udp_from(M1, v4(1).into());
    f[14] = 0x41;
    dropped(&mut lab, P1, &f, DropReason::InnerMalformed);
    lab.one(P2, &frames::ethernet(R4, M2, 0x0800, &[0; 20]));
    assert_eq!(lab.to(UPLINK).len(), 1, "a port that is bound to no address carries it");
}

#[test]
fn r65_a_binding_may_end() {
    let mut lab = bound();
    lab.apply(Update::SourceRemove { port: P1, ip: v4(1).into() });
    dropped(&mut lab, P1, &udp_from(M1, v4(1).into()), DropReason::SpoofedSource);
    lab.apply(Update::SourceRemove { port: P1, ip: v4(3).into() });
    lab.apply(Update::SourceRemove { port: P1, ip: v6(1).into() });
    lab.one(P1, &udp_from(M1, v4(2).into()));
    assert_eq!(lab.to(UPLINK).len(), 1);
}

#[test]
fn r65_a_burst_of_own_and_foreign_sources_keeps_its_order() {
    let mut lab = bound();
    let frame = |n: u32| {
        let ip = [v4(1), v4(2), v4(3)][n as usize % 3];
        frames::udp_frame((M1, ip.into(), 1000), (R4, v4(9).into(), 2000), &n.to_be_bytes())
    };
    lab.input(P1, &(0..60).map(frame).collect::<Vec<_>>());
    let own: Vec<u32> = (0..60).filter(|n| n % 3 != 1).collect();
    assert_eq!(numbers(&lab.to(UPLINK)), own);
    assert_eq!(lab.drops(DropReason::SpoofedSource), 20);
}

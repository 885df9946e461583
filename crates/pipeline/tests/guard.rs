//! Who may speak as a router and as a DHCP server (R66).

use crate::common::*;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd};
use godwit_wire::Mac;
use std::net::{IpAddr, Ipv4Addr};

const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;

/// P1 is a server's port, P2 is not, and there is another NVE.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ServerSet { port: P1, server: true });
    lab.vm(R4, VmState::Remote { to: through(T4) });
    lab
}

fn dhcp(mac: Mac, ip: IpAddr, ports: (u16, u16), to: (Mac, IpAddr)) -> Vec<u8> {
    frames::udp_frame((mac, ip, ports.0), (to.0, to.1, ports.1), b"bootp")
}

/// What only routers and servers say, from `mac`.
fn words(mac: Mac) -> Vec<Vec<u8>> {
    let to_all = (Mac([0x33, 0x33, 0, 0, 0, 1]), "ff02::1".parse().unwrap());
    let advert = Nd {
        kind: 134,
        eth: (mac, to_all.0),
        ip: ("fe80::1".parse().unwrap(), to_all.1),
        ..Nd::announce(mac, v6(1))
    };
    let one = Nd { eth: (mac, R4), ..advert.clone() };
    let redirect = Nd { kind: 137, ..one.clone() };
    let malformed = Nd { hop_limit: 64, ..one.clone() };
    vec![
        advert.frame(),
        one.frame(),
        redirect.frame(),
        malformed.frame(),
        dhcp(mac, v4(1).into(), (67, 68), (Mac::BROADCAST, ALL.into())),
        dhcp(mac, v4(1).into(), (1067, 68), (Mac::BROADCAST, ALL.into())),
        // To a client that the other NVE has, as most answers are.
        dhcp(mac, v4(1).into(), (67, 68), (R4, v4(4).into())),
        dhcp(mac, v6(1).into(), (547, 546), (R4, v6(4).into())),
    ]
}

#[test]
fn r66_routers_and_servers_speak_and_others_do_not() {
    for f in words(M1) {
        let mut lab = lab();
        lab.one(P1, &f);
        assert!(!lab.to(UPLINK).is_empty(), "{f:02x?}");
    }
    for f in words(M2) {
        let mut lab = lab();
        lab.one(P2, &f);
        assert!(lab.out.sent.is_empty(), "{f:02x?}");
        assert_eq!(lab.drops(DropReason::NotRouter), 1, "{f:02x?}");
        assert_eq!(lab.take_events(), [Event::NotRouter { port: P2 }]);
        let told = godwit_pipeline::trace::trace(&lab.tables, P2, &f, lab.now).verdict();
        assert_eq!(told, godwit_pipeline::trace::Ending::Drop(DropReason::NotRouter));
    }
}

#[test]
fn r66_a_tag_hides_nothing() {
    let mut lab = lab();
    lab.vn(VN, vni(), true);
    for (outer, inner) in [(0x88a8, 0x8100), (0x8100, 0x8100), (0x8100, 0x88a8)] {
        let before = lab.drops(DropReason::NotRouter);
        for f in words(M2) {
            let one = frames::tagged(&f, inner, 7);
            lab.one(P2, &one);
            lab.one(P2, &frames::tagged(&one, outer, 9));
            lab.wait(ms(100));
        }
        assert!(lab.out.sent.is_empty());
        assert_eq!(lab.drops(DropReason::NotRouter) - before, 2 * words(M2).len() as u64);
    }
}

#[test]
fn r66_a_vm_that_is_no_server_does_not_hear_the_questions() {
    let mut lab = lab();
    let ask = dhcp(M2, Ipv4Addr::UNSPECIFIED.into(), (68, 67), (Mac::BROADCAST, ALL.into()));
    lab.one(P2, &ask);
    assert_eq!((lab.to(P1).len(), lab.to(UPLINK).len()), (1, 1), "the server here, and those elsewhere");
    lab.clear();
    // The other way round: nobody here is a server, and what comes from another NVE stops here.
    lab.apply(Update::ServerSet { port: P1, server: false });
    lab.one(P2, &ask);
    assert_eq!((lab.to(P1).len(), lab.to(UPLINK).len()), (0, 1));
    lab.clear();
    lab.input(UPLINK, &[vxlan().frame(&ask)]);
    assert!(lab.out.sent.is_empty());
    assert_eq!(lab.drops(DropReason::NoReceiver), 1);
}

#[test]
fn r66_a_port_that_is_made_anew_is_no_servers() {
    let mut lab = lab();
    lab.apply(Update::PortRemove { port: P1 });
    lab.access(P1, VN, M1, Admission::Activated);
    lab.one(P1, &words(M1)[0]);
    assert_eq!(lab.drops(DropReason::NotRouter), 1);
}

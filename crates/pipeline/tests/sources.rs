//! Who may send from which addresses (R65).

use crate::common::*;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::trace::{Ending, trace};
use godwit_tables::DropReason;
use godwit_tables::event::{Event, Refused};
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Arp, Ck, Nd};
use godwit_wire::Mac;
use std::net::{IpAddr, Ipv6Addr};

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
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M2, ip: None, why: Refused::Mac }],
        "no claim, no query, one alarm"
    );
    lab.wait(ms(1000));
    lab.one(P1, &udp_from(M1, v4(2).into()));
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M1, ip: Some(v4(2).into()), why: Refused::Address }],
        "and another after a second"
    );
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

/// An advertisement of M1's to one host, from M1's own address.
fn advert(to: Mac, target: Ipv6Addr, tlla: Option<Mac>, flags: u8) -> Nd {
    let options = tlla.map_or(Vec::new(), |m| frames::mac_option(2, m));
    Nd { eth: (M1, to), ip: (v6(1), v6(4)), flags, options, ..Nd::announce(M1, target) }
}

/// A question of M1's whether a neighbor is still there.
fn probe(to: Mac, slla: Mac) -> Nd {
    let options = frames::mac_option(1, slla);
    Nd { eth: (M1, to), ip: (v6(1), v6(4)), options, ..Nd::solicit(M1, v6(1), v6(4)) }
}

#[track_caller]
fn refused(lab: &mut Lab, frame: &[u8], reason: DropReason) {
    assert_eq!(trace(&lab.tables, P1, frame, lab.now).verdict(), Ending::Drop(reason));
    dropped(lab, P1, frame, reason);
}

#[test]
fn r66_a_unicast_advertisement_for_anothers_address_goes_nowhere() {
    for (to, port) in [(R4, UPLINK), (M2, P2)] {
        // R, S and O in all their combinations.
        for flags in (0..8).map(|f| f << 5) {
            let mut lab = bound();
            for own in [advert(to, v6(1), Some(M1), flags), advert(to, v6(1), None, flags), probe(to, M1)] {
                lab.one(P1, &own.frame());
                assert_eq!(lab.only().0, port, "{own:?}");
                lab.clear();
            }
            assert_eq!(lab.take_events(), []);
            for lie in [
                advert(to, v6(9), Some(M1), flags),
                advert(to, v6(9), None, flags),
                advert(to, v6(1), Some(M2), flags),
                probe(to, M2),
            ] {
                refused(&mut lab, &lie.frame(), DropReason::SpoofedSource);
            }
            assert_eq!(
                lab.take_events(),
                [Event::Spoofed { port: P1, mac: M1, ip: Some(v6(9).into()), why: Refused::Address }]
            );
        }
    }
}

#[test]
fn r66_options_of_send_make_no_lie_true() {
    let mut lab = bound();
    let signed = |nd: Nd| {
        let rsa = [12, 2].into_iter().chain([7; 14]);
        Nd { options: nd.options.iter().copied().chain(rsa).collect(), ..nd }.frame()
    };
    lab.one(P1, &signed(advert(R4, v6(1), Some(M1), 0x60)));
    lab.one(P1, &signed(probe(R4, M1)));
    assert_eq!(lab.to(UPLINK).len(), 2, "what is the sender's own is left alone");
    refused(&mut lab, &signed(advert(R4, v6(9), Some(M1), 0x60)), DropReason::SpoofedSource);
    refused(&mut lab, &signed(probe(R4, M2)), DropReason::SpoofedSource);
}

/// An ICMPv6 packet of M1's to R4 behind extension headers.
fn behind(first: u8, extensions: Vec<u8>, message: &[u8]) -> Vec<u8> {
    let ip = frames::V6 { next: first, hop_limit: 255, extensions, ..frames::V6::new(v6(1), v6(4), 58) };
    frames::ethernet(R4, M1, 0x86dd, &ip.packet(message))
}

#[test]
fn r66_malformed_discovery_to_one_host_goes_nowhere_and_other_icmp_does() {
    let mut lab = bound();
    let own = || advert(R4, v6(1), Some(M1), 0x60);
    for bad in [
        Nd { hop_limit: 254, ..own() },
        Nd { checksum: Ck::Bad, ..own() },
        Nd { code: 1, ..own() },
        Nd { target: "ff02::1".parse().unwrap(), ..own() },
        Nd { options: vec![2, 0, 0, 0, 0, 0, 0, 0], ..own() },
        Nd { hop_limit: 64, ..probe(R4, M1) },
    ] {
        refused(&mut lab, &bad.frame(), DropReason::NdMalformed);
    }
    let message = own().frame()[54..].to_vec();
    // Destination options, as many as one likes; then the first fragment of an advertisement (RFC 6980).
    let options =
        |n: usize| [[60, 0, 1, 4, 0, 0, 0, 0].repeat(n - 1), vec![58, 0, 1, 4, 0, 0, 0, 0]].concat();
    let lie = advert(R4, v6(9), Some(M1), 0x60).frame()[54..].to_vec();
    for n in [1, 9, 12, 100] {
        refused(&mut lab, &behind(60, options(n), &lie), DropReason::SpoofedSource);
    }
    assert!(matches!(lab.take_events()[..], [Event::Spoofed { port: P1, .. }]));
    refused(&mut lab, &behind(44, vec![58, 0, 0, 1, 0, 0, 0, 9], &message), DropReason::NdMalformed);
    assert!(lab.out.sent.is_empty());
    let pings = [
        behind(60, options(2), &message),
        behind(60, options(12), &message),
        // A later fragment that begins like an advertisement.
        behind(44, vec![58, 0, 5, 0x48, 0, 0, 0, 9], &message),
        behind(44, vec![58, 0, 0, 1, 0, 0, 0, 9], &[128, 0, 0, 0, 0, 1, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]),
        frames::ping((M1, v6(1).into()), (R4, v6(4).into()), 1, b"x"),
    ];
    for f in &pings {
        lab.one(P1, f);
    }
    assert_eq!(lab.to(UPLINK).len(), pings.len());
    assert_eq!(lab.take_events(), []);
}

#[test]
fn r66_a_datagram_behind_many_extension_headers_is_carried() {
    let options = [[60, 0, 1, 4, 0, 0, 0, 0].repeat(11), vec![17, 0, 1, 4, 0, 0, 0, 0]].concat();
    for (to, port) in [(R4, UPLINK), (M2, P2)] {
        let mut lab = bound();
        let message = frames::udp(v6(1).into(), v6(4).into(), (1000, 2000), b"hello", Ck::Good);
        let ip = frames::V6 { next: 60, extensions: options.clone(), ..frames::V6::new(v6(1), v6(4), 17) };
        lab.one(P1, &frames::ethernet(to, M1, 0x86dd, &ip.packet(&message)));
        assert_eq!(lab.only().0, port);
        // What says nothing of its sender is looked at for what only routers say, behind as many headers.
        let word = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut hidden = options.clone();
        hidden[88] = 58;
        refused(&mut lab, &behind(60, hidden, &word), DropReason::NotRouter);
    }
}

#[test]
fn r66_a_unicast_arp_reply_for_anothers_address_goes_nowhere() {
    let mut lab = bound();
    lab.one(P1, &frames::arp_reply(M1, v4(1), R4, v4(4)));
    assert_eq!(lab.only().0, UPLINK);
    lab.clear();
    refused(&mut lab, &frames::arp_reply(M1, v4(2), R4, v4(4)), DropReason::SpoofedSource);
    let mut other_mac = frames::arp_reply(M1, v4(1), R4, v4(4));
    other_mac[22..28].copy_from_slice(&M2.0);
    refused(&mut lab, &other_mac, DropReason::SpoofedSource);
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M1, ip: Some(v4(2).into()), why: Refused::Address }]
    );
}

#[test]
fn r66_a_lie_opens_no_port_and_does_not_wait_for_one() {
    let mut lab = bound();
    lab.access(P1, VN, M1, Admission::Associated);
    refused(&mut lab, &advert(R4, v6(9), Some(M1), 0x60).frame(), DropReason::SpoofedSource);
    assert_eq!(
        (lab.take_events(), lab.tables.waiting()),
        (vec![Event::Spoofed { port: P1, mac: M1, ip: Some(v6(9).into()), why: Refused::Address }], 0)
    );
    lab.one(P1, &advert(R4, v6(1), Some(M1), 0x60).frame());
    assert_eq!(lab.tables.waiting(), 1);
    // What waits is looked at when it goes, with what the port is bound to then.
    lab.apply(Update::SourceRemove { port: P1, ip: v6(1).into() });
    lab.access(P1, VN, M1, Admission::Activated);
    lab.tick();
    assert_eq!((lab.drops(DropReason::SpoofedSource), lab.out.sent.len()), (2, 0));
}

#[test]
fn r66_pieces_hide_nothing() {
    let long = |nd: Nd| {
        let unknown = [200, 1, 0, 0, 0, 0, 0, 0].repeat(12);
        Nd { options: nd.options.iter().copied().chain(unknown).collect(), ..nd }.frame()
    };
    let own = long(advert(R4, v6(1), Some(M1), 0x60));
    let mut lab = bound();
    let mut send = |frame: &[u8]| {
        lab.input_packets(P1, vec![MemPacket::new(frame).in_pieces(150)]);
        let sent = lab.to(UPLINK).len();
        lab.clear();
        (sent, lab.drops(DropReason::SpoofedSource), lab.drops(DropReason::NotRouter))
    };
    assert_eq!(send(&own), (1, 0, 0));
    assert_eq!(send(&long(advert(R4, v6(9), Some(M1), 0x60))), (0, 1, 0));
    let offer = frames::udp_frame((M1, v4(1).into(), 67), (R4, v4(4).into(), 68), &[0; 300]);
    assert_eq!(send(&offer), (0, 1, 1));
}

/// The same frame behind one tag and behind two.
fn tagged(frame: &[u8]) -> [Vec<u8>; 2] {
    let one = frames::tagged(frame, 0x8100, 7);
    let two = frames::tagged(&one, 0x88a8, 9);
    [one, two]
}

#[test]
fn r65_a_tag_hides_no_arp_sender() {
    let mut lab = bound();
    lab.vn(VN, vni(), true);
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    let rarp = |sha: Mac, tha: Mac| {
        let p = Arp {
            op: 3,
            sha,
            tha,
            spa: "0.0.0.0".parse().unwrap(),
            tpa: "0.0.0.0".parse().unwrap(),
            ..Arp::default()
        };
        frames::ethernet(Mac::BROADCAST, M1, 0x8035, &p.packet())
    };
    let arp = |sha: Mac, spa| {
        frames::ethernet(Mac::BROADCAST, M1, 0x0806, &Arp { sha, spa, tpa: v4(4), ..Arp::default() }.packet())
    };
    let lies = [
        arp(M1, v4(2)),
        arp(M2, v4(1)),
        frames::garp(M1, v4(2)),
        frames::arp_reply(M1, v4(2), R4, v4(4)),
        rarp(M2, M1),
        rarp(M1, M2),
        Nd::announce(M1, v6(9)).frame(),
        Nd { options: frames::mac_option(2, M2), ..Nd::announce(M1, v6(1)) }.frame(),
        Nd { options: frames::mac_option(1, M2), ..Nd::solicit(M1, v6(1), v6(4)) }.frame(),
        advert(R4, v6(9), Some(M1), 0x60).frame(),
        udp_from(M1, v4(2).into()),
    ];
    for lie in lies.iter().flat_map(|f| tagged(f)) {
        refused(&mut lab, &lie, DropReason::SpoofedSource);
    }
    assert_eq!(
        lab.take_events(),
        [Event::Spoofed { port: P1, mac: M1, ip: Some(v4(2).into()), why: Refused::Address }],
        "no claim, no query"
    );
    let mut answer = rarp(M1, M1);
    answer[21] = 4;
    for bad in [&frames::arp_request(M1, v4(1), v4(4))[..40], &rarp(M1, M1)[..40], &answer] {
        let [one, two] = tagged(bad);
        refused(&mut lab, &one, DropReason::ArpMalformed);
        refused(&mut lab, &two, DropReason::ArpMalformed);
    }
    let bad = Nd { hop_limit: 64, ..Nd::announce(M1, v6(1)) }.frame();
    refused(&mut lab, &tagged(&bad)[1], DropReason::NdMalformed);
}

#[test]
fn r10_tagged_resolution_of_its_own_is_carried_within_a_transparent_vn() {
    let mut lab = bound();
    lab.vn(VN, vni(), true);
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.neighbor(v4(4), R4);
    lab.neighbor(v6(4), R4);
    let to_all = [
        frames::arp_request(M1, v4(1), v4(4)),
        frames::garp(M1, v4(1)),
        frames::rarp_announce(M1),
        Nd::announce(M1, v6(1)).frame(),
        Nd::solicit(M1, v6(1), v6(4)).frame(),
    ];
    for f in to_all.iter().flat_map(|f| tagged(f)) {
        lab.one(P1, &f);
        assert_eq!(lab.to(P2), [&f[..]]);
        assert_eq!(open(lab.to(UPLINK)[0]).1, f);
        lab.clear();
    }
    for f in tagged(&frames::arp_reply(M1, v4(1), R4, v4(4))) {
        lab.one(P1, &f);
        assert_eq!(open(lab.only().1).1, f);
        lab.clear();
    }
    assert_eq!(lab.take_events(), [], "the directory hears nothing of VLANs");
    let three = frames::tagged(&tagged(&to_all[0])[1], 0x8100, 3);
    refused(&mut lab, &three, DropReason::VlanTag);
}

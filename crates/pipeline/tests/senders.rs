//! Whom VXLAN is accepted from (R69).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use crate::common::*;
use godwit_pipeline::trace::{Ending, trace};
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_tables::{DropReason, TablesConfig};
use godwit_testkit::frames::Vxlan;
use godwit_wire::Mac;
use proptest::prelude::*;

/// NVE C is a member of the VN, and nobody else.
fn checked() -> Lab {
    let mut lab = Lab::new();
    lab.apply(Update::SenderAdd { vn: VN, ip: NVE_C.into() });
    lab.apply(Update::SendersKnown { vn: VN, known: true });
    lab
}

/// What is inside, from one VM to another.
fn inner(to: Mac) -> Vec<u8> {
    numbered(R4, to, 7)
}

#[test]
fn r69_a_member_is_heard_and_a_stranger_with_the_right_vni_is_not() {
    let stranger: [IpAddr; 2] = [NVE_B.into(), NVE_B6.into()];
    for from in stranger {
        for to in [M1, Mac::BROADCAST, STRANGER] {
            let mut lab = checked();
            lab.one(UPLINK, &vxlan_from(NVE_C.into(), vni()).frame(&inner(M1)));
            assert_eq!(lab.only().0, P1);
            lab.clear();
            let f = vxlan_from(from, vni()).frame(&inner(to));
            assert_eq!(
                trace(&lab.tables, UPLINK, &f, lab.now).verdict(),
                Ending::Drop(DropReason::UnknownSender)
            );
            dropped(&mut lab, UPLINK, &f, DropReason::UnknownSender);
            assert_eq!(lab.take_events(), [Event::UnknownSender { vni: vni(), ip: from, frames: 1 }]);
        }
    }
}

#[test]
fn r69_before_the_members_are_known_and_in_other_vns_everybody_is_heard() {
    let mut lab = Lab::new();
    lab.apply(Update::SenderAdd { vn: VN, ip: NVE_C.into() });
    lab.one(UPLINK, &vxlan_from(NVE_B.into(), vni()).frame(&inner(M1)));
    lab.apply(Update::SendersKnown { vn: VN, known: true });
    lab.one(UPLINK, &vxlan_from(NVE_B.into(), other_vni()).frame(&inner(M1)));
    assert_eq!((lab.to(P1).len(), lab.to(P3).len()), (1, 1));
    lab.apply(Update::SenderRemove { vn: VN, ip: NVE_C.into() });
    dropped(&mut lab, UPLINK, &vxlan_from(NVE_C.into(), vni()).frame(&inner(M1)), DropReason::UnknownSender);
}

#[test]
fn r69_a_burst_of_members_and_strangers_keeps_its_order() {
    let mut lab = checked();
    lab.apply(Update::SenderAdd { vn: VN, ip: NVE_B6.into() });
    let senders: [IpAddr; 4] = [NVE_C.into(), NVE_B.into(), NVE_B6.into(), Ipv6Addr::LOCALHOST.into()];
    let frame = |n: u32| vxlan_from(senders[n as usize % 4], vni()).frame(&numbered(R4, M1, n));
    lab.input(UPLINK, &(0..60).map(frame).collect::<Vec<_>>());
    assert_eq!(numbers(&lab.to(P1)), (0..60).filter(|n| n % 2 == 0).collect::<Vec<_>>());
    assert_eq!(lab.drops(DropReason::UnknownSender), 30);
    let events = lab.take_events();
    assert_eq!(events.len(), 2, "each once: {events:?}");
    lab.wait(ms(1000));
    lab.one(UPLINK, &frame(1));
    assert_eq!(lab.take_events(), [Event::UnknownSender { vni: vni(), ip: NVE_B.into(), frames: 15 }]);
}

#[test]
fn r69_where_a_member_finds_no_room_everybody_is_heard() {
    let mut lab = Lab::with(&TablesConfig { sender_capacity: 1, ..config() });
    lab.apply(Update::SendersKnown { vn: VN, known: true });
    lab.apply(Update::SenderAdd { vn: VN, ip: NVE_C.into() });
    let event = lab.tables.apply(Update::SenderAdd { vn: VN, ip: NVE_B.into() }, lab.now);
    assert!(matches!(event, Some(Event::TableFull { .. })), "and control says so: {event:?}");
    lab.one(UPLINK, &vxlan_from(NVE_B.into(), vni()).frame(&inner(M1)));
    assert_eq!(lab.to(P1).len(), 1);
}

/// Something that happens, beside frames: to a VN (0 or 1), with a sender of the list.
#[derive(Clone, Debug)]
enum Step {
    Add(bool, usize),
    Remove(bool, usize),
    Known(bool, bool),
    /// Frames to a VM, of these senders; the second: not of the usual shape.
    Burst(Vec<(bool, usize, bool)>),
}

fn step() -> impl Strategy<Value = Step> {
    let (vn, who) = (any::<bool>(), 0..6usize);
    prop_oneof![
        2 => (vn, who.clone()).prop_map(|(v, n)| Step::Add(v, n)),
        1 => (vn, who.clone()).prop_map(|(v, n)| Step::Remove(v, n)),
        1 => (vn, any::<bool>()).prop_map(|(v, on)| Step::Known(v, on)),
        3 => proptest::collection::vec((vn, who, any::<bool>()), 1..12).prop_map(Step::Burst),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Held against a set of pairs: a frame is delivered just where its VN is not checked, or its sender is in the set.
    #[test]
    fn r69_each_frame_is_judged_by_its_vn_and_its_sender(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        // The last of IPv6 begins as an IPv4 address, and ends as no address should.
        let odd: Ipv6Addr = "c612:3::ffff:ffff:ffff:ffff".parse().unwrap();
        let senders: [IpAddr; 6] = [
            NVE_B.into(), NVE_C.into(), [198, 18, 1, 3].into(), NVE_B6.into(), Ipv6Addr::LOCALHOST.into(), odd.into(),
        ];
        let of = |other: bool| if other { (OTHER_VN, other_vni(), P3) } else { (VN, vni(), P1) };
        let mut lab = Lab::new();
        let (mut members, mut known) = (BTreeSet::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Add(vn, n) => {
                    members.insert((vn, n));
                    lab.apply(Update::SenderAdd { vn: of(vn).0, ip: senders[n] });
                }
                Step::Remove(vn, n) => {
                    members.remove(&(vn, n));
                    lab.apply(Update::SenderRemove { vn: of(vn).0, ip: senders[n] });
                }
                Step::Known(vn, on) => {
                    if on { known.insert(vn) } else { known.remove(&vn) };
                    lab.apply(Update::SendersKnown { vn: of(vn).0, known: on });
                }
                Step::Burst(frames) => {
                    let frame = |(at, (vn, n, odd)): (usize, &(bool, usize, bool))| {
                        let x = vxlan_from(senders[*n], of(*vn).1);
                        let x = if *odd { Vxlan { tos: 1, ..x } } else { x };
                        x.frame(&numbered(R4, M1, at as u32))
                    };
                    let input: Vec<Vec<u8>> = frames.iter().enumerate().map(frame).collect();
                    lab.input(UPLINK, &input);
                    for other in [false, true] {
                        let good = |(vn, n, _): &(bool, usize, bool)| {
                            *vn == other && (!known.contains(vn) || members.contains(&(*vn, *n)))
                        };
                        let heard = (0u32..).zip(&frames).filter(|(_, f)| good(f));
                        let expected: Vec<u32> = heard.map(|(at, _)| at).collect();
                        prop_assert_eq!(numbers(&lab.to(of(other).2)), expected);
                    }
                    lab.clear();
                    lab.take_events();
                }
            }
        }
    }
}

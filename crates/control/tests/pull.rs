//! VNs in pull mode: what is asked for, how long it counts, and what ends it (R34, R37, R40, R72).

use std::collections::BTreeSet;

use crate::lab::said::{A, B, C};
use crate::lab::{self, Lab, key, location, mac, vm, vm_ip, vni};
use godwit_control::NveConfig;
use godwit_model::DirectoryMode;
use godwit_model::message::{Change, NveToNva, QueryBy};
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{PortIdx, VmState};
use godwit_wire::{Mac, Rate};

/// VM 1 at A, VM 2 at C; C pulls, or all of them do.
fn two_with(tweak: impl Fn(&mut NveConfig)) -> Lab {
    let mut lab = Lab::with(3, |c| {
        c.pull.insert(vni());
        tweak(c);
    });
    lab.run_vm(A, 1);
    lab.run_vm(C, 2);
    lab.settle();
    lab
}

fn two() -> Lab {
    two_with(|_| {})
}

/// A frame from VM 2 at C to VM 1: what a worker makes of it.
fn send(lab: &mut Lab) {
    match lab.hosts[C].state(1) {
        None => lab.event(C, Event::MissMac { key: key(1), port: PortIdx(2) }),
        Some(VmState::Ageing { to }) => {
            lab.hosts[C].tables.vms.insert(key(1), VmState::Remote { to });
            lab.event(C, Event::InUse { key: key(1) });
        }
        Some(_) => {}
    }
    lab.pass(0);
    lab.settle();
}

fn goes_to(lab: &Lab, nve: usize) -> bool {
    let remote = matches!(lab.hosts[C].state(1), Some(VmState::Remote { .. } | VmState::Ageing { .. }));
    remote && lab.hosts[C].tunnel_ip(1) == Some(lab::locator(nve))
}

fn is_watched(lab: &Lab) -> bool {
    matches!(lab.hosts[C].state(1), Some(VmState::Ageing { .. }))
}

fn questions(lab: &Lab) -> usize {
    let about = |m: &&NveToNva| matches!(m, NveToNva::Query { by: QueryBy::Mac(m), .. } if *m == mac(1));
    lab.hosts[C].said.iter().filter(about).count()
}

fn owner(lab: &Lab) -> Option<Mac> {
    lab.hosts[C].tables.neighbors.get(&(key(1).vn(), vm_ip(1))).copied().flatten()
}

/// VM 1 comes up at B, which C may hear of or not.
fn moves_to_b(lab: &mut Lab) {
    lab.nva.accept_unplanned = true;
    let r = lab.nva.records.get_mut(&vm(1)).unwrap();
    r.version.seq += 1000;
    r.bind(location(B));
    let change = Change::Vm(r.clone());
    for (i, message) in lab.nva.news(vni(), &change, None) {
        if i == C && lab.hosts[C].connected {
            lab.hosts[i].inbox.push_back(message);
        }
    }
    lab.settle();
}

#[test]
fn r37_a_pulled_vn_brings_no_records_and_says_so_at_its_subscription() {
    let lab = two();
    let pull = NveToNva::Subscribe { vni: vni(), mode: DirectoryMode::Pull, lingers: false };
    assert!(lab.hosts[C].said.contains(&pull));
    assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None));
    assert_eq!(lab.hosts[C].state(2), Some(VmState::Local { port: PortIdx(2) }));
    assert_eq!(lab.hosts[C].tables.replicas.len(), 1, "R60: broadcast goes to A");
}

/// The snapshot does not name it, because the NVA hears of the port after the subscription.
#[test]
fn r18_r37_a_vm_that_speaks_before_the_nva_has_heard_of_its_port_claims_with_its_addresses() {
    let mut lab = Lab::with(1, |c| c.pull = [vni()].into());
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PortIdx(1), 1);
    lab.event(A, Event::Announce { port: PortIdx(1), kind: AnnounceKind::Rarp, mac: mac(1), ip: None });
    lab.settle();
    let claims = lab::said::claims(&lab, A);
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].2, [vm_ip(1)], "a claim with others would be refused (R55)");
    assert_eq!(lab.hosts[A].state(1), Some(VmState::Local { port: PortIdx(1) }));
    // One that the directory does not have is claimed as well, and refused there.
    lab.add_port(A, PortIdx(2), 2);
    lab.event(A, Event::Announce { port: PortIdx(2), kind: AnnounceKind::Rarp, mac: mac(2), ip: None });
    lab.settle();
    assert_eq!(lab::said::claims(&lab, A).len(), 2);
}

#[test]
fn r34_a_frame_pulls_a_record_by_mac_and_a_request_by_address() {
    let mut lab = two();
    send(&mut lab);
    assert!(goes_to(&lab, A));
    assert_eq!((questions(&lab), owner(&lab)), (1, Some(mac(1))));
    let mut lab = two();
    lab.event(C, Event::MissIp { vn: key(1).vn(), ip: vm_ip(1), port: PortIdx(2) });
    lab.pass(0);
    lab.settle();
    assert!(goes_to(&lab, A));
    assert_eq!((questions(&lab), owner(&lab)), (0, Some(mac(1))));
}

#[test]
fn r40_what_nobody_uses_is_gone_at_the_end_of_its_life() {
    let mut lab = two();
    send(&mut lab);
    lab.pass(20_000);
    assert!(goes_to(&lab, A) && !is_watched(&lab), "plain while it is young");
    lab.pass(4_000);
    assert!(is_watched(&lab), "four fifths are over");
    lab.pass(5_990);
    assert!(goes_to(&lab, A));
    lab.pass(20);
    assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None));
    assert_eq!(questions(&lab), 1, "nobody used it, nobody asked");
    assert_eq!(lab.hosts[C].nve.counts().entries_aged, 1);
    assert!(lab.hosts[C].nve.entry(lab.now, vm(1)).is_none(), "nothing remembers it");
    send(&mut lab);
    assert!(goes_to(&lab, A), "R40: the next packet asks");
}

#[test]
fn r40_what_is_used_is_asked_about_once_a_life_and_never_gone() {
    let mut lab = two();
    send(&mut lab);
    for _ in 0..3000 {
        lab.pass(100);
        assert!(goes_to(&lab, A));
        send(&mut lab);
    }
    // 300 s: a life ends after 21 to 24 s of use.
    assert!((12..=16).contains(&questions(&lab)), "{} questions", questions(&lab));
    assert_eq!(lab.hosts[C].nve.counts().entries_aged, 0);
}

#[test]
fn r40_a_workers_word_that_got_lost_is_asked_for_again() {
    let mut lab = two();
    send(&mut lab);
    lab.pass(24_000);
    let Some(VmState::Ageing { to }) = lab.hosts[C].state(1) else { panic!() };
    lab.hosts[C].tables.vms.insert(key(1), VmState::Remote { to });
    lab.pass(4_000);
    assert!(is_watched(&lab), "watched again");
    send(&mut lab);
    lab.pass(5_000);
    assert!(goes_to(&lab, A));
}

#[test]
fn r40_a_refresh_that_nobody_answers_leaves_the_entry_its_life() {
    let mut lab = two();
    send(&mut lab);
    lab.pass(24_000);
    lab.nva.mute_queries = true;
    send(&mut lab);
    lab.pass(5_900);
    assert!(goes_to(&lab, A));
    assert!(questions(&lab) > 8, "asked again and again: {}", questions(&lab));
    lab.pass(200);
    assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None));
    lab.nva.mute_queries = false;
    lab.pass(2_000);
    send(&mut lab);
    lab.pass(2_000);
    assert!(goes_to(&lab, A));
}

#[test]
fn r40_an_answer_that_it_is_not_there_any_more_removes_it() {
    let mut lab = two();
    send(&mut lab);
    lab.pass(24_000);
    lab.nva.records.remove(&vm(1));
    send(&mut lab);
    assert!(matches!(lab.hosts[C].state(1), Some(VmState::Absent { .. })), "{:?}", lab.hosts[C].state(1));
    assert_eq!(owner(&lab), None);
}

/// Nobody would tell: the NVA tells of what was asked for, and the new owner was not.
#[test]
fn r24_who_got_the_address_of_an_entry_that_aged_out_is_told_to_local_vms() {
    for is_gone in [true, false] {
        let mut lab = two();
        send(&mut lab);
        lab.pass(31_000);
        assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None), "aged out");
        if is_gone {
            lab.nva.records.remove(&vm(1));
        } else {
            lab.nva.records.get_mut(&vm(1)).unwrap().ipv4.clear();
        }
        lab.nva.define(vm(3), vm_ip(1));
        let record = lab::said::other_record(&lab, 3, B, lab.nva.records[&vm(3)].version);
        lab.nva.records.insert(vm(3), record);
        lab.hosts[C].frames.clear();
        // VM 2 has resolved the address long ago.
        send(&mut lab);
        assert_eq!(owner(&lab), Some(mac(3)));
        let told: Vec<_> = lab.hosts[C].frames.iter().filter(|(port, _)| *port == PortIdx(2)).collect();
        assert_eq!(told.len(), 1);
        let arp = godwit_wire::arp::Arp::new_checked(&told[0].1[14..]).unwrap();
        assert!(arp.is_gratuitous(mac(3)) && vm_ip(1) == arp.spa());
    }
}

#[test]
fn r34_a_lifetime_of_zero_serves_what_waits_and_no_more() {
    let mut lab = two();
    lab.nva.life_ms = 0;
    send(&mut lab);
    assert!(goes_to(&lab, A), "what waited is sent");
    lab.pass(400);
    assert!(goes_to(&lab, A) && !is_watched(&lab));
    lab.pass(200);
    assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None));
}

#[test]
fn r38_a_push_changes_a_pulled_entry_and_not_its_life() {
    let mut lab = two();
    send(&mut lab);
    lab.pass(10_000);
    moves_to_b(&mut lab);
    assert!(goes_to(&lab, B));
    lab.pass(20_100);
    assert_eq!(lab.hosts[C].state(1), None);
}

#[test]
fn r38_what_the_nva_does_not_tell_of_any_more_is_void() {
    let mut lab = two();
    send(&mut lab);
    let forgotten = Change::Forgotten { key: vm(1) };
    for (i, message) in lab.nva.news(vni(), &forgotten, None) {
        lab.hosts[i].inbox.push_back(message);
    }
    lab.settle();
    assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None));
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Local { .. })), "who has it keeps it");
}

/// R36: nobody would say that it is there now.
#[test]
fn r38_an_absence_that_the_nva_does_not_tell_of_any_more_is_asked_about_again() {
    let (vn, ip) = (key(9).vn(), vm_ip(9));
    for miss in [Event::MissMac { key: key(9), port: PortIdx(2) }, Event::MissIp { vn, ip, port: PortIdx(2) }]
    {
        let mut lab = two();
        lab.nva.define(vm(9), ip);
        lab.event(C, miss);
        lab.pass(0);
        lab.settle();
        let absent = |lab: &Lab| {
            let tables = &lab.hosts[C].tables;
            matches!(lab.hosts[C].state(9), Some(VmState::Absent { .. }))
                || tables.absent_ips.contains_key(&(vn, ip))
        };
        assert!(absent(&lab), "it is nowhere");
        for (i, message) in lab.nva.news(vni(), &Change::Forgotten { key: vm(9) }, None) {
            lab.hosts[i].inbox.push_back(message);
        }
        lab.settle();
        assert!(!absent(&lab));
    }
}

#[test]
fn r40_a_life_of_next_to_nothing_leads_to_few_questions() {
    let mut lab = two();
    lab.nva.life_ms = 1;
    for _ in 0..1000 {
        send(&mut lab);
        assert!(goes_to(&lab, A));
        lab.pass(1);
    }
    assert!((2..=4).contains(&questions(&lab)), "{} in a second", questions(&lab));
}

#[test]
fn r40_r67_what_is_used_takes_turns_and_lives_on_as_far_as_questions_go() {
    let mut lab = two_with(|c| c.query_rate = Rate::per_second(20, 2));
    let all = 10..110;
    for n in all.clone() {
        lab.nva.define(vm(n), vm_ip(n));
        let r = lab.nva.records.get_mut(&vm(n)).unwrap();
        r.bind(location(A));
        lab.event(C, Event::MissMac { key: key(n), port: PortIdx(2) });
        lab.pass(50);
    }
    // A reconnect: everything is used at once and wants to be asked about. 20 a second get through 100 in 5 s.
    lab.disconnect(C);
    lab.connect(C);
    lab.settle();
    let asked = |lab: &Lab| {
        let numbers = lab.hosts[C].said.iter().filter_map(|m| match m {
            NveToNva::Query { seq, .. } => Some(*seq),
            _ => None,
        });
        numbers.collect::<BTreeSet<u64>>().len()
    };
    let before = asked(&lab);
    for n in all.clone() {
        let Some(VmState::Ageing { to }) = lab.hosts[C].state(n) else { panic!("{n} is not watched") };
        lab.hosts[C].tables.vms.insert(key(n), VmState::Remote { to });
        lab.event(C, Event::InUse { key: key(n) });
    }
    lab.pass(1_000);
    assert!((15..=22).contains(&(asked(&lab) - before)), "{} in a second", asked(&lab) - before);
    lab.pass(4_500);
    assert_eq!(asked(&lab) - before, 100, "each once");
    assert!(all.clone().all(|n| matches!(lab.hosts[C].state(n), Some(VmState::Remote { .. }))));
}

#[test]
fn r40_after_a_reconnect_what_is_used_is_asked_about_and_what_changed_is_noticed() {
    let mut lab = two();
    send(&mut lab);
    lab.disconnect(C);
    moves_to_b(&mut lab);
    lab.pass(5_000);
    lab.connect(C);
    lab.settle();
    assert!(is_watched(&lab) && goes_to(&lab, A), "nobody has used it since");
    assert_eq!(questions(&lab), 1);
    send(&mut lab);
    assert!(goes_to(&lab, B));
    assert_eq!(questions(&lab), 2);
}

#[test]
fn r40_after_a_reconnect_what_is_not_used_dies_in_its_time() {
    let mut lab = two();
    send(&mut lab);
    lab.disconnect(C);
    lab.pass(5_000);
    lab.connect(C);
    lab.settle();
    lab.pass(24_900);
    assert!(goes_to(&lab, A));
    lab.pass(200);
    assert_eq!(lab.hosts[C].state(1), None);
}

#[test]
fn r72_without_the_nva_pulled_entries_outlive_their_life_until_headless_ends() {
    let mut lab = two();
    send(&mut lab);
    lab.disconnect(C);
    lab.pass(299_000);
    assert!(goes_to(&lab, A));
    assert_eq!(owner(&lab), Some(mac(1)));
    lab.pass(2_000);
    assert_eq!((lab.hosts[C].state(1), owner(&lab)), (None, None));
    // One that outlived it until the NVA is back is watched, and gone a second later unless it is used.
    let mut lab = two();
    send(&mut lab);
    lab.disconnect(C);
    lab.pass(100_000);
    lab.connect(C);
    lab.settle();
    assert!(is_watched(&lab));
    send(&mut lab);
    lab.pass(10_000);
    assert!(goes_to(&lab, A) && !is_watched(&lab), "confirmed");
    lab.disconnect(C);
    lab.pass(100_000);
    lab.connect(C);
    lab.settle();
    lab.pass(1_100);
    assert_eq!(lab.hosts[C].state(1), None);
}

#[test]
fn r43_who_forwards_for_a_vm_asks_where_it_is_without_being_used() {
    let mut lab = two();
    lab.order_move("m", 1, A, B);
    lab.add_port(B, PortIdx(1), 1);
    lab.settle();
    lab.announce(B, PortIdx(1), 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })), "{:?}", lab.hosts[A].state(1));
    lab.disconnect(A);
    lab.pass(1_000);
    lab.connect(A);
    lab.settle();
    lab.pass(0);
    lab.settle();
    assert!(lab.nva.interests.contains(&(A, vm(1))), "the new session knows that A wants to hear of it");
    lab.pass(40_000);
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })), "{:?}", lab.hosts[A].state(1));
}

#[test]
fn r40_many_entries_do_not_ask_at_the_same_moment() {
    let mut lab = two();
    for n in 10..110 {
        lab.nva.define(vm(n), vm_ip(n));
        let r = lab.nva.records.get_mut(&vm(n)).unwrap();
        r.bind(location(A));
        lab.event(C, Event::MissMac { key: key(n), port: PortIdx(2) });
    }
    lab.pass(0);
    let watched = |lab: &Lab| {
        let of = |n: &u8| matches!(lab.hosts[C].state(*n), Some(VmState::Ageing { .. }));
        (10..110).filter(of).count()
    };
    lab.pass(20_900);
    assert_eq!(watched(&lab), 0);
    let mut steps = Vec::new();
    for _ in 0..10 {
        lab.pass(320);
        steps.push(watched(&lab));
    }
    assert_eq!(steps.last(), Some(&100));
    assert!(steps.windows(2).all(|w| w[1] - w[0] <= 30), "{steps:?}");
}

#[test]
fn r36_news_of_who_got_an_absent_address_end_the_answer_and_are_asked_about_further_on() {
    let mut lab = two();
    let (vn, absent) = (key(1).vn(), vm_ip(9));
    lab.event(C, Event::MissIp { vn, ip: absent, port: PortIdx(2) });
    lab.pass(0);
    lab.settle();
    assert!(lab.hosts[C].tables.absent_ips.contains_key(&(vn, absent)));
    lab.nva.define(vm(9), absent);
    let r = lab.nva.records.get_mut(&vm(9)).unwrap();
    r.bind(location(A));
    let news = Change::Vm(r.clone());
    lab.nva.interests.insert((C, vm(9)));
    for (i, message) in lab.nva.news(vni(), &news, None) {
        lab.hosts[i].inbox.push_back(message);
    }
    lab.settle();
    assert_eq!(lab.hosts[C].tables.neighbors.get(&(vn, absent)), Some(&Some(mac(9))));
    assert!(!lab.hosts[C].tables.absent_ips.contains_key(&(vn, absent)));
    let asks = |m: &NveToNva| matches!(m, NveToNva::Query { by: QueryBy::Mac(m), .. } if *m == mac(9));
    assert!(lab.hosts[C].said.iter().any(asks), "so that its changes are told too");
}

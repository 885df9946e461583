//! What the old NVE of a VM owes those who still send to it: redirects (R47) and word of the departure (R39).

use crate::lab::*;
use godwit_control::{Counts, Input};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{Secret, Version};
use godwit_tables::event::Event;
use godwit_tables::update::{PortIdx, VmState};
use godwit_wire::peer;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const AT_B: PortIdx = PortIdx(9);

/// VMs 1 and 2 at A, 3 at C, 4 at B; datagrams between NVEs are possible.
fn begin() -> Lab {
    let mut lab = Lab::new(3);
    lab.nva.secret = Some(Secret([9; 32]));
    for i in [A, B, C] {
        lab.disconnect(i);
        lab.connect(i);
    }
    lab.settle();
    for (i, n) in [(A, 1), (A, 2), (C, 3), (B, 4)] {
        lab.run_vm(i, n);
    }
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)));
    lab
}

/// VM 1 goes from A to B.
fn move_to_b(lab: &mut Lab) {
    lab.add_port(B, AT_B, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, AT_B, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
}

/// VM 1 has gone to B, and C, whose session is cut, has not heard of it.
fn frozen() -> Lab {
    let mut lab = begin();
    lab.disconnect(C);
    move_to_b(&mut lab);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)));
    lab
}

fn stale(lab: &mut Lab) {
    lab.event(A, Event::StaleSender { key: key(1), sender: locator(C) });
}

fn counts(lab: &Lab, i: usize) -> Counts {
    *lab.hosts[i].nve.counts()
}

/// Datagrams to other NVEs among the frames of NVE `i` so far.
fn datagrams(lab: &Lab, i: usize) -> Vec<Event> {
    let all = lab.hosts[i].frames.iter().filter_map(|(_, f)| peer::parse(f).ok());
    all.map(|r| Event::Peer { src: r.src, dst: r.dst, datagram: *r.datagram }).collect()
}

fn queries(lab: &Lab, i: usize) -> usize {
    lab.hosts[i].said.iter().filter(|m| matches!(m, NveToNva::Query { .. })).count()
}

#[test]
fn r47_a_sender_without_an_nva_is_redirected_at_its_first_stale_packet() {
    let mut lab = frozen();
    stale(&mut lab);
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)), "R72: used unconfirmed");
    assert_eq!((counts(&lab, A).redirects_direct, counts(&lab, C).redirects_used), (1, 1));
    let entry = lab.hosts[C].nve.entry(lab.now, vm(1)).unwrap();
    assert!(entry.unconfirmed && entry.locator == Some(locator(B)), "{entry:?}");
    lab.connect(C);
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    assert!(!lab.hosts[C].nve.entry(lab.now, vm(1)).unwrap().unconfirmed, "the snapshot confirms it");
}

#[test]
fn r47_a_redirect_is_confirmed_by_a_query() {
    let mut lab = begin();
    lab.add_port(B, AT_B, 1);
    lab.order_move("m1", 1, A, B);
    lab.settle();
    lab.announce(B, AT_B, 1);
    // C's update is lost; the rest arrives.
    while lab.nva_hears(B) | lab.nve_hears(B) | lab.nve_hears(A) {}
    lab.hosts[C].inbox.clear();
    lab.settle();
    lab.hosts[C].inbox.clear();
    let before = queries(&lab, C);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)), "C has not heard of it");
    stale(&mut lab);
    lab.settle();
    assert_eq!(queries(&lab, C), before + 1);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    assert!(!lab.hosts[C].nve.entry(lab.now, vm(1)).unwrap().unconfirmed);
}

#[test]
fn r47_a_stream_of_stale_packets_leads_to_ten_redirects_a_second() {
    let mut lab = frozen();
    lab.hosts[C].tables = worker::Tables::default();
    for _ in 0..1000 {
        stale(&mut lab);
        lab.datagrams.clear();
        lab.pass(1);
    }
    let n = datagrams(&lab, A).len();
    assert!((9..=10).contains(&n), "{n} in a second");
    assert_eq!(counts(&lab, A).redirects_withheld, 1000 - n as u64);
}

#[test]
fn r47_forged_and_replayed_redirects_change_nothing() {
    let mut lab = frozen();
    stale(&mut lab);
    let good = datagrams(&lab, A)[0];
    lab.datagrams.clear();
    let before = lab.hosts[C].tables.clone();
    let Event::Peer { src, dst, datagram } = good else { unreachable!() };
    for at in [0, 4, 8, 12, 20, 64, peer::LEN - 1] {
        let mut bad = datagram;
        bad[at] ^= 0x80;
        lab.event(C, Event::Peer { src, dst, datagram: bad });
    }
    lab.event(C, Event::Peer { src: locator(B), dst, datagram });
    assert_eq!(lab.hosts[C].tables, before);
    let c = counts(&lab, C);
    assert_eq!((c.notices_opened, c.notices_unknown_key, c.notices_forged), (0, 1, 7));
    lab.event(C, good);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)), "the true one counts");
    let after = lab.hosts[C].tables.clone();
    lab.event(C, good);
    assert_eq!((counts(&lab, C).notices_replayed, counts(&lab, C).redirects_used), (1, 1));
    assert_eq!(lab.hosts[C].tables, after);
}

#[test]
fn r47_only_the_nve_that_we_send_to_redirects_and_only_to_newer_places() {
    let mut lab = begin();
    let before = lab.hosts[C].tables.clone();
    let version = lab.version(1);
    let newer = Version { seq: version.seq + 5, ..version };
    let say = |lab: &mut Lab, from: usize, to: usize, version| {
        let to = Some(location(to).locators);
        lab.input(C, Input::Nva(NvaToNve::Redirect { key: vm(1), to, version, from: nve_id(from) }));
    };
    say(&mut lab, B, B, newer);
    say(&mut lab, A, B, version);
    say(&mut lab, A, C, newer);
    assert_eq!(lab.hosts[C].tables, before);
    assert_eq!(counts(&lab, C).redirects_late, 3);
    say(&mut lab, A, B, newer);
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)), "the directory contradicts");
}

#[test]
fn r47_without_a_key_the_nva_passes_it_on() {
    let mut lab = Lab::new(3);
    for (i, n) in [(A, 1), (C, 3), (B, 4)] {
        lab.run_vm(i, n);
    }
    lab.disconnect(C);
    move_to_b(&mut lab);
    stale(&mut lab);
    let told = lab.hosts[A].said.iter().find(|m| matches!(m, NveToNva::Redirect { .. }));
    let (version, sender) = (lab.version(1), locator(C));
    let to = Some(location(B).locators);
    assert_eq!(told, Some(&NveToNva::Redirect { key: vm(1), to, version, sender }));
    assert_eq!((datagrams(&lab, A).len(), counts(&lab, A).redirects_by_nva), (0, 1));
}

#[test]
fn r47_a_sender_that_does_not_listen_is_told_by_the_nva_too() {
    let mut lab = frozen();
    stale(&mut lab);
    lab.pass(100);
    stale(&mut lab);
    let c = counts(&lab, A);
    assert_eq!((c.redirects_direct, c.redirects_by_nva), (2, 1));
}

#[test]
fn r43_after_the_forward_entry_a_stale_sender_is_redirected_all_the_same() {
    let mut lab = frozen();
    lab.pass(61_000);
    lab.event(A, Event::NotLocal { key: key(1), sender: locator(C) });
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(B)));
    // A VM that A knows nothing of: not here, and the directory is asked.
    lab.nva.mute_queries = true;
    let before = queries(&lab, A);
    for _ in 0..3 {
        lab.event(A, Event::NotLocal { key: key(77), sender: locator(C) });
    }
    lab.settle();
    assert_eq!(queries(&lab, A), before + 1, "one question");
    assert_eq!(counts(&lab, C).redirects_late, 1, "C does not send it there, as far as it knows");
    lab.event(A, Event::NotLocal { key: key(2), sender: locator(C) });
    assert_eq!(counts(&lab, A).redirects_direct, 2, "what is here after all is not denied");
}

/// It is not here, and where it is A does not know either: C doubts what it has, once, and goes on meanwhile.
#[test]
fn r47_a_sender_that_hears_that_a_vm_is_not_here_doubts_what_it_knows() {
    let mut lab = begin();
    lab.disconnect(C);
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.pass(3_100);
    assert_eq!(lab.hosts[A].state(1), None, "withdrawn");
    let entry = |lab: &Lab| lab.hosts[C].nve.entry(lab.now, vm(1)).unwrap();
    assert!(!entry(&lab).suspect);
    lab.event(A, Event::NotLocal { key: key(1), sender: locator(C) });
    lab.settle();
    assert_eq!(counts(&lab, A).redirects_direct, 1);
    assert!(entry(&lab).suspect, "{:?}", entry(&lab));
    assert_eq!(lab.hosts[C].tunnel_ip(1), Some(locator(A)), "traffic goes on");
    assert_eq!((counts(&lab, C).redirects_used, counts(&lab, C).redirects_late), (0, 0));
    // Its directory knows more.
    lab.connect(C);
    lab.settle();
    assert_eq!(lab.hosts[C].tunnel_ip(1), None);
}

#[test]
fn r47_a_stranger_is_no_reason_to_send_datagrams() {
    let mut lab = frozen();
    let stranger = "192.0.2.9".parse().unwrap();
    let before = lab.hosts[A].frames.len();
    lab.event(A, Event::StaleSender { key: key(1), sender: stranger });
    assert_eq!(lab.hosts[A].frames.len(), before);
}

#[test]
fn r39_a_departure_puts_older_entries_in_doubt_and_each_nve_asks_once() {
    let mut lab = begin();
    let version = lab.version(1);
    // The departure comes first, the directory's word later.
    for i in [B, C] {
        let before = queries(&lab, i);
        let told = NvaToNve::Departed { key: vm(1), version, from: nve_id(A) };
        for _ in 0..3 {
            lab.input(i, Input::Nva(told.clone()));
        }
        let entry = lab.hosts[i].nve.entry(lab.now, vm(1)).unwrap();
        assert!(entry.suspect, "{entry:?}");
        assert_eq!(lab.hosts[i].tunnel_ip(1), Some(locator(A)), "traffic goes on");
        assert_eq!(queries(&lab, i), before, "not all at the same time");
        lab.pass(51);
        assert_eq!(queries(&lab, i), before + 1);
        assert!(!lab.hosts[i].nve.entry(lab.now, vm(1)).unwrap().suspect, "answered");
    }
}

#[test]
fn r39_newer_entries_survive_and_only_the_owner_may_say_so() {
    let mut lab = begin();
    let old = lab.version(1);
    move_to_b(&mut lab);
    let before = queries(&lab, C);
    let say = |lab: &mut Lab, from: usize, version| {
        lab.input(C, Input::Nva(NvaToNve::Departed { key: vm(1), version, from: nve_id(from) }));
        lab.pass(60);
    };
    say(&mut lab, A, old);
    assert_eq!((queries(&lab, C), lab.hosts[C].alarms()), (before, 0), "the push came first");
    let new = lab.version(1);
    say(&mut lab, A, new);
    assert_eq!((queries(&lab, C), lab.hosts[C].alarms()), (before, 1), "it is at B by that version");
    assert_eq!(counts(&lab, C).notices_refused, 1);
}

#[test]
fn r39_the_old_nve_says_so_with_what_it_had() {
    let mut lab = begin();
    let version = lab.version(1);
    move_to_b(&mut lab);
    let told = NveToNva::Departed { key: vm(1), ips: vec![vm_ip(1)], version };
    assert_eq!(lab.hosts[A].said.iter().filter(|m| **m == told).count(), 1);
    let version = lab.version(2);
    lab.input(A, godwit_control::Input::PortRemoved { port: PortIdx(2) });
    lab.pass(3_100);
    let at = |m: &NveToNva| lab.hosts[A].said.iter().position(|s| s == m);
    let left = at(&NveToNva::Departed { key: vm(2), ips: vec![vm_ip(2)], version });
    assert!(
        left.is_some() && left < at(&NveToNva::Withdraw { key: vm(2), version }),
        "while it is the owner"
    );
}

#[test]
fn r39_without_an_nva_the_others_are_told_directly() {
    let mut lab = begin();
    lab.disconnect(A);
    lab.input(A, godwit_control::Input::PortRemoved { port: PortIdx(2) });
    lab.pass(3_100);
    assert_eq!(counts(&lab, A).departures_direct, 2);
    for i in [B, C] {
        assert_eq!(counts(&lab, i).entries_suspected, 1, "{:?}", counts(&lab, i));
    }
    lab.pass(60);
    assert!(queries(&lab, C) > 0);
}

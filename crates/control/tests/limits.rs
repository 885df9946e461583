//! Bounds on what an NVE asks of the directory and claims from it (R67).

use std::collections::BTreeSet;

use crate::lab::*;
use godwit_control::Input;
use godwit_model::message::NveToNva;
use godwit_tables::event::Event;
use godwit_tables::update::Key;
use godwit_wire::{Mac, Rate, Span};

const A: usize = 0;

/// `n` is what a full bucket of `burst` gives in this time at `rate` a second.
fn within(n: usize, burst: u64, rate: u64, time: Span) -> bool {
    let most = burst + rate * time.as_ms() / 1000;
    (most - 2..=most + 1).contains(&(n as u64))
}

#[test]
fn r67_a_switch_puts_2000_questions_a_second_and_counts_the_rest() {
    let mut lab = Lab::with(1, |c| c.query_rate = Rate::per_second(20, 5));
    lab.run_vm(A, 1);
    lab.settle();
    lab.hosts[A].said.clear();
    let (vn, start) = (key(1).vn(), lab.now);
    for n in 0..200_u64 {
        let key = Key::new(vn, Mac::from_u64(0x0200_0001_0000 + n));
        lab.event(A, Event::MissMac { key, port: PORT });
        lab.pass(5);
    }
    let numbers = lab.hosts[A].said.iter().filter_map(|m| match m {
        NveToNva::Query { seq, .. } => Some(*seq),
        _ => None,
    });
    let put = numbers.collect::<BTreeSet<u64>>().len();
    assert!(within(put, 5, 20, lab.now.since(start)), "{put}");
    assert_eq!(lab.hosts[A].nve.counts().queries_limited, 200 - put as u64);
}

/// The numbers of the claims that were sent.
fn claims(lab: &Lab) -> BTreeSet<u64> {
    let numbers = lab.hosts[A].said.iter().filter_map(|m| match m {
        NveToNva::Claim { seq, .. } => Some(*seq),
        _ => None,
    });
    numbers.collect()
}

#[test]
fn r67_a_vm_that_flaps_claims_5_times_a_second() {
    let mut lab = Lab::new(1);
    lab.run_vm(A, 1);
    lab.settle();
    lab.hosts[A].said.clear();
    let start = lab.now;
    for _ in 0..100 {
        lab.input(A, Input::PortLink { port: PORT, up: false });
        lab.input(A, Input::PortLink { port: PORT, up: true });
        lab.announce(A, PORT, 1);
        lab.settle();
        lab.pass(10);
    }
    let sent = claims(&lab).len();
    assert!(within(sent, 5, 5, lab.now.since(start)), "{sent}");
    assert!(lab.hosts[A].nve.counts().claims_delayed > 80);
    // The last one is not lost.
    lab.pass(300);
    let sent = claims(&lab);
    assert_eq!(sent.last().unwrap() - sent.first().unwrap(), 99);
}

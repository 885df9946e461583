//! What was absent a moment ago and is there now (R36), with everything in between as it is in the fabric: workers,
//! their mailboxes, sessions, the store.

use std::collections::BTreeSet;

use godwit_wire::{Instant, Span};

use super::schedule::{Announce, Class, Schedule, VmPlan};
use super::world::World;

/// VM 0 at switch 0 and VM 1 at switch 1 of one VN, which both pull or neither; nothing moves or fails.
fn calm(seed: u64, pull: bool) -> World {
    let vm =
        |number| VmPlan { vn: 0, number, home: number, explicit: false, quiet: false, defined_late: false };
    let pulls = vec![if pull { BTreeSet::from([0]) } else { BTreeSet::new() }; 2];
    let (vms, workers) = (vec![vm(0), vm(1)], vec![1, 1]);
    let (flows, moves, faults) = (Vec::new(), Vec::new(), Vec::new());
    let drawn = Schedule { addresses: None, routing: None, ..Schedule::of(Class::Planned, seed) };
    let mut world =
        World::new(Schedule { vns: 1, vms, workers, flows, moves, faults, pulls, ..drawn }, false);
    world.set_up();
    world.come_to_rest("after the start");
    world
}

/// A frame from VM 0 to VM 1; its number.
fn send(world: &mut World) -> usize {
    let flow = flow(world);
    world.send_one(flow);
    world.flows[flow].received.len() - 1
}

fn flow(world: &World) -> usize {
    world.flows.iter().position(|f| (f.from, f.to) == (0, Some(1))).expect("the probe's")
}

fn arrived(world: &World, seq: usize) -> bool {
    world.flows[flow(world)].received[seq] > 0
}

fn pass(world: &mut World, span: Span) {
    let until: Instant = world.now + span;
    world.run_until(until);
}

#[test]
fn r36_frames_for_a_vm_that_was_absent_arrive_within_150_ms_of_its_attachment() {
    for (seed, pull) in (0..20).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut world = calm(seed, pull);
        let (host, port) = world.guests[1].at.take().expect("it runs");
        world.guests[1].running = false;
        world.unplug(host, port);
        pass(&mut world, Span::from_ms(6_000));
        let asked = send(&mut world);
        pass(&mut world, Span::from_ms(1_000));
        let absent = send(&mut world);
        pass(&mut world, Span::from_ms(100));
        assert!(!arrived(&world, asked) && !arrived(&world, absent), "seed {seed}: it is nowhere");

        let attached = world.now;
        let port = world.plug(1, 1);
        world.resume(1, 1, port, Announce::Garp, Span(0));
        let reached = loop {
            let seq = send(&mut world);
            pass(&mut world, Span::from_ms(1));
            assert!(world.now.since(attached) <= Span::from_ms(150), "seed {seed}, pull {pull}");
            if arrived(&world, seq) {
                break world.now.since(attached);
            }
        };
        assert!(reached > Span(0) && world.violation.is_none(), "{:?}", world.violation);
    }
}

//! Many moves under lost sessions and restarted directories, from random orders: when the dust has
//! settled, every NVE knows where every VM is.

use crate::lab::{self, Lab, key, locator, mac, vm};
use godwit_control::Input;
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::{PortIdx, VmState};
use proptest::prelude::*;

const HOSTS: usize = 3;
const VMS: u8 = 3;

/// Something that a hypervisor, the network or a directory does.
#[derive(Clone, Copy, Debug)]
enum Op {
    Move {
        n: u8,
        to: usize,
        paused: bool,
        ordered: bool,
    },
    /// A frame for a VM that its switch does not know, or that it is to tell of.
    Use {
        i: usize,
        n: u8,
    },
    /// A VM's announcement once more.
    Announce {
        n: u8,
    },
    Deliver {
        i: usize,
        count: usize,
    },
    Disconnect {
        i: usize,
    },
    Connect {
        i: usize,
    },
    RestartNva,
    Pass {
        ms: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..=VMS, 0..HOSTS, any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(n, to, paused, ordered)| Op::Move { n, to, paused, ordered }),
        1 => (0..HOSTS, 1..=VMS).prop_map(|(i, n)| Op::Use { i, n }),
        1 => (1..=VMS).prop_map(|n| Op::Announce { n }),
        4 => (0..HOSTS, 1..6usize).prop_map(|(i, count)| Op::Deliver { i, count }),
        1 => (0..HOSTS).prop_map(|i| Op::Disconnect { i }),
        1 => (0..HOSTS).prop_map(|i| Op::Connect { i }),
        1 => Just(Op::RestartNva),
        2 => (0..4000u64).prop_map(|ms| Op::Pass { ms }),
    ]
}

/// Which NVE a VM really runs at, and on which port.
type World = [(usize, PortIdx); VMS as usize];

fn announce(lab: &mut Lab, i: usize, port: PortIdx, n: u8) {
    lab.event(i, Event::Announce { port, kind: AnnounceKind::Rarp, mac: mac(n), ip: None });
}

fn deliver(lab: &mut Lab, i: usize, count: usize) {
    for _ in 0..count {
        lab.nva_hears(i);
        lab.nve_hears(i);
    }
}

fn act(lab: &mut Lab, world: &mut World, serial: &mut u16, op: Op) {
    match op {
        Op::Move { n, to, paused, ordered } => {
            let (from, old) = world[usize::from(n) - 1];
            if from == to {
                return;
            }
            // A migration takes longer than a message: what the VM's NVE had to say has been said.
            deliver(lab, from, 50);
            *serial += 1;
            let port = PortIdx(10 + *serial);
            if ordered {
                lab.order_move(&format!("m{serial}"), n, from, to);
            }
            lab.add_port(to, port, n);
            deliver(lab, to, 2);
            if paused {
                lab.input(from, Input::PausePort { port: old });
            }
            world[usize::from(n) - 1] = (to, port);
            announce(lab, to, port, n);
            deliver(lab, from, 2);
            lab.input(from, Input::PortRemoved { port: old });
        }
        Op::Use { i, n } => use_vm(lab, i, n),
        Op::Announce { n } => {
            let (i, port) = world[usize::from(n) - 1];
            announce(lab, i, port, n);
        }
        Op::Deliver { i, count } => deliver(lab, i, count),
        Op::Disconnect { i } if lab.hosts[i].connected => lab.disconnect(i),
        Op::Connect { i } if !lab.hosts[i].connected => lab.connect(i),
        Op::Disconnect { .. } | Op::Connect { .. } => {}
        Op::RestartNva => {
            let connected: Vec<usize> = (0..HOSTS).filter(|i| lab.hosts[*i].connected).collect();
            connected.iter().for_each(|i| lab.disconnect(*i));
            lab.nva.restart();
            connected.iter().for_each(|i| lab.connect(*i));
        }
        Op::Pass { ms } => lab.pass(ms),
    }
}

/// Sessions come back, VMs speak now and then, time passes.
fn heal(lab: &mut Lab, world: &World) {
    for i in 0..HOSTS {
        if !lab.hosts[i].connected {
            lab.connect(i);
        }
    }
    lab.settle();
    for _ in 0..6 {
        lab.pass(2_000);
        for (n, (i, port)) in (1..).zip(*world) {
            announce(lab, i, port, n);
            lab.settle();
        }
    }
}

/// A frame from switch `i` for a VM.
fn use_vm(lab: &mut Lab, i: usize, n: u8) {
    match lab.hosts[i].state(n) {
        None if !lab.hosts[i].tables.vns.is_empty() => {
            lab.event(i, Event::MissMac { key: key(n), port: PortIdx(1) });
        }
        Some(VmState::Ageing { to }) => {
            lab.hosts[i].tables.vms.insert(key(n), VmState::Remote { to });
            lab.event(i, Event::InUse { key: key(n) });
        }
        _ => {}
    }
}

/// Every VM talks to every other one that its switch pulled: what was watched since a reconnect is asked about (R40).
fn use_what_ages(lab: &mut Lab) {
    for i in 0..HOSTS {
        for n in 1..=VMS {
            use_vm(lab, i, n);
        }
    }
    lab.pass(0);
    lab.settle();
}

fn check(lab: &Lab, world: &World) {
    for (n, (at, port)) in (1..).zip(*world) {
        let record = &lab.nva.records[&vm(n)];
        assert_eq!(record.active(), Some(&lab::location(at)), "vm{n} in the directory");
        assert_eq!(lab.hosts[at].state(n), Some(VmState::Local { port }), "vm{n} at {at}");
        for i in (0..HOSTS).filter(|i| *i != at) {
            if lab.hosts[i].nve.nva().vns == 0 {
                continue;
            }
            let pulls = !lab.hosts[i].nve.config().pull.is_empty();
            match lab.hosts[i].state(n) {
                // Nobody has used it.
                None | Some(VmState::Absent { .. }) if pulls => {}
                Some(VmState::Remote { .. } | VmState::Departed { .. }) => {
                    assert_eq!(lab.hosts[i].tunnel_ip(n), Some(locator(at)), "vm{n} seen from {i}");
                }
                other => panic!("vm{n} seen from {i}: {other:?}"),
            }
        }
    }
}

/// VMs of three switches under these orders; the switches of `pulls` pull the VN.
fn converges(ops: Vec<Op>, pulls: [bool; HOSTS]) {
    let mut lab = Lab::with(HOSTS, |c| {
        if (0..HOSTS).any(|i| pulls[i] && c.nve == lab::nve_id(i)) {
            c.pull = [lab::vni()].into();
        }
    });
    lab.nva.accept_unplanned = true;
    let mut world: World = [(0, PortIdx(1)); VMS as usize];
    for n in 1..=VMS {
        lab.run_vm(0, n);
        world[usize::from(n) - 1] = (0, PortIdx(u16::from(n)));
    }
    let mut serial = 0;
    for op in ops {
        act(&mut lab, &mut world, &mut serial, op);
    }
    heal(&mut lab, &world);
    use_what_ages(&mut lab);
    check(&lab, &world);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r73_everything_converges_whatever_got_lost(ops in prop::collection::vec(op(), 1..40)) {
        converges(ops, [false; HOSTS]);
    }

    #[test]
    fn r73_r40_everything_converges_where_switches_pull(
        ops in prop::collection::vec(op(), 1..40),
        pulls in any::<[bool; HOSTS]>(),
    ) {
        converges(ops, pulls);
    }
}

//! What holds for every set of queues, workers and pins.

use std::collections::BTreeSet;

use godwit_tables::update::PortIdx;
use proptest::prelude::*;

use super::*;

fn queue(port: u16, queue: u16) -> Queue {
    Queue {
        id: QueueId { port: PortIdx(port), queue },
        name: format!("p{port}"),
        node: None,
        load: None,
        at: None,
        postcopy: false,
    }
}

fn queues(port: u16, n: u16) -> Vec<Queue> {
    (0..n).map(|q| queue(port, q)).collect()
}

/// Workers on cores 10, 11, … of one node.
fn workers(n: usize) -> Vec<WorkerAt> {
    (0..n).map(|w| WorkerAt { core: 10 + w, node: Some(0), postcopy: false }).collect()
}

#[test]
fn r13_queues_of_a_port_spread_first() {
    assert_eq!(assign(&queues(0, 4), &workers(2), &[]), Ok(vec![0, 1, 0, 1]));
    assert_eq!(assign(&queues(3, 3), &workers(1), &[]), Ok(vec![0, 0, 0]));
}

#[test]
fn r13_then_ports_spread() {
    let mut placed: Vec<Queue> = Vec::new();
    for port in 0..4 {
        placed.push(queue(port, 0));
        let at = assign(&placed, &workers(2), &[]).unwrap();
        placed.iter_mut().zip(at).for_each(|(q, w)| q.at = Some(w));
    }
    assert_eq!(placed.iter().filter_map(|q| q.at).collect::<Vec<_>>(), [0, 1, 0, 1]);
}

#[test]
fn r13_a_device_is_polled_on_its_own_numa_node() {
    let nodes = [0, 0, 1, 1];
    let workers: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(i, &n)| WorkerAt { core: i, node: Some(n), postcopy: false })
        .collect();
    let far = |q| Queue { node: Some(1), ..q };
    let all: Vec<Queue> = queues(0, 4).into_iter().map(far).collect();
    assert_eq!(assign(&all, &workers, &[]), Ok(vec![2, 3, 2, 3]));
    let nowhere: Vec<Queue> = queues(0, 2).into_iter().map(|q| Queue { node: Some(7), ..q }).collect();
    assert_eq!(assign(&nowhere, &workers, &[]), Ok(vec![0, 1]));
}

#[test]
fn r13_pins_go_before_everything() {
    let pins = ["p0:0@11".parse().unwrap(), "p0:1@11".parse().unwrap(), "elsewhere:9@77".parse().unwrap()];
    assert_eq!(assign(&queues(0, 3), &workers(2), &pins), Ok(vec![1, 1, 0]));
    let pins = ["p0:3@11".parse().unwrap()];
    assert!(matches!(assign(&queues(0, 3), &workers(2), &pins), Err(Refusal::NoSuchQueue { .. })));
}

#[test]
fn r13_load_moves_from_the_busiest_worker() {
    let loads = [600, 300, 200];
    let all: Vec<Queue> = queues(0, 3)
        .into_iter()
        .zip(loads)
        .map(|(q, load)| Queue { load: Some(load), at: Some(0), ..q })
        .collect();
    let id = |queue| QueueId { port: PortIdx(0), queue };
    assert_eq!(rebalance(&all, &workers(2), &[]), Ok(vec![Change { id: id(0), from: 0, to: 1 }]));
    let pins = ["p0:0@10".parse().unwrap()];
    let changes = rebalance(&all, &workers(2), &pins).unwrap();
    assert_eq!(changes.iter().map(|c| c.id.queue).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn r45_a_port_whose_memory_may_stall_has_a_worker_of_its_own() {
    let mut workers = workers(3);
    workers[1].postcopy = true;
    let guest = Queue { postcopy: true, ..queue(9, 0) };
    let all: Vec<Queue> = queues(0, 4).into_iter().chain([guest.clone()]).collect();
    assert_eq!(assign(&all, &workers, &[]), Ok(vec![0, 2, 0, 2, 1]));
    // A rebalance respects it, however busy the others are.
    let busy: Vec<Queue> = all
        .iter()
        .zip([0, 0, 0, 0, 1])
        .map(|(q, at)| Queue { load: Some(400), at: Some(at), ..q.clone() })
        .collect();
    let changes = rebalance(&busy, &workers, &[]).unwrap();
    assert!(!changes.is_empty() && changes.iter().all(|c| c.from != 1 && c.to != 1), "{changes:?}");
    // It sends for its guests, and for others only where every worker has a queue to send by.
    assert_eq!(transmit_owners(&[1], 1, 3, Some(1)), [1]);
    assert_eq!(transmit_owners(&[0], 2, 3, Some(1)), [0, 2]);
    // Without such a worker it is placed as any other.
    assert_eq!(assign(&[guest], &self::workers(1), &[]), Ok(vec![0]));
}

#[test]
fn r13_idle_guests_spread_by_what_their_queues_cost() {
    // As they come, one after the other, beside an uplink with two queues.
    let mut placed = queues(0, 2);
    for guest in 1..=500 {
        let at = assign(&placed, &workers(3), &[]).unwrap();
        placed.iter_mut().zip(at).for_each(|(q, w)| q.at = Some(w));
        placed.push(queue(guest, 0));
    }
    let counts = (0..3).map(|w| placed.iter().filter(|q| q.at == Some(w)).count()).collect::<Vec<_>>();
    assert!(counts.iter().all(|n| (166..=168).contains(n)), "{counts:?}");
    // 300 idle ones cost more than one that takes 5 % of a core.
    let mut all: Vec<Queue> = (0..300).map(|g| Queue { load: Some(0), at: Some(1), ..queue(g, 0) }).collect();
    all.push(Queue { load: Some(50), at: Some(0), ..queue(300, 0) });
    all.push(queue(301, 0));
    assert_eq!(assign(&all, &workers(2), &[]).unwrap().last(), Some(&0));
}

#[test]
fn r13_a_rebalance_spreads_idle_guests_only_where_there_are_many() {
    let idle = |n: u16| -> Vec<Queue> {
        (0..n).map(|g| Queue { load: Some(0), at: Some(0), ..queue(g, 0) }).collect()
    };
    assert_eq!(rebalance(&idle(200), &workers(2), &[]), Ok(vec![]));
    let changes = rebalance(&idle(500), &workers(2), &[]).unwrap();
    assert_eq!(changes.len(), 250);
    assert!(changes.iter().all(|c| (c.from, c.to) == (0, 1)));
    // A worker that is busy otherwise gets none.
    let busy = Queue { load: Some(400), at: Some(1), ..queue(500, 0) };
    assert_eq!(rebalance(&[idle(500), vec![busy]].concat(), &workers(2), &[]), Ok(vec![]));
    let pins: Vec<Pin> = (0..500).map(|g| format!("p{g}:0@10").parse().unwrap()).collect();
    assert_eq!(rebalance(&idle(500), &workers(2), &pins), Ok(vec![]));
}

#[test]
fn the_receiver_sends() {
    assert_eq!(transmit_owners(&[1], 1, 4, None), [1]);
    assert_eq!(transmit_owners(&[1, 0, 1], 2, 4, None), [1, 0]);
    assert_eq!(transmit_owners(&[2], 4, 4, None), [2, 0, 1, 3]);
    assert_eq!(transmit_owners(&[0], 8, 2, None), [0, 1]);
}

#[test]
fn a_queue_passes_through_those_who_send_for_its_worker() {
    let between = |ports: &[&[usize]], from, to| super::between(ports.iter().copied(), from, to);
    let own: &[usize] = &[0, 1, 2, 3];
    assert_eq!(between(&[own], 0, 1), []);
    let (third, mixed): (&[usize], &[usize]) = (&[3, 3, 3, 3], &[2, 1, 2, 1]);
    assert_eq!(between(&[third, own], 0, 1), [], "one ring keeps the order");
    assert_eq!(between(&[mixed, own], 0, 1), [2]);
    assert_eq!(between(&[mixed, own], 0, 2), [], "the last one sends them itself");
    assert_eq!(between(&[mixed, own], 1, 3), []);
    assert_eq!(between(&[third], 3, 0), [], "what it sends itself it sends first");
    assert_eq!(between(&[], 0, 1), []);
}

/// Ports with up to 8 queues on up to 2 nodes, workers on as many, some queues pinned.
fn scene() -> impl Strategy<Value = (Vec<Queue>, Vec<WorkerAt>, Vec<Pin>)> {
    let ports = prop::collection::vec((1_u16..8, prop::option::of(0_u32..2)), 1..6);
    let workers = prop::collection::vec(prop::option::of(0_u32..2), 1..9);
    let per_queue = prop::collection::vec((0_u64..1000, any::<u8>(), any::<bool>()), 48);
    (ports, workers, per_queue).prop_map(|(ports, nodes, per_queue)| {
        let workers: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(i, &node)| WorkerAt { core: i * 2, node, postcopy: false })
            .collect();
        let all = ports.iter().enumerate().flat_map(|(p, &(n, node))| {
            (0..n).map(move |q| Queue { node, ..queue(p as u16, q) }).collect::<Vec<_>>()
        });
        let mut queues: Vec<Queue> = all.collect();
        let mut pins = Vec::new();
        for (q, &(load, w, pin)) in queues.iter_mut().zip(&per_queue) {
            let w = usize::from(w) % workers.len();
            q.load = Some(load);
            q.at = Some(w);
            if pin && load % 3 == 0 {
                pins.push(Pin { port: q.name.clone(), queue: q.id.queue, core: workers[w].core });
            }
        }
        (queues, workers, pins)
    })
}

fn loads(queues: &[Queue], at: &[usize], workers: usize) -> Vec<u64> {
    let mut loads = vec![0; workers];
    queues.iter().zip(at).for_each(|(q, &w)| loads[w] += q.load.unwrap_or(0));
    loads
}

proptest! {
    #[test]
    fn r13_assignment_is_total_local_pinned_and_the_same_again((queues, workers, pins) in scene()) {
        let new: Vec<Queue> = queues.iter().map(|q| Queue { at: None, ..q.clone() }).collect();
        let at = assign(&new, &workers, &pins).unwrap();
        prop_assert_eq!(&at, &assign(&new, &workers, &pins).unwrap());
        prop_assert_eq!(at.len(), new.len());
        for (q, &w) in new.iter().zip(&at) {
            match pinned(q, &workers, &pins) {
                Some(pin) => prop_assert_eq!(w, pin),
                None if workers.iter().any(|w| !is_remote(q, *w)) => {
                    prop_assert!(!is_remote(q, workers[w]), "{:?} at {:?}", q, workers[w]);
                }
                None => {}
            }
        }
        // Queues that are placed stay.
        prop_assert_eq!(
            assign(&queues, &workers, &pins).unwrap(),
            queues.iter().map(|q| q.at.unwrap()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn r13_unmeasured_queues_of_a_port_differ_by_one_worker_at_most(n in 1_u16..40, w in 1_usize..9) {
        let at = assign(&queues(0, n), &workers(w), &[]).unwrap();
        let counts: Vec<usize> = (0..w).map(|w| at.iter().filter(|a| **a == w).count()).collect();
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
    }

    #[test]
    fn r13_measured_queues_leave_no_worker_busier_than_another_by_more_than_one_queue(
        loads_of in prop::collection::vec(0_u64..1000, 1..30), w in 1_usize..9,
    ) {
        let all: Vec<Queue> = loads_of.iter().enumerate()
            .map(|(i, &load)| Queue { load: Some(load), ..queue(i as u16, 0) }).collect();
        let at = assign(&all, &workers(w), &[]).unwrap();
        let by_worker = loads(&all, &at, w);
        let gap = by_worker.iter().max().unwrap() - by_worker.iter().min().unwrap();
        prop_assert!(gap <= *loads_of.iter().max().unwrap());
    }

    #[test]
    fn r13_a_rebalance_helps_and_breaks_no_rule((queues, workers, pins) in scene()) {
        let changes = rebalance(&queues, &workers, &pins).unwrap();
        let mut at: Vec<usize> = queues.iter().map(|q| q.at.unwrap()).collect();
        let before = loads(&queues, &at, workers.len());
        let mut moved = BTreeSet::new();
        for c in &changes {
            let i = queues.iter().position(|q| q.id == c.id).unwrap();
            prop_assert_eq!(at[i], c.from);
            prop_assert!(moved.insert(c.id), "each queue once");
            prop_assert!(pinned(&queues[i], &workers, &pins).is_none(), "no pinned queue");
            prop_assert!(is_remote(&queues[i], workers[c.to]) <= is_remote(&queues[i], workers[c.from]));
            at[i] = c.to;
        }
        let after = loads(&queues, &at, workers.len());
        prop_assert!(after.iter().max() <= before.iter().max());
    }
}

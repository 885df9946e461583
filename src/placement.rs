//! Which worker polls which receive queue: one pure function, so that it can be printed and tested.

use godwit_tables::update::PortIdx;

/// A receive queue by port and number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId {
    /// The port.
    pub port: PortIdx,
    /// The queue's number at the port.
    pub queue: u16,
}

/// Chooses workers for `new` queues, given what each of `workers` workers polls already.
///
/// A queue goes to the worker that polls the fewest queues of that port, of those to the one that polls
/// the fewest at all, of those to the lowest: a port's queues spread first, then the ports.
/// Queues that are placed stay where they are.
pub fn place(placed: &[(QueueId, usize)], new: &[QueueId], workers: usize) -> Vec<(QueueId, usize)> {
    let mut all = placed.to_vec();
    let mut out = Vec::with_capacity(new.len());
    for &id in new {
        let load = |w: usize| {
            let mine = all.iter().filter(move |(_, at)| *at == w);
            let of_port = mine.clone().filter(|(q, _)| q.port == id.port).count();
            (of_port, mine.count(), w)
        };
        let worker = (0..workers).min_by_key(|&w| load(w)).unwrap_or(0);
        all.push((id, worker));
        out.push((id, worker));
    }
    out
}

/// The worker that owns transmit queue `queue` of a port with fewer transmit queues than workers: the
/// first ones that poll it, so that a port with one queue is received and sent by the same worker.
pub fn transmit_owners(polled_by: &[usize], tx_queues: usize, workers: usize) -> Vec<usize> {
    let mut owners: Vec<usize> = Vec::with_capacity(tx_queues);
    for &w in polled_by.iter().chain(&(0..workers).collect::<Vec<_>>()) {
        if owners.len() < tx_queues && !owners.contains(&w) {
            owners.push(w);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(port: u16, n: u16) -> Vec<QueueId> {
        (0..n).map(|queue| QueueId { port: PortIdx(port), queue }).collect()
    }

    fn workers(placed: &[(QueueId, usize)]) -> Vec<usize> {
        placed.iter().map(|p| p.1).collect()
    }

    #[test]
    fn queues_of_a_port_spread_first() {
        let up = place(&[], &queues(0, 4), 2);
        assert_eq!(workers(&up), [0, 1, 0, 1]);
    }

    #[test]
    fn then_ports_spread() {
        let mut placed = place(&[], &queues(0, 1), 2);
        for port in 1..4 {
            let more = place(&placed, &queues(port, 1), 2);
            placed.extend(more);
        }
        assert_eq!(workers(&placed), [0, 1, 0, 1]);
    }

    #[test]
    fn one_worker_gets_everything() {
        assert_eq!(workers(&place(&[], &queues(3, 3), 1)), [0, 0, 0]);
    }

    #[test]
    fn the_receiver_sends() {
        assert_eq!(transmit_owners(&[1], 1, 4), [1]);
        assert_eq!(transmit_owners(&[1, 0, 1], 2, 4), [1, 0]);
        assert_eq!(transmit_owners(&[2], 4, 4), [2, 0, 1, 3]);
        assert_eq!(transmit_owners(&[0], 8, 2), [0, 1]);
    }
}

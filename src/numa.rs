//! NUMA nodes: where packet buffers should lie, and what lies elsewhere. Pure functions but for the one that
//! reads a card's node.

use std::path::Path;

/// The node of a PCI card that is named by its address, as the kernel has it below `root` (`/sys`); `None` where
/// there is one node only, or no such card.
pub fn of_card(devargs: &str, root: &Path) -> Option<u32> {
    let address = devargs.split(',').next().unwrap_or_default();
    let address =
        if address.matches(':').count() == 1 { format!("0000:{address}") } else { address.to_owned() };
    let file = root.join("bus/pci/devices").join(address.to_lowercase()).join("numa_node");
    // -1 where the kernel does not know.
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The node for packet buffers: one that a worker is on, of these the one with the most cards, then with the most
/// workers, then the lowest. `None`, which is any, where no worker's node is known.
pub fn of_buffers(workers: &[Option<u32>], cards: &[Option<u32>]) -> Option<u32> {
    let count = |all: &[Option<u32>], node: u32| all.iter().filter(|n| **n == Some(node)).count();
    let rank = |&node: &u32| (count(cards, node), count(workers, node), std::cmp::Reverse(node));
    workers.iter().copied().flatten().max_by_key(rank)
}

/// What to tell the operator of a card whose frames cross between nodes: the cores that poll it, each with its
/// node, and the node of the packet buffers. Nothing where a node is not known.
pub fn misplaced(card: Option<u32>, polled: &[(usize, Option<u32>)], buffers: Option<u32>) -> Vec<String> {
    let Some(card) = card else { return Vec::new() };
    let far = |node: Option<u32>| node.filter(|n| *n != card);
    let mut said: Vec<String> = polled
        .iter()
        .filter_map(|&(core, node)| {
            let node = far(node)?;
            Some(format!(
                "the card is on NUMA node {card} and core {core}, which polls it, on node {node}: give it \
                 workers on its own node (nve.workers, nve.rxq_affinity)"
            ))
        })
        .collect();
    said.dedup();
    said.extend(far(buffers).map(|node| {
        format!(
            "the card is on NUMA node {card} and packet buffers are on node {node}: take workers on the \
             card's node, or serve cards of two nodes by two switches"
        )
    }));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r13_buffers_lie_with_the_cards_where_there_are_workers() {
        let on = |nodes: &[u32]| nodes.iter().map(|n| Some(*n)).collect::<Vec<_>>();
        // Workers on both: where the cards are.
        assert_eq!(of_buffers(&on(&[0, 0, 1]), &on(&[1])), Some(1));
        assert_eq!(of_buffers(&on(&[0, 1, 1]), &on(&[0, 0, 1])), Some(0));
        // Nobody polls from there.
        assert_eq!(of_buffers(&on(&[0]), &on(&[1, 1])), Some(0));
        // No card, or none that tells: most workers, then the lowest.
        assert_eq!(of_buffers(&on(&[0, 1, 1]), &[]), Some(1));
        assert_eq!(of_buffers(&on(&[1, 0]), &[None]), Some(0));
        assert_eq!(of_buffers(&[None, None], &on(&[1])), None);
    }

    #[test]
    fn r13_a_card_far_from_its_worker_or_buffers_is_told_of() {
        let near = [(2, Some(0)), (3, Some(0))];
        assert_eq!(misplaced(Some(0), &near, Some(0)), [""; 0]);
        // What is not known is not complained of: virtual devices have no node.
        assert_eq!(misplaced(None, &[(2, Some(1))], Some(1)), [""; 0]);
        assert_eq!(misplaced(Some(1), &[(2, None)], None), [""; 0]);
        let said = misplaced(Some(1), &[(2, Some(0)), (2, Some(0)), (6, Some(1))], Some(0));
        assert_eq!(said.len(), 2, "one queue's worker, and the buffers: {said:?}");
        assert!(said[0].contains("node 1") && said[0].contains("core 2") && said[0].contains("node 0"));
        assert!(said[1].contains("buffers are on node 0"));
    }

    #[test]
    fn r13_a_cards_node_is_what_the_kernel_says() {
        let root = tempfile::tempdir().unwrap();
        for (card, node) in [("0000:03:00.0", "1\n"), ("0000:af:00.1", "-1\n")] {
            let folder = root.path().join("bus/pci/devices").join(card);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("numa_node"), node).unwrap();
        }
        assert_eq!(of_card("0000:03:00.0", root.path()), Some(1));
        assert_eq!(of_card("03:00.0,queues=4", root.path()), Some(1));
        assert_eq!(of_card("0000:AF:00.1", root.path()), None, "the kernel does not know");
        assert_eq!(of_card("net_tap0,iface=x", root.path()), None);
    }
}

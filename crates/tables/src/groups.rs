//! Multicast groups (R60, R61): which ports and which other NVEs want what is sent to a group of a VN.
//!
//! A group's members are a chain in one shared array, so that groups cost what they have members, and nothing is
//! reserved for a VN. Group `0.0.0.0` or `::` of a VN has those that want every group of the family: ports where a
//! multicast router was heard, and NVEs with such ports.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashMap;

use crate::update::{Member, VnIdx};
use crate::{OutOfRange, TablesConfig};

/// The end of a chain.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    member: Member,
    next: u32,
}

/// The group of those that want every group of `group`'s family.
pub const fn routers_of(group: IpAddr) -> IpAddr {
    match group {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// All groups of all VNs.
pub struct Groups {
    /// First node of each group.
    heads: HashMap<(VnIdx, IpAddr), u32>,
    nodes: Vec<Node>,
    /// First node that is in no group.
    free: u32,
    /// Nodes that are in one.
    members: usize,
    capacity: usize,
}

impl Groups {
    pub(crate) fn new(config: &TablesConfig) -> Groups {
        let count = u32::try_from(config.member_capacity).unwrap_or(NONE - 1).min(NONE - 1);
        let next = |n| if n + 1 == count { NONE } else { n + 1 };
        let unused = Member::Tunnel(crate::update::TunnelIdx(0));
        Groups {
            heads: HashMap::with_capacity(2 * config.group_capacity),
            nodes: (0..count).map(|n| Node { member: unused, next: next(n) }).collect(),
            free: if count == 0 { NONE } else { 0 },
            members: 0,
            capacity: config.group_capacity,
        }
    }

    /// Groups with members.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// No group has members.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Members of all groups together.
    pub fn members_in_all(&self) -> usize {
        self.members
    }

    /// The members of a group, in no order.
    pub fn members(&self, vn: VnIdx, group: IpAddr) -> impl Iterator<Item = Member> + use<'_> {
        let mut at = self.heads.get(&(vn, group)).copied().unwrap_or(NONE);
        core::iter::from_fn(move || {
            let node = self.nodes.get(at as usize)?;
            at = node.next;
            Some(node.member)
        })
    }

    /// It is a member.
    pub fn has(&self, vn: VnIdx, group: IpAddr, member: Member) -> bool {
        self.members(vn, group).any(|m| m == member)
    }

    pub(crate) fn add(&mut self, vn: VnIdx, group: IpAddr, member: Member) -> Result<(), OutOfRange> {
        if self.has(vn, group, member) {
            return Ok(());
        }
        let key = (vn, group);
        if self.free == NONE || (self.heads.len() >= self.capacity && !self.heads.contains_key(&key)) {
            return Err(OutOfRange);
        }
        let at = self.free;
        let head = self.heads.entry(key).or_insert(NONE);
        let node = &mut self.nodes[at as usize];
        self.free = node.next;
        *node = Node { member, next: *head };
        *head = at;
        self.members += 1;
        Ok(())
    }

    pub(crate) fn remove(&mut self, vn: VnIdx, group: IpAddr, member: Member) {
        let Some(&head) = self.heads.get(&(vn, group)) else { return };
        let (mut before, mut at) = (NONE, head);
        while let Some(&node) = self.nodes.get(at as usize) {
            if node.member == member {
                self.unlink((vn, group), before, at, node.next);
                return;
            }
            (before, at) = (at, node.next);
        }
    }

    fn unlink(&mut self, key: (VnIdx, IpAddr), before: u32, at: u32, next: u32) {
        if let Some(node) = self.nodes.get_mut(before as usize) {
            node.next = next;
        } else if next == NONE {
            self.heads.remove(&key);
        } else {
            self.heads.insert(key, next);
        }
        self.release(at);
    }

    fn release(&mut self, at: u32) {
        self.nodes[at as usize].next = self.free;
        self.free = at;
        self.members -= 1;
    }

    /// A VN is forgotten, with what control left of its groups.
    pub(crate) fn remove_vn(&mut self, vn: VnIdx) {
        while let Some((&key, &head)) = self.heads.iter().find(|((v, _), _)| *v == vn) {
            self.heads.remove(&key);
            let mut at = head;
            while let Some(node) = self.nodes.get(at as usize) {
                let next = node.next;
                self.release(at);
                at = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::update::{PortIdx, TunnelIdx};

    fn small() -> Groups {
        Groups::new(&TablesConfig { group_capacity: 4, member_capacity: 6, ..TablesConfig::default() })
    }

    fn group(n: u8) -> IpAddr {
        IpAddr::from([239, 1, 1, n])
    }

    proptest! {
        #[test]
        fn r61_groups_are_the_sets_that_a_naive_table_has(
            steps in proptest::collection::vec((0u8..8, 0u16..2, 0u8..5, 0u16..4), 0..80),
        ) {
            let mut groups = small();
            let mut naive: BTreeSet<(VnIdx, IpAddr, u16)> = BTreeSet::new();
            let member = |n: u16| match n % 2 {
                0 => Member::Port(PortIdx(n)),
                _ => Member::Tunnel(TunnelIdx(n.into())),
            };
            for (what, vn, g, m) in steps {
                let (vn, g) = (VnIdx(vn), group(g));
                match what {
                    0..=4 => {
                        let known = naive.iter().map(|(v, g, _)| (*v, *g)).collect::<BTreeSet<_>>();
                        let room = naive.len() < 6 && (known.len() < 4 || known.contains(&(vn, g)));
                        let is_new = !naive.contains(&(vn, g, m));
                        let added = groups.add(vn, g, member(m)).is_ok();
                        prop_assert_eq!(added, room || !is_new);
                        if added {
                            naive.insert((vn, g, m));
                        }
                    }
                    5 | 6 => {
                        groups.remove(vn, g, member(m));
                        naive.remove(&(vn, g, m));
                    }
                    _ => {
                        groups.remove_vn(vn);
                        naive.retain(|(v, ..)| *v != vn);
                    }
                }
                prop_assert_eq!(groups.members_in_all(), naive.len());
                for (vn, g) in [0, 1].into_iter().flat_map(|v| (0..5).map(move |g| (VnIdx(v), group(g)))) {
                    let mut has: Vec<_> = groups.members(vn, g).collect();
                    has.sort_by_key(|m| format!("{m:?}"));
                    let mut wants: Vec<_> =
                        naive.iter().filter(|(v, n, _)| (*v, *n) == (vn, g)).map(|x| member(x.2)).collect();
                    wants.sort_by_key(|m| format!("{m:?}"));
                    prop_assert_eq!(has, wants);
                }
            }
        }
    }
}

//! Multicast groups (R60, R61): which ports and which other NVEs want what is sent to a group of a VN.
//!
//! A group's members are a chain in one shared array, so that groups cost what they have members, and nothing is
//! reserved for a VN; where each member is in it is known too, since each copy to a router asks. Group `0.0.0.0` or `::` of a VN has those that want every group of the family: ports where a
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
    /// Of those that are in a group.
    before: u32,
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
    /// The node of each member of each group.
    index: HashMap<(VnIdx, IpAddr, Member), u32>,
    /// First node that is in no group.
    free: u32,
    capacity: usize,
}

impl Groups {
    pub(crate) fn new(config: &TablesConfig) -> Groups {
        let count = u32::try_from(config.member_capacity).unwrap_or(NONE - 1).min(NONE - 1);
        let next = |n| if n + 1 == count { NONE } else { n + 1 };
        let unused = Member::Tunnel(crate::update::TunnelIdx(0));
        Groups {
            heads: HashMap::with_capacity(2 * config.group_capacity),
            nodes: (0..count).map(|n| Node { member: unused, next: next(n), before: NONE }).collect(),
            index: HashMap::with_capacity(2 * count as usize),
            free: if count == 0 { NONE } else { 0 },
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
        self.index.len()
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
        self.index.contains_key(&(vn, group, member))
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
        let next = core::mem::replace(head, at);
        self.free = self.nodes[at as usize].next;
        self.nodes[at as usize] = Node { member, next, before: NONE };
        if let Some(node) = self.nodes.get_mut(next as usize) {
            node.before = at;
        }
        self.index.insert((vn, group, member), at);
        Ok(())
    }

    pub(crate) fn remove(&mut self, vn: VnIdx, group: IpAddr, member: Member) {
        let Some(at) = self.index.remove(&(vn, group, member)) else { return };
        let Node { next, before, .. } = self.nodes[at as usize];
        if let Some(node) = self.nodes.get_mut(next as usize) {
            node.before = before;
        }
        if let Some(node) = self.nodes.get_mut(before as usize) {
            node.next = next;
        } else if next == NONE {
            self.heads.remove(&(vn, group));
        } else {
            self.heads.insert((vn, group), next);
        }
        self.release(at);
    }

    fn release(&mut self, at: u32) {
        self.nodes[at as usize].next = self.free;
        self.free = at;
    }

    /// A VN is forgotten, with what control left of its groups.
    pub(crate) fn remove_vn(&mut self, vn: VnIdx) {
        let Groups { heads, nodes, index, free, .. } = self;
        heads.retain(|&(v, group), &mut head| {
            let mut at = if v == vn { head } else { NONE };
            while let Some(node) = nodes.get_mut(at as usize) {
                index.remove(&(v, group, node.member));
                let next = core::mem::replace(&mut node.next, *free);
                *free = core::mem::replace(&mut at, next);
            }
            v != vn
        });
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
                    for m in 0..4 {
                        let is_member = naive.contains(&(vn, g, m));
                        prop_assert_eq!(groups.has(vn, g, member(m)), is_member);
                    }
                }
            }
        }
    }
}

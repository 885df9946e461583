//! Who is a member of which group of a VN: both ways round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::NveId;
use godwit_tables::update::PortIdx;

/// Where members are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place {
    Port(PortIdx),
    Nve(NveId),
}

/// Of a group.
#[derive(Default, Debug)]
struct Members {
    ports: BTreeSet<PortIdx>,
    nves: BTreeSet<NveId>,
}

/// The groups of a VN. `0.0.0.0` and `::` are those of multicast routers, which want all of their family.
#[derive(Default, Debug)]
pub(super) struct Groups {
    by_group: BTreeMap<IpAddr, Members>,
    by_port: BTreeMap<PortIdx, BTreeSet<IpAddr>>,
    by_nve: BTreeMap<NveId, BTreeSet<IpAddr>>,
    /// Groups that ports want.
    here: usize,
}

impl Groups {
    /// False: it was one already.
    pub(super) fn add(&mut self, group: IpAddr, place: Place) -> bool {
        let members = self.by_group.entry(group).or_default();
        match place {
            Place::Port(port) => {
                self.here += usize::from(members.ports.is_empty());
                members.ports.insert(port);
                self.by_port.entry(port).or_default().insert(group)
            }
            Place::Nve(nve) => {
                members.nves.insert(nve.clone());
                self.by_nve.entry(nve).or_default().insert(group)
            }
        }
    }

    /// False: it was none.
    pub(super) fn remove(&mut self, group: IpAddr, place: &Place) -> bool {
        let Some(members) = self.by_group.get_mut(&group) else { return false };
        let was = match place {
            Place::Port(port) => {
                let was = members.ports.remove(port);
                self.here -= usize::from(was && members.ports.is_empty());
                take(&mut self.by_port, port, group);
                was
            }
            Place::Nve(nve) => {
                take(&mut self.by_nve, nve, group);
                members.nves.remove(nve)
            }
        };
        if members.ports.is_empty() && members.nves.is_empty() {
            self.by_group.remove(&group);
        }
        was
    }

    pub(super) fn has(&self, group: IpAddr, place: &Place) -> bool {
        self.by_group.get(&group).is_some_and(|members| match place {
            Place::Port(port) => members.ports.contains(port),
            Place::Nve(nve) => members.nves.contains(nve),
        })
    }

    /// The groups of a port.
    pub(super) fn of_port(&self, port: PortIdx) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_port.get(&port).into_iter().flatten().copied()
    }

    /// How many these are, those of a router left out.
    pub(super) fn count_of_port(&self, port: PortIdx) -> usize {
        self.of_port(port).filter(|group| !group.is_unspecified()).count()
    }

    /// The groups of another NVE.
    pub(super) fn of_nve(&self, nve: &NveId) -> Vec<IpAddr> {
        self.by_nve.get(nve).into_iter().flatten().copied().collect()
    }

    /// Other NVEs with groups.
    pub(super) fn nves(&self) -> impl Iterator<Item = &NveId> {
        self.by_nve.keys()
    }

    /// A port here wants the group.
    pub(super) fn is_wanted_here(&self, group: IpAddr) -> bool {
        self.by_group.get(&group).is_some_and(|members| !members.ports.is_empty())
    }

    /// Groups that ports here want.
    pub(super) fn count_here(&self) -> usize {
        self.here
    }

    /// These groups.
    pub(super) fn here(&self) -> BTreeSet<IpAddr> {
        self.by_port.values().flatten().copied().collect()
    }

    pub(super) fn ports(&self, group: IpAddr) -> impl Iterator<Item = PortIdx> + '_ {
        self.by_group.get(&group).into_iter().flat_map(|members| members.ports.iter().copied())
    }

    pub(super) fn nves_of(&self, group: IpAddr) -> impl Iterator<Item = &NveId> + '_ {
        self.by_group.get(&group).into_iter().flat_map(|members| members.nves.iter())
    }

    /// All groups with members.
    pub(super) fn all(&self) -> Vec<IpAddr> {
        self.by_group.keys().copied().collect()
    }
}

fn take<K: Ord>(index: &mut BTreeMap<K, BTreeSet<IpAddr>>, key: &K, group: IpAddr) {
    if let Some(groups) = index.get_mut(key) {
        groups.remove(&group);
        if groups.is_empty() {
            index.remove(key);
        }
    }
}

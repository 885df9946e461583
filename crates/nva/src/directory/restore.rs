//! From persistent state to a directory that serves.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::NveId;
use godwit_wire::{Instant, Vni};

use super::bind::Binding;
use super::moves::Moves;
use super::nves::Nve;
use super::ports::Ports;
use super::records::Records;
use super::updates::Updates;
use super::vns::Vn;
use super::{Config, Directory, State};

impl Directory {
    /// An empty directory, as a first start has it.
    pub fn new(config: Config) -> Directory {
        Directory::restore(config, State::default(), 1)
    }

    /// The directory that `state` describes, in its new incarnation `epoch`.
    ///
    /// The caller has made `epoch` durable before this (R73).
    ///
    /// # Panics
    /// Where `epoch` is not above the last one: versions would repeat.
    pub fn restore(config: Config, state: State, epoch: u32) -> Directory {
        assert!(epoch > state.epoch, "epoch {epoch} is not above {}", state.epoch);
        let mut d = Directory {
            config,
            epoch,
            seq: state.seq,
            vns: BTreeMap::new(),
            vn_names: BTreeMap::new(),
            records: Records::default(),
            binding: Binding::default(),
            policies: state.policies.clone(),
            nves: BTreeMap::new(),
            sessions: BTreeMap::new(),
            clones: Default::default(),
            ports: Ports::default(),
            moves: Moves::default(),
            updates: Updates::default(),
            former: BTreeMap::new(),
            last_sender: 0,
            contests: BTreeMap::new(),
            crowd_quiet: Instant(0),
            flaps: state.flaps.clone(),
            granted: BTreeMap::new(),
            last_tick: None,
            started: None,
            started_us: 0,
            next_sweep: Instant(0),
            now: Instant(0),
            wall_us: 0,
            out: Vec::new(),
        };
        d.load(state);
        d
    }

    fn load(&mut self, state: State) {
        for (vni, record) in state.vns {
            self.vn_names.insert(record.name.clone(), vni);
            self.vns.insert(vni, Vn { record: Some(record), ..Vn::default() });
        }
        for (id, record) in state.nves {
            for vni in &record.vnis {
                self.vns.entry(*vni).or_default().members.insert(id.clone());
            }
            self.expect(&record);
            let expected = !record.foreign;
            self.nves.insert(id, Nve { expected, ..Nve::new(record) });
        }
        for record in state.vms.into_values() {
            self.insert_vm(record);
        }
        let foreign: BTreeSet<(Vni, NveId)> = self.foreign_memberships();
        for (vni, nve) in foreign {
            self.vns.entry(vni).or_default().members.insert(nve);
        }
        self.moves = Moves::restored(state.moves);
    }

    /// Foreign NVEs are members of the VNs of the VMs that are pinned to them (R60).
    fn foreign_memberships(&self) -> BTreeSet<(Vni, NveId)> {
        let foreign = self.nves.values().filter(|n| n.record.foreign);
        foreign.flat_map(|n| n.vms.iter().map(|key| (key.vni, n.record.id.clone()))).collect()
    }

    /// What would be restored after a crash now; for tests and the simulator.
    pub fn state(&self) -> State {
        State {
            epoch: self.epoch,
            seq: self.seq,
            vns: self.vns.iter().filter_map(|(vni, v)| Some((*vni, v.record.clone()?))).collect(),
            vms: self.records.stored(),
            policies: self.policies.clone(),
            flaps: self.flaps.clone(),
            nves: self.nves.iter().map(|(id, n)| (id.clone(), n.record.clone())).collect(),
            moves: self.moves.stored(),
        }
    }
}

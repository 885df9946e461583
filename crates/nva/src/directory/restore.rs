//! From persistent state to a directory that serves.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::NveId;
use godwit_wire::{Instant, Vni};

use super::bind::Binding;
use super::claims::Claims;
use super::counts::Counts;
use super::domains::Domains;
use super::drains::Drains;
use super::moves::Moves;
use super::nves::Nve;
use super::policies::Policies;
use super::ports::Ports;
use super::records::Records;
use super::session::Sessions;
use super::tick::Clock;
use super::updates::Updates;
use super::vns::Vns;
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
            vns: Vns::default(),
            domains: Domains::restored(&state),
            records: Records::default(),
            binding: Binding::default(),
            policies: Policies::restored(state.policies.clone()),
            nves: BTreeMap::new(),
            access: state.access.clone(),
            sessions: Sessions::default(),
            clones: Default::default(),
            keys: Default::default(),
            ports: Ports::default(),
            moves: Moves::default(),
            drains: Drains::default(),
            updates: Updates::default(),
            claims: Claims::restored(state.flaps.clone()),
            clock: Clock::default(),
            counts: Counts::default(),
            now: Instant(0),
            wall_us: 0,
            out: Vec::new(),
        };
        d.load(state);
        d
    }

    fn load(&mut self, state: State) {
        for record in state.vns.into_values() {
            if let Some(routing) = &record.settings.routing {
                self.domains.join(record.vni, routing);
            }
            self.vns.define(record);
        }
        for (id, record) in state.nves {
            for vni in &record.vnis {
                self.vns.at(*vni).members.insert(id.clone());
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
            self.vns.at(vni).members.insert(nve);
        }
        self.moves = Moves::restored(state.moves);
        self.drains = Drains::restored(state.drains);
    }

    /// Foreign NVEs are members of the VNs of the VMs that are pinned to them (R60).
    fn foreign_memberships(&self) -> BTreeSet<(Vni, NveId)> {
        let foreign = self.nves.values().filter(|n| n.record.foreign);
        foreign.flat_map(|n| n.vms.iter().map(|key| (key.vni, n.record.id.clone()))).collect()
    }

    /// What would be restored after a crash now; for tests and the simulator.
    pub fn state(&self) -> State {
        let mut state = State {
            epoch: self.epoch,
            seq: self.seq,
            vns: self.vns.stored(),
            vms: self.records.stored(),
            policies: self.policies.stored(),
            flaps: self.claims.flaps().clone(),
            nves: self.nves.iter().map(|(id, n)| (id.clone(), n.record.clone())).collect(),
            access: self.access.clone(),
            moves: self.moves.stored(),
            drains: self.drains.stored(),
            ..State::default()
        };
        self.domains.store(&mut state);
        state
    }
}

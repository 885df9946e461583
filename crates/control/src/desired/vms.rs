//! VMs, and the addresses that are answered for.

use std::net::IpAddr;

use godwit_tables::update::{HoldLimits, Key, TunnelIdx, Update, VmState, VnIdx};
use godwit_wire::{Instant, Mac};

use super::DesiredState;

/// What a worker answers on an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Owner { mac: Mac, router: bool },
    Absent { until: Instant },
}

impl DesiredState {
    /// What the workers do with a VM's frames.
    pub(crate) fn vm(&self, key: Key) -> Option<VmState> {
        self.vms.get(&key).copied()
    }

    /// Sets what the workers do with a VM's frames; `None` forgets it.
    pub(crate) fn set_vm(&mut self, key: Key, state: Option<VmState>) {
        let old = match state {
            Some(s) => self.vms.insert(key, s),
            None => self.vms.remove(&key),
        };
        if old == state {
            return;
        }
        self.count_use(state.and_then(tunnel_of), 1);
        match state {
            Some(state) => self.emit(Update::VmSet { key, state }),
            None => self.emit(Update::VmRemove { key }),
        }
        self.count_use(old.and_then(tunnel_of), -1);
    }

    /// A VM of this NVE has come by a move, as the directory knows now.
    pub(crate) fn settle_vm(&mut self, key: Key, hold: HoldLimits) {
        if matches!(self.vms.get(&key), Some(VmState::Local { .. } | VmState::Arrived { .. })) {
            self.emit(Update::VmSettle { key, hold });
        }
    }

    /// The workers have forgotten a negative entry by themselves.
    pub(crate) fn absent_expired(&mut self, key: Key) {
        if matches!(self.vms.get(&key), Some(VmState::Absent { .. })) {
            self.vms.remove(&key);
        }
    }

    /// Has an entry that is watched watched once more, in case that a worker's word of its use was lost (R40).
    pub(crate) fn watch_again(&mut self, key: Key) {
        if let Some(state @ VmState::Ageing { .. }) = self.vm(key) {
            self.emit(Update::VmSet { key, state });
        }
    }

    /// Tells a worker once more what it should know; false: nothing is known.
    pub(crate) fn repeat_vm(&mut self, worker: usize, key: Key) -> bool {
        let state = self.vms.get(&key).copied().filter(|s| !matches!(s, VmState::Absent { .. }));
        if let Some(state) = state {
            self.updates.push((worker, Update::VmSet { key, state }));
        }
        state.is_some()
    }

    /// Sets what is answered on an address; `None` forgets it.
    pub(crate) fn set_answer(&mut self, vn: VnIdx, ip: IpAddr, answer: Option<Answer>) {
        let old = match answer {
            Some(a) => self.answers.insert((vn, ip), a),
            None => self.answers.remove(&(vn, ip)),
        };
        if old == answer {
            return;
        }
        // The route comes first: what waits for the answer goes by it (R58).
        self.follow_answer(vn, ip, answer);
        match answer {
            Some(answer) => self.emit(answer_update(vn, ip, answer)),
            None => self.emit(Update::NeighborRemove { vn, ip }),
        }
    }

    /// The workers have an answer on an address.
    pub(crate) fn has_answer(&self, vn: VnIdx, ip: IpAddr) -> bool {
        self.answers.contains_key(&(vn, ip))
    }

    /// The workers have forgotten a negative answer by themselves.
    pub(crate) fn absent_ip_expired(&mut self, vn: VnIdx, ip: IpAddr) {
        if matches!(self.answers.get(&(vn, ip)), Some(Answer::Absent { .. })) {
            self.answers.remove(&(vn, ip));
        }
    }

    /// Who is answered for on an address.
    pub(crate) fn owner(&self, vn: VnIdx, ip: IpAddr) -> Option<(Mac, bool)> {
        match self.answers.get(&(vn, ip)) {
            Some(Answer::Owner { mac, router }) => Some((*mac, *router)),
            _ => None,
        }
    }

    /// Tells a worker once more who has an address; false: nothing is known.
    pub(crate) fn repeat_answer(&mut self, worker: usize, vn: VnIdx, ip: IpAddr) -> bool {
        let answer = self.answers.get(&(vn, ip)).copied().filter(|a| matches!(a, Answer::Owner { .. }));
        if let Some(answer) = answer {
            self.repeat_route(worker, vn, ip);
            self.updates.push((worker, answer_update(vn, ip, answer)));
        }
        answer.is_some()
    }
}

/// The tunnel that an entry names.
pub(crate) fn tunnel_of(state: VmState) -> Option<TunnelIdx> {
    state.target().map(|to| to.tunnel)
}

pub(super) fn answer_update(vn: VnIdx, ip: IpAddr, answer: Answer) -> Update {
    match answer {
        Answer::Owner { mac, router } => Update::NeighborSet { vn, ip, mac, router },
        Answer::Absent { until } => Update::NeighborAbsent { vn, ip, until },
    }
}

//! Special entries made and ended: questions to the directory, and VMs whose tunnel is not ready.

use godwit_wire::Instant;

use crate::update::{Key, PortIdx, PortRole, Target, VmState};
use crate::vms::{SpecialIdx, State};
use crate::{DropReason, Tables};

/// Frames to an unknown destination that wait for a VM that has just moved here, at most.
const SETTLING_PACKETS: u32 = 8192;

impl Tables {
    /// Begins a query for an unknown destination (R34). The caller raises the event and holds the
    /// frame.
    ///
    /// # Errors
    /// [`DropReason::MissLimit`] where too many are under way, for all or for this port.
    pub fn begin_query(&mut self, key: Key, port: PortIdx, now: Instant) -> Result<SpecialIdx, DropReason> {
        if !self.may_query(port, now) {
            return Err(DropReason::MissLimit);
        }
        let until = now + self.bounds.miss_hold_age;
        let hold = self.hold_of_question(port, now);
        let at = self.special(key, State::Querying { port, until }).ok_or(DropReason::MissLimit)?;
        self.vms.special_mut(at).limits.packets = hold;
        self.ports.counts(port).misses += 1;
        self.ports.asked(port, now);
        self.counters.worker.misses += 1;
        Ok(at)
    }

    /// Frames that may wait for an answer that `port` asks for (R35). More than else where its VM has just moved
    /// here: it says at once what it could not say on the way, to peers that this NVE need not know yet (R45).
    pub(crate) fn hold_of_question(&self, port: PortIdx, now: Instant) -> u32 {
        let usual = self.miss_hold_packets();
        let Some(&PortRole::Access { vn, mac, .. }) = self.ports.role(port) else { return usual };
        match self.vms.special_of(Key::new(vn, mac)) {
            Some(vm) if vm.is_settling(now) => usual.max(vm.limits.packets.min(SETTLING_PACKETS)),
            _ => usual,
        }
    }

    /// A frame of this port for an unknown destination would begin a query.
    pub fn may_query(&self, port: PortIdx, now: Instant) -> bool {
        self.ports.may_ask(port, now)
            && self.vms.querying() < self.bounds.miss_capacity
            && self.ports.under_way(port).0 < self.bounds.misses_per_port
            && self.vms.has_room()
    }

    /// The special entry of a remote VM whose tunnel is not ready, so that frames can wait for it.
    ///
    /// # Errors
    /// [`DropReason::NoTunnel`] where the tunnel does not exist, [`DropReason::MissLimit`] where
    /// there is no room.
    pub fn await_tunnel(&mut self, key: Key, to: Target) -> Result<SpecialIdx, DropReason> {
        if self.tunnels.get(to.tunnel).is_none() {
            return Err(DropReason::NoTunnel);
        }
        self.special(key, State::Known(VmState::Remote { to })).ok_or(DropReason::MissLimit)
    }

    /// A frame used an entry whose life nears its end (R40): it is a plain one again.
    pub fn used(&mut self, key: Key, to: Target) {
        self.vms.used(key, to, &mut self.routes);
    }

    /// A new special entry, an old negative answer's if there is no other.
    pub(crate) fn special(&mut self, key: Key, state: State) -> Option<SpecialIdx> {
        let made = match self.vms.make_special(key, state, &mut self.routes) {
            Ok(made) => made,
            Err(_) => {
                let victim = self.vms.some_absent()?;
                self.forget(victim, DropReason::HoldAborted);
                self.vms.make_special(key, state, &mut self.routes).ok()?
            }
        };
        let (at, is_new) = made;
        self.count_vm(key, is_new);
        Some(at)
    }

    pub(crate) fn count_vm(&mut self, key: Key, is_new: bool) {
        if is_new && let Some(vn) = self.vns.slot(key.vn()) {
            vn.vms += 1;
        }
    }

    pub(crate) fn uncount_vm(&mut self, key: Key) {
        if let Some(vn) = self.vns.slot(key.vn()) {
            vn.vms = vn.vms.saturating_sub(1);
        }
    }

    /// The entry is about to be something else than `Querying`.
    pub(crate) fn query_over(&mut self, at: SpecialIdx) {
        if let State::Querying { port, .. } = self.vms.special(at).state {
            let misses = &mut self.ports.counts(port).misses;
            *misses = misses.saturating_sub(1);
        }
    }

    /// Frees an entry: what it holds is dropped, its key leaves the table.
    pub(crate) fn forget(&mut self, at: SpecialIdx, reason: DropReason) {
        self.drop_all_held(at, reason);
        let key = self.vms.special(at).key;
        self.query_over(at);
        self.vms.free_special(at, None, &mut self.routes);
        self.uncount_vm(key);
    }
}

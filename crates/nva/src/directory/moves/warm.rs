//! The warm move: a VM whose state is mirrored to a standby NVE, which everybody knows of ahead (R50).
//!
//! While a warm move waits for its grant, the VM's record has a pending binding to the new NVE. Others resolve the way
//! there and send nothing by it; the grant makes it the active one. It ends with the move.

use godwit_model::{Mirror, MoveId, MoveMode, NveId, VmKey, VmRecord};

use super::super::{Directory, Level, Refusal};

/// Intervals between mirrors, in seconds.
const INTERVALS: std::ops::RangeInclusive<u32> = 1..=3600;
/// A manager's clock may be ahead of ours so far, in microseconds.
const AHEAD_US: u64 = 60_000_000;

impl Directory {
    /// The VM's state is at the NVE that it is to move to.
    pub(super) fn check_mirrored(r: &VmRecord, to: &NveId) -> Result<(), Refusal> {
        let (vm, to) = (r.name.clone(), to.clone());
        match &r.standby {
            None => Err(Refusal::NoMirror { vm, to }),
            Some(m) if m.nve != to => Err(Refusal::MirrorElsewhere { vm, standby: m.nve.clone(), to }),
            Some(m) if m.mirrored_us == 0 => Err(Refusal::NeverMirrored { vm, nve: to }),
            Some(_) => Ok(()),
        }
    }

    /// Records where a VM's state is mirrored to and how often, or that it is not any more.
    ///
    /// # Errors
    /// Where the VM or the NVE is unknown, it is the one where the VM runs, the interval is of no use, or a move
    /// rests on the mirror.
    pub(in crate::directory) fn set_mirror(
        &mut self,
        vm: &str,
        to: Option<(NveId, u32)>,
    ) -> Result<VmRecord, Refusal> {
        let mut record = self.vm_named(vm)?.clone();
        if let Some((nve, interval_s)) = &to {
            if !self.nves.contains_key(nve) {
                return Err(Refusal::UnknownNve(nve.to_string()));
            }
            if record.is_at(nve) {
                return Err(Refusal::MirrorHere { vm: vm.into(), nve: nve.clone() });
            }
            if !INTERVALS.contains(interval_s) {
                return Err(Refusal::BadInterval(*interval_s));
            }
        }
        let before = record.standby.take();
        let stays = |nve: &NveId| before.as_ref().filter(|m| m.nve == *nve).map_or(0, |m| m.mirrored_us);
        record.standby = to.map(|(nve, interval_s)| {
            let mirrored_us = stays(&nve);
            Mirror { nve, interval_s, mirrored_us }
        });
        if record.standby == before {
            return Ok(record);
        }
        let other = record.standby.as_ref().map(|m| &m.nve) != before.as_ref().map(|m| &m.nve);
        let moves = self.interrupting_move(&record).filter(|m| other && m.mode == MoveMode::Warm);
        if let Some(id) = moves.map(|m| m.id.clone()) {
            return Err(Refusal::VmMoving { vm: vm.into(), id });
        }
        let text = match &record.standby {
            Some(m) => format!("VM {vm} is mirrored to NVE {} every {} s", m.nve, m.interval_s),
            None => format!("VM {vm} is mirrored nowhere"),
        };
        self.log(Level::Info, text);
        self.put_vm(record.clone());
        Ok(record)
    }

    /// The VM's manager has mirrored it; an earlier time than the one that is known changes nothing.
    ///
    /// # Errors
    /// Where the VM is unknown or not mirrored, or the time is yet to come.
    pub(in crate::directory) fn vm_mirrored(
        &mut self,
        vm: &str,
        at_us: Option<u64>,
    ) -> Result<VmRecord, Refusal> {
        let mut record = self.vm_named(vm)?.clone();
        let at = at_us.unwrap_or(self.wall_us).max(1);
        let ahead = at.saturating_sub(self.wall_us);
        let Some(m) = &mut record.standby else { return Err(Refusal::NotMirrored { vm: vm.into() }) };
        if ahead > AHEAD_US {
            return Err(Refusal::MirrorAhead { vm: vm.into(), ahead_s: ahead / 1_000_000 });
        }
        if at > m.mirrored_us {
            m.mirrored_us = at;
            self.put_vm(record.clone());
        }
        Ok(record)
    }

    /// Everybody is told where the VM is to run.
    pub(super) fn begin_pending(&mut self, id: &MoveId) {
        let Some(r) = self.moves.get(id).map(|m| &m.record) else { return };
        let (key, location) = (r.key, self.location_of(&r.to));
        self.put_pending(key, location);
    }

    /// The move is over.
    pub(super) fn end_pending(&mut self, key: VmKey) {
        self.put_pending(key, None);
    }

    fn put_pending(&mut self, key: VmKey, location: Option<godwit_model::Location>) {
        let Some(mut record) = self.records.get(&key).cloned() else { return };
        if record.set_pending(location) {
            record.version = self.next_version();
            self.put_vm(record);
            self.publish_in_place(key, None);
        }
    }
}

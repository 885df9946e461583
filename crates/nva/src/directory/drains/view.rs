//! Looking at a drain.

use godwit_model::{DrainPhase, MoveId, MovePhase, NveId};

use super::super::{Directory, DrainRecord, Refusal};
use super::u32_of;

/// VMs of each kind that are named; the others are counted.
const NAMED: usize = 1024;

/// A drain as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainInfo {
    /// What was ordered, and how far it is.
    pub record: DrainRecord,
    /// VMs that its moves take away now.
    pub moving: Vec<VmUnderWay>,
    /// VMs of which a move failed and that are still there.
    pub failed: Vec<DrainedVm>,
    /// Others that are still there.
    pub left: Vec<DrainedVm>,
    /// VMs that are located at the NVE, those that move included.
    pub here: u32,
    /// VMs that left without this drain: stopped, or moved by other orders.
    pub elsewhere: u32,
    /// From the order to the end, or until now, in milliseconds.
    pub elapsed_ms: u64,
}

/// A VM that a move of the drain takes away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VmUnderWay {
    /// Its name.
    pub vm: String,
    /// The move.
    pub id: MoveId,
    /// Where it goes.
    pub to: NveId,
    /// How far the move is.
    pub phase: MovePhase,
}

/// A VM that is still there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainedVm {
    /// Its name.
    pub vm: String,
    /// Why it is; empty: its turn will come.
    pub reason: String,
}

impl Directory {
    /// A drain, by its NVE.
    ///
    /// # Errors
    /// Where the NVE is not known or not drained.
    pub fn drain_info(&self, nve: &NveId) -> Result<DrainInfo, Refusal> {
        if !self.nves.contains_key(nve) {
            return Err(Refusal::UnknownNve(nve.to_string()));
        }
        let drain = self.drains.by_nve.get(nve).ok_or_else(|| Refusal::NotDraining { nve: nve.clone() })?;
        let r = &drain.record;
        let moving = r.moving.values().filter_map(|id| self.moves.get(id)).map(|m| VmUnderWay {
            vm: m.record.vm.clone(),
            id: m.record.id.clone(),
            to: m.record.to.clone(),
            phase: m.record.phase,
        });
        let here = self.vms_at(nve);
        let (mut failed, mut left) = (Vec::new(), Vec::new());
        let takers = self.takers(r);
        for key in here.iter().filter(|key| !r.moving.contains_key(key)) {
            let Some(vm) = self.records.get(key).map(|r| r.name.clone()) else { continue };
            if let Some(f) = r.failed.get(key) {
                let times = if f.tries == 1 { "once".into() } else { format!("{} times", f.tries) };
                failed.push(DrainedVm { vm, reason: format!("failed {times}: {}", f.reason) });
            } else if left.len() < NAMED {
                let why = self.place_for(drain, *key, &takers).err().map(|w| w.to_string());
                let reason = why.unwrap_or_else(|| {
                    String::from(match r.phase {
                        DrainPhase::Running => "",
                        DrainPhase::Stopped => "the drain was stopped",
                        DrainPhase::Ended => "not tried before the drain's end; order the drain again",
                    })
                });
                left.push(DrainedVm { vm, reason });
            }
        }
        // A VM that was granted to its new NVE is away, and its move not yet done.
        let under_way = r.moving.keys().filter(|key| !here.contains(key)).count();
        let here = u32_of(here.len());
        let gone = r.total.saturating_sub(r.moved).saturating_sub(here);
        let until = if r.ended_us == 0 { self.wall_us } else { r.ended_us };
        Ok(DrainInfo {
            moving: moving.collect(),
            failed,
            left,
            here,
            elsewhere: gone.saturating_sub(u32_of(under_way)),
            elapsed_ms: until.saturating_sub(r.ordered_us) / 1000,
            record: r.clone(),
        })
    }

    /// How far the drain of an NVE is; `None`: it is not drained.
    pub(in crate::directory) fn drain_phase(&self, nve: &NveId) -> Option<DrainPhase> {
        self.drains.phase(nve)
    }
}

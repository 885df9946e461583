//! Updates that NVEs have not acknowledged, and changes that they have not been told yet (R38).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use godwit_model::message::NvaToNve;
use godwit_model::{MoveId, VmKey};
use godwit_wire::{Instant, Vni};

use super::SessionId;

/// A change that the subscribers other than the old NVE have not been told yet.
pub(super) struct Fanout {
    /// They are told at this time at the latest.
    pub due: Instant,
    /// ... or when the old NVE acknowledges this update.
    pub after: u64,
    /// Who must not be told: the claimer, who has its Grant, and the old NVE, who has its Update.
    pub told: BTreeSet<SessionId>,
    /// The planned move it belongs to.
    pub by: Option<MoveId>,
}

/// An update that was sent and not acknowledged.
pub(super) struct Awaited {
    pub session: SessionId,
    pub vni: Vni,
    /// The move that waits for it.
    pub by: Option<MoveId>,
    /// Said again so many times more; none: given up, a late Ack still counts.
    pub retries: Option<u8>,
    pub message: NvaToNve,
}

/// An update whose time is over.
pub(super) enum Due {
    /// It is said again.
    Again(SessionId, Box<NvaToNve>),
    /// It was said often enough.
    GivenUp(SessionId, Vni),
}

/// All news that are under way.
#[derive(Default)]
pub(super) struct Updates {
    /// Changes that wait for the old NVE to know first.
    fanouts: BTreeMap<VmKey, Fanout>,
    awaited: BTreeMap<u64, Awaited>,
    /// When the awaited are said again, in order; those that are not awaited any more are skipped.
    retries: VecDeque<(Instant, u64)>,
    last_ack: u64,
}

impl Updates {
    /// Nothing waits.
    pub fn is_quiet(&self) -> bool {
        self.fanouts.is_empty() && self.awaited.is_empty()
    }

    /// Updates that are not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.awaited.len()
    }

    /// A change of the VM waits for the old NVE.
    pub fn hold(&mut self, key: VmKey, fanout: Fanout) {
        self.fanouts.insert(key, fanout);
    }

    /// The change of a VM that waits.
    pub fn held(&self, key: VmKey) -> Option<&Fanout> {
        self.fanouts.get(&key)
    }

    /// It waits no more: it is told, or overtaken.
    pub fn release(&mut self, key: VmKey) -> Option<Fanout> {
        self.fanouts.remove(&key)
    }

    /// VMs with a change that waits.
    pub fn all_held(&self) -> impl Iterator<Item = VmKey> {
        self.fanouts.keys().copied()
    }

    /// Those of them whose change is such.
    pub fn held_where(&self, is: impl Fn(&Fanout) -> bool) -> Vec<VmKey> {
        self.fanouts.iter().filter(|(_, f)| is(f)).map(|(key, _)| *key).collect()
    }

    /// A number for an update.
    pub fn next_ack(&mut self) -> u64 {
        self.last_ack += 1;
        self.last_ack
    }

    /// The update of this number is to be acknowledged, and is said again at this time.
    pub fn expect(&mut self, ack_id: u64, awaited: Awaited, again: Instant) {
        self.awaited.insert(ack_id, awaited);
        // In the order of their times, because all wait equally long.
        self.retries.push_back((again, ack_id));
    }

    pub fn awaited(&self, ack_id: u64) -> Option<&Awaited> {
        self.awaited.get(&ack_id)
    }

    /// It needs no acknowledgement any more.
    pub fn settle(&mut self, ack_id: u64) -> Option<Awaited> {
        self.awaited.remove(&ack_id)
    }

    /// The next update whose time is over at `now`; what is said again is due at `again`.
    pub fn next_due(&mut self, now: Instant, again: Instant) -> Option<Due> {
        while let Some((_, ack_id)) = self.retries.pop_front_if(|(at, _)| *at <= now) {
            let Some(a) = self.awaited.get_mut(&ack_id) else { continue };
            match a.retries {
                None => {}
                Some(0) => return Some(Due::GivenUp(a.session, a.vni)),
                Some(left) => {
                    a.retries = Some(left - 1);
                    let due = Due::Again(a.session, Box::new(a.message.clone()));
                    self.retries.push_back((again, ack_id));
                    return Some(due);
                }
            }
        }
        None
    }

    /// None of the session's updates of a VN is said again.
    pub fn give_up(&mut self, session: SessionId, vni: Vni) {
        for a in self.awaited.values_mut().filter(|a| a.session == session && a.vni == vni) {
            a.retries = None;
        }
    }

    #[cfg(test)]
    pub fn last_ack(&self) -> u64 {
        self.last_ack
    }

    #[cfg(test)]
    pub fn all_awaited(&self) -> impl Iterator<Item = &Awaited> {
        self.awaited.values()
    }
}

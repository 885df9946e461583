//! Records that were pulled: used ones are asked about again before their life is over, unused ones die (R40).
//!
//! When four fifths of a life are over, the workers are told to watch the entry: the first frame for it raises one
//! event, and frames go on. That event leads to a question, whose answer begins a new life. What nobody used is
//! forgotten at its end, and the next frame is a miss. While there is no session nothing can be asked, and what is
//! known stays as long as the rest (R72); with the next session all of it is watched.

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_model::{VmKey, VmRecord, timing};
use godwit_tables::update::Key;
use godwit_wire::{Instant, Rate, Span, Vni};

use crate::io::Outputs;
use crate::lifetimes::{Lifetime, Stage};
use crate::queries::Asked;
use crate::records::Touched;

use super::{Nve, Timer};

/// No answer lives longer, whatever the NVA says: forward entries are kept for this (R43).
const LONGEST: Span = Span::from_ms(timing::POS_LIFE_MS);
/// An answer that is not to be cached serves so long: what waits for it has to be sent.
const ONCE: Span = Span::from_ms(500);
/// After a reconnect an entry whose life is over serves so long, if its NVA cannot answer sooner.
const GRACE: Span = Span::from_ms(1000);
/// A question that may not be put is put again after so long, or when those that came before have had their turn.
const RETRY: Span = Span::from_ms(100);

impl Nve {
    pub(super) fn is_pulled(&self, vni: Vni) -> bool {
        self.config.pull.contains(&vni)
    }

    /// The directory answered a question that was first put at `asked` (R34). Life counts from then: the NVA's
    /// promise to tell of changes lasts longer.
    pub(super) fn renew_life(&mut self, key: VmKey, asked: Instant, lifetime_ms: u64) {
        if !self.is_pulled(key.vni) {
            return;
        }
        let life = Span::from_ms(lifetime_ms).min(LONGEST);
        let end = (asked + life).max(self.now + ONCE);
        if lifetime_ms == 0 {
            return self.enter_stage(key, Lifetime { end, stage: Stage::Over }, end);
        }
        // Not all at the same time, when many were asked for at the same time.
        let early = life.0 / 10 * (self.own_number(key) >> 24 & 0xff) / 256;
        let watch = asked + Span(life.0 / 5 * 4 - early);
        // A life of next to nothing does not lead to a question after the other.
        let watch = watch.max(self.now + Span(ONCE.0 / 5 * 4));
        self.enter_stage(key, Lifetime { end, stage: Stage::Fresh }, watch.min(end));
    }

    fn enter_stage(&mut self, key: VmKey, life: Lifetime, next: Instant) {
        self.lifetimes.set(key, life);
        self.timers.set(Timer::Lifetime(key), Some(next));
    }

    /// A record changed: one of ours, or one that the directory dropped, does not age. One that came unasked is
    /// asked for, so that the NVA knows that we have it.
    pub(super) fn follow_life(&mut self, key: VmKey) {
        if !self.is_pulled(key.vni) {
            return;
        }
        match self.mirror.record(key).filter(|r| !self.is_lasting(r)) {
            None => {
                self.lifetimes.forget(key);
                self.timers.set(Timer::Lifetime(key), None);
            }
            Some(_) if self.lifetimes.get(key).is_some() => {}
            Some(_) => {
                self.lifetimes.set(key, Lifetime { end: self.now + LONGEST, stage: Stage::Wanted });
                self.refresh(key);
            }
        }
    }

    /// Of the configuration file, or of a VM here, of which the NVA tells us anyhow.
    fn is_lasting(&self, r: &VmRecord) -> bool {
        let here = r.is_at(&self.config.nve);
        r.version == godwit_model::Version::ZERO || here || self.is_hosted(r.key)
    }

    /// The next stage of a life is due.
    pub(super) fn lifetime_due(&mut self, key: VmKey, out: &mut Outputs) {
        let Some(life) = self.lifetimes.get(key) else { return };
        if self.is_hosted(key) {
            return self.lifetimes.forget(key);
        }
        if life.end <= self.now {
            return self.lifetime_over(key, life, out);
        }
        match life.stage {
            Stage::Fresh if !self.session.is_up() => self.timers.set(Timer::Lifetime(key), Some(life.end)),
            // What has a part here is needed whether frames are sent to it or not.
            Stage::Fresh if self.vms.contains_key(&key) => self.want(key, life),
            Stage::Fresh => self.watch(key, life, out),
            Stage::Watched => {
                // A worker's word may have been lost.
                if let Some(vn) = self.desired.vn(key.vni) {
                    self.desired.watch_again(Key::new(vn, key.mac));
                }
                self.timers.set(Timer::Lifetime(key), Some(life.end));
            }
            Stage::Wanted => self.refresh(key),
            Stage::Over => {}
        }
    }

    fn watch(&mut self, key: VmKey, life: Lifetime, out: &mut Outputs) {
        let half = Span(life.end.since(self.now).0 / 2);
        self.enter_stage(key, Lifetime { stage: Stage::Watched, ..life }, self.now + half);
        self.sync_vm(key, out);
    }

    fn want(&mut self, key: VmKey, life: Lifetime) {
        self.lifetimes.set(key, Lifetime { stage: Stage::Wanted, ..life });
        self.refresh(key);
    }

    /// A worker sent a frame by an entry that is watched.
    pub(super) fn in_use(&mut self, key: Key, out: &mut Outputs) {
        let Some(key) = self.vm_key(key) else { return };
        let Some(life) = self.lifetimes.get(key).filter(|l| l.stage == Stage::Watched) else { return };
        self.counts.entries_refreshed += 1;
        self.want(key, life);
        self.sync_vm(key, out);
    }

    /// Asks for a record that we have, within the bounds of what may be asked (R67), again and again until there is
    /// an answer or its life is over.
    fn refresh(&mut self, key: VmKey) {
        let Some(life) = self.lifetimes.get(key) else { return };
        let asked = Asked::Mac(key.vni, key.mac);
        let put = self.may_ask(asked) && self.queries.is_waiting(asked);
        let next = if put { self.now + self.config.requery } else { self.next_turn(life.end) };
        self.timers.set(Timer::Lifetime(key), Some(next.min(life.end)));
    }

    /// When a question may be put that found too many others before it: one after the other, so that thousands that
    /// wait do not all try again all the time. Whose turn comes after the end of its life has none.
    fn next_turn(&mut self, end: Instant) -> Instant {
        let rate = Rate::every(self.config.query_rate.gap(), 1);
        let turn = self.refresh_bucket.next(rate, self.now + RETRY);
        if turn < end {
            self.refresh_bucket.take(rate, turn);
        }
        turn
    }

    /// Nobody used it, or nobody answered.
    fn lifetime_over(&mut self, key: VmKey, life: Lifetime, out: &mut Outputs) {
        if !self.session.is_up() {
            self.lifetimes.set(key, Lifetime { stage: Stage::Over, ..life });
        } else if self.vms.contains_key(&key) {
            // It has a part here, such as a forward entry that must hear where it goes next.
            self.want(key, Lifetime { end: self.now + LONGEST, ..life });
        } else if self.waits_for_order(key) {
            // Frames for it are held until their old path has ended (R77): it is in use, and no worker said so.
            self.want(key, Lifetime { end: self.now + LONGEST, ..life });
        } else {
            self.counts.entries_aged += 1;
            self.forget_pulled(key, out);
        }
    }

    fn forget_pulled(&mut self, key: VmKey, out: &mut Outputs) {
        self.lifetimes.forget(key);
        self.timers.set(Timer::Lifetime(key), None);
        let Some(version) = self.mirror.record(key).map(|r| r.version) else { return };
        if let Some(old) = self.mirror.removed(key, version) {
            self.settle_unconfirmed(key, None);
            self.directory_changed(key, Touched::of(&old), out);
        }
    }

    /// The directory has no such VM: what was pulled is void.
    pub(super) fn pulled_is_gone(&mut self, key: VmKey, out: &mut Outputs) {
        let carrier = self.carrier(key);
        if let Some(life) = self.lifetimes.get(carrier).filter(|_| carrier != key) {
            // What we have of the VM that it was of is old.
            return self.want(carrier, life);
        }
        if self.lifetimes.get(key).is_some() {
            self.forget_pulled(key, out);
        }
    }

    /// The NVA tells us no more of this VM, because there are too many that it would have to tell us of.
    pub(super) fn pulled_is_untold(&mut self, key: VmKey, out: &mut Outputs) {
        if !self.is_pulled(key.vni) {
            return;
        }
        // Nor would it tell us that what was absent is there (R36).
        self.mirror.clear_absent(key);
        match self.lifetimes.get(key) {
            Some(life) if self.vms.contains_key(&key) => self.want(key, life),
            Some(_) => self.forget_pulled(key, out),
            None => self.sync_vm(key, out),
        }
    }

    /// A session has begun, or updates were missed: whatever the NVA did not confirm may have changed. Who uses it
    /// asks; what nobody uses goes at the end of its life.
    pub(super) fn doubt_pulled(&mut self, vni: Vni, unconfirmed: &[VmKey], out: &mut Outputs) {
        let mut keys: BTreeSet<VmKey> = self.lifetimes.of_vn(vni).collect();
        keys.extend(unconfirmed);
        for key in keys {
            if self.is_hosted(key) {
                continue;
            }
            let end = self.lifetimes.get(key).map_or(self.now, |l| l.end).max(self.now + GRACE);
            let life = Lifetime { end, stage: Stage::Watched };
            if self.vms.contains_key(&key) { self.want(key, life) } else { self.watch(key, life, out) }
        }
    }

    /// When a pulled record's life ends, for people.
    pub(super) fn life_end(&self, key: VmKey) -> Option<Instant> {
        self.lifetimes.get(key).map(|l| l.end)
    }

    /// The owner of an address is not in the directory any more: who we think has it is asked for.
    pub(super) fn doubt_owners(&mut self, vni: Vni, ip: IpAddr) {
        let owners: Vec<VmKey> = self.mirror.owners(vni, ip).iter().map(|r| r.key).collect();
        for key in owners {
            if let Some(life) = self.lifetimes.get(key) {
                self.want(key, life);
            }
        }
    }
}

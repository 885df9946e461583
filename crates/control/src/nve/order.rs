//! Order when a VM moves (R77): no frame for it overtakes one that went by an older path.
//!
//! An NVE whose frames for a VM are to go another way than before (S) holds them until all that it sent by the old
//! path is at the VM's NVE (B). With the first frame that waits it sends an *end marker* behind the last one by the
//! old path, and the marker goes that path as they did:
//!
//! ```text
//!   S                       A (old NVE)                 B (where the VM runs)
//!   | hold; flush           |                           |
//!   |-- PathEnd ----------->| wait while it is paused   |
//!   |                       | flush                     |
//!   |                       |-- PathEnd --------------->| flush
//!   |<------------------------------------- PathEnded --|
//!   | held frames ------------------------------------->|
//! ```
//!
//! A *flush* ([`crate::flushes`]) is what makes the marker come last although frames and marker may lie in different
//! receive queues. A marker passes on along forward entries, which ascend, so that it comes to an end. Where the VM
//! runs at S itself, only the frames of VMs here wait, and S gets its own marker back.
//!
//! What the VM itself sends from B waits in the same way for `SentAll` of A, with its port (`mobility`).
//!
//! Where the VM's connections are paused (R54), the marker waits at B, and S holds on: frames of one flow may lie with
//! several workers of B, by the ways that they came, and these do not wait for each other.
//!
//! No other wait is longer than `marker_wait`, and only NVEs that mark their paths, as the NVA says, are waited for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::{Locators, NveId, Version, VmKey, WhilePaused};
use godwit_tables::event::HandoverStats;
use godwit_tables::update::{Key, PortIdx, VmState};
use godwit_wire::peer::Kind;
use godwit_wire::{Instant, Mac, Span};

use crate::flushes::Flushed;
use crate::io::{Flush, Outputs};
use crate::mobility::Vm;

use super::{Nve, Timer};

/// VMs whose frames wait for the end of their old path; those of further ones do not wait.
const MAX_PATHS: usize = 1024;
/// Markers of others that wait here; further ones are ignored.
const MAX_ENDS: usize = 1024;
/// What `SentAll` has in the place of a version where a VM that was paused runs on at its old NVE.
pub(super) const SENDS_AGAIN: Version = Version { epoch: 0, seq: 1 };
/// So long it may wait at the NVE of a VM whose connections are paused (R54): as long as a pause lasts.
const PAUSE_LIFE: Span = Span::from_ms(3_600_000);
/// A marker that has waited for so long is of no use to anybody.
const END_LIFE: Span = Span::from_ms(250);

/// An old path of ours.
#[derive(Debug)]
pub(super) struct Path {
    /// Locator that it led to.
    from: IpAddr,
    /// By which the answer is known.
    number: u64,
    /// The last frame by it has left here.
    flushed: bool,
    /// Frames wait for its end.
    wanted: bool,
    /// The marker is on its way.
    marked: bool,
    /// The VM is stopped, or to come: what the old path brings is held too, by other workers than what waits, so the
    /// path does not end before the VM runs and has it.
    stopped: bool,
    /// Where markers of others go while nothing waits here that came before them: on to a locator, or back. `None`:
    /// nowhere, the VM is here, stopped or to come.
    onward: Option<Option<IpAddr>>,
    begun: Instant,
    /// The VM's connections were paused when it was last looked at.
    paused: bool,
    /// Frames that wait for its end or did, by worker and MAC.
    held: BTreeMap<(usize, Mac), u64>,
}

/// A marker of another NVE that is here.
#[derive(Debug)]
pub(super) struct End {
    sender: Locators,
    version: Version,
    until: Instant,
    /// The flush under way, by its number, and where the marker goes after it: on to a locator, or back.
    flushing: Option<(u64, Option<IpAddr>)>,
}

/// All that waits for order.
#[derive(Default, Debug)]
pub(super) struct Order {
    last: u64,
    paths: BTreeMap<VmKey, Path>,
    ends: BTreeMap<(VmKey, IpAddr), End>,
}

impl Nve {
    /// The NVA says who marks its paths.
    pub(super) fn end_markers(&mut self, reset: bool, nves: Vec<NveId>, gone: &[NveId]) {
        self.mirror.mark(reset, nves, gone);
    }

    /// The NVE with this locator marks the end of its paths, and so do we.
    pub(super) fn marks(&self, key: VmKey, remote: IpAddr) -> bool {
        self.config.marker_wait > Span(0) && self.mirror.marks(key.vni, remote)
    }

    // ---- Our own old paths ----

    /// What the workers are told of a VM whose frames shall be treated like `state`.
    pub(super) fn in_order(
        &mut self,
        key: VmKey,
        at: Key,
        state: Option<VmState>,
        out: &mut Outputs,
    ) -> Option<VmState> {
        let begins = !self.order.paths.contains_key(&key);
        if begins && !self.begin_path(key, at, state, out) {
            return state;
        }
        self.follow_stop(key, matches!(state, Some(VmState::Paused { .. } | VmState::Expected { .. })));
        let hold = self.config.handover_hold;
        let waits = match state {
            Some(VmState::Local { port }) => Some(VmState::Arrived { port, hold }),
            Some(to @ (VmState::Remote { .. } | VmState::Ageing { .. } | VmState::Departed { .. })) => {
                let forwards = matches!(to, VmState::Departed { .. });
                let onward = if forwards { self.remote_of(to).map(Some) } else { Some(None) };
                let from = self.order.paths.get_mut(&key).map(|p| {
                    p.onward = onward;
                    p.from
                });
                let back =
                    self.remote_of(to).zip(from).is_none_or(|(to, from)| self.is_same_nve(key, to, from));
                (!back).then_some(VmState::Paused { hold })
            }
            // It stopped, or is to come: what follows goes on waiting for the same path.
            Some(VmState::Paused { .. } | VmState::Expected { via: None, .. }) => state,
            Some(VmState::Expected { via: Some(_), hold }) => {
                let from = self.order.paths.get(&key).map(|p| p.from);
                let to = state.and_then(|to| self.remote_of(to));
                let back = to.zip(from).is_none_or(|(to, from)| self.is_same_nve(key, to, from));
                (!back).then_some(VmState::Expected { via: None, hold })
            }
            _ => None,
        };
        if waits.is_none() {
            self.forget_path(key);
        }
        waits.or(state)
    }

    /// While the VM is stopped its old path is waited for without end; afterwards as long as another.
    fn follow_stop(&mut self, key: VmKey, stopped: bool) {
        let Some(path) = self.order.paths.get_mut(&key).filter(|p| p.stopped != stopped) else { return };
        (path.stopped, path.onward) = (stopped, None);
        let until = (!stopped).then(|| self.now + self.config.marker_wait);
        self.timers.set(Timer::Path(key), until);
    }

    /// Whether frames for the VM begin to go another way now, so that they have to wait.
    fn begin_path(&mut self, key: VmKey, at: Key, state: Option<VmState>, out: &mut Outputs) -> bool {
        let Some(from) = self.desired.vm(at).and_then(|old| self.remote_of(old)) else { return false };
        let changes = match state {
            Some(VmState::Local { .. }) => true,
            // It has come with its connections paused (R54).
            Some(VmState::Paused { .. }) => self.holds_for_pause(key),
            Some(to @ (VmState::Remote { .. } | VmState::Ageing { .. } | VmState::Departed { .. })) => {
                self.remote_of(to).is_some_and(|to| !self.is_same_nve(key, to, from) && self.marks(key, to))
            }
            _ => false,
        };
        let may = changes && self.order.paths.len() < MAX_PATHS && self.seals.has_key();
        if !may || !self.marks(key, from) {
            return false;
        }
        self.order.last += 1;
        let number = self.order.last;
        if !self.flush(key, None, Flushed::Path { key, number }, out) {
            return false;
        }
        let held = BTreeMap::new();
        let path = Path {
            from,
            number,
            flushed: false,
            wanted: false,
            marked: false,
            stopped: false,
            onward: None,
            begun: self.now,
            paused: false,
            held,
        };
        self.order.paths.insert(key, path);
        self.timers.set(Timer::Path(key), Some(self.now + self.config.marker_wait));
        true
    }

    fn remote_of(&self, state: VmState) -> Option<IpAddr> {
        self.desired.remote(state.target()?.tunnel)
    }

    fn is_same_nve(&self, key: VmKey, a: IpAddr, b: IpAddr) -> bool {
        a == b || self.mirror.member_at(key.vni, a).is_some_and(|(_, l)| l.contains(b))
    }

    /// Frames for the VM wait for the end of their old path, or would.
    pub(super) fn waits_for_order(&self, key: VmKey) -> bool {
        self.order.paths.contains_key(&key)
    }

    fn forget_path(&mut self, key: VmKey) -> Option<Path> {
        self.timers.set(Timer::Path(key), None);
        self.order.paths.remove(&key)
    }

    /// A worker's counts of a VM's frames: some may wait for the end of the old path.
    pub(super) fn path_counts(
        &mut self,
        from: (usize, Mac),
        key: VmKey,
        stats: HandoverStats,
        out: &mut Outputs,
    ) {
        let Some(path) = self.order.paths.get_mut(&key) else { return };
        let before = path.held.insert(from, stats.held).unwrap_or(stats.held.saturating_sub(stats.waiting));
        self.counts.order_held += stats.held.saturating_sub(before);
        path.wanted |= stats.waiting > 0;
        self.mark_path(key, out);
    }

    /// Sends the marker, once frames wait for it and the last one by the old path has left.
    fn mark_path(&mut self, key: VmKey, out: &mut Outputs) {
        let Some(path) = self.order.paths.get_mut(&key) else { return };
        if !path.wanted || !path.flushed || path.marked {
            return;
        }
        path.marked = true;
        let (from, version) = (path.from, Version { epoch: 0, seq: path.number });
        if self.send_notice(Kind::PathEnd, key, from, self.underlay.locators(), version, out) {
            self.counts.markers_sent += 1;
        } else {
            self.end_path(key, out);
        }
    }

    /// The old path has ended, or is not waited for any more.
    fn end_path(&mut self, key: VmKey, out: &mut Outputs) {
        if self.forget_path(key).is_some() {
            self.sync_vm(key, out);
        }
    }

    /// The VM runs here, and frames for it are held because its connections are paused (R54).
    fn holds_for_pause(&self, key: VmKey) -> bool {
        self.vms.get(&key).is_some_and(Vm::holds_for_pause)
    }

    /// The wait is over. Where nothing waited, nothing has come too early either.
    pub(super) fn path_due(&mut self, key: VmKey, out: &mut Outputs) {
        if self.waits_for_pause(key) {
            return self.timers.set(Timer::Path(key), Some(self.now + self.config.marker_wait));
        }
        let late = self.order.paths.get(&key).is_some_and(|p| p.wanted);
        self.counts.markers_late += u64::from(late);
        self.end_path(key, out);
    }

    /// The VM's connections are paused, so that the marker waits at its NVE with what came before it (R54); or they
    /// were, and the marker is to come now. No longer than the pause may last.
    fn waits_for_pause(&mut self, key: VmKey) -> bool {
        let pause = self.mirror.record(key).and_then(|r| r.paused());
        let pause = pause.filter(|p| p.treatment == WhilePaused::Hold);
        let Some(path) = self.order.paths.get_mut(&key) else { return false };
        let limit = pause.map(|p| path.begun + Span::from_ms(u64::from(p.limit_s) * 1000));
        let waits = limit.is_some_and(|t| self.now < t);
        core::mem::replace(&mut path.paused, waits) || waits
    }

    /// The VM's NVE has everything that went by our old path.
    pub(super) fn path_ended(&mut self, key: VmKey, version: Version, out: &mut Outputs) {
        let ours = |p: &Path| p.marked && version == Version { epoch: 0, seq: p.number };
        if self.order.paths.get(&key).is_some_and(ours) {
            self.counts.markers_come += 1;
            self.end_path(key, out);
        }
    }

    // ---- Markers of others ----

    /// A marker came, from its first sender or from another NVE that passed it on.
    pub(super) fn path_end(&mut self, key: VmKey, sender: Locators, version: Version, out: &mut Outputs) {
        let Some(ip) = sender.v6.map(IpAddr::V6).or(sender.v4.map(IpAddr::V4)) else { return };
        let known = self.is_own(sender) || self.marks(key, ip);
        let now = self.now;
        if self.order.ends.len() >= MAX_ENDS {
            self.order.ends.retain(|_, e| e.until > now);
        }
        if !known || self.order.ends.len() >= MAX_ENDS || self.desired.vn(key.vni).is_none() {
            self.counts.notices_refused += 1;
            return;
        }
        let end = End { sender, version, until: now + END_LIFE, flushing: None };
        self.order.ends.insert((key, ip), end);
        self.pass_end((key, ip), out);
    }

    fn is_own(&self, l: Locators) -> bool {
        let ours = self.underlay.locators();
        l.v4.is_some() && l.v4 == ours.v4 || l.v6.is_some() && l.v6 == ours.v6
    }

    /// Where a marker goes from here: on to a locator, or back to its sender, also where that is this NVE. `None`: it
    /// waits, because frames that came before it do.
    fn way_of_end(&self, key: VmKey, sender: Locators) -> Option<Option<IpAddr>> {
        // Also our own: what it came behind has not gone to the VM yet (R54).
        if self.holds_for_pause(key) {
            return None;
        }
        if self.is_own(sender) {
            let stopped = self.order.paths.get(&key).is_some_and(|p| p.stopped);
            return (!stopped).then_some(None);
        }
        let vn = self.desired.vn(key.vni)?;
        match self.desired.vm(Key::new(vn, key.mac)) {
            Some(VmState::Paused { .. } | VmState::Expected { .. }) => {
                // Two NVEs may wait for each other's old paths: what holds nothing keeps no marker back.
                let path = self.order.paths.get(&key).filter(|p| !p.stopped && !p.wanted);
                path.and_then(|p| p.onward)
            }
            Some(to @ VmState::Departed { .. }) => Some(self.remote_of(to)),
            _ => Some(None),
        }
    }

    /// Markers that wait here may go on, now that the VM's entry is another one.
    pub(super) fn pass_ends(&mut self, key: VmKey, out: &mut Outputs) {
        let first = (key, IpAddr::from([0; 4]));
        let of_vm = self.order.ends.range(first..).take_while(|((k, _), _)| *k == key);
        let waiting: Vec<_> = of_vm.filter(|(_, e)| e.flushing.is_none()).map(|(at, _)| *at).collect();
        for at in waiting {
            self.pass_end(at, out);
        }
    }

    fn pass_end(&mut self, at: (VmKey, IpAddr), out: &mut Outputs) {
        let Some(sender) = self.order.ends.get(&at).map(|e| e.sender) else { return };
        let (way, now) = (self.way_of_end(at.0, sender), self.now);
        let ours = self.is_own(sender) && self.order.paths.contains_key(&at.0);
        self.order.last += 1;
        let number = self.order.last;
        let waits_on = self.holds_for_pause(at.0);
        let Some(end) = self.order.ends.get_mut(&at) else { return };
        if waits_on {
            end.until = now + PAUSE_LIFE;
        }
        if end.until <= now && !ours {
            self.order.ends.remove(&at);
            return;
        }
        end.flushing = way.map(|way| (number, way));
        if way.is_some() && !self.flush(at.0, None, Flushed::End { key: at.0, sender: at.1, number }, out) {
            self.order.ends.remove(&at);
        }
    }

    fn end_flushed(&mut self, at: (VmKey, IpAddr), number: u64, out: &mut Outputs) {
        let key = at.0;
        let Some(end) = self.order.ends.get(&at) else { return };
        let way = self.way_of_end(key, end.sender);
        match end.flushing {
            // Of a marker before this one, whose frames may not all have come by then.
            Some((other, _)) if other != number => return,
            Some((_, flushed)) if way == Some(flushed) => {}
            // The VM stopped or went on meanwhile, and frames with it.
            Some(_) => return self.pass_end(at, out),
            None => return,
        }
        let Some(End { sender, version, .. }) = self.order.ends.remove(&at) else { return };
        match way.flatten() {
            Some(next) => {
                let done = self.send_notice(Kind::PathEnd, key, next, sender, version, out);
                self.counts.markers_passed += u64::from(done);
            }
            None if self.is_own(sender) => self.path_ended(key, version, out),
            None => {
                let Some(remote) = self.common_locator(sender) else { return };
                let nobody = Locators::default();
                let done = self.send_notice(Kind::PathEnded, key, remote, nobody, version, out);
                self.counts.markers_answered += u64::from(done);
                self.with_known_vm(key, out, |vm, cx| vm.marker_came(cx));
            }
        }
    }

    /// A locator of another NVE that one of ours reaches.
    pub(super) fn common_locator(&self, l: Locators) -> Option<IpAddr> {
        let ours = self.underlay.locators();
        let v4 = l.v4.filter(|_| ours.v4.is_some()).map(IpAddr::V4);
        l.v6.filter(|_| ours.v6.is_some()).map(IpAddr::V6).or(v4)
    }

    // ---- What a VM itself has sent ----

    /// The VM is paused here or has left, in a planned move: the new NVE hears when all that it sent has left.
    pub(super) fn send_all(&mut self, key: VmKey, to: Locators, port: Option<PortIdx>, out: &mut Outputs) {
        if self.common_locator(to).is_some_and(|remote| self.marks(key, remote)) {
            self.flush(key, port, Flushed::SentAll { key, to }, out);
        }
    }

    /// The VM runs here again: what was said of its end is void.
    pub(super) fn sends_again(&mut self, key: VmKey, to: Locators, out: &mut Outputs) {
        if let Some(remote) = self.common_locator(to).filter(|remote| self.marks(key, *remote)) {
            self.send_notice(Kind::SentAll, key, remote, Locators::default(), SENDS_AGAIN, out);
        }
    }

    // ---- Flushes ----

    /// Has the workers say when what they have of the VM's frames has left; false where nobody would.
    fn flush(&mut self, key: VmKey, port: Option<PortIdx>, then: Flushed, out: &mut Outputs) -> bool {
        let Some(vn) = self.desired.vn(key.vni) else { return false };
        let (macs, workers) = (self.macs_of(key), self.desired.workers());
        let Some(token) = self.flushes.begin(self.now, workers, macs.len(), then) else { return false };
        for worker in workers.iter() {
            let orders = macs.iter().map(|mac| Flush { worker, token, key: Key::new(vn, *mac), port });
            out.flushes.extend(orders);
        }
        true
    }

    /// A worker has flushed.
    pub(super) fn flush_answered(&mut self, worker: usize, token: u64, out: &mut Outputs) {
        if let Some(then) = self.flushes.answered(worker, token) {
            self.flushed(then, out);
        }
    }

    /// All workers have.
    pub(super) fn flushed(&mut self, then: Flushed, out: &mut Outputs) {
        match then {
            Flushed::Path { key, number } => {
                if let Some(path) = self.order.paths.get_mut(&key).filter(|p| p.number == number) {
                    path.flushed = true;
                    self.mark_path(key, out);
                }
            }
            Flushed::End { key, sender, number } => self.end_flushed((key, sender), number, out),
            // It may have been let run again meanwhile.
            Flushed::SentAll { key, .. } if self.vms.get(&key).is_some_and(Vm::runs) => {}
            Flushed::SentAll { key, to } => {
                let Some(remote) = self.common_locator(to) else { return };
                let (nobody, version) = (Locators::default(), Version::ZERO);
                let done = self.send_notice(Kind::SentAll, key, remote, nobody, version, out);
                self.counts.sent_all += u64::from(done);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use godwit_tables::update::PortIdx;
    use godwit_wire::{Mac, Vni};

    use super::*;
    use crate::NveConfig;
    use crate::config::WorkerSet;
    use crate::io::{Input, PortSpec, UplinkSpec, UplinkV4};

    #[test]
    fn r77_a_marker_does_not_pass_with_the_flush_of_the_one_before_it() {
        let mut nve = Nve::new(NveConfig::new(NveId::new("a").unwrap(), 1));
        let (vni, mac) = (Vni::from_low24(7), Mac([2, 0, 0, 0, 0, 1]));
        let addr = "198.18.0.1".parse().unwrap();
        let uplink = UplinkSpec {
            mac: Mac([2, 0xff, 0, 0, 0, 1]),
            v4: Some(UplinkV4 { addr, prefix_len: 24, gateway: None }),
            v6: None,
            v6_link_local: None,
            mtu: 1550,
            exception: None,
            vlan: None,
        };
        let access = PortSpec::Access { vni, mac, explicit_activation: false };
        let mut out = Outputs::default();
        for (port, spec) in [(0, PortSpec::Uplink(uplink)), (1, access)] {
            let (port, name, workers) = (PortIdx(port), format!("p{port}"), WorkerSet::first(1));
            nve.handle(Instant(1), 1, Input::PortAdded { port, name, spec, workers }, &mut out);
        }
        let key = VmKey { vni, mac };
        // Our own, which has come back to us; and the next one of ours.
        let own = Locators { v4: Some(addr), v6: None };
        let mut tokens = Vec::new();
        for seq in [1, 2] {
            out.flushes.clear();
            nve.path_end(key, own, Version { epoch: 0, seq }, &mut out);
            tokens.extend(out.flushes.iter().map(|f| f.token));
        }
        assert_eq!(tokens.len(), 2);
        nve.flush_answered(0, tokens[0], &mut out);
        assert_eq!(nve.order.ends.len(), 1, "what came before the second one may still be on its way");
        nve.flush_answered(0, tokens[1], &mut out);
        assert!(nve.order.ends.is_empty());
    }
}

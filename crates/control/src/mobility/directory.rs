//! What the directory's news of a VM changes here: it is here, elsewhere, or nowhere.

use godwit_model::{ClaimCause, Location, Version};

use super::port::Door;
use super::{AccessPort, Action, Claim, Ctx, Phase, Refusal, Vm};
use crate::io::Level;

impl Vm {
    /// The directory's record changed, was confirmed or went.
    pub(crate) fn directory_changed(&mut self, cx: &mut Ctx<'_>) {
        if let Some((to, version)) = cx.elsewhere() {
            let to = to.clone();
            return self.runs_elsewhere(to, version, cx);
        }
        if let Some(version) = cx.here() {
            return self.directory_has_it_here(version, cx);
        }
        // Detached, or not in the directory.
        match self.phase {
            // Its manager told the directory before this NVE saw it.
            Phase::Running(_) | Phase::Paused(_)
                if self.ends_for_move() && self.claim.is_none() && cx.version() > self.hosted =>
            {
                self.shut_down_elsewhere_said(cx);
            }
            Phase::Running(_) if self.claim.is_none() => {
                cx.note(
                    Level::Warn,
                    format!("the directory has {} nowhere, but it runs here: claiming", self.key),
                );
                self.reclaim_later(cx);
            }
            Phase::Refused(Refusal { port, cause, at, .. }) if cx.version() > at => {
                self.after_refusal(port, cause, cx);
            }
            Phase::Left if cx.record.is_some() => {
                // Nobody has it: a VM that is behind a port here may say so.
                self.forward = None;
                self.reopen_ports();
            }
            Phase::Idle | Phase::Left | Phase::Refused(_) => self.forward = None,
            Phase::Running(_) | Phase::Paused(_) => {}
        }
    }

    /// Its manager has said that it is shut down for a move: what still comes from its port is old.
    fn shut_down_elsewhere_said(&mut self, cx: &mut Ctx<'_>) {
        let text = format!("{} is shut down for a move, says its manager: its port is closed", self.key);
        cx.note(Level::Info, text);
        if let Some(p) = self.phase.port().and_then(|port| self.ports.get_mut(&port)) {
            p.is_left();
            p.door = Door::Closed;
        }
        self.phase = Phase::Idle;
        self.tell_departure(cx);
        cx.actions.push(Action::ScanOthers);
    }

    fn directory_has_it_here(&mut self, version: Version, cx: &mut Ctx<'_>) {
        self.forward.take_if(|f| version > f.version);
        match self.phase {
            Phase::Running(_) | Phase::Paused(_) => {
                self.hosted = self.hosted.max(version);
                self.confirmed |= version > self.ran_from;
            }
            Phase::Refused(Refusal { port, cause, at, .. }) if version > at => {
                self.after_refusal(port, cause, cx);
            }
            // Control started anew under a running VM, or the operator pinned it here: the port that
            // is there is the VM's. An echo of what we withdrew does not count, and in the midst of a
            // move only the VM itself can tell where it is.
            Phase::Idle
                if self.provisioned.is_settled()
                    && version > self.withdrawn
                    && self.intent.is_none()
                    && !cx.is_moving() =>
            {
                let on = self.ports.iter().find(|(_, p)| p.could_have_it() && !p.awaits_order());
                if let Some(port) = on.map(|(port, _)| *port) {
                    self.activate(port, ClaimCause::Resync, cx);
                }
            }
            Phase::Idle | Phase::Left | Phase::Refused(_) => {}
        }
    }

    /// The directory has it at another NVE; only news since our own last hosting counts (R20, R46b).
    fn runs_elsewhere(&mut self, to: Location, version: Version, cx: &mut Ctx<'_>) {
        let known = if self.is_hosted() { self.hosted.max(self.ran_from) } else { self.hosted };
        if version <= known {
            return;
        }
        // The move that began with its end here is over.
        let ended = !self.is_hosted();
        self.intent.take_if(|i| ended && i.ends_here() && i.to.nve == to.nve);
        match self.phase {
            // A claim of a VM that just came here is decided by its answer.
            Phase::Running(_) if self.claim.as_ref().is_some_and(Claim::is_fresh) => {}
            Phase::Paused(_) if self.claim.as_ref().is_some_and(Claim::awaits_answer) => {}
            Phase::Running(_) | Phase::Paused(_) => self.depart(to, version, cx),
            Phase::Idle | Phase::Left | Phase::Refused(_) => {
                // It was there already when an order let it in here: the order stands.
                if self.phase != Phase::Idle || version > self.ran_from {
                    self.ports.values_mut().for_each(AccessPort::is_left);
                }
                self.news_of_the_owner(&to.nve, version, cx.now);
                if let Some(f) = self.forward.as_mut().filter(|f| version > f.version) {
                    cx.actions.push(Action::Note(
                        Level::Info,
                        format!("{} moved on to {} ({version}): forwarding there", self.key, to.nve),
                    ));
                    f.to = to;
                    f.version = version;
                }
            }
        }
    }

    /// It left (R41): close its ports, send on what was held and what still comes (R43).
    pub(super) fn depart(&mut self, to: Location, version: Version, cx: &mut Ctx<'_>) {
        if self.phase.is_running() {
            self.announce_end(self.phase.running_on(), cx);
            self.handover.begin(None);
        }
        self.ordering = None;
        cx.note(
            Level::Info,
            format!("{} runs at {} now ({version}): forwarding packets in flight", self.key, to.nve),
        );
        if let Some(intent) = self.intent.take() {
            self.handover.move_id = Some(intent.id);
        } else if let Some(id) = cx.record.and_then(|r| r.moving.clone()) {
            self.handover.move_id = Some(id);
        }
        self.start_forward(to, version, cx);
        self.tell_departure(cx);
        cx.actions.push(Action::ScanOthers);
        self.close_port_it_ran_on();
        self.phase = Phase::Left;
        self.claim = None;
    }

    /// Its port is closed (R41). A port that waits for its return is not, nor is one on which the
    /// directory never had it: a VM that came back there is about to say so.
    fn close_port_it_ran_on(&mut self) {
        let on = self.phase.port();
        self.ports.values_mut().for_each(AccessPort::is_left);
        if let Some(p) = on.filter(|_| self.confirmed).and_then(|port| self.ports.get_mut(&port)) {
            p.door = Door::Closed;
        }
    }
}

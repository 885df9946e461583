//! This NVE's part in planned moves (R42, R45, R49).

use godwit_model::message::MoveRole;
use godwit_model::{Location, MoveId, MoveMode, MoveStepKind, NveId, VmRecord};
use godwit_wire::Instant;

use crate::io::Level;

use super::{Action, Ctx, PauseCause, Phase, Vm};

/// A planned move that concerns this NVE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Intent {
    pub(crate) id: MoveId,
    pub(crate) role: MoveRole,
    pub(crate) mode: MoveMode,
    pub(crate) from: Location,
    pub(crate) to: Location,
    /// It explains nothing any more after that.
    pub(crate) expires: Instant,
    /// Prepared is said then at the latest, once the port is there.
    ready_by: Instant,
    /// The other NVE's next hop is resolved.
    hop_ready: bool,
    /// A port is there for it; always so at the old NVE.
    port_ready: bool,
    prepared_said: bool,
    paused_said: bool,
    /// The VM was paused before this NVE heard of the move, so not for it: as before its port changes within this
    /// NVE (R23). To call the move off says nothing of that pause.
    pub(crate) stood_before: bool,
    /// After a pause for the move an order let the VM run here again: so the order giver has given the move up, of
    /// which the NVA may not have told us yet. A pause that follows is for something else.
    pub(crate) resumed: bool,
    /// It is of an earlier session and was not said again in this one.
    pub(crate) unconfirmed: bool,
    /// The old NVE ends the VM's own path with a marker (R77).
    pub(super) marks: bool,
    /// It has.
    pub(super) all_sent: bool,
}

impl Intent {
    pub(crate) fn is_target(&self) -> bool {
        self.role == MoveRole::Target
    }

    /// At the old NVE of a hot move: what comes for the VM is held while it stands still, and not lost with its port.
    pub(super) fn holds(&self) -> bool {
        !self.is_target() && !self.mode.interrupts()
    }

    /// At the old NVE of a move that begins with the end of its VM here (R50, R51).
    pub(super) fn ends_here(&self) -> bool {
        !self.is_target() && self.mode.interrupts()
    }

    /// The other NVE.
    pub(crate) fn peer(&self) -> &Location {
        if self.is_target() { &self.from } else { &self.to }
    }

    /// Where the VM still runs, seen from the new NVE.
    pub(crate) fn runs_at(&self, record: Option<&VmRecord>, us: &NveId) -> Option<Location> {
        match record {
            Some(r) => r.active().filter(|l| l.nve != *us).cloned(),
            None => Some(self.from.clone()),
        }
    }

    /// When Prepared is due whatever the next hop does; `None` where it was said or no port is there.
    pub(crate) fn prepare_by(&self) -> Option<Instant> {
        (!self.prepared_said && self.port_ready).then_some(self.ready_by)
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.prepare_by().map_or(self.expires, |t| t.min(self.expires))
    }
}

impl Vm {
    /// The NVA tells this NVE its part in a move; said again after a reconnect.
    pub(crate) fn prepare(
        &mut self,
        id: MoveId,
        role: MoveRole,
        (from, to): (Location, Location),
        mode: MoveMode,
        cx: &mut Ctx<'_>,
    ) {
        let over = match role {
            // Granted already, or gone already: the rest of the move needs no preparation.
            MoveRole::Target => self.is_hosted() && cx.here().is_some() && self.claim.is_none(),
            MoveRole::Source => cx.elsewhere().is_some_and(|(l, v)| l.nve == to.nve && v > self.hosted),
        };
        if over {
            self.handover.move_id = Some(id);
            return;
        }
        let expires = cx.now + cx.config.intent_timeout;
        if let Some(known) = self.intent.as_mut().filter(|i| i.id == id && i.role == role) {
            // Said again: the NVA may have forgotten what we reported.
            known.unconfirmed = false;
            known.expires = expires;
            (known.prepared_said, known.paused_said) = (false, false);
            known.ready_by = cx.now + cx.config.prepare_timeout;
        } else {
            let ready_by = cx.now + cx.config.prepare_timeout;
            self.begin_intent(Intent {
                id,
                role,
                mode,
                from,
                to,
                expires,
                ready_by,
                hop_ready: false,
                port_ready: role == MoveRole::Source,
                prepared_said: false,
                paused_said: false,
                stood_before: self.phase.pause().is_some(),
                resumed: false,
                unconfirmed: false,
                marks: false,
                all_sent: false,
            });
        }
        self.arm_withdrawal(cx);
        self.port_ready(cx);
        self.report_if_prepared(cx);
        if self.phase.pause().is_some() {
            self.report_paused(cx);
        }
    }

    fn begin_intent(&mut self, intent: Intent) {
        if intent.is_target() {
            if !self.is_hosted() && !intent.mode.interrupts() {
                self.handover.begin(Some(intent.id.clone()));
            }
            if let Phase::Left | Phase::Refused(_) = self.phase {
                // It comes back: its port may speak again. The forward entry stays (R46c).
                self.reopen_ports();
            }
        } else if self.is_hosted() {
            self.handover.move_id = Some(intent.id.clone());
        }
        self.intent = Some(intent);
    }

    /// At the new NVE a port makes the move's resources complete.
    pub(crate) fn port_ready(&mut self, cx: &mut Ctx<'_>) {
        let there = self.open_port().is_some() || self.is_hosted();
        if let Some(i) = self.intent.as_mut().filter(|i| !i.port_ready && there) {
            i.port_ready = true;
            i.ready_by = cx.now + cx.config.prepare_timeout;
            self.report_if_prepared(cx);
        }
    }

    /// A planned move waits for the other NVE's next hop.
    pub(crate) fn awaits_hop(&self) -> bool {
        self.intent.as_ref().is_some_and(|i| !i.hop_ready)
    }

    /// The other NVE's next hop is resolved (R42).
    pub(crate) fn next_hop_ready(&mut self, cx: &mut Ctx<'_>) {
        if let Some(i) = &mut self.intent {
            i.hop_ready = true;
        }
        self.report_if_prepared(cx);
    }

    fn report_if_prepared(&mut self, cx: &mut Ctx<'_>) {
        if self.intent.as_ref().is_some_and(|i| i.hop_ready && i.port_ready) {
            self.report_prepared(cx, "");
        }
    }

    pub(crate) fn report_prepared(&mut self, cx: &mut Ctx<'_>, note: &str) {
        let step = self.step(cx, MoveStepKind::Prepared, cx.wall_us, note);
        if let Some(i) = self.intent.as_mut().filter(|i| !i.prepared_said) {
            i.prepared_said = true;
            cx.actions.push(Action::Report { id: i.id.clone(), step: Some(step), counts: None });
        }
    }

    pub(crate) fn report_paused(&mut self, cx: &mut Ctx<'_>) {
        let Some(pause) = self.phase.pause() else { return };
        let step = self.step(cx, MoveStepKind::Paused, pause.wall_us, "");
        if let Some(i) = self.intent.as_mut().filter(|i| !i.is_target() && !i.paused_said) {
            i.paused_said = true;
            self.handover.move_id = Some(i.id.clone());
            cx.actions.push(Action::Report { id: i.id.clone(), step: Some(step), counts: None });
        }
    }

    /// The VM runs here again, after a pause that was reported: the NVA's patience with that is over. Another pause is
    /// reported as this one was.
    pub(crate) fn report_resumed(&mut self, cx: &mut Ctx<'_>) {
        let step = self.step(cx, MoveStepKind::Activated, cx.wall_us, "it runs here again");
        if let Some(i) = self.intent.as_mut().filter(|i| !i.is_target() && i.paused_said) {
            i.paused_said = false;
            cx.actions.push(Action::Report { id: i.id.clone(), step: Some(step), counts: None });
        }
    }

    /// The NVA says that the move was called off. Of a move of an earlier session that says too
    /// little: since then the VM may have been paused for another one, or run elsewhere. The snapshot
    /// tells, and ends the intent then.
    pub(crate) fn abort(&mut self, id: &MoveId, reason: &str, cx: &mut Ctx<'_>) {
        if self.intent.as_ref().is_some_and(|i| !i.unconfirmed) {
            self.give_up(id, reason, cx);
        }
    }

    /// The move has ended before its grant: back to what was.
    fn give_up(&mut self, id: &MoveId, reason: &str, cx: &mut Ctx<'_>) {
        let Some(intent) = self.intent.take_if(|i| i.id == *id) else { return };
        cx.note(Level::Info, format!("move {id} of {} was called off: {reason}", self.key));
        if intent.is_target() {
            return;
        }
        let Some(port) = self.phase.pause().map(|pause| pause.port) else { return };
        if intent.stood_before || intent.mode.interrupts() {
            return self.arm_withdrawal(cx);
        }
        // What is held goes to the port, if the VM is still behind one. Any other port may be a leftover
        // or wait for a later move.
        let back = port
            .or_else(|| self.port_that_came_back())
            .filter(|p| self.ports.get(p).is_some_and(|p| p.link_up && !p.is_stopped()));
        match back {
            Some(port) => self.activate(port, godwit_model::ClaimCause::Activate, cx),
            None => {
                if let Phase::Paused(pause) = &mut self.phase {
                    pause.cause = if port.is_some() { PauseCause::LinkDown } else { PauseCause::PortGone };
                }
                self.arm_withdrawal(cx);
            }
        }
    }

    /// The VN's snapshot is complete. A move of an earlier session that the NVA did not name again,
    /// neither by order nor in the record, is over. Where it was not to name `all`, a VM that it does not name may
    /// be in the directory: the answer to its port's Associate says so.
    pub(crate) fn snapshot_complete(&mut self, all: bool, cx: &mut Ctx<'_>) {
        let moving = cx.record.and_then(|r| r.moving.as_ref());
        let stale =
            self.intent.as_ref().filter(|i| i.unconfirmed && moving != Some(&i.id)).map(|i| i.id.clone());
        if let Some(intent) = &mut self.intent {
            intent.unconfirmed = false;
        }
        if let Some(id) = stale {
            self.give_up(&id, "the NVA does not know it any more", cx);
        }
        // Paused before its claim was answered, and the directory does not have it here: it never was
        // ours, and what is held goes where it is.
        let unclaimed = self.phase.pause().is_some() && self.claim.is_none();
        if unclaimed && cx.elsewhere().is_some_and(|(_, v)| v > self.hosted) {
            self.reopen_ports();
        }
        if all || cx.record.is_some() {
            self.provision(cx);
        }
    }

    /// Its manager speaks of the VM: the NVA's patience begins anew (R49).
    pub(crate) fn say_that_the_move_goes_on(&mut self, cx: &mut Ctx<'_>) {
        if let Some(i) = &mut self.intent {
            i.expires = cx.now + cx.config.intent_timeout;
            let id = i.id.clone();
            cx.actions.push(Action::Report { id, step: None, counts: None });
        }
    }

    /// Nobody said how the move ended: as if it had been called off (R49). While the NVA is there, its patience counts,
    /// and it says so.
    pub(crate) fn intent_expired(&mut self, cx: &mut Ctx<'_>) {
        if let Some(i) = self.intent.as_mut().filter(|i| cx.online && !i.unconfirmed) {
            i.expires = cx.now + cx.config.intent_timeout;
            return;
        }
        if let Some(id) = self.intent.as_ref().map(|i| i.id.clone()) {
            cx.note(Level::Alarm, format!("move {id} of {} did not come to an end", self.key));
            self.give_up(&id, "its time is over", cx);
        }
    }
}

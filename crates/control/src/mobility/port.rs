//! A VM's ports at this NVE: they come, activate, pause, lose their link and go (R15, R18, R19).

use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{ClaimCause, MoveStepKind, OperState, Version};

use godwit_tables::event::AnnounceKind;
use godwit_tables::update::PortIdx;
use godwit_wire::Instant;

use crate::io::Level;

use super::{Ctx, NOTES, Pause, PauseCause, Phase, Provision, Run, Vm};

/// Whose word opens a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Opens {
    /// Anybody's: the VM's own, its hypervisor's, the directory's.
    ByWord,
    /// Only an order's, which has not been given (R18).
    ByOrder,
    /// Only an order's, which was given and stands until the VM leaves: its guest may start anew as often as it likes.
    Ordered,
}

/// Whether a port lets its VM in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// What the VM says is heard.
    Open,
    /// Likewise; and the VM ran on it when its link went, and nobody has had it since: with the link it is back.
    Kept,
    /// Its VM left or was refused: not even announcements count.
    Closed,
}

/// A port that was made for the VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AccessPort {
    pub(crate) name: String,
    pub(crate) opens: Opens,
    pub(crate) door: Door,
    pub(crate) link_up: bool,
    /// What the VM manager said last (R16).
    pub(crate) oper: Option<OperState>,
    pub(crate) behind: Behind,
}

/// Whether a VM is behind a port that could speak, by its manager's word (R16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Behind {
    /// There may be one.
    Anybody,
    /// It crashed, and may come up again until then.
    Crashed { until: Instant },
    /// There is none.
    Nobody,
}

/// How an announcement is called in a claim.
pub(crate) fn cause_of(kind: AnnounceKind) -> ClaimCause {
    match kind {
        AnnounceKind::GratuitousArp => ClaimCause::GratuitousArp,
        AnnounceKind::NeighborAdvertisement { .. } => ClaimCause::NeighborAdvertisement,
        AnnounceKind::Rarp => ClaimCause::Rarp,
        AnnounceKind::FirstFrame | AnnounceKind::Alive => ClaimCause::FirstFrame,
    }
}

impl AccessPort {
    /// It opens by an order, and none is there.
    pub(crate) fn awaits_order(&self) -> bool {
        self.opens == Opens::ByOrder
    }

    /// The VM might be behind it, for all that the directory's word says.
    pub(crate) fn could_have_it(&self) -> bool {
        let lost = self.door == Door::Kept && !self.link_up;
        !self.is_closed() && !self.is_stopped() && !lost
    }

    /// The VM left: whoever comes on this port is to say so anew.
    pub(crate) fn is_left(&mut self) {
        if self.opens == Opens::Ordered {
            self.opens = Opens::ByOrder;
        }
        if self.door == Door::Kept {
            self.door = Door::Open;
        }
    }
}

impl Vm {
    /// The first port that could be activated.
    pub(crate) fn open_port(&self) -> Option<PortIdx> {
        self.ports.iter().find(|(_, p)| !p.is_closed()).map(|(port, _)| *port)
    }

    /// The port that it had last, after that was away.
    pub(crate) fn port_that_came_back(&self) -> Option<PortIdx> {
        let same = |p: &&AccessPort| !p.is_closed() && p.name == self.last_port;
        self.ports.iter().find(|(_, p)| same(p)).map(|(port, _)| *port)
    }

    pub(crate) fn close_ports(&mut self) {
        for p in self.ports.values_mut() {
            p.door = Door::Closed;
        }
    }

    /// The VM may come, or come back, on any of its ports.
    pub(crate) fn reopen_ports(&mut self) {
        self.phase = Phase::Idle;
        for p in self.ports.values_mut().filter(|p| p.door == Door::Closed) {
            p.door = Door::Open;
        }
    }

    /// A port for the VM is there.
    pub(crate) fn port_added(&mut self, port: PortIdx, name: String, explicit: bool, cx: &mut Ctx<'_>) {
        cx.send(NveToNva::Associate { key: self.key, port: name.clone() });
        let came_back = name == self.last_port;
        if self.ports.is_empty() {
            self.provisioned = Provision::of_first_port(cx.record.is_some(), cx.online);
        }
        let opens = if explicit { Opens::ByOrder } else { Opens::ByWord };
        let (door, link_up, behind) = (Door::Open, true, Behind::Anybody);
        let new = AccessPort { name, opens, door, link_up, oper: None, behind };
        self.ports.insert(port, new);
        match self.phase {
            Phase::Left => self.phase = Phase::Idle,
            // Its port came back under it (a switch or hypervisor restarted the device). Another port
            // says nothing of where the VM runs: it may be for a move back that we do not know yet.
            Phase::Paused(Pause { port: None, cause: PauseCause::PortGone, .. })
                if self.intent.is_none() && came_back =>
            {
                self.disarm_withdrawal();
                if !explicit {
                    self.activate(port, ClaimCause::Resync, cx);
                }
            }
            // The operator's word. Otherwise our report has said already that it is not here, and the
            // directory's record is about to change.
            Phase::Idle if cx.here().is_some() && cx.record.is_some_and(|r| r.pinned) => {
                self.directory_changed(cx);
            }
            Phase::Idle | Phase::Running(_) | Phase::Paused(_) | Phase::Refused(_) => {}
        }
        self.port_ready(cx);
    }

    /// A port is gone. What is held stays held (R45).
    pub(crate) fn port_removed(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        let Some(gone) = self.ports.remove(&port) else { return };
        self.last_port.clone_from(&gone.name);
        cx.send(NveToNva::Disassociate { key: self.key, port: gone.name });
        let ends = self.ends_for_move();
        match &mut self.phase {
            // Nothing else would come of it but the end of its hold.
            phase if ends && phase.port() == Some(port) => {
                self.attachment_over("its port is gone: it is shut down for a move", cx);
            }
            Phase::Running(run) if run.port == port => self.pause(None, PauseCause::PortGone, cx),
            Phase::Paused(pause) if pause.port == Some(port) => {
                pause.port = None;
                self.arm_withdrawal(cx);
            }
            Phase::Refused(r) if r.port == port => self.refusal_over(),
            Phase::Left if self.ports.is_empty() && self.forward.is_none() => self.phase = Phase::Idle,
            _ => {}
        }
        self.look_again(cx);
    }

    /// The port's link changed.
    pub(crate) fn link(&mut self, port: PortIdx, up: bool, cx: &mut Ctx<'_>) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        if p.link_up == up {
            return;
        }
        p.link_up = up;
        match self.phase {
            Phase::Running(run) if run.port == port && !up => {
                self.pause(Some(port), PauseCause::LinkDown, cx);
            }
            Phase::Paused(Pause { port: Some(on), cause, .. }) if on == port => {
                let back = up && cause == PauseCause::LinkDown && !self.is_stopped(port);
                if back { self.activate(port, ClaimCause::Activate, cx) } else { self.arm_withdrawal(cx) }
            }
            _ if up => self.link_came_back(port, cx),
            _ => {}
        }
        self.look_again(cx);
    }

    /// The hypervisor paused the VM (R45).
    pub(crate) fn pause_asked(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        match &mut self.phase {
            Phase::Running(run) if run.port == port => self.pause(Some(port), PauseCause::Asked, cx),
            Phase::Paused(pause) => {
                pause.cause = PauseCause::Asked;
                self.stands_for_the_move();
                self.arm_withdrawal(cx);
            }
            _ => cx.note(Level::Warn, format!("{} does not run on that port: nothing to pause", self.key)),
        }
    }

    /// The manager says that nobody is executed behind the port.
    pub(crate) fn is_stopped(&self, port: PortIdx) -> bool {
        self.ports.get(&port).is_some_and(AccessPort::is_stopped)
    }

    /// A guest started anew on a port that its VM does not run on now. If nobody has had the VM since it ran there, it
    /// is there again (R19); otherwise it is asked, or says so itself.
    fn link_came_back(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        let Some(p) = self.ports.get_mut(&port) else { return };
        let free = cx.elsewhere().is_none() && !cx.is_moving() && self.intent.is_none();
        match (&self.phase, p.door) {
            (Phase::Idle, Door::Kept) if free && !p.is_stopped() && !p.awaits_order() => {
                let ordered = p.opens == Opens::Ordered;
                let cause = if ordered { ClaimCause::Activate } else { ClaimCause::Resync };
                return self.activate(port, cause, cx);
            }
            (Phase::Refused(r), _) if r.port == port => return self.claim_refused_again(cx.now),
            (Phase::Idle | Phase::Left, Door::Closed) => p.door = Door::Open,
            _ => {}
        }
        self.seek_now(cx);
    }

    /// The hypervisor says that the VM runs on the port.
    pub(crate) fn activate_asked(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        if let Some(p) = self.ports.get_mut(&port).filter(|p| p.awaits_order()) {
            p.opens = Opens::Ordered;
        }
        if self.ports.contains_key(&port) && self.phase.running_on() != Some(port) {
            self.activate(port, ClaimCause::Activate, cx);
        }
    }

    /// The VM made itself known on a port (R18, R24 to R26).
    pub(crate) fn announced(
        &mut self,
        port: PortIdx,
        kind: AnnounceKind,
        ip: Option<IpAddr>,
        cx: &mut Ctx<'_>,
    ) {
        if kind == AnnounceKind::Alive {
            return self.heard_alive(port, cx);
        }
        let by_word = |p: &&AccessPort| !p.is_closed() && p.opens == Opens::ByWord;
        let Some(p) = self.ports.get(&port).filter(by_word) else { return };
        match self.phase {
            Phase::Running(run) if run.port == port && run.spoke => return self.flag_heard(kind, ip, cx),
            // Frames sent before the pause still come: they do not end it.
            Phase::Paused(pause) if pause.port == Some(port) && !pause.is_old(cx.now) => return,
            _ => {}
        }
        let alien = |ip: &IpAddr| !cx.may_announce(*ip);
        if let Some(ip) = ip.filter(alien) {
            let text =
                format!("port {}: {} announced {ip}, which is not its address: refused", p.name, self.key);
            return self.refuse_announcement(Level::Warn, text, cx);
        }
        if self.phase.running_on().is_some_and(|on| on != port) && !self.may_change_ports(cx) {
            return;
        }
        self.announced = ip;
        if let AnnounceKind::NeighborAdvertisement { router, overrides } = kind {
            self.keep_flags(router, overrides, ip, cx);
        }
        self.activate(port, cause_of(kind), cx);
    }

    /// What the VM's advertisement for `ip` says goes along with its next claim (R25).
    fn keep_flags(&mut self, router: bool, overrides: bool, ip: Option<IpAddr>, cx: &Ctx<'_>) {
        self.router = Some(router);
        let Some(r) = cx.record else { return };
        self.overrides.retain(|ip, _| r.ipv6.contains(ip));
        if let Some(IpAddr::V6(ip)) = ip
            && r.ipv6.contains(&ip)
        {
            self.overrides.insert(ip, overrides);
        }
    }

    /// A VM that runs here advertised itself again: a changed flag goes to the directory, once a
    /// second at most (R25).
    fn flag_heard(&mut self, kind: AnnounceKind, ip: Option<IpAddr>, cx: &mut Ctx<'_>) {
        let AnnounceKind::NeighborAdvertisement { router, overrides } = kind else { return };
        let Some(r) = cx.record else { return };
        let own = ip.is_some_and(|ip| cx.may_announce(ip));
        let router_known = r.router_pinned || r.router == router;
        let overrides_known = match ip {
            Some(IpAddr::V6(ip)) if r.ipv6.contains(&ip) => r.no_override.contains(&ip) != overrides,
            _ => true,
        };
        let known = router_known && overrides_known;
        if !own || known || self.claim.is_some() || !self.notes.take(NOTES, cx.now) {
            return;
        }
        self.keep_flags(router, overrides, ip, cx);
        self.start_claim(ClaimCause::NeighborAdvertisement, false, cx);
    }

    fn refuse_announcement(&mut self, level: Level, text: String, cx: &mut Ctx<'_>) {
        if self.notes.take(NOTES, cx.now) {
            cx.note(level, text);
        }
    }

    /// Local delivery starts; the claim follows (R18). Deleting the forward entry and delivering
    /// locally is one and the same table entry, so nothing can loop between them (R46c).
    pub(crate) fn activate(&mut self, port: PortIdx, cause: ClaimCause, cx: &mut Ctx<'_>) {
        if self.awaits_policy(port, cause, cx) {
            return;
        }
        let spoke = !matches!(cause, ClaimCause::Activate | ClaimCause::Resync);
        if cause != ClaimCause::NeighborAdvertisement {
            // Heard in an earlier life here; what it is now only it can tell.
            self.router = None;
        }
        let same_port = self.is_on(port);
        let (paused, since) = match self.phase {
            Phase::Running(run) if same_port => (false, run.since),
            Phase::Paused(pause) => (true, if same_port { pause.ran_since } else { cx.now }),
            _ => (false, cx.now),
        };
        self.leave_other_ports(port);
        if let Some(intent) = self.intent.as_mut().filter(|i| !i.is_target() && paused) {
            intent.resumed |= cause == ClaimCause::Activate && !intent.stood_before;
            cx.actions.push(super::Action::SendsAgain { to: intent.to.locators });
            self.report_resumed(cx);
        }
        self.confirmed = same_port && self.hosted > Version::ZERO && cx.here() == Some(self.hosted);
        // Taken up again where it was. A VM that speaks for itself claims, because it may have been
        // elsewhere meanwhile without a word reaching us.
        let stayed = self.confirmed && !spoke;
        let had_forward = self.forward.take().is_some();
        self.ran_from = cx.version();
        self.phase = Phase::Running(Run { port, since, spoke });
        if let Some(p) = self.ports.get_mut(&port) {
            p.runs(cause == ClaimCause::Activate);
        }
        if let Some(intent) = self.intent.as_ref().filter(|i| i.is_target()) {
            let id = intent.id.clone();
            let step = self.step(cx, MoveStepKind::Activated, cx.wall_us, cause.as_text());
            self.handover.move_id = Some(id.clone());
            cx.actions.push(super::Action::Report { id, step: Some(step), counts: None });
        }
        self.begin_order(cx);
        if !stayed {
            self.start_claim(cause, had_forward, cx);
        }
    }

    /// It is on this port now. On its others it may be heard again whenever it goes there (R23); where an order let it
    /// in, another order is needed.
    fn leave_other_ports(&mut self, than: PortIdx) {
        self.seek = None;
        for (_, p) in self.ports.iter_mut().filter(|(port, _)| **port != than) {
            p.is_left();
            p.door = Door::Open;
        }
    }

    /// A port opens with everything that its VM's record asks for, or not at all (R15, R23). One that is open already
    /// has a policy in force.
    fn awaits_policy(&mut self, port: PortIdx, cause: ClaimCause, cx: &mut Ctx<'_>) -> bool {
        let unknown = self.is_unknown(cx);
        if self.is_on(port) || !cx.missing_policy && !unknown {
            self.waits = None;
            return false;
        }
        if unknown && cx.online {
            // The answer to its port is on its way.
            self.waits = Some((port, cause));
            return true;
        }
        // Said once, however often it speaks.
        if unknown {
            if self.waits.replace((port, cause)).is_none_or(|(before, _)| before != port) {
                let name = self.ports.get(&port).map_or("", |p| p.name.as_str());
                let text = format!(
                    "port {name}: {} is new here and the NVA is away: the port stays closed until it says what the VM \
                     may do; `unknown_vm = \"open\"` lets it in without policy and addresses",
                    self.key
                );
                cx.note(Level::Alarm, text);
            }
            return true;
        }
        if self.waits.replace((port, cause)).is_none_or(|(before, _)| before != port) {
            let name = self.ports.get(&port).map_or("", |p| p.name.as_str());
            let policy = cx.record.and_then(|r| r.policy.as_deref()).unwrap_or_default();
            cx.note(
                Level::Alarm,
                format!(
                    "port {name}: the policy {policy} of {} is not here: the port stays closed until the NVA \
                     tells it",
                    self.key
                ),
            );
        }
        true
    }

    /// Nobody has said anything of the VM, and it is not let in like that.
    fn is_unknown(&self, cx: &Ctx<'_>) -> bool {
        let answered = cx.online && self.provisioned.is_said();
        !cx.config.open_to_unknown && cx.record.is_none() && !answered
    }

    /// The policy of its record is here, or the NVA has said what it knows of the VM.
    pub(crate) fn policy_came(&mut self, cx: &mut Ctx<'_>) {
        let Some((port, cause)) = self.waits.take() else { return };
        if self.ports.get(&port).is_some_and(|p| !p.is_closed()) {
            self.activate(port, cause, cx);
        }
    }

    /// Everything that comes for it is held from now on.
    pub(super) fn pause(&mut self, port: Option<PortIdx>, cause: PauseCause, cx: &mut Ctx<'_>) {
        let ran_since = if let Phase::Running(run) = self.phase { run.since } else { cx.now };
        let ran_on = self.phase.running_on();
        let (since, wall_us) = (cx.now, cx.wall_us);
        self.phase = Phase::Paused(Pause { port, cause, ran_since, since, wall_us, withdraw_at: None });
        self.stands_for_the_move();
        self.announce_end(ran_on, cx);
        self.ordering = None;
        self.seek = None;
        self.handover.begin(self.intent.as_ref().map(|i| i.id.clone()));
        self.arm_withdrawal(cx);
        self.report_paused(cx);
    }

    /// A pause that is said while a move is known is that move's, unless the VM has been let run again since.
    fn stands_for_the_move(&mut self) {
        if let Some(intent) = &mut self.intent {
            intent.stood_before = intent.resumed;
        }
    }

    /// A port that is gone or without link ends the attachment after a while; a pause that was asked
    /// for or a planned move explains it for longer (R19).
    pub(crate) fn arm_withdrawal(&mut self, cx: &Ctx<'_>) {
        let Phase::Paused(pause) = &mut self.phase else { return };
        let on = pause.port.and_then(|p| self.ports.get(&p));
        // Its manager says that it is there and paused, however long that is and whatever its device does.
        let paused = on.is_some_and(|p| p.oper == Some(OperState::Paused));
        let attached = paused || on.is_some_and(|p| p.link_up && !p.is_stopped());
        let explained =
            pause.cause == PauseCause::Asked || self.intent.as_ref().is_some_and(super::Intent::holds);
        let hold = if explained { cx.config.intent_timeout } else { cx.config.port_down_hold };
        pause.withdraw_at = (!attached).then(|| cx.now + hold);
    }
}

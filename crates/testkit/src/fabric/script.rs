//! The hypervisor's part of a move, as the lab has it, with its timing drawn by chance.
//!
//! It orders the move, plugs in the new port, waits for Prepared, pauses the guest, lets it go on at
//! the new switch, and removes the old port. Or it calls the move off and lets the guest go on where
//! it was. What switches and NVA may rely on, and nothing else:
//!
//! * A guest runs once: it is paused, and the old switch told so, before it goes on elsewhere.
//! * A guest runs for two milliseconds before it is paused again.
//! * What a guest has sent is taken before its devices stop; what is delivered to a paused guest's old
//!   port, until it goes on, is in its memory.
//! * A move is ordered before the guest is paused for it, and called off only before it runs at the new
//!   switch. Prepared is awaited with patience in schedules that promise to lose nothing.
//! * After a call-off the old port is activated by word where the guest was paused by word, unless
//!   nothing fails: a switch that was away may not know of the move.
//! * A VM whose move was called off changes its port within its switch only after that switch has heard of the
//!   call-off.
//! * Where switches die too, nothing is begun with a VM before the directory has it where it runs.
//! * A guest is not silent for long, unless the hypervisor itself activates its port.

use godwit_control::Input;
use godwit_model::{MoveId, MovePhase};
use godwit_nva::Order;
use godwit_nva::directory::Refusal;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use super::draw::FROZEN;
use super::names;
use super::nva::Job;
use super::schedule::{Abort, Announce, Class, MovePlan, Pause};
use super::world::{Event, World};

/// An order without an answer is given again after so long.
const ANSWER: Span = Span::from_ms(400);
/// A refused order is given again after so long, so often.
const REFUSED: (Span, u32) = (Span::from_ms(25), 300);
/// How often the script looks how far the move is.
const LOOK: Span = Span::from_ms(5);
/// A guest runs at least so long before it is paused: what it says first reaches its switch before the
/// hypervisor's next word does.
const LEAST_RUN: Span = Span::from_ms(2);

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Say where the VM is mirrored to.
    Mirror,
    /// Say that it was.
    Mirrored,
    /// Give the order, or give it again.
    Order,
    /// Plug in the new port.
    Plug,
    /// Wait until both switches are prepared.
    Await,
    /// Pause the guest.
    Pause,
    /// Tell the old switch of it.
    TellPause,
    /// It is shut down: report what is done.
    Report,
    /// Let it go on at the new place.
    GoOn,
    /// Call the move off.
    CallOff,
    /// Let the guest go on where it was.
    Back,
    /// Let the VM die, to start it elsewhere.
    Die,
    /// Nothing.
    End,
}

/// One move on its way.
pub(super) struct Script {
    pub plan: MovePlan,
    pub id: String,
    pub step: Step,
    /// Only the last wake-up that was asked for counts.
    turn: u32,
    tries: u32,
    /// The order was given once; it may be obeyed without our knowing it.
    ordered: bool,
    pub old: Option<(usize, PortIdx)>,
    new: Option<PortIdx>,
    /// When patience with Prepared ends.
    pub until: Instant,
}

impl World {
    /// The schedule wants a move; it waits for an earlier one of the same VM.
    pub fn move_wanted(&mut self, n: usize) {
        let vm = self.plan.moves[n].vm;
        self.guests[vm].wanted.push_back(n);
        self.next_move(vm);
    }

    fn next_move(&mut self, vm: usize) {
        if self.guests[vm].script.is_some() {
            return;
        }
        let Some(n) = self.guests[vm].wanted.pop_front() else { return };
        let mut plan = self.plan.moves[n].clone();
        let old = self.guests[vm].at;
        plan.to = match old {
            Some((host, _)) if plan.local => host,
            Some((host, _)) if host == plan.to => self.another_host(host),
            _ => plan.to,
        };
        let script = self.scripts.len();
        let id = format!("m{n}");
        self.note(|| format!("SCRIPT {id}: vm {vm} from {old:?} to n{}: {plan:?}", plan.to));
        self.stats.moves += 1;
        self.guests[vm].script = Some(script);
        let (dies, local, first) = (plan.dies, plan.local, World::first_step(&plan));
        let until = Instant::NEVER;
        self.scripts.push(Script {
            plan,
            id,
            step: Step::Order,
            turn: 0,
            tries: 0,
            ordered: false,
            old,
            new: None,
            until,
        });
        // What was said to switches on behalf of an earlier move has arrived before the VM dies.
        let (step, after) = match (dies, local) {
            (true, _) => (Step::Die, Span::from_ms(5)),
            (_, true) => (Step::Plug, Span(0)),
            _ => (first, Span(0)),
        };
        self.wake(script, step, after);
    }

    /// Performs a move that the NVA has ordered by itself.
    pub fn perform(&mut self, plan: MovePlan, id: String) {
        let (vm, script) = (plan.vm, self.scripts.len());
        let old = self.guests[vm].at;
        self.note(|| {
            format!("SCRIPT {id}: ordered by the NVA: vm {vm} from {old:?} to n{}: {plan:?}", plan.to)
        });
        self.stats.moves += 1;
        self.guests[vm].script = Some(script);
        let (after, until) = (plan.plug_after, Instant::NEVER);
        let (step, turn, tries, ordered, new) = (Step::Plug, 0, 0, true, None);
        self.scripts.push(Script { plan, id, step, turn, tries, ordered, old, new, until });
        self.wake(script, Step::Plug, after);
    }

    /// The next switch that a VM may go to.
    fn another_host(&self, host: usize) -> usize {
        let next = (host + 1) % self.hosts.len();
        if self.plan.class == Class::Frozen && next == FROZEN { next + 1 } else { next }
    }

    /// The directory has the VM where it runs, and no move of it: a manager begins nothing else before,
    /// because the directory would take its order for another one.
    fn is_settled(&self, vm: usize) -> bool {
        let guest = &self.guests[vm];
        let record = self.nva.settled().and_then(|d| d.vm(guest.key));
        let has = record.and_then(|r| r.active_nve().cloned());
        record.is_some_and(|r| r.moving.is_none()) && has == guest.at.map(|(host, _)| names::nve(host))
    }

    /// The VM dies and is started elsewhere without an order. Not in the midst of a move: that would
    /// promise the VM to a switch where it is not, until its time is over.
    fn die(&mut self, script: usize) {
        let (vm, blackout) = (self.scripts[script].plan.vm, self.scripts[script].plan.blackout);
        if !self.is_settled(vm) {
            return self.wake_patiently(script, Step::Die);
        }
        self.note(|| format!("SCRIPT {script}: guest dies"));
        self.stats.cold_starts += 1;
        self.forgets_addresses(vm);
        self.guests[vm].running = false;
        self.guests[vm].has_moved = true;
        if let Some((host, port)) = self.guests[vm].at.take() {
            self.unplug(host, port);
        }
        self.plug_target(script);
        self.wake(script, Step::GoOn, blackout);
    }

    /// Goes on with `step` after a while; an earlier wish is void.
    pub fn wake(&mut self, script: usize, step: Step, after: Span) {
        let s = &mut self.scripts[script];
        s.step = step;
        s.turn += 1;
        let turn = s.turn;
        self.after(after, Event::Script { script, turn });
    }

    /// Tries `step` again a little later, until there is no hope.
    fn wake_patiently(&mut self, script: usize, step: Step) {
        self.scripts[script].tries += 1;
        if self.scripts[script].tries < REFUSED.1 {
            self.wake(script, step, REFUSED.0);
        } else {
            self.stats.moves_refused += 1;
            self.finish_script(script);
        }
    }

    pub fn script_event(&mut self, script: usize, turn: u32) {
        if self.scripts[script].turn != turn {
            return;
        }
        match self.scripts[script].step {
            Step::Mirror => self.mirror(script, false),
            Step::Mirrored => self.mirror(script, true),
            Step::Report => self.report(script),
            Step::Order => self.order(script),
            Step::Plug => self.plug_step(script),
            Step::Await => self.look(script),
            Step::Pause => self.pause_guest(script),
            Step::TellPause => self.tell_pause(script),
            Step::GoOn => self.go_on(script),
            Step::CallOff => self.call_off(script),
            Step::Back => self.back(script),
            Step::Die => self.die(script),
            Step::End => {}
        }
    }

    fn order(&mut self, script: usize) {
        let s = &self.scripts[script];
        if self.plan.class == Class::Anything && !s.ordered && !self.is_settled(s.plan.vm) {
            return self.wake_patiently(script, Step::Order);
        }
        self.scripts[script].ordered = true;
        if self.scripts[script].plan.plug_first {
            self.plug_target(script);
        }
        let s = &self.scripts[script];
        let (vm, to, id) = (self.guests[s.plan.vm].name.clone(), s.plan.to, s.id.clone());
        let mode = s.plan.mode;
        let earlier = self.nva.settled().is_some_and(|d| !d.moves(Some(&vm), true).is_empty());
        self.stats.moves_on += u64::from(earlier && s.tries == 0);
        let order = Order::StartMove { vm, to: names::nve(to), mode, id, accept: true };
        self.nva_request(Job::Order { script, order });
        if self.scripts[script].step == Step::Order {
            self.wake(script, Step::Order, ANSWER);
        }
    }

    /// The NVA's answer to an order of the script, or to its call-off.
    pub fn script_answered(&mut self, script: usize, off: bool, answer: Result<(), Refusal>) {
        let s = &mut self.scripts[script];
        let id = s.id.clone();
        match (s.step, answer) {
            // An order that was given again meanwhile.
            (Step::CallOff, _) if !off => {}
            (Step::Mirror, Ok(())) => self.wake(script, Step::Mirrored, Span(0)),
            (Step::Mirrored, Ok(())) => self.wake(script, Step::Order, Span(0)),
            (step @ (Step::Mirror | Step::Mirrored), Err(why)) => {
                self.note(|| format!("SCRIPT {id}: refused: {why}"));
                self.wake_patiently(script, step);
            }
            (Step::Order, Ok(())) => {
                let after = if s.plan.plug_first { Span(0) } else { s.plan.plug_after };
                let off = s.plan.abort == Some(Abort::Ordered);
                self.known.orders.insert(MoveId(id));
                self.wake(script, if off { Step::CallOff } else { Step::Plug }, after);
            }
            (Step::Order, Err(why)) => {
                self.note(|| format!("SCRIPT {id}: refused: {why}"));
                self.wake_patiently(script, Step::Order);
            }
            (Step::CallOff, answer) => {
                let answer = answer.map_err(|why| why.to_string());
                self.note(|| format!("SCRIPT {id}: called off: {answer:?}"));
                self.wake(script, Step::Back, Span::from_us(100));
            }
            // The answer to an order that was given again meanwhile.
            _ => {}
        }
    }

    fn plug_step(&mut self, script: usize) {
        let s = &self.scripts[script];
        let (vm, local, abort) = (s.plan.vm, s.plan.local, s.plan.abort);
        if local && self.plan.class == Class::Anything && !self.is_settled(vm) {
            return self.wake_patiently(script, Step::Plug);
        }
        if local
            && self.guests[vm].called_off.is_some_and(|heard| self.now < heard || self.has_move_at_hand(vm))
        {
            return self.wake_patiently(script, Step::Plug);
        }
        self.plug_target(script);
        let span = self.rng.us(0, 5000);
        match abort {
            _ if local => self.wake(script, Step::Pause, span),
            Some(Abort::Plugged) => self.wake(script, Step::CallOff, span),
            _ => self.begin_waiting(script),
        }
    }

    /// The VM's switch has not heard of the call-off yet: it would take a pause for one of that move, and end it
    /// with that.
    fn has_move_at_hand(&self, vm: usize) -> bool {
        let guest = &self.guests[vm];
        guest.at.is_some_and(|(host, _)| self.hosts[host].nve.expects_move(guest.key))
    }

    fn plug_target(&mut self, script: usize) {
        let s = &self.scripts[script];
        if s.new.is_none() {
            let (host, vm) = (s.plan.to, s.plan.vm);
            let port = self.plug(host, vm);
            self.scripts[script].new = Some(port);
            self.guests[vm].awaited = Some((host, port));
        }
    }

    fn begin_waiting(&mut self, script: usize) {
        let s = &mut self.scripts[script];
        s.until = self.now + s.plan.patience;
        self.wake(script, Step::Await, Span(0));
    }

    /// Looks how far the move is, while the NVA can be asked.
    fn look(&mut self, script: usize) {
        let s = &self.scripts[script];
        let id = MoveId(s.id.clone());
        let late = self.now >= s.until;
        let abort = s.plan.abort;
        let phase = self.nva.settled().and_then(|d| d.move_record(&id).ok()).map(|r| r.phase);
        match phase {
            Some(MovePhase::Aborted | MovePhase::Failed) => self.finish_script(script),
            Some(MovePhase::Prepared) => self.prepared(script, abort),
            _ if late => {
                self.stats.moves_unprepared += 1;
                let vm = self.scripts[script].plan.vm;
                self.guests[vm].unprepared = true;
                self.prepared(script, abort);
            }
            _ => self.wake(script, Step::Await, LOOK),
        }
    }

    fn prepared(&mut self, script: usize, abort: Option<Abort>) {
        let step = if abort == Some(Abort::Prepared) { Step::CallOff } else { Step::Pause };
        let span = self.rng.us(0, 5000);
        self.wake(script, step, span);
    }

    fn pause_guest(&mut self, script: usize) {
        let s = &self.scripts[script];
        let guest = &self.guests[s.plan.vm];
        // One that stands still is not stopped before it goes on.
        let earliest = guest.runs_since.max(guest.stalled_until) + LEAST_RUN;
        if self.now < earliest {
            return self.wake(script, Step::Pause, earliest.since(self.now));
        }
        let lag = s.plan.pause_lag;
        let off = s.plan.abort == Some(Abort::Pausing);
        self.drop_second_port(self.scripts[script].plan.vm);
        let s = &self.scripts[script];
        let guest = &mut self.guests[s.plan.vm];
        guest.running = false;
        guest.has_moved = true;
        self.note(|| format!("SCRIPT {script}: guest pauses"));
        // What it has sent is taken before its devices stop.
        let step = if off { Step::CallOff } else { Step::TellPause };
        self.wake(script, step, lag.max(Span::from_us(100)));
    }

    fn tell_pause(&mut self, script: usize) {
        let s = &self.scripts[script];
        let (pause, blackout, abort) = (s.plan.pause, s.plan.blackout, s.plan.abort);
        if let Some((host, _)) = s.old.filter(|(host, _)| self.is_stalled(*host)) {
            // It has the switch's word before it lets the guest go on elsewhere.
            let left = self.hosts[host].stalled_until.since(self.now);
            return self.wake(script, Step::TellPause, Span(left.0 + 1_000_000));
        }
        if s.plan.mode.interrupts() {
            return self.shut_down(script);
        }
        if let Some((host, port)) = s.old {
            match pause {
                Pause::Asked => self.control(host, Input::PausePort { port }),
                Pause::LinkDown => self.control(host, Input::PortLink { port, up: false }),
                Pause::Unplugged => self.unplug(host, port),
            }
        }
        let step = if abort == Some(Abort::Paused) { Step::CallOff } else { Step::GoOn };
        self.wake(script, step, blackout);
    }

    fn go_on(&mut self, script: usize) {
        let s = &self.scripts[script];
        let (plan, old, Some(port)) = (s.plan.clone(), s.old, s.new) else { return };
        self.note(|| format!("SCRIPT {script}: guest goes on at n{} port {}", plan.to, port.0));
        if plan.mode.interrupts() {
            self.check_detached(plan.vm);
        }
        self.stats.moves_made += 1;
        self.guests[plan.vm].called_off = None;
        self.stats.moves_within += u64::from(plan.local);
        self.resume(plan.vm, plan.to, port, plan.announce, plan.quiet);
        self.sender_has_moved(plan.vm);
        let guest = &mut self.guests[plan.vm];
        guest.silent_until = if plan.silent { guest.quiet_until } else { Instant(0) };
        if let Some((host, port)) = old {
            self.after(plan.unplug_after, Event::Unplug { host, port });
        }
        self.scripts[script].new = None;
        self.finish_script(script);
    }

    /// A guest runs here from now on.
    pub fn resume(&mut self, vm: usize, host: usize, port: PortIdx, announce: Announce, quiet: Span) {
        let guest = &mut self.guests[vm];
        guest.at = Some((host, port));
        guest.running = true;
        guest.announce = announce;
        guest.runs_since = self.now;
        guest.quiet_until = self.now + quiet;
        guest.silent_until = Instant(0);
        if announce == Announce::Explicit {
            self.tell_later(host, Input::ActivatePort { port });
        }
        let span = self.rng.us(1, 500);
        self.after(span, Event::Announce { vm, host, port, round: 0 });
    }

    fn call_off(&mut self, script: usize) {
        let id = self.scripts[script].id.clone();
        self.nva_request(Job::Order { script, order: Order::AbortMove { id: MoveId(id) } });
        if self.scripts[script].step == Step::CallOff {
            self.wake(script, Step::CallOff, ANSWER);
        }
    }

    /// Called off: the guest goes on where it was, if it was paused at all.
    fn back(&mut self, script: usize) {
        let s = &self.scripts[script];
        let (plan, Some((host, port))) = (s.plan.clone(), s.old) else { return };
        self.stats.moves_called_off += 1;
        // What the NVA said until now is heard within this time, or not at all.
        let heard = self.now + Span::from_us(2 * self.plan.weather.session_us + 1000);
        self.guests[plan.vm].called_off = Some(heard);
        self.note(|| format!("SCRIPT {script}: guest goes on where it was"));
        if !self.guests[plan.vm].running {
            let unplugged = !self.hosts[host].ports.contains_key(&port);
            let port = if unplugged { self.plug(host, plan.vm) } else { port };
            let tell = plan.tell_old || unplugged || self.plan.vms[plan.vm].explicit;
            if plan.pause == Pause::LinkDown {
                self.control(host, Input::PortLink { port, up: true });
            }
            // Without a word the switch hears of the call-off and lets the port go on.
            let announce = match self.guests[plan.vm].quiet {
                _ if tell => Announce::Explicit,
                true => Announce::Never,
                false => Announce::FirstFrame,
            };
            self.resume(plan.vm, host, port, announce, plan.quiet);
        }
        self.finish_script(script);
    }

    fn finish_script(&mut self, script: usize) {
        let s = &mut self.scripts[script];
        s.step = Step::End;
        s.turn += 1;
        let (vm, to, new, after) = (s.plan.vm, s.plan.to, s.new.take(), s.plan.unplug_after);
        self.guests[vm].awaited = None;
        if let Some(port) = new {
            self.after(after, Event::Unplug { host: to, port });
        }
        self.guests[vm].script = None;
        self.next_move(vm);
    }

    /// No move is on its way or wanted.
    pub fn scripts_are_done(&self) -> bool {
        self.drain_is_done() && self.guests.iter().all(|g| g.script.is_none() && g.wanted.is_empty())
    }
}

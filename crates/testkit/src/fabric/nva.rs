//! The NVA: the directory that runs in production, before a store that takes its time and dies with
//! the process at the worst of moments.
//!
//! As in the service, requests that wait go into one transaction, one is written at a time, and what the directory
//! wants said is said after that. The service takes further requests meanwhile, which makes no difference to what it
//! says (a test of its actor compares the two); here they wait.

use std::collections::VecDeque;

use godwit_model::Secret;
use godwit_model::message::NvaToNve;
use godwit_nva::directory::Refusal;
use godwit_nva::{
    Answered, Config, Directory, Input, Order, Output, Peer, Reply, Request, SessionId, State, Write,
};
use godwit_wire::{Instant, Span};

use super::invariants::Invariant;
use super::schedule::{Sabotage, Schedule};
use super::world::{Event, World};

/// Something to be done by the directory.
pub(super) enum Job {
    /// Something that a session or the clock brings.
    Input(Peer, Input),
    /// A hypervisor's order; the answer goes to its script.
    Order { script: usize, order: Order },
    /// An order about the schedule's drain.
    Drain { order: Order },
    /// The operator gives a VM one address more, or takes it away.
    Redefine { vm: usize },
}

/// What waits for a transaction.
#[allow(clippy::large_enum_variant)] // Most are the large one.
enum Held {
    Say(SessionId, Box<NvaToNve>),
    Close(SessionId),
    /// Whether the order, a call-off or not, was obeyed, or why not.
    Answer(usize, bool, Result<(), Refusal>),
    /// Whether the order to drain, or the end of that, was obeyed.
    Drained(bool, Result<(), Refusal>),
}

/// The NVA's process and its disk.
#[derive(Default)]
pub(super) struct Nva {
    pub directory: Option<Directory>,
    /// What is durable.
    pub disk: State,
    /// Counts starts.
    life: u32,
    waiting: VecDeque<Job>,
    writes: Vec<Write>,
    held: Vec<Held>,
    /// A transaction is being written.
    busy: bool,
    /// It stands still until then.
    pub stalled_until: Instant,
    /// The process dies at the next transaction, before or after it is durable, for so long.
    doomed: Option<(bool, Span)>,
}

impl Nva {
    pub fn is_up(&self) -> bool {
        self.directory.is_some()
    }

    /// Nothing waits to be done or written.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.busy
    }

    /// The directory, while what it knows is durable: what others may look at.
    pub fn settled(&self) -> Option<&Directory> {
        self.directory.as_ref().filter(|_| !self.busy)
    }

    pub fn doom(&mut self, after_write: bool, down: Span) {
        self.doomed = Some((after_write, down));
    }

    pub fn pardon(&mut self) {
        self.doomed = None;
    }
}

/// The directory's settings: NVEs may tell each other where a VM is (R47), and a VM that is started elsewhere again
/// and again is not frozen (R22), because it would never come to where it runs.
pub(super) fn config(plan: &Schedule) -> Config {
    let channel_secret = (plan.sabotage != Some(Sabotage::NoRedirects)).then_some(Secret([7; 32]));
    Config { channel_secret, flap_limit: usize::MAX, pos_life: plan.pos_life, ..Config::default() }
}

impl World {
    /// Asks the directory to do something; false where it is not there.
    pub fn nva_request(&mut self, job: Job) -> bool {
        if !self.nva.is_up() {
            return false;
        }
        self.nva.waiting.push_back(job);
        if self.nva.waiting.len() > 4096 && !self.nva_stalls() {
            self.fail(Invariant::Bounded, "more than 4096 requests wait for the directory".into());
        }
        self.nva_works();
        true
    }

    pub fn nva_tick(&mut self) {
        self.after(Span::from_ms(10), Event::NvaTick);
        if self.nva_stalls() {
            return;
        }
        self.nva_request(Job::Input(Peer::Clock, Input::Tick));
    }

    /// Does everything that waits in one transaction.
    pub fn nva_works(&mut self) {
        while !self.nva.busy && !self.nva_stalls() && !self.nva.waiting.is_empty() {
            let Some(mut directory) = self.nva.directory.take() else { return };
            while let Some(job) = self.nva.waiting.pop_front() {
                match job {
                    Job::Input(peer, input) => self.nva_is_told(&mut directory, peer, input),
                    Job::Order { script, order } => {
                        let off = matches!(order, Order::AbortMove { .. });
                        let answer = self.nva_obeys(&mut directory, order).map(|_| ());
                        self.nva.held.push(Held::Answer(script, off, answer));
                    }
                    Job::Drain { order } => {
                        let end = matches!(order, Order::UndrainNve { .. });
                        let answer = self.nva_obeys(&mut directory, order).map(drop);
                        self.nva.held.push(Held::Drained(end, answer));
                    }
                    Job::Redefine { vm } => self.redefine(&mut directory, vm),
                }
            }
            self.nva.directory = Some(directory);
            if self.nva.writes.is_empty() {
                self.nva_lets_go();
            } else {
                self.nva.busy = true;
                let span = self.rng.us(20, self.plan.weather.commit_us);
                let life = self.nva.life;
                self.after(span, Event::Durable { life });
                if self.sabotaged(Sabotage::ForgetfulStore) {
                    self.nva_lets_go();
                }
            }
        }
    }

    fn nva_is_told(&mut self, directory: &mut Directory, peer: Peer, input: Input) {
        if let Err(refusal) = self.nva_answers(directory, peer, input) {
            self.fail(Invariant::Session, format!("the directory refuses an input: {refusal}"));
        }
    }

    /// An operator's order; its outputs wait for the transaction.
    pub fn nva_obeys(&mut self, directory: &mut Directory, order: Order) -> Result<Answered, Refusal> {
        self.nva_answers(directory, Peer::operator(), Input::Order(order))
    }

    fn nva_answers(
        &mut self,
        directory: &mut Directory,
        peer: Peer,
        what: Input,
    ) -> Result<Answered, Refusal> {
        let request = Request { peer, what, now: self.now, wall_us: self.wall_us() };
        let Reply { answer, outputs } = directory.handle(request);
        self.nva_wants(outputs);
        answer
    }

    fn nva_wants(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist(write) => self.nva.writes.push(write),
                Output::Send { session, message } => {
                    self.nva.held.push(Held::Say(session, Box::new(message)))
                }
                Output::Close { session, .. } => self.nva.held.push(Held::Close(session)),
                Output::Log { level, text } => self.note(|| format!("NVA notes {level:?}: {text}")),
                Output::MoveChanged(_) | Output::Audit(_) => {}
            }
        }
    }

    /// The transaction ends, one way or the other.
    pub fn durable(&mut self, life: u32) {
        if life != self.nva.life || !self.nva.busy {
            return;
        }
        if self.nva_stalls() {
            return self.queue.push(self.nva.stalled_until, Event::Durable { life });
        }
        let doomed = self.nva.doomed.take();
        if let Some((false, down)) = doomed {
            return self.nva_crash(down);
        }
        for write in std::mem::take(&mut self.nva.writes) {
            self.nva.disk.apply(&write);
        }
        self.stats.transactions += 1;
        if let Some((true, down)) = doomed {
            return self.nva_crash(down);
        }
        self.nva.busy = false;
        self.nva_lets_go();
        self.check_directory();
        self.nva_works();
    }

    /// Says what rests on writes that are durable now.
    fn nva_lets_go(&mut self) {
        for held in std::mem::take(&mut self.nva.held) {
            match held {
                Held::Say(SessionId(n), message) => {
                    self.promise(&message);
                    self.nva_says(n as usize - 1, *message);
                }
                Held::Close(SessionId(n)) => {
                    let conn = n as usize - 1;
                    self.conns[conn].nva_open = false;
                    self.cut(conn);
                }
                Held::Drained(end, answer) => self.drain_answered(end, answer),
                Held::Answer(script, off, answer) => self.script_answered(script, off, answer),
            }
        }
    }

    /// The process is gone, with everything that was not durable.
    pub fn nva_crash(&mut self, down: Span) {
        if !self.nva.is_up() {
            return;
        }
        self.note(|| "NVA is killed".into());
        self.stats.restarts += 1;
        let nva = &mut self.nva;
        nva.directory = None;
        nva.waiting.clear();
        nva.writes.clear();
        nva.held.clear();
        nva.busy = false;
        nva.life += 1;
        for conn in 0..self.conns.len() {
            if self.conns[conn].nva_open {
                self.conns[conn].nva_open = false;
                self.cut(conn);
            }
        }
        self.after(down, Event::NvaStart);
    }

    /// It comes up from its disk, in a new epoch that is durable before anything is served (R73).
    pub fn nva_start(&mut self) {
        if self.nva.is_up() {
            return;
        }
        self.check_disk();
        let epoch = self.nva.disk.epoch + 1;
        let state = self.nva.disk.clone();
        self.nva.disk.epoch = epoch;
        self.note(|| format!("NVA is up in epoch {epoch}"));
        self.nva.directory = Some(Directory::restore(config(&self.plan), state, epoch));
    }
}

//! Jobs whose writes are one transaction, and what they lead to.

use std::collections::BTreeSet;

use godwit_api::SessionDown;
use godwit_model::MoveId;
use tokio::sync::oneshot;

use super::handle::{Finish, QUEUE, Turn};
use crate::directory::{AuditEntry, Level, Output, SessionId, Write};

/// Jobs taken into one batch, beside questions.
const CHANGES: usize = 256;
/// A batch that leads to so many messages and answers takes no more jobs.
const EFFECTS: usize = 65_536;

/// Something that leaves the service.
#[allow(clippy::large_enum_variant)] // Most are the large one.
pub(super) enum Effect {
    /// A message to an NVE. Where its session has ended meanwhile, it is dropped.
    Say(SessionId, SessionDown),
    /// The end of a session.
    Close(SessionId, String),
    /// A line for the log.
    Log(Level, String),
    /// An answer to whoever asked.
    Answer(Finish),
}

/// What has been taken since the last batch was closed.
#[derive(Default)]
pub(super) struct Batch {
    changes: usize,
    questions: usize,
    /// Given back when the batch is closed (R67).
    turns: Vec<Turn>,
    pub writes: Vec<Write>,
    /// Entries of the audit log.
    pub audit: Vec<AuditEntry>,
    pub effects: Vec<Effect>,
    /// Moves that changed.
    pub moved: BTreeSet<MoveId>,
}

impl Batch {
    /// It takes one more job.
    pub fn has_room(&self) -> bool {
        self.changes < CHANGES && self.changes + self.questions < QUEUE && self.effects.len() < EFFECTS
    }

    /// Nothing was taken, and nothing happened.
    pub fn is_empty(&self) -> bool {
        self.changes + self.questions == 0
            && self.effects.is_empty()
            && self.writes.is_empty()
            && self.audit.is_empty()
            && self.moved.is_empty()
    }

    /// A job is taken.
    pub fn count(&mut self, is_question: bool) {
        if is_question {
            self.questions += 1;
        } else {
            self.changes += 1;
        }
    }

    /// An NVE's share counts what is in the batch, so that its storm does not fill it.
    pub fn hold(&mut self, turn: Turn) {
        self.turns.push(turn);
    }

    /// The commit before takes long: NVEs go on, or they would seem to be silent.
    pub fn give_back_turns(&mut self) {
        self.turns.clear();
    }

    pub fn add(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Adds an answer; whoever asked may have gone away when it leaves.
    pub fn answer<T: Send + 'static>(&mut self, reply: oneshot::Sender<T>, answer: T) {
        self.add(Effect::Answer(Box::new(move || drop(reply.send(answer)))));
    }

    /// Adds what a step of the directory led to.
    pub fn extend(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Persist(write) => self.writes.push(write),
                Output::Send { session, message } => self.add(Effect::Say(session, message.into())),
                Output::Close { session, reason } => self.add(Effect::Close(session, reason)),
                Output::Audit(entry) => self.audit.push(*entry),
                Output::MoveChanged(id) => drop(self.moved.insert(id)),
                Output::Log { level, text } => self.add(Effect::Log(level, text)),
            }
        }
    }
}

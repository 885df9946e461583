//! The one task that owns the directory and the store.
//!
//! It takes what has gathered into a batch, hands the batch's writes to the store, and goes on with the next batch
//! while they are committed. What a batch led to leaves when its own commit and all earlier ones are durable, in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use godwit_api::tonic::Status;
use godwit_api::{SessionDown, SessionUp, v1};
use godwit_model::{Identity, MoveId, MoveRecord};
use godwit_wire::Instant;
use tokio::sync::{mpsc, oneshot, watch};

use super::audit::{Audit, Written};
use super::batch::{Batch, Effect};
use super::counts::Meter;
use super::handle::{Handle, Job, Opened, Outgoing, QUEUE, status};
use crate::directory::{
    Answered, Directory, Input, Level, Operator, OtherAnswer, Peer, Refusal, Relay, Reply, Request, SessionId,
};
use crate::store::{Pending, Store, StoreError};

/// Messages that may wait for one NVE; more end its session, and it begins anew with a snapshot.
const OUTBOX: usize = 8192;
/// Interval of the directory's ticks. They stand still while the batch has no room: the directory forgives silence
/// that is this process's own.
const TICK: Duration = Duration::from_millis(10);

struct Connection {
    outbox: mpsc::Sender<Outgoing>,
    /// Dropped to tell the session's reader that it is over.
    _end: oneshot::Sender<()>,
}

struct Asked {
    session: SessionId,
    reply: oneshot::Sender<Result<v1::AdminResponse, Status>>,
}

/// What leaves when a commit is durable.
#[derive(Default)]
struct Sealed {
    effects: Vec<Effect>,
    /// Moves that are watched, as they are with this commit.
    moved: Vec<MoveRecord>,
}

/// A batch that is being committed.
struct Committing {
    /// None of a batch without writes.
    commit: Option<Pending<()>>,
    /// None of a batch without entries of the audit log.
    audit: Option<Written>,
    sealed: Sealed,
}

/// The task's state.
pub(super) struct Actor {
    jobs: mpsc::Receiver<Job>,
    directory: Directory,
    store: Box<dyn Store>,
    audit: Audit,
    connections: HashMap<SessionId, Connection>,
    next_session: u64,
    asked: HashMap<u64, Asked>,
    next_order: u64,
    watchers: HashMap<MoveId, watch::Sender<v1::MoveRecord>>,
    /// Takes what comes.
    filling: Batch,
    /// One at a time.
    committing: Option<Committing>,
    meter: Meter,
    started: std::time::Instant,
}

impl Actor {
    pub fn new(directory: Directory, store: Box<dyn Store>, audit: Audit) -> (Handle, Actor) {
        let (tx, jobs) = mpsc::channel(QUEUE);
        let actor = Actor {
            jobs,
            directory,
            store,
            audit,
            connections: HashMap::new(),
            next_session: 1,
            asked: HashMap::new(),
            next_order: 1,
            watchers: HashMap::new(),
            filling: Batch::default(),
            committing: None,
            meter: Meter::default(),
            started: std::time::Instant::now(),
        };
        (Handle::new(tx), actor)
    }

    /// Runs until it is stopped, or until the store refuses.
    ///
    /// The directory's time passes between commits only: its deadlines begin when a message is made, and none is to
    /// end because the disk has not let the message out yet.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<(), StoreError> {
        let mut next_tick = tokio::time::Instant::now() + TICK;
        let mut next_turns = next_tick;
        loop {
            let has_room = self.filling.has_room();
            let wake = if self.committing.is_some() { next_turns } else { next_tick.min(next_turns) };
            tokio::select! {
                biased;
                _ = stopped.wait_for(|s| *s) => break,
                durable = until_durable(&mut self.committing) => {
                    let durable = durable?;
                    self.meter.durable();
                    self.let_out(durable);
                }
                job = self.jobs.recv(), if has_room => {
                    let Some(job) = job else { break };
                    self.batch(job);
                }
                () = tokio::time::sleep_until(wake), if has_room => {}
            }
            let now = tokio::time::Instant::now();
            if now >= next_turns {
                self.give_back();
                next_turns = now + TICK;
            }
            // Also where the batch is full: what waited for this commit must not keep time from passing.
            if self.committing.is_none() && now >= next_tick {
                self.step(Peer::Clock, Input::Tick);
                next_tick = now + TICK;
            }
            self.commit();
        }
        // What is being committed becomes durable, so it is said; what is not is not.
        if self.committing.is_some() {
            let durable = until_durable(&mut self.committing).await?;
            self.let_out(durable);
        }
        Ok(())
    }

    /// What goes on during a commit: turns are given back, and who has stopped waiting for an NVE is forgotten.
    fn give_back(&mut self) {
        self.asked.retain(|_, a| !a.reply.is_closed());
        self.filling.give_back_turns();
    }

    /// Takes a job and those that wait behind it: first what changes something, then the questions (R67). Each
    /// kind keeps its order. A question that something overtakes is answered with what is newer.
    fn batch(&mut self, first: Job) {
        let mut questions = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            let is_question = job.is_question();
            self.filling.count(is_question);
            if is_question {
                questions.push(job);
            } else {
                self.take(job);
            }
            next = if self.filling.has_room() { self.jobs.try_recv().ok() } else { None };
        }
        for question in questions {
            self.take(question);
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Open(address, identity, reply) => self.open(address, identity, reply),
            Job::Up(session, SessionUp::Message(message), turn) => {
                self.filling.hold(turn);
                self.nve(session, Input::Message(message));
            }
            Job::Up(session, SessionUp::AdminReply { id, response }, turn) => {
                self.filling.hold(turn);
                self.nve(session, Input::Other { error: None });
                if self.asked.get(&id).is_some_and(|a| a.session == session)
                    && let Some(asked) = self.asked.remove(&id)
                {
                    let _ = asked.reply.send(Ok(response));
                }
            }
            Job::Bad(session, text, turn) => {
                self.filling.hold(turn);
                self.nve(session, Input::Other { error: Some(text) });
            }
            Job::Gone(session) => {
                self.forget(session);
                self.nve(session, Input::Disconnected);
            }
            Job::Order(operator, order, reply) => {
                let answer = self.handle(Peer::Operator(operator), Input::Order(order));
                self.filling.answer(reply, answer);
            }
            Job::Look(operator, what, look) => {
                let may = self.handle(Peer::Operator(operator), Input::Look(what));
                let now = self.time().0;
                self.filling.add(Effect::Answer(look(may.map(|_| (&self.directory, now)))));
            }
            Job::Watch(id, reply) => {
                let answer = self.watch(id);
                self.filling.answer(reply, answer);
            }
            Job::Ask(operator, relay, request, reply) => self.ask(operator, relay, request, reply),
            Job::Counters(reply) => {
                let service = self.meter.entries().chain(self.audit.entries());
                let counters = self.directory.counters().chain(service).collect();
                self.filling.answer(reply, counters);
            }
        }
    }

    /// One step of the directory; its outputs wait until the batch is durable, as its answer must.
    fn handle(&mut self, peer: Peer, what: Input) -> Result<Answered, Refusal> {
        let (now, wall_us) = self.time();
        let Reply { answer, outputs } = self.directory.handle(Request { peer, what, now, wall_us });
        self.filling.extend(outputs);
        answer
    }

    /// A step that nobody waits for the answer of.
    fn step(&mut self, peer: Peer, what: Input) {
        if let Err(refusal) = self.handle(peer, what) {
            tracing::error!("{refusal}");
        }
    }

    fn nve(&mut self, session: SessionId, what: Input) {
        self.step(Peer::Nve(session), what);
    }

    fn time(&self) -> (Instant, u64) {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant(now), u64::try_from(wall.as_micros()).unwrap_or(u64::MAX))
    }

    fn open(&mut self, address: Option<SocketAddr>, identity: Identity, reply: oneshot::Sender<Opened>) {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let (tx, outbox) = mpsc::channel(OUTBOX);
        let (end, ended) = oneshot::channel();
        if reply.send(Opened { id, outbox, ended }).is_ok() {
            self.connections.insert(id, Connection { outbox: tx, _end: end });
            self.nve(id, Input::Connected { address, identity });
        }
    }

    /// Drops a connection and answers those who waited for a reply on it.
    fn forget(&mut self, session: SessionId) {
        self.connections.remove(&session);
        let lost = self.asked.extract_if(|_, a| a.session == session);
        for (_, asked) in lost {
            let text = "the NVE's session ended before it answered; see `godwitctl nve list`";
            let _ = asked.reply.send(Err(Status::unavailable(text)));
        }
    }

    fn ask(
        &mut self,
        operator: Operator,
        relay: Relay,
        request: v1::AdminRequest,
        reply: oneshot::Sender<Result<v1::AdminResponse, Status>>,
    ) {
        let session = match self.handle(Peer::Operator(operator), Input::Relay(relay)) {
            Ok(Answered::Session(session)) => session,
            Ok(other) => {
                let text = OtherAnswer(Box::new(other), "SessionId").to_string();
                return self.filling.answer(reply, Err(Status::internal(text)));
            }
            Err(refusal) => return self.filling.answer(reply, Err(status(&refusal))),
        };
        let id = self.next_order;
        self.next_order += 1;
        self.asked.insert(id, Asked { session, reply });
        self.filling.add(Effect::Say(session, SessionDown::AdminOrder { id, request }));
    }

    /// A receiver that shows the move as this batch leaves it, once the batch is durable.
    fn watch(&mut self, id: MoveId) -> Result<watch::Receiver<v1::MoveRecord>, Status> {
        let record = self.directory.move_record(&id).map_err(|r| status(&r))?.clone();
        if let Some(tx) = self.watchers.get(&id) {
            return Ok(tx.subscribe());
        }
        let is_final = record.phase.is_final();
        let (tx, rx) = watch::channel(record.into());
        if !is_final {
            self.watchers.insert(id, tx);
        }
        Ok(rx)
    }

    /// Closes the batch and has it committed, unless another one is. A batch without writes rests on what is durable,
    /// and leaves at once.
    fn commit(&mut self) {
        while self.committing.is_none() && !self.filling.is_empty() {
            let Batch { writes, audit, effects, moved, .. } = std::mem::take(&mut self.filling);
            let watched = moved.iter().filter(|id| self.watchers.contains_key(id));
            let records = watched.filter_map(|id| self.directory.move_record(id).ok());
            let sealed = Sealed { moved: records.cloned().collect(), effects };
            let audit = self.audit.append(audit);
            if writes.is_empty() && audit.is_none() {
                self.let_out(sealed);
            } else {
                self.meter.handed_over(writes.len());
                let commit = (!writes.is_empty()).then(|| self.store.commit(writes));
                self.committing = Some(Committing { commit, audit, sealed });
            }
        }
    }

    /// What overflowing sessions lead to meanwhile is not durable yet; it is part of the next batch.
    fn let_out(&mut self, sealed: Sealed) {
        for record in sealed.moved {
            self.move_changed(record);
        }
        for effect in sealed.effects {
            match effect {
                // Whoever gave the order has stopped waiting for it.
                Effect::Say(_, SessionDown::AdminOrder { id, .. })
                    if self.asked.get(&id).is_none_or(|a| a.reply.is_closed()) => {}
                Effect::Say(session, message) => self.deliver(session, message),
                Effect::Close(session, reason) => self.close(session, reason),
                Effect::Log(level, text) => log(level, &text),
                Effect::Answer(answer) => answer(),
            }
        }
    }

    fn deliver(&mut self, session: SessionId, message: SessionDown) {
        let Some(c) = self.connections.get(&session) else { return };
        match c.outbox.try_send(Ok(message.into())) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => {} // Its reader says so in a moment.
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!("{session} does not read: {OUTBOX} messages wait; it must begin anew");
                self.meter.overflowed();
                self.forget(session);
                self.nve(session, Input::Disconnected);
            }
        }
    }

    fn close(&mut self, session: SessionId, reason: String) {
        if let Some(c) = self.connections.get(&session) {
            let _ = c.outbox.try_send(Err(Status::aborted(reason)));
        }
        self.forget(session);
    }

    fn move_changed(&mut self, record: MoveRecord) {
        let Some(tx) = self.watchers.get(&record.id) else { return };
        let id = record.id.clone();
        // A move that time has ended may have been taken up again in the batch that is filling.
        let is_final = self.directory.move_record(&id).is_ok_and(|now| now.phase.is_final());
        let is_over = is_final && record.phase.is_final();
        tx.send_replace(record.into());
        if is_over || tx.is_closed() {
            self.watchers.remove(&id);
        }
    }
}

/// What leaves when the batch that is being committed is durable; without one it waits for ever.
async fn until_durable(committing: &mut Option<Committing>) -> Result<Sealed, StoreError> {
    let Some(Committing { commit, audit, sealed }) = committing else { return std::future::pending().await };
    // What has ended is not awaited again where this is called off in between.
    if let Some(pending) = commit {
        pending.await?;
        *commit = None;
    }
    if let Some(written) = audit {
        written.await;
        *audit = None;
    }
    let sealed = std::mem::take(sealed);
    *committing = None;
    Ok(sealed)
}

fn log(level: Level, text: &str) {
    match level {
        Level::Debug => tracing::debug!("{text}"),
        Level::Info => tracing::info!("{text}"),
        Level::Warn => tracing::warn!("{text}"),
        Level::Alarm => tracing::error!("{text}"),
    }
}

#[cfg(test)]
mod tests;

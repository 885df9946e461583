//! The one task that owns the directory and the store.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use godwit_api::tonic::Status;
use godwit_api::{SessionDown, SessionUp, v1};
use godwit_model::{MoveId, NveId};
use godwit_wire::Instant;
use tokio::sync::{mpsc, oneshot, watch};

use super::counts::Meter;
use super::handle::{Finish, Handle, Job, Opened, Outgoing, QUEUE, status};
use crate::directory::{
    Answered, Directory, Input, Level, Output, Peer, Refusal, Reply, Request, SessionId, Write,
};
use crate::store::{Store, StoreError};

/// Messages that may wait for one NVE; more end its session, and it begins anew with a snapshot.
const OUTBOX: usize = 8192;
/// Jobs taken into one transaction, beside questions.
const BATCH: usize = 256;
/// Interval of the directory's ticks.
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

/// The task's state.
pub(super) struct Actor {
    jobs: mpsc::Receiver<Job>,
    directory: Directory,
    store: Box<dyn Store + Send>,
    connections: HashMap<SessionId, Connection>,
    next_session: u64,
    asked: HashMap<u64, Asked>,
    next_order: u64,
    watchers: HashMap<MoveId, watch::Sender<v1::MoveRecord>>,
    /// What the current batch led to, let out when it is durable.
    outputs: Vec<Output>,
    finishes: Vec<Finish>,
    meter: Meter,
    started: std::time::Instant,
}

impl Actor {
    pub fn new(directory: Directory, store: Box<dyn Store + Send>) -> (Handle, Actor) {
        let (tx, jobs) = mpsc::channel(QUEUE);
        let actor = Actor {
            jobs,
            directory,
            store,
            connections: HashMap::new(),
            next_session: 1,
            asked: HashMap::new(),
            next_order: 1,
            watchers: HashMap::new(),
            outputs: Vec::new(),
            finishes: Vec::new(),
            meter: Meter::default(),
            started: std::time::Instant::now(),
        };
        (Handle::new(tx), actor)
    }

    /// Runs until it is stopped, or until the store refuses.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<(), StoreError> {
        let mut next_tick = tokio::time::Instant::now() + TICK;
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|s| *s) => return Ok(()),
                job = self.jobs.recv() => {
                    let Some(job) = job else { return Ok(()) };
                    self.batch(job);
                }
                () = tokio::time::sleep_until(next_tick) => {}
            }
            if tokio::time::Instant::now() >= next_tick {
                self.step(Peer::Clock, Input::Tick);
                self.asked.retain(|_, a| !a.reply.is_closed());
                next_tick = tokio::time::Instant::now() + TICK;
            }
            self.flush()?;
        }
    }

    /// Takes a job and those that wait behind it: first what changes something, then the questions (R67). Each
    /// kind keeps its order. A question that something overtakes is answered with what is newer.
    fn batch(&mut self, first: Job) {
        let (mut questions, mut taken) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(job) = next {
            if job.is_question() {
                questions.push(job);
            } else {
                self.take(job);
                taken += 1;
            }
            let more = taken < BATCH && taken + questions.len() < QUEUE;
            next = if more { self.jobs.try_recv().ok() } else { None };
        }
        for question in questions {
            self.take(question);
        }
    }

    fn take(&mut self, job: Job) {
        match job {
            Job::Open(address, reply) => self.open(address, reply),
            Job::Up(session, SessionUp::Message(message), turn) => {
                drop(turn);
                self.nve(session, Input::Message(message));
            }
            Job::Up(session, SessionUp::AdminReply { id, response }, turn) => {
                drop(turn);
                self.nve(session, Input::Other { error: None });
                if self.asked.get(&id).is_some_and(|a| a.session == session)
                    && let Some(asked) = self.asked.remove(&id)
                {
                    let _ = asked.reply.send(Ok(response));
                }
            }
            Job::Bad(session, text, turn) => {
                drop(turn);
                self.nve(session, Input::Other { error: Some(text) });
            }
            Job::Gone(session) => {
                self.forget(session);
                self.nve(session, Input::Disconnected);
            }
            Job::Order(operator, order, reply) => {
                let answer = self.handle(Peer::Operator(operator), Input::Order(order));
                // The asker may have gone away meanwhile.
                self.finishes.push(Box::new(move || drop(reply.send(answer))));
            }
            Job::Look(look) => {
                let finish = look(&self.directory, self.time().0);
                self.finishes.push(finish);
            }
            Job::Watch(id, reply) => {
                let _ = reply.send(self.watch(id));
            }
            Job::Ask(nve, request, reply) => self.ask(&nve, request, reply),
            Job::Counters(reply) => {
                let _ = reply.send(self.directory.counters().chain(self.meter.entries()).collect());
            }
        }
    }

    /// One step of the directory; its outputs wait for the end of the batch, as its answer must.
    fn handle(&mut self, peer: Peer, what: Input) -> Result<Answered, Refusal> {
        let (now, wall_us) = self.time();
        let Reply { answer, outputs } = self.directory.handle(Request { peer, what, now, wall_us });
        self.outputs.extend(outputs);
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

    fn open(&mut self, address: Option<SocketAddr>, reply: oneshot::Sender<Opened>) {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let (tx, outbox) = mpsc::channel(OUTBOX);
        let (end, ended) = oneshot::channel();
        if reply.send(Opened { id, outbox, ended }).is_ok() {
            self.connections.insert(id, Connection { outbox: tx, _end: end });
            self.nve(id, Input::Connected { address });
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
        nve: &NveId,
        request: v1::AdminRequest,
        reply: oneshot::Sender<Result<v1::AdminResponse, Status>>,
    ) {
        let session = match self.directory.session_for(nve) {
            Ok(session) => session,
            Err(refusal) => return drop(reply.send(Err(status(&refusal)))),
        };
        let id = self.next_order;
        self.next_order += 1;
        self.asked.insert(id, Asked { session, reply });
        self.deliver(session, SessionDown::AdminOrder { id, request });
    }

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

    /// Makes the batch durable, and only then lets it out (see [`Output`]).
    fn flush(&mut self) -> Result<(), StoreError> {
        let outputs = std::mem::take(&mut self.outputs);
        let persists = outputs.iter().filter_map(|o| match o {
            Output::Persist(w) => Some(w.clone()),
            _ => None,
        });
        let writes: Vec<Write> = persists.collect();
        self.meter.handed_over(writes.len());
        self.store.commit(&writes)?;
        self.meter.durable();
        for output in outputs {
            match output {
                Output::Persist(_) => {}
                Output::Send { session, message } => self.deliver(session, message.into()),
                Output::Close { session, reason } => self.close(session, reason),
                Output::MoveChanged(id) => self.move_changed(&id),
                Output::Log { level, text } => log(level, &text),
            }
        }
        // What overflowing sessions led to is not durable yet; it goes with the next batch.
        for finish in std::mem::take(&mut self.finishes) {
            finish();
        }
        Ok(())
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

    fn move_changed(&mut self, id: &MoveId) {
        let Some(tx) = self.watchers.get(id) else { return };
        let Ok(record) = self.directory.move_record(id) else { return };
        let is_final = record.phase.is_final();
        tx.send_replace(record.clone().into());
        if is_final || tx.is_closed() {
            self.watchers.remove(id);
        }
    }
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

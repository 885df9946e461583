//! The one task that owns the directory and the store.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use godwit_model::message::NveToNva;
use godwit_model::{MoveId, NveId};
use godwit_nva_api::tonic::Status;
use godwit_nva_api::{SessionDown, SessionUp, v1};
use godwit_wire::Instant;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::directory::{Answer, Directory, Input, Level, Output, Refusal, RefusalKind, SessionId, Write};
use crate::store::{Store, StoreError};

/// Requests that may wait for the actor; more make their senders wait.
const QUEUE: usize = 1024;
/// Of these, one NVE's messages. However much it says, others wait for so many of them at most (R67).
pub(super) const SHARE: usize = 32;
/// Messages that may wait for one NVE; more end its session, and it begins anew with a snapshot.
const OUTBOX: usize = 8192;
/// Requests taken into one transaction, beside questions.
const BATCH: usize = 256;
/// Interval of the directory's ticks.
const TICK: Duration = Duration::from_millis(10);

/// What goes to an NVE.
pub(super) type Outgoing = Result<v1::NvaMessage, Status>;

/// What an actor gives to a new session.
pub(super) struct Opened {
    pub id: SessionId,
    pub outbox: mpsc::Receiver<Outgoing>,
    /// Ends when the actor ends the session.
    pub ended: oneshot::Receiver<()>,
}

type Finish = Box<dyn FnOnce() + Send>;
type Order = Box<dyn FnOnce(&mut Directory, Instant, u64) -> (Vec<Output>, Finish) + Send>;

/// A place in the queue out of an NVE's share; free again when the actor has taken what it was for.
pub(super) type Turn = OwnedSemaphorePermit;

enum Request {
    Open(Option<SocketAddr>, oneshot::Sender<Opened>),
    Up(SessionId, SessionUp, Turn),
    Bad(SessionId, String, Turn),
    Gone(SessionId),
    Order(Order),
    Watch(MoveId, oneshot::Sender<Result<watch::Receiver<v1::MoveRecord>, Status>>),
    Ask(NveId, v1::AdminRequest, oneshot::Sender<Result<v1::AdminResponse, Status>>),
}

impl Request {
    /// It changes nothing that anybody is told of, and waits for all that does (R67).
    fn is_question(&self) -> bool {
        matches!(self, Request::Up(_, SessionUp::Message(NveToNva::Query { .. }), _))
    }
}

/// The way to the actor.
#[derive(Clone)]
pub(super) struct Handle(mpsc::Sender<Request>);

fn stopping() -> Status {
    Status::unavailable("godwit-nva is stopping; try again when it is back")
}

impl Handle {
    async fn request(&self, r: Request) -> Result<(), Status> {
        self.0.send(r).await.map_err(|_| stopping())
    }

    async fn answered<T>(&self, r: Request, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        self.request(r).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Opens a session.
    pub async fn open(&self, peer: Option<SocketAddr>) -> Result<Opened, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Request::Open(peer, tx), rx).await
    }

    /// Hands on what an NVE said.
    pub async fn up(&self, session: SessionId, message: SessionUp, turn: Turn) -> Result<(), Status> {
        self.request(Request::Up(session, message, turn)).await
    }

    /// Hands on that an NVE said what the protocol does not have.
    pub async fn bad(&self, session: SessionId, text: String, turn: Turn) -> Result<(), Status> {
        self.request(Request::Bad(session, text, turn)).await
    }

    /// The connection is gone.
    pub async fn gone(&self, session: SessionId) {
        let _ = self.request(Request::Gone(session)).await;
    }

    /// Gives an order and waits until what it changed is durable.
    pub async fn order<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Directory, Instant, u64) -> Answer<T> + Send + 'static,
    ) -> Result<T, Status> {
        let (tx, rx) = oneshot::channel();
        let order: Order = Box::new(move |d, now, wall_us| {
            let (answer, outputs) = match f(d, now, wall_us) {
                Ok((value, outputs)) => (Ok(value), outputs),
                Err(refusal) => (Err(refusal), Vec::new()),
            };
            // The asker may have gone away meanwhile.
            (outputs, Box::new(move || drop(tx.send(answer))))
        });
        self.answered(Request::Order(order), rx).await?.map_err(|r| status(&r))
    }

    /// Looks at the directory.
    pub async fn look<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Directory, Instant) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        self.order(move |d, now, _| Ok((f(d, now)?, Vec::new()))).await
    }

    /// Follows a move.
    pub async fn watch(&self, id: MoveId) -> Result<watch::Receiver<v1::MoveRecord>, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Request::Watch(id, tx), rx).await?
    }

    /// Relays an operator's request to an NVE.
    pub async fn ask(&self, nve: NveId, request: v1::AdminRequest) -> Result<v1::AdminResponse, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Request::Ask(nve, request, tx), rx).await?
    }
}

/// A refusal in the words of gRPC.
pub(super) fn status(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal.kind() {
        RefusalKind::NotFound => Status::not_found(text),
        RefusalKind::Exists => Status::already_exists(text),
        RefusalKind::Invalid => Status::invalid_argument(text),
        RefusalKind::State => Status::failed_precondition(text),
        RefusalKind::Away => Status::unavailable(text),
        RefusalKind::Full => Status::resource_exhausted(text),
    }
}

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
    requests: mpsc::Receiver<Request>,
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
    started: std::time::Instant,
}

impl Actor {
    pub fn new(directory: Directory, store: Box<dyn Store + Send>) -> (Handle, Actor) {
        let (tx, requests) = mpsc::channel(QUEUE);
        let actor = Actor {
            requests,
            directory,
            store,
            connections: HashMap::new(),
            next_session: 1,
            asked: HashMap::new(),
            next_order: 1,
            watchers: HashMap::new(),
            outputs: Vec::new(),
            finishes: Vec::new(),
            started: std::time::Instant::now(),
        };
        (Handle(tx), actor)
    }

    /// Runs until it is stopped, or until the store refuses.
    pub async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Result<(), StoreError> {
        let mut next_tick = tokio::time::Instant::now() + TICK;
        loop {
            tokio::select! {
                biased;
                _ = stopped.wait_for(|s| *s) => return Ok(()),
                request = self.requests.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    self.batch(request);
                }
                () = tokio::time::sleep_until(next_tick) => {}
            }
            if tokio::time::Instant::now() >= next_tick {
                self.input(Input::Tick);
                self.asked.retain(|_, a| !a.reply.is_closed());
                next_tick = tokio::time::Instant::now() + TICK;
            }
            self.flush()?;
        }
    }

    /// Takes a request and those that wait behind it: first what changes something, then the questions (R67). Each
    /// kind keeps its order. A question that something overtakes is answered with what is newer.
    fn batch(&mut self, first: Request) {
        let (mut questions, mut taken) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(request) = next {
            if request.is_question() {
                questions.push(request);
            } else {
                self.take(request);
                taken += 1;
            }
            let more = taken < BATCH && taken + questions.len() < QUEUE;
            next = if more { self.requests.try_recv().ok() } else { None };
        }
        for question in questions {
            self.take(question);
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Open(peer, reply) => self.open(peer, reply),
            Request::Up(session, SessionUp::Message(message), turn) => {
                drop(turn);
                self.input(Input::Message { session, message });
            }
            Request::Up(session, SessionUp::AdminReply { id, response }, turn) => {
                drop(turn);
                self.input(Input::Other { session, error: None });
                if self.asked.get(&id).is_some_and(|a| a.session == session)
                    && let Some(asked) = self.asked.remove(&id)
                {
                    let _ = asked.reply.send(Ok(response));
                }
            }
            Request::Bad(session, text, turn) => {
                drop(turn);
                self.input(Input::Other { session, error: Some(text) });
            }
            Request::Gone(session) => {
                self.forget(session);
                self.input(Input::Disconnected { session });
            }
            Request::Order(order) => {
                let (now, wall_us) = self.time();
                let (outputs, finish) = order(&mut self.directory, now, wall_us);
                self.outputs.extend(outputs);
                self.finishes.push(finish);
            }
            Request::Watch(id, reply) => {
                let _ = reply.send(self.watch(id));
            }
            Request::Ask(nve, request, reply) => self.ask(&nve, request, reply),
        }
    }

    fn input(&mut self, input: Input) {
        let (now, wall_us) = self.time();
        let outputs = self.directory.handle(now, wall_us, input);
        self.outputs.extend(outputs);
    }

    fn time(&self) -> (Instant, u64) {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant(now), u64::try_from(wall.as_micros()).unwrap_or(u64::MAX))
    }

    fn open(&mut self, peer: Option<SocketAddr>, reply: oneshot::Sender<Opened>) {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let (tx, outbox) = mpsc::channel(OUTBOX);
        let (end, ended) = oneshot::channel();
        if reply.send(Opened { id, outbox, ended }).is_ok() {
            self.connections.insert(id, Connection { outbox: tx, _end: end });
            self.input(Input::Connected { session: id, peer });
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
        self.store.commit(&writes)?;
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
                self.forget(session);
                self.input(Input::Disconnected { session });
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
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use godwit_model::message::{NvaToNve, QueryBy};
    use godwit_model::{ClaimCause, DirectoryMode, Locators, Version, VmKey};
    use godwit_wire::{Mac, Vni};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::directory::{VmDefinition, VnRecord};
    use crate::store::MemoryStore;

    fn message() -> SessionUp {
        SessionUp::Message(NveToNva::Keepalive)
    }

    #[tokio::test]
    async fn r67_a_storm_of_one_nve_leaves_the_queue_to_the_others() {
        let directory = Directory::new(crate::directory::Config::default());
        let (handle, mut actor) = Actor::new(directory, Box::new(MemoryStore::default()));
        let storm = handle.clone();
        tokio::spawn(async move {
            let share = Arc::new(Semaphore::new(SHARE));
            loop {
                let turn = share.clone().acquire_owned().await.unwrap();
                storm.up(SessionId(1), message(), turn).await.unwrap();
            }
        });
        let share = Arc::new(Semaphore::new(SHARE));
        for _ in 0..100 {
            // As far as the storm gets while the actor is busy.
            for _ in 0..10 * QUEUE {
                tokio::task::yield_now().await;
            }
            assert_eq!(actor.requests.len(), SHARE);
            let turn = share.clone().acquire_owned().await.unwrap();
            handle.up(SessionId(2), message(), turn).await.unwrap();
            let mut before = 0;
            while let Ok(Request::Up(SessionId(1), ..)) = actor.requests.try_recv() {
                before += 1;
            }
            assert_eq!(before, SHARE, "the other one's message comes next");
        }
    }

    /// An actor with VM 7/02:00:00:00:00:01 and an NVE in its VN.
    fn with_a_vm() -> (Handle, Actor, SessionId, VmKey) {
        let (handle, mut actor) =
            Actor::new(Directory::new(crate::directory::Config::default()), Box::new(MemoryStore::default()));
        let (session, vni, mac) = (SessionId(1), Vni::from_low24(7), Mac([2, 0, 0, 0, 0, 1]));
        let (now, wall) = actor.time();
        let vn = VnRecord { vni, name: "red".into(), settings: Default::default() };
        actor.directory.create_vn(now, wall, vn).unwrap();
        let vm = VmDefinition {
            name: "vm".into(),
            vn: "red".into(),
            mac,
            ipv4: vec![],
            ipv6: vec![],
            router: false,
            pinned: None,
            policy: None,
            allowed: Default::default(),
        };
        actor.directory.define_vm(now, wall, vm).unwrap();
        actor.input(Input::Connected { session, peer: None });
        let locators = Locators { v4: Some([10, 0, 0, 1].into()), v6: None };
        let (nve, software) = (NveId::new("a").unwrap(), String::new());
        for message in [
            NveToNva::Hello { nve, locators, software, last_epoch: 0, instance: 1 },
            NveToNva::Subscribe { vni, mode: DirectoryMode::Pull },
        ] {
            actor.input(Input::Message { session, message });
        }
        actor.outputs.clear();
        (handle, actor, session, VmKey { vni, mac })
    }

    #[tokio::test]
    async fn r67_a_claim_goes_before_the_queries_of_its_own_nve() {
        let (handle, mut actor, session, key) = with_a_vm();
        let share = Arc::new(Semaphore::new(SHARE));
        let say = async |message| {
            let turn = share.clone().acquire_owned().await.unwrap();
            handle.up(session, SessionUp::Message(message), turn).await.unwrap();
        };
        let query = |seq| NveToNva::Query { seq, vni: key.vni, by: QueryBy::Mac(key.mac) };
        for seq in 1..=20 {
            say(query(seq)).await;
        }
        let port = String::from("p1");
        let (ips, cause, router) = (vec![], ClaimCause::GratuitousArp, None);
        say(NveToNva::Claim {
            seq: 100,
            key,
            ips,
            cause,
            base: Version::ZERO,
            port,
            router,
            overrides: Default::default(),
        })
        .await;
        say(query(21)).await;
        let defined = actor.directory.vm(key).unwrap().version;
        let granted = Version { seq: defined.seq + 1, ..defined };
        say(NveToNva::Withdraw { key, version: granted }).await;
        let first = actor.requests.try_recv().unwrap();
        actor.batch(first);

        let said: Vec<NvaToNve> = actor
            .outputs
            .iter()
            .filter_map(|o| match o {
                Output::Send { message, .. } => Some(message.clone()),
                _ => None,
            })
            .collect();
        assert!(matches!(&said[0], NvaToNve::Grant { seq: 100, .. }), "{said:?}");
        let answers: Vec<(u64, Version)> = said
            .iter()
            .filter_map(|m| match m {
                NvaToNve::Response { seq, record, .. } => Some((*seq, record.as_ref().unwrap().version)),
                _ => None,
            })
            .collect();
        let detached = actor.directory.vm(key).unwrap();
        assert!(detached.location.is_none(), "the withdrawal came after the claim that it is about");
        let newest: Vec<(u64, Version)> = (1..=21).map(|seq| (seq, detached.version)).collect();
        assert_eq!(answers, newest, "in their order, with what is newest");
    }
}

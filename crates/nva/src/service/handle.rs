//! The way to the actor: what sessions and operators may ask of it.

use std::net::SocketAddr;

use godwit_api::tonic::Status;
use godwit_api::{SessionUp, v1};
use godwit_counters::Entry;
use godwit_model::message::NveToNva;
use godwit_model::{Identity, MoveId};
use godwit_wire::Instant;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::directory::{
    Answered, Directory, Operator, Order, OtherAnswer, Refusal, RefusalKind, Relay, SessionId,
};

/// Jobs that may wait for the actor; more make their senders wait.
pub(super) const QUEUE: usize = 1024;
/// Of these, with what the actor has taken last, one NVE's messages. However much it says, others wait for so many of
/// them at most (R67).
pub(super) const SHARE: usize = 32;

/// What goes to an NVE.
pub(super) type Outgoing = Result<v1::NvaMessage, Status>;

/// What an actor gives to a new session.
pub(super) struct Opened {
    pub id: SessionId,
    pub outbox: mpsc::Receiver<Outgoing>,
    /// Ends when the actor ends the session.
    pub ended: oneshot::Receiver<()>,
}

/// Gives an answer, once what it rests on is durable.
pub(super) type Finish = Box<dyn FnOnce() + Send>;
/// Looks at the directory, or hands on why it may not.
type Look = Box<dyn FnOnce(Result<(&Directory, Instant), Refusal>) -> Finish + Send>;

/// A place in the queue out of an NVE's share; free again when the actor has closed the batch that it was taken into,
/// or at the next tick.
pub(super) type Turn = OwnedSemaphorePermit;

/// Something that the actor is to do.
pub(super) enum Job {
    /// Opens a session.
    Open(Option<SocketAddr>, Identity, oneshot::Sender<Opened>),
    /// A message of an NVE.
    Up(SessionId, SessionUp, Turn),
    /// Something of an NVE that the protocol does not have.
    Bad(SessionId, String, Turn),
    /// A connection is gone.
    Gone(SessionId),
    /// An operator's order.
    Order(Operator, Order, oneshot::Sender<Result<Answered, Refusal>>),
    /// A query of an operator, by its name.
    Look(Operator, String, Look),
    /// Follows a move.
    Watch(MoveId, oneshot::Sender<Result<watch::Receiver<v1::MoveRecord>, Status>>),
    /// Relays an operator's request to an NVE.
    Ask(Operator, Relay, v1::AdminRequest, oneshot::Sender<Result<v1::AdminResponse, Status>>),
    /// Reads the counters.
    Counters(oneshot::Sender<Vec<Entry>>),
}

impl Job {
    /// It changes nothing that anybody is told of, and waits for all that does (R67).
    pub fn is_question(&self) -> bool {
        matches!(self, Job::Up(_, SessionUp::Message(NveToNva::Query { .. }), _))
    }
}

/// The way to the actor.
#[derive(Clone)]
pub(super) struct Handle(mpsc::Sender<Job>);

fn stopping() -> Status {
    Status::unavailable("godwit-nva is stopping; try again when it is back")
}

impl Handle {
    pub fn new(jobs: mpsc::Sender<Job>) -> Handle {
        Handle(jobs)
    }

    async fn send(&self, job: Job) -> Result<(), Status> {
        self.0.send(job).await.map_err(|_| stopping())
    }

    async fn answered<T>(&self, job: Job, answer: oneshot::Receiver<T>) -> Result<T, Status> {
        self.send(job).await?;
        answer.await.map_err(|_| stopping())
    }

    /// Opens a session.
    pub async fn open(&self, address: Option<SocketAddr>, identity: Identity) -> Result<Opened, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Job::Open(address, identity, tx), rx).await
    }

    /// Hands on what an NVE said.
    pub async fn up(&self, session: SessionId, message: SessionUp, turn: Turn) -> Result<(), Status> {
        self.send(Job::Up(session, message, turn)).await
    }

    /// Hands on that an NVE said what the protocol does not have.
    pub async fn bad(&self, session: SessionId, text: String, turn: Turn) -> Result<(), Status> {
        self.send(Job::Bad(session, text, turn)).await
    }

    /// The connection is gone.
    pub async fn gone(&self, session: SessionId) {
        let _ = self.send(Job::Gone(session)).await;
    }

    /// Gives an order and waits until what it changed is durable. `T` is what this order is answered with.
    pub async fn order<T>(&self, operator: Operator, order: Order) -> Result<T, Status>
    where
        T: TryFrom<Answered, Error = OtherAnswer>,
    {
        let (tx, rx) = oneshot::channel();
        let answer = self.answered(Job::Order(operator, order, tx), rx).await?;
        let answer = answer.map_err(|refusal| status(&refusal))?;
        answer.try_into().map_err(|other: OtherAnswer| Status::internal(other.to_string()))
    }

    /// Looks at the directory.
    pub async fn look<T: Send + 'static>(
        &self,
        operator: Operator,
        what: String,
        query: impl FnOnce(&Directory, Instant) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let (tx, rx) = oneshot::channel();
        let look: Look = Box::new(move |may| {
            let answer = may.and_then(|(directory, now)| query(directory, now));
            Box::new(move || drop(tx.send(answer)))
        });
        self.answered(Job::Look(operator, what, look), rx).await?.map_err(|refusal| status(&refusal))
    }

    /// Follows a move.
    pub async fn watch(&self, id: MoveId) -> Result<watch::Receiver<v1::MoveRecord>, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Job::Watch(id, tx), rx).await?
    }

    /// Relays an operator's request to an NVE.
    pub async fn ask(
        &self,
        operator: Operator,
        relay: Relay,
        request: v1::AdminRequest,
    ) -> Result<v1::AdminResponse, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Job::Ask(operator, relay, request, tx), rx).await?
    }

    /// All counters of the NVA.
    pub async fn counters(&self) -> Result<Vec<Entry>, Status> {
        let (tx, rx) = oneshot::channel();
        self.answered(Job::Counters(tx), rx).await
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
        RefusalKind::Permission => Status::permission_denied(text),
    }
}

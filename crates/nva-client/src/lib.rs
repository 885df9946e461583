//! The NVA client: keeps one stream to an NVA open and carries messages both ways.
//!
//! It knows nothing of what the messages mean. [`NvaClient`] belongs to the loop that owns control
//! (`godwit-control`'s `Nve`); a task beside it does the network's part. Four rules:
//!
//! * Nothing crosses sessions. What the owner said before it heard that a session was lost is never
//!   sent on the next one: messages carry the number of the session that they were meant for.
//! * Nothing blocks the owner. A full queue means that the NVA does not listen: the session is given
//!   up, and the next one begins with everything said again.
//! * What is told goes before what is asked (R67): questions wait for all else that the owner has said. Each kind
//!   keeps its order; a question is as good later, since its answer is what the directory has by then.
//! * Nothing ends it but its drop. Whatever goes wrong is a lost session and another attempt, soon at
//!   first, because an NVA that restarts must not keep a data center waiting.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use godwit_api::pages::{self, MAX_ANSWER_BYTES};
use godwit_api::prost::Message as _;
use godwit_api::tls::Credentials;
use godwit_api::v1::nva_session_client::NvaSessionClient;
use godwit_api::v1::{AdminRequest, AdminResponse, NvaMessage, NveMessage};
use godwit_api::{MAX_MESSAGE_BYTES, SessionDown, SessionUp, connect_as, tonic};
use godwit_model::message::{NvaToNve, NveToNva};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Messages that wait on their way through the network's part, each way.
const STREAM_DEPTH: usize = 64;
/// Acknowledgements in one message.
const GATHERED: usize = 4096;

/// How to reach the NVA and how patient to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    /// `https://host:port` of NVAs; after a failure the next one is tried.
    pub urls: Vec<String>,
    /// What the NVAs are shown, where they are spoken to with TLS.
    pub credentials: Option<Arc<Credentials>>,
    /// A keepalive is said so often.
    pub keepalive: Duration,
    /// So many keepalives missed end the session, unless `Welcome` says how long to wait.
    pub missed: u32,
    /// First gap after a failure; it doubles up to `backoff_max`.
    pub backoff: Duration,
    /// Longest gap after failures.
    pub backoff_max: Duration,
    /// Messages of the owner that may wait.
    pub queue: usize,
}

impl SessionConfig {
    /// The defaults for one NVA: keepalive 1 s, 3 missed, gaps of 50 ms to 2 s.
    pub fn new(url: impl Into<String>) -> SessionConfig {
        SessionConfig {
            urls: vec![url.into()],
            credentials: None,
            keepalive: Duration::from_secs(1),
            missed: 3,
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            queue: 16_384,
        }
    }
}

/// What the owner hears.
// Nearly every value is the large variant: a box would cost an allocation a message and save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum SessionEvent {
    /// A stream is open: `Input::NvaConnected`.
    Connected,
    /// It ended: `Input::NvaLost`. Comes only after `Connected`.
    Lost {
        /// Why, for people.
        why: String,
    },
    /// A message: `Input::Nva`.
    Message(NvaToNve),
    /// An operator's request that the NVA relays; answer with [`NvaClient::reply`].
    AdminOrder {
        /// Its number.
        id: u64,
        /// The request.
        request: AdminRequest,
    },
}

/// The owner's end. Dropping it ends the session.
#[derive(Debug)]
pub struct NvaClient {
    up: mpsc::Sender<(u64, SessionUp)>,
    questions: mpsc::Sender<(u64, SessionUp)>,
    down: mpsc::Receiver<(u64, SessionEvent)>,
    /// The session that the owner has heard of last; 0 while there is none.
    session: u64,
    overflow: Arc<Overflow>,
    task: JoinHandle<()>,
}

impl NvaClient {
    /// Starts to connect. Must be called within a tokio runtime with time and I/O.
    pub fn spawn(config: SessionConfig) -> NvaClient {
        let (up, told) = mpsc::channel(config.queue.max(1));
        let (questions, asked) = mpsc::channel(config.queue.max(1));
        let from_owner = FromOwner { told, asked, next: None };
        let (to_owner, down) = mpsc::channel(config.queue.max(1));
        let overflow = Arc::new(Overflow::default());
        let network = Network { config, from_owner, to_owner, overflow: overflow.clone(), session: 0 };
        NvaClient { up, questions, down, session: 0, overflow, task: tokio::spawn(network.run()) }
    }

    /// What comes next. Cancel-safe.
    pub async fn recv(&mut self) -> SessionEvent {
        match self.down.recv().await {
            Some((session, event)) => self.heard(session, event),
            // The task ends only with us; a runtime that shuts down ends it earlier.
            None => std::future::pending().await,
        }
    }

    /// What has come already, if anything.
    pub fn try_recv(&mut self) -> Option<SessionEvent> {
        let (session, event) = self.down.try_recv().ok()?;
        Some(self.heard(session, event))
    }

    fn heard(&mut self, session: u64, event: SessionEvent) -> SessionEvent {
        match event {
            SessionEvent::Connected => self.session = session,
            SessionEvent::Lost { .. } => self.session = 0,
            SessionEvent::Message(_) | SessionEvent::AdminOrder { .. } => {}
        }
        event
    }

    /// Says something in the session that the owner knows of; without one it is dropped, which is
    /// what a new session starts from.
    pub fn send(&mut self, message: NveToNva) {
        self.push(SessionUp::Message(message));
    }

    /// Answers an operator's request. An answer that is too large for a message becomes an error that says so: it must
    /// not end the session.
    pub fn reply(&mut self, id: u64, response: AdminResponse) {
        let length = response.encoded_len();
        let response = if length <= MAX_ANSWER_BYTES { response } else { pages::too_large(length) };
        self.push(SessionUp::AdminReply { id, response });
    }

    fn push(&mut self, what: SessionUp) {
        let is_question = matches!(what, SessionUp::Message(NveToNva::Query { .. }));
        let queue = if is_question { &self.questions } else { &self.up };
        if self.session != 0 && queue.try_send((self.session, what)).is_err() {
            // The stream has a hole from here on: nothing may follow in it.
            self.overflow.session.store(self.session, Ordering::Relaxed);
            self.overflow.wake.notify_one();
            self.session = 0;
        }
    }
}

impl Drop for NvaClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The session whose messages found no room.
#[derive(Default, Debug)]
struct Overflow {
    session: AtomicU64,
    wake: Notify,
}

/// What the owner has said and the stream has not taken yet, with the sessions that it was meant for.
struct FromOwner {
    told: mpsc::Receiver<(u64, SessionUp)>,
    asked: mpsc::Receiver<(u64, SessionUp)>,
    /// What came behind acknowledgements that were gathered.
    next: Option<(u64, SessionUp)>,
}

impl FromOwner {
    /// The next message; `None`: the owner is gone. Cancel-safe.
    async fn recv(&mut self) -> Option<(u64, SessionUp)> {
        let next = match self.next.take() {
            Some(next) => Some(next),
            None => tokio::select! {
                biased;
                told = self.told.recv() => told,
                Some(asked) = self.asked.recv() => Some(asked),
            },
        };
        next.map(|(session, message)| (session, self.gathered(session, message)))
    }

    /// Acknowledgements that wait behind each other are one message: where the NVA stands still for a while, it finds
    /// few of them.
    fn gathered(&mut self, session: u64, first: SessionUp) -> SessionUp {
        let SessionUp::Message(NveToNva::Ack { mut ack_ids }) = first else { return first };
        while ack_ids.len() < GATHERED {
            match self.told.try_recv() {
                Ok((of, SessionUp::Message(NveToNva::Ack { ack_ids: more }))) if of == session => {
                    ack_ids.extend(more);
                }
                Ok(other) => {
                    self.next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        SessionUp::Message(NveToNva::Ack { ack_ids })
    }
}

/// The owner is gone.
struct Gone;

/// The network's part.
struct Network {
    config: SessionConfig,
    from_owner: FromOwner,
    to_owner: mpsc::Sender<(u64, SessionEvent)>,
    overflow: Arc<Overflow>,
    /// Counts streams from 1.
    session: u64,
}

impl Network {
    async fn run(mut self) {
        let mut gap = self.config.backoff;
        let mut last = String::new();
        for attempt in 0usize.. {
            let Some(url) = self.config.urls.get(attempt % self.config.urls.len().max(1)).cloned() else {
                tracing::error!("no NVA address is configured");
                return;
            };
            let began = Instant::now();
            match self.attempt(&url).await {
                Ok(Outcome { welcomed: true, why }) => {
                    tracing::warn!(url, why, "the session with the NVA ended");
                    // One that ends soon after its Welcome is no reason to hurry.
                    if began.elapsed() >= self.config.backoff_max {
                        gap = self.config.backoff;
                    }
                    last.clear();
                }
                // Said once, not with every attempt.
                Ok(Outcome { why, .. }) if why != last => {
                    tracing::warn!(url, why, "no session with the NVA; trying on");
                    last = why;
                }
                Ok(Outcome { .. }) => {}
                Err(Gone) => return,
            }
            sleep(jittered(gap)).await;
            gap = (gap * 2).min(self.config.backoff_max);
        }
    }

    /// One session from connecting to its end.
    async fn attempt(&mut self, url: &str) -> Result<Outcome, Gone> {
        let channel = match connect_as(url, self.config.credentials.as_ref()).await {
            Ok(channel) => channel,
            Err(e) => return Ok(Outcome { welcomed: false, why: e.to_string() }),
        };
        self.session += 1;
        self.tell(SessionEvent::Connected).await?;
        tracing::info!(url, "connected to the NVA");
        let client = NvaSessionClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let outcome = self.carry(client).await?;
        self.tell(SessionEvent::Lost { why: outcome.why.clone() }).await?;
        Ok(outcome)
    }

    /// Carries messages until the session ends; says why it did.
    async fn carry(
        &mut self,
        mut client: NvaSessionClient<tonic::transport::Channel>,
    ) -> Result<Outcome, Gone> {
        let (to_net, outgoing) = mpsc::channel::<NveMessage>(STREAM_DEPTH);
        // The NVA may answer only after our first message: both directions run from the start.
        let mut opening = pin!(client.session(ReceiverStream::new(outgoing)));
        let mut incoming: Option<Streaming<NvaMessage>> = None;
        let mut keepalive = interval(self.config.keepalive);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = self.config.keepalive * self.config.missed.max(1);
        let mut heard = Instant::now();
        let mut welcomed = false;
        let why = loop {
            tokio::select! {
                opened = &mut opening, if incoming.is_none() => match opened {
                    Ok(response) => incoming = Some(response.into_inner()),
                    Err(status) => break status.to_string(),
                },
                message = next(&mut incoming) => match message {
                    Ok(Some(message)) => {
                        heard = Instant::now();
                        if let Some(lasting) = self.take(message, &mut welcomed).await? {
                            patience = lasting;
                        }
                    }
                    Ok(None) => break String::from("the NVA closed the session"),
                    Err(status) => break status.to_string(),
                },
                said = next_up(&mut self.from_owner, &to_net) => match said {
                    // Meant for an earlier session: what it said is said anew in this one.
                    Some((_, session, _)) if session != self.session => {}
                    Some((permit, _, message)) => permit.send(message.into()),
                    None if self.to_owner.is_closed() => return Err(Gone),
                    None => break String::from("the stream to the NVA is closed"),
                },
                _ = keepalive.tick() => {
                    // A queue that is full says as much as a keepalive.
                    let _ = to_net.try_send(SessionUp::Message(NveToNva::Keepalive).into());
                }
                () = sleep_until(heard + patience) => break format!("the NVA was silent for {patience:?}"),
                () = self.overflow.wake.notified() => {
                    // It may be word of an earlier session.
                    if self.overflow.session.load(Ordering::Relaxed) == self.session {
                        break String::from("the NVA does not keep up");
                    }
                }
            }
        };
        Ok(Outcome { welcomed, why })
    }

    /// Hands a message on; from `Welcome` it tells how long the NVA may be silent.
    async fn take(&mut self, message: NvaMessage, welcomed: &mut bool) -> Result<Option<Duration>, Gone> {
        let mut lasting = None;
        match SessionDown::try_from(message) {
            Ok(SessionDown::Message(message)) => {
                if let NvaToNve::Welcome { keepalive_ms, .. } = message {
                    *welcomed = true;
                    lasting = (keepalive_ms > 0).then(|| Duration::from_millis(keepalive_ms.into()));
                }
                if message != NvaToNve::Keepalive {
                    self.tell(SessionEvent::Message(message)).await?;
                }
            }
            Ok(SessionDown::AdminOrder { id, request }) => {
                self.tell(SessionEvent::AdminOrder { id, request }).await?;
            }
            // Of a newer protocol, perhaps: the session stays.
            Err(e) => tracing::warn!(error = %e, "a message of the NVA is not understood and left out"),
        }
        Ok(lasting)
    }

    async fn tell(&mut self, event: SessionEvent) -> Result<(), Gone> {
        self.to_owner.send((self.session, event)).await.map_err(|_| Gone)
    }
}

/// How a session ended.
struct Outcome {
    /// The NVA had said Welcome.
    welcomed: bool,
    why: String,
}

/// The next message of a stream that may not be open yet.
async fn next(incoming: &mut Option<Streaming<NvaMessage>>) -> Result<Option<NvaMessage>, tonic::Status> {
    match incoming {
        Some(stream) => stream.message().await,
        None => std::future::pending().await,
    }
}

/// The owner's next message, taken only when the stream has room for it, so that none is lost when
/// something else happens first.
async fn next_up<'a>(
    from_owner: &mut FromOwner,
    to_net: &'a mpsc::Sender<NveMessage>,
) -> Option<(mpsc::Permit<'a, NveMessage>, u64, SessionUp)> {
    let permit = to_net.reserve().await.ok()?;
    let (session, message) = from_owner.recv().await?;
    Some((permit, session, message))
}

/// Between half and the whole of `gap`, so that NVEs that lost their NVA together come back apart.
fn jittered(gap: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    let half = gap / 2;
    half + half.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use godwit_model::message::QueryBy;
    use godwit_wire::{Mac, Vni};

    use super::*;

    #[tokio::test]
    async fn r67_what_is_told_goes_before_what_is_asked() {
        let ((up, told), (questions, asked)) = (mpsc::channel(8), mpsc::channel(8));
        let (_to_owner, down) = mpsc::channel(8);
        let (overflow, task) = (Arc::default(), tokio::spawn(async {}));
        let mut client = NvaClient { up, questions, down, session: 1, overflow, task };
        let query = |seq| NveToNva::Query { seq, vni: Vni::from_low24(7), by: QueryBy::Mac(Mac::ZERO) };
        for message in
            [query(1), NveToNva::Keepalive, query(2), NveToNva::Unsubscribe { vni: Vni::from_low24(7) }]
        {
            client.send(message);
        }
        let mut from_owner = FromOwner { told, asked, next: None };
        let mut sent = Vec::new();
        for _ in 0..4 {
            let Some((1, SessionUp::Message(message))) = from_owner.recv().await else { panic!("{sent:?}") };
            sent.push(message);
        }
        let told = [NveToNva::Keepalive, NveToNva::Unsubscribe { vni: Vni::from_low24(7) }];
        assert_eq!((&sent[..2], &sent[2..]), (&told[..], &[query(1), query(2)][..]));
        drop(client);
        assert!(from_owner.recv().await.is_none(), "the owner is gone");
    }

    #[tokio::test]
    async fn d11_acknowledgements_that_wait_are_one_message_and_overtake_nothing() {
        let ((up, told), (_questions, asked)) = (mpsc::channel(16), mpsc::channel(16));
        let ack = |id: u64| SessionUp::Message(NveToNva::Ack { ack_ids: vec![id] });
        let other = || SessionUp::Message(NveToNva::Unsubscribe { vni: Vni::from_low24(7) });
        let said =
            [(1, ack(1)), (1, ack(2)), (1, ack(3)), (1, other()), (1, ack(4)), (2, ack(5)), (2, ack(6))];
        for said in said {
            up.try_send(said).unwrap();
        }
        let mut from_owner = FromOwner { told, asked, next: None };
        let acks = |ack_ids: Vec<u64>| SessionUp::Message(NveToNva::Ack { ack_ids });
        let expected = [(1, acks(vec![1, 2, 3])), (1, other()), (1, acks(vec![4])), (2, acks(vec![5, 6]))];
        for expected in expected {
            assert_eq!(from_owner.recv().await, Some(expected));
        }
    }
}

//! A directory that sends updates and answers questions out of a [`Book`]: the other end of the switch's session
//! with its NVA, so that both come the way they come in operation, and are counted where they arrive.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use godwit_api::tonic::transport::Server;
use godwit_api::tonic::{self, Request, Response, Status, Streaming};
use godwit_api::v1;
use godwit_api::v1::nva_message::Kind as Down;
use godwit_api::v1::nva_session_server::{NvaSession, NvaSessionServer};
use godwit_api::v1::nve_message::Kind as Up;
use godwit_lab::netns;
use tokio_stream::wrappers::ReceiverStream;

use crate::ends::LOCAL_IP;

/// Messages that may wait for the switch; whoever sends more waits with them.
const QUEUE: usize = 4096;
/// Longer silence than any measurement lasts.
const KEEPALIVE_MS: u32 = 60_000;
/// Life of an answer, as the NVA's.
const LIFETIME_100MS: u32 = 300;

type Outgoing = Result<v1::NvaMessage, Status>;

/// What the directory knows besides what it is told to send.
#[derive(Clone, Copy)]
pub struct Book {
    /// The address of a VM that the switch claims, by its MAC: what it may send from (R65).
    pub here: fn(u64) -> Ipv4Addr,
    /// The answer to a question; without one, questions are neither answered nor kept.
    pub answer: Option<fn(&v1::Query) -> Option<v1::VmRecord>>,
}

impl Default for Book {
    fn default() -> Book {
        Book { here: |_| LOCAL_IP, answer: None }
    }
}

/// What the service and its owner share.
#[derive(Default)]
struct Shared {
    /// The way to the switch, once it is there and has subscribed.
    way: Mutex<Option<tokio::sync::mpsc::Sender<Outgoing>>>,
    /// Who it is and where.
    switch: Mutex<Option<v1::Location>>,
    /// The newest revision of the VN: who subscribes anew goes on from there.
    revision: AtomicU64,
    /// When the switch acknowledged what.
    acks: Mutex<Vec<(u64, Instant)>>,
    /// What it asked, and when that came; its own limits bound how much that is (R67).
    questions: Mutex<Vec<(v1::Query, Instant)>>,
}

/// The directory's owner's side.
pub struct Directory {
    shared: Arc<Shared>,
}

impl Directory {
    /// Serves at `address` in a network namespace until the program ends.
    ///
    /// # Errors
    /// Where it cannot listen there.
    pub fn serve(namespace: &str, address: SocketAddr, book: Book) -> Result<Directory> {
        let shared = Arc::new(Shared::default());
        let (service, namespace) = (Service(shared.clone(), book), namespace.to_owned());
        let (tell, told) = mpsc::channel();
        thread::Builder::new().name("directory".into()).spawn(move || {
            let serve = || -> Result<()> {
                netns::enter(&namespace)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let server = Server::builder().add_service(NvaSessionServer::new(service)).serve(address);
                runtime.block_on(server).with_context(|| format!("serving at {address}"))
            };
            drop(tell.send(serve()));
        })?;
        // It tells something only where it has ended.
        match told.recv_timeout(Duration::from_millis(300)) {
            Ok(ended) => ended.map(|()| Directory { shared }),
            Err(_) => Ok(Directory { shared }),
        }
    }

    /// The switch has subscribed.
    pub fn is_connected(&self) -> bool {
        self.way().is_some()
    }

    /// Sends the VN's next update, waiting for room.
    ///
    /// # Errors
    /// Where the switch went away.
    pub fn update(&self, vni: u32, record: v1::VmRecord, ack_id: u64) -> Result<()> {
        let way = self.way().context("the switch has no session")?;
        let revision = self.shared.revision.fetch_add(1, Ordering::SeqCst) + 1;
        let change = Some(v1::update::Change::Vm(record));
        let update = Down::Update(v1::Update { vni, revision, ack_id, change, lingers: false });
        let message = v1::NvaMessage { kind: Some(update) };
        way.blocking_send(Ok(message)).ok().context("the switch ended its session")
    }

    /// Acknowledgements since the last call.
    pub fn take_acks(&self) -> Vec<(u64, Instant)> {
        std::mem::take(&mut *self.shared.acks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Questions since the last call, and when they came.
    pub fn take_questions(&self) -> Vec<(v1::Query, Instant)> {
        std::mem::take(&mut *self.shared.questions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn way(&self) -> Option<tokio::sync::mpsc::Sender<Outgoing>> {
        self.shared.way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Service(Arc<Shared>, Book);

#[tonic::async_trait]
impl NvaSession for Service {
    type SessionStream = ReceiverStream<Outgoing>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NveMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (way, outbox) = tokio::sync::mpsc::channel(QUEUE);
        let (shared, book) = (self.0.clone(), self.1);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if let Some(kind) = message.kind {
                    heard(&shared, book, &way, kind).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outbox)))
    }
}

/// Answers what the switch must have an answer to, to take part in a VN with VMs of its own.
async fn heard(shared: &Shared, book: Book, way: &tokio::sync::mpsc::Sender<Outgoing>, kind: Up) {
    let answer = match kind {
        Up::Ack(ack) => {
            let mut acks = shared.acks.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            return acks.extend(ack.ack_ids.into_iter().map(|id| (id, now)));
        }
        Up::Hello(hello) => {
            let location = v1::Location { nve: hello.nve, locators: hello.locators };
            *shared.switch.lock().unwrap_or_else(PoisonError::into_inner) = Some(location);
            let protocol = godwit_api::PROTOCOL;
            Down::Welcome(v1::Welcome { protocol, epoch: 1, keepalive_ms: KEEPALIVE_MS })
        }
        Up::Subscribe(s) => {
            let revision = shared.revision.load(Ordering::SeqCst);
            Down::End(v1::End { vni: s.vni, revision, known: true, ..v1::End::default() })
        }
        Up::Query(q) => {
            let Some(answer) = book.answer else { return };
            let (seq, record) = (q.seq, answer(&q));
            shared.questions.lock().unwrap_or_else(PoisonError::into_inner).push((q, Instant::now()));
            Down::Response(v1::Response { seq, record, lifetime_100ms: LIFETIME_100MS })
        }
        Up::Claim(c) => {
            let mac = c.key.as_ref().map_or(0, |k| k.mac);
            let record = v1::VmRecord {
                name: "here".into(),
                key: c.key,
                ipv4: vec![(book.here)(mac).octets().to_vec()],
                state: v1::BindingState::Active.into(),
                version: Some(v1::Version { epoch: 1, seq: 1 }),
                location: shared.switch.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                ..v1::VmRecord::default()
            };
            Down::Grant(v1::Grant { seq: c.seq, record: Some(record) })
        }
        _ => return,
    };
    let subscribed = matches!(answer, Down::End(_));
    // It fails only where the switch went away; there is nobody to tell then.
    let _ = way.send(Ok(v1::NvaMessage { kind: Some(answer) })).await;
    if subscribed {
        *shared.way.lock().unwrap_or_else(PoisonError::into_inner) = Some(way.clone());
    }
}

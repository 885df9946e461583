//! Connections: to the NVA, and to one NVE through its socket or through the NVA.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_nva_api::tonic::transport::Channel;
use godwit_nva_api::tonic::{Response, Status, Streaming};
use godwit_nva_api::v1;
use godwit_nva_api::v1::admin_request::Kind as Ask;
use godwit_nva_api::v1::admin_response::Kind as Answer;
use godwit_nva_api::v1::nve_admin_client::NveAdminClient;
use godwit_nva_api::v1::operator_client::OperatorClient;
use godwit_nva_api::{ConnectError, connect, connect_unix};

use crate::cli::Global;
use crate::failure::Failure;
use crate::suggest::{self, Named};

/// Largest answer taken: a million entries of about 200 bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Whom the command line says to ask; nothing is connected yet.
#[derive(Clone, Debug)]
pub struct Link {
    url: String,
    socket: Option<PathBuf>,
    socket_given: bool,
    timeout: Duration,
}

impl Link {
    /// From the global arguments.
    pub fn new(global: &Global) -> Link {
        Link {
            url: global.nva.clone(),
            socket: global.socket.clone(),
            socket_given: global.socket_given,
            timeout: global.timeout,
        }
    }

    fn in_time(&self) -> String {
        format!("nothing within {} s", self.timeout.as_secs_f64())
    }

    /// How long to wait for an answer.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects to the NVA.
    ///
    /// # Errors
    /// Where it does not answer, or `--socket` was given, which only an NVE answers to.
    pub async fn nva(&self) -> Result<Nva, Failure> {
        if self.socket_given {
            return Err(Failure::usage("--socket reaches one NVE, but this command asks the NVA")
                .remedy("leave out --socket, or use port, counters, entries, trace or nve show"));
        }
        let channel = match tokio::time::timeout(self.timeout, connect(&self.url)).await {
            Ok(connected) => connected.map_err(|e| unconnected(&self.url, e))?,
            Err(_) => return Err(unreachable_nva(&self.url, &self.in_time())),
        };
        let client = OperatorClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Nva { client, url: self.url.clone(), timeout: self.timeout })
    }

    /// Whether `--socket` or its variable says to ask one NVE directly, and `--nve` does not overrule it.
    pub fn goes_by_socket(&self, nve: Option<&str>) -> bool {
        self.socket.is_some() && nve.is_none()
    }

    /// Connects to one NVE: by name through the NVA, or by the socket.
    ///
    /// # Errors
    /// Where neither or both were given, or the other side does not answer.
    pub async fn nve(&self, nve: Option<&str>) -> Result<Hand, Failure> {
        match (nve, &self.socket) {
            (Some(_), Some(_)) if self.socket_given => {
                Err(Failure::usage("--nve and --socket name two ways to an NVE; give one of them"))
            }
            (Some(name), _) => Ok(Hand::Relay { nva: self.nva().await?, nve: name.to_owned() }),
            (None, Some(path)) => self.socket(path).await,
            (None, None) => Err(Failure::usage("which NVE? this command concerns a single one")
                .remedy("give --nve NAME to go through the NVA, or --socket PATH on the NVE's own host")),
        }
    }

    async fn socket(&self, path: &Path) -> Result<Hand, Failure> {
        let shown = path.display().to_string();
        let channel = match tokio::time::timeout(self.timeout, connect_unix(path)).await {
            Ok(connected) => connected.map_err(|e| unconnected(&shown, e))?,
            Err(_) => {
                return Err(Failure::unreachable(format!("no NVE answers at {shown}: {}", self.in_time()))
                    .remedy("look at the log of godwit on this host, or raise --timeout"));
            }
        };
        let client = NveAdminClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Hand::Socket { client, path: shown, timeout: self.timeout })
    }
}

fn unreachable_nva(url: &str, why: &str) -> Failure {
    Failure::unreachable(format!("no NVA answers at {url}: {why}"))
        .remedy("is godwit-nva running there? --nva or GODWIT_NVA says where to look")
}

/// A connection that could not be made, to the NVA at `url` or to a socket.
fn unconnected(url: &str, e: ConnectError) -> Failure {
    match e {
        ConnectError::BadUrl { why, .. } => Failure::usage(format!("{url:?} is no address of an NVA: {why}"))
            .remedy("give --nva as http://HOST:PORT, an IPv6 address in brackets"),
        ConnectError::Unreachable { why, .. } => unreachable_nva(url, &why),
        ConnectError::Socket { path, why, remedy } => {
            Failure::unreachable(format!("no NVE answers at the admin socket {}: {why}", path.display()))
                .remedy(format!("{remedy} (--socket or GODWIT_SOCKET says where to look)"))
        }
    }
}

async fn settle<T>(
    peer: &str,
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Failure::from_status(peer, &status)),
        Err(_) => {
            Err(Failure::unreachable(format!("{peer} gave no answer within {} s", timeout.as_secs_f64()))
                .remedy("raise --timeout, or look at its log"))
        }
    }
}

/// A connection to the NVA.
#[derive(Clone, Debug)]
pub struct Nva {
    client: OperatorClient<Channel>,
    url: String,
    timeout: Duration,
}

impl Nva {
    /// The generated client; clones share the connection.
    pub fn client(&self) -> OperatorClient<Channel> {
        self.client.clone()
    }

    /// Waits for the answer to a call.
    ///
    /// # Errors
    /// The NVA's refusal, a lost connection, or no answer in time.
    pub async fn settle<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        settle(&self.peer(), self.timeout, call).await
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What messages call it.
    pub fn peer(&self) -> String {
        format!("the NVA at {}", self.url)
    }

    /// All VNs.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn vns(&self) -> Result<Vec<v1::Vn>, Failure> {
        Ok(self.settle(self.client().list_vns(v1::ListVnsRequest {})).await?.vns)
    }

    /// All policies.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn policies(&self) -> Result<Vec<v1::Policy>, Failure> {
        Ok(self.settle(self.client().list_policies(v1::ListPoliciesRequest {})).await?.policies)
    }

    /// The VMs of a VN, or all where `vn` is empty.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn vms(&self, vn: &str) -> Result<Vec<v1::VmRecord>, Failure> {
        Ok(self.settle(self.client().list_vms(v1::ListVmsRequest { vn: vn.into() })).await?.vms)
    }

    /// All NVEs.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn nves(&self) -> Result<Vec<v1::NveInfo>, Failure> {
        Ok(self.settle(self.client().list_nves(v1::ListNvesRequest {})).await?.nves)
    }

    /// The moves of a VM, or all where `vm` is empty.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn moves(&self, vm: &str, unfinished_only: bool) -> Result<Vec<v1::MoveRecord>, Failure> {
        let request = v1::ListMovesRequest { vm: vm.into(), unfinished_only };
        Ok(self.settle(self.client().list_moves(request)).await?.moves)
    }

    /// Follows a move; the stream itself may last longer than the timeout.
    ///
    /// # Errors
    /// As [`Nva::settle`].
    pub async fn watch(&self, id: &str) -> Result<Streaming<v1::MoveRecord>, Failure> {
        self.settle(self.client().watch_move(v1::MoveName { id: id.into() })).await
    }

    /// Relays a request to an NVE.
    ///
    /// # Errors
    /// As [`Nva::settle`]; also the NVE's own refusal.
    pub async fn ask(&self, nve: &str, ask: Ask) -> Result<Answer, Failure> {
        let request = v1::AdminRequest { kind: Some(ask) };
        let asked = v1::AskNveRequest { nve: nve.into(), request: Some(request) };
        match self.settle(self.client().ask_nve(asked)).await {
            Ok(response) => accept(&format!("NVE {nve}"), response),
            Err(failure) => Err(suggest::explain(self, failure, &[(Named::Nve, nve)]).await),
        }
    }
}

/// A way to one NVE.
#[derive(Clone, Debug)]
pub enum Hand {
    /// Through the NVA.
    Relay {
        /// The NVA.
        nva: Nva,
        /// The NVE's name.
        nve: String,
    },
    /// By its admin socket.
    Socket {
        /// The generated client.
        client: NveAdminClient<Channel>,
        /// The socket.
        path: String,
        /// How long to wait for an answer.
        timeout: Duration,
    },
}

impl Hand {
    /// Asks the NVE.
    ///
    /// # Errors
    /// Its refusal, a lost connection, or no answer in time.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Failure> {
        match self {
            Hand::Relay { nva, nve } => nva.ask(nve, ask).await,
            Hand::Socket { client, timeout, .. } => {
                let mut client = client.clone();
                let call = client.call(v1::AdminRequest { kind: Some(ask) });
                accept(&self.peer(), settle(&self.peer(), *timeout, call).await?)
            }
        }
    }

    /// What messages call it.
    pub fn peer(&self) -> String {
        match self {
            Hand::Relay { nve, .. } => format!("NVE {nve}"),
            Hand::Socket { path, .. } => format!("the NVE at {path}"),
        }
    }
}

/// An NVE's answer, its refusals turned into failures.
fn accept(peer: &str, response: v1::AdminResponse) -> Result<Answer, Failure> {
    match response.kind {
        Some(Answer::Error(e)) => Err(Failure::refused(format!("{peer} refused: {}", e.text))),
        Some(answer) => Ok(answer),
        None => Err(unexpected(peer)),
    }
}

/// The NVE answered something else than was asked: another version, most likely.
pub fn unexpected(peer: &str) -> Failure {
    Failure::refused(format!("{peer} gave an answer that godwitctl does not understand"))
        .remedy("compare the versions of godwitctl and of the NVE")
}

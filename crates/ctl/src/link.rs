//! Makes connections: to the NVA, and to one NVE through its socket or through the NVA.

use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_api::v1::nve_admin_client::NveAdminClient;
use godwit_api::v1::operator_client::OperatorClient;
use godwit_api::{ConnectError, connect_as, connect_unix};

use crate::failure::Failure;
use crate::global::Global;
use crate::hand::Hand;
use crate::nva::Nva;
use crate::secure::{SecureArgs, Secured};

/// Largest answer taken: a million entries of about 200 bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Whom the command line says to ask; nothing is connected yet.
#[derive(Clone, Debug)]
pub struct Link {
    url: String,
    secure: SecureArgs,
    socket: Option<PathBuf>,
    socket_given: bool,
    timeout: Duration,
}

impl Link {
    /// From the global arguments.
    pub fn new(global: &Global) -> Link {
        Link {
            url: global.nva(),
            secure: global.secure.clone(),
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
        let Secured { credentials, auth } = self.secure.read(&self.url)?;
        let channel =
            match tokio::time::timeout(self.timeout, connect_as(&self.url, credentials.as_ref())).await {
                Ok(connected) => connected.map_err(|e| unconnected(&self.url, e))?,
                Err(_) => return Err(unreachable_nva(&self.url, &self.in_time())),
            };
        let client = OperatorClient::new(auth.on(channel)).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Nva::new(client, self.url.clone(), self.timeout))
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
            .remedy("give --nva as https://HOST:PORT, an IPv6 address in brackets"),
        ConnectError::Refused { why, remedy, .. } => {
            Failure::unreachable(format!("no session with the NVA at {url}: {why}")).remedy(remedy)
        }
        ConnectError::Unreachable { why, .. } => unreachable_nva(url, &why),
        ConnectError::Socket { path, why, remedy } => {
            Failure::unreachable(format!("no NVE answers at the admin socket {}: {why}", path.display()))
                .remedy(format!("{remedy} (--socket or GODWIT_SOCKET says where to look)"))
        }
    }
}

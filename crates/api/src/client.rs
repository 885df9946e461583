//! Connections to an NVA (TCP) and to a switch's admin socket (Unix).

mod secure;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::tls::Credentials;
use crate::{CONNECTION_WINDOW, STREAM_WINDOW};
use secure::{Refused, Stream};

/// A connection that could not be made: what was tried, why it failed, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Text that is no endpoint.
    #[error("{url:?} is no NVA address: write https://HOST:PORT, as in https://10.0.0.1:6640 ({why})")]
    BadUrl {
        /// As given.
        url: String,
        /// What the parser said.
        why: String,
    },
    /// Nobody answers at the NVA's address.
    #[error(
        "cannot reach the NVA at {url}: {why}; check that godwit-nva runs there and that no filter is between"
    )]
    Unreachable {
        /// As given.
        url: String,
        /// What the system said.
        why: String,
    },
    /// The NVA answers, but one side does not accept the other.
    #[error("no session with the NVA at {url}: {why}; {remedy}")]
    Refused {
        /// As given.
        url: String,
        /// What is wrong.
        why: String,
        /// What to do about it.
        remedy: String,
    },
    /// The admin socket does not answer.
    #[error("cannot reach the switch at socket {}: {why}; {remedy}", path.display())]
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        why: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

/// How long to try before a connection counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether connections to this NVA address are made with TLS: it begins with `https://`, or has no scheme and there
/// are credentials.
pub fn is_secure(url: &str, credentials: Option<&Arc<Credentials>>) -> bool {
    if url.contains("://") { url.starts_with("https://") } else { credentials.is_some() }
}

/// The endpoint behind `url`, with the settings that all our connections share.
///
/// # Errors
/// Where `url` is no `https://host:port` or `http://host:port`. The scheme may be left out.
pub fn endpoint(url: &str) -> Result<Endpoint, ConnectError> {
    let bad = |why: &str| ConnectError::BadUrl { url: url.into(), why: why.into() };
    // TLS is made below the endpoint, which is not to try on its own.
    let full = match url.split_once("://") {
        Some(("http" | "https", rest)) => format!("http://{rest}"),
        Some(_) => return Err(bad("only https and http are spoken")),
        None => format!("http://{url}"),
    };
    let uri: Uri = full.parse().map_err(|_| bad("it does not parse"))?;
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(bad("host or port is missing"));
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        // A peer whose host vanished without a word is noticed although TCP would wait for minutes.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// Connects to an NVA in clear; the scheme of `http://host:port` may be left out.
///
/// # Errors
/// Where `url` is no endpoint or nobody answers within three seconds.
pub async fn connect(url: &str) -> Result<Channel, ConnectError> {
    connect_as(url, None).await
}

/// Connects to an NVA, with TLS where [`is_secure`] says so: `credentials` are shown to it.
///
/// # Errors
/// Where `url` is no endpoint, nobody answers within three seconds, or one side refuses the other's certificate.
pub async fn connect_as(url: &str, credentials: Option<&Arc<Credentials>>) -> Result<Channel, ConnectError> {
    let connector = Connector::new(url, credentials)?;
    let (endpoint, open) = (endpoint(url)?, tower::service_fn(move |uri| connector.clone().open(uri)));
    endpoint.connect_with_connector(open).await.map_err(|e| unconnected(url, &e))
}

/// The same, later: the connection is made with the first request, and made again when the other end restarts.
///
/// # Errors
/// Where `url` is no endpoint, or wants credentials and there are none.
pub fn connect_lazily(url: &str, credentials: Option<&Arc<Credentials>>) -> Result<Channel, ConnectError> {
    let connector = Connector::new(url, credentials)?;
    let open = tower::service_fn(move |uri| connector.clone().open(uri));
    Ok(endpoint(url)?.connect_with_connector_lazy(open))
}

/// Makes connections to one NVA.
#[derive(Clone)]
struct Connector {
    /// `None`: in clear.
    credentials: Option<Arc<Credentials>>,
}

impl Connector {
    fn new(url: &str, credentials: Option<&Arc<Credentials>>) -> Result<Connector, ConnectError> {
        if !is_secure(url, credentials) {
            return Ok(Connector { credentials: None });
        }
        let credentials = credentials.cloned().ok_or_else(|| ConnectError::Refused {
            url: url.into(),
            why: "https needs the authority that the NVA's certificate is from, and none is configured"
                .into(),
            remedy: "give certificate, key and authority".into(),
        })?;
        Ok(Connector { credentials: Some(credentials) })
    }

    async fn open(self, uri: Uri) -> Result<TokioIo<Stream>, Box<dyn Error + Send + Sync>> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tcp = tokio::net::TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or_default())).await?;
        tcp.set_nodelay(true)?;
        Ok(TokioIo::new(match self.credentials {
            None => secure::clear(tcp),
            Some(credentials) => secure::tls(tcp, host, &credentials).await?,
        }))
    }
}

fn unconnected(url: &str, e: &tonic::transport::Error) -> ConnectError {
    let url = url.to_owned();
    match refusal(e) {
        Some(Refused { why, remedy }) => ConnectError::Refused { url, why, remedy },
        None => ConnectError::Unreachable { url, why: deepest(e) },
    }
}

/// Why one side refused the other, if that is what is behind an error of a connection.
pub fn refusal(e: &(dyn Error + 'static)) -> Option<Refused> {
    let mut cause = Some(e);
    while let Some(c) = cause {
        if let Some(found) = secure::refused(c) {
            return Some(found);
        }
        cause = c.source();
    }
    None
}

/// Connects to the `NveAdmin` service of a switch on this host.
///
/// # Errors
/// Where the socket is not there, not ours to open, or nobody listens.
pub async fn connect_unix(path: impl AsRef<Path>) -> Result<Channel, ConnectError> {
    let path = path.as_ref().to_path_buf();
    // Opened here first: an error of the connector below would have lost its kind.
    if let Err(e) = tokio::net::UnixStream::connect(&path).await {
        return Err(ConnectError::Socket { remedy: socket_remedy(e.kind()), why: e.to_string(), path });
    }
    let target = path.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let target = target.clone();
        async move { tokio::net::UnixStream::connect(target).await.map(TokioIo::new) }
    });
    // The URI is not used by the connector but must be one.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT_TIMEOUT);
    endpoint.connect_with_connector(connector).await.map_err(|e| ConnectError::Socket {
        why: deepest(&e),
        remedy: "is it a godwit admin socket?",
        path,
    })
}

fn socket_remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "is godwit running, and with this --admin-socket?",
        io::ErrorKind::PermissionDenied => "run this as the user of the switch or as root",
        io::ErrorKind::ConnectionRefused => "no godwit listens on it any more: start godwit",
        _ => "is godwit running?",
    }
}

/// The innermost cause, which is the one that says something ("Connection refused").
fn deepest(e: &tonic::transport::Error) -> String {
    let mut cause = e.source();
    let mut text = e.to_string();
    while let Some(c) = cause {
        text = c.to_string();
        cause = c.source();
    }
    text
}

//! Connections to an NVA (TCP) and to a switch's admin socket (Unix).

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};

use crate::{CONNECTION_WINDOW, STREAM_WINDOW};

/// A connection that could not be made: what was tried, why it failed, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Text that is no endpoint.
    #[error("{url:?} is no NVA address: write http://HOST:PORT, as in http://10.0.0.1:6640 ({why})")]
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

/// The endpoint behind `url`, with the settings that all our connections share.
///
/// # Errors
/// Where `url` is no `http://host:port`. The scheme may be left out.
pub fn endpoint(url: &str) -> Result<Endpoint, ConnectError> {
    let bad = |why: &str| ConnectError::BadUrl { url: url.into(), why: why.into() };
    if url.starts_with("https://") {
        return Err(bad("TLS is not available yet"));
    }
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: tonic::codegen::http::Uri = full.parse().map_err(|_| bad("it does not parse"))?;
    if uri.scheme_str() != Some("http") {
        return Err(bad("only http is spoken"));
    }
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(bad("host or port is missing"));
    }
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // A peer whose host vanished without a word is noticed although TCP would wait for minutes.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW))
}

/// Connects to an NVA; the scheme of `http://host:port` may be left out.
///
/// # Errors
/// Where `url` is no endpoint or nobody answers within three seconds.
pub async fn connect(url: &str) -> Result<Channel, ConnectError> {
    let connected = endpoint(url)?.connect().await;
    connected.map_err(|e| ConnectError::Unreachable { url: url.into(), why: deepest(&e) })
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
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
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

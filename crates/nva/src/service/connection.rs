//! A connection to the NVA with what its other side proved.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use godwit_api::tls::TlsError;
use godwit_api::tonic::codegen::http::Extensions;
use godwit_api::tonic::transport::server::{Connected, TcpConnectInfo};
use godwit_model::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};

use super::accept::Guarded;
use super::tls::{Registration, Security, Tls};
use super::tokens::Tokens;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way on one listener; further connections wait.
const HANDSHAKES: usize = 2048;
/// Pause after no connection could be taken, as for want of file descriptors: others end meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// What connections are made on.
pub(super) trait Accepted: AsyncRead + AsyncWrite + Connected + Send + Unpin + 'static {
    /// Address of the other side.
    fn address(&self) -> Option<SocketAddr>;
}

impl Accepted for TcpStream {
    fn address(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }
}

impl Accepted for Guarded {
    fn address(&self) -> Option<SocketAddr> {
        Some(self.peer().address())
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// The other side of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// `None`: TLS without a certificate; each request has to prove something.
    pub identity: Option<Identity>,
    /// What the stream below says of its other side, and a [`TcpConnectInfo`].
    pub below: Extensions,
}

/// A connection.
pub(super) struct Connection {
    io: Box<dyn Io>,
    peer: Peer,
    registration: Option<Registration>,
    is_ended: bool,
}

/// How connections are made.
#[derive(Clone)]
pub(super) enum Transport {
    /// In clear: nothing is proved.
    Clear,
    /// With TLS.
    Tls(Arc<Tls>),
}

impl Transport {
    /// # Errors
    /// The first file that is wrong.
    pub fn new(security: Option<Security>) -> Result<Transport, TlsError> {
        Ok(match security {
            None => Transport::Clear,
            Some(security) => Transport::Tls(Arc::new(Tls::new(security)?)),
        })
    }

    /// The operators that have a token.
    pub fn tokens(&self) -> Option<Arc<Tokens>> {
        match self {
            Transport::Clear => None,
            Transport::Tls(tls) => tls.tokens(),
        }
    }

    /// The connections that are let in, of those that come.
    pub fn connections<T: Accepted>(
        self,
        incoming: impl Stream<Item = io::Result<T>> + Send + 'static,
    ) -> ReceiverStream<Result<Connection, Infallible>> {
        let (opened, connections) = mpsc::channel(1);
        tokio::spawn(async move {
            tokio::select! {
                () = opened.closed() => {}
                () = self.open_all(incoming, &opened) => {}
            }
        });
        ReceiverStream::new(connections)
    }

    async fn open_all<T: Accepted>(
        &self,
        incoming: impl Stream<Item = io::Result<T>> + Send,
        opened: &mpsc::Sender<Result<Connection, Infallible>>,
    ) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let mut incoming = std::pin::pin!(incoming);
        while let Some(accepted) = incoming.next().await {
            let stream = match accepted {
                Ok(stream) => stream,
                Err(e) => {
                    tracing::debug!("no connection is taken: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let Ok(turn) = handshakes.clone().acquire_owned().await else { return };
            let (transport, opened) = (self.clone(), opened.clone());
            tokio::spawn(async move {
                let opening = tokio::time::timeout(HANDSHAKE_TIMEOUT, transport.open(stream)).await;
                drop(turn);
                if let Ok(Some(connection)) = opening {
                    let _ = opened.send(Ok(connection)).await;
                }
            });
        }
    }

    /// The connection on a stream, or nothing where the other side is refused; the log says why.
    async fn open<T: Accepted>(&self, stream: T) -> Option<Connection> {
        let address = stream.address();
        let mut below = Extensions::new();
        below.insert(stream.connect_info());
        below.insert(TcpConnectInfo { local_addr: None, remote_addr: address });
        match self {
            Transport::Clear => {
                let peer = Peer { identity: Some(Identity::Unproven), below };
                Some(Connection { io: Box::new(stream), peer, registration: None, is_ended: false })
            }
            Transport::Tls(tls) => {
                // Without an address it is gone.
                let address = address?;
                match tls.accept(stream, address).await {
                    Ok((stream, identity, registration)) => {
                        let peer = Peer { identity, below };
                        Some(Connection { io: Box::new(stream), peer, registration, is_ended: false })
                    }
                    Err(why) => {
                        tls.refused(address, &why);
                        None
                    }
                }
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_ended
            && let Some(registration) = &mut self.registration
            && Pin::new(&mut registration.ended).poll(cx).is_ready()
        {
            self.is_ended = true;
        }
        if self.is_ended {
            let text = "the certificate of the other side is good no longer";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, text)));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

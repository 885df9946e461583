//! Streams to an NVA: TLS or in clear, and in words what is wrong when they do not come about.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsProblem};

use crate::tls::Credentials;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to an NVA.
pub(super) struct Stream(Box<dyn Io>);

/// One side refused the other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}; {remedy}")]
pub struct Refused {
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refused {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Refused {
        Refused { why: why.into(), remedy: remedy.into() }
    }
}

/// A stream in clear.
pub(super) fn clear(tcp: TcpStream) -> Stream {
    Stream(Box::new(tcp))
}

/// Makes TLS of a connection.
pub(super) async fn tls(
    tcp: TcpStream,
    host: String,
    credentials: &Arc<Credentials>,
) -> Result<Stream, Refused> {
    let (config, stale) = credentials.config();
    let named = host.clone();
    let name = ServerName::try_from(host).map_err(|_| {
        Refused::new(format!("{named:?} is no name for a certificate"), "use a name or an address")
    })?;
    let explain = |e: io::Error| {
        let refused = explain(&e, &named, credentials.has_certificate());
        match &stale {
            // The last good ones were shown, and that may be why.
            Some(error) => Refused::new(format!("{}; {error}", refused.why), refused.remedy),
            None => refused,
        }
    };
    let mut stream = TlsConnector::from(config).connect(name, tcp).await.map_err(explain)?;
    // The handshake ends here before the NVA has seen our certificate: its first bytes, or its alert, tell.
    match stream.fill_buf().await.map(|first| first.is_empty()) {
        Ok(true) => {
            Err(Refused::new("the NVA closed the connection after the handshake", "the NVA's log says why"))
        }
        Ok(false) => Ok(Stream(Box::new(stream))),
        Err(e) => Err(explain(e)),
    }
}

/// Why one side refused the other, if this very error says so.
pub(super) fn refused(e: &(dyn Error + 'static)) -> Option<Refused> {
    if let Some(refused) = e.downcast_ref::<Refused>() {
        return Some(refused.clone());
    }
    let io = e.downcast_ref::<io::Error>()?.get_ref()?;
    io.downcast_ref::<Refused>().cloned()
}

fn explain(e: &io::Error, host: &str, has_certificate: bool) -> Refused {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<TlsProblem>()) {
        Some(TlsProblem::AlertReceived(alert)) => alerted(*alert, has_certificate),
        Some(TlsProblem::InvalidCertificate(e)) => bad_server(e, host),
        Some(TlsProblem::InvalidMessage(_)) => Refused::new(
            "it does not speak TLS there",
            "give godwit-nva its certificate, or write http:// where it listens in clear",
        ),
        Some(e) => Refused::new(format!("TLS: {e}"), "the NVA's log says more"),
        None => Refused::new(format!("the connection broke in the handshake: {e}"), "the NVA's log says why"),
    }
}

/// What the NVA says of our certificate.
fn alerted(alert: AlertDescription, has_certificate: bool) -> Refused {
    use AlertDescription as A;
    let bad = |what: &str, remedy: &str| Refused::new(format!("it refuses our certificate, {what}"), remedy);
    match alert {
        A::CertificateRequired | A::HandshakeFailure if !has_certificate => Refused::new(
            "it demands a client certificate",
            "give certificate and key, or have godwit-nva take tokens",
        ),
        A::CertificateExpired => bad(
            "which has expired, or is not valid yet by the NVA's clock",
            "renew it (godwitctl pki renew), check both clocks",
        ),
        A::CertificateRevoked => {
            bad("which is revoked", "issue another one if this one was revoked by mistake")
        }
        A::UnknownCA | A::DecryptError => bad(
            "which is not from an authority that the NVA trusts",
            "issue it by the authority of godwit-nva's --authority",
        ),
        A::UnsupportedCertificate => bad(
            "which is not made for clients",
            "issue one whose extended key usage has client authentication",
        ),
        A::CertificateUnknown | A::BadCertificate | A::AccessDenied => bad(
            "which names no NVE and no operator",
            "issue one by godwitctl pki nve or operator; the NVA's log says what is wrong",
        ),
        A::ProtocolVersion => Refused::new("it does not speak TLS 1.3", "check that godwit-nva runs there"),
        other => Refused::new(format!("it ended the handshake: {other:?}"), "the NVA's log says why"),
    }
}

/// What is wrong with the NVA's certificate.
fn bad_server(e: &CertificateError, host: &str) -> Refused {
    use CertificateError as E;
    let bad = |what: String, remedy: &str| Refused::new(format!("its certificate {what}"), remedy);
    match e {
        E::Expired | E::ExpiredContext { .. } => {
            bad("has expired".into(), "renew it (godwitctl pki renew nva) and check this host's clock")
        }
        E::NotValidYet | E::NotValidYetContext { .. } => {
            bad("is not valid yet".into(), "check this host's clock")
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => bad(
            format!("does not name {host}"),
            "use a name or an address that it has, or issue one that has this (godwitctl pki nva --address)",
        ),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => bad(
            "is not made for servers".into(),
            "check that godwit-nva listens there, with a certificate of godwitctl pki init or nva",
        ),
        E::UnknownIssuer | E::UnsupportedSignatureAlgorithmContext { .. } => foreign(),
        E::BadSignature => foreign(),
        other => bad(format!("is refused: {other}"), "issue another one"),
    }
}

fn foreign() -> Refused {
    Refused::new(
        "its certificate is not from our authority",
        "use the authority that issued it, and check that this is the NVA's address",
    )
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

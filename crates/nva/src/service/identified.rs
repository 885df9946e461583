//! Requests with the identity of who sends them: that of the connection's certificate, or of the request's token (R68).

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use godwit_api::tonic::Status;
use godwit_api::tonic::body::Body;
use godwit_api::tonic::codegen::Service;
use godwit_api::tonic::codegen::http::{self, header};
use godwit_api::tonic::server::NamedService;
use godwit_model::Identity;

use super::accept::PeerInfo;
use super::connection::Peer;
use super::tokens::Tokens;

/// Who may call a service.
#[derive(Clone)]
pub(super) enum Door {
    /// Switches, by their certificates.
    Nves,
    /// Operators, by their certificates or these tokens.
    Operators(Option<Arc<Tokens>>),
}

/// A service that is called by those only who may; it finds an [`Identity`] and what the stream below says of its other
/// side among a request's extensions.
#[derive(Clone)]
pub(super) struct Identified<S> {
    pub door: Door,
    pub inner: S,
}

impl Door {
    fn identity(&self, peer: &Peer, request: &http::Request<Body>) -> Result<Identity, Status> {
        match (self, &peer.identity) {
            (_, Some(Identity::Unproven)) => Ok(Identity::Unproven),
            (Door::Nves, Some(nve @ Identity::Nve { .. })) => Ok(nve.clone()),
            (Door::Operators(_), Some(operator @ Identity::Operator { .. })) => Ok(operator.clone()),
            (Door::Nves, Some(other)) => {
                let text = format!("{other} is no switch: give the switch a certificate of its own");
                Err(Status::permission_denied(text))
            }
            (Door::Operators(_), Some(other)) => {
                let text = format!("{other} is no operator: use an operator's certificate or token");
                Err(Status::permission_denied(text))
            }
            (Door::Nves, None) => {
                Err(Status::unauthenticated("a switch has to show a certificate: set nva_certificate"))
            }
            (Door::Operators(tokens), None) => by_token(tokens.as_deref(), request),
        }
    }

    /// Puts into a request what is known of its sender.
    fn let_in(&self, request: &mut http::Request<Body>) -> Result<(), Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection has no peer; please report this"))?;
        let identity = self.identity(&peer, request)?;
        // Whoever may call an operator's method is no stranger; a switch has to say Hello.
        if matches!(self, Door::Operators(_))
            && let Some(info) = peer.below.get::<PeerInfo>()
        {
            info.is_known();
        }
        request.extensions_mut().extend(peer.below);
        request.extensions_mut().insert(identity);
        Ok(())
    }
}

fn by_token(tokens: Option<&Tokens>, request: &http::Request<Body>) -> Result<Identity, Status> {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(token) = shown.and_then(|text| text.strip_prefix("Bearer ")) else {
        let text = "no certificate and no token was shown: give --certificate and --key, or --token";
        return Err(Status::unauthenticated(text));
    };
    let found = tokens.and_then(|tokens| tokens.operator(token));
    found.ok_or_else(|| Status::unauthenticated("the token is not known to this NVA, or was withdrawn"))
}

/// The inner service's answer, or a refusal that is there at once.
pub(super) enum Answering<F> {
    Inner(Pin<Box<F>>),
    Refused(Ready<http::Response<Body>>),
}

impl<F, E> Future for Answering<F>
where
    F: Future<Output = Result<http::Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match &mut *self {
            Answering::Inner(inner) => inner.as_mut().poll(cx),
            Answering::Refused(refusal) => Pin::new(refusal).poll(cx).map(Ok),
        }
    }
}

impl<S> Service<http::Request<Body>> for Identified<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.door.let_in(&mut request) {
            Ok(()) => Answering::Inner(Box::pin(self.inner.call(request))),
            Err(status) => {
                tracing::debug!("a request is refused: {}", status.message());
                Answering::Refused(ready(status.into_http()))
            }
        }
    }
}

impl<S: NamedService> NamedService for Identified<S> {
    const NAME: &'static str = S::NAME;
}

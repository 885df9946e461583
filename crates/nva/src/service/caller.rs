//! Who calls: the identity that a connection proved, at hand wherever the call is answered (R68).

use std::task::{Context, Poll};

use godwit_api::tonic::Status;
use godwit_api::tonic::body::Body;
use godwit_api::tonic::codegen::{Service, http};
use godwit_api::tonic::server::NamedService;
use godwit_api::tonic::transport::server::TcpConnectInfo;
use godwit_model::Identity;
use tokio::task::futures::TaskLocalFuture;

use crate::directory::Operator;

/// A call of an operator.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub operator: Operator,
    /// The call's name in the protocol, as `ListVns`.
    pub call: String,
}

tokio::task_local! {
    static CALLER: Caller;
}

/// Whose call is being answered.
///
/// # Errors
/// Outside of a call: nothing is permitted to nobody.
pub(super) fn current() -> Result<Caller, Status> {
    let none = |_| Status::internal("nobody calls; please report this with the log");
    CALLER.try_with(Caller::clone).map_err(none)
}

/// Answers calls with the caller at hand.
#[derive(Clone, Debug)]
pub(super) struct WithCaller<S>(pub S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for WithCaller<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = TaskLocalFuture<Caller, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let address = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let identity = request.extensions().get::<Identity>().cloned().unwrap_or(Identity::Unproven);
        CALLER.scope(Caller { operator: Operator { identity, address }, call }, self.0.call(request))
    }
}

impl<S: NamedService> NamedService for WithCaller<S> {
    const NAME: &'static str = S::NAME;
}

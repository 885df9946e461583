//! The lab as a client of the NVA and of the switches.
//!
//! One thread lives in the NVA's namespace and makes all connections there: the management network
//! never touches the machine's own. The rest of the lab calls it and waits.

use std::future::Future;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use godwit_api::connect_lazily;
use godwit_api::tls::Credentials;
use godwit_api::tonic::transport::{Channel, Endpoint};
use godwit_api::tonic::{Code, Response, Status};
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use godwit_api::v1::nve_admin_client::NveAdminClient;
use godwit_api::v1::operator_client::OperatorClient;
use godwit_api::{pages, v1};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::netns;

/// No request takes longer, not even the removal of a port on a machine that is busy compiling, or of a process that
/// stands still for a minute.
const CALL_PATIENCE: Duration = Duration::from_secs(90);

/// The thread that calls are made from; it ends with the last clone of this value.
#[derive(Clone)]
pub struct Rpc {
    handle: Handle,
    _alive: Arc<oneshot::Sender<()>>,
}

impl Rpc {
    /// Starts the thread in a namespace.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn start(namespace: &str) -> Result<Rpc> {
        let namespace = namespace.to_owned();
        let (alive, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        thread::Builder::new().name("rpc".into()).spawn(move || {
            let runtime = netns::enter(&namespace)
                .and_then(|()| Ok(Builder::new_current_thread().enable_all().build()?));
            match runtime {
                Err(e) => drop(tell.send(Err(e))),
                Ok(runtime) => {
                    drop(tell.send(Ok(runtime.handle().clone())));
                    // Ends with an error when the sender is dropped, which is the sign to end.
                    let _ = runtime.block_on(ended);
                }
            }
        })?;
        let handle = told.recv().context("the client thread ended")??;
        Ok(Rpc { handle, _alive: Arc::new(alive) })
    }

    /// Runs a call in the thread and waits for its end.
    fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let (tell, told) = mpsc::channel();
        self.handle.spawn(async move {
            let result = tokio::time::timeout(CALL_PATIENCE, call).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!("no answer in {CALL_PATIENCE:?}")))
            });
            // Nobody waits any more where the lab is ending.
            let _ = tell.send(result);
        });
        told.recv()
            .unwrap_or_else(|_| Err(Status::cancelled("the client thread ended")))
            .map(Response::into_inner)
    }

    /// A client of the NVA at `url`, which it shows these credentials.
    ///
    /// # Errors
    /// Where the address makes no sense.
    pub fn operator(&self, url: &str, credentials: Option<&Arc<Credentials>>) -> Result<Operator> {
        // A lazy connection is made inside the thread, and made again when the other end restarts.
        let _guard = self.handle.enter();
        let channel = connect_lazily(url, credentials)?;
        Ok(Operator { rpc: self.clone(), client: OperatorClient::new(channel) })
    }

    /// A client of the switch whose admin socket is at `path`.
    ///
    /// # Errors
    /// Where the address makes no sense.
    pub fn admin(&self, path: &std::path::Path) -> Result<Admin> {
        let url = format!("unix://{}", path.display());
        let endpoint = Endpoint::from_shared(url.clone()).with_context(|| format!("address {url}"))?;
        let _guard = self.handle.enter();
        let channel = endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy();
        Ok(Admin { rpc: self.clone(), client: NveAdminClient::new(channel) })
    }
}

/// A call that failed, with the server's own words.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {text} ({code:?})")]
pub struct Refused {
    what: String,
    /// The kind of refusal.
    pub code: Code,
    text: String,
}

fn refused(what: &str, status: &Status) -> anyhow::Error {
    Refused { what: what.into(), code: status.code(), text: status.message().into() }.into()
}

/// Whether the other end could not be reached, or went away, rather than refused.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    use Code::{Aborted, Cancelled, DeadlineExceeded, Internal, Unavailable, Unknown};
    // A server killed in the middle of an answer shows as any of these, depending on how far it got.
    let codes = [Aborted, Cancelled, DeadlineExceeded, Internal, Unavailable, Unknown];
    error.downcast_ref::<Refused>().is_some_and(|r| codes.contains(&r.code))
}

/// The NVA as an operator sees it.
#[derive(Clone)]
pub struct Operator {
    rpc: Rpc,
    client: OperatorClient<Channel>,
}

/// Defines a method that makes one call of the Operator service.
macro_rules! operator_calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $reply:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Where the NVA refuses or cannot be reached.
        pub fn $name(&self, request: $request) -> Result<$reply> {
            let mut client = self.client.clone();
            let call = async move { client.$name(request).await };
            self.rpc.run(call).map_err(|s| refused(concat!("NVA, ", stringify!($name)), &s))
        }
    )*};
}

impl Operator {
    operator_calls! {
        /// Creates a VN.
        create_vn(v1::Vn) -> v1::Vn;
        /// Defines a VM.
        define_vm(v1::DefineVmRequest) -> v1::VmRecord;
        /// Changes what is named of a VM.
        set_vm(v1::SetVmRequest) -> v1::VmRecord;
        /// Defines an NVE without a session.
        define_nve(v1::NveDefinition) -> v1::NveInfo;
        /// Lists VMs.
        list_vms(v1::ListVmsRequest) -> v1::VmList;
        /// Shows a VM.
        show_vm(v1::VmName) -> v1::VmRecord;
        /// Lists NVEs.
        list_nves(v1::ListNvesRequest) -> v1::NveList;
        /// Shows the drain of an NVE.
        show_drain(v1::NveName) -> v1::Drain;
        /// Orders a move.
        start_move(v1::StartMoveRequest) -> v1::MoveRecord;
        /// Calls a move off.
        abort_move(v1::MoveName) -> v1::MoveRecord;
        /// Shows a move.
        show_move(v1::MoveName) -> v1::MoveRecord;
        /// Lists moves.
        list_moves(v1::ListMovesRequest) -> v1::MoveList;
        /// Says how far a warm or cold move is.
        report_move(v1::ReportMoveRequest) -> v1::MoveRecord;
        /// Records where a VM is mirrored to.
        set_mirror(v1::SetMirrorRequest) -> v1::VmRecord;
        /// Says that a VM was mirrored.
        vm_mirrored(v1::VmMirroredRequest) -> v1::VmRecord;
        /// The NVA's counters.
        get_counters(v1::GetCounters) -> v1::CounterList;
        /// Says how the NVA is.
        get_status(v1::NvaStatusRequest) -> v1::NvaStatus;
    }
}

/// A switch by its admin socket.
#[derive(Clone)]
pub struct Admin {
    rpc: Rpc,
    client: NveAdminClient<Channel>,
}

impl Admin {
    /// Asks the switch; its refusals are errors.
    ///
    /// # Errors
    /// Where it refuses or cannot be reached.
    pub fn ask(&self, kind: Ask) -> Result<Answer> {
        let (mut all, mut from) = self.page(kind.clone(), 0)?;
        while from != 0 {
            let (page, next) = self.page(kind.clone(), from)?;
            if !pages::join(&mut all, page) {
                bail!("{kind:?}: a page of another kind");
            }
            from = next;
        }
        Ok(all)
    }

    /// One page of an answer, and where the next one begins.
    fn page(&self, kind: Ask, from: u64) -> Result<(Answer, u64)> {
        let mut client = self.client.clone();
        let what = format!("{kind:?}");
        let request = v1::AdminRequest { kind: Some(kind), from };
        let reply =
            self.rpc.run(async move { client.call(request).await }).map_err(|s| refused(&what, &s))?;
        match reply.kind {
            Some(Answer::Error(e)) => bail!("{what}: {}", e.text),
            Some(answer) => Ok((answer, reply.next)),
            None => bail!("{what}: an empty answer"),
        }
    }

    /// The switch's state.
    ///
    /// # Errors
    /// See [`Admin::ask`].
    pub fn status(&self) -> Result<v1::Status> {
        match self.ask(Ask::GetStatus(v1::GetStatus {}))? {
            Answer::Status(status) => Ok(status),
            other => bail!("unexpected answer: {other:?}"),
        }
    }

    /// The switch's ports.
    ///
    /// # Errors
    /// See [`Admin::ask`].
    pub fn ports(&self) -> Result<Vec<v1::PortInfo>> {
        match self.ask(Ask::ListPorts(v1::ListPorts {}))? {
            Answer::Ports(list) => Ok(list.ports),
            other => bail!("unexpected answer: {other:?}"),
        }
    }

    /// What the switch knows of the VMs of a VN.
    ///
    /// # Errors
    /// See [`Admin::ask`].
    pub fn entries(&self, vni: u32) -> Result<Vec<v1::Entry>> {
        match self.ask(Ask::ListEntries(v1::ListEntries { vni }))? {
            Answer::Entries(list) => Ok(list.entries),
            other => bail!("unexpected answer: {other:?}"),
        }
    }

    /// How the switch's workers spent their time since the record's start or last reset; with `reset`, it
    /// begins anew after that.
    ///
    /// # Errors
    /// See [`Admin::ask`].
    pub fn perf(&self, reset: bool) -> Result<Vec<v1::WorkerPerf>> {
        match self.ask(Ask::GetPerf(v1::GetPerf { reset }))? {
            Answer::Perf(report) => Ok(report.workers),
            other => bail!("unexpected answer: {other:?}"),
        }
    }

    /// The switch's counters that are not zero.
    ///
    /// # Errors
    /// See [`Admin::ask`].
    pub fn counters(&self) -> Result<Vec<v1::Counter>> {
        match self.ask(Ask::GetCounters(v1::GetCounters { all: false }))? {
            Answer::Counters(list) => Ok(list.counters),
            other => bail!("unexpected answer: {other:?}"),
        }
    }
}

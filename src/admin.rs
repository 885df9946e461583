//! The local admin socket: gRPC on a Unix socket, one call an order.
//!
//! The NVA relays the same orders over its session, so both ways end in [`orders::answer`].

mod counters;
mod lets;
pub mod orders;
mod perf;
mod placement;
mod underlay;
mod views;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use godwit_api::tonic::{self, Request, Response, Status};
use godwit_api::v1::nve_admin_server::{NveAdmin, NveAdminServer};
use godwit_api::v1::{AdminRequest, AdminResponse};
use tokio::sync::{mpsc, oneshot};

/// An order with the place for its answer.
pub struct Order {
    /// What is wanted.
    pub request: AdminRequest,
    /// Where the answer goes.
    pub answer: oneshot::Sender<AdminResponse>,
}

struct Service {
    orders: mpsc::Sender<Order>,
}

#[tonic::async_trait]
impl NveAdmin for Service {
    async fn call(&self, request: Request<AdminRequest>) -> Result<Response<AdminResponse>, Status> {
        let gone = |_| Status::unavailable("the switch is stopping");
        let (answer, response) = oneshot::channel();
        self.orders.send(Order { request: request.into_inner(), answer }).await.map_err(|_| gone(()))?;
        response.await.map(Response::new).map_err(|_| gone(()))
    }
}

/// The admin socket; its file goes with the value.
pub struct Socket {
    path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Listens at `path`, which only its owner may use, and hands orders to `orders`.
///
/// # Errors
/// Where another switch listens there, something else is there, or the folder cannot be written.
pub fn serve(path: &Path, orders: mpsc::Sender<Order>) -> anyhow::Result<Socket> {
    let shown = path.display();
    clear_the_way(path)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder of socket {shown}"))?;
    }
    let listener = tokio::net::UnixListener::bind(path).with_context(|| {
        format!("cannot listen at {shown}; set nve.admin_socket to a path that can be written")
    })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot restrict {shown} to its owner"))?;
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    tokio::task::spawn_local(async move {
        let server = tonic::transport::Server::builder().add_service(NveAdminServer::new(Service { orders }));
        if let Err(e) = server.serve_with_incoming(incoming).await {
            tracing::error!("the admin socket stopped: {e}");
        }
    });
    Ok(Socket { path: path.to_owned() })
}

/// Removes a socket that a switch left behind when it was killed.
fn clear_the_way(path: &Path) -> anyhow::Result<()> {
    let Ok(there) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !there.file_type().is_socket() {
        bail!("{shown} is there and is no socket; set nve.admin_socket to another path");
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        bail!("another switch listens at {shown}; stop it or set nve.admin_socket to another path");
    }
    std::fs::remove_file(path).with_context(|| format!("cannot remove the stale socket {shown}"))
}

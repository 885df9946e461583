//! TLS on connections to the NVA (R68): who is let in, who is not and why, and what an observer sees.

mod attempts;
mod capture;
mod fresh;
mod tokens;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use godwit_api::tls::{Credentials, TlsFiles};
use godwit_api::tonic::Status;
use godwit_api::tonic::transport::Channel;
use godwit_api::v1::operator_client::OperatorClient;
use godwit_api::{ConnectError, OperatorAuth, OperatorChannel, connect_as, v1};
use godwit_model::{NveId, Role};
use godwit_nva::service::{Security, Service};
use godwit_nva::store::MemoryStore;
use godwit_nva::{Config, Directory};
use godwit_pki::{Pki, Subject, SubjectName};
use tokio::sync::oneshot;

use crate::client::{Nve, PATIENCE};

/// An authority and an NVA whose certificate is from it.
struct Secure {
    dir: tempfile::TempDir,
    addr: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Secure {
    async fn start() -> Secure {
        Secure::start_prepared(None, Config::default()).await
    }

    /// With a file of tokens that has this text.
    async fn start_prepared(tokens: Option<&[u8]>, config: Config) -> Secure {
        let dir = tempfile::tempdir().unwrap();
        let mut pki = Pki::init(&dir.path().join("pki")).unwrap();
        let nva = pki.issue(Subject::Nva { addresses: vec!["127.0.0.1".into()] }, 10).unwrap();
        for nve in ["a", "peer"] {
            pki.issue(nve_subject(nve), 10).unwrap();
        }
        pki.issue(Subject::operator("ann", Role::Admin).unwrap(), 10).unwrap();
        let tokens = tokens.map(|text| {
            let file = dir.path().join("tokens");
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            file
        });
        let security = Security { files: files(&nva), revoked: Some(pki.revoked_file()), tokens };
        let store = Box::new(MemoryStore::default());
        let listen = ["127.0.0.1:0".parse().unwrap()];
        let service = Service::start_secured(&listen, Some(security), Directory::new(config), store);
        let service = service.await.unwrap();
        let addr = service.addrs()[0];
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(service.run_until(async move { drop(stopped.await) }));
        Secure { dir, addr, _stop: stop }
    }

    fn pki(&self) -> Pki {
        Pki::open(&self.dir.path().join("pki")).unwrap()
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join("pki").join(name)
    }

    fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    async fn connect(&self, folder: &Path) -> Result<Channel, ConnectError> {
        connect_as(&self.url(), Some(&Credentials::load(files(folder)).unwrap())).await
    }

    async fn operator(&self, name: &str) -> Result<OperatorClient<OperatorChannel>, ConnectError> {
        let channel = self.connect(&self.folder(name)).await?;
        Ok(OperatorClient::new(OperatorAuth::default().on(channel)))
    }

    async fn nve(&self, name: &str) -> Result<Nve, Status> {
        let channel = self.connect(&self.folder(&format!("nve/{name}"))).await;
        let channel = channel.map_err(|e| Status::unavailable(e.to_string()))?;
        Nve::open_on(channel).await?.greet(name).await
    }

    /// An NVA that knows VN red, which sessions subscribe to.
    async fn with_vn(self) -> Secure {
        let mut op = self.operator("operator/ann").await.unwrap();
        op.create_vn(v1::Vn { name: "red".into(), vni: 100, ..Default::default() }).await.unwrap();
        self
    }
}

fn nve_subject(name: &str) -> Subject {
    Subject::nve(&NveId::new(name).unwrap(), vec![])
}

fn subject(text: &str) -> SubjectName {
    text.parse().unwrap()
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        authority: folder.join("authority.pem"),
    }
}

/// Tries until it comes out as wanted: files are looked at once a second.
async fn until<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let tries = async {
        loop {
            if let Some(found) = attempt().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("the NVA reads its files again")
}

/// A client that trusts the authority of this folder and has nothing to show.
fn anonymous(folder: &Path) -> Arc<Credentials> {
    Credentials::anonymous(folder.join("authority.pem")).unwrap()
}

//! A scripted NVE, an operator, and a service in this process.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use godwit_api::tonic::transport::Channel;
use godwit_api::tonic::{Status, Streaming};
use godwit_api::v1::nva_session_client::NvaSessionClient;
use godwit_api::v1::operator_client::OperatorClient;
use godwit_api::{SessionDown, SessionUp, connect, v1};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{ClaimCause, DirectoryMode, Locators, NveId, Version, VmKey, VmRecord};
use godwit_nva::service::Service;
use godwit_nva::store::MemoryStore;
use godwit_nva::{Config, Directory};
use godwit_wire::{Mac, Vni};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// Patience with anything that should come at once; machines that run tests are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub type Operator = OperatorClient<Channel>;

/// A service that ends with the test.
pub struct Running {
    pub url: String,
    _stop: oneshot::Sender<()>,
}

pub async fn serve(config: Config) -> Running {
    let listen = ["127.0.0.1:0".parse().unwrap()];
    let store = Box::new(MemoryStore::default());
    let service = Service::start(&listen, Directory::new(config), store).await.unwrap();
    let url = format!("http://{}", service.addrs()[0]);
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(service.run_until(async move { drop(stopped.await) }));
    Running { url, _stop: stop }
}

pub async fn operator(url: &str) -> Operator {
    OperatorClient::new(connect(url).await.unwrap())
}

pub fn key(n: u16) -> VmKey {
    let [hi, lo] = n.to_be_bytes();
    VmKey { vni: Vni::from_low24(100), mac: Mac([2, 0, 0, 0, hi, lo]) }
}

pub fn ip(n: u16) -> Ipv4Addr {
    let [hi, lo] = n.to_be_bytes();
    Ipv4Addr::new(10, 7, hi, lo)
}

pub fn definition(n: u16) -> v1::DefineVmRequest {
    v1::DefineVmRequest {
        name: format!("vm{n}"),
        vn: "red".into(),
        mac: key(n).mac.to_u64(),
        ipv4: vec![ip(n).octets().to_vec()],
        ..Default::default()
    }
}

/// VN red with VMs from 1 to `vms`.
pub async fn define(op: &mut Operator, vms: u16) {
    op.create_vn(v1::Vn { name: "red".into(), vni: 100, ..Default::default() }).await.unwrap();
    for n in 1..=vms {
        op.define_vm(definition(n)).await.unwrap();
    }
}

/// One NVE's session.
pub struct Nve {
    pub name: String,
    tx: mpsc::Sender<v1::NveMessage>,
    rx: Streaming<v1::NvaMessage>,
    pub epoch: u32,
}

impl Nve {
    /// A stream on which nothing has been said.
    pub async fn open(url: &str) -> Result<Nve, Status> {
        let channel = connect(url).await.map_err(|e| Status::unavailable(e.to_string()))?;
        Nve::open_on(channel).await
    }

    /// The same on a connection that is there.
    pub async fn open_on(channel: Channel) -> Result<Nve, Status> {
        let (tx, rx) = mpsc::channel(64);
        let rx = NvaSessionClient::new(channel).session(ReceiverStream::new(rx)).await?.into_inner();
        Ok(Nve { name: String::new(), tx, rx, epoch: 0 })
    }

    /// A session that has said Hello and subscribed to VN red.
    pub async fn join(url: &str, name: &str) -> Result<Nve, Status> {
        Nve::open(url).await?.greet(name).await
    }

    /// As [`Nve::join`], with the `n`th of many locators.
    pub async fn join_at(url: &str, name: &str, n: usize) -> Result<Nve, Status> {
        Nve::open(url).await?.greet_at(name, n).await
    }

    /// Says Hello on a stream on which nothing has been said, and subscribes to VN red.
    pub async fn greet(self, name: &str) -> Result<Nve, Status> {
        self.greet_at(name, name.as_bytes()[0].into()).await
    }

    async fn greet_at(self, name: &str, n: usize) -> Result<Nve, Status> {
        let mut nve = self;
        nve.name = name.into();
        let [_, _, _, _, _, _, hi, lo] = (n as u64).to_be_bytes();
        nve.say(NveToNva::Hello {
            nve: NveId::new(name).unwrap(),
            locators: Locators { v4: Some(Ipv4Addr::new(10, 0, hi, lo)), v6: None },
            software: "scripted".into(),
            last_epoch: 0,
            instance: 1,
            abilities: godwit_model::Abilities::unsaid(),
        })
        .await;
        nve.epoch = nve
            .until(|m| match m {
                NvaToNve::Welcome { epoch, .. } => Some(*epoch),
                _ => None,
            })
            .await?;
        nve.say(NveToNva::Subscribe { vni: Vni::from_low24(100), mode: DirectoryMode::Push, lingers: false })
            .await;
        nve.until(|m| matches!(m, NvaToNve::End { .. }).then_some(())).await?;
        Ok(nve)
    }

    pub async fn say(&self, m: NveToNva) {
        self.say_raw(m.into()).await;
    }

    /// A peer that is gone shows when something is to be received.
    pub async fn say_raw(&self, m: v1::NveMessage) {
        let _ = self.tx.send(m).await;
    }

    pub async fn receive(&mut self) -> Result<SessionDown, Status> {
        let message = tokio::time::timeout(PATIENCE, self.rx.message()).await;
        let message = message.map_err(|_| Status::deadline_exceeded("the test's patience"))??;
        let message = message.ok_or_else(|| Status::aborted("the stream ended"))?;
        Ok(SessionDown::try_from(message).expect("the NVA speaks the protocol"))
    }

    /// Reads, and acknowledges updates, until one message is the wanted one.
    pub async fn until<T>(&mut self, wanted: impl Fn(&NvaToNve) -> Option<T>) -> Result<T, Status> {
        loop {
            let SessionDown::Message(m) = self.receive().await? else { continue };
            if let NvaToNve::Update { ack_id, .. } = m {
                self.say(NveToNva::Ack { ack_ids: vec![ack_id] }).await;
            }
            if let Some(found) = wanted(&m) {
                return Ok(found);
            }
        }
    }

    pub async fn claim(&mut self, n: u16, base: Version) -> Result<VmRecord, Status> {
        let ips = vec![IpAddr::V4(ip(n))];
        let (cause, port) = (ClaimCause::FirstFrame, "p1".to_owned());
        self.say(NveToNva::Claim {
            seq: n.into(),
            key: key(n),
            ips,
            cause,
            base,
            port,
            router: None,
            overrides: Default::default(),
        })
        .await;
        let answer = self.until(|m| match m {
            NvaToNve::Grant { record, .. } if record.key == key(n) => Some(Ok(record.clone())),
            NvaToNve::Deny { text, key: k, .. } if *k == key(n) => Some(Err(text.clone())),
            _ => None,
        });
        answer.await?.map_err(Status::permission_denied)
    }

    pub async fn reply(&self, id: u64, response: v1::AdminResponse) {
        self.say_raw(SessionUp::AdminReply { id, response }.into()).await;
    }
}

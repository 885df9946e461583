//! The kernel's interfaces in the switch's network namespace, by netlink: which there are, and anew whenever the
//! kernel says that one came or went.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use godwit_wire::Mac;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec, MulticastGroup, new_connection, new_multicast_connection};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

/// Numbers of interfaces, by name.
pub type Interfaces = BTreeMap<String, u32>;

/// Changes come in swarms, above all where hundreds of ports come and go.
const GATHER: Duration = Duration::from_millis(50);
/// Also without a word from the kernel, which forgets words when there are too many.
const ANYWAY: Duration = Duration::from_secs(10);
/// After an error.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads the kernel's interfaces for as long as somebody takes them; each time something changed, all of them.
pub struct LinkWatch(mpsc::Receiver<Interfaces>);

impl LinkWatch {
    /// Starts to watch. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses a socket.
    pub fn start() -> anyhow::Result<LinkWatch> {
        let (connection, handle, mut news) = new_multicast_connection(&[MulticastGroup::Link])
            .context("cannot ask the kernel for its interfaces")?;
        tokio::spawn(connection);
        let (to, from) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            loop {
                match read(&handle).await {
                    Ok(interfaces) => {
                        if last.as_ref() != Some(&interfaces) {
                            if to.send(interfaces.clone()).await.is_err() {
                                return;
                            }
                            last = Some(interfaces);
                        }
                        let _ = tokio::time::timeout(ANYWAY, news.recv()).await;
                        tokio::time::sleep(GATHER).await;
                        while news.try_recv().is_ok() {}
                    }
                    Err(e) => {
                        tracing::warn!("cannot read the kernel's interfaces, trying again: {e}");
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        });
        Ok(LinkWatch(from))
    }

    /// The interfaces, when they have changed.
    pub async fn recv(&mut self) -> Interfaces {
        match self.0.recv().await {
            Some(interfaces) => interfaces,
            None => std::future::pending().await,
        }
    }
}

async fn read(handle: &Handle) -> Result<Interfaces, rtnetlink::Error> {
    let mut interfaces = Interfaces::new();
    let mut links = std::pin::pin!(handle.link().get().execute());
    while let Some(link) = links.next().await {
        let link = link?;
        let name = link.attributes.into_iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        interfaces.extend(name.map(|name| (name, link.header.index)));
    }
    Ok(interfaces)
}

/// Gives an interface an address.
///
/// # Errors
/// What the kernel said.
pub async fn set_address(interface: &str, mac: Mac) -> anyhow::Result<()> {
    let (connection, handle, _) = new_connection().context("cannot reach the kernel by netlink")?;
    let task = tokio::spawn(connection);
    let message = LinkUnspec::new_with_name(interface).address(mac.0.to_vec()).build();
    let set = handle.link().set(message).execute().await;
    task.abort();
    set.with_context(|| {
        format!("cannot give {interface} its address again; try ip link set dev {interface} address {mac}")
    })
}

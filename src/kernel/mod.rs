//! The kernel's interfaces; and its routes, as far as they lead out by uplinks (R95): read from its main table by
//! netlink, and anew whenever the kernel says that something changed.

mod link;
mod links;
mod table;
mod tap;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use godwit_tables::update::PortIdx;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

pub use link::{carrier, kernel_link};
pub use links::{Interfaces, LinkWatch, set_address};
pub use table::{Ignored, Table};
use table::{Interface, choose};
pub use tap::{is_tap_file, tap_file};

/// Changes come in swarms; what is read so long after the first has most of them.
const GATHER: Duration = Duration::from_millis(10);
/// Also without a word from the kernel, which forgets words when there are too many.
const ANYWAY: Duration = Duration::from_secs(10);
/// After an error.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads the kernel's routes for as long as somebody takes them; each time something changed, all of them.
pub struct Watch(mpsc::Receiver<Table>);

impl Watch {
    /// Starts to watch, with the names of the uplinks' interfaces. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses a socket.
    pub fn start(interfaces: BTreeMap<String, PortIdx>) -> anyhow::Result<Watch> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, handle, mut news) = new_multicast_connection(&groups)
            .context("cannot ask the kernel for its routes; set underlay.routes = \"fixed\" to do without")?;
        tokio::spawn(connection);
        let (to, from) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            loop {
                match read(&handle, &interfaces).await {
                    Ok(table) => {
                        if last.as_ref() != Some(&table) {
                            if to.send(table.clone()).await.is_err() {
                                return;
                            }
                            last = Some(table);
                        }
                        // Errors and silence alike: the table is read anew.
                        let _ = tokio::time::timeout(ANYWAY, news.recv()).await;
                        tokio::time::sleep(GATHER).await;
                        while news.try_recv().is_ok() {}
                    }
                    Err(e) => {
                        tracing::warn!(
                            "cannot read the kernel's routes, those that are known stay in use: {e}"
                        );
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            }
        });
        Ok(Watch(from))
    }

    /// The next state of the kernel's routes.
    pub async fn recv(&mut self) -> Table {
        match self.0.recv().await {
            Some(table) => table,
            None => std::future::pending().await,
        }
    }
}

async fn read(handle: &Handle, uplinks: &BTreeMap<String, PortIdx>) -> Result<Table, rtnetlink::Error> {
    let mut interfaces = BTreeMap::new();
    let mut links = std::pin::pin!(handle.link().get().execute());
    while let Some(link) = links.next().await {
        let link = link?;
        let name = link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        if let Some(name) = name {
            let uplink = uplinks.get(&name).copied();
            interfaces.insert(link.header.index, Interface { name, uplink });
        }
    }
    let mut messages = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = family;
        let mut routes = std::pin::pin!(handle.route().get(wanted).execute());
        while let Some(route) = routes.next().await {
            messages.push(route?);
        }
    }
    Ok(choose(&messages, &interfaces))
}

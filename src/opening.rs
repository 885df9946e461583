//! Devices as they are opened: probed, configured and started.

use std::sync::Arc;

use anyhow::Context;
use godwit_dpdk::{Mempool, Port, PortConfig as DeviceConfig, RxQueue, TxQueue};
use godwit_wire::Mac;

use crate::config::{BondConfig, Offloads};
use crate::offloads::{self, ChecksumOffload};
use crate::watched::Watched;

/// What is wanted of a device.
#[derive(Clone)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// PCI address or vdev arguments.
    pub devargs: String,
    /// Receive queues.
    pub rx_queues: u16,
    /// Largest IP packet; 0: the device's own.
    pub mtu: u16,
    /// A VM is behind it.
    pub is_access: bool,
    /// Its memory may be missing for a while: post-copy migration.
    pub postcopy: bool,
    /// Outer UDP checksums are wanted of it, by the card on this condition.
    pub checksums: Option<Offloads>,
    /// Several devices as one, in place of `devargs`.
    pub bond: Option<BondConfig>,
    /// Its frames have an 802.1Q tag, which `mtu` does not count.
    pub tagged: bool,
}

/// A started device with its queues.
pub struct Opened {
    /// The device.
    pub port: Port,
    /// Its receive queues.
    pub rx: Vec<RxQueue>,
    /// Its transmit queues.
    pub tx: Vec<TxQueue>,
    /// What the guest behind it takes unfinished can be asked for.
    pub guest_offloads: bool,
    /// Who computes outer UDP checksums, where they are wanted of it.
    pub checksums: Option<ChecksumOffload>,
    /// What it rests on.
    pub watched: Watched,
}

impl Opened {
    /// The device's own address.
    pub fn mac(&self) -> Mac {
        Mac(self.port.mac())
    }
}

/// Probes, configures and starts a device. Takes milliseconds; call it off the control thread.
///
/// # Errors
/// What DPDK said, with the device's name and a remedy.
pub fn open(wanted: &Wanted, workers: usize, pool: Arc<Mempool>) -> anyhow::Result<Opened> {
    start(wanted, workers, pool).with_context(|| format!("port {:?}", wanted.name))
}

fn start(wanted: &Wanted, workers: usize, pool: Arc<Mempool>) -> Result<Opened, godwit_dpdk::Error> {
    let mut port = plug(wanted)?;
    let (rx_queues, tx_queues) = queues_of(wanted, workers, &port)?;
    let checksums = match wanted.checksums {
        Some(offloads) => Some(offloads::decide(offloads, &mut port, &pool)?),
        None => None,
    };
    let config = DeviceConfig {
        tx_checksums: checksums.as_ref().is_some_and(ChecksumOffload::by_card),
        rx_queues,
        tx_queues,
        mtu: (wanted.mtu != 0).then_some(wanted.mtu),
        rss: wanted.rx_queues > 1 && rx_queues == wanted.rx_queues,
        guest_offloads: wanted.is_access,
        postcopy: wanted.postcopy,
        tagged: wanted.tagged,
        ..DeviceConfig::new(pool)
    };
    let report = port.configure(config)?;
    for note in &report.notes {
        tracing::info!(port = %wanted.name, "{note}");
    }
    if let Some(verdict) = &checksums {
        verdict.log(&wanted.name);
    }
    let (rx, tx) = port.start()?;
    let watched = match wanted.bond {
        // Its links are its own affair (R95).
        Some(_) => Watched::Nothing,
        None => Watched::of(port.driver_name(), &wanted.devargs),
    };
    Ok(Opened { port, rx, tx, guest_offloads: report.guest_offloads, checksums, watched })
}

/// Plugs the device in, or the devices of a bond.
fn plug(wanted: &Wanted) -> Result<Port, godwit_dpdk::Error> {
    match &wanted.bond {
        Some(bond) => {
            let members: Vec<&str> = bond.members.iter().map(String::as_str).collect();
            Port::bond(&wanted.name, bond.mode.into(), &members)
        }
        None => Port::probe(&wanted.devargs),
    }
}

/// Receive and transmit queues to ask for: as many as are wanted, and one a worker.
///
/// A guest on vhost-user decides by itself how many of its queues it uses, at any time: all of those it
/// sends by are polled. Its first is the only one that is sure to be in use; of the others each worker has one,
/// and sends by it while the guest says that it receives by it
/// ([`Either`](godwit_worker::command::TxPath::Either)). Packet sockets spread frames over all of theirs, told or
/// not.
fn queues_of(wanted: &Wanted, workers: usize, port: &Port) -> Result<(u16, u16), godwit_dpdk::Error> {
    if wanted.is_access && port.is_vhost() {
        let info = port.dev_info()?;
        // Memory that may be missing is touched by one worker only.
        let senders = if wanted.postcopy { 1 } else { workers as u16 };
        return Ok((info.max_rx_queues, info.max_tx_queues.clamp(1, senders)));
    }
    if port.has_driver("net_af_packet") {
        return Ok((port.dev_info()?.max_rx_queues, workers as u16));
    }
    Ok((wanted.rx_queues, workers as u16))
}

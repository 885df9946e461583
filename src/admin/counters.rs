//! What workers, control and devices counted, as an operator sees it.

use godwit_api::v1::{self, admin_response::Kind as Answer};
use godwit_counters::Entry;
use godwit_dpdk::{Port, Stats};

use super::views::snapshots;
use crate::bonds::Legs;
use crate::devices::Device;
use crate::switch::Shared;

/// In a port's place: the sum of all that were removed.
const REMOVED: &str = "(removed)";

godwit_counters::counters! {
    /// Counters that only the device can know: frames that never reached a worker.
    DeviceCounters;

    /// The device's receive queues were full: its workers are too slow.
    missed = "device_missed": Packets as Drop,
    /// The device received them damaged.
    rx_errors = "device_rx_errors": Packets as Drop,
    /// Times that no buffer was left to receive into; raise memory_mb.
    no_buffer = "device_no_buffer": One,
    /// Attempts to send that the device refused.
    tx_errors = "device_tx_errors": One,
}

impl From<Stats> for DeviceCounters {
    fn from(s: Stats) -> DeviceCounters {
        DeviceCounters {
            missed: s.rx_missed,
            rx_errors: s.rx_errors,
            no_buffer: s.rx_no_mbuf,
            tx_errors: s.tx_errors,
        }
    }
}

godwit_counters::counters! {
    /// Counters of one leg of a bond.
    LegCounters;

    /// Frames that came in by this leg of the bond, LACP's included.
    rx_packets = "leg_rx_packets": Packets,
    /// Frames that went out by it, LACP's included.
    tx_packets = "leg_tx_packets": Packets,
    /// Times that it stopped to carry frames.
    losses = "leg_losses": One,
}

/// The counters that were gathered so far.
#[derive(Default)]
struct Gathered(Vec<v1::Counter>);

impl Gathered {
    /// What a worker counted, at a port or for itself.
    fn worker(&mut self, worker: usize, port: &str, entries: impl Iterator<Item = Entry>) {
        let of_worker = |e| v1::Counter { worker: worker as u32, port: port.into(), ..v1::Counter::from(e) };
        self.0.extend(entries.map(of_worker));
    }

    /// What a port's device counted, or control for itself.
    fn others(&mut self, port: &str, entries: impl Iterator<Item = Entry>) {
        self.0.extend(entries.map(|e| v1::Counter {
            device: true,
            port: port.into(),
            ..v1::Counter::from(e)
        }));
    }

    fn device(&mut self, d: &Device) {
        // A device that is gone counts nothing any more.
        let Some(Ok(stats)) = d.port.as_ref().map(Port::stats) else { return };
        self.others(&d.name, DeviceCounters::from(stats).entries());
    }

    fn legs(&mut self, d: &Device) {
        for leg in d.legs.as_ref().map(Legs::info).unwrap_or_default() {
            let v1::Leg { rx_packets, tx_packets, losses, .. } = leg;
            let counters = LegCounters { rx_packets, tx_packets, losses };
            self.others(&format!("{}/{}", d.name, leg.device), counters.entries());
        }
    }
}

/// All counters that are not zero, or all.
pub async fn counters(switch: &Shared, all: bool) -> anyhow::Result<Answer> {
    let snapshots = snapshots(switch).await?;
    let s = switch.borrow();
    let mut gathered = Gathered::default();
    for (worker, snapshot) in snapshots.iter().enumerate() {
        let counters = &snapshot.counters;
        gathered.worker(worker, "", counters.worker.entries());
        for d in s.devices.iter() {
            gathered.worker(worker, &d.name, counters.port(d.number).entries());
        }
        gathered.worker(worker, REMOVED, counters.removed.entries());
    }
    gathered.others("", s.nve.counts().entries());
    s.devices.iter().for_each(|d| gathered.device(d));
    s.devices.iter().for_each(|d| gathered.legs(d));
    let mut counters = gathered.0;
    counters.retain(|c| all || c.value != 0);
    Ok(Answer::Counters(v1::CounterList { nve: s.config.nve.id.clone(), counters }))
}

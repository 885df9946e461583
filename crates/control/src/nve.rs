//! The pure core of an NVE's control.

use godwit_model::{Locators, VmKey};
use godwit_wire::{Instant, Vni};

use crate::config::NveConfig;
use crate::io::{Input, Outputs};
use crate::view::{EntryView, NeighborView, NvaView, PortView};

/// One NVE's control: no I/O, no clock, no thread. The same inputs at the same times give the same
/// outputs.
#[derive(Debug)]
pub struct Nve {
    config: NveConfig,
}

impl Nve {
    /// An NVE without ports.
    pub fn new(config: NveConfig) -> Nve {
        Nve { config }
    }

    /// Takes one input at `now` (monotonic, never going back) and appends what is to be done.
    ///
    /// `wall_us` is the wall clock at `now` in microseconds since 1970, for timelines that people
    /// read. Timers that are due fire in every call, whatever the input.
    pub fn handle(&mut self, now: Instant, wall_us: u64, input: Input, out: &mut Outputs) {
        let _ = (now, wall_us, input, out);
    }

    /// When to call [`Nve::handle`] with `Input::Tick` at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// What it was configured with.
    pub fn config(&self) -> &NveConfig {
        &self.config
    }

    /// The locators of its uplinks.
    pub fn locators(&self) -> Locators {
        Locators::default()
    }

    /// What is known of VMs, by VN and MAC; of one VN or of all.
    pub fn entries(&self, now: Instant, vni: Option<Vni>) -> Vec<EntryView> {
        let _ = (now, vni);
        Vec::new()
    }

    /// What is known of one VM.
    pub fn entry(&self, now: Instant, key: VmKey) -> Option<EntryView> {
        let _ = (now, key);
        None
    }

    /// All ports by number.
    pub fn ports(&self) -> Vec<PortView> {
        Vec::new()
    }

    /// The underlay's neighbors by uplink and address.
    pub fn neighbors(&self) -> Vec<NeighborView> {
        Vec::new()
    }

    /// How it stands with the NVA.
    pub fn nva(&self) -> NvaView {
        NvaView { connected: false, epoch: 0, vns: 0, synced: 0, claims_waiting: 0, queries_waiting: 0 }
    }
}

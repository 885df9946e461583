//! The two ends that every contender gets: a capture that `net_pcap` plays without end
//! (`infinite_rx`), and `net_null` that takes everything and sends nothing (`no-rx`).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use godwit_testkit::frames::{self, Vxlan};
use godwit_wire::{Mac, Vni};

use super::plan::Row;
use crate::random::Dice;

/// The tenant's network.
pub const VNI: u32 = 100;
/// The VM that sends, and the first of those that receive.
pub const LOCAL_VM: Mac = Mac([0x02, 0x10, 0, 0, 0, 0x01]);
/// Its address.
pub const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The first VM elsewhere.
pub const REMOTE_VM: Mac = Mac([0x02, 0x20, 0, 0, 0, 0]);
/// The next hop to every other NVE.
pub const NEXT_HOP: Mac = Mac([0x02, 0, 0, 0, 0x01, 0x02]);
/// What the first `net_pcap` of a process says its address is.
pub const PCAP_MAC: Mac = Mac([0x02, 0x70, 0x63, 0x61, 0x70, 0]);

/// The ends of one row.
pub struct Ends {
    /// The row.
    pub row: Row,
    /// The capture.
    pub pcap: PathBuf,
}

impl Ends {
    /// Writes the row's capture into `dir`.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn new(row: Row, dir: &Path) -> Result<Ends> {
        let pcap = dir.join("frames.pcap");
        write(row, &pcap)?;
        Ok(Ends { row, pcap })
    }

    /// The source, with a receive queue for each worker.
    pub fn source(&self) -> String {
        let queue = format!(",rx_pcap={}", self.pcap.display());
        format!("net_pcap0{},infinite_rx=1", queue.repeat(self.row.workers))
    }

    /// The sink.
    pub fn sink(&self) -> &'static str {
        "net_null1,no-rx=1"
    }

    /// Buffers that the capture takes in each process that plays it, with as many under way as any
    /// queue holds.
    pub fn buffers(&self) -> usize {
        self.row.frames() as usize * self.row.workers + 32_768
    }
}

/// Writes a row's frames as a capture.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(row: Row, path: &Path) -> Result<()> {
    write_frames(path, shuffled(row.frames()).into_iter().map(|n| frame(&row, n)))
}

/// Writes a capture, one frame after the other: a million need not fit into memory.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_frames(path: &Path, frames: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        // Microseconds, little-endian, version 2.4, Ethernet.
        file.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
        file.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0])?;
        for frame in frames {
            file.write_all(&[0; 8])?;
            file.write_all(&(frame.len() as u32).to_le_bytes())?;
            file.write_all(&(frame.len() as u32).to_le_bytes())?;
            file.write_all(&frame)?;
        }
        file.flush()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// 0 to `n` in an order that is always the same and that no cache foresees.
pub fn shuffled(n: u32) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n).collect();
    let mut dice = Dice::new(7);
    for i in (1..all.len()).rev() {
        all.swap(i, dice.between(0, i as u64 + 1) as usize);
    }
    all
}

/// The `n`-th address after this one.
pub fn nth(mac: Mac, n: u32) -> Mac {
    Mac::from_u64(mac.to_u64() + u64::from(n))
}

/// Frame number `n`: every destination and every flow comes equally often.
fn frame(row: &Row, n: u32) -> Vec<u8> {
    let flow = n % row.flows;
    let vm = flow % row.destinations;
    let port = 1024 + (flow / row.destinations % 60_000) as u16;
    let near = |n: u32| IpAddr::from(Ipv4Addr::from_bits(LOCAL_IP.to_bits() + n));
    let far = |n: u32| IpAddr::from(Ipv4Addr::from_bits(0x0a80_0000 + n));
    let payload = vec![0; row.sizes.of(n as usize) - 14 - 20 - 8];
    if row.case.is_encap() {
        let (from, to) = ((LOCAL_VM, near(0), port), (nth(REMOTE_VM, vm), far(vm), 5678));
        return frames::udp_frame(from, to, &payload);
    }
    let (from, to) = ((nth(REMOTE_VM, vm), far(vm), port), (nth(LOCAL_VM, vm), near(vm), 5678));
    let outer_eth = (NEXT_HOP, PCAP_MAC);
    let mut outer = Vxlan::new(outer_eth, (row.case.remote(0), row.case.locator()), Vni::from_low24(VNI));
    outer.ports.0 = 49_152 + (flow % 16_384) as u16;
    outer.frame(&frames::udp_frame(from, to, &payload))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::plan::{self, Case};

    #[test]
    fn every_destination_and_flow_is_sent() {
        let rows = plan::full(2);
        let row = plan::select(&rows, "encap-v4/60/64/flows=1000").unwrap()[0];
        let all: Vec<Vec<u8>> = shuffled(row.frames()).into_iter().map(|n| frame(&row, n)).collect();
        assert_eq!(all.len(), row.frames() as usize);
        assert!(all.iter().all(|f| f.len() == 60 && f[6..12] == LOCAL_VM.0), "R65: all from the port's VM");
        let macs: BTreeSet<&[u8]> = all.iter().map(|f| &f[..6]).collect();
        assert_eq!(macs.len(), 64);
        let flows: BTreeSet<(&[u8], &[u8])> = all.iter().map(|f| (&f[..6], &f[34..36])).collect();
        assert_eq!(flows.len(), 1000);
    }

    #[test]
    fn decapsulation_is_of_whole_packets() {
        for case in [Case::DecapV4, Case::DecapV6] {
            let row = plan::select(&[], &format!("{}/60/1000", case.name())).unwrap()[0];
            assert_eq!(frame(&row, 17).len(), 60 + case.overhead());
        }
    }
}

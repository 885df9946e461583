//! The two ends that every contender gets: a device that plays a capture without end, and `net_null` that takes
//! everything and sends nothing (`no-rx`).
//!
//! What plays is `net_null` with this package's library loaded before the contender's own, or DPDK's `net_pcap`
//! (`infinite_rx`), which has a buffer of 2 KiB for each frame and reads them in turn: with a long capture its
//! reading is most of what is measured then.

use std::fs::File;
use std::io::BufWriter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use godwit_lab::random::Dice;
use godwit_testkit::frames::{self, Vxlan};
use godwit_testkit::pcap::{self, Packet, Resolution};
use godwit_wire::{Instant, Mac, Vni};

use crate::peer::{Player, Site};
use crate::plan::{Case, Row};
use crate::routed;

/// The tenant's network.
pub const VNI: u32 = 100;
/// The VM that sends, and the first of those that receive.
pub const LOCAL_VM: Mac = Mac([0x02, 0x10, 0, 0, 0, 0x01]);
/// Its address.
pub const LOCAL_IP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// Its address of IPv6.
pub const LOCAL_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);
/// The first VM elsewhere.
pub const REMOTE_VM: Mac = Mac([0x02, 0x20, 0, 0, 0, 0]);
/// The first VM within the port's.
pub const NESTED_VM: Mac = Mac([0x02, 0x30, 0, 0, 0, 0]);
/// The next hop to every other NVE.
pub const NEXT_HOP: Mac = Mac([0x02, 0, 0, 0, 0x01, 0x02]);
/// What the first `net_pcap` of a process says its address is, and the player says, too.
pub const PLAYER_MAC: Mac = Mac([0x02, 0x70, 0x63, 0x61, 0x70, 0]);

/// The ends of one row.
pub struct Ends {
    /// The row.
    pub row: Row,
    /// What plays the capture.
    pub player: Player,
    /// The capture, or one of each guest that sends.
    pcaps: Vec<PathBuf>,
    /// The library that a program has to load before its own, to play it.
    preload: Option<PathBuf>,
}

impl Ends {
    /// Writes the row's capture into the site's folder.
    ///
    /// # Errors
    /// Where the file cannot be written, or there is nothing to play it.
    pub fn new(row: Row, site: &Site) -> Result<Ends> {
        let player = site.player;
        let preload = match player {
            Player::Replay => Some(replay_library()?),
            Player::Pcap => None,
        };
        let mut pcaps = Vec::new();
        for sender in 0..row.senders() {
            let pcap = site.dir.join(format!("frames-{sender}.pcap"));
            write_of(row, sender, &pcap)?;
            pcaps.push(pcap);
        }
        Ok(Ends { row, player, pcaps, preload })
    }

    /// The source, with a receive queue for each worker.
    pub fn source(&self) -> String {
        match self.player {
            Player::Replay => self.player.device().to_owned(),
            Player::Pcap => {
                let queue = format!(",rx_pcap={}", self.pcaps[0].display());
                format!("{}{},infinite_rx=1", self.player.device(), queue.repeat(self.row.workers))
            }
        }
    }

    /// What has to be in a contender's environment: nothing where guests play.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        if self.row.case == Case::VhostEncap {
            return Vec::new();
        }
        self.playing(&[(self.player.device().to_owned(), &self.pcaps[0])])
    }

    /// Sources of so many ports, each of which plays: a capture of its own where there are as many, else the same.
    pub fn sources(&self, count: u32) -> Vec<String> {
        let source = |n: u32| match self.player {
            Player::Replay => self.player.numbered(n),
            Player::Pcap => {
                format!("{},rx_pcap={},infinite_rx=1", self.player.numbered(n), self.pcap_of(n).display())
            }
        };
        (0..count).map(source).collect()
    }

    /// What has to be in the environment of a program with so many sources.
    pub fn environment_of(&self, count: u32) -> Vec<(&'static str, String)> {
        let all: Vec<(String, &PathBuf)> =
            (0..count).map(|n| (self.player.numbered(n), self.pcap_of(n))).collect();
        self.playing(&all)
    }

    fn pcap_of(&self, n: u32) -> &PathBuf {
        self.pcaps.get(n as usize).unwrap_or(&self.pcaps[0])
    }

    fn playing(&self, devices: &[(String, &PathBuf)]) -> Vec<(&'static str, String)> {
        let Some(library) = &self.preload else { return Vec::new() };
        let list = |each: &dyn Fn(&(String, &PathBuf)) -> String| {
            devices.iter().map(each).collect::<Vec<_>>().join(",")
        };
        vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("GODWIT_REPLAY_CAPTURE", list(&|(_, pcap)| pcap.display().to_string())),
            ("GODWIT_REPLAY_DEVICE", list(&|(device, _)| device.clone())),
            ("GODWIT_REPLAY_MAC", PLAYER_MAC.to_string()),
        ]
    }

    /// The sink.
    pub fn sink(&self) -> &'static str {
        "net_null1,no-rx=1"
    }

    /// Buffers that the capture itself takes in each process that plays it.
    pub fn captured(&self) -> usize {
        match self.player {
            Player::Replay => 0,
            Player::Pcap => self.row.frames() as usize * self.row.workers,
        }
    }

    /// Those, with as many under way as any queue holds.
    pub fn buffers(&self) -> usize {
        self.captured() + 32_768
    }
}

/// Where the player is: beside this program, as cargo leaves both.
fn replay_library() -> Result<PathBuf> {
    let path = std::env::current_exe().context("where am I?")?.with_file_name("libgodwit_replay.so");
    let built = "build it (cargo build --release -p godwit-bench), or have net_pcap play (--ends pcap)";
    ensure!(path.is_file(), "{} is not there: {built}", path.display());
    Ok(path)
}

/// Writes a row's frames as a capture, and answers with the mean of their lengths, in bytes, outer headers
/// included.
///
/// # Errors
/// Where the file cannot be written.
pub fn write(row: Row, path: &Path) -> Result<f64> {
    write_of(row, 0, path)
}

/// The same of one of the guests that send.
fn write_of(row: Row, sender: u32, path: &Path) -> Result<f64> {
    let mut bytes = 0;
    let frames = shuffled(row.frames()).into_iter().map(|n| frame_of(&row, sender, n));
    let frames = frames.inspect(|f| bytes += f.len());
    write_frames(path, frames)?;
    Ok(bytes as f64 / f64::from(row.frames()))
}

/// Writes a capture, one frame after the other: a million need not fit into memory.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_frames(path: &Path, frames: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let packets = frames.map(|data| Packet { at: Instant(0), data });
    let write = |file| pcap::write(BufWriter::new(file), packets, Resolution::Micro);
    File::create(path).and_then(write).with_context(|| format!("writing {}", path.display()))
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

/// Scatters numbers of 40 bits: two of them never become the same one.
fn scattered(n: u64) -> u64 {
    const MASK: u64 = (1 << 40) - 1;
    let mixed = (n ^ 0x5_0000_2711).wrapping_mul(0x9e_3779_b97f) & MASK;
    ((mixed ^ mixed >> 21).wrapping_mul(0xc2_b2ae_3d27) & MASK) ^ 0x17
}

/// The address of the `n`-th VM elsewhere.
pub fn remote_vm(row: &Row, n: u32) -> Mac {
    if row.random { Mac::from_u64(2 << 40 | scattered(u64::from(n) + 1)) } else { nth(REMOTE_VM, n) }
}

/// The address of the `n`-th VM behind the port; the first is the port's own.
pub fn local_vm(row: &Row, n: u32) -> Mac {
    let random = row.random && n > 0;
    // Beyond those elsewhere, of which there are fewer than 2^32.
    if random { Mac::from_u64(2 << 40 | scattered(1 << 32 | u64::from(n))) } else { nth(LOCAL_VM, n) }
}

/// The address of the `n`-th VM within the port's.
pub fn nested_vm(n: u32) -> Mac {
    nth(NESTED_VM, n)
}

/// The `n`-th IP address of the tenant's VMs behind the port.
pub fn near_ip(row: &Row, n: u32) -> IpAddr {
    if row.inner_v6 {
        return Ipv6Addr::from_bits(LOCAL_IP6.to_bits() + u128::from(n)).into();
    }
    Ipv4Addr::from_bits(LOCAL_IP.to_bits() + n).into()
}

/// The `n`-th IP address of the tenant's VMs elsewhere.
pub fn far_ip(row: &Row, n: u32) -> IpAddr {
    if row.inner_v6 {
        return Ipv6Addr::from_bits(0x2001_0db8_000b << 80 | u128::from(n)).into();
    }
    Ipv4Addr::from_bits(0x0a80_0000 + n).into()
}

/// UDP ports of a flow, source and destination (RFC 4814, 4.5 for the random ones).
fn ports(row: &Row, flow: u32) -> (u16, u16) {
    if row.random {
        let mut dice = Dice::new(u64::from(flow) << 8 | 76);
        let mut port = |low: u64, high: u64| dice.between(low, high + 1) as u16;
        return (port(1024, 65_535), port(1, 49_151));
    }
    (1024 + (flow / row.destinations % 60_000) as u16, 5678)
}

/// Frame number `n` of the first VM.
#[cfg(test)]
fn frame(row: &Row, n: u32) -> Vec<u8> {
    frame_of(row, 0, n)
}

/// Frame number `n` of a guest, or of the VM: every destination and every flow comes equally often.
fn frame_of(row: &Row, sender: u32, n: u32) -> Vec<u8> {
    let flow = n % row.flows;
    let vm = flow % row.destinations;
    let (source, destination) = ports(row, flow);
    let ip_header = if row.inner_v6 { 40 } else { 20 };
    let payload = vec![0; row.sizes.of(n as usize) - 14 - ip_header - 8];
    if row.case.is_encap() {
        let (mac, ip) = match row.nested {
            0 => (local_vm(row, sender), near_ip(row, sender + n % row.sources)),
            nested => (nested_vm(n % nested), near_ip(row, row.sources + n % nested)),
        };
        let (to_mac, to_ip) = match row.case.is_routed() {
            true => (routed::GATEWAY, routed::destination(row, vm).0),
            false => (remote_vm(row, vm), far_ip(row, vm)),
        };
        let (from, to) = ((mac, ip, source), (to_mac, to_ip, destination));
        return frames::udp_frame(from, to, &payload);
    }
    let (from, to) =
        ((remote_vm(row, vm), far_ip(row, vm), source), (local_vm(row, vm), near_ip(row, vm), destination));
    let outer_eth = (NEXT_HOP, PLAYER_MAC);
    let mut outer = Vxlan::new(outer_eth, (row.case.remote(0), row.case.locator()), Vni::from_low24(VNI));
    outer.ports.0 = 49_152 + (flow % 16_384) as u16;
    outer.frame(&frames::udp_frame(from, to, &payload))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan;

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
    fn r65_r94_every_address_and_nested_vm_sends() {
        let senders = |name: &str| -> BTreeSet<(Vec<u8>, Vec<u8>)> {
            let row = plan::select(&[], name).unwrap()[0];
            (0..row.frames())
                .map(|n| frame(&row, n))
                .map(|f| (f[6..12].to_vec(), f[26..30].to_vec()))
                .collect()
        };
        let twenty = senders("encap-v4/60/1000/sources=20");
        assert!(twenty.len() == 20 && twenty.iter().all(|s| s.0 == LOCAL_VM.0), "one MAC, twenty addresses");
        let nested = senders("encap-v4/60/1000/nested=3");
        let own = |n: u8| (nested_vm(n.into()).0.to_vec(), vec![10, 1, 0, 2 + n]);
        assert_eq!(nested, (0..3).map(own).collect(), "each its own");
    }

    #[test]
    fn each_guest_sends_from_its_own_address() {
        let row = plan::select(&[], "vhost-encap/60/1000/guests=8").unwrap()[0];
        let senders: BTreeSet<Vec<u8>> = (0..8).map(|g| frame_of(&row, g, 17)[6..12].to_vec()).collect();
        assert_eq!((row.senders(), senders.len()), (8, 8));
        assert!(senders.contains(&LOCAL_VM.0[..]) && senders.contains(&local_vm(&row, 7).0[..]));
        let row = plan::select(&[], "vhost-decap/1400/1000/guests=8").unwrap()[0];
        assert_eq!((row.senders(), frame(&row, 3).len()), (1, 1450), "the uplink does");
    }

    #[test]
    fn decapsulation_is_of_whole_packets() {
        for case in [Case::DecapV4, Case::DecapV6] {
            let row = plan::select(&[], &format!("{}/60/1000", case.name())).unwrap()[0];
            assert_eq!(frame(&row, 17).len(), 60 + case.overhead());
        }
    }

    #[test]
    fn r76_random_rows_have_macs_and_ports_that_do_not_count_upwards() {
        let row = plan::select(&[], "encap-v4/60/1000/flows=4000/random").unwrap()[0];
        let all: Vec<Vec<u8>> = (0..row.frames()).map(|n| frame(&row, n)).collect();
        assert_eq!(all[17], frame(&row, 17), "the same each time");
        let macs: BTreeSet<&[u8]> = all.iter().map(|f| &f[..6]).collect();
        assert_eq!(macs.len(), 1000);
        assert!(macs.iter().all(|m| m[0] == 2), "of one VM each, of nobody's register");
        assert!(macs.iter().map(|m| m[1]).collect::<BTreeSet<_>>().len() > 200, "in all bytes");
        let port = |f: &[u8], at: usize| u16::from_be_bytes([f[at], f[at + 1]]);
        let sources: Vec<u16> = all.iter().map(|f| port(f, 34)).collect();
        let destinations: Vec<u16> = all.iter().map(|f| port(f, 36)).collect();
        assert!(sources.iter().all(|p| *p >= 1024) && sources.iter().any(|p| *p > 60_000));
        assert!(destinations.iter().all(|p| (1..=49_151).contains(p)));
        assert!(destinations.iter().any(|p| *p < 1024) && destinations.iter().any(|p| *p > 48_000));
        assert!(all.iter().all(|f| f[6..12] == LOCAL_VM.0), "R65: all from the port's VM");
    }

    #[test]
    fn r76_no_two_vms_have_one_address() {
        let row = plan::select(&[], "decap-v4/60/100000/random").unwrap()[0];
        let mut macs: BTreeSet<Mac> = (0..row.destinations).map(|n| local_vm(&row, n)).collect();
        macs.extend((0..row.destinations).map(|n| remote_vm(&row, n)));
        macs.extend([NEXT_HOP, PLAYER_MAC]);
        assert_eq!(macs.len(), 2 * row.destinations as usize + 2);
        assert_eq!(local_vm(&row, 0), LOCAL_VM);
    }

    #[test]
    fn r76_inner_frames_may_be_of_ipv6_and_long() {
        for (name, len) in [("encap-v4/62/10/inner=6", 62), ("decap-v6/9212/10/inner=6", 9212 + 70)] {
            let row = plan::select(&[], name).unwrap()[0];
            let frame = frame(&row, 3);
            assert_eq!(frame.len(), len);
            let inner = &frame[frame.len() - row.sizes.longest()..];
            assert_eq!((&inner[12..14], inner[14] >> 4), ([0x86, 0xdd].as_slice(), 6));
        }
    }

    #[test]
    fn frames_of_ordinary_rows_are_as_they_always_were() {
        // Figures of different commits are of the same frames.
        let row = plan::select(&[], "encap-v4/60/1000").unwrap()[0];
        let text = "0220000000070210000000010800450000 2e00000000401166370a0100010a800007 0400162e001a";
        let wanted: Vec<u8> = text.split(' ').flat_map(hex).collect();
        assert_eq!(frame(&row, 2007)[..wanted.len()], wanted);
    }

    #[test]
    fn r58_routed_rows_send_to_the_gateway_what_bridged_rows_send_to_vms() {
        let frames = |name: &str| -> (Vec<Vec<u8>>, BTreeSet<Vec<u8>>) {
            let row = plan::select(&[], name).unwrap()[0];
            let all: Vec<Vec<u8>> = (0..row.frames()).map(|n| frame(&row, n)).collect();
            let at = if row.inner_v6 { 38..54 } else { 30..34 };
            let destinations = all.iter().map(|f| f[at.clone()].to_vec()).collect();
            (all, destinations)
        };
        for (routed, bridged) in [
            ("route-v4/60/1000", "encap-v4/60/1000"),
            ("route-v6/62/1000", "encap-v6/62/1000/inner=6"),
            ("route-v4/60/10000/routers=256", "encap-v4/60/10000"),
            ("route-v6/62/10000/routers=256", "encap-v6/62/10000/inner=6"),
        ] {
            let ((routed, to), (bridged, bridged_to)) = (frames(routed), frames(bridged));
            assert_eq!((routed.len(), to.len()), (bridged.len(), bridged_to.len()), "as many addresses");
            for (r, b) in routed.iter().zip(&bridged) {
                assert_eq!((r.len(), &r[..6], &r[6..14]), (b.len(), &routed::GATEWAY.0[..], &b[6..14]));
            }
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
            .collect()
    }
}

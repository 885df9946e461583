//! What is measured: the rows of the table.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Serialize, Serializer};

/// Which way frames go and in which outer header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Case {
    /// From a VM into VXLAN over IPv4.
    EncapV4,
    /// From a VM into VXLAN over IPv6.
    EncapV6,
    /// Out of VXLAN over IPv4 to VMs.
    DecapV4,
    /// Out of VXLAN over IPv6 to VMs.
    DecapV6,
}

impl Case {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Case::EncapV4 => "encap-v4",
            Case::EncapV6 => "encap-v6",
            Case::DecapV4 => "decap-v4",
            Case::DecapV6 => "decap-v6",
        }
    }

    /// Frames come from a VM.
    pub fn is_encap(self) -> bool {
        matches!(self, Case::EncapV4 | Case::EncapV6)
    }

    /// The locator of the switch under test.
    pub fn locator(self) -> IpAddr {
        if self.is_v6() {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
        } else {
            Ipv4Addr::new(198, 18, 0, 1).into()
        }
    }

    /// The locator of the `n`-th other NVE.
    pub fn remote(self, n: u32) -> IpAddr {
        if self.is_v6() {
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(0x1_0000 + n)).into()
        } else {
            Ipv4Addr::from_bits(0xc612_0100 + n).into()
        }
    }

    /// Bits of the prefix that all locators share.
    pub fn prefix(self) -> u8 {
        if self.is_v6() { 64 } else { 16 }
    }

    /// The outer header is IPv6.
    pub fn is_v6(self) -> bool {
        matches!(self, Case::EncapV6 | Case::DecapV6)
    }

    /// Bytes that the outer headers add to a frame.
    pub fn overhead(self) -> usize {
        if self.is_v6() { 70 } else { 50 }
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// Lengths of the tenant's frames, without FCS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// Of twelve frames seven of 60 bytes, four of 590 and one of 1,514.
    Imix,
}

impl Sizes {
    /// The length of frame number `n`.
    pub fn of(self, n: usize) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Imix => match n % 12 {
                0..7 => 60,
                7..11 => 590,
                _ => 1514,
            },
        }
    }

    /// The longest.
    pub fn longest(self) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Imix => 1514,
        }
    }

    /// The mean, rounded.
    pub fn mean(self) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            Sizes::Imix => (7 * 60 + 4 * 590 + 1514) / 12,
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Imix => f.write_str("imix"),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Which way.
    pub case: Case,
    /// Length of the tenant's frames.
    pub sizes: Sizes,
    /// MAC addresses that frames go to: VMs elsewhere, or here for decapsulation.
    pub destinations: u32,
    /// Different inner flows (addresses and ports) over all destinations.
    pub flows: u32,
    /// NVEs that the destinations are spread over.
    pub nves: u32,
    /// Worker threads, with one receive queue each.
    pub workers: usize,
}

/// Frames in the shortest capture: more than any switch has under way, and many bursts.
const FRAMES: u32 = 4096;

impl Row {
    fn new(case: Case, bytes: usize, destinations: u32) -> Row {
        let nves = if destinations >= 1_000_000 { 256 } else { 1 };
        Row { case, sizes: Sizes::Fixed(bytes), destinations, flows: destinations, nves, workers: 1 }
    }

    /// Frames of the capture that each queue plays over and over.
    pub fn frames(&self) -> u32 {
        self.flows.max(self.destinations).max(FRAMES)
    }

    /// The longest frame that goes in or out, in bytes.
    pub fn longest(&self) -> usize {
        self.sizes.longest() + self.case.overhead()
    }

    /// The largest IP packet on the underlay, in bytes, with some room.
    pub fn underlay_mtu(&self) -> usize {
        // The outer IP packet is as long as the inner frame and the outer headers without Ethernet's.
        (self.longest() - 14).next_multiple_of(100).max(1600)
    }

    /// Two rows that measure the same.
    pub fn key(&self) -> (&'static str, String, u32, u32, usize) {
        (self.case.name(), self.sizes.to_string(), self.destinations, self.flows, self.workers)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { case, sizes, destinations, flows, workers, .. } = self;
        write!(f, "{}/{sizes}/{destinations}", case.name())?;
        if flows != destinations {
            write!(f, "/flows={flows}")?;
        }
        if *workers != 1 {
            write!(f, "/workers={workers}")?;
        }
        Ok(())
    }
}

/// The rows that show the least that is promised of one worker, with the shortest frames.
pub fn quick() -> Vec<Row> {
    vec![
        Row::new(Case::EncapV4, 60, 1),
        Row::new(Case::EncapV4, 60, 1_000),
        Row::new(Case::EncapV4, 60, 100_000),
        Row::new(Case::EncapV4, 60, 1_000_000),
        Row::new(Case::EncapV6, 60, 1_000),
        Row::new(Case::DecapV4, 60, 1_000),
        Row::new(Case::DecapV6, 60, 1_000),
    ]
}

/// Every row.
pub fn full(cores: usize) -> Vec<Row> {
    let mut rows = quick();
    for case in [Case::EncapV6, Case::DecapV4, Case::DecapV6] {
        rows.push(Row::new(case, 60, 1));
        rows.push(Row::new(case, 60, 100_000));
    }
    rows.push(Row::new(Case::EncapV6, 60, 1_000_000));
    for case in [Case::EncapV4, Case::EncapV6, Case::DecapV4, Case::DecapV6] {
        rows.extend([250, 1514, 9000].map(|bytes| Row::new(case, bytes, 1_000)));
        rows.push(Row { sizes: Sizes::Imix, ..Row::new(case, 60, 1_000) });
    }
    for case in [Case::EncapV4, Case::DecapV4] {
        rows.extend([64, 1_000_000].map(|flows| Row { flows, ..Row::new(case, 60, 64) }));
    }
    if cores > 1 {
        let both = [Case::EncapV4, Case::EncapV6, Case::DecapV4, Case::DecapV6];
        rows.extend(both.map(|case| Row { workers: 2, ..Row::new(case, 60, 1_000) }));
    }
    rows
}

/// A row by its name, as [`Row`] displays it: `encap-v4/60/1000[/flows=N][/workers=N]`. A name
/// without destinations, or of the case alone, selects all such rows of `all`.
///
/// # Errors
/// Where it names nothing.
pub fn select(all: &[Row], name: &str) -> Result<Vec<Row>> {
    let mut parts = name.split('/');
    let case = Case::from_str(parts.next().unwrap_or_default(), false).or_else(|_| {
        bail!("{name:?} begins with no case; there are encap-v4, encap-v6, decap-v4, decap-v6")
    })?;
    let (sizes, destinations) = (parts.next(), parts.next());
    let (Some(sizes), Some(destinations)) = (sizes, destinations) else {
        let begins = |row: &&Row| row.to_string().split('/').zip(name.split('/')).all(|(a, b)| a == b);
        return Ok(all.iter().filter(begins).copied().collect());
    };
    let number = |what: &str, text: &str| -> Result<u32> {
        match text.replace('_', "").parse() {
            Ok(n) if n > 0 => Ok(n),
            _ => bail!("{text:?} in {name:?} is no {what}"),
        }
    };
    let sizes = match sizes {
        "imix" => Sizes::Imix,
        bytes => match number("frame length", bytes)? as usize {
            bytes @ 60..=9000 => Sizes::Fixed(bytes),
            bytes => bail!("frames of {bytes} bytes in {name:?}: 60 to 9000 can be measured"),
        },
    };
    let mut row = Row { sizes, ..Row::new(case, 60, number("number of destinations", destinations)?) };
    for part in parts {
        match part.split_once('=') {
            Some(("flows", n)) => row.flows = number("number of flows", n)?,
            Some(("nves", n)) => row.nves = number("number of NVEs", n)?,
            Some(("workers", n)) => row.workers = number("number of workers", n)? as usize,
            _ => bail!("{part:?} in {name:?}: there are flows=N, nves=N and workers=N"),
        }
    }
    Ok(vec![row])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name() {
        let rows = full(2);
        for row in &rows {
            assert_eq!(select(&rows, &row.to_string()).unwrap(), [*row], "{row}");
        }
        let keys: std::collections::BTreeSet<_> = rows.iter().map(Row::key).collect();
        assert_eq!(keys.len(), rows.len(), "no row twice");
    }

    #[test]
    fn a_name_selects_or_is_refused() {
        let rows = full(2);
        let encap = select(&rows, "encap-v4").unwrap();
        assert!(encap.len() > 5 && encap.iter().all(|r| r.case == Case::EncapV4));
        assert!(select(&rows, "encap-v4/60").unwrap().iter().all(|r| r.sizes == Sizes::Fixed(60)));
        for bad in ["encap", "encap-v4/59/1", "encap-v4/60/0", "encap-v4/60/1/queues=2", "encap-v4/60/x"] {
            assert!(select(&rows, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn imix_has_its_mean() {
        let all: Vec<usize> = (0..12).map(|n| Sizes::Imix.of(n)).collect();
        assert_eq!(all.iter().sum::<usize>() / 12, Sizes::Imix.mean());
    }
}

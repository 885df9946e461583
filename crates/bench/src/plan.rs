//! What is measured: the rows of the table.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;

pub use crate::case::{Case, Sizes};

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
    /// The tenant's frames are of IPv6.
    pub inner_v6: bool,
    /// VMs have pseudorandom MAC addresses and flows pseudorandom ports (RFC 4814, R76), the same each time;
    /// otherwise both count upwards.
    pub random: bool,
    /// IP addresses that the sending VM sends from in turn (R65).
    pub sources: u32,
    /// VMs within the port's that send in turn, each from its own MAC and IP address (R94); 0: the port's own does.
    pub nested: u32,
    /// Guests whose frames these are, of a vhost-user row.
    pub guests: u32,
    /// Guests beside them that neither send nor receive.
    pub idle: u32,
    /// The destinations are prefixes of four lengths that so many VMs route for (R58), of a routed row; 0: they are
    /// VMs, with host routes.
    pub routers: u32,
}

/// RFC 2544's frame sizes and the jumbo ones (R76), which count the FCS.
const RFC2544: [usize; 11] = [64, 128, 256, 512, 1024, 1280, 1518, 2048, 4096, 8192, 9216];
/// The FCS, which lengths here do not count.
const FCS: usize = 4;
/// The longest frame that can be measured, without FCS: one more than RFC 2544's sizes ask for would do, too,
/// but not with outer headers within the uplink's largest MTU.
const LONGEST: usize = 9216;
/// The shortest frames of each inner family: Ethernet's, and the headers of IPv6 and UDP.
pub const SHORTEST: usize = 60;
const SHORTEST_V6: usize = 14 + 40 + 8;
/// Destinations with addresses of their own in the configuration, one entry each, at most.
const MOST_RANDOM: u32 = 100_000;

/// Addresses of a VM, and VMs within one, at most.
const MOST_SOURCES: u32 = 64;
/// Guests of a vhost-user row, and idle ones beside them, at most: a contender has room for 32 devices where it takes
/// each guest for one, and Godwit for 1,024 ports.
const MOST_GUESTS: u32 = 8;
const MOST_IDLE: u32 = 1000;
/// Guests of the rows that are measured with several, and idle ones of those with such.
const SEVERAL: u32 = 8;
const IDLE: u32 = 499;
/// Destinations of a row with routers, at most: as many as there are prefixes of four lengths that do not overlap.
const MOST_PREFIXES: u32 = 4 * 4096;

/// Prefixes of the rows that are measured with routers, and these.
const PREFIXES: u32 = 10_000;
const ROUTERS: u32 = 256;

/// Frames in the shortest capture: many bursts, and whole rounds of 64 flows and of the mix of sizes. Where there are
/// more flows there are as many frames: every one more than that is memory that the ends' own buffers take from the
/// cache.
const FRAMES: u32 = 960;

impl Row {
    fn new(case: Case, bytes: usize, destinations: u32) -> Row {
        Row {
            case,
            sizes: Sizes::Fixed(bytes),
            destinations,
            flows: destinations,
            nves: usual_nves(destinations),
            workers: 1,
            inner_v6: case == Case::RouteV6,
            random: false,
            sources: 1,
            nested: 0,
            guests: 1,
            idle: 0,
            routers: 0,
        }
    }

    /// Frames of the capture that each queue plays over and over.
    pub fn frames(&self) -> u32 {
        self.flows.max(self.destinations).max(FRAMES)
    }

    /// Sources that play a capture of their own: guests that send, or one.
    pub fn senders(&self) -> u32 {
        if self.case == Case::VhostEncap { self.guests } else { 1 }
    }

    /// VMs at the other end.
    pub fn vms(&self) -> u32 {
        if self.routers == 0 { self.destinations } else { self.routers }
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

    /// All frames are as short as they can be: what a frame costs shows most.
    pub fn is_shortest(&self) -> bool {
        self.sizes == Sizes::Fixed(self.shortest())
    }

    /// The same destinations without a gateway between.
    pub fn bridged(&self) -> Row {
        Row { case: self.case.bridged(), routers: 0, ..*self }
    }

    /// The shortest frame that has room for the row's headers.
    fn shortest(&self) -> usize {
        if self.inner_v6 { SHORTEST_V6 } else { SHORTEST }
    }

    /// Why there cannot be such a row.
    fn check(&self) -> Result<()> {
        let (short, shortest) = (self.sizes.of(0), self.shortest());
        if short < shortest {
            bail!("{self}: frames of {short} bytes have no room for the headers; {shortest} is the least");
        }
        if self.random && self.destinations > MOST_RANDOM {
            bail!("{self}: there can be {MOST_RANDOM} destinations with random addresses");
        }
        if !self.case.is_encap() && (self.sources, self.nested) != (1, 0) {
            bail!("{self}: sources and nested are of VMs that send: encap-v4 and encap-v6");
        }
        if self.sources.max(self.nested) > MOST_SOURCES {
            bail!("{self}: there can be {MOST_SOURCES} sources, and {MOST_SOURCES} nested VMs");
        }
        if !self.case.is_vhost() && (self.guests, self.idle) != (1, 0) {
            bail!("{self}: guests and idle are of vhost-encap and vhost-decap");
        }
        if self.case.is_vhost() {
            self.check_guests()?;
        }
        if self.routers > 0 && !self.case.is_routed() {
            bail!("{self}: routers are of route-v4 and route-v6");
        }
        if self.routers > self.destinations || self.routers > 0 && self.destinations > MOST_PREFIXES {
            bail!("{self}: routers have a destination each at least, and {MOST_PREFIXES} together at most");
        }
        Ok(())
    }
}

impl Row {
    /// Why there cannot be such a row of guests.
    fn check_guests(&self) -> Result<()> {
        if self.guests > MOST_GUESTS || self.idle > MOST_IDLE {
            bail!("{self}: there can be {MOST_GUESTS} guests, and {MOST_IDLE} idle ones");
        }
        if self.guests > self.destinations {
            bail!("{self}: guests have a destination each at least");
        }
        if self.workers > 1 || self.inner_v6 || self.random || self.sources > 1 || self.nested > 0 {
            bail!("{self}: vhost-encap and vhost-decap have flows, nves, guests and idle only");
        }
        Ok(())
    }
}

/// NVEs that so many destinations are spread over unless a row says otherwise.
fn usual_nves(destinations: u32) -> u32 {
    if destinations >= 1_000_000 { 256 } else { 1 }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            case,
            sizes,
            destinations,
            flows,
            nves,
            workers,
            inner_v6,
            random,
            sources,
            nested,
            guests,
            idle,
            routers,
        } = self;
        write!(f, "{}/{sizes}/{destinations}", case.name())?;
        if flows != destinations {
            write!(f, "/flows={flows}")?;
        }
        if *nves != usual_nves(*destinations) {
            write!(f, "/nves={nves}")?;
        }
        if *workers != 1 {
            write!(f, "/workers={workers}")?;
        }
        if *inner_v6 != Row::new(*case, SHORTEST, 1).inner_v6 {
            f.write_str(if *inner_v6 { "/inner=6" } else { "/inner=4" })?;
        }
        if *random {
            f.write_str("/random")?;
        }
        if *sources != 1 {
            write!(f, "/sources={sources}")?;
        }
        if *nested != 0 {
            write!(f, "/nested={nested}")?;
        }
        if *guests != 1 {
            write!(f, "/guests={guests}")?;
        }
        if *idle != 0 {
            write!(f, "/idle={idle}")?;
        }
        if *routers != 0 {
            write!(f, "/routers={routers}")?;
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
    .into_iter()
    .chain(routed())
    .chain(guests())
    .collect()
}

/// Rows of guests with the shortest frames: one, several, and one beside many that are idle.
fn guests() -> impl Iterator<Item = Row> {
    [Case::VhostEncap, Case::VhostDecap].into_iter().flat_map(|case| {
        let one = Row::new(case, SHORTEST, 1_000);
        [one, Row { guests: SEVERAL, ..one }, Row { idle: IDLE, ..one }]
    })
}

/// Rows of routed frames: few and many host routes, and prefixes of four lengths.
fn routed() -> impl Iterator<Item = Row> {
    [(Case::RouteV4, SHORTEST), (Case::RouteV6, SHORTEST_V6)].into_iter().flat_map(|(case, bytes)| {
        let hosts = [1_000, 1_000_000].map(|n| Row::new(case, bytes, n));
        hosts.into_iter().chain([Row { routers: ROUTERS, ..Row::new(case, bytes, PREFIXES) }])
    })
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
    for case in [Case::VhostEncap, Case::VhostDecap] {
        rows.push(Row::new(case, 1400, 1_000));
        rows.push(Row { sizes: Sizes::Imix, ..Row::new(case, SHORTEST, 1_000) });
    }
    // What VMs with more than one address, and with VMs within them, cost beside the same row without.
    let usual = Row::new(Case::EncapV4, 60, 1_000);
    rows.extend([Row { sources: 20, ..usual }, Row { nested: 3, ..usual }]);
    if cores > 1 {
        let both = [Case::EncapV4, Case::EncapV6, Case::DecapV4, Case::DecapV6];
        rows.extend(both.map(|case| Row { workers: 2, ..Row::new(case, 60, 1_000) }));
    }
    rows
}

/// A row by its name, as [`Row`] displays it:
/// `encap-v4/60/1000[/flows=N][/nves=N][/workers=N][/inner=6][/random][/sources=N][/nested=N][/guests=N][/idle=N]
/// [/routers=N]`. A name without destinations, or of the case alone, selects all such rows of `all`; `rfc2544` instead
/// of a length is a row for each of RFC 2544's frame sizes and the jumbo ones, less the FCS.
///
/// # Errors
/// Where it names nothing.
pub fn select(all: &[Row], name: &str) -> Result<Vec<Row>> {
    let mut parts = name.split('/');
    let case = Case::from_str(parts.next().unwrap_or_default(), false).or_else(|_| {
        let cases: Vec<_> = Case::value_variants().iter().map(|case| case.name()).collect();
        bail!("{name:?} begins with no case; there are {}", cases.join(", "))
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
    let all_sizes = match sizes {
        "imix" => vec![Sizes::Imix],
        "rfc2544" => RFC2544.iter().map(|size| Sizes::Fixed(size - FCS)).collect(),
        bytes => match number("frame length", bytes)? as usize {
            bytes @ SHORTEST..=LONGEST => vec![Sizes::Fixed(bytes)],
            bytes => bail!("frames of {bytes} bytes in {name:?}: {SHORTEST} to {LONGEST} can be measured"),
        },
    };
    let mut row = Row::new(case, SHORTEST, number("number of destinations", destinations)?);
    for part in parts {
        match part.split_once('=') {
            Some(("flows", n)) => row.flows = number("number of flows", n)?,
            Some(("nves", n)) => row.nves = number("number of NVEs", n)?,
            Some(("workers", n)) => row.workers = number("number of workers", n)? as usize,
            Some(("inner", "4")) => row.inner_v6 = false,
            Some(("inner", "6")) => row.inner_v6 = true,
            Some(("sources", n)) => row.sources = number("number of source addresses", n)?,
            Some(("nested", n)) => row.nested = number("number of nested VMs", n)?,
            Some(("guests", n)) => row.guests = number("number of guests", n)?,
            Some(("idle", n)) => row.idle = number("number of idle guests", n)?,
            Some(("routers", n)) => row.routers = number("number of routers", n)?,
            None if part == "random" => row.random = true,
            _ => bail!(
                "{part:?} in {name:?}: there are flows=N, nves=N, workers=N, inner=4, inner=6, random, \
                 sources=N, nested=N, guests=N, idle=N and routers=N"
            ),
        }
    }
    let sized = |of: Sizes| match of {
        // The shortest of a series is as short as it can be.
        Sizes::Fixed(bytes) if sizes == "rfc2544" => Sizes::Fixed(bytes.max(row.shortest())),
        other => other,
    };
    let rows: Vec<Row> = all_sizes.into_iter().map(|of| Row { sizes: sized(of), ..row }).collect();
    rows.iter().try_for_each(Row::check)?;
    Ok(rows)
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
        let names: std::collections::BTreeSet<_> = rows.iter().map(Row::to_string).collect();
        assert_eq!(names.len(), rows.len(), "no row twice");
        let bridged = || rows.iter().filter(|r| !r.case.is_routed());
        assert!(bridged().all(|r| !r.random && !r.inner_v6), "they are as they were");
        for name in [
            "decap-v6/124/64/flows=1000/nves=16/workers=2/inner=6/random",
            "encap-v6/124/64/inner=6/sources=20/nested=3",
            "route-v6/60/64/inner=4",
            "vhost-decap/1400/64/guests=8/idle=100",
            "route-v4/62/64/inner=6/random/routers=7",
        ] {
            assert_eq!(select(&rows, name).unwrap()[0].to_string(), name);
        }
    }

    #[test]
    fn r76_there_is_a_row_for_each_of_rfc_2544s_sizes() {
        let lengths = |name: &str| -> Vec<usize> {
            select(&[], name).unwrap().iter().map(|row| row.sizes.longest()).collect()
        };
        let all = [60, 124, 252, 508, 1020, 1276, 1514, 2044, 4092, 8188, 9212];
        assert_eq!(lengths("encap-v4/rfc2544/1000"), all);
        // IPv6's header needs two bytes more.
        assert_eq!(lengths("decap-v6/rfc2544/1/inner=6")[..2], [62, 124]);
        // Each by itself, whether the FCS counts or not.
        for size in RFC2544 {
            assert_eq!(lengths(&format!("encap-v6/{size}/1")), [size]);
            assert_eq!(lengths(&format!("encap-v6/{}/1", size - FCS)), [size - FCS]);
        }
        assert!(select(&[], "encap-v6/9216/1").unwrap()[0].underlay_mtu() <= 9600, "an uplink takes it");
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
        for bad in [
            "9217/1",
            "60/1/inner=6",
            "imix/1/inner=6",
            "60/1/inner=5",
            "60/1000000/random",
            "60/1/sources=65",
        ] {
            assert!(select(&rows, &format!("encap-v4/{bad}")).is_err(), "{bad}");
        }
        for bad in ["1000/routers=1001", "20000/routers=7"] {
            assert!(select(&rows, &format!("route-v4/60/{bad}")).is_err(), "{bad}");
        }
        assert!(select(&rows, "route-v6/60/1000").is_err(), "two bytes more");
        for bad in ["guests=9", "idle=1001", "workers=2", "sources=2", "inner=6", "random", "routers=1"] {
            assert!(select(&rows, &format!("vhost-encap/60/1000/{bad}")).is_err(), "{bad}");
        }
        assert!(select(&rows, "vhost-decap/60/7/guests=8").is_err(), "one has no destination");
        for bad in ["sources=2", "nested=1", "routers=1", "guests=2", "idle=1"] {
            assert!(select(&rows, &format!("decap-v4/60/1/{bad}")).is_err(), "{bad}");
        }
    }
}

//! The command line, and the rows in their turn.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use godwit_lab::cmd;

use crate::beside::{self, Ratio};
use crate::ends::{self, Ends};
use crate::godwit::{self, Godwit};
use crate::ovs::{self, Ovs};
use crate::peer::{self, Peer, Player, SETTLE, Site};
use crate::plan::{self, Row};
use crate::report::{self, Conditions, Outcome};
use crate::testpmd::{self, Testpmd};
use crate::{instructions, memory, stages, stats, storm, updates, vhost};

/// Two rows are compared the better the sooner one follows the other.
const LONGEST_OF_A_PAIR: Duration = Duration::from_millis(600);

/// Measure Godwit, DPDK's own forwarding and OVS-DPDK in turn between the same ends
#[derive(Clone, Debug, Parser)]
#[command(name = "godwit-bench", version)]
pub struct Bench {
    /// Only the rows with the shortest frames and one worker that show what is promised
    #[arg(long)]
    pub quick: bool,
    /// Also write the results to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Alternations of each row
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Length of each window, in milliseconds
    #[arg(long, default_value_t = 2000, value_name = "MS", value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub window_ms: u32,
    /// Only these rows, `CASE[/BYTES|imix|rfc2544[/DESTINATIONS[OPTIONS]]]` with the options `/flows=N`, `/nves=N`,
    /// `/workers=N`, `/inner=6`, `/random`, `/sources=N`, `/nested=N`, `/guests=N`, `/idle=N` and `/routers=N`, such as
    /// encap-v4 or decap-v6/60/1000; several times or with commas
    #[arg(long = "case", value_name = "ROW", value_delimiter = ',')]
    pub cases: Vec<String>,
    /// Instead of rows, so many location updates a second against a worker under full load, and a table
    /// that grows to a million entries
    #[arg(long, value_name = "RATE", num_args = 0..=1, default_missing_value = "100000",
        value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    pub updates: Option<u32>,
    /// Instead of rows, a VM that scans at full speed beside one that sends to VMs it knows and one that
    /// resolves addresses by the directory
    #[arg(long, conflicts_with_all = ["updates", "cases", "pcap", "quick", "ends"])]
    pub storm: bool,
    /// Instead of comparing rows, what each pipeline stage costs in them; wants a switch that was built to
    /// measure that (cargo build --release --features stage-meter)
    #[arg(long, conflicts_with_all = ["updates", "storm", "pcap"])]
    pub stages: bool,
    /// Instead of speeds, the instructions that a frame takes, counted by valgrind: the same on each run, however busy
    /// the machine is
    #[arg(long, conflicts_with_all = ["updates", "storm", "pcap", "stages"])]
    pub instructions: bool,
    /// With --instructions: count them in this switch first, for comparison
    #[arg(long, value_name = "FILE", requires = "instructions")]
    pub beside: Option<PathBuf>,
    /// Only write the frames of the one row that --case names to this file
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Say which rows there are
    #[arg(long)]
    pub list: bool,
    /// What plays the captures of rows and updates to all contenders; a scan always has net_pcap
    #[arg(long, value_enum, value_name = "PLAYER", default_value_t = Player::Replay)]
    pub ends: Player,
    /// Without OVS-DPDK
    #[arg(long)]
    pub no_ovs: bool,
    /// Leave the folder with configurations and logs behind
    #[arg(long)]
    pub keep: bool,
    /// The switch, if not that of this program's folder
    #[arg(long, value_name = "FILE")]
    pub godwit: Option<PathBuf>,
}

impl Bench {
    /// Measures; false where a row has no figure for Godwit, or a scan is not bounded.
    ///
    /// # Errors
    /// Where nothing can be measured at all.
    pub fn run(self) -> Result<bool> {
        let rows = self.rows()?;
        if self.list {
            rows.iter().for_each(|row| println!("{row}"));
            return Ok(true);
        }
        if let Some(path) = &self.pcap {
            ensure!(rows.len() == 1, "--pcap wants --case with one row; there are {}", rows.len());
            let mean = ends::write(rows[0], path)?;
            println!("{} frames, {mean:.2} bytes in the mean", rows[0].frames());
            return Ok(true);
        }
        let mut site = Site::new(self.find_godwit()?, self.ends, self.keep)?;
        if self.instructions || self.stages {
            let guests = rows.iter().find(|r| r.case.is_vhost() && !self.cases.is_empty());
            ensure!(
                guests.is_none(),
                "rows of guests have neither --instructions nor --stages: leave them out"
            );
        }
        let alone: Vec<Row> = rows.iter().filter(|r| !r.case.is_vhost()).copied().collect();
        if self.instructions {
            return self.instructions(&mut site, &beside::with_references(&alone));
        }
        if let Some(rate) = self.updates {
            return self.updates(&site, rate);
        }
        if self.storm {
            return self.storm(&site);
        }
        if self.stages {
            return self.stages(&site, &alone);
        }
        let (mut outcomes, start) = (Vec::new(), Instant::now());
        for (n, row) in rows.iter().enumerate() {
            eprintln!("[{}/{}, {:.0} s] {row}", n + 1, rows.len(), start.elapsed().as_secs_f64());
            let outcome = self.measure(&site, *row)?;
            outcome.notes.iter().for_each(|note| eprintln!("    {note}"));
            outcomes.push(outcome);
            if let Some(path) = &self.json {
                // After each row: a run that is broken off leaves what it has.
                report::write_json(path, &outcomes, &[], &self.conditions(&site))?;
            }
        }
        let ratios = self.pairs(&site, &rows, start)?;
        if let Some(path) = &self.json {
            report::write_json(path, &outcomes, &ratios, &self.conditions(&site))?;
        }
        println!(
            "Mpps: medians of {} rounds; ratios: medians of those of a round. Captures played by {} ({}).",
            self.rounds,
            self.ends.device(),
            self.ends.name()
        );
        println!("{}", report::table(&outcomes));
        let scalings = report::scalings(&outcomes);
        if !scalings.is_empty() {
            println!("{}", report::scalings_text(&scalings));
        }
        if !ratios.is_empty() {
            println!("Two rows in turn: medians of the ratios of a round.");
            println!("{}", report::ratios_text(&ratios));
        }
        for o in &outcomes {
            o.notes.iter().for_each(|note| println!("{}: {note}", o.row));
        }
        if self.keep {
            println!("configurations and logs: {}", site.dir.display());
        }
        Ok(outcomes.iter().all(|o| o.godwit.median().is_some()))
    }

    /// The pairs among the rows, each measured by itself.
    fn pairs(&self, site: &Site, rows: &[Row], start: Instant) -> Result<Vec<Ratio>> {
        let pairs = beside::pairs(rows);
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let other = Site::new(site.godwit.clone(), site.player, self.keep)?;
        let window = Duration::from_millis(self.window_ms.into()).min(LONGEST_OF_A_PAIR);
        let mut ratios = Vec::new();
        for (n, pair) in pairs.iter().enumerate() {
            let (of, to, seconds) = (pair.of, pair.to, start.elapsed().as_secs_f64());
            eprintln!("[pair {}/{}, {seconds:.0} s] {of} beside {to}", n + 1, pairs.len());
            ratios.push(beside::measure([site, &other], pair, self.rounds, window)?);
        }
        Ok(ratios)
    }

    fn updates(&self, site: &Site, rate: u32) -> Result<bool> {
        let window = Duration::from_millis(self.window_ms.into());
        let outcome = updates::measure(site, rate, self.rounds, window)?;
        println!("{}", outcome.text());
        if let Some(path) = &self.json {
            report::write_updates(path, &outcome, &self.conditions(site))?;
        }
        Ok(true)
    }

    fn stages(&self, site: &Site, rows: &[Row]) -> Result<bool> {
        let window = Duration::from_millis(self.window_ms.into());
        let outcomes = stages::measure(site, rows, self.rounds, window)?;
        println!("{}", stages::text(&outcomes));
        if let Some(path) = &self.json {
            stages::write(path, &outcomes, &self.conditions(site))?;
        }
        Ok(true)
    }

    fn instructions(&self, site: &mut Site, rows: &[Row]) -> Result<bool> {
        let builds: Vec<PathBuf> = self.beside.iter().chain([&site.godwit]).cloned().collect();
        let window = Duration::from_millis(self.window_ms.into());
        let outcomes = instructions::measure(site, &builds, rows, window)?;
        println!("{}", instructions::text(&outcomes));
        if let Some(path) = &self.json {
            instructions::write(path, &outcomes, &self.conditions(site))?;
        }
        Ok(true)
    }

    fn storm(&self, site: &Site) -> Result<bool> {
        let outcome = storm::measure(site, self.rounds, Duration::from_millis(self.window_ms.into()))?;
        println!("{}", outcome.text());
        if let Some(path) = &self.json {
            report::write_storm(path, &outcome, &self.conditions(site))?;
        }
        Ok(outcome.holds())
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let cores = peer::Cores::online()?.0.len();
        if self.cases.is_empty() {
            return Ok(if self.quick { plan::quick() } else { plan::full(cores) });
        }
        let all = plan::full(cores);
        let mut rows = Vec::new();
        for name in &self.cases {
            rows.extend(plan::select(&all, name)?);
        }
        ensure!(!rows.is_empty(), "no row is called {}; --list says which there are", self.cases.join(", "));
        if let Some(row) = rows.iter().find(|r| r.workers > cores) {
            bail!("{row}: this machine has {cores} cores");
        }
        Ok(rows)
    }

    fn find_godwit(&self) -> Result<PathBuf> {
        let beside = std::env::current_exe().context("where am I?")?.with_file_name("godwit");
        let path = self.godwit.clone().unwrap_or(beside);
        ensure!(path.is_file(), "{} is not there: run `cargo build --release` first", path.display());
        Ok(path)
    }

    /// One row: all contenders, round by round.
    fn measure(&self, site: &Site, row: Row) -> Result<Outcome> {
        let mut outcome = Outcome::new(row);
        let ends = Ends::new(row, site)?;
        let with_ovs = match ovs::cannot(&ends) {
            _ if self.no_ovs => false,
            Some(why) => {
                outcome.notes.push(why);
                false
            }
            None => true,
        };
        let ovs_mb = if with_ovs { ovs::memory_mb(&ends) } else { 0 };
        let guests_mb = if row.case.is_vhost() { 3 * vhost::memory_mb(&ends) } else { 0 };
        memory::reserve(godwit::memory_mb(&ends) + testpmd::memory_mb(&ends) + ovs_mb + guests_mb)?;
        let mut peers: Vec<(Who, Box<dyn Peer>)> = Vec::new();
        for who in [Who::Godwit, Who::Floor, Who::Ovs] {
            if who == Who::Ovs && !with_ovs {
                continue;
            }
            match who.start(site, &ends) {
                Ok(mut peer) => {
                    peer.run(false)?;
                    peers.push((who, peer));
                }
                // The others are worth measuring all the same.
                Err(e) => {
                    let why = format!("{e:#}").split_whitespace().collect::<Vec<_>>().join(" ");
                    outcome.notes.push(format!("{} carries no such row: {why}", who.name()));
                }
            }
        }
        for round in 0..self.rounds as usize {
            for i in 0..peers.len() {
                let at = (round + i) % peers.len();
                let (who, peer) = &mut peers[at];
                self.window(*who, peer.as_mut(), &mut outcome)?;
            }
        }
        outcome.notes.dedup();
        Ok(outcome)
    }

    fn window(&self, who: Who, peer: &mut dyn Peer, outcome: &mut Outcome) -> Result<()> {
        peer.run(true)?;
        sleep(SETTLE);
        let measured = peer.measure(Duration::from_millis(self.window_ms.into()))?;
        peer.run(false)?;
        who.rates(outcome).0.push(measured.mpps);
        if let Some(note) = measured.note {
            let note = format!("{}: {note}", who.name());
            if !outcome.notes.contains(&note) {
                outcome.notes.push(note);
            }
        }
        Ok(())
    }

    fn conditions(&self, site: &Site) -> Conditions {
        let first_line = |text: String| text.lines().next().unwrap_or_default().trim().to_owned();
        let version =
            |program: &str| cmd::run(program, &["--version"]).map_or_else(|_| String::new(), first_line);
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
        let dpdk = cmd::run("dpkg-query", &["-W", "-f", "${Version}", "dpdk"]);
        Conditions {
            godwit: version(&site.godwit.display().to_string()),
            ovs: version("ovs-vsctl"),
            dpdk: dpdk.map_or_else(|_| String::new(), first_line),
            cpu: cpu.map_or_else(String::new, |(_, name)| name.to_owned()),
            cores: site.cores.0.len(),
            ends: if self.storm { Player::Pcap } else { self.ends }.name(),
            rounds: self.rounds as usize,
            seconds: f64::from(self.window_ms) / 1000.0,
        }
    }
}

/// A contender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Godwit,
    Floor,
    Ovs,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Who::Godwit => "godwit",
            Who::Floor => "testpmd",
            Who::Ovs => "ovs",
        }
    }

    fn start(self, site: &Site, ends: &Ends) -> Result<Box<dyn Peer>> {
        if ends.row.case.is_vhost() {
            return match self {
                Who::Godwit => vhost::godwit(site, ends),
                Who::Floor => vhost::floor(site, ends),
                Who::Ovs => vhost::ovs(site, ends),
            };
        }
        Ok(match self {
            Who::Godwit => Box::new(Godwit::start(site, ends)?),
            Who::Floor => Box::new(Testpmd::start(site, ends)?),
            Who::Ovs => Box::new(Ovs::start(site, ends)?),
        })
    }

    fn rates(self, outcome: &mut Outcome) -> &mut stats::Rates {
        match self {
            Who::Godwit => &mut outcome.godwit,
            Who::Floor => &mut outcome.floor,
            Who::Ovs => &mut outcome.ovs,
        }
    }
}

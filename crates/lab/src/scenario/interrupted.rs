//! Warm and cold moves: v is shut down at one switch and started at the other, with the same addresses, while its peer
//! goes on sending to it (R50, R51).
//!
//! Each life of v is a namespace of its own: nothing of its kernel survives, as with a machine that is shut down.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::{MoveMode, MoveName, MovePhase, MoveRecord, MoveStepKind, VmName, VmOperState};
use serde::Serialize;

use super::report::{self, thousands};
use super::{Common, Guests, Load};
use crate::agent::proto::{ProbeSpec, Request, TcpSpec};
use crate::clock::{now_ns, wall_us};
use crate::cmd;
use crate::lab::nve::Binaries;
use crate::lab::topology::GUEST;
use crate::lab::vm::{Vm, VmSpec};
use crate::lab::{Lab, LabSpec, VN, VNI};
use crate::mover::timeline;
use crate::traffic::run;

/// v goes to and fro between them.
const HOMES: [&str; 2] = ["a", "b"];
/// Its peer, at c.
const PEER: &str = "p";
const PROBE: u32 = 1;
const PROBE_PORT: u16 = 4001;
const TCP_PORT: u16 = 5000;
/// Everything that the lab waits for comes within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks.
const POLL: Duration = Duration::from_millis(2);
/// v is away for so long at least: long enough to see whether its peer hears of the end of its connection.
const AWAY: Duration = Duration::from_millis(1200);
/// v runs for so long before it is shut down, and after it was started.
const RUNS: Duration = Duration::from_millis(1000);
/// In pushed VNs entries go with the news; in this time on the slowest machine.
const GONE_MS: f64 = 1000.0;
/// From v's activation to its first packet (R50, R51).
const REACHED_MS: f64 = 100.0;

/// Options of `godwit-lab warm`.
#[derive(Clone, Debug, Args)]
pub struct Warm {
    #[command(flatten)]
    how: Interrupted,
}

/// Options of `godwit-lab cold`.
#[derive(Clone, Debug, Args)]
pub struct Cold {
    #[command(flatten)]
    how: Interrupted,
}

#[derive(Clone, Debug, Args)]
struct Interrupted {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// How many times the VM moves
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50))]
    moves: u32,
    /// The peer sends over IPv6
    #[arg(long)]
    v6: bool,
    /// Segments for v while it is detached: dropped, or answered by a reset
    #[arg(long, value_enum, default_value_t = OnCold::Drop)]
    on_cold: OnCold,
    /// Judge losses, questions and connections, and not how long things took
    #[arg(long)]
    no_time_limits: bool,
}

/// What becomes of segments for v while it is detached.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum OnCold {
    /// They are dropped.
    Drop,
    /// They are answered by a reset.
    Reset,
}

impl Warm {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        self.how.run(MoveMode::Warm)
    }
}

impl Cold {
    /// As [`Warm::run`].
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        self.how.run(MoveMode::Cold)
    }
}

/// A phase of a move.
#[derive(Clone, Debug, Serialize)]
struct Phase {
    step: String,
    nve: String,
    /// Since the order, in milliseconds.
    at_ms: f64,
}

/// One move.
#[derive(Clone, Debug, Serialize)]
struct Round {
    from: String,
    to: String,
    phases: Vec<Phase>,
    /// From the shutdown until no switch had an entry that leads to v, in milliseconds.
    gone_ms: f64,
    /// From the shutdown to the start, in milliseconds.
    away_ms: f64,
    /// From v's activation at its new switch until its peer sent the first packet that it got, in milliseconds.
    reached_ms: f64,
    /// Packets of the peer that nobody got, because v was away.
    lost_away: u64,
    /// Packets that v did not get while it ran.
    lost_running: u64,
    /// Questions that the directory answered from the activation on.
    queries: u64,
    /// The peer's connection heard nothing while v was away.
    tcp_silent: bool,
    /// From the end of v's entries until the peer's connection was reset, in milliseconds.
    reset_ms: Option<f64>,
    /// v's record has the addresses that it had.
    same_addresses: bool,
    passed: bool,
}

#[derive(Debug, Serialize)]
struct Outcome {
    mode: &'static str,
    rounds: Vec<Round>,
    passed: bool,
}

/// A life of v, by the name of its namespace.
struct Life {
    name: String,
    home: &'static str,
    /// The first packet of its peer that it got.
    first: u64,
}

impl Interrupted {
    fn run(&self, mode: MoveMode) -> Result<bool> {
        let bins = self.common.prepare(&[])?;
        let word = if mode == MoveMode::Warm { "warm" } else { "cold" };
        println!("Godwit lab: {word} move");
        println!(
            "  VM p at switch c sends VM v {} probes a second while v is shut down at one of the switches a and b\n  \
             and started at the other, {} times.\n",
            thousands(u64::from(self.load.spec(Guests::Netns).rate)),
            self.moves
        );
        let mut lab =
            Lab::start(&LabSpec::new(&["a", "b", "c"], false, &self.common.switch_options()), &bins)?;
        let result = self.in_lab(&mut lab, &bins, mode).map(|rounds| {
            let passed = rounds.iter().all(|r| r.passed);
            Outcome { mode: word, rounds, passed }
        });
        let outcome = report::end_or_keep(self.common.keep, &mut lab, result, |o| o.passed)?;
        print_result(&outcome);
        report::write_json_value(self.common.json.as_deref(), &serde_json::to_value(&outcome)?)?;
        Ok(outcome.passed)
    }

    fn in_lab(&self, lab: &mut Lab, bins: &Binaries, mode: MoveMode) -> Result<Vec<Round>> {
        lab.start_vm(VmSpec::numbered(PEER, 20), "c")?;
        lab.start_vm(VmSpec::numbered("v", 10), HOMES[0])?;
        if self.on_cold == OnCold::Reset {
            lab.ctl(&["vn", "set", VN, "--on-cold", "reset"])?;
        }
        let mut life = Life { name: "v".into(), home: HOMES[0], first: 0 };
        remember(lab)?;
        self.listen(lab, "v")?;
        self.send(lab)?;
        let mut rounds = Vec::new();
        for n in 1..=self.moves {
            self.connect(lab, &life.name, n)?;
            sleep(RUNS);
            let (round, next) = self.one_move(lab, bins, mode, &life, n)?;
            println!("  {}", round.line(n));
            rounds.push(round);
            life = next;
        }
        lab.check_processes()?;
        Ok(rounds)
    }

    fn spec(&self, lab: &mut Lab, from: &str, to: &str, rate: u32) -> Result<ProbeSpec> {
        let at = |ip: std::net::SocketAddr| std::net::SocketAddr::new(ip.ip(), PROBE_PORT);
        let load = self.load.spec(Guests::Netns);
        Ok(ProbeSpec {
            probe: PROBE,
            local: at(lab.address_of(from, self.v6)?),
            peer: at(lab.address_of(to, self.v6)?),
            rate,
            payload: load.payload,
            big_every: 0,
            big_payload: 0,
            interface: None,
        })
    }

    /// A life of v listens to its peer.
    fn listen(&self, lab: &mut Lab, life: &str) -> Result<()> {
        let spec = self.spec(lab, life, PEER, 0)?;
        lab.vm(life)?.agent.probe_open(spec)
    }

    /// The peer sends to v, whoever listens, until the lab ends.
    fn send(&self, lab: &mut Lab) -> Result<()> {
        let spec = self.spec(lab, PEER, "v", self.load.spec(Guests::Netns).rate)?;
        let p = &mut lab.vm(PEER)?.agent;
        p.probe_open(spec)?;
        p.probe_meet(PROBE, PATIENCE)?;
        run(p)
    }

    /// A connection of the peer to a life of v.
    fn connect(&self, lab: &mut Lab, life: &str, n: u32) -> Result<()> {
        let tcp =
            |seed| TcpSpec { seed, rate_bit: self.load.spec(Guests::Netns).tcp_rate_bit.max(1_000_000) };
        let at = lab.address_of(life, self.v6)?;
        let at = std::net::SocketAddr::new(at.ip(), TCP_PORT + n as u16);
        lab.vm(life)?.agent.tcp_listen(n, at, tcp(1))?;
        lab.vm(PEER)?.agent.tcp_connect(n, at, tcp(!1))?;
        run(&mut lab.vm(life)?.agent)
    }

    fn one_move(
        &self,
        lab: &mut Lab,
        bins: &Binaries,
        mode: MoveMode,
        old: &Life,
        n: u32,
    ) -> Result<(Round, Life)> {
        let to = if old.home == HOMES[0] { HOMES[1] } else { HOMES[0] };
        let (id, name) = (format!("{}-{n}", lab.id), format!("v{n}"));
        let before = addresses(lab)?;
        let warm = mode == MoveMode::Warm;
        if warm {
            mirror(lab, to)?;
        }
        order(lab, to, mode, &id)?;
        if warm {
            // All of it is there before v is shut down.
            self.instantiate(lab, bins, &name, to)?;
            wait_phase(lab, &id, MovePhase::Prepared)?;
        }

        let stopped = shut_down(lab, old)?;
        let gone_ms = until_gone(lab, stopped)?;
        let reset_ms = self.until_reset(lab, n)?;
        let sent = lab.vm(PEER)?.agent.probe_report(PROBE, 0)?.sent;
        let lost_running = self.lost_running(lab, old, sent)?;
        let last = received(lab, &old.name, sent)?.1;
        let port = lab.vm(&old.name)?.attached.take().context("v has no port")?;
        lab.unplug(&port)?;
        if !warm {
            report_phase(lab, &id, MovePhase::Packaged)?;
            report_phase(lab, &id, MovePhase::Sent)?;
            self.instantiate(lab, bins, &name, to)?;
        }
        report_phase(lab, &id, MovePhase::Instantiated)?;
        sleep(AWAY.saturating_sub(stopped.elapsed()));
        let tcp_silent = lab.vm(PEER)?.agent.tcp_status(n)?.error.is_none();

        let asked = queries(lab)?;
        let away_ms = stopped.elapsed().as_secs_f64() * 1000.0;
        self.start(lab, &name, to)?;
        let record = wait_phase(lab, &id, MovePhase::Done)?;
        sleep(RUNS);
        let queries = queries(lab)? - asked;
        let sent = lab.vm(PEER)?.agent.probe_report(PROBE, 0)?.sent;
        let first = received(lab, &name, sent)?.0;
        let reached_ms = since_activation(lab, &record, to, first)?;
        println!("{}", lab.ctl(&["move", "show", &id])?);
        let mut round = Round {
            from: old.home.into(),
            to: to.into(),
            phases: phases(&record),
            gone_ms,
            away_ms,
            reached_ms,
            lost_away: first.saturating_sub(last + 1),
            lost_running,
            queries,
            tcp_silent,
            reset_ms,
            same_addresses: addresses(lab)? == before && record.mode() == mode,
            passed: false,
        };
        round.passed = round.is_good(warm, self);
        Ok((round, Life { name, home: to, first }))
    }

    /// Waits until the peer's connection to a life of v that is detached is reset, where it is to be; how long that
    /// took.
    fn until_reset(&self, lab: &mut Lab, n: u32) -> Result<Option<f64>> {
        let since = Instant::now();
        while self.on_cold == OnCold::Reset && since.elapsed() < AWAY {
            let error = lab.vm(PEER)?.agent.tcp_status(n)?.error;
            if let Some(error) = error {
                ensure!(error.contains("reset"), "the peer's connection ended otherwise: {error}");
                return Ok(Some(since.elapsed().as_secs_f64() * 1000.0));
            }
            sleep(POLL);
        }
        Ok(None)
    }

    /// A new life of v, that does not run yet, with its port.
    fn instantiate(&self, lab: &mut Lab, bins: &Binaries, name: &str, to: &str) -> Result<()> {
        let spec = VmSpec { name: name.into(), ..VmSpec::numbered("v", 10) };
        let vm = Vm::start(spec, &lab.namespace(name), bins, &lab.dir)?;
        lab.vms.insert(name.into(), vm);
        let port = lab.plug(name, to)?;
        // Its tap is there; what it is connected to comes with its start.
        lab.vm(name)?.prepared = Some(port);
        self.listen(lab, name)
    }

    fn start(&self, lab: &mut Lab, name: &str, to: &str) -> Result<()> {
        let vm = lab.vm(name)?;
        let port = vm.prepared.take().context("v has no port")?;
        ensure!(port.nve == to, "v's port is at {}", port.nve);
        vm.attach(&port)?;
        vm.announce(false)
    }

    /// Packets that a life of v did not get between the first and the last that it got.
    fn lost_running(&self, lab: &mut Lab, life: &Life, sent: u64) -> Result<u64> {
        let report = lab.vm(&life.name)?.agent.probe_report(PROBE, sent)?;
        let inside = report.missing.iter().filter(|(from, to)| *from > life.first && *to + 1 < sent);
        Ok(inside.map(|(from, to)| to - from + 1).sum())
    }
}

/// The first and the last packet of its peer that a life of v got, of so many.
fn received(lab: &mut Lab, life: &str, sent: u64) -> Result<(u64, u64)> {
    let report = lab.vm(life)?.agent.probe_report(PROBE, sent)?;
    ensure!(report.received > 0, "{life} got nothing of its peer");
    let first = report.missing.first().filter(|m| m.0 == 0).map_or(0, |m| m.1 + 1);
    let last = report.missing.last().filter(|m| m.1 + 1 == sent).map_or(sent - 1, |m| m.0.saturating_sub(1));
    Ok((first, last))
}

/// From v's activation to when its peer sent the first packet that v got, in milliseconds.
fn since_activation(lab: &mut Lab, record: &MoveRecord, to: &str, first: u64) -> Result<f64> {
    let activated = record.steps.iter().find(|s| s.what() == MoveStepKind::Activated && s.nve == to);
    let activated = activated.context("the move has no activation")?.at_us as i64;
    let at_ns = lab.vm(PEER)?.agent.sent_at(PROBE, vec![first])?[0];
    let at_us = wall_us() as i64 - (now_ns().saturating_sub(at_ns) / 1000) as i64;
    Ok((at_us - activated) as f64 / 1000.0)
}

/// The peer knows v's addresses for good: what its kernel does meanwhile is not what is measured.
fn remember(lab: &mut Lab) -> Result<()> {
    let (v, namespace) = (lab.vm("v")?.spec.clone(), lab.vm(PEER)?.namespace.clone());
    for ip in &v.ips {
        let (ip, mac) = (ip.to_string(), v.mac.to_string());
        cmd::run_in(
            &namespace,
            "ip",
            &["neigh", "replace", &ip, "lladdr", &mac, "dev", GUEST, "nud", "permanent"],
        )?;
    }
    Ok(())
}

/// The recorded ones, of both families.
fn addresses(lab: &Lab) -> Result<[Vec<Vec<u8>>; 2]> {
    let record = lab.nva.operator.show_vm(VmName { name: "v".into() })?;
    Ok([record.ipv4, record.ipv6])
}

fn mirror(lab: &Lab, to: &str) -> Result<()> {
    let request = v1::SetMirrorRequest { vm: "v".into(), nve: to.into(), interval_s: 30 };
    lab.nva.operator.set_mirror(request)?;
    lab.nva.operator.vm_mirrored(v1::VmMirroredRequest { vm: "v".into(), at_us: 0 }).map(drop)
}

fn order(lab: &Lab, to: &str, mode: MoveMode, id: &str) -> Result<()> {
    let mut order = v1::StartMoveRequest {
        vm: "v".into(),
        to: to.into(),
        mode: mode.into(),
        id: id.into(),
        accept_interruption: false,
    };
    ensure!(lab.nva.operator.start_move(order.clone()).is_err(), "an interruption was not to be accepted");
    order.accept_interruption = true;
    lab.nva.operator.start_move(order).map(drop)
}

/// The guest's programs and kernel stand still for good, and its manager says so to its switch; when it began to.
fn shut_down(lab: &mut Lab, life: &Life) -> Result<Instant> {
    lab.vm(&life.name)?.agent.order(&Request::Pause)?;
    lab.vm(&life.name)?.pause()?;
    let port = lab.vm(&life.name)?.attached.clone().context("v has no port")?.port;
    let said = Instant::now();
    for state in [VmOperState::Shuttingdown, VmOperState::Shutdown] {
        let word = v1::SetVmState { port: port.clone(), state: state.into() };
        lab.nve(life.home)?.admin.ask(Ask::SetVmState(word))?;
    }
    Ok(said)
}

/// Waits until no switch has an entry that leads to v; since when, in milliseconds.
fn until_gone(lab: &Lab, since: Instant) -> Result<f64> {
    let mac = VmSpec::numbered("v", 10).mac.to_u64();
    let leads = |lab: &Lab| -> Result<bool> {
        for nve in lab.nves.values() {
            let entries = nve.admin.entries(VNI)?;
            let mut of_v = entries.iter().filter(|e| e.key.is_some_and(|k| k.mac == mac));
            if of_v.any(|e| !e.nve.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    while leads(lab)? {
        ensure!(since.elapsed() < PATIENCE, "there are entries of v after {PATIENCE:?}");
        sleep(POLL);
    }
    Ok(since.elapsed().as_secs_f64() * 1000.0)
}

fn report_phase(lab: &Lab, id: &str, phase: MovePhase) -> Result<()> {
    let request = v1::ReportMoveRequest { id: id.into(), phase: phase.into() };
    let record = lab.nva.operator.report_move(request)?;
    ensure!(record.phase() == phase, "move {id} is {}", record.phase().as_str_name());
    Ok(())
}

/// Questions that the directory has answered.
fn queries(lab: &Lab) -> Result<u64> {
    let all = lab.nva.operator.get_counters(v1::GetCounters { all: true })?.counters;
    let one = all.iter().find(|c| c.name == "queries_answered");
    Ok(one.context("the NVA does not count queries")?.value)
}

fn wait_phase(lab: &mut Lab, id: &str, wanted: MovePhase) -> Result<MoveRecord> {
    let began = Instant::now();
    loop {
        let record = lab.nva.operator.show_move(MoveName { id: id.into() })?;
        if record.phase() == wanted {
            return Ok(record);
        }
        if began.elapsed() > PATIENCE {
            lab.check_processes()?;
            bail!("move {id} is not {} in {PATIENCE:?}:\n{}", wanted.as_str_name(), timeline(&record));
        }
        sleep(POLL);
    }
}

fn phases(record: &MoveRecord) -> Vec<Phase> {
    let start = record.steps.first().map_or(0, |s| s.at_us);
    let phase = |s: &v1::MoveStep| Phase {
        step: s.what().as_str_name().trim_start_matches("MOVE_STEP_KIND_").to_ascii_lowercase(),
        nve: s.nve.clone(),
        at_ms: (s.at_us as i64 - start as i64) as f64 / 1000.0,
    };
    record.steps.iter().map(phase).collect()
}

impl Round {
    fn is_good(&self, warm: bool, how: &Interrupted) -> bool {
        let soon = how.no_time_limits || self.reached_ms <= REACHED_MS && self.gone_ms <= GONE_MS;
        let connection = match how.on_cold {
            OnCold::Drop => self.tcp_silent,
            OnCold::Reset => self.reset_ms.is_some(),
        };
        let asked = warm && self.queries > 0;
        soon && !asked && self.lost_running == 0 && connection && self.same_addresses
    }

    fn connection(&self) -> String {
        match (self.reset_ms, self.tcp_silent) {
            (Some(ms), _) => format!("reset after {ms:.1} ms"),
            (None, true) => "silent".into(),
            (None, false) => "ENDED".into(),
        }
    }

    fn line(&self, n: u32) -> String {
        format!(
            "move {n}: {} to {}, away {:.0} ms; entries gone after {:.1} ms; reached {:.1} ms after its activation; \
             lost {} while away, {} while it ran; queries {}; TCP {}, addresses {}: {}\n",
            self.from,
            self.to,
            self.away_ms,
            self.gone_ms,
            self.reached_ms,
            thousands(self.lost_away),
            self.lost_running,
            self.queries,
            self.connection(),
            if self.same_addresses { "the same" } else { "OTHERS" },
            if self.passed { "good" } else { "BAD" }
        )
    }
}

fn print_result(o: &Outcome) {
    let worst = |of: fn(&Round) -> f64| o.rounds.iter().map(of).fold(0.0, f64::max);
    println!(
        "  {} {} moves: entries gone after {:.1} ms, reached {:.1} ms after the activation, at most.",
        o.rounds.len(),
        o.mode,
        worst(|r| r.gone_ms),
        worst(|r| r.reached_ms)
    );
    println!("\n{}", if o.passed { "PASSED" } else { "FAILED" });
}

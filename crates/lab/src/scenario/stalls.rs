//! One process stands still for a while in the midst of a hot move: a guest, a switch or the NVA. Ten seconds after it
//! goes on, every VM must be reached by every other, though none of them has said a word of itself.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::report;
use super::{Common, Guests, ip_version};
use crate::cmd;
use crate::guest::qemu::{GuestSpec, QEMU};
use crate::guest::standard_image;
use crate::lab::delay::duration;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::mover::{How, Moved, hot_move};
use crate::random::Dice;

/// The switches that the VM goes around.
const ROUND: [&str; 3] = ["a", "b", "c"];
/// The VM that moves.
const V: &str = "v";
/// The VMs that stay, and where.
const STAY: [(&str, u8, &str); 2] = [("p", 20, "c"), ("q", 30, "b")];
/// All are reached so long after the end of the stall.
const REACHED: Duration = Duration::from_secs(10);

/// Options of `godwit-lab stalls`.
#[derive(Clone, Debug, Args)]
pub struct Stalls {
    #[command(flatten)]
    common: Common,
    /// What the VM that moves is made of
    #[arg(long, value_enum, default_value = "netns", value_name = "KIND")]
    guests: Guests,
    /// How many times the VM moves, something standing still each time
    #[arg(long, default_value_t = 20, value_name = "N")]
    count: u32,
    /// Seed of who stands still, when, and for how long
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest stall
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    longest: Duration,
    /// Outer IP version
    #[arg(long, default_value_t = 4, value_name = "4|6", value_parser = ip_version)]
    outer: u8,
}

/// Who stands still, from when after the order on, and for how long.
#[derive(Clone, Debug)]
struct Stall {
    who: String,
    pid: u32,
    after: Duration,
    lasts: Duration,
}

/// How one move went.
struct Outcome {
    moved: Moved,
    /// From the end of the stall, or of the move where that came later, until all were reached.
    reached: Option<Duration>,
    /// Pairs that were not.
    unreached: Vec<String>,
}

impl Stalls {
    /// Runs the scenario and prints its report; false where a VM was not reached in time.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let mut tools = vec!["ping"];
        if self.guests == Guests::Qemu {
            tools.extend([QEMU, "busybox"]);
        }
        let bins = self.common.prepare(&tools)?;
        println!(
            "Godwit lab: stalls\n  VM v moves {} times around a, b, c; each time a guest, a switch or the NVA \
             stands still for up to {:?} (seed {}).\n  {} s after its end every VM must be reached; none of \
             them speaks first.\n",
            self.count,
            self.longest,
            self.seed,
            REACHED.as_secs()
        );
        let spec = LabSpec::new(&ROUND, self.outer == 6, &self.common.switch_options());
        let mut lab = Lab::start(&spec, &bins)?;
        let result = self.in_lab(&mut lab);
        report::end_or_keep(self.common.keep, &mut lab, result, |good| *good)
    }

    fn in_lab(&self, lab: &mut Lab) -> Result<bool> {
        for (name, number, nve) in STAY {
            lab.start_vm(VmSpec::numbered(name, number), nve)?;
        }
        let v = VmSpec::numbered(V, 10);
        match self.guests {
            Guests::Netns => lab.start_vm(v, ROUND[0])?,
            Guests::Qemu => {
                let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
                lab.start_guest(&v, GuestSpec::new(V, &kernel, &image), ROUND[0], 1).map(drop)?;
            }
        }
        println!("  lab {} ready", lab.id);
        let (mut dice, mut failed) = (Dice::new(self.seed), 0);
        for n in 1..=self.count {
            let here = lab.place_of(V)?;
            let at = ROUND.iter().position(|r| *r == here).context("v is at none of the switches")?;
            let to = ROUND[(at + 1) % ROUND.len()];
            let stall = self.roll(lab, &mut dice, (&here, to))?;
            let outcome =
                self.one_move(lab, n, to, &stall).with_context(|| format!("move {n}, {stall:?}"))?;
            let good = outcome.unreached.is_empty() && outcome.moved.done();
            failed += u32::from(!good);
            println!("  {}", line(n, &stall, &outcome, good));
            if !good {
                println!("{}", crate::mover::timeline(&outcome.moved.record));
            }
        }
        lab.check_processes()?;
        let word = if failed == 0 { "PASSED" } else { "FAILED" };
        println!(
            "\n{word}: {} of {} stalls ended with every VM reached in time.",
            self.count - failed,
            self.count
        );
        Ok(failed == 0)
    }

    /// Draws who, when and how long: mostly short ones, so that all points of a move are met.
    fn roll(&self, lab: &mut Lab, dice: &mut Dice, (from, to): (&str, &str)) -> Result<Stall> {
        let third = ROUND.into_iter().find(|r| *r != from && *r != to).unwrap_or(ROUND[0]);
        let (who, pid) = match dice.between(0, 6) {
            0 => ("guest v".to_owned(), self.guest_pid(lab)?),
            1 => (format!("the old switch, {from}"), lab.nve(from)?.process.id()),
            2 => (format!("the new switch, {to}"), lab.nve(to)?.process.id()),
            3 => (format!("the third switch, {third}"), lab.nve(third)?.process.id()),
            _ => ("the NVA".to_owned(), lab.nva.process_id()),
        };
        let pid = pid.with_context(|| format!("{who} was not started by this lab"))?;
        // A namespace's move takes a fifth of a second, a guest's one or two.
        let points = if self.guests == Guests::Qemu { 2_500 } else { 250 };
        let after = Duration::from_millis(dice.between(0, points));
        let longest = self.longest.as_millis() as u64;
        let most = if dice.between(0, 3) == 0 { longest } else { longest.min(longest / 6 + 1_000) };
        let lasts = Duration::from_millis(dice.between(200.min(most), most + 1));
        Ok(Stall { who, pid, after, lasts })
    }

    /// The process that is v: QEMU, or the software in its namespace.
    fn guest_pid(&self, lab: &mut Lab) -> Result<Option<u32>> {
        match self.guests {
            Guests::Netns => Ok(lab.vm(V)?.process.id()),
            Guests::Qemu => Ok(lab.guest(V)?.process.id()),
        }
    }

    fn one_move(&self, lab: &mut Lab, n: u32, to: &str, stall: &Stall) -> Result<Outcome> {
        let struck = stall.clone();
        let striker = std::thread::spawn(move || strike(&struck));
        let how = How { silent: true, ..How::default() };
        let moved = hot_move(lab, V, to, &format!("{}-move-{n}", lab.id), how);
        let ended = striker.join().map_err(|_| anyhow::anyhow!("the striker panicked"))??;
        // The move may have come to its end later.
        let ended = ended.max(Instant::now());
        let moved = moved?;
        // Who was asked answers; who asks stands where nothing stood still, as far as there is one.
        let pairs = [("q", V), ("p", V), ("q", "p"), ("p", "q"), (V, "q"), (V, "p")];
        let asked_by_v = self.guests == Guests::Netns;
        let mut left: Vec<(&str, &str, bool)> = pairs
            .into_iter()
            .filter(|(from, _)| *from != V || asked_by_v)
            .flat_map(|(from, to)| [(from, to, false), (from, to, true)])
            .collect();
        loop {
            let mut unreached = Vec::new();
            for (from, to, v6) in left {
                if !pings(lab, from, to, v6)? {
                    unreached.push((from, to, v6));
                }
            }
            left = unreached;
            let took = ended.elapsed();
            if left.is_empty() || took > REACHED {
                let reached = left.is_empty().then_some(took).filter(|t| *t <= REACHED);
                let mut unreached: Vec<String> = left
                    .iter()
                    .map(|(a, b, v6)| format!("{a} -> {b} over IPv{}", if *v6 { 6 } else { 4 }))
                    .collect();
                if reached.is_none() && unreached.is_empty() {
                    unreached.push(format!("all, but after {:.1} s", took.as_secs_f64()));
                }
                return Ok(Outcome { moved, reached, unreached });
            }
        }
    }
}

/// Stops the process and lets it go on; when that was.
fn strike(stall: &Stall) -> Result<Instant> {
    let pid = Pid::from_raw(i32::try_from(stall.pid)?);
    sleep(stall.after);
    kill(pid, Signal::SIGSTOP).with_context(|| format!("SIGSTOP to {}", stall.who))?;
    sleep(stall.lasts);
    kill(pid, Signal::SIGCONT).with_context(|| format!("SIGCONT to {}", stall.who))?;
    Ok(Instant::now())
}

/// One echo request, answered within a second.
pub(super) fn pings(lab: &mut Lab, from: &str, to: &str, v6: bool) -> Result<bool> {
    let target = lab.address_of(to, v6)?.ip().to_string();
    let family = if v6 { "-6" } else { "-4" };
    let namespace = lab.vm(from)?.namespace.clone();
    let said = cmd::run_in(&namespace, "ping", &[family, "-n", "-c", "1", "-W", "1", &target]);
    match said {
        Ok(_) => Ok(true),
        Err(e) if format!("{e:#}").contains("not found") => bail!("{e:#}"),
        Err(_) => Ok(false),
    }
}

fn line(n: u32, stall: &Stall, outcome: &Outcome, good: bool) -> String {
    let (from, to) = (&outcome.moved.from, &outcome.moved.to);
    let what = match outcome.reached {
        Some(t) if good => format!("all reached {:.1} s after", t.as_secs_f64()),
        _ if !outcome.moved.done() => "the move was called off".into(),
        _ => format!("NOT reached in time: {}", outcome.unreached.join(", ")),
    };
    format!(
        "{n:>3}  {from} -> {to}  {:<24} stands still at {:>5} ms for {:>6.1} s: {what}",
        stall.who,
        stall.after.as_millis(),
        stall.lasts.as_secs_f64()
    )
}

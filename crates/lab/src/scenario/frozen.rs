//! A sender that hears nothing of moves (R43, R47, R48): its session with the NVA is cut, and at first the datagrams
//! of other switches are kept from it too.
//!
//! While it is deaf, the old switch forwards for it and nothing is lost. Once it can be told, it goes straight to the
//! new switch, and so it does after further moves, within 50 ms of its first stale packet.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use godwit_wire::peer;
use serde::Serialize;

use super::report::{self, thousands};
use super::{Common, Guests, Load, finish, talk, with_agents};
use crate::cmd;
use crate::lab::topology::MANAGEMENT;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::mover::{How, Moved, hot_move};
use crate::traffic::{Talk, run};

/// v moves between a and b, p at c sends to it.
const PAIR: (&str, &str) = ("v", "p");
/// A sender that can be told goes straight after so long (R47).
const LIMIT_MS: f64 = 50.0;
/// So many moves may take longer, where the machine keeps a switch from its core, before that counts.
const MOVES: u32 = 8;
/// How long it may take until nothing is forwarded any more, and until a switch says what it forwarded.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is forwarded after a move has been counted by then.
const COUNTED: Duration = Duration::from_secs(1);

/// Options of `godwit-lab frozen-sender`.
#[derive(Clone, Debug, Args)]
pub struct FrozenSender {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// Seconds for which the sender can be told nothing at all
    #[arg(long, default_value_t = 6.0, value_name = "S")]
    deaf: f64,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Packets that the old switch forwarded in the last half second in which the sender was deaf.
    forwarded_while_deaf: u64,
    /// And in a second, when it had been told.
    forwarded_after: u64,
    /// Redirects that the sender's switch followed.
    redirects_used: u64,
    /// From the first to the last packet that was forwarded at a move of which it could be told, in milliseconds; the
    /// least of those moves.
    forwarding_ms: f64,
    /// Those moves.
    moves: u32,
    talk: Talk,
    passed: bool,
}

impl FrozenSender {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[])?;
        println!("Godwit lab: frozen sender");
        println!(
            "  VM v moves from switch a to b and back; VM p at c sends it {} probes a second. The session of c \n  \
             with the NVA is cut, and for {} s nothing that a switch tells it arrives.\n",
            thousands(u64::from(self.load.spec(Guests::Netns).rate)),
            self.deaf,
        );
        let spec = LabSpec::new(&["a", "b", "c"], false, &self.common.switch_options());
        let mut lab = Lab::start(&spec, &bins)?;
        let result = self.in_lab(&mut lab);
        let outcome = report::end(&mut lab, result, |r| r.passed)?;
        print_result(&outcome);
        report::write_json_value(self.common.json.as_deref(), &serde_json::to_value(&outcome)?)?;
        Ok(outcome.passed)
    }

    fn in_lab(&self, lab: &mut Lab) -> Result<Outcome> {
        prepare_deafness(lab)?;
        lab.start_vm(VmSpec::numbered("p", 20), "c")?;
        lab.start_vm(VmSpec::numbered("v", 10), "a")?;
        // b is a member of the VN before c is cut off.
        lab.start_vm(VmSpec::numbered("w", 30), "b")?;
        let traffic = talk(lab, 1, self.load.spec(Guests::Netns), false, PAIR)?;
        with_agents(lab, PAIR, |v, p| run(p).and_then(|()| run(v)))?;
        sleep(Duration::from_millis(500));
        cmd::ip_batch(&lab.namespace("c"), &[format!("link set {MANAGEMENT} down")])?;
        deafen(lab, true)?;
        hot_move(lab, PAIR.0, "b", &format!("{}-out", lab.id), How::default())?;
        sleep(Duration::from_secs_f64(self.deaf));
        let forwarded_while_deaf = forwarded_in(lab, "a", Duration::from_millis(500))?;
        deafen(lab, false)?;
        let forwarded_after = forwarded_at_last(lab, "a")?;
        let (forwarding_ms, moves) = to_and_fro(lab)?;
        let redirects_used = counter(lab, "c", "redirects_used")?;
        let talk = finish(lab, &traffic, PAIR)?;
        lab.check_processes()?;
        let whole = [&talk.a_to_b, &talk.b_to_a].iter().all(|s| s.lost == 0 && s.duplicated == 0);
        let passed = whole
            && forwarded_while_deaf > 0
            && forwarded_after == 0
            && redirects_used >= 2
            && forwarding_ms <= LIMIT_MS;
        Ok(Outcome {
            forwarded_while_deaf,
            forwarded_after,
            redirects_used,
            forwarding_ms,
            moves,
            talk,
            passed,
        })
    }
}

/// Moves v back, then to and fro until the sender was told in time. The least time of forwarding, and how many moves
/// there were.
fn to_and_fro(lab: &mut Lab) -> Result<(f64, u32)> {
    let mut least = f64::INFINITY;
    for n in 1..=MOVES {
        let to = if n % 2 == 1 { "a" } else { "b" };
        let moved = hot_move(lab, PAIR.0, to, &format!("{}-back-{n}", lab.id), How::default())?;
        least = least.min(forwarding_ms(lab, moved)?);
        if least <= LIMIT_MS {
            return Ok((least, n));
        }
    }
    Ok((least, MOVES))
}

/// For how long the old switch of a move forwarded, as far as it did.
fn forwarding_ms(lab: &Lab, mut moved: Moved) -> Result<f64> {
    sleep(COUNTED);
    let give_up = Instant::now() + PATIENCE;
    loop {
        moved.refresh(&lab.nva)?;
        let counts = moved.record.counts.iter().find(|c| c.nve == moved.from).and_then(|c| c.counts);
        if let Some(counts) = counts.filter(|c| c.forwarded > 0) {
            return Ok(counts.last_forward_us.saturating_sub(counts.first_forward_us) as f64 / 1000.0);
        }
        ensure!(Instant::now() < give_up, "switch {} forwarded nothing, or did not say so", moved.from);
        sleep(Duration::from_millis(50));
    }
}

/// Gives the wire to c a class with a queue without room, past which all goes. Made before anything flows: a change
/// of the queues themselves loses what is in them.
fn prepare_deafness(lab: &Lab) -> Result<()> {
    tc(lab, "qdisc add dev u-c root handle 1: htb default 0")?;
    tc(lab, "class add dev u-c parent 1: classid 1:2 htb rate 1gbit")?;
    tc(lab, "qdisc add dev u-c parent 1:2 pfifo limit 0")
}

/// Keeps the datagrams of other switches from c, or lets them pass.
fn deafen(lab: &Lab, deaf: bool) -> Result<()> {
    if !deaf {
        return tc(lab, "filter delete dev u-c parent 1:");
    }
    let what = format!("match ip protocol 17 0xff match ip dport {} 0xffff", peer::PORT);
    tc(lab, &format!("filter add dev u-c parent 1: protocol ip u32 {what} flowid 1:2"))
}

fn tc(lab: &Lab, line: &str) -> Result<()> {
    let net = lab.namespace("net");
    let args: Vec<&str> = ["-n", &net].into_iter().chain(line.split(' ')).collect();
    cmd::run("tc", &args).map(drop)
}

fn counter(lab: &Lab, nve: &str, name: &str) -> Result<u64> {
    let counters = lab.nve(nve)?.admin.counters()?;
    Ok(counters.iter().filter(|c| c.name == name).map(|c| c.value).sum())
}

/// What a switch forwards in flight within this time.
fn forwarded_in(lab: &Lab, nve: &str, time: Duration) -> Result<u64> {
    let before = counter(lab, nve, "forwarded_in_flight")?;
    sleep(time);
    Ok(counter(lab, nve, "forwarded_in_flight")? - before)
}

/// What a switch forwards in flight within a second, once that is nothing; or after a long while.
fn forwarded_at_last(lab: &Lab, nve: &str) -> Result<u64> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let forwarded = forwarded_in(lab, nve, Duration::from_secs(1))?;
        if forwarded == 0 || Instant::now() > give_up {
            return Ok(forwarded);
        }
    }
}

fn print_result(o: &Outcome) {
    let (out, back) = (&o.talk.b_to_a, &o.talk.a_to_b);
    println!("  to v:   sent {}, lost {}, duplicated {}", thousands(out.sent), out.lost, out.duplicated);
    println!("  from v: sent {}, lost {}, duplicated {}", thousands(back.sent), back.lost, back.duplicated);
    println!("  forwarded by a in 0.5 s while c could not be told: {}", thousands(o.forwarded_while_deaf));
    println!("  forwarded by a in 1 s, when it had been told:      {}", thousands(o.forwarded_after));
    println!("  redirects that c followed: {}", o.redirects_used);
    println!(
        "  told at once: forwarded for {:.1} ms at best of {} move(s), at most {LIMIT_MS} ms allowed",
        o.forwarding_ms, o.moves
    );
    println!("\n{}", if o.passed { "PASSED" } else { "FAILED" });
}

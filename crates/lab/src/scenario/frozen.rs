//! A sender that hears nothing of moves (R43, R47, R48): its session with the NVA is cut, and at first the datagrams
//! of other switches are kept from it too.
//!
//! While it is deaf, the old switch forwards for it and nothing is lost. Once it can be told, it goes straight to the
//! new switch, and so it does after the next move, within 50 ms of its first stale packet.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use godwit_wire::peer;
use serde::Serialize;

use super::report::{self, thousands};
use super::{Common, Guests, Load, finish, talk, with_agents};
use crate::cmd;
use crate::lab::topology::MANAGEMENT;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::mover::{How, hot_move};
use crate::traffic::{Talk, run};

/// v moves from a to b and back, p at c sends to it.
const PAIR: (&str, &str) = ("v", "p");
/// A sender that can be told goes straight after so long (R47).
const LIMIT_MS: f64 = 50.0;

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
    /// And in a second, one second after it could be told.
    forwarded_after: u64,
    /// Redirects that the sender's switch followed.
    redirects_used: u64,
    /// From the first to the last packet that was forwarded at the second move, in milliseconds.
    forwarding_ms: f64,
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
        if !matches!(&result, Ok(r) if r.passed) {
            lab.keep_logs();
            println!("{}", report::diagnosis(&mut lab));
        }
        let outcome = result.with_context(|| format!("logs in {}", lab.dir.display()))?;
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
        sleep(Duration::from_secs(1));
        let forwarded_after = forwarded_in(lab, "a", Duration::from_secs(1))?;
        let mut back = hot_move(lab, PAIR.0, "a", &format!("{}-back", lab.id), How::default())?;
        sleep(Duration::from_secs(1));
        back.refresh(&lab.nva)?;
        let counts = back.record.counts.iter().find(|c| c.nve == "b").and_then(|c| c.counts);
        let counts = counts.context("switch b did not say what it forwarded")?;
        let forwarding_ms = counts.last_forward_us.saturating_sub(counts.first_forward_us) as f64 / 1000.0;
        let redirects_used = counter(lab, "c", "redirects_used")?;
        let talk = finish(lab, &traffic, PAIR)?;
        lab.check_processes()?;
        let whole = [&talk.a_to_b, &talk.b_to_a].iter().all(|s| s.lost == 0 && s.duplicated == 0);
        let passed = whole
            && forwarded_while_deaf > 0
            && forwarded_after == 0
            && redirects_used >= 2
            && counts.forwarded > 0
            && forwarding_ms <= LIMIT_MS;
        Ok(Outcome { forwarded_while_deaf, forwarded_after, redirects_used, forwarding_ms, talk, passed })
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

fn print_result(o: &Outcome) {
    let (out, back) = (&o.talk.b_to_a, &o.talk.a_to_b);
    println!("  to v:   sent {}, lost {}, duplicated {}", thousands(out.sent), out.lost, out.duplicated);
    println!("  from v: sent {}, lost {}, duplicated {}", thousands(back.sent), back.lost, back.duplicated);
    println!("  forwarded by a in 0.5 s while c could not be told: {}", thousands(o.forwarded_while_deaf));
    println!("  forwarded by a in 1 s, one second after it could:  {}", thousands(o.forwarded_after));
    println!("  redirects that c followed: {}", o.redirects_used);
    println!("  second move: b forwarded for {:.1} ms, at most {LIMIT_MS} ms allowed", o.forwarding_ms);
    println!("\n{}", if o.passed { "PASSED" } else { "FAILED" });
}

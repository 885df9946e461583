//! The same VM at two switches (R21): while the first one lives, the second is refused and nobody notices it; when the
//! first one has hung, the second gets its place after three seconds of silence.
//!
//! The first is Linux under QEMU, which answers the switch's question with its own kernel, or does not because that
//! has panicked. The second is what an operator starts when he believes the first dead.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;
use godwit_api::v1::{ListMovesRequest, MoveRecord, MoveStepKind, VmName};
use serde::Serialize;

use super::report::{self, thousands};
use super::{Common, Guests, Load, finish, talk, with_agents};
use crate::guest::qemu::{GuestSpec, QEMU};
use crate::guest::standard_image;
use crate::lab::nve::Binaries;
use crate::lab::vm::{Attachment, Vm, VmSpec};
use crate::lab::{Lab, LabSpec};
use crate::mover::timeline;
use crate::traffic::{Talk, run};

/// v runs at a, and talks to p at c.
const PAIR: (&str, &str) = ("v", "p");
/// Its second self comes up at b, and talks to q at c.
const SECOND_PAIR: (&str, &str) = ("s", "q");
const SECOND: &str = SECOND_PAIR.0;
/// A verdict, an answer at once or three seconds of silence, comes within this time from the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// An emulated kernel has panicked within this time.
const PANIC: Duration = Duration::from_secs(60);

/// Options of `godwit-lab split-brain`.
#[derive(Clone, Debug, Args)]
pub struct SplitBrain {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Outcome {
    /// From the second one's announcement to its refusal, in milliseconds.
    refused_ms: f64,
    /// What v and p sent each other from before the second one came until after it was refused.
    talk: Talk,
    /// From its announcement to its grant, once v hung, in milliseconds.
    granted_ms: f64,
    /// What it and q sent each other then.
    after: Talk,
    passed: bool,
}

impl SplitBrain {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[QEMU, "busybox"])?;
        println!("Godwit lab: split brain");
        println!(
            "  VM v, Linux under QEMU at switch a, and VM p at switch c send each other {} probes a second.\n  \
             A second v comes up at b: first while v lives, then when v's kernel has panicked.\n",
            thousands(u64::from(self.load.spec(Guests::Qemu).rate)),
        );
        let mut lab =
            Lab::start(&LabSpec::new(&["a", "b", "c"], false, &self.common.switch_options()), &bins)?;
        let result = self.in_lab(&mut lab, &bins);
        let outcome = report::end(&mut lab, result, |r| r.passed)?;
        print_result(&outcome);
        report::write_json_value(self.common.json.as_deref(), &serde_json::to_value(&outcome)?)?;
        Ok(outcome.passed)
    }

    fn in_lab(&self, lab: &mut Lab, bins: &Binaries) -> Result<Outcome> {
        let v = VmSpec::numbered(PAIR.0, 10);
        lab.start_vm(VmSpec::numbered(PAIR.1, 20), "c")?;
        lab.start_vm(VmSpec::numbered(SECOND_PAIR.1, 21), "c")?;
        let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
        lab.start_guest(&v, GuestSpec::new(PAIR.0, &kernel, &image), "a", 1)?;
        let second = VmSpec { name: SECOND.into(), ..v };
        let second = Vm::start(second, &lab.namespace(SECOND), bins, &lab.dir)?;
        lab.vms.insert(SECOND.into(), second);

        let spec = self.load.spec(Guests::Qemu);
        let traffic = talk(lab, 1, spec, false, PAIR)?;
        with_agents(lab, PAIR, |v, p| run(p).and_then(|()| run(v)))?;
        sleep(Duration::from_secs(1));
        let (port, refused, refused_ms) = second_comes(lab)?;
        println!("  While v lives:\n{}", timeline(&refused));
        sleep(Duration::from_secs(1));
        let place = location(lab)?;
        let talk_of_two = finish(lab, &traffic, PAIR)?;
        lab.unplug(&port)?;
        lab.vm(SECOND)?.attached = None;

        hang(lab)?;
        let (_, granted, granted_ms) = second_comes(lab)?;
        println!("  When v hangs:\n{}", timeline(&granted));
        let traffic = talk(lab, 1, spec, false, SECOND_PAIR)?;
        with_agents(lab, SECOND_PAIR, |s, q| run(q).and_then(|()| run(s)))?;
        sleep(Duration::from_secs(1));
        let after = finish(lab, &traffic, SECOND_PAIR)?;
        for record in [&refused, &granted] {
            println!("  godwitctl move show {}:\n{}", record.id, lab.ctl(&["move", "show", &record.id])?);
        }
        lab.check_processes()?;

        let judged = place == "a"
            && answer(&refused).contains("it answered")
            && location(lab)? == "b"
            && answer(&granted).contains("it answered nothing")
            && granted_ms >= 3000.0;
        let passed = judged && whole(&talk_of_two) && whole(&after);
        Ok(Outcome { refused_ms, talk: talk_of_two, granted_ms, after, passed })
    }
}

/// Connects v's second self to b, where it announces itself. Its port; the record of its claim, when v's old switch has
/// given its word; and the time from its first frame on until then, in milliseconds.
fn second_comes(lab: &mut Lab) -> Result<(Attachment, MoveRecord, f64)> {
    let known = unplanned(lab)?.len();
    let attachment = lab.plug(SECOND, "b")?;
    let started = Instant::now();
    lab.vm(SECOND)?.attach(&attachment)?;
    lab.vm(SECOND)?.announce(false)?;
    while started.elapsed() < PATIENCE {
        let records = unplanned(lab)?;
        if let Some(record) = records.get(known).filter(|r| !answer(r).is_empty()) {
            return Ok((attachment, record.clone(), started.elapsed().as_secs_f64() * 1000.0));
        }
        sleep(Duration::from_millis(5));
    }
    bail!("v was claimed by b, and there was no verdict within {PATIENCE:?}")
}

/// The records of what nobody ordered, in their order.
fn unplanned(lab: &Lab) -> Result<Vec<MoveRecord>> {
    let request = ListMovesRequest { vm: PAIR.0.into(), ..Default::default() };
    Ok(lab.nva.operator.list_moves(request)?.moves)
}

/// What the old switch said.
fn answer(record: &MoveRecord) -> &str {
    let answered = record.steps.iter().find(|s| s.what() == MoveStepKind::Answered);
    answered.map_or("", |s| &s.note)
}

fn location(lab: &Lab) -> Result<String> {
    let record = lab.nva.operator.show_vm(VmName { name: PAIR.0.into() })?;
    Ok(record.location.map(|l| l.nve).unwrap_or_default())
}

/// Lets v's kernel panic: QEMU goes on, its rings stay where they are, and nobody answers.
fn hang(lab: &mut Lab) -> Result<()> {
    let line = "echo 0 > /proc/sys/kernel/panic; (sleep 0.2; echo c > /proc/sysrq-trigger) >/dev/null 2>&1 &";
    let guest = lab.guest(PAIR.0)?;
    guest.sh(line)?;
    let give_up = Instant::now() + PANIC;
    while !String::from_utf8_lossy(&fs::read(&guest.files.console)?).contains("Kernel panic") {
        ensure!(!guest.process.ended()?, "QEMU ended with its guest");
        ensure!(Instant::now() < give_up, "v's kernel has not panicked in {PANIC:?}");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn whole(talk: &Talk) -> bool {
    let faultless = |s: &crate::traffic::Stream| s.sent > 0 && (s.lost, s.duplicated, s.corrupt) == (0, 0, 0);
    faultless(&talk.a_to_b) && faultless(&talk.b_to_a)
}

fn print_result(o: &Outcome) {
    let line = |who: &str, talk: &Talk| {
        for (way, s) in [("from", &talk.a_to_b), ("to", &talk.b_to_a)] {
            let sent = thousands(s.sent);
            println!("    {way:<4} {who}: sent {sent}, lost {}, duplicated {}", s.lost, s.duplicated);
        }
    };
    println!("  refused after {:.0} ms; v and p meanwhile:", o.refused_ms);
    line("v", &o.talk);
    println!("  granted after {:.0} ms; the second v and q then:", o.granted_ms);
    line("v", &o.after);
    println!("\n{}", if o.passed { "PASSED" } else { "FAILED" });
}

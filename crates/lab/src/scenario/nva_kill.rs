//! The NVA is killed in the middle of moves and started again: every move ends in one owner, all
//! agree on it, and VMs that do not move notice nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use godwit_api::v1::{Entry, ListVmsRequest, VmKey, VmRecord};

use super::report::{self, MoveLine};
use super::{Common, Guests, Load, ip_version, talk, with_agents};
use crate::agent::proto::Request;
use crate::lab::nve::Nva;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec, VNI};
use crate::mover::{How, Moved, hot_move};
use crate::random::Dice;
use crate::traffic::{Stream, Talk, Traffic, drain, run};

const ROUND: [&str; 3] = ["a", "b", "c"];
/// How long directory and switches may take to agree after the last restart.
const AGREE_PATIENCE: Duration = Duration::from_secs(20);
const PAUSE_BETWEEN: Duration = Duration::from_millis(500);

/// Options of `godwit-lab nva-kill`.
#[derive(Clone, Debug, Args)]
pub struct NvaKill {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// How many times the VM moves, the NVA being killed each time
    #[arg(long, default_value_t = 10, value_name = "N")]
    moves: u32,
    /// Seed of the times at which the NVA is killed and started again
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Inner IP version
    #[arg(long, default_value_t = 4, value_name = "4|6", value_parser = ip_version)]
    inner: u8,
    /// Outer IP version
    #[arg(long, default_value_t = 4, value_name = "4|6", value_parser = ip_version)]
    outer: u8,
}

/// When the NVA dies and comes back in one move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blow {
    pub(super) kill_after: Duration,
    pub(super) dead_for: Duration,
}

impl Blow {
    /// The next one, at some time in a move: those of namespaces mostly take a tenth of a second, those of guests a
    /// second or two.
    pub(super) fn roll(dice: &mut Dice, guests: Guests) -> Blow {
        let longest = if guests == Guests::Qemu { 1500 } else { 110 };
        Blow {
            kill_after: Duration::from_millis(dice.between(0, longest)),
            dead_for: Duration::from_millis(dice.between(20, 600)),
        }
    }
}

impl NvaKill {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[])?;
        println!(
            "Godwit lab: NVA killed\n  VM v moves {} times around a, b, c while the NVA is killed and started \
             again (seed {}).\n  \
             VMs p and q stay where they are and must lose nothing.\n",
            self.moves, self.seed
        );
        let spec = LabSpec::new(&ROUND, self.outer == 6, &self.common.switch_options());
        let mut lab = Lab::start(&spec, &bins)?;
        let result = self.in_lab(&mut lab);
        report::end_or_keep(self.common.keep, &mut lab, result, |good| *good)
    }

    fn in_lab(&self, lab: &mut Lab) -> Result<bool> {
        for (name, number, nve) in [("p", 20, "c"), ("q", 30, "b"), ("v", 10, "a")] {
            lab.start_vm(VmSpec::numbered(name, number), nve)?;
        }
        let v6 = self.inner == 6;
        let moving = talk(lab, 1, self.load.spec(Guests::Netns), v6, ("v", "p"))?;
        let staying = talk(lab, 2, self.load.spec(Guests::Netns), v6, ("q", "p"))?;
        println!("  lab {} ready", lab.id);
        for name in ["p", "q", "v"] {
            run(&mut lab.vm(name)?.agent)?;
        }
        let outcomes = self.moves(lab)?;
        let agreement = wait_agreement(lab);
        for name in ["p", "q", "v"] {
            lab.vm(name)?.agent.order(&Request::Stop)?;
        }
        let mut judge = |pair, talk: Traffic| {
            with_agents(lab, pair, |a, b| {
                drain(std::slice::from_ref(&talk), a, b)?;
                talk.judge(a, b)
            })
        };
        let (moving, staying) = (judge(("v", "p"), moving)?, judge(("q", "p"), staying)?);
        lab.check_processes()?;
        self.verdict(&outcomes, &agreement, &moving, &staying)
    }

    fn moves(&self, lab: &mut Lab) -> Result<Vec<Moved>> {
        let mut dice = Dice::new(self.seed);
        let mut outcomes = Vec::new();
        for n in 1..=self.moves {
            let blow = Blow::roll(&mut dice, Guests::Netns);
            let here = lab.vm("v")?.attached.clone().map(|a| a.nve).unwrap_or_default();
            let at = ROUND.iter().position(|r| *r == here).context("v is at none of the switches")?;
            let to = ROUND[(at + 1) % ROUND.len()];
            let nva = lab.nva.clone();
            let killer = thread::spawn(move || strike(&nva, blow));
            let moved = hot_move(lab, "v", to, &format!("{}-move-{n}", lab.id), How::default());
            killer.join().map_err(|_| anyhow::anyhow!("the killer panicked"))??;
            let moved = moved.with_context(|| format!("move {n}, NVA killed after {:?}", blow.kill_after))?;
            let (ms, dead) = (blow.kill_after.as_millis(), blow.dead_for.as_millis());
            let how = if moved.done() { "" } else { "  (called off)" };
            println!(
                "  {}  NVA killed at {ms:>3} ms for {dead:>3} ms{how}",
                MoveLine::new(n, &moved).brief()
            );
            outcomes.push(moved);
            thread::sleep(PAUSE_BETWEEN);
        }
        Ok(outcomes)
    }

    fn verdict(&self, moves: &[Moved], agreement: &Agreement, moving: &Talk, staying: &Talk) -> Result<bool> {
        let line = |name: &str, s: &Stream| {
            println!(
                "  {name}: {} sent, {} lost, {} duplicated, {} reordered, longest gap {:.1} ms",
                report::thousands(s.sent),
                report::thousands(s.lost),
                s.duplicated,
                s.reordered,
                s.gap_ms_max
            );
        };
        println!();
        line("q to p (stay)  ", &staying.a_to_b);
        line("p to q (stay)  ", &staying.b_to_a);
        line("v to p (v moves)", &moving.a_to_b);
        line("p to v (v moves)", &moving.b_to_a);
        let done = moves.iter().filter(|m| m.done()).count();
        println!("  {done} of {} moves done, {} called off", moves.len(), moves.len() - done);
        for difference in &agreement.differences {
            println!("  disagreement: {difference}");
        }
        let alive = |t: &Talk| t.tcp.as_ref().is_none_or(|t| t.alive);
        let unharmed = |s: &Stream| s.lost == 0 && s.duplicated == 0 && s.corrupt == 0;
        let stayed = unharmed(&staying.a_to_b) && unharmed(&staying.b_to_a) && alive(staying);
        let agreed = agreement.differences.is_empty();
        let passed = stayed && agreed && alive(moving);
        report::write_json_value(
            self.common.json.as_deref(),
            &serde_json::json!({
                "scenario": "nva-kill", "seed": self.seed, "moves": moves.len(), "moves_done": done,
                "agreed": agreed, "owners": agreement.owners, "staying": staying, "moving": moving,
                "passed": passed,
            }),
        )?;
        if passed {
            println!("\nPASSED: one owner for every VM, directory and switches agree, p and q lost nothing.");
        } else {
            println!("\nFAILED: see above.");
        }
        Ok(passed)
    }
}

/// Kills the NVA and starts it again.
pub(super) fn strike(nva: &Arc<Nva>, blow: Blow) -> Result<()> {
    thread::sleep(blow.kill_after);
    nva.kill9()?;
    thread::sleep(blow.dead_for);
    nva.launch()?;
    nva.wait_ready()
}

/// Where the directory has each VM, and who sees it otherwise.
#[derive(Default)]
struct Agreement {
    owners: BTreeMap<String, String>,
    differences: Vec<String>,
}

/// Compares the directory with all switches until they agree or it has taken too long.
fn wait_agreement(lab: &Lab) -> Agreement {
    let give_up = Instant::now() + AGREE_PATIENCE;
    loop {
        let seen = compare(lab)
            .unwrap_or_else(|e| Agreement { differences: vec![format!("{e:#}")], ..Agreement::default() });
        if seen.differences.is_empty() || Instant::now() > give_up {
            return seen;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn compare(lab: &Lab) -> Result<Agreement> {
    let mut seen = Agreement::default();
    let vms = lab.nva.operator.list_vms(ListVmsRequest::default())?.vms;
    for vm in &vms {
        let Some(owner) = vm.location.as_ref().map(|l| l.nve.clone()) else {
            seen.differences.push(format!("the directory has VM {} nowhere", vm.name));
            continue;
        };
        if !vm.moving.is_empty() {
            seen.differences.push(format!("VM {} is still in move {}", vm.name, vm.moving));
        }
        seen.owners.insert(vm.name.clone(), owner);
    }
    for name in lab.nves.keys() {
        compare_switch(lab, name, &vms, &mut seen)?;
    }
    Ok(seen)
}

fn compare_switch(lab: &Lab, nve: &str, vms: &[VmRecord], seen: &mut Agreement) -> Result<()> {
    let admin = &lab.nve(nve)?.admin;
    if !admin.status()?.nva_connected {
        bail!("switch {nve} has no session with the NVA");
    }
    let (ports, entries) = (admin.ports()?, admin.entries(VNI)?);
    for vm in vms {
        let owner = seen.owners.get(&vm.name).map_or("", String::as_str);
        let active = ports.iter().filter(|p| same(p.key, vm.key) && p.state == "activated").count();
        if active != usize::from(owner == nve) {
            seen.differences
                .push(format!("switch {nve} has {active} active ports of {}, owner {owner:?}", vm.name));
        }
        let entry = entries.iter().find(|e| same(e.key, vm.key));
        if let Some(text) = entry.and_then(|e| differs(e, vm, nve == owner)) {
            seen.differences.push(format!("switch {nve}, VM {}: {text}", vm.name));
        } else if entry.is_none() {
            seen.differences.push(format!("switch {nve} does not know VM {}", vm.name));
        }
    }
    Ok(())
}

fn same(a: Option<VmKey>, b: Option<VmKey>) -> bool {
    a.is_some() && a == b
}

/// What a switch's entry says otherwise than the directory.
fn differs(entry: &Entry, vm: &VmRecord, here: bool) -> Option<String> {
    let owner = vm.location.as_ref().map_or("", |l| l.nve.as_str());
    if (entry.state == "local") != here {
        return Some(format!("it is {} here, and the directory has it at {owner}", entry.state));
    }
    if !here && entry.nve != owner {
        return Some(format!("{} at {:?}, and the directory has it at {owner}", entry.state, entry.nve));
    }
    (entry.version != vm.version)
        .then(|| format!("version {:?}, and the directory has {:?}", entry.version, vm.version))
}

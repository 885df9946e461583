//! How a lab ends: what went wrong in it, and how to play with one that stays.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::Run;
use crate::agent::proto::Gap;
use crate::clock::ms;
use crate::lab::Lab;
use crate::lab::process::tail;
use crate::traffic::Missing;

/// Ends a scenario's lab. Where the scenario failed or is not `good`, its logs stay, and what is in them is shown.
///
/// # Errors
/// The scenario's, with the folder of the logs.
pub fn end<T>(lab: &mut Lab, result: Result<T>, good: impl FnOnce(&T) -> bool) -> Result<T> {
    if !result.as_ref().is_ok_and(good) {
        lab.keep_logs();
        println!("{}", diagnosis(lab));
    }
    result.with_context(|| format!("logs in {}", lab.dir.display()))
}

/// Like [`end`]; with `keep` the lab stays, and it is shown how to play with it.
///
/// # Errors
/// As of [`end`]; also where the lab cannot stay.
pub fn end_or_keep<T>(
    keep: bool,
    lab: &mut Lab,
    result: Result<T>,
    good: impl FnOnce(&T) -> bool,
) -> Result<T> {
    let ended = end(lab, result, good);
    if keep {
        lab.keep()?;
        println!("\n{}", playground(lab));
    }
    ended
}

/// What went wrong in a run, and where to look.
pub fn complaint(lab: &mut Lab, run: &Run) -> String {
    let mut text = String::from("      Something went wrong in this run.\n");
    for (name, stream) in [("v to p", &run.from_v), ("p to v", &run.to_v)] {
        for m in stream.missing.iter().take(8) {
            let _ = writeln!(text, "      lost {name}: {}", describe(m, &run.pauses));
        }
    }
    if let Some(error) = &run.tcp_error {
        let _ = writeln!(text, "      TCP: {error}");
    }
    if run.kernel_drops > 0 {
        let _ = writeln!(text, "      this machine's own kernel dropped {} frames", run.kernel_drops);
    }
    text + &diagnosis(lab)
}

/// A range of lost packets, relative to the nearest pause.
fn describe(m: &Missing, pauses: &[Gap]) -> String {
    let distance = |p: &Gap| m.sent_ns.abs_diff(p.from_ns);
    let nearest = pauses.iter().zip(1..).min_by_key(|(p, _)| distance(p));
    let place = nearest.map_or(String::new(), |(p, n)| {
        let side = if m.sent_ns < p.from_ns { "before" } else { "after" };
        let paused = ms(p.to_ns - p.from_ns);
        format!(", first sent {:.1} ms {side} v paused for move {n} ({paused:.1} ms long)", ms(distance(p)))
    });
    format!("#{}..{} ({} packets){place}", m.first, m.last, m.last - m.first + 1)
}

/// What each switch dropped, and the end of every log.
pub fn diagnosis(lab: &mut Lab) -> String {
    let mut text = String::new();
    for nve in lab.nves.values() {
        let counters = nve.admin.counters().unwrap_or_default();
        for c in counters.iter().filter(|c| c.drop && c.value > 0) {
            let who = if c.device { "device".into() } else { format!("worker {}", c.worker) };
            let _ = writeln!(
                text,
                "      switch {} {who} {} dropped {} × {} ({})",
                nve.name, c.port, c.value, c.name, c.help
            );
        }
    }
    for log in lab.logs() {
        // A kernel that dies says why first, and then where it was, at length.
        let end = tail(&log, if log.extension().is_some_and(|e| e == "console") { 60 } else { 8 });
        if !end.is_empty() {
            let _ = writeln!(text, "    the end of {}:\n{end}", log.display());
        }
    }
    text
}

/// How to play with a lab that stays.
pub fn playground(lab: &Lab) -> String {
    let (nva, me) = (lab.namespace("nva"), lab.bins.lab.display());
    let mut text = format!(
        "\nLab {} stays. The operator's command reaches the NVA from its namespace:\n\n  \
         ctl='ip netns exec {nva} {} {}'\n\n",
        lab.id,
        lab.bins.ctl.display(),
        lab.nva.ctl_flags().join(" ")
    );
    let switch = lab.nves.keys().next_back().map_or("a", String::as_str);
    for line in ["nve list", "vm list", "vm show v", "move list", &format!("counters --nve {switch}")] {
        let _ = writeln!(text, "  $ctl {line}");
    }
    let attached = lab.vms.get("v").and_then(|v| v.attached.as_ref()).map(|a| &a.nve);
    let here = attached.or(lab.placed.get("v").map(|p| &p.port.nve)).map_or("", String::as_str);
    if let Some(elsewhere) = lab.nves.keys().find(|n| *n != here) {
        let _ = write!(
            text,
            "\nMove a VM, with the lab as its hypervisor:\n\n  {me} move {} v {elsewhere}\n  \
             $ctl move show play-1\n",
            lab.id
        );
    }
    text += "\nThe VMs:\n\n";
    for vm in lab.vms.values() {
        let ips: Vec<String> = vm.spec.ips.iter().map(ToString::to_string).collect();
        let _ =
            writeln!(text, "  ip netns exec {} bash    # {}: {}", vm.namespace, vm.spec.name, ips.join(" "));
    }
    for (name, guest) in &lab.guests {
        let ips =
            lab.placed.get(name).map(|p| p.spec.ips.iter().map(ToString::to_string).collect::<Vec<_>>());
        let (ips, console) = (ips.unwrap_or_default().join(" "), guest.files.console.display());
        let _ = writeln!(text, "  tail -f {console}    # {name}, a guest of QEMU: {ips}");
    }
    let _ = write!(
        text,
        "\nConfigurations and logs: {}\nTake it down: {me} down {}\n",
        lab.dir.display(),
        lab.id
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_placed_in_time() {
        let pauses = [Gap::between(1_000_000, 9_000_000), Gap::between(90_000_000, 99_000_000)];
        let text = describe(&Missing { first: 5, last: 7, sent_ns: 92_000_000 }, &pauses);
        assert!(
            text.contains("#5..7 (3 packets)") && text.contains("2.0 ms after v paused for move 2"),
            "{text}"
        );
    }
}

//! The same guest, the same migrations and the same probes over Godwit's switches and over OVS-DPDK.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use super::hot_move::{HotMove, LATE_COUNTS};
use super::ovs_guests;
use super::ovs_pair::{Pair, Setup};
use super::report::{Run, thousands};
use super::{Common, Guests, Load};
use crate::clock::{ms, now_ns, wall_us};
use crate::guest::migrate::Migration;
use crate::guest::qemu::QEMU;
use crate::lab::nve::Binaries;
use crate::lab::topology::GUEST_MTU;
use crate::lab::{Lab, LabSpec};
use crate::traffic::{Traffic, run};

/// Options of `godwit-lab compare`.
#[derive(Clone, Debug, Args)]
pub struct Compare {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// How many times the VM migrates over each
    #[arg(long, default_value_t = 10, value_name = "N")]
    moves: u32,
    /// Seconds of traffic around each migration
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    duration_per_move: f64,
}

/// What became of the guest's talk over one of them.
#[derive(Clone, Debug, Serialize)]
struct Row {
    system: &'static str,
    migrations: u32,
    sent: u64,
    lost: u64,
    duplicated: u64,
    tcp_alive: bool,
    /// QEMU's own, each migration's, in milliseconds.
    downtime_ms: Vec<u64>,
    /// The silence at the peer around each migration, in milliseconds.
    gap_ms: Vec<f64>,
}

impl Compare {
    /// Runs all and prints the table; false where Godwit lost or doubled anything.
    ///
    /// # Errors
    /// Where one cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[QEMU, "busybox", "ovs-vsctl"])?;
        ensure!(ovs_guests::is_there(), "OVS-DPDK is missing: install the package openvswitch-switch-dpdk");
        println!(
            "Godwit lab: the same guest over Godwit and over OVS-DPDK, {} migrations each\n",
            self.moves
        );
        let common = Common { json: None, keep: false, ..self.common.clone() };
        let scenario = HotMove::of_a_guest(common, self.load.clone(), self.moves, self.duration_per_move);
        let mut rows = vec![Row::godwit(&scenario.combination(4, 4, &bins, None)?)];
        for setup in Setup::ALL {
            println!("{}", setup.name());
            rows.push(self.over_ovs(setup, &bins).with_context(|| setup.name())?);
        }
        print!("\n{}", table(&rows));
        if let Some(path) = &self.common.json {
            let text = serde_json::to_string_pretty(&rows)?;
            std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("\nThe same as JSON: {}", path.display());
        }
        Ok(rows[0].lost == 0 && rows[0].duplicated == 0 && rows[0].tcp_alive)
    }

    fn over_ovs(&self, setup: Setup, bins: &Binaries) -> Result<Row> {
        // A lab without switches: for its namespaces, which go with it.
        let lab = Lab::start(&LabSpec::new(&[], false, &self.common.switch_options()), bins)?;
        let mut pair = Pair::start(&lab, &self.common, setup)?;
        let load = self.load.spec(Guests::Qemu);
        let (mut at_v, mut at_p) = pair.ends();
        let traffic = Traffic::open(1, load, GUEST_MTU, &mut at_v, &mut at_p)?;
        run(&mut pair.peer)?;
        run(&mut pair.guest.agent)?;
        let half = Duration::from_secs_f64(self.duration_per_move / 2.0);
        let (mut downtime_ms, mut gap_ms) = (Vec::new(), Vec::new());
        for n in 1..=self.moves {
            std::thread::sleep(half);
            let migration = pair.migrate(n)?;
            std::thread::sleep(half.max(LATE_COUNTS));
            let gap = silence(&mut pair, &migration)?;
            println!(
                "      migration {n:<2}  QEMU's downtime {:>3} ms  gap {gap:>6.1} ms",
                migration.downtime_ms
            );
            downtime_ms.push(migration.downtime_ms);
            gap_ms.push(gap);
        }
        let talk = traffic.finish(&mut pair.guest.agent, &mut pair.peer)?;
        let sum = |f: fn(&crate::traffic::Stream) -> u64| f(&talk.a_to_b) + f(&talk.b_to_a);
        Ok(Row {
            system: setup.name(),
            migrations: self.moves,
            sent: sum(|s| s.sent),
            lost: sum(|s| s.lost),
            duplicated: sum(|s| s.duplicated),
            tcp_alive: talk.tcp.is_none_or(|t| t.alive),
            downtime_ms,
            gap_ms,
        })
    }
}

/// The longest silence at the peer that the guest's stop was a part of, in milliseconds.
fn silence(pair: &mut Pair, migration: &Migration) -> Result<f64> {
    let (now, wall) = (now_ns(), wall_us());
    let at_ns = |us: u64| now.saturating_sub(wall.saturating_sub(us) * 1000);
    let (from, to) = (at_ns(migration.stopped_us), at_ns(migration.resumed_us.unwrap_or(wall)));
    let gaps = pair.peer.probe_report(1, 0)?.gaps;
    let around = gaps.iter().filter(|g| g.to_ns + 1_000_000 > from && g.from_ns < to + 1_000_000);
    Ok(around.map(|g| ms(g.to_ns - g.from_ns)).fold(0.0, f64::max))
}

impl Row {
    fn godwit(run: &Run) -> Row {
        Row {
            system: "Godwit, three NVEs, VXLAN",
            migrations: run.moves as u32,
            sent: run.sent,
            lost: run.lost,
            duplicated: run.duplicated,
            tcp_alive: run.tcp_alive,
            downtime_ms: run.timeline.iter().filter_map(|m| m.vm_downtime_ms).collect(),
            gap_ms: run.timeline.iter().filter_map(|m| m.gap_ms).collect(),
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(0.0)
}

/// For people: medians of downtimes and gaps, and the longest gap.
fn table(rows: &[Row]) -> String {
    let head = ("", "moves", "sent", "lost", "dup.", "downtime", "gap", "longest");
    let (a, b, c, d, e, f, g, h) = head;
    let mut text = format!("{a:<34}{b:>6}{c:>10}{d:>8}{e:>6}{f:>10}{g:>9}{h:>9}  TCP\n");
    for r in rows {
        let downtime = median(r.downtime_ms.iter().map(|d| *d as f64).collect());
        let longest = r.gap_ms.iter().copied().fold(0.0, f64::max);
        let (sent, lost, tcp) =
            (thousands(r.sent), thousands(r.lost), if r.tcp_alive { "alive" } else { "DEAD" });
        text += &format!(
            "{:<34}{:>6}{sent:>10}{lost:>8}{:>6}{downtime:>7.0} ms{:>6.0} ms{longest:>6.0} ms  {tcp}\n",
            r.system,
            r.migrations,
            r.duplicated,
            median(r.gap_ms.clone()),
        );
    }
    text + "sent: both ways together. downtime: QEMU's own, gap: the silence at the peer; medians.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_with_its_medians() {
        let row = |system, lost, gap_ms| Row {
            system,
            migrations: 3,
            sent: 12_345,
            lost,
            duplicated: 0,
            tcp_alive: true,
            downtime_ms: vec![9, 7, 30],
            gap_ms,
        };
        let text = table(&[row("one", 0, vec![100.0, 20.0, 30.0]), row("other", 714, vec![1.0])]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["one", "3", "12,345", "0", "0", "9", "ms", "30", "ms", "100", "ms", "alive"]);
        assert_eq!(lines[2][3], "714");
    }
}

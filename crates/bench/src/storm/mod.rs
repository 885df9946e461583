//! A VM that scans at full speed (R67): what it costs the VMs beside it, and what the directory hears of it.
//!
//! One worker has three VMs: one that sends as fast as it can to VMs that it knows, one that asks for addresses that
//! only the directory knows, and their neighbor. A worker divides its time among its ports by bursts, so a neighbor
//! that sends at full speed takes its share whatever it sends. What a scan costs is therefore said beside a neighbor
//! that sends as many ordinary frames of the same length, and, to show all of it, beside one that sends nothing. A
//! switch for each neighbor is started, and all stand still but the one that is measured.

mod resolver;
mod switch;

use std::time::Duration;

use anyhow::Result;
use serde::{Serialize, Serializer};

use self::switch::{MEMORY_MB, Switch, Window};
use crate::peer::{SETTLE, Site};
use crate::stats::{Rates, median};
use crate::{memory, stillness};

/// What a port may ask the directory in a second, as the switch has it where nobody configures it.
const QUESTIONS: f64 = 50.0;
/// R67: others' resolution stays below this many milliseconds.
const RESOLUTION_MS: f64 = 20.0;
/// R67: the share of throughput that others keep at least.
const KEPT: f64 = 0.95;
/// A question more at either end of a window.
const EDGES: f64 = 2.0;

/// What the third VM does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbor {
    /// Nothing.
    Silent,
    /// Sends to VMs that it knows.
    Ordinary,
    /// Asks for the addresses of a /8 by ARP.
    Arp,
    /// Sends to MAC addresses that nobody has.
    Unknown,
}

impl Neighbor {
    const ALL: [Neighbor; 4] = [Neighbor::Silent, Neighbor::Ordinary, Neighbor::Arp, Neighbor::Unknown];

    /// Its name in tables, files and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Neighbor::Silent => "silent",
            Neighbor::Ordinary => "ordinary",
            Neighbor::Arp => "arp-scan",
            Neighbor::Unknown => "unknown-macs",
        }
    }

    fn is_storm(self) -> bool {
        matches!(self, Neighbor::Arp | Neighbor::Unknown)
    }
}

impl Serialize for Neighbor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// What was seen beside one neighbor.
#[derive(Debug, Serialize)]
pub struct Beside {
    /// The neighbor.
    pub neighbor: Neighbor,
    /// Frames of the steady VM that went out, in millions a second, a round each.
    pub steady_mpps: Rates,
    /// The median of the ratios to the ordinary neighbor's round.
    pub over_ordinary: Option<f64>,
    /// Frames that came from the neighbor, in millions a second.
    pub neighbor_mpps: Rates,
    /// Ticks of the time stamp counter that a frame took, medians: the steady VM's, the neighbor's.
    pub ticks: [Option<f64>; 2],
    /// Questions of the neighbor that reached the directory, a second: the most in a round.
    pub questions_per_second: f64,
    /// From a question of the VM that asks to its answer, in milliseconds: median, 99th percentile, maximum.
    pub resolution_ms: Option<[f64; 3]>,
    /// Questions that were put.
    pub resolutions: usize,
    /// Of these, those without an answer within ten seconds.
    pub unanswered: usize,
}

/// What a scan does.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// By neighbor.
    pub beside: Vec<Beside>,
    /// Seconds of a window.
    pub seconds: f64,
}

/// Measures `rounds` windows beside each neighbor.
///
/// # Errors
/// Where a switch does not start or tells no figures.
pub fn measure(site: &Site, rounds: u32, window: Duration) -> Result<Outcome> {
    // What asks and answers shall not take the worker's core.
    stillness::stay_on(site.cores.main())?;
    memory::reserve(MEMORY_MB * Neighbor::ALL.len())?;
    let mut switches = Vec::new();
    for (neighbor, number) in Neighbor::ALL.into_iter().zip(0..) {
        let mut switch = Switch::start(site, neighbor, number)?;
        switch.run(false)?;
        switches.push((switch, Vec::new()));
    }
    for round in 0..rounds as usize {
        for i in 0..switches.len() {
            let at = (round + i) % switches.len();
            let Some((switch, windows)) = switches.get_mut(at) else { continue };
            switch.run(true)?;
            // The burst that a rested VM may ask at once is over by then.
            std::thread::sleep(SETTLE);
            windows.push(switch.measure(window)?);
            switch.run(false)?;
        }
    }
    let all: Vec<Beside> =
        switches.iter().map(|(switch, windows)| beside(switch.neighbor, windows)).collect();
    Ok(Outcome { beside: compared(all), seconds: window.as_secs_f64() })
}

fn beside(neighbor: Neighbor, windows: &[Window]) -> Beside {
    let rates = |of: fn(&Window) -> f64| Rates(windows.iter().map(of).collect());
    let resolutions: Vec<_> = windows.iter().flat_map(|w| w.resolutions.iter().copied()).collect();
    let mut took: Vec<f64> = resolutions.iter().flatten().map(|d| d.as_secs_f64() * 1e3).collect();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get((share * took.len() as f64) as usize).or(took.last()).copied();
    Beside {
        neighbor,
        steady_mpps: rates(|w| w.steady_mpps),
        over_ordinary: None,
        neighbor_mpps: rates(|w| w.neighbor_mpps),
        ticks: [0, 1].map(|i| median(&windows.iter().filter_map(|w| w.ticks[i]).collect::<Vec<_>>())),
        questions_per_second: windows.iter().map(|w| w.neighbor_questions).fold(0.0, f64::max),
        resolution_ms: at(0.5).zip(at(0.99)).zip(took.last()).map(|((p50, p99), max)| [p50, p99, *max]),
        unanswered: resolutions.len() - took.len(),
        resolutions: resolutions.len(),
    }
}

fn compared(mut all: Vec<Beside>) -> Vec<Beside> {
    let ordinary = all.iter().find(|b| b.neighbor == Neighbor::Ordinary).map(|b| b.steady_mpps.clone());
    for b in &mut all {
        b.over_ordinary = ordinary.as_ref().and_then(|o| b.steady_mpps.ratio(o));
    }
    all
}

impl Beside {
    /// What R67 promises, and is not so.
    fn complaints(&self, seconds: f64) -> Vec<String> {
        let mut all = Vec::new();
        if self.resolutions == 0 || self.unanswered > 0 {
            let (lost, put) = (self.unanswered, self.resolutions);
            all.push(format!("{lost} of others' {put} questions were never answered"));
        }
        if !self.neighbor.is_storm() {
            return all;
        }
        if self.questions_per_second > QUESTIONS + EDGES / seconds {
            all.push(format!(
                "{:.1} of its questions a second reached the directory",
                self.questions_per_second
            ));
        }
        if self.questions_per_second <= 0.0 {
            all.push("not one of its questions reached the directory".into());
        }
        if let Some([_, p99, _]) = self.resolution_ms.filter(|[_, p99, _]| *p99 >= RESOLUTION_MS) {
            all.push(format!(
                "others' questions took {p99:.1} ms at the 99th percentile, and not below {RESOLUTION_MS}"
            ));
        }
        match self.over_ordinary {
            Some(kept) if kept < KEPT => {
                all.push(format!("others kept {kept:.3} of their throughput, and not {KEPT}"));
            }
            None => all.push("what others kept of their throughput is not known".into()),
            Some(_) => {}
        }
        all
    }
}

impl Outcome {
    /// What R67 promises, and is not so, by neighbor. Times and throughput need a machine that does nothing else.
    pub fn complaints(&self) -> Vec<String> {
        let of = |b: &Beside| -> Vec<String> {
            b.complaints(self.seconds).iter().map(|c| format!("{}: {c}", b.neighbor.name())).collect()
        };
        self.beside.iter().flat_map(of).collect()
    }

    /// All that R67 promises of a scan is so.
    pub fn holds(&self) -> bool {
        self.complaints().is_empty()
    }

    /// As people read it.
    pub fn text(&self) -> String {
        let or = |v: Option<f64>, digits: usize| v.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"));
        let mut text = String::from(
            "one worker; a VM's throughput and another's resolution, by what their neighbor sends:\n",
        );
        for b in &self.beside {
            let [p50, p99, max] = b.resolution_ms.unwrap_or_default();
            text += &format!(
                "{:<13} {} Mpps ({} of ordinary), neighbor {} Mpps; ticks a frame {} and {}; its questions at most \
                 {:.1}/s; {} resolutions: median {p50:.1} ms, 99 % {p99:.1}, longest {max:.1}, {} unanswered\n",
                b.neighbor.name(),
                or(b.steady_mpps.median(), 2),
                or(b.over_ordinary, 3),
                or(b.neighbor_mpps.median(), 2),
                or(b.ticks[0], 0),
                or(b.ticks[1], 0),
                b.questions_per_second,
                b.resolutions,
                b.unanswered,
            );
        }
        match self.complaints().as_slice() {
            [] => text += "PASSED: a scan costs others no more than it may\n",
            all => text += &format!("FAILED: a scan costs others too much:\n{}\n", all.join("\n")),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storm() -> Outcome {
        let all = Neighbor::ALL.map(|neighbor| Beside {
            neighbor,
            steady_mpps: Rates(vec![2.0]),
            over_ordinary: None,
            neighbor_mpps: Rates(vec![2.0]),
            ticks: [None; 2],
            questions_per_second: if neighbor.is_storm() { 50.0 } else { 0.0 },
            resolution_ms: Some([1.0, 8.0, 30.0]),
            resolutions: 50,
            unanswered: 0,
        });
        Outcome { beside: compared(all.into()), seconds: 1.0 }
    }

    #[test]
    fn r67_a_scan_that_costs_others_too_much_fails_and_says_what_it_cost() {
        assert!(storm().holds());
        type Break = fn(&mut Beside);
        let breaks: [(Break, &str); 6] = [
            (
                |b| b.over_ordinary = Some(0.94),
                "arp-scan: others kept 0.940 of their throughput, and not 0.95",
            ),
            (|b| b.over_ordinary = None, "not known"),
            (|b| b.resolution_ms = Some([1.0, 20.0, 30.0]), "took 20.0 ms at the 99th percentile"),
            (|b| b.questions_per_second = 53.0, "53.0 of its questions a second reached the directory"),
            (|b| b.questions_per_second = 0.0, "not one of its questions"),
            (|b| b.unanswered = 1, "1 of others' 50 questions were never answered"),
        ];
        for (make_bad, complaint) in breaks {
            let mut outcome = storm();
            make_bad(&mut outcome.beside[2]);
            assert!(!outcome.holds(), "{complaint}");
            let text = outcome.text();
            assert!(
                text.contains("FAILED: a scan costs others too much:\n") && text.contains(complaint),
                "{text}"
            );
        }
        assert!(storm().text().ends_with("PASSED: a scan costs others no more than it may\n"));
    }
}

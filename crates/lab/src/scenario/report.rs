//! What people and programs read after a scenario.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use godwit_nva_api::v1::MoveStepKind;
use serde::Serialize;

use super::hot_move::SHOWN_STEPS;
use crate::agent::proto::Gap;
use crate::capture::Relayed;
use crate::clock::ms;
use crate::guest::memory::Difference;
use crate::lab::Lab;
use crate::lab::process::tail;
use crate::mover::{Longest, Moved};
use crate::traffic::{Missing, Stream, Talk};

/// One combination of IP versions. The fields up to `tcp_alive` are the report's contract; the
/// others say more.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Inner IP version.
    pub inner: u8,
    /// Outer IP version.
    pub outer: u8,
    /// Moves carried out.
    pub moves: usize,
    /// Probe packets sent, both ways together.
    pub sent: u64,
    /// Different probe packets received.
    pub received: u64,
    /// Probe packets that never arrived.
    pub lost: u64,
    /// Arrivals of packets that had arrived before.
    pub duplicated: u64,
    /// Arrivals behind a later packet.
    pub reordered: u64,
    /// The longest silence between two arrivals at either receiver, the VM's pause included.
    pub gap_ms_max: f64,
    /// Packets that the NVEs held.
    pub held: u64,
    /// Packets that the NVEs forwarded in flight.
    pub forwarded: u64,
    /// The one TCP connection carried on after each move, and all its bytes arrived as sent.
    pub tcp_alive: bool,
    /// The longest silence once the time is taken out that the VM itself stood still.
    pub gap_ms_max_beyond_pause: f64,
    /// What the lab was doing when the longest silence beyond a pause began.
    pub gap_during: String,
    /// The longest time that the VM stood still.
    pub pause_ms_max: f64,
    /// Packets that NVEs held and gave up.
    pub hold_dropped: u64,
    /// Arrivals that were not what was sent.
    pub corrupt: u64,
    /// Frames that this machine's own kernel dropped between guests and switches.
    pub kernel_drops: u64,
    /// TCP bytes carried, both ways together.
    pub tcp_bytes: u64,
    /// What went wrong with TCP.
    pub tcp_error: Option<String>,
    /// Probes from the moving VM.
    pub from_v: Stream,
    /// Probes to the moving VM.
    pub to_v: Stream,
    /// Move by move.
    pub timeline: Vec<MoveLine>,
    /// The lab's id.
    pub lab: String,
    /// Switches had hugepages.
    pub hugepages: bool,
    /// The switches' workers.
    pub workers: String,
    /// Forwarding in flight was on.
    pub forward_in_flight: bool,
    /// What all switches count as forwarded in flight, a second after the last move.
    pub forwarded_by_switches: u64,
    /// What they forward in the 0.3 s from then on, under traffic (R48).
    pub forwarded_late: u64,
    /// What the first switch forwarded in flight as tshark sees it on its wire, where that was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relayed: Option<Relayed>,
    #[serde(skip)]
    pauses: Vec<Gap>,
}

/// One move.
#[derive(Clone, Debug, Serialize)]
pub struct MoveLine {
    /// Its number.
    pub n: u32,
    /// The old NVE.
    pub from: String,
    /// The new NVE.
    pub to: String,
    /// How long the VM stood still.
    pub pause_ms: f64,
    /// The downtime that QEMU itself tells, where QEMU moved the VM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_downtime_ms: Option<u64>,
    /// The silence at the peer that the move made: from the last packet of the VM before it to the first after it.
    pub gap_ms: Option<f64>,
    /// What of that the VM ran and sent nothing, by its own clock, which stands still with it.
    pub sender_idle_ms: Option<f64>,
    /// What of that is left without the VM's stop and what it sent nothing by itself: the network's part. Below 0
    /// where the packet after was faster than the one before.
    pub network_gap_ms: Option<f64>,
    /// What this machine's cores cost: how long in the silence, from when the VM ran at its new place, its emulated
    /// processor ran, or waited for a core.
    pub cores_ms: Option<f64>,
    /// By how much the silence is longer than QEMU's downtime and that together.
    pub beyond_cores_ms: Option<f64>,
    /// By how much it is longer than the VM's stop, until it ran at its new place, and that together: QEMU's downtime
    /// ends when all is sent, before the new QEMU has read it.
    pub beyond_stop_and_cores_ms: Option<f64>,
    /// The silence of all of the VM's frames at its peer, whatever is in them.
    pub frame_gap_ms: Option<f64>,
    /// What of that the VM ran, and its new NVE heard nothing of it.
    pub guest_silent_ms: Option<f64>,
    /// What of that the new NVE had heard of the VM, which ran, and its peer had not. Nothing where it heard an
    /// announcement first, which goes to no peer.
    pub switch_gap_ms: Option<f64>,
    /// Until that first frame, from when the VM ran at its new place: its processor, an emulated one, ran for so long,
    pub processor_ran_ms: Option<f64>,
    /// it waited so long for one of the machine's cores,
    pub processor_waited_ms: Option<f64>,
    /// and so long it had nothing to do.
    pub processor_asleep_ms: Option<f64>,
    /// The pages of the VM's memory that are not the same at both hosts, where it waits at the new one before it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Vec<Difference>>,
    /// Pages that were missing at the new host and asked for, where the migration ended as post-copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postcopy_requests: Option<u64>,
    /// The longest iteration of each worker of the new switch, during such a migration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub longest_iterations: Vec<Longest>,
    /// The move was carried out.
    pub done: bool,
    /// From the beginning of the pause to the VM running at the new NVE.
    pub activated_ms: Option<f64>,
    /// From the beginning of the pause to the NVA's grant.
    pub granted_ms: Option<f64>,
    /// From the beginning of the pause to the last NVE's acknowledgement.
    pub done_ms: Option<f64>,
    /// Packets that the old NVE held.
    pub held_old: u64,
    /// Packets that the new NVE held.
    pub held_new: u64,
    /// Packets that the old NVE forwarded.
    pub forwarded_old: u64,
    /// Packets that the new NVE forwarded.
    pub forwarded_new: u64,
    /// What `godwitctl move show` says of the move.
    pub shown: String,
}

impl MoveLine {
    /// The line of move number `n`.
    pub fn new(n: u32, moved: &Moved) -> MoveLine {
        let (old, new) = (moved.carried(true), moved.carried(false));
        let [activated_ms, granted_ms, done_ms] =
            SHOWN_STEPS.map(|(kind, _): (MoveStepKind, _)| moved.ms_to(kind));
        // Only a guest's clock stands still with it. In post-copy its kernel may wait for a page that it sends from,
        // which is neither idle nor the network's.
        let whole = moved.migration.as_ref().filter(|m| m.postcopy_requests.is_none());
        let idle = moved.gap.filter(|_| whole.is_some()).and_then(|g| g.sender_ns).map(ms);
        let work = moved.frames.and_then(|f| f.work);
        let gap_ms = moved.gap.map(|g| round(ms(g.to_ns - g.from_ns)));
        let vm_downtime_ms = moved.migration.as_ref().map(|m| m.downtime_ms);
        let cores_ms = moved.work.map(|w| round(w.ran_ms + w.waited_ms));
        MoveLine {
            n,
            from: moved.from.clone(),
            to: moved.to.clone(),
            pause_ms: moved.pause_ms(),
            vm_downtime_ms,
            gap_ms,
            sender_idle_ms: idle.map(round),
            network_gap_ms: moved.gap.zip(idle).map(|(g, i)| round(ms(g.length_ns()) - moved.pause_ms() - i)),
            cores_ms,
            beyond_stop_and_cores_ms: gap_ms.zip(cores_ms).map(|(g, c)| round(g - moved.pause_ms() - c)),
            beyond_cores_ms: vm_downtime_ms
                .and_then(|downtime| Some(round(gap_ms? - downtime as f64 - cores_ms?))),
            frame_gap_ms: moved.frames.map(|f| f.all_ms),
            guest_silent_ms: moved.frames.map(|f| f.guest_silent_ms),
            switch_gap_ms: moved.frames.and_then(|f| f.switch_gap_ms),
            processor_ran_ms: work.map(|w| round(w.ran_ms)),
            processor_waited_ms: work.map(|w| round(w.waited_ms)),
            processor_asleep_ms: work.map(|w| round(w.asleep_ms)),
            differences: moved.migration.as_ref().and_then(|m| m.differences.clone()),
            postcopy_requests: moved.migration.as_ref().and_then(|m| m.postcopy_requests),
            longest_iterations: moved.longest.clone(),
            done: moved.done(),
            activated_ms,
            granted_ms,
            done_ms,
            held_old: old.held,
            held_new: new.held,
            forwarded_old: old.forwarded,
            forwarded_new: new.forwarded,
            shown: moved.shown.clone(),
        }
    }

    /// The beginning of its line for people.
    pub fn brief(&self) -> String {
        let downtime = self.vm_downtime_ms.map_or(String::new(), |d| format!("  QEMU's downtime {d:>3} ms"));
        let ours = self.network_gap_ms.map_or(String::new(), |g| format!(" (network {g:>4.1})"));
        let gap = self.gap_ms.map_or(String::new(), |g| format!("  gap {g:>5.1} ms{ours}"));
        format!(
            "move {:<2} {} → {}  paused {:>5.1} ms{downtime}{gap}",
            self.n, self.from, self.to, self.pause_ms
        )
    }

    /// The silence beyond the downtime that QEMU tells.
    pub fn beyond_downtime_ms(&self) -> Option<f64> {
        Some(self.gap_ms? - self.vm_downtime_ms? as f64)
    }

    /// For people, while the scenario runs; `tcp` is whether the TCP connection beside it goes on.
    pub fn text(&self, tcp: Option<bool>) -> String {
        let times = [self.activated_ms, self.granted_ms, self.done_ms];
        let steps: String = SHOWN_STEPS
            .iter()
            .zip(times)
            .map(|((_, name), at)| {
                format!("  {name} {}", at.map_or("     ?  ".into(), |t| format!("{t:>5.1} ms")))
            })
            .collect();
        let missing = self.postcopy_requests.map_or(String::new(), |pages| {
            let of = |v: bool| self.longest_iterations.iter().filter(move |l| l.polls_v == v).map(|l| l.ms);
            let (own, others) = (of(true).fold(0.0, f64::max), of(false).fold(0.0, f64::max));
            format!("  pages asked for {pages:>5}, longest iteration {own:.1} ms, of others' worker {others:.1} ms")
        });
        let memory = self.differences.as_ref().map_or(String::new(), |pages| match pages.len() {
            0 => "  memory the same".into(),
            n => format!("  {n} PAGES LEFT BEHIND"),
        });
        format!(
            "{}{steps}  held {:>4}+{:<4} forwarded {:>4}{missing}{memory}{}",
            self.brief(),
            self.held_old,
            self.held_new,
            self.forwarded_old,
            tcp.map_or("", |goes_on| if goes_on { "  TCP goes on" } else { "  TCP STOPPED" }),
        )
    }
}

impl Run {
    /// Puts together what was measured; `tcp_went_on` is whether TCP was seen to progress after every move.
    pub fn new(inner: u8, outer: u8, moves: &[Moved], talk: &Talk, tcp_went_on: bool) -> Run {
        let both = |f: fn(&Stream) -> u64| f(&talk.a_to_b) + f(&talk.b_to_a);
        let pauses: Vec<Gap> = moves.iter().filter_map(|m| m.paused).collect();
        let beyond = [&talk.a_to_b, &talk.b_to_a].map(|s| s.gap_ms_beyond(&pauses));
        let carried = || moves.iter().flat_map(|m| [m.carried(true), m.carried(false)]);
        let tcp = talk.tcp.as_ref();
        Run {
            inner,
            outer,
            moves: moves.iter().filter(|m| m.done()).count(),
            sent: both(|s| s.sent),
            received: both(|s| s.received),
            lost: both(|s| s.lost),
            duplicated: both(|s| s.duplicated),
            reordered: both(|s| s.reordered),
            gap_ms_max: round(talk.a_to_b.gap_ms_max.max(talk.b_to_a.gap_ms_max)),
            held: carried().map(|c| c.held).sum(),
            forwarded: carried().map(|c| c.forwarded).sum(),
            tcp_alive: tcp_went_on && tcp.is_none_or(|t| t.alive),
            gap_ms_max_beyond_pause: round(beyond[0].max(beyond[1])),
            gap_during: during(moves, [&talk.a_to_b, &talk.b_to_a], &pauses),
            pause_ms_max: round(moves.iter().map(Moved::pause_ms).fold(0.0, f64::max)),
            hold_dropped: carried().map(|c| c.dropped).sum(),
            corrupt: both(|s| s.corrupt),
            kernel_drops: 0,
            tcp_bytes: tcp.map_or(0, |t| t.bytes),
            tcp_error: tcp.and_then(|t| t.error.clone()),
            from_v: talk.a_to_b.clone(),
            to_v: talk.b_to_a.clone(),
            timeline: moves.iter().zip(1..).map(|(m, n)| MoveLine::new(n, m)).collect(),
            lab: String::new(),
            hugepages: false,
            workers: String::new(),
            forward_in_flight: true,
            forwarded_by_switches: 0,
            forwarded_late: 0,
            relayed: None,
            pauses,
        }
    }

    /// Nothing lost, duplicated or damaged, TCP alive, and no fault seen on the wire where that was looked at.
    pub fn is_faultless(&self) -> bool {
        let seen = self.relayed.as_ref().is_none_or(Relayed::is_right);
        self.lost == 0 && self.duplicated == 0 && self.corrupt == 0 && self.tcp_alive && seen
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        format!(
            "{} probes sent, {} lost, {} duplicated, {} reordered; TCP carried {:.1} MB and is {}",
            thousands(self.sent),
            thousands(self.lost),
            thousands(self.duplicated),
            thousands(self.reordered),
            self.tcp_bytes as f64 / 1e6,
            if self.tcp_alive { "alive" } else { "DEAD" },
        )
    }
}

/// What happened when the longest silence beyond a pause began.
fn during(moves: &[Moved], streams: [&Stream; 2], pauses: &[Gap]) -> String {
    let longest = streams.iter().filter_map(|s| s.longest_beyond(pauses)).max_by_key(|l| l.1);
    let Some((gap, _)) = longest else { return "at no time".into() };
    let at = moves.iter().zip(1..).find_map(|(m, n)| m.part_at(gap.from_ns).map(|part| (n, part)));
    if let Some((n, part)) = at {
        return format!("in move {n}, {part}");
    }
    let ended = |m: &Moved| m.parts.last().map_or(u64::MAX, |p| p.1);
    let before = moves.iter().zip(1..).take_while(|(m, _)| ended(m) <= gap.from_ns).last();
    before.map_or("before the first move".into(), |(m, n)| {
        format!("{:.0} ms after move {n} was over", ms(gap.from_ns - ended(m)))
    })
}

/// What QEMU's downtime and the moves' silences have to do with each other; nothing without QEMU.
pub fn beyond_downtime(runs: &[Run]) -> Option<String> {
    let mut all: Vec<&MoveLine> = runs.iter().flat_map(|r| &r.timeline).filter(|m| m.done).collect();
    all.retain(|m| m.beyond_downtime_ms().is_some());
    let median = |value: fn(&MoveLine) -> Option<f64>| {
        let mut all: Vec<f64> = all.iter().filter_map(|m| value(m)).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let downtime = median(|m| m.vm_downtime_ms.map(|d| d as f64))?;
    let (pause, gap) = (median(|m| Some(m.pause_ms))?, median(|m| m.gap_ms)?);
    let (beyond, after) = (median(MoveLine::beyond_downtime_ms)?, median(|m| Some(m.gap_ms? - m.pause_ms))?);
    let values: [fn(&MoveLine) -> Option<f64>; 3] =
        [|m| m.cores_ms, |m| m.beyond_cores_ms, |m| m.beyond_stop_and_cores_ms];
    let cores = match values.map(median) {
        [Some(cores), Some(left), Some(rest)] => format!(
            "\nThis machine's cores cost {cores:.1} ms of that: so long v's processor, which is emulated and \
             translates everything anew,\n\
             ran or waited for a core before p heard of v. The silence is {left:.1} ms longer than the \
             downtime and that together,\n\
             {rest:.1} ms longer than the stop and that."
        ),
        _ => String::new(),
    };
    let parts = match (median(|m| m.frame_gap_ms), median(|m| m.guest_silent_ms)) {
        (Some(frames), Some(own)) => format!(
            "\nOf v's frames of any kind p saw none for {frames:.1} ms, {own:.1} ms of them from v running to \
             the new NVE's hearing of it."
        ),
        _ => String::new(),
    };
    let network = match (median(|m| m.sender_idle_ms), median(|m| m.network_gap_ms)) {
        (Some(idle), Some(network)) => format!(
            "\nBy its own clock, which stands still with it, v sent no probe for {idle:.1} ms of that; stop \
             and idleness taken out, {network:.1} ms\nare left: the network's, and those of v's kernel, which \
             is emulated and has to be translated anew, too."
        ),
        _ => String::new(),
    };
    let work: [fn(&MoveLine) -> Option<f64>; 3] =
        [|m| m.processor_ran_ms, |m| m.processor_waited_ms, |m| m.processor_asleep_ms];
    let work = match work.map(median) {
        [Some(ran), Some(waited), Some(asleep)] => format!(
            "\nFrom v running to that first frame its processor ran for {ran:.1} ms and waited {waited:.1} ms \
             for a core; for {asleep:.1} ms it had nothing to do."
        ),
        _ => String::new(),
    };
    let heard = all.iter().filter(|m| m.switch_gap_ms.is_some()).count();
    let ours = median(|m| m.switch_gap_ms).map_or(String::new(), |ours| {
        format!("\nWhere its NVE heard it by a frame ({heard} times), the frame was at p {ours:.1} ms later.")
    });
    Some(format!(
        "Medians of {} migrations: QEMU's downtime {downtime:.0} ms; v stopped to v running {pause:.1} ms; \
         silence at p\n\
         {gap:.1} ms, which is {beyond:.1} ms more than the downtime and {after:.1} ms more than the \
         stop.{cores}{network}{parts}{work}{ours}",
        all.len()
    ))
}

fn round(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

/// A number with commas.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// The final table of all combinations.
pub fn table(runs: &[Run]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "inner",
        "outer",
        "moves",
        "sent",
        "lost",
        "dup.",
        "reord.",
        "longest\ngap ms",
        "beyond\npause ms",
        "held\nold+new",
        "forwarded\nold+new",
        "TCP",
    ]);
    for r in runs {
        let sum = |f: fn(&MoveLine) -> u64| r.timeline.iter().map(f).sum::<u64>();
        table.add_row([
            format!("IPv{}", r.inner),
            format!("IPv{}", r.outer),
            r.moves.to_string(),
            thousands(r.sent),
            thousands(r.lost),
            thousands(r.duplicated),
            thousands(r.reordered),
            format!("{:.1}", r.gap_ms_max),
            format!("{:.1}", r.gap_ms_max_beyond_pause),
            format!("{}+{}", thousands(sum(|m| m.held_old)), thousands(sum(|m| m.held_new))),
            format!("{}+{}", thousands(sum(|m| m.forwarded_old)), thousands(sum(|m| m.forwarded_new))),
            format!("{} {:.0} MB", if r.tcp_alive { "alive" } else { "DEAD" }, r.tcp_bytes as f64 / 1e6),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n{}", legend(runs))
}

fn legend(runs: &[Run]) -> String {
    let pause = runs.iter().map(|r| r.pause_ms_max).fold(0.0, f64::max);
    let mut text = format!(
        "sent: both ways together. longest gap: the longest silence between two arrivals at either end, the\n\
         pause of v included (up to {pause:.1} ms); beyond pause: what is left when the pause is taken out.\n\
         held, forwarded: by the old and the new NVE of the moves.\n"
    );
    for r in runs.iter().filter(|r| r.gap_ms_max_beyond_pause >= 50.0) {
        let (inner, outer, gap) = (r.inner, r.outer, r.gap_ms_max_beyond_pause);
        let _ =
            writeln!(text, "IPv{inner} over IPv{outer}: the silence of {gap:.1} ms began {}.", r.gap_during);
    }
    let drops: u64 = runs.iter().map(|r| r.kernel_drops).sum();
    if drops > 0 {
        let _ =
            writeln!(text, "This machine's own kernel dropped {drops} frames between guests and switches.");
    }
    text
}

/// Writes the runs to a file, if one was asked for.
///
/// # Errors
/// Where it cannot be written.
pub fn write_json(path: Option<&Path>, runs: &[Run]) -> Result<()> {
    write_json_value(path, &serde_json::json!({ "runs": runs }))
}

/// Writes any result to a file, if one was asked for.
///
/// # Errors
/// Where it cannot be written.
pub fn write_json_value(path: Option<&Path>, value: &serde_json::Value) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
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
         ctl='ip netns exec {nva} {} --nva {}'\n\n",
        lab.id,
        lab.bins.ctl.display(),
        lab.nva.url
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
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(12_345_678), "12,345,678");
    }

    /// A talk in which `lost` packets to the moving VM got lost.
    fn talk(lost: u64) -> Talk {
        let stream = |lost| Stream { sent: 100, received: 100 - lost, lost, ..Stream::default() };
        Talk { a_to_b: stream(0), b_to_a: stream(lost), tcp: None }
    }

    #[test]
    fn json_has_what_programs_rely_on() {
        let run = serde_json::to_value(Run::new(4, 6, &[], &talk(3), true)).unwrap();
        let numbers = ["inner", "outer", "moves", "sent", "received", "lost", "duplicated", "reordered"];
        for key in numbers.iter().chain(&["gap_ms_max", "held", "forwarded"]) {
            assert!(run[key].is_number(), "{key}: {run}");
        }
        assert_eq!(
            (run["sent"].as_u64(), run["received"].as_u64(), run["lost"].as_u64()),
            (Some(200), Some(197), Some(3))
        );
        assert_eq!(run["tcp_alive"], true);
    }

    #[test]
    fn a_run_is_faultless_only_without_loss_and_with_tcp() {
        assert!(Run::new(4, 4, &[], &talk(0), true).is_faultless());
        assert!(!Run::new(4, 4, &[], &talk(1), true).is_faultless());
        assert!(!Run::new(4, 4, &[], &talk(0), false).is_faultless());
        let text = table(&[Run::new(4, 6, &[], &talk(1), true)]);
        assert!(text.contains("IPv6") && text.contains("alive"), "{text}");
    }

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

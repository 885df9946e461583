//! A move as it is printed: its timeline, its counts, its outage.

use godwit_api::v1;
use godwit_api::v1::MoveStepKind as Step;
use serde::Serialize;

use super::entries::loss_reasons;
use super::explain::explain;
use crate::context::Report;
use crate::table::Table;
use crate::text;

/// A move for output. Times in milliseconds count from its order, or from the claim that began it.
#[derive(Serialize, Clone, Debug)]
pub struct MoveView {
    /// Its identity.
    pub id: String,
    /// The VM's name.
    pub vm: String,
    /// The VM's VNI.
    pub vni: u32,
    /// The VM's MAC address.
    pub mac: String,
    /// The old NVE.
    pub from: String,
    /// The new NVE.
    pub to: String,
    /// How it moves.
    pub mode: String,
    /// How it began: ordered or unplanned.
    pub origin: String,
    /// How far it is.
    pub phase: String,
    /// No step follows but late counts.
    pub is_final: bool,
    /// How it stands or ended, why, and what came between: sentences.
    pub explanation: Vec<String>,
    /// The version granted.
    pub version: Option<String>,
    /// When it was ordered, RFC 3339.
    pub ordered_at: Option<String>,
    /// When it was ordered, microseconds since 1970.
    pub ordered_at_us: Option<u64>,
    /// What happened, in the order of time.
    pub steps: Vec<StepView>,
    /// What each NVE did with the VM's packets.
    pub counts: Vec<CountsView>,
    /// All NVEs together.
    pub total: Totals,
    /// How long the VM was away.
    pub outage: Outage,
    /// Reported times contradict each other: the hosts' clocks differ.
    pub clocks_differ: bool,
}

/// One entry of the timeline.
#[derive(Serialize, Clone, Debug)]
pub struct StepView {
    /// Since the order, by the clock of the host that reports it.
    pub at_ms: f64,
    /// The same, microseconds since 1970.
    pub at_us: u64,
    /// Null for the NVA.
    pub nve: Option<String>,
    /// What happened.
    pub step: String,
    /// A reason, a number.
    pub note: Option<String>,
}

/// What one NVE did with the packets of the moving VM.
#[derive(Serialize, Clone, Debug)]
pub struct CountsView {
    /// The NVE.
    pub nve: String,
    /// Counts of packets.
    #[serde(flatten)]
    pub counts: Totals,
    /// Since the order.
    pub first_forward_ms: Option<f64>,
    /// Since the order.
    pub last_forward_ms: Option<f64>,
}

/// Counts of packets.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub struct Totals {
    /// Put into a handover buffer.
    pub held: u64,
    /// Held ones that went on in order.
    pub flushed: u64,
    /// Tunnelled on to the new NVE.
    pub forwarded: u64,
    /// Held ones that were dropped.
    pub dropped: u64,
    /// Of these, for want of memory.
    pub dropped_memory: u64,
    /// For the limit of packets.
    pub dropped_limit: u64,
    /// For their age.
    pub dropped_age: u64,
    /// The most memory that held ones took, in bytes.
    pub peak_bytes: u64,
}

/// How long the VM was away, in milliseconds; null where the steps for it are missing.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub struct Outage {
    /// From the pause at the old NVE until the VM ran at the new one.
    pub paused_to_activated_ms: Option<f64>,
    /// From there until the directory said so.
    pub activated_to_granted_ms: Option<f64>,
    /// Both together.
    pub paused_to_granted_ms: Option<f64>,
}

/// Milliseconds from `start` to `end`, negative where `end` is earlier.
fn ms_between(start: u64, end: u64) -> f64 {
    end.wrapping_sub(start) as i64 as f64 / 1000.0
}

impl MoveView {
    /// From the record; the order is its first step, or else its earliest.
    pub fn new(r: &v1::MoveRecord) -> MoveView {
        let (vni, mac) = text::key(r.key.as_ref());
        let ordered = at(r, Step::Ordered).or_else(|| r.steps.iter().map(|s| s.at_us).min());
        let start = ordered.unwrap_or(0);
        let mut steps: Vec<StepView> = r.steps.iter().map(|s| step_view(s, start)).collect();
        steps.sort_by_key(|s| s.at_us);
        let counts: Vec<CountsView> = r.counts.iter().map(|c| counts_view(c, start)).collect();
        let outage = outage(r);
        MoveView {
            id: r.id.clone(),
            vm: r.vm.clone(),
            vni,
            mac,
            from: r.from.clone(),
            to: r.to.clone(),
            mode: text::enum_name(r.mode().as_str_name(), "MOVE_MODE_"),
            origin: text::enum_name(r.origin().as_str_name(), "MOVE_ORIGIN_"),
            phase: text::enum_name(r.phase().as_str_name(), "MOVE_PHASE_"),
            is_final: is_final(r.phase()),
            explanation: explain(r),
            version: text::version(r.version.as_ref()),
            ordered_at: ordered.map(text::moment_us),
            ordered_at_us: ordered,
            total: counts.iter().fold(Totals::default(), |sum, c| sum.plus(c.counts)),
            clocks_differ: steps.iter().any(|s| s.at_ms < 0.0) || outage.is_contradictory(),
            steps,
            counts,
            outage,
        }
    }

    fn is_unplanned(&self) -> bool {
        self.origin == "unplanned"
    }

    /// The mode of an ordered move, in a word for tables.
    pub fn how(&self) -> &str {
        if self.is_unplanned() { &self.origin } else { &self.mode }
    }

    /// Who moves, from where to where, and how far it is: two lines.
    pub fn heading(&self) -> String {
        let version = self.version.as_ref().map(|v| format!(", version {v}")).unwrap_or_default();
        let began = if self.is_unplanned() { "claimed" } else { "ordered" };
        let when = self.ordered_at.as_ref().map(|w| format!(", {began} {w}")).unwrap_or_default();
        let (id, phase, vm, vni, mac) = (&self.id, &self.phase, &self.vm, self.vni, &self.mac);
        let (mode, from, to) = (self.how(), &self.from, &self.to);
        format!("move {id}: {phase}{version}\n{vm} (VNI {vni}, {mac}), {mode}, from {from} to {to}{when}\n")
    }

    fn timeline(&self) -> String {
        let mut t = Table::new(&[">MS", "NVE", "STEP", "NOTE"]);
        for s in &self.steps {
            let nve = s.nve.clone().unwrap_or_else(|| "(nva)".into());
            let note = s.note.clone().unwrap_or_else(|| " ".into());
            t.row([format!("{:.3}", s.at_ms), nve, s.step.clone(), note]);
        }
        t.text_or("no steps yet")
    }

    /// How it ended in sentences, the counts of each NVE, the outage.
    pub fn results(&self) -> String {
        let mut out = String::new();
        for sentence in &self.explanation {
            out += &format!("\n{sentence}");
        }
        out += "\n";
        if !self.counts.is_empty() {
            let headings =
                ["NVE", ">HELD", ">MEMORY", ">FLUSHED", ">FORWARDED", ">DROPPED", "FORWARDED (MS)"];
            let mut t = Table::new(&headings);
            for c in &self.counts {
                let span = match (c.first_forward_ms, c.last_forward_ms) {
                    (Some(a), Some(b)) => format!("{a:.3} to {b:.3}"),
                    _ => String::new(),
                };
                t.row(c.counts.cells(&c.nve, span));
            }
            if self.counts.len() > 1 {
                t.row(self.total.cells("total", " ".into()));
            }
            out += &format!("\n{}", t.text());
            let Totals { dropped_memory, dropped_limit, dropped_age, .. } = self.total;
            if let Some(reasons) = loss_reasons([dropped_memory, dropped_limit, dropped_age]) {
                out += &format!("dropped for {reasons}\n");
            }
        }
        if let Some(outage) = self.outage.text() {
            out += &format!("\noutage: {outage}\n");
        }
        if self.clocks_differ {
            out += "note: the hosts' clocks differ; spans between them are off by that much\n";
        }
        out
    }
}

impl Report for MoveView {
    fn text(&self) -> String {
        format!("{}\n{}{}", self.heading(), self.timeline(), self.results())
    }
}

/// One line of a timeline as it grows.
pub fn step_line(s: &StepView) -> String {
    let nve = s.nve.as_deref().unwrap_or("(nva)");
    let note = s.note.as_deref().unwrap_or("");
    let line = format!("{:>12.3}  {nve:<12}  {:<15}  {note}", s.at_ms, s.step);
    format!("{}\n", line.trim_end())
}

/// A step, its time counted from `start` (microseconds since 1970).
pub fn step_view(s: &v1::MoveStep, start: u64) -> StepView {
    StepView {
        at_ms: ms_between(start, s.at_us),
        at_us: s.at_us,
        nve: text::some(&s.nve),
        step: text::enum_name(s.what().as_str_name(), "MOVE_STEP_KIND_"),
        note: text::some(&s.note),
    }
}

/// No step follows but late counts.
pub fn is_final(phase: v1::MovePhase) -> bool {
    matches!(phase, v1::MovePhase::Done | v1::MovePhase::Aborted | v1::MovePhase::Failed)
}

fn counts_view(c: &v1::NveCounts, start: u64) -> CountsView {
    let n = c.counts.unwrap_or_default();
    let relative = |us: u64| (us != 0).then(|| ms_between(start, us));
    CountsView {
        nve: c.nve.clone(),
        counts: Totals {
            held: n.held,
            flushed: n.flushed,
            forwarded: n.forwarded,
            dropped: n.dropped,
            dropped_memory: n.dropped_memory,
            dropped_limit: n.dropped_limit,
            dropped_age: n.dropped_age,
            peak_bytes: n.peak_bytes,
        },
        first_forward_ms: relative(n.first_forward_us),
        last_forward_ms: relative(n.last_forward_us),
    }
}

impl Totals {
    fn plus(self, o: Totals) -> Totals {
        Totals {
            held: self.held.saturating_add(o.held),
            flushed: self.flushed.saturating_add(o.flushed),
            forwarded: self.forwarded.saturating_add(o.forwarded),
            dropped: self.dropped.saturating_add(o.dropped),
            dropped_memory: self.dropped_memory.saturating_add(o.dropped_memory),
            dropped_limit: self.dropped_limit.saturating_add(o.dropped_limit),
            dropped_age: self.dropped_age.saturating_add(o.dropped_age),
            peak_bytes: self.peak_bytes.saturating_add(o.peak_bytes),
        }
    }

    fn cells(self, name: &str, last: String) -> [String; 7] {
        let [held, flushed, forwarded, dropped] =
            [self.held, self.flushed, self.forwarded, self.dropped].map(|n| n.to_string());
        [name.to_owned(), held, text::memory(self.peak_bytes), flushed, forwarded, dropped, last]
    }
}

/// When the move's last step of this kind happened. What the old NVE activates is no arrival: a pause was called off.
fn at(r: &v1::MoveRecord, kind: Step) -> Option<u64> {
    let counts = |s: &&v1::MoveStep| s.what() == kind && (kind != Step::Activated || s.nve != r.from);
    r.steps.iter().rev().find(counts).map(|s| s.at_us)
}

fn outage(r: &v1::MoveRecord) -> Outage {
    let [paused, activated, granted] = [Step::Paused, Step::Activated, Step::Granted].map(|k| at(r, k));
    let between = |a: Option<u64>, b: Option<u64>| Some(ms_between(a?, b?));
    Outage {
        paused_to_activated_ms: between(paused, activated),
        activated_to_granted_ms: between(activated, granted),
        paused_to_granted_ms: between(paused, granted),
    }
}

impl Outage {
    fn is_contradictory(&self) -> bool {
        [self.paused_to_activated_ms, self.activated_to_granted_ms].into_iter().flatten().any(|ms| ms < 0.0)
    }

    fn text(&self) -> Option<String> {
        let part = |ms: Option<f64>, what: &str| ms.map(|ms| format!("{ms:.3} ms {what}"));
        let parts: Vec<String> = [
            part(self.paused_to_activated_ms, "paused to activated"),
            part(self.activated_to_granted_ms, "activated to granted"),
            part(self.paused_to_granted_ms, "in all"),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

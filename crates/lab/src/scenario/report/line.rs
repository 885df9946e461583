//! One move as it is reported.

use godwit_api::v1::MoveStepKind;
use serde::Serialize;

use super::round;
use crate::clock::ms;
use crate::guest::memory::Difference;
use crate::mover::{Longest, Moved};

/// The steps that a move's line shows, with their names there.
const SHOWN_STEPS: [(MoveStepKind, &str); 3] = [
    (MoveStepKind::Activated, "activated"),
    (MoveStepKind::Granted, "granted"),
    (MoveStepKind::Done, "done"),
];

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

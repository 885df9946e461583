//! The silence that a migration makes at the VM's peer, and which part of it is whose.

use godwit_api::v1::{MoveRecord, MoveStepKind};

use crate::agent::proto::Gap;
use crate::guest::processor::{Processor, Work};
use crate::watch::Quiet;

/// The silence of all frames, whatever is in them, taken apart; in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FrameGap {
    /// From the last frame of the VM at its peer before the stop to the first one after it.
    pub all_ms: f64,
    /// What of it the VM ran and its new NVE heard nothing of it.
    pub guest_silent_ms: f64,
    /// From the new NVE's hearing of the VM, not before that runs, to its first frame at the peer. Nothing where an
    /// announcement was heard first: that goes to no peer, and when the VM sent its next frame nobody can tell.
    pub switch_gap_ms: Option<f64>,
    /// What the VM's processor did from its first moment at the new NVE to that first frame, where that is known.
    pub work: Option<Work>,
}

impl FrameGap {
    /// Of a move during which the VM was `stopped`, at `stopped_us` by the wall clock. Nothing where it was not
    /// stopped by that clock, or was not heard at a new NVE: the move was called off.
    pub fn new(
        record: &MoveRecord,
        (stopped, stopped_us): (Gap, u64),
        quiet: Quiet,
        processor: Option<&Processor>,
    ) -> Option<FrameGap> {
        let heard = record.steps.iter().find(|s| s.what() == MoveStepKind::Activated)?;
        let by_frame = heard.note.ends_with("first frame");
        let resumed_us = stopped_us + stopped.length_ns() / 1000;
        let work = processor.and_then(|p| p.between(resumed_us.min(quiet.to_us), quiet.to_us));
        (stopped_us > 0).then(|| FrameGap::of(quiet, resumed_us, heard.at_us, by_frame, work))
    }

    fn of(quiet: Quiet, resumed_us: u64, heard_us: u64, by_frame: bool, work: Option<Work>) -> FrameGap {
        let ready_us = heard_us.max(resumed_us);
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0;
        FrameGap {
            all_ms: ms(quiet.from_us, quiet.to_us),
            guest_silent_ms: ms(resumed_us, ready_us),
            switch_gap_ms: by_frame.then(|| ms(ready_us, quiet.to_us)),
            work,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_told_apart() {
        let quiet = Quiet { from_us: 1_000, to_us: 101_500 };
        let gap = FrameGap::of(quiet, 14_000, 100_000, true, None);
        assert_eq!((gap.all_ms, gap.guest_silent_ms, gap.switch_gap_ms), (100.5, 86.0, Some(1.5)));
        let gap = FrameGap::of(quiet, 100_000, 14_000, true, None);
        assert_eq!(
            (gap.guest_silent_ms, gap.switch_gap_ms),
            (0.0, Some(1.5)),
            "heard before QEMU says it runs"
        );
        assert_eq!(FrameGap::of(quiet, 14_000, 50_000, false, None).switch_gap_ms, None, "an announcement");
    }
}

//! The stage meter: where the cycles of a burst go. For builds with the feature `stage-meter`, which benchmarks make.
//!
//! Reading the counter costs as much as a frame does. So the switch as it ships has none of this: its [`Meter`] is
//! [`NoMeter`], which has no size, and what it is told compiles to nothing.

use godwit_pipeline::Stage as PipelineStage;

use crate::io::Io;

/// A part of the loop. Their ticks add up to all of a worker's busy iterations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Polling a queue that brought frames, and those before it that brought none.
    Receive,
    /// First stage of the pipeline: headers, keys, prefetch of locations, and of what a device put into memory.
    Look,
    /// Second stage of the pipeline: locations, outer headers.
    Apply,
    /// Frames go to their outboxes, and those that need more take the cold path.
    Emit,
    /// Outboxes to transmit queues.
    Send,
    /// Orders, relays, tick, the loop's clock and record.
    Loop,
}

impl Stage {
    /// All of them, in the order in which [`Ticks`] has them.
    pub const ALL: [Stage; 6] =
        [Stage::Receive, Stage::Look, Stage::Apply, Stage::Emit, Stage::Send, Stage::Loop];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Look => "look",
            Stage::Apply => "apply",
            Stage::Emit => "emit",
            Stage::Send => "send",
            Stage::Loop => "loop",
        }
    }
}

impl From<PipelineStage> for Stage {
    fn from(stage: PipelineStage) -> Stage {
        match stage {
            PipelineStage::Look => Stage::Look,
            PipelineStage::Apply => Stage::Apply,
            PipelineStage::Emit => Stage::Emit,
        }
    }
}

/// Ticks of [`Stage::ALL`], in busy iterations; all zero in a build without the feature.
pub type Ticks = [u64; Stage::ALL.len()];

/// What a worker of this build has.
#[cfg(feature = "stage-meter")]
pub type Meter = TickMeter;

/// What a worker of this build has.
#[cfg(not(feature = "stage-meter"))]
pub type Meter = NoMeter;

/// Splits time among the stages: each is told to have ended, and gets what passed since the one before.
#[derive(Debug, Default)]
pub struct TickMeter {
    /// The last reading; before the first there is nothing to count from.
    last: Option<u64>,
    current: Ticks,
    ticks: Ticks,
}

impl TickMeter {
    /// `stage` has ended.
    #[inline]
    pub fn ended<I: Io>(&mut self, stage: Stage) {
        let now = I::ticks();
        let before = self.last.replace(now).unwrap_or(now);
        self.current[stage as usize] += now.wrapping_sub(before);
    }

    /// An iteration is over. What an idle one took is nobody's.
    #[inline]
    pub fn close(&mut self, busy: bool) {
        let current = core::mem::take(&mut self.current);
        if busy {
            self.ticks.iter_mut().zip(current).for_each(|(sum, ticks)| *sum += ticks);
        }
    }

    /// What was counted since the start or the last reset.
    pub fn ticks(&self) -> Ticks {
        self.ticks
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.ticks = Ticks::default();
    }
}

/// Stands in for the meter in the switch as it ships.
#[derive(Debug, Default)]
pub struct NoMeter {}

impl NoMeter {
    /// Nothing.
    #[inline(always)]
    pub fn ended<I: Io>(&mut self, _: Stage) {}

    /// Nothing.
    #[inline(always)]
    pub fn close(&mut self, _: bool) {}

    /// Zeros.
    pub fn ticks(&self) -> Ticks {
        Ticks::default()
    }

    /// Nothing.
    pub fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering};

    use godwit_pipeline::mem::{MemPacket, MemPool};

    use super::*;
    use crate::mem::MemQueue;

    #[test]
    fn stages_stand_at_their_places() {
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at, "{}", stage.name());
        }
    }

    #[cfg(not(feature = "stage-meter"))]
    #[test]
    fn the_switch_as_it_ships_has_no_meter() {
        assert_eq!(size_of::<Meter>(), 0);
    }

    /// Each reading is 10 ticks after the one before; the first is far from zero, as a machine's is.
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);

    struct Clocked;

    impl Io for Clocked {
        type Packet = MemPacket;
        type Rx = MemQueue;
        type Tx = MemQueue;
        type Pool = MemPool;

        fn ticks() -> u64 {
            NOW.fetch_add(10, Ordering::Relaxed)
        }
    }

    #[test]
    fn busy_iterations_are_split_and_idle_ones_are_not_counted() {
        let mut m = TickMeter::default();
        m.ended::<Clocked>(Stage::Loop);
        m.close(true);
        assert_eq!(m.ticks(), Ticks::default(), "the first reading begins");
        m.ended::<Clocked>(Stage::Loop);
        m.close(false);
        m.ended::<Clocked>(Stage::Receive);
        m.ended::<Clocked>(Stage::Look);
        m.ended::<Clocked>(Stage::Receive);
        m.close(true);
        assert_eq!(m.ticks(), [20, 10, 0, 0, 0, 0]);
        m.reset();
        assert_eq!(m.ticks(), Ticks::default());
    }
}

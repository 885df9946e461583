//! What the machine itself does to a thread that never waits: a loop that writes here and there in memory as a worker
//! does and reads the clock, on the worker's core, while another one keeps the main core busy as control does. A gap in
//! which the thread had its core all the time, by its own account, is the hardware's or a hypervisor's that does not
//! tell, which may fetch a page of the machine's memory just then; a worker has as many of these without being to
//! blame.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::Serialize;

/// A gap is what a worker's iteration is written down for.
pub const LONG: Duration = Duration::from_micros(200);

/// What the loop writes in: as much as a queue's buffers and a hundred thousand locations take.
const MEMORY: usize = 16 << 20;

/// Lines that it writes between two looks at the clock, a burst's worth.
const LINES: usize = 64;

/// How old the mark may be from which a gap's absence is told.
const MARK: Duration = Duration::from_millis(1);

/// The gaps of a stretch of time.
#[derive(Default, Debug, Serialize)]
pub struct Gaps {
    /// How long the loop ran.
    pub seconds: f64,
    /// Gaps of more than 200 us.
    pub long: u64,
    /// Those that would have been long without the thread's absence, too.
    pub long_own: u64,
    /// The most that the thread itself took in a gap, in microseconds.
    pub longest_own_us: f64,
    /// Those of `long_own`, stretch by stretch.
    pub long_own_by_window: Vec<u64>,
}

impl Gaps {
    /// Both stretches together.
    #[must_use]
    pub fn and(self, other: Gaps) -> Gaps {
        let mut by_window = self.long_own_by_window;
        by_window.extend(other.long_own_by_window);
        Gaps {
            seconds: self.seconds + other.seconds,
            long: self.long + other.long,
            long_own: self.long_own + other.long_own,
            longest_own_us: self.longest_own_us.max(other.longest_own_us),
            long_own_by_window: by_window,
        }
    }

    /// As people read it.
    pub fn text(&self) -> String {
        format!(
            "a loop that writes in memory, on the same core for {:.1} s beside another on the main core: {} gaps over \
             200 us, {} with the core its own (longest {:.0} us), by window: {}",
            self.seconds,
            self.long,
            self.long_own,
            self.longest_own_us,
            listed(&self.long_own_by_window)
        )
    }
}

/// Counts, as people read them.
pub fn listed(counts: &[u64]) -> String {
    counts.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

/// Runs the loop on `core` for as long as `window`, and on `other` too.
///
/// # Errors
/// Where a core is not to be had.
pub fn watch(core: usize, other: usize, window: Duration) -> Result<Gaps> {
    let both = [core, other].map(|core| write_and_read_the_clock(core, window));
    let join = |thread: JoinHandle<Result<Gaps>>| match thread.join() {
        Ok(gaps) => gaps,
        Err(_) => Err(anyhow!("a loop that writes in memory panicked")),
    };
    let [gaps, partner] = both.map(join);
    partner?;
    gaps
}

fn write_and_read_the_clock(core: usize, window: Duration) -> JoinHandle<Result<Gaps>> {
    std::thread::spawn(move || {
        stay_on(core)?;
        let mut memory = Memory::new();
        let start = Instant::now();
        let (mut gaps, mut last, mut mark) = (Gaps::default(), start, Mark::now()?);
        while last - start < window {
            memory.burst();
            let now = Instant::now();
            let gap = now - last;
            last = now;
            if gap > LONG {
                let own = gap.saturating_sub(mark.away(now)?);
                gaps.long += 1;
                gaps.long_own += u64::from(own > LONG);
                gaps.longest_own_us = gaps.longest_own_us.max(own.as_secs_f64() * 1e6);
            }
            if gap > LONG || now - mark.at > MARK {
                mark = Mark::now()?;
                // Asking is no gap.
                last = Instant::now();
            }
        }
        gaps.seconds = (last - start).as_secs_f64();
        gaps.long_own_by_window = vec![gaps.long_own];
        Ok(gaps)
    })
}

/// What the loop writes in, and where it writes next.
struct Memory {
    words: Vec<u64>,
    next: u64,
}

impl Memory {
    fn new() -> Memory {
        // Not zeros, which the system would not put into pages before they are written.
        Memory { words: vec![1; MEMORY / size_of::<u64>()], next: 0x9e37_79b9_7f4a_7c15 }
    }

    fn burst(&mut self) {
        for _ in 0..LINES {
            self.next ^= self.next << 13;
            self.next ^= self.next >> 7;
            self.next ^= self.next << 17;
            let at = self.next as usize % self.words.len();
            self.words[at] = self.words[at].wrapping_add(self.next);
        }
    }
}

/// Keeps the calling thread, and those and the programs that it will start, on one core, unless they choose
/// another one themselves.
///
/// # Errors
/// Where the core is not to be had.
pub fn stay_on(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).with_context(|| format!("core {core}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("running on core {core}"))
}

/// A moment from which the calling thread's absences are told, as a worker tells its own.
struct Mark {
    at: Instant,
    on_core: Duration,
}

impl Mark {
    fn now() -> Result<Mark> {
        Ok(Mark { at: Instant::now(), on_core: on_core()? })
    }

    fn away(&self, now: Instant) -> Result<Duration> {
        Ok((now - self.at).saturating_sub(on_core()?.saturating_sub(self.on_core)))
    }
}

/// For how long the calling thread has had a core so far.
fn on_core() -> Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .context("reading the thread's time on a core")
        .map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_for_as_long_as_asked() {
        let core = crate::peer::Cores::online().unwrap().main();
        let gaps = watch(core, core, Duration::from_millis(20)).unwrap();
        assert!(gaps.seconds >= 0.02 && gaps.long_own <= gaps.long, "{gaps:?}");
        assert!(watch(100_000, core, Duration::from_millis(1)).is_err());
    }
}

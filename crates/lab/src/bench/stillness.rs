//! What the machine itself does to a thread that never waits: a loop that only reads the clock, on the worker's
//! core, while another one keeps the main core busy as control does. A gap in which the system did not take the core away is a hypervisor's or the hardware's; a worker
//! has as many of these without being to blame.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use serde::Serialize;

/// A gap is what a worker's iteration is written down for.
const LONG: Duration = Duration::from_micros(200);

/// The gaps of a stretch of time.
#[derive(Default, Debug, Serialize)]
pub struct Gaps {
    /// How long the loop ran.
    pub seconds: f64,
    /// Gaps of more than 200 us.
    pub long: u64,
    /// Those in which the system did not take the core away.
    pub long_unexplained: u64,
    /// The longest of these, in microseconds.
    pub longest_unexplained_us: f64,
}

impl Gaps {
    /// Both stretches together.
    #[must_use]
    pub fn and(self, other: Gaps) -> Gaps {
        Gaps {
            seconds: self.seconds + other.seconds,
            long: self.long + other.long,
            long_unexplained: self.long_unexplained + other.long_unexplained,
            longest_unexplained_us: self.longest_unexplained_us.max(other.longest_unexplained_us),
        }
    }

    /// As people read it.
    pub fn text(&self) -> String {
        format!(
            "a loop that only reads the clock, on the same core for {:.1} s beside another on the main core: {} gaps over 200 us, {} without a \
             preemption (longest {:.0} us)",
            self.seconds, self.long, self.long_unexplained, self.longest_unexplained_us
        )
    }
}

/// Reads the clock on `core` for as long as `window`, and on `other` too.
///
/// # Errors
/// Where a core is not to be had.
pub fn watch(core: usize, other: usize, window: Duration) -> Result<Gaps> {
    let both = [core, other].map(|core| read_the_clock(core, window));
    let join = |thread: JoinHandle<Result<Gaps>>| match thread.join() {
        Ok(gaps) => gaps,
        Err(_) => Err(anyhow!("a loop that reads the clock panicked")),
    };
    let [gaps, partner] = both.map(join);
    partner?;
    gaps
}

fn read_the_clock(core: usize, window: Duration) -> JoinHandle<Result<Gaps>> {
    std::thread::spawn(move || {
        stay_on(core)?;
        let start = Instant::now();
        let (mut gaps, mut last, mut taken) = (Gaps::default(), start, preemptions()?);
        while last - start < window {
            let now = Instant::now();
            let gap = now - last;
            last = now;
            if gap > LONG {
                let before = std::mem::replace(&mut taken, preemptions()?);
                gaps.long += 1;
                if before == taken {
                    gaps.long_unexplained += 1;
                    gaps.longest_unexplained_us = gaps.longest_unexplained_us.max(gap.as_secs_f64() * 1e6);
                }
                // Asking is no gap.
                last = Instant::now();
            }
        }
        gaps.seconds = (last - start).as_secs_f64();
        Ok(gaps)
    })
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

fn preemptions() -> Result<i64> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).context("reading the thread's preemptions")?;
    Ok(usage.involuntary_context_switches())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_for_as_long_as_asked() {
        let core = crate::bench::peer::Cores::online().unwrap().main();
        let gaps = watch(core, core, Duration::from_millis(20)).unwrap();
        assert!(gaps.seconds >= 0.02 && gaps.long_unexplained <= gaps.long, "{gaps:?}");
        assert!(watch(100_000, core, Duration::from_millis(1)).is_err());
    }
}

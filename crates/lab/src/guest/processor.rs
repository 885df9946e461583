//! What a guest's processor did from when it first ran: an emulated one is a thread of QEMU, which the system keeps
//! books of. A guest that has just migrated is translated anew, and says nothing until its way out is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use crate::clock::wall_us;

/// How often the books are read.
const PERIOD: Duration = Duration::from_millis(1);
/// Readings that are kept, from the first work on: some seconds.
const KEPT: usize = 5_000;

/// A reading; times since the thread began, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reading {
    /// By the wall clock, in microseconds since 1970.
    at_us: u64,
    ran_ns: u64,
    /// It could have run, and another thread had the core.
    waited_ns: u64,
    /// It has nothing to do: the guest's processor is halted, or stopped.
    asleep: bool,
}

/// What the processor did in a stretch of time, in milliseconds. What is missing of that, a hypervisor gave to others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// It ran: it translated, or carried out what was.
    pub ran_ms: f64,
    /// It waited for one of the machine's cores.
    pub waited_ms: f64,
    /// It had nothing to do.
    pub asleep_ms: f64,
}

/// Watches the thread of one processor until it is dropped, or has seen enough.
pub struct Processor {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    readings: Mutex<Vec<Reading>>,
}

impl Processor {
    /// Watches a thread of any process.
    ///
    /// # Errors
    /// Where the system starts no thread for it.
    pub fn watch(thread: u64) -> Result<Processor> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let task = PathBuf::from(format!("/proc/{thread}/task/{thread}"));
        thread::Builder::new().name("processor".into()).spawn(move || theirs.follow(&task))?;
        Ok(Processor { shared })
    }

    /// What it did between two moments of the wall clock, in microseconds since 1970. Nothing where the system does
    /// not tell, or not of all that time.
    pub fn between(&self, from_us: u64, to_us: u64) -> Option<Work> {
        between(&self.shared.readings(), from_us, to_us)
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn readings(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, task: &Path) {
        while !self.over.load(Ordering::Relaxed) {
            // The thread's end is the end of its books.
            let Some(reading) = read(task) else { return };
            let mut all = self.readings();
            // Until it first runs only the newest is of use.
            if all.len() == 1 && all[0].ran_ns == reading.ran_ns {
                all.pop();
            }
            all.push(reading);
            if all.len() == KEPT {
                return;
            }
            drop(all);
            thread::sleep(PERIOD);
        }
    }
}

fn read(task: &Path) -> Option<Reading> {
    let of = |file: &str| std::fs::read_to_string(task.join(file)).ok();
    parse(wall_us(), &of("schedstat")?, &of("stat")?)
}

/// `schedstat` has the time on a core, that in wait for one and a count; the state in `stat` follows the name.
fn parse(at_us: u64, schedstat: &str, stat: &str) -> Option<Reading> {
    let mut numbers = schedstat.split_ascii_whitespace().map(|n| n.parse().ok());
    let (ran_ns, waited_ns) = (numbers.next()??, numbers.next()??);
    let state = stat.rsplit_once(')')?.1.split_ascii_whitespace().next()?;
    Some(Reading { at_us, ran_ns, waited_ns, asleep: state != "R" })
}

fn between(all: &[Reading], from_us: u64, to_us: u64) -> Option<Work> {
    let (first, last) = (all.first()?, all.last()?);
    if first.at_us > from_us || last.at_us < to_us || from_us > to_us {
        return None;
    }
    let mut work = Work::default();
    for pair in all.windows(2) {
        let [a, b] = pair else { continue };
        let shared = b.at_us.min(to_us).saturating_sub(a.at_us.max(from_us)) as f64;
        let length = b.at_us.saturating_sub(a.at_us) as f64;
        if shared == 0.0 {
            continue;
        }
        // The books are brought up to date once a tick: some readings are the same as those before.
        let part = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e6 * shared / length;
        work.ran_ms += part(b.ran_ns, a.ran_ns);
        work.waited_ms += part(b.waited_ns, a.waited_ns);
        if a.asleep {
            work.asleep_ms += shared / 1000.0;
        }
    }
    Some(work)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn at(ms: u64, ran_ms: u64, waited_ms: u64, asleep: bool) -> Reading {
        Reading { at_us: ms * 1000, ran_ns: ran_ms * 1_000_000, waited_ns: waited_ms * 1_000_000, asleep }
    }

    #[test]
    fn work_is_told_for_a_part_of_the_time() {
        let all = [at(0, 5, 0, true), at(10, 5, 0, false), at(20, 11, 4, false), at(30, 19, 6, true)];
        let work = |from: u64, to: u64| between(&all, from * 1000, to * 1000);
        assert_eq!(work(10, 20), Some(Work { ran_ms: 6.0, waited_ms: 4.0, asleep_ms: 0.0 }));
        assert_eq!(work(5, 25), Some(Work { ran_ms: 10.0, waited_ms: 5.0, asleep_ms: 5.0 }));
        assert_eq!((work(20, 31), between(&all[1..], 0, 15_000), between(&[], 0, 0)), (None, None, None));
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "77 (CPU 0) x) R 1 77 77 0 -1 4194304";
        let reading = Reading { at_us: 9, ran_ns: 815_973_438, waited_ns: 704_636, asleep: false };
        assert_eq!(parse(9, "815973438 704636 17\n", stat), Some(reading));
        assert!(parse(9, "1 2 3", "77 (a) S 1").is_some_and(|r| r.asleep));
        assert_eq!((parse(9, "1", stat), parse(9, "1 2 3", "77")), (None, None));
    }

    /// Waits until the watched thread was seen in a state.
    fn seen(processor: &Processor, asleep: bool) {
        while processor.shared.readings().last().is_none_or(|r| r.asleep != asleep) {
            thread::sleep(PERIOD);
        }
    }

    #[test]
    fn a_thread_is_seen_asleep_and_at_work() {
        if read(Path::new("/proc/thread-self")).is_none() {
            return;
        }
        let (over, (tell, told), (begin, begun)) =
            (Arc::new(AtomicBool::new(false)), mpsc::channel(), mpsc::channel());
        let until = over.clone();
        let busy = thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            begun.recv().unwrap();
            while !until.load(Ordering::Relaxed) {}
        });
        let processor = Processor::watch(told.recv().unwrap() as u64).unwrap();
        seen(&processor, true);
        begin.send(()).unwrap();
        seen(&processor, false);
        over.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        let all = processor.shared.readings().clone();
        assert!(all.windows(2).all(|p| p[0].at_us <= p[1].at_us && p[0].ran_ns <= p[1].ran_ns), "{all:?}");
    }
}

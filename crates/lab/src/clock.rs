//! The two clocks of the lab: one for intervals, shared by all processes of the machine, and the
//! wall clock that timelines of moves are written in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the machine's monotonic clock; comparable between processes and namespaces.
pub fn now_ns() -> u64 {
    // The call cannot fail for this clock; zero would only blur a measurement.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// Microseconds since 1970.
pub fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// Sleeps until the monotonic clock shows `at_ns`; returns at once if it already does.
pub fn sleep_until(at_ns: u64) {
    let now = now_ns();
    if at_ns > now {
        std::thread::sleep(Duration::from_nanos(at_ns - now));
    }
}

/// Nanoseconds as milliseconds for people and reports.
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

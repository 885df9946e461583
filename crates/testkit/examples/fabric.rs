//! Runs schedules of a range of seeds, goes on after failures, and says which invariants failed how often:
//! `cargo run --example fabric -- FIRST COUNT [planned|cuts|frozen|nva|stalls|anything|all] [addresses|routed]`.
//! With a count of 1 a failure comes with its whole trace. `addresses`: every schedule has virtual, learned and nested
//! ones. `routed`: every schedule has routing domains.

use std::collections::BTreeMap;

use godwit_testkit::fabric::{Class, Schedule, Stats, run};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| args.get(i).and_then(|a| a.parse().ok());
    let (first, count) = (number(0).unwrap_or(0), number(1).unwrap_or(1000));
    let class = match args.get(2).map(String::as_str) {
        Some("planned") => Some(Class::Planned),
        Some("cuts") => Some(Class::Cuts),
        Some("frozen") => Some(Class::Frozen),
        Some("nva") => Some(Class::NvaFaults),
        Some("stalls") => Some(Class::Stalls),
        Some("anything") => Some(Class::Anything),
        _ => None,
    };
    let kind = args.get(3).map(String::as_str);
    let start = std::time::Instant::now();
    let (mut all, mut failed) = (Stats::default(), BTreeMap::<String, (u32, u64, String)>::new());
    for seed in first..first + count {
        let of = class.unwrap_or_else(|| Schedule::random(seed).class);
        let schedule = match kind {
            Some("addresses") => Schedule::addresses(of, seed),
            Some("routed") => Schedule::routed(of, seed),
            _ => Schedule::of(of, seed),
        };
        match run(&schedule) {
            Ok(stats) => all += stats,
            Err(f) if count == 1 => println!("{f:#}"),
            Err(f) => {
                let kind = format!("{:?} in {:?}", f.invariant, f.schedule.class);
                let entry = failed.entry(kind).or_insert_with(|| (0, seed, f.text.clone()));
                entry.0 += 1;
                println!("seed {seed}: {:?} {:?}: {}", f.schedule.class, f.invariant, f.text);
            }
        }
    }
    println!("{all}");
    for (kind, (times, seed, text)) in failed {
        println!("{times} times {kind}, first in seed {seed}: {text}");
    }
    println!("{:.1} ms a schedule", start.elapsed().as_secs_f64() * 1000.0 / count as f64);
}

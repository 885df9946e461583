//! What the record behind `godwitctl perf` costs: an iteration's entry, with what the system is asked once a
//! millisecond, and the time stamp counter that one iteration in sixteen reads around its queues. A full iteration
//! has up to 64 frames.
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use godwit_wire::Instant;
use godwit_worker::dpdk::DpdkIo;
use godwit_worker::io::Io;
use godwit_worker::perf::{Iteration, Perf};

fn perf(c: &mut Criterion) {
    let mut group = c.benchmark_group("perf");
    let mut record = Perf::new(Instant(0));
    let (mut at, mut n) = (1_u64, 0_u64);
    group.bench_function("iteration", |b| {
        b.iter(|| {
            // Lengths around 2 us, as under full load, of no order that a processor foresees.
            n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let began = Instant(at);
            at += 2_000 + (n >> 54);
            let done = Iteration { began, busy: true, packets: 64, orders: 0 };
            record.iteration(black_box(done), Instant(at), DpdkIo::core_use);
        });
    });
    group.bench_function("ticks", |b| b.iter(|| black_box(godwit_dpdk::tsc())));
    group.finish();
    assert!(record.iterations.count() > 0);
}

criterion_group!(benches, perf);
criterion_main!(benches);

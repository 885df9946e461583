//! What an update costs on its way to a worker: the lock-free queue alone, and with its effect on the
//! tables, beside a mutex around a `VecDeque`; and what a worker under load pays for updates that another core sends,
//! 100,000 a second, beside a queue of whole orders that it looks into in every iteration.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Clock};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use godwit_tables::update::{Key, Target, TunnelIdx, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{Instant, Mac, Vni};
use godwit_worker::command::{Command, Order};
use godwit_worker::mem::MemIo;
use godwit_worker::orders::Orders;

const BATCH: u64 = 32;

fn update(i: u64) -> Update {
    let mac = Mac::from_u64(0x0220_0000_0000 | (i % 100_000));
    let to = Target { tunnel: TunnelIdx((i % 256) as u32), vni: Vni::from_low24(100) };
    Update::VmSet { key: Key::new(VnIdx(0), mac), state: VmState::Remote { to } }
}

fn tables() -> Tables {
    let mut t = Tables::new(&TablesConfig::default());
    let vni = Vni::from_low24(100);
    let vn = Update::VnSet { vn: VnIdx(0), vni, mtu: 1450, transparent_vlan: false };
    assert_eq!(t.apply(vn, Instant(0)), None);
    for i in 0..256 {
        let remote = IpAddr::from([198, 18, 1, i as u8]);
        let tunnel = Update::TunnelPending { tunnel: TunnelIdx(i), remote };
        assert_eq!(t.apply(tunnel, Instant(0)), None);
    }
    t
}

fn mailbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(BATCH));
    let queue = ArrayQueue::new(4096);
    let mut i = 0;
    group.bench_function("queue", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                i += 1;
                assert!(queue.push(update(i)).is_ok());
            }
            while let Some(u) = queue.pop() {
                black_box(u);
            }
        });
    });
    let locked = Arc::new(Mutex::new(VecDeque::with_capacity(4096)));
    group.bench_function("mutex", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                i += 1;
                locked.lock().expect("not poisoned").push_back(update(i));
            }
            while let Some(u) = locked.lock().expect("not poisoned").pop_front() {
                black_box(u);
            }
        });
    });
    let mut t = tables();
    group.bench_function("queue_and_apply", |b| {
        b.iter(|| {
            for _ in 0..BATCH {
                i += 1;
                assert!(queue.push(update(i)).is_ok());
            }
            while let Some(u) = queue.pop() {
                black_box(t.apply(u, Instant(i)));
            }
        });
    });
    group.finish();
}

/// How many updates a second another core sends.
const RATE: u64 = 100_000;
/// Packets that the worker looks up between two looks into its mailbox, one iteration's: their buffers' first lines are
/// read and written, as a burst's are.
const LINES: usize = 64;
/// Memory that such lines are spread over: a queue's buffers.
const BUFFERS: usize = 4096;

/// What the worker does besides: nothing of what the mailbox brings stays in its nearest cache.
struct Traffic {
    buffers: Vec<[u64; 32]>,
    at: usize,
}

impl Traffic {
    fn iteration(&mut self) {
        for _ in 0..LINES {
            self.at = (self.at + 1) % BUFFERS;
            let buffer = &mut self.buffers[self.at];
            for word in &mut buffer[..16] {
                *word = black_box(*word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
            }
        }
    }
}

/// A worker's loop for as long as it takes `wanted` updates from another core, `take` returning how many it took. The
/// time spent in `take` alone, by the clock read around each call: also where nothing was there.
fn beside_traffic(wanted: u64, send: impl Fn(u64) -> bool + Sync, mut take: impl FnMut() -> u64) -> Duration {
    let mut traffic = Traffic { buffers: vec![[1; 32]; BUFFERS], at: 0 };
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
            let start = Clock::now();
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                let due = start.elapsed().as_nanos() as u64 * RATE / 1_000_000_000;
                while sent < due {
                    if send(sent) {
                        sent += 1;
                    }
                }
            }
        });
        core_affinity::set_for_current(core_affinity::CoreId { id: 1 });
        let (mut taken, mut spent) = (0, Duration::ZERO);
        while taken < wanted {
            traffic.iteration();
            let before = Clock::now();
            taken += take();
            spent += before.elapsed();
        }
        done.store(true, Ordering::Relaxed);
        spent
    })
}

/// Time of the worker for each update, all looks into the mailbox included; needs two cores.
fn orders(c: &mut Criterion) {
    let mut group = c.benchmark_group("orders_beside_traffic");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    let order = |i: u64| Order { at: Instant(i), command: Command::<MemIo>::Table(update(i * 7919)) };
    let whole = ArrayQueue::new(4096);
    let mut t = tables();
    group.bench_function("whole_every_iteration", |b| {
        b.iter_custom(|n| {
            beside_traffic(
                n,
                |i| whole.push(order(i)).is_ok(),
                || {
                    if whole.is_empty() {
                        return 0;
                    }
                    let mut taken = 0;
                    while taken < 32
                        && let Some(Order { at, command: Command::Table(update) }) = whole.pop()
                    {
                        black_box(t.apply(update, at));
                        taken += 1;
                    }
                    taken
                },
            )
        });
    });
    for (name, every) in
        [("entries_every_iteration", 1), ("entries_every_fourth", 4), ("entries_every_eighth", 8)]
    {
        let entries = Orders::<MemIo>::new(4096);
        let mut looks = 0;
        group.bench_function(name, |b| {
            b.iter_custom(|n| {
                beside_traffic(
                    n,
                    |i| entries.push(order(i)).is_ok(),
                    || {
                        looks += 1;
                        if looks % every != 0 || entries.is_empty() {
                            return 0;
                        }
                        let (mut batch, mut taken) = ([None; 32], 0);
                        while taken < batch.len()
                            && let Some(Order { at, command: Command::Table(update) }) = entries.pop()
                        {
                            if let Update::VmSet { key, .. } = update {
                                t.vms.fetch(key);
                            }
                            batch[taken] = Some((update, at));
                            taken += 1;
                        }
                        for (update, at) in batch.iter().take(taken).flatten() {
                            black_box(t.apply(*update, *at));
                        }
                        taken as u64
                    },
                )
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = mailbox, orders
}
criterion_main!(benches);

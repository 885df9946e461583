//! What an update costs on its way to a worker: the lock-free queue alone, and with its effect on the
//! tables, beside a mutex around a `VecDeque`.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use godwit_tables::update::{Key, TunnelIdx, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{Instant, Mac, Vni};

const BATCH: u64 = 32;

fn update(i: u64) -> Update {
    let mac = Mac::from_u64(0x0220_0000_0000 | (i % 100_000));
    Update::VmSet {
        key: Key::new(VnIdx(0), mac),
        state: VmState::Remote { tunnel: TunnelIdx((i % 256) as u32) },
    }
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

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = mailbox
}
criterion_main!(benches);

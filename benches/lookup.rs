//! The location table at 1, 1,000 and 1,000,000 entries, looked up 32 keys at a time, beside
//! hashbrown with the same keys. Figures are for 32 lookups.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::num::NonZeroU64;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use godwit_tables::locations::Locations;

const BURST: usize = 32;

/// Keys as VMs have them: one VN, MAC addresses in a row; asked for in no order.
fn keys(n: u64) -> Vec<u64> {
    (0..n).map(|i| 1 << 48 | 0x0220_0000_0000 | i).collect()
}

/// Bursts of keys that hit, spread over the whole table by a multiplicative walk: a million lookups
/// before one comes again, so that a large table is used in full.
fn bursts(keys: &[u64]) -> Vec<[u64; BURST]> {
    let step = 0x9e37_79b9_7f4a_7c15_u64;
    let pick = |i: usize| keys[((i as u64).wrapping_mul(step) >> 20) as usize % keys.len()];
    (0..32_768).map(|b| std::array::from_fn(|i| pick(b * BURST + i))).collect()
}

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(BURST as u64));
    for n in [1, 1_000, 1_000_000] {
        let keys = keys(n);
        let bursts = bursts(&keys);
        let mut table = Locations::new(1 << 20, [7, 11]);
        let mut map = hashbrown::HashMap::with_capacity(keys.len());
        for (i, &k) in keys.iter().enumerate() {
            let value = NonZeroU64::new(i as u64 + 1).expect("not zero");
            assert!(table.insert(k, value).is_ok(), "the table has room");
            map.insert(k, value);
        }
        let mut at = 0;
        group.bench_function(BenchmarkId::new("locations", n), |b| {
            b.iter(|| {
                at = (at + 1) % bursts.len();
                let burst = &bursts[at];
                let view = table.view();
                let homes = burst.map(|k| view.home(k));
                homes.iter().for_each(|&h| view.prefetch(h));
                for (&h, &k) in homes.iter().zip(burst) {
                    black_box(view.get_at(h, k));
                }
            });
        });
        group.bench_function(BenchmarkId::new("hashbrown", n), |b| {
            b.iter(|| {
                at = (at + 1) % bursts.len();
                for k in &bursts[at] {
                    black_box(map.get(k));
                }
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = lookup
}
criterion_main!(benches);

//! From an endless source to a sink: every buffer comes back to its pool.

mod common;

use std::sync::Arc;

use common::{BURST, eal, pool, running};
use godwit_dpdk::{Mbuf, ThreadRegistration, tsc, tsc_hz};

const ROUNDS: usize = 10_000;

#[test]
fn forwarding_returns_every_buffer() {
    let _eal = eal();
    let pool = pool();
    let (mut source, mut rx, _) = running("net_null0", &pool);
    let (sink, _, mut tx) = running("net_null1,no-rx=1", &pool);
    assert_eq!(source.driver_name(), "net_null");

    let worker = std::thread::spawn(move || {
        let registration = ThreadRegistration::register().expect("a worker is registered");
        let mut pkts: Vec<Mbuf> = Vec::with_capacity(2 * BURST);
        let start = tsc();
        for _ in 0..ROUNDS {
            assert_eq!(rx.rx(&mut pkts, BURST), BURST);
            assert!(pkts.iter().all(|m| m.is_contiguous() && m.port_id() == rx.port_id()));
            assert_eq!(tx.tx(&mut pkts), BURST);
            assert!(pkts.is_empty());
        }
        assert!(tsc() > start && tsc_hz() > 1_000_000);
        assert_eq!(pkts.capacity(), 2 * BURST, "the burst buffer was never grown");
        drop(registration);
        (rx, tx)
    });
    let (mut rx, tx) = worker.join().expect("the worker ends well");
    assert_eq!(pool.in_use(), 0, "all were sent, so none is left");
    assert_eq!(source.stats().expect("counters").rx_packets, (ROUNDS * BURST) as u64);
    assert_eq!(sink.stats().expect("counters").tx_packets, (ROUNDS * BURST) as u64);

    // A burst held by Rust, dropped one by one or at once.
    let mut held = Vec::with_capacity(BURST);
    rx.rx(&mut held, 2 * BURST);
    assert_eq!((held.len(), pool.in_use()), (BURST, BURST as u32), "never beyond the capacity");
    held.truncate(BURST / 2);
    assert_eq!(pool.in_use(), BURST as u32 / 2);
    Mbuf::free_all(&mut held);
    assert_eq!((held.len(), pool.in_use()), (0, 0));
    assert_eq!(pool.available(), pool.size());

    // Queue handles keep the port from stopping.
    let error = source.stop().expect_err("a queue is out").to_string();
    assert!(error.contains("net_null0") && error.contains("1 queue handles"), "{error}");
    assert_eq!((source.queues_out(), sink.queues_out()), (1, 1));
    drop((rx, tx));
    source.stop().expect("it stops");
    source.close().expect("it is unplugged");
    sink.close().expect("it is unplugged, though it ran");
    assert_eq!(Arc::strong_count(&pool), 1);
}

//! What the tests share. EAL starts once a process, so each file has one test.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use godwit_dpdk::{Eal, EalConfig, Mempool, Port, PortConfig, RxQueue, TxQueue};

/// Frames of a burst.
pub const BURST: usize = 32;

/// Starts EAL with little memory: hugepages where the machine has some, ordinary pages otherwise.
pub fn eal() -> Eal {
    Eal::init(EalConfig { memory_mb: 64, ..EalConfig::default() }).expect("EAL starts")
}

/// A pool of 4,095 buffers.
pub fn pool() -> Arc<Mempool> {
    Mempool::new("test", 4095, 128, 2048, None).expect("a pool")
}

/// A running port with one queue each way.
pub fn running(devargs: &str, pool: &Arc<Mempool>) -> (Port, RxQueue, TxQueue) {
    let mut port = Port::probe(devargs).expect("the device is plugged in");
    let config = PortConfig { rx_desc: 256, tx_desc: 256, ..PortConfig::new(Arc::clone(pool)) };
    port.configure(config).expect("the port is configured");
    let (mut rx, mut tx) = port.start().expect("the port starts");
    (port, rx.remove(0), tx.remove(0))
}

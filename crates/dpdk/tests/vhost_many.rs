//! More guests' ports than DPDK has room for devices, and not one of them is such a device.

mod common;

use std::time::{Duration, Instant};

use common::{BURST, pool, running};
use godwit_dpdk::{
    Eal, EalConfig, Error, HugePages, MAX_LISTENING_GUESTS, Mbuf, Port, PortConfig, RxQueue, TxQueue,
    max_devices, raise_file_limit,
};

/// Ports, and how many of them have a guest at a time: guests of the test are devices.
const PORTS: usize = 64;
const GUESTS: usize = 8;

/// Sockets are no devices: there are as many ports as the switch has numbers (R13).
#[test]
fn r13_sixty_four_guests_ports_in_one_process() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = EalConfig { memory_mb: 64, huge: HugePages::Never, ..EalConfig::default() };
    let _eal = Eal::init(config).expect("EAL starts");
    raise_file_limit().expect("files");
    let pool = pool();
    let path = |n: usize| dir.path().join(format!("{n}.sock"));
    let make = |n: usize| {
        let mut port = Port::probe(&format!("vhost={}", path(n).display())).expect("a port");
        port.configure(PortConfig::new(pool.clone())).expect("a socket");
        let (mut rx, mut tx) = port.start().expect("started");
        (port, rx.remove(0), tx.remove(0))
    };
    assert!(PORTS > max_devices() || max_devices() > 32, "the test shows something");
    let mut hosts: Vec<(Port, RxQueue, TxQueue)> = (0..PORTS).map(make).collect();
    for first in (0..PORTS).step_by(GUESTS) {
        let guests: Vec<_> = (first..first + GUESTS)
            .map(|n| running(&format!("net_virtio_user{n},path={},queues=1", path(n).display()), &pool))
            .collect();
        for (n, (guest, guest_rx, guest_tx)) in (first..).zip(guests) {
            let (host, rx, tx) = &mut hosts[n];
            echo(n, &pool, (rx, tx), (guest_rx, guest_tx));
            guest.close().expect("the guest leaves");
            let deadline = Instant::now() + Duration::from_secs(30);
            while host.link().up {
                assert!(Instant::now() < deadline, "port {n} has a guest that has left");
            }
        }
    }
    assert_eq!(hosts.iter().map(|(host, ..)| host.stats().expect("counters").tx_packets).min(), Some(1));
    drop(hosts);
    assert_eq!(pool.in_use(), 0);
    assert!(!(0..PORTS).any(|n| path(n).exists()), "no socket is left");

    // What DPDK's library has no room for is refused, with the number, before it is tried.
    let claimed: Vec<Port> = (0..MAX_LISTENING_GUESTS)
        .map(|n| Port::probe(&format!("vhost={}", path(n).display())).expect("room"))
        .collect();
    let error = Port::probe("vhost=/nowhere/one.sock").expect_err("there is no room");
    assert!(matches!(&error, Error::Socket { .. }) && error.to_string().contains("511 guests"), "{error}");
    drop(claimed);
    Port::probe("vhost=/nowhere/one.sock").expect("there is room again");
}

/// A frame there and back.
fn echo(
    n: usize,
    pool: &std::sync::Arc<godwit_dpdk::Mempool>,
    (rx, tx): (&mut RxQueue, &mut TxQueue),
    (mut guest_rx, mut guest_tx): (RxQueue, TxQueue),
) {
    let frame = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, n as u8], &[0x88, 0xb5], &[n as u8; 60]].concat();
    let mut m = pool.alloc().expect("a buffer");
    assert!(m.set(&frame));
    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    pkts.push(m);
    assert_eq!(guest_tx.tx(&mut pkts), 1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !pkts.iter().any(|m| m.data() == frame) {
        assert!(Instant::now() < deadline, "the frame of guest {n} never came");
        Mbuf::free_all(&mut pkts);
        rx.rx(&mut pkts, BURST);
    }
    pkts.retain(|m| m.data() == frame);
    assert_eq!(tx.tx(&mut pkts), 1, "and back");
    while !pkts.iter().any(|m| m.data() == frame) {
        assert!(Instant::now() < deadline, "the frame to guest {n} never came");
        guest_rx.rx(&mut pkts, BURST);
    }
}

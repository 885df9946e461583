//! A vhost-user port and a guest's end of it in one process: link events, frames, and the guest's leaving.

mod common;

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use common::{BURST, pool, running};
use godwit_dpdk::{Eal, EalConfig, HugePages, LinkEvent, Mbuf, Port, PortConfig};

/// Waits for the link to be reported `up` or down.
fn wait_for(told: &Receiver<LinkEvent>, up: bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let event = told.recv_timeout(deadline - Instant::now()).expect("the change is reported");
        if matches!(event, LinkEvent::Changed(link) if link.up == up) {
            return;
        }
    }
}

/// The queues of a guest are used while it is connected (R13).
#[test]
fn a_guest_comes_and_goes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let socket = dir.path().join("vhost.sock");
    // The guest's end lends its memory over the socket, which takes eight pieces at most: ordinary pages
    // are one piece, hugepages one each.
    let config = EalConfig { memory_mb: 64, huge: HugePages::Never, ..EalConfig::default() };
    let _eal = Eal::init(config).expect("EAL starts");
    let pool = pool();

    let mut host = Port::probe(&format!("net_vhost0,iface={},queues=2", socket.display())).expect("a socket");
    host.configure(PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::new(pool.clone()) })
        .expect("configured");
    assert!(host.dev_info().expect("abilities").link_events);
    let (tell, told) = mpsc::sync_channel(64);
    host.set_link_callback(move |event| {
        let _ = tell.try_send(event);
    })
    .expect("watched");
    let (mut rx, mut tx) = host.start().expect("started");
    assert!(!host.link().up, "nobody is there yet");

    let (guest, mut guest_rx, mut guest_tx) =
        running(&format!("net_virtio_user0,path={},queues=1", socket.display()), &pool);
    wait_for(&told, true);
    assert!(host.link().up);
    // The guest has one pair of queues, the second is never put into use.
    let mut changes = host.guest_queue_changes();
    while changes.is_empty() {
        changes = host.guest_queue_changes();
    }
    assert_eq!(changes, [(0, true)]);
    assert_eq!(host.guest_queue_changes(), [], "each change is said once");

    let frame = [[0xff; 6].as_slice(), &guest.mac(), &[0x88, 0xb5], &[0x5a; 86]].concat();
    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    let mut m = pool.alloc().expect("a buffer");
    assert!(m.set(&frame));
    pkts.push(m);
    assert_eq!(guest_tx.tx(&mut pkts), 1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !pkts.iter().any(|m| m.data() == frame) {
        assert!(Instant::now() < deadline, "the guest's frame never came");
        Mbuf::free_all(&mut pkts);
        rx[0].rx(&mut pkts, BURST);
    }
    assert_eq!(tx[0].tx(&mut pkts), 1, "and back");
    while !pkts.iter().any(|m| m.data() == frame) {
        assert!(Instant::now() < deadline, "the host's frame never came");
        guest_rx.rx(&mut pkts, BURST);
    }
    Mbuf::free_all(&mut pkts);

    drop((guest_rx, guest_tx));
    guest.close().expect("the guest leaves");
    wait_for(&told, false);
    assert!(!host.link().up);
    assert_eq!(rx[0].rx(&mut pkts, BURST), 0, "polling without a guest is safe");
    drop((rx, tx));
    host.close().expect("unplugged");
    assert_eq!(pool.in_use(), 0);
}

//! Frames that guests leave unfinished, over vhost-user with both ends in one process (R11): what a guest
//! asks for arrives as it asked, and what is handed on is understood by another guest.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{BURST, pool};
use godwit_dpdk::{Eal, EalConfig, HugePages, Mbuf, Mempool, Port, PortConfig, RxQueue, TxQueue};
use godwit_packet::{Asks, Packet, ReceiveOffloads, Unfinished};

/// `RTE_ETH_RX_OFFLOAD_UDP_CKSUM`, `_TCP_CKSUM` and `_TCP_LRO`.
const GUEST_RX: u64 = 1 << 2 | 1 << 3 | 1 << 4;
/// `RTE_ETH_TX_OFFLOAD_UDP_CKSUM`, `_TCP_CKSUM`, `_TCP_TSO` and `_MULTI_SEGS`.
const GUEST_TX: u64 = 1 << 2 | 1 << 3 | 1 << 5 | 1 << 15;

const MSS: u16 = 1400;
const LARGE: Unfinished =
    Unfinished { l2_len: 14, l3_len: 40, l4_len: 20, six: true, tcp: true, segment: MSS };
const SMALL: Unfinished =
    Unfinished { l2_len: 14, l3_len: 20, l4_len: 8, six: false, tcp: false, segment: 0 };

struct End {
    port: Port,
    rx: RxQueue,
    tx: TxQueue,
}

fn end(devargs: &str, config: PortConfig) -> End {
    let mut port = Port::probe(devargs).expect("the device is plugged in");
    let report = port.configure(config.clone()).expect("configured");
    assert_eq!(report.guest_offloads, config.guest_offloads);
    let (mut rx, mut tx) = port.start().expect("started");
    End { port, rx: rx.remove(0), tx: tx.remove(0) }
}

fn host(n: usize, socket: &Path, pool: &Arc<Mempool>) -> End {
    let config = PortConfig { guest_offloads: true, ..PortConfig::new(pool.clone()) };
    end(&format!("net_vhost{n},iface={},tso=1", socket.display()), config)
}

fn guest(n: usize, socket: &Path, pool: &Arc<Mempool>, able: bool) -> End {
    let config = PortConfig { rx_desc: 256, tx_desc: 256, ..PortConfig::new(pool.clone()) };
    let (rx, tx) = if able { (GUEST_RX, GUEST_TX) } else { (0, 0) };
    let config = PortConfig { more_rx_offloads: rx, more_tx_offloads: tx, ..config };
    end(&format!("net_virtio_user{n},path={},queues=1", socket.display()), config)
}

fn until<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(done) = f() {
            return done;
        }
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// The next frame that has the EtherType of an IP packet.
fn receive(end: &mut End, what: &str) -> Mbuf {
    let mut burst = Vec::with_capacity(BURST);
    until(what, || {
        end.rx.rx(&mut burst, BURST);
        let at =
            burst.iter().position(|m: &Mbuf| matches!(m.data().get(12..14), Some([8, 0] | [0x86, 0xdd])));
        let found = at.map(|i| burst.remove(i));
        Mbuf::free_all(&mut burst);
        found
    })
}

fn send(end: &mut End, frame: Mbuf) {
    let mut burst = vec![frame];
    until("a frame leaves", || (end.tx.tx(&mut burst) == 1).then_some(()));
}

fn bytes(m: &Mbuf) -> Vec<u8> {
    m.pieces().flatten().copied().collect()
}

/// A TCP frame over IPv6 with so much payload; its checksum is anything.
fn large(payload: usize) -> Vec<u8> {
    let mut f = [[2; 6], [4; 6]].concat();
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend((20 + payload as u16).to_be_bytes());
    f.extend([6, 64]);
    f.extend([[0x20; 16], [0x21; 16]].concat());
    f.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0xab, 0xcd, 0, 0]);
    f.extend((0..payload).map(|i| (i * 13 + i / 255) as u8));
    f
}

/// A UDP frame over IPv4, its checksum anything.
fn small() -> Vec<u8> {
    let mut f = [[2; 6], [4; 6]].concat();
    f.extend([8, 0, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0x66, 0xc7, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend([0, 1, 0, 2, 0, 16, 0xab, 0xcd, 1, 2, 3, 4, 5, 6, 7, 8]);
    f
}

fn of(pool: &Arc<Mempool>, frame: &[u8], missing: Unfinished) -> Mbuf {
    let mut m = pool.alloc().expect("a buffer");
    assert!(m.set(frame));
    m.hand_on(missing);
    m
}

#[test]
fn r11_what_a_guest_leaves_undone_comes_and_is_handed_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = EalConfig { memory_mb: 128, huge: HugePages::Never, ..EalConfig::default() };
    let _eal = Eal::init(config).expect("EAL starts");
    let (pool, huge) = (pool(), Mempool::new("huge", 255, 0, 65_000, None).expect("a pool"));
    let sockets: Vec<_> = (0..3).map(|n| dir.path().join(n.to_string())).collect();
    let mut hosts: Vec<End> = (0..3).map(|n| host(n, &sockets[n], &pool)).collect();
    assert_eq!(hosts[0].port.guest_receive_offloads(), ReceiveOffloads::NOTHING, "nobody is there");
    // The last guest's driver is told nothing of offloads.
    let mut guests: Vec<End> = (0..3).map(|n| guest(n, &sockets[n], &pool, n < 2)).collect();
    for h in &hosts {
        until("the guests connect", || h.port.link().up.then_some(()));
    }
    let all = ReceiveOffloads { checksum: true, tcp4: true, tcp6: true };
    let offloads: Vec<ReceiveOffloads> = hosts.iter().map(|h| h.port.guest_receive_offloads()).collect();
    assert_eq!(offloads, [all, all, ReceiveOffloads::NOTHING]);
    assert_eq!(guests[0].port.guest_receive_offloads(), ReceiveOffloads::NOTHING, "not a host's end");

    let frame = large(60_000);
    send(&mut guests[0], of(&huge, &frame, LARGE));
    let mut got = receive(&mut hosts[0], "the large frame comes");
    assert_eq!(got.asks(), Asks { checksum: true, segment: MSS });
    assert!(!got.is_plain() && !got.is_contiguous() && Packet::len(&got) == frame.len());
    // The guest's driver has put a sum of the pseudo-header in place of the checksum.
    let untouched = |a: &[u8], b: &[u8], at: usize| a[..at] == b[..at] && a[at + 2..] == b[at + 2..];
    assert!(untouched(&bytes(&got), &frame, 70));
    got.hand_on(LARGE);
    assert!(got.is_handed_on());
    send(&mut hosts[1], got);
    let got = receive(&mut guests[1], "the other guest gets it whole");
    assert_eq!(got.asks(), Asks { checksum: true, segment: MSS });
    assert!(untouched(&bytes(&got), &frame, 70));

    let frame = small();
    send(&mut guests[1], of(&pool, &frame, SMALL));
    let mut got = receive(&mut hosts[1], "the small frame comes");
    assert_eq!(got.asks(), Asks { checksum: true, segment: 0 });
    assert!(!got.is_plain() && got.is_contiguous());
    got.hand_on(SMALL);
    send(&mut hosts[0], got);
    let got = receive(&mut guests[0], "and goes to the first guest");
    assert_eq!(got.asks(), Asks { checksum: true, segment: 0 });
    assert!(untouched(&bytes(&got), &frame, 40));
    // What the driver would prepare is the pseudo-header's sum; where it is there already, nothing is left to do,
    // so that nobody need ask (R5).
    let sum = [0x14, 0x24];
    let mut burst =
        [of(&pool, &frame, SMALL), of(&pool, &[&frame[..40], &sum, &frame[42..]].concat(), SMALL)];
    assert_eq!(guests[0].tx.prepare(&mut burst), 2);
    assert_eq!(burst[0].data(), burst[1].data());
    assert_eq!(burst[1].data()[40..42], sum);
    drop(burst);
    // A complete one asks for nothing.
    let mut plain = pool.alloc().expect("a buffer");
    assert!(plain.set(&frame));
    send(&mut guests[0], plain);
    let got = receive(&mut hosts[0], "a complete frame comes");
    assert!(got.is_plain() && got.asks() == Asks::NOTHING);

    let End { port, rx, tx } = guests.remove(1);
    drop((rx, tx, got));
    port.close().expect("a guest leaves");
    until("its host's end notices", || (!hosts[1].port.link().up).then_some(()));
    assert_eq!(hosts[1].port.guest_receive_offloads(), ReceiveOffloads::NOTHING);
}

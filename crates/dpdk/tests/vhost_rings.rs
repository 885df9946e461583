//! A guest's rings, split and packed, of one pair of queues and of two, at either end of the socket: what shows that
//! frames are there, what is counted, and what becomes of a ring whose guest is gone.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{BURST, pool};
use godwit_dpdk::{
    Eal, EalConfig, Error, HugePages, Mbuf, Mempool, NO_PORT_ID, Port, PortConfig, RxQueue, TxQueue,
};

const FRAME: usize = 100;

type Ends = (Port, Vec<RxQueue>, Vec<TxQueue>);

fn end(devargs: &str, queues: u16, pool: &Arc<Mempool>) -> Ends {
    let mut port = Port::probe(devargs).expect("the device is plugged in");
    let config = PortConfig {
        rx_queues: queues,
        tx_queues: queues,
        rx_desc: 256,
        tx_desc: 256,
        ..PortConfig::new(pool.clone())
    };
    let report = port.configure(config).expect("configured");
    assert_eq!((report.rx_queues, report.tx_queues), (queues, queues), "{:?}", report.notes);
    let (rx, tx) = port.start().expect("started");
    (port, rx, tx)
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

fn frames(pool: &Arc<Mempool>, mark: u8, n: usize) -> Vec<Mbuf> {
    let frame = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[mark; FRAME - 14]].concat();
    let one = |_| {
        let mut m = pool.alloc().expect("a buffer");
        assert!(m.set(&frame));
        m
    };
    (0..n).map(one).collect()
}

/// Takes frames with the mark until there are so many; others are dropped.
fn take(rx: &mut RxQueue, mark: u8, n: usize, what: &str) {
    let (mut burst, mut got) = (Vec::with_capacity(BURST), 0);
    until(what, || {
        rx.rx(&mut burst, BURST);
        got += burst.iter().filter(|m: &&Mbuf| m.len() == FRAME && m.data()[FRAME - 1] == mark).count();
        Mbuf::free_all(&mut burst);
        (got >= n).then_some(())
    });
    assert_eq!(got, n, "{what}");
}

fn send(tx: &mut TxQueue, mut burst: Vec<Mbuf>, what: &str) {
    let all = burst.len();
    let mut sent = 0;
    until(what, || {
        sent += tx.tx(&mut burst);
        burst.is_empty().then_some(())
    });
    assert_eq!(sent, all, "{what}");
}

/// Has the ring say that it is empty, whatever the guest sends by itself when it starts.
fn settle(rx: &mut RxQueue) {
    let mut burst = Vec::with_capacity(BURST);
    until("the ring is empty", || {
        rx.rx(&mut burst, BURST);
        Mbuf::free_all(&mut burst);
        (!rx.has_frames()).then_some(())
    });
}

/// A guest with so many pairs of queues, of either kind of ring, that goes and comes again.
fn rounds(dir: &Path, n: usize, queues: u16, packed: bool, pool: &Arc<Mempool>) {
    let socket = dir.join(format!("{n}.sock"));
    let (host, mut rx, mut tx) = end(&format!("vhost={},queues={queues}", socket.display()), queues, pool);
    assert!(host.is_vhost() && host.id() == NO_PORT_ID);
    let at = format!(
        "net_virtio_user{n},path={},queues={queues},packed_vq={},queue_size=256",
        socket.display(),
        u8::from(packed)
    );
    for round in 0..2 {
        let what = format!("queues {queues}, packed {packed}, round {round}");
        assert!(rx.iter_mut().all(|q| q.can_rest() && !q.has_frames()), "{what}: nobody is there");
        let mut lone = frames(pool, 1, 1);
        assert_eq!(tx[0].tx(&mut lone), 0, "{what}");
        drop(lone);
        let (guest, mut guest_rx, mut guest_tx) = end(&at, queues, pool);
        until("the guest connects", || host.link().up.then_some(()));
        let mut changes = Vec::new();
        until("its queues are told", || {
            changes.extend(host.guest_queue_changes());
            (changes.len() == usize::from(queues)).then_some(())
        });
        assert!(changes.iter().all(|&(queue, used)| used && queue < queues), "{what}: {changes:?}");
        let before = host.stats().expect("counters");
        for queue in 0..usize::from(queues) {
            settle(&mut rx[queue]);
            for burst in [1, BURST, 3 * BURST] {
                let mark = 10 + queue as u8;
                send(&mut guest_tx[queue], frames(pool, mark, burst), &what);
                until("the ring says that frames are there", || rx[queue].has_frames().then_some(()));
                assert!(rx[queue].has_frames(), "{what}: looking takes nothing");
                take(&mut rx[queue], mark, burst, &what);
                assert!(!rx[queue].has_frames(), "{what}: all were taken");
                send(&mut tx[queue], frames(pool, mark, burst), &what);
                take(&mut guest_rx[queue], mark, burst, &what);
            }
        }
        let now = host.stats().expect("counters");
        let sent = u64::from(queues) * 4 * BURST as u64 + u64::from(queues);
        assert!(now.rx_packets - before.rx_packets >= sent, "{what}: {now:?}");
        assert_eq!(now.tx_packets - before.tx_packets, sent, "{what}: {now:?}");
        assert_eq!(now.tx_bytes - before.tx_bytes, sent * FRAME as u64, "{what}");
        drop((guest_rx, guest_tx));
        guest.close().expect("the guest leaves");
        until("its leaving is told", || (!host.link().up).then_some(()));
        assert_eq!(host.guest_queue_changes(), [], "{what}: without a word");
    }
    let error = Port::probe(&format!("net_vhost9,iface={}", socket.display())).expect_err("it has an owner");
    assert!(matches!(&error, Error::PortClaimed { .. }), "{error}");
    drop((rx, tx));
    host.close().expect("closed");
    assert!(!socket.exists(), "its socket is gone");
}

/// The guest's end listens, and is there after the switch's.
fn client(dir: &Path, pool: &Arc<Mempool>) {
    let socket = dir.join("client.sock");
    let (host, mut rx, mut tx) = end(&format!("vhost={},mode=client", socket.display()), 1, pool);
    assert!(!host.link().up && !socket.exists());
    let at = format!("net_virtio_user20,path={},queues=1,server=1", socket.display());
    let (guest, mut guest_rx, mut guest_tx) = end(&at, 1, pool);
    until("the host connects", || host.link().up.then_some(()));
    settle(&mut rx[0]);
    send(&mut guest_tx[0], frames(pool, 7, 5), "from a guest that listens");
    take(&mut rx[0], 7, 5, "from a guest that listens");
    send(&mut tx[0], frames(pool, 8, 5), "to a guest that listens");
    take(&mut guest_rx[0], 8, 5, "to a guest that listens");
    drop((rx, tx));
    host.close().expect("closed");
    drop((guest_rx, guest_tx));
    guest.close().expect("the guest ends");
}

/// The rings of a guest give what it sends as long as it is there (R11, R13).
#[test]
fn r11_rings_split_and_packed_of_guests_that_come_and_go() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = EalConfig { memory_mb: 128, huge: HugePages::Never, ..EalConfig::default() };
    let _eal = Eal::init(config).expect("EAL starts");
    let pool = pool();
    rounds(dir.path(), 0, 1, false, &pool);
    rounds(dir.path(), 1, 1, true, &pool);
    rounds(dir.path(), 2, 2, false, &pool);
    rounds(dir.path(), 3, 2, true, &pool);
    client(dir.path(), &pool);
    assert_eq!(pool.in_use(), 0);
}

//! Updates beside traffic (R14).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant as Clock;

use godwit_pipeline::mem::MemPool;
use godwit_tables::update::{Admission, Key, PortIdx, PortRole, TunnelIdx, Update, VmState, VnIdx};
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::outer::{OuterHeader, parse_outer};
use godwit_wire::{Instant, Mac, Vni};
use godwit_worker::command::{Command, Mailbox, Order, TxPath};
use godwit_worker::mem::{MemIo, MemQueue};
use godwit_worker::outbox::OUTBOX;
use godwit_worker::worker::Worker;

const UPDATES: u32 = 100_000;
const VN: VnIdx = VnIdx(0);
const VM: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const ACCESS: PortIdx = PortIdx(0);
/// Two uplinks, each with a tunnel of its own.
const UPLINKS: [PortIdx; 2] = [PortIdx(1), PortIdx(2)];

fn locator(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, 10 + n as u8)
}

fn uplink_mac(n: usize) -> Mac {
    Mac([2, 0, 0, 0, 1, n as u8])
}

fn give(mailbox: &Mailbox<MemIo>, at: Instant, command: Command<MemIo>) {
    let mut order = Order { at, command };
    // A full mailbox delays control; it loses nothing.
    while let Err(back) = mailbox.commands.push(order) {
        order = back;
        std::thread::yield_now();
    }
}

fn set_up(mailbox: &Mailbox<MemIo>, access: &MemQueue, out: &[MemQueue; 2]) {
    let give = |command| give(mailbox, Instant(1), command);
    let own = Ipv4Addr::new(198, 18, 0, 1);
    give(Command::Table(Update::VnSet {
        vn: VN,
        vni: Vni::from_low24(7),
        mtu: 1450,
        transparent_vlan: false,
    }));
    let role = PortRole::Access { vn: VN, mac: VM, admission: Admission::Activated };
    give(Command::Table(Update::PortSet { port: ACCESS, role }));
    give(Command::AttachRx { port: ACCESS, queue: 0, rx: access.clone() });
    for (n, &uplink) in UPLINKS.iter().enumerate() {
        let (mac, v4) = (uplink_mac(n), Some(own));
        let role = PortRole::Uplink { mac, v4, v6: None, v6_link_local: None, exception: None };
        give(Command::Table(Update::PortSet { port: uplink, role }));
        let remote = IpAddr::V4(locator(n));
        let header = OuterHeader::v4(mac, Mac([2, 0, 0, 0, 2, n as u8]), own, locator(n), 4789, 64);
        let tunnel = TunnelIdx(n as u32);
        give(Command::Table(Update::TunnelSet { tunnel, uplink, remote, mtu: 1500, header }));
        let tx = TxPath::Own(out[n].clone());
        give(Command::AttachTx { port: uplink, tx, takes: None, outbox: Vec::with_capacity(OUTBOX) });
    }
    give(Command::Table(moved_to(0)));
}

fn moved_to(n: usize) -> Update {
    Update::VmSet { key: Key::new(VN, PEER), state: VmState::Remote { tunnel: TunnelIdx(n as u32) } }
}

/// Every packet has one tunnel's header, whole, and left by that tunnel's uplink. Returns how many
/// packets went each way.
fn check(out: &[MemQueue; 2]) -> HashMap<usize, u64> {
    let mut counts = HashMap::new();
    for (n, queue) in out.iter().enumerate() {
        while let Some(frame) = queue.take() {
            let outer = parse_outer(&frame, 4789).expect("a sound packet");
            assert_eq!(outer.dst, IpAddr::V4(locator(n)));
            assert_eq!((&frame[..6], &frame[6..12]), (&[2, 0, 0, 0, 2, n as u8][..], &uplink_mac(n).0[..]));
            *counts.entry(n).or_default() += 1;
        }
    }
    counts
}

#[test]
fn r14_100_000_updates_beside_traffic_tear_no_entry_and_none_is_lost() {
    let mailbox = Mailbox::<MemIo>::new(4096, 64);
    let tables =
        Tables::new(&TablesConfig { location_capacity: 64, hold_bytes: 1 << 20, ..Default::default() });
    let mut worker = Worker::new(tables, MemPool::endless(), mailbox.clone());
    let access = MemQueue::new(64);
    let out = [MemQueue::new(1 << 16), MemQueue::new(1 << 16)];
    set_up(&mailbox, &access, &out);
    let (start, done) = (Clock::now(), AtomicBool::new(false));
    let now = || Instant(1_000 + start.elapsed().as_nanos() as u64);
    let inner = godwit_testkit::frames::udp_frame(
        (VM, IpAddr::from([10, 0, 0, 1]), 1),
        (PEER, IpAddr::from([10, 0, 0, 2]), 2),
        b"payload",
    );
    let (mut sent, mut left) = (0, HashMap::<usize, u64>::new());
    std::thread::scope(|s| {
        s.spawn(|| {
            for i in 0..UPDATES {
                give(&mailbox, now(), Command::Table(moved_to(i as usize % 2)));
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) || !mailbox.commands.is_empty() {
            sent += u64::from(access.put(inner.clone()));
            worker.step(now());
            for (n, count) in check(&out) {
                *left.entry(n).or_default() += count;
            }
        }
    });
    for _ in 0..100 {
        worker.step(now());
    }
    for (n, count) in check(&out) {
        *left.entry(n).or_default() += count;
    }
    // Seven came before: the VN, three ports, two tunnels, the first location.
    assert_eq!(worker.tables().counters.worker.updates, u64::from(UPDATES) + 7);
    assert_eq!(left.values().sum::<u64>(), sent, "nothing is lost beside updates");
    // The last word holds.
    assert!(access.put(inner));
    worker.step(now());
    assert_eq!(check(&out).get(&((UPDATES as usize - 1) % 2)), Some(&1));
}

//! Broadcast: copied to every other port and NVE of the VN, once.

use crate::common::*;
use godwit_pipeline::mem::MemPool;
use godwit_tables::DropReason;
use godwit_tables::event::Event;
use godwit_tables::update::*;
use godwit_testkit::frames::{self, Nd};
use godwit_wire::Mac;

#[test]
fn r60_broadcast_goes_to_everybody_else_once() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T6 });
    let f = frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hello all");
    lab.one(P1, &f);
    assert_eq!(lab.to(P2), [f.as_slice()]);
    assert_eq!(lab.to(UPLINK).iter().map(|p| open(p).1).collect::<Vec<_>>(), [&f, &f]);
    assert_eq!(lab.out.sent.len(), 3);
    let w = lab.tables.counters.worker;
    assert_eq!((w.replicated, w.copies, w.encapsulated), (1, 2, 2));
    lab.clear();
    lab.apply(Update::ReplicaRemove { vn: VN, tunnel: T4 });
    lab.one(P1, &Nd { kind: 133, ..Nd::solicit(M1, v6(1), v6(2)) }.frame());
    assert_eq!(lab.out.sent.len(), 2, "router solicitations travel alike");
}

#[test]
fn r60_more_replicas_than_the_limit() {
    let mut lab = Lab::new();
    for n in 0..5 {
        lab.apply(Update::ReplicaAdd { vn: VN, tunnel: TunnelIdx(n) });
    }
    assert_eq!(lab.take_events(), [Event::TableFull { key: key(Mac::BROADCAST) }]);
    lab.one(P1, &frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hello all"));
    assert_eq!(lab.drops(DropReason::ReplicationLimit), 1);
    assert_eq!(lab.drops(DropReason::NoTunnel), 2, "one pending, one never set");
    assert_eq!(lab.out.sent.len(), 3);
}

#[test]
fn r60_without_buffers_or_listeners() {
    let mut lab = Lab::new();
    lab.apply(Update::ReplicaAdd { vn: VN, tunnel: T4 });
    lab.pool = MemPool::of(0);
    lab.one(P1, &frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"hello all"));
    assert_eq!((lab.drops(DropReason::NoBuffer), lab.out.sent.len()), (1, 1), "the frame itself still goes");
    dropped(&mut lab, P3, &frames::ethernet(Mac::BROADCAST, M1, 0x1234, b"alone"), DropReason::NoReceiver);
}

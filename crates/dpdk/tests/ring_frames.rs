//! A ring sends frames back to their sender: bytes, order and room for headers survive, and what does
//! not fit stays with the caller.

mod common;

use common::{BURST, eal, pool, running};
use godwit_dpdk::{HEADROOM, Mbuf};

#[test]
fn frames_come_back_as_they_were() {
    let _eal = eal();
    let pool = pool();
    let (port, mut rx, mut tx) = running("net_ring0", &pool);

    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    assert!(pool.alloc_bulk(&mut pkts, BURST));
    assert!(!pool.alloc_bulk(&mut pkts, 1), "the vector is full and is not grown");
    for (i, m) in pkts.iter_mut().enumerate() {
        assert_eq!((m.len(), m.headroom()), (0, usize::from(HEADROOM)));
        assert!(m.tailroom() >= 2048);
        assert!(m.set(&[i as u8; 60]));
        m.prepend(4).expect("headroom")[..4].copy_from_slice(b"head");
    }
    assert_eq!(tx.tx(&mut pkts), BURST);
    assert_eq!(pool.in_use(), BURST as u32, "the ring holds them");

    assert_eq!(rx.rx(&mut pkts, BURST), BURST);
    assert_eq!(rx.rx(&mut pkts, BURST), 0, "no room, and nothing left");
    for (i, m) in pkts.iter_mut().enumerate() {
        assert_eq!((&m.data()[..4], m.frame_len()), (&b"head"[..], 64));
        m.trim_front(4);
        assert_eq!(m.data(), [i as u8; 60]);
    }

    // More than the ring takes: the unsent stay in front, in order.
    Mbuf::free_all(&mut pkts);
    let mut many: Vec<Mbuf> = Vec::with_capacity(4000);
    while many.len() < 4000 {
        let mut m = pool.alloc().expect("the pool has as many");
        assert!(m.set(&(many.len() as u32).to_be_bytes()));
        many.push(m);
    }
    let mut sent = 0;
    while let n @ 1.. = tx.tx(&mut many) {
        sent += n;
    }
    assert!(sent > 0 && sent < 4000, "{sent}");
    assert_eq!(many.len(), 4000 - sent);
    assert_eq!(many[0].data(), (sent as u32).to_be_bytes());
    drop(many);
    assert_eq!(pool.in_use(), sent as u32);

    // What is in a ring when the port goes is the driver's to free; this one keeps it, so drain first.
    let mut back = Vec::with_capacity(sent);
    while rx.rx(&mut back, BURST) > 0 {}
    assert_eq!(back.len(), sent);
    drop((back, rx, tx));
    port.close().expect("it is unplugged");
    assert_eq!(pool.in_use(), 0);
}

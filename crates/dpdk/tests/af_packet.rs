//! Two packet sockets on the ends of a veth pair, in a network namespace of the test's own.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{BURST, eal, pool, running};
use godwit_dpdk::Mbuf;

#[test]
fn frames_cross_a_veth_pair() {
    // SAFETY: called while the test's is the only thread that uses the network; no memory is touched.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("no network namespace without CAP_SYS_ADMIN: not tested");
        return;
    }
    for line in ["link add gw0 type veth peer name gw1", "link set gw0 up", "link set gw1 up"] {
        let status = Command::new("ip").args(line.split(' ')).status().expect("iproute2 is installed");
        assert!(status.success(), "ip {line}");
    }
    let _eal = eal();
    let pool = pool();
    let (a, rx_a, mut tx_a) = running("net_af_packet0,iface=gw0", &pool);
    let (b, mut rx_b, tx_b) = running("net_af_packet1,iface=gw1", &pool);
    eprintln!("{:?} {:?}", a.dev_info().expect("abilities"), a.mtu());

    let frame = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0x5a; 1000]].concat();
    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    let mut m = pool.alloc().expect("a buffer");
    assert!(m.set(&frame));
    pkts.push(m);
    assert_eq!(tx_a.tx(&mut pkts), 1);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !pkts.iter().any(|m| m.data() == frame) {
        assert!(Instant::now() < deadline, "the frame never came");
        Mbuf::free_all(&mut pkts);
        rx_b.rx(&mut pkts, BURST);
    }
    drop((pkts, rx_a, tx_a, rx_b, tx_b));
    a.close().expect("unplugged");
    b.close().expect("unplugged");
    assert_eq!(pool.in_use(), 0);
}

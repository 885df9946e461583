//! Two packet sockets as one port, in a network namespace of the test's own. They never say that a link is lost: who
//! takes over, `godwit-lab fabric` shows with LACP.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{BURST, eal, pool, running};
use godwit_dpdk::{BondMode, Mbuf, Port, PortConfig};

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {line}");
}

fn carries(bond: &Port) -> Vec<bool> {
    bond.legs().iter().map(|l| l.carries).collect()
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn r95_a_bond_is_one_port_and_its_members_are_its_own() {
    // SAFETY: called while the test's is the only thread that uses the network; no memory is touched.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("no network namespace without CAP_SYS_ADMIN: not tested");
        return;
    }
    for n in 0..2 {
        ip(&format!("link add leg{n} type veth peer name end{n}"));
        ip(&format!("link set leg{n} up"));
        ip(&format!("link set end{n} up"));
    }
    let _eal = eal();
    let pool = pool();
    let members = ["net_af_packet0,iface=leg0", "net_af_packet1,iface=leg1"];
    let again = Port::bond("twice", BondMode::Lacp, &[members[0], members[0]]);
    let error = again.expect_err("a device is in one bond, once").to_string();
    assert!(error.contains("net_af_packet0"), "{error}");

    let mut bond = Port::bond("up0", BondMode::ActiveBackup, &members).expect("a bond");
    assert!(bond.is_bond() && bond.has_driver("net_af_packet") && !bond.has_driver("net_tap"));
    let names: Vec<String> = bond.legs().into_iter().map(|l| l.name).collect();
    assert_eq!(names, ["net_af_packet0", "net_af_packet1"]);
    assert!(Port::probe(members[0]).is_err(), "it is the bond's");
    bond.configure(PortConfig { rx_desc: 256, tx_desc: 256, ..PortConfig::new(Arc::clone(&pool)) })
        .expect("the bond is configured");
    let (rx, mut tx) = bond.start().expect("the bond starts");
    assert!(tx[0].keep_alive(), "a bond wants to be called");
    let (_end0, mut rx0, _) = running("net_af_packet2,iface=end0", &pool);
    let (_end1, mut rx1, _) = running("net_af_packet3,iface=end1", &pool);

    let frame = [[0xff; 6].as_slice(), &bond.mac(), &[0x88, 0xb5], &[0x5a; 100]].concat();
    until("the first member carries", || carries(&bond) == [true, false]);
    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    until("a frame comes by the leg that carries", || {
        let mut m = pool.alloc().expect("a buffer");
        assert!(m.set(&frame));
        tx[0].tx(&mut vec![m]);
        Mbuf::free_all(&mut pkts);
        rx0.rx(&mut pkts, BURST);
        pkts.iter().any(|m| m.data() == frame)
    });
    Mbuf::free_all(&mut pkts);
    rx1.rx(&mut pkts, BURST);
    assert!(pkts.iter().all(|m| m.data() != frame), "and by no other");
    assert!(bond.legs()[0].stats.tx_packets > 0 && bond.legs()[1].stats.tx_packets == 0);
    drop((rx, tx, pkts));
    bond.close().expect("unplugged");
    let member = Port::probe(members[0]).expect("its members went with it, and are free");
    member.close().expect("unplugged");
}

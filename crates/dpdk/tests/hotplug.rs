//! Devices come and go while EAL runs, among them a tap in a network namespace of the test's own.

mod common;

use std::io;
use std::time::{Duration, Instant};

use common::{BURST, eal, pool, running};
use godwit_dpdk::{Error, Mbuf, Port, PortConfig};

const TAP: &str = "gwtap0";

/// Puts the process into a network namespace of its own; `false` where that is not permitted.
fn own_network() -> bool {
    // SAFETY: called while the test's is the only thread that uses the network; no memory is touched.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

/// Runs `ip`, which prints what is wrong.
fn ip(args: &[&str]) {
    let status = std::process::Command::new("ip").args(args).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {args:?}");
}

fn interface_exists(name: &str) -> bool {
    let name = std::ffi::CString::new(name).expect("a name");
    // SAFETY: a terminated text.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// Sends one frame out of the kernel's side of the tap.
fn send_from_kernel(frame: &[u8]) -> io::Result<()> {
    let name = std::ffi::CString::new(TAP).expect("a name");
    // SAFETY: plain system calls on a socket made here; the address is readable and its true size given.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        to.sll_halen = 6;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        let sent = libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), len);
        let result = if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        libc::close(fd);
        result
    }
}

#[test]
fn devices_come_and_go() {
    let private = own_network();
    let _eal = eal();
    let pool = pool();
    null_again_and_again(&pool);
    queues_outlive_their_port(&pool);
    if private {
        tap(&pool);
    } else {
        eprintln!("no network namespace without CAP_SYS_ADMIN: the tap is not tested");
    }
    assert_eq!(pool.in_use(), 0);
}

fn null_again_and_again(pool: &std::sync::Arc<godwit_dpdk::Mempool>) {
    for _ in 0..5 {
        let (port, rx, tx) = running("net_null7,no-rx=1", pool);
        assert_eq!((port.id(), port.name()), (0, "net_null7"), "its id is free again");
        let taken = Port::probe("net_null7").expect_err("it has an owner");
        assert!(matches!(&taken, Error::PortClaimed { .. }), "{taken}");
        drop((rx, tx));
        port.wait_idle(Duration::ZERO).expect("no handle is out");
        port.close().expect("it is unplugged");
    }
}

/// Closing fails while a queue is out, and the device goes with its last queue.
fn queues_outlive_their_port(pool: &std::sync::Arc<godwit_dpdk::Mempool>) {
    let (port, mut rx, tx) = running("net_null8", pool);
    assert!(port.wait_idle(Duration::from_millis(5)).is_err());
    let error = port.close().expect_err("queues are out");
    assert!(matches!(error, Error::QueuesOut { queues: 2, .. }), "{error}");
    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    assert_eq!(rx.rx(&mut pkts, BURST), BURST, "the queue still works");
    drop(tx);
    assert!(matches!(Port::probe("net_null8"), Err(Error::PortClaimed { .. })));
    drop(rx);
    let port = Port::probe("net_null8").expect("the last queue took the device with it");
    port.close().expect("never configured, and closed all the same");
}

fn tap(pool: &std::sync::Arc<godwit_dpdk::Mempool>) {
    let mut port = Port::probe(&format!("net_tap0,iface={TAP}")).expect("a tap");
    assert!(interface_exists(TAP));
    let config = PortConfig { rx_queues: 1, tx_queues: 2, mtu: Some(1550), ..PortConfig::new(pool.clone()) };
    let report = port.configure(config).expect("configured");
    assert_eq!((report.rx_queues, report.tx_queues, report.mtu), (2, 2, 1504), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.contains("as many receive as transmit")), "{:?}", report.notes);

    // The driver takes frames of 1,522 bytes and no longer ones, though it claims an MTU of 65,535.
    assert!(report.notes.iter().any(|n| n.contains("MTU of 1550")), "{:?}", report.notes);

    assert!(!port.dev_info().expect("abilities").link_events, "the driver claims events and sends none");
    let (mut rx, mut tx) = port.start().expect("started");
    ip(&["link", "set", TAP, "up"]);
    assert!(port.link().up);

    let frame = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0x5a; 46]].concat();
    send_from_kernel(&frame).expect("sent");
    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !pkts.iter().any(|m| m.data() == frame) {
        assert!(Instant::now() < deadline, "the kernel's frame never came");
        Mbuf::free_all(&mut pkts);
        for queue in &mut rx {
            queue.rx(&mut pkts, BURST / 2);
        }
    }
    assert!(tx[1].tx(&mut pkts) > 0, "the second queue sends");
    drop(pkts);

    ip(&["link", "set", TAP, "down"]);
    assert!(!port.link().up);
    drop((rx, tx));
    port.stop().expect("stopped");
    port.close().expect("unplugged");
    assert!(!interface_exists(TAP), "the interface went with its device");
}

//! A port of DPDK plays a capture. The functions that are stepped in front of are this program's own here, as they
//! are a preloaded library's elsewhere: in both cases DPDK's are what comes next by that name.

use std::ffi::c_int;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;

use godwit_dpdk::{Eal, EalConfig, Mbuf, Mempool, Port, PortConfig, RxQueue};
use godwit_replay::{preload, settings};

/// Frames of a burst.
const BURST: usize = 32;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x17];

/// The linker keeps what is asked for.
static START: unsafe extern "C" fn(u16) -> c_int = preload::rte_eth_dev_start;

fn frame(i: u8) -> Vec<u8> {
    (0..60 + usize::from(i) * 97).map(|b| (b * 7) as u8 ^ i).collect()
}

fn pcap(frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    // Magic number, version 2.4, zone, accuracy, longest frame, Ethernet.
    let mut file: Vec<u8> =
        [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1].iter().flat_map(|w| w.to_le_bytes()).collect();
    for frame in frames {
        file.extend([0; 8]);
        file.extend((frame.len() as u32).to_le_bytes().repeat(2));
        file.extend(frame);
    }
    file
}

fn started(devargs: &str, pool: &Arc<Mempool>, queues: u16) -> (Port, Vec<RxQueue>) {
    let mut port = Port::probe(devargs).expect("the device is plugged in");
    let config =
        PortConfig { rx_desc: 256, tx_desc: 256, rx_queues: queues, ..PortConfig::new(Arc::clone(pool)) };
    port.configure(config).expect("the port is configured");
    let (rx, _tx) = port.start().expect("the port starts");
    (port, rx)
}

fn received(rx: &mut RxQueue, n: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < n {
        let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
        assert_eq!(rx.rx(&mut pkts, BURST), BURST);
        all.extend(pkts.iter().map(|m| m.data().to_vec()));
    }
    all.truncate(n);
    all
}

/// A capture is played by each queue of the device without end (R76).
#[test]
fn each_queue_of_the_device_plays_the_capture_over_and_over_and_no_other_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("frames.pcap");
    fs::write(&path, pcap((0..7).map(frame))).expect("the capture is written");
    // SAFETY: nothing else of this program runs yet.
    unsafe {
        std::env::set_var(settings::CAPTURE, &path);
        std::env::set_var(settings::DEVICE, "net_null0");
        std::env::set_var(settings::MAC, "02:00:00:00:00:17");
    }
    black_box(START);
    let _eal = Eal::init(EalConfig { memory_mb: 64, ..EalConfig::default() }).expect("EAL starts");
    let pool = Mempool::new("test", 4095, 128, 2048, None).expect("a pool");
    let wanted: Vec<Vec<u8>> = (0..200).map(|i| frame(i % 7)).collect();

    let (mut port, mut queues) = started("net_null0", &pool, 2);
    let (other, mut other_queues) = started("net_null1", &pool, 1);
    for rx in &mut queues {
        assert_eq!(received(rx, wanted.len()), wanted);
    }
    let others = received(&mut other_queues[0], 64);
    // None of the capture's is of that length.
    assert!(others.iter().all(|f| f.len() == 64), "net_null's own frames, as it makes them");
    assert_eq!(port.mac(), MAC);
    assert_ne!(other.mac(), MAC);

    // Stopped and started again it goes on, once a frame.
    drop(queues);
    port.stop().expect("it stops");
    let (mut rx, _tx) = port.start().expect("it starts again");
    let more = received(&mut rx[0], 64);
    let at = (0..7).find(|i| more[0] == frame(*i)).expect("one of the capture's");
    assert!(more.iter().zip(at..).all(|(f, i)| *f == frame(i % 7)));
}

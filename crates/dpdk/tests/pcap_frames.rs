//! Frames of a capture come in, get an outer header and go out into another capture, byte by byte.

mod common;

use common::{BURST, eal, pool, running};
use godwit_dpdk::Mbuf;
use godwit_testkit::pcap;

const FRAMES: usize = 100;
const OUTER: [u8; 50] = [0xa5; 50];

fn frame(i: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, i as u8, 2, 0, 0, 0, 1, 0, 0x88, 0xb5];
    frame.extend((0..46 + i * 10).map(|b| (b * 7 + i) as u8));
    frame
}

#[test]
fn real_frames_pass_unharmed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    let all: Vec<_> = (0..FRAMES).map(frame).collect();
    pcap::save(&input, &all).expect("the capture is written");
    let _eal = eal();
    let pool = pool();
    let args = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
    let (port, mut rx, mut tx) = running(&args, &pool);
    assert_eq!((port.name(), port.driver_name()), ("net_pcap0", "net_pcap"));
    assert!(port.link().up);

    let mut pkts: Vec<Mbuf> = Vec::with_capacity(BURST);
    let mut seen = 0;
    while rx.rx(&mut pkts, BURST) > 0 {
        for m in &mut pkts {
            assert!(m.is_contiguous());
            assert_eq!(m.data(), frame(seen));
            m.prepend(OUTER.len()).expect("headroom")[..OUTER.len()].copy_from_slice(&OUTER);
            seen += 1;
        }
        tx.tx(&mut pkts);
        assert!(pkts.is_empty());
    }
    assert_eq!(seen, FRAMES);
    let stats = port.stats().expect("counters");
    assert_eq!((stats.rx_packets, stats.tx_packets), (FRAMES as u64, FRAMES as u64));
    drop((rx, tx));
    port.close().expect("it is unplugged");

    let frames = pcap::load(&output).expect("the capture is there");
    assert_eq!(frames.len(), FRAMES);
    for (i, got) in frames.iter().enumerate() {
        assert_eq!((&got[..OUTER.len()], &got[OUTER.len()..]), (&OUTER[..], &frame(i)[..]));
    }
    assert_eq!(pool.in_use(), 0);
}

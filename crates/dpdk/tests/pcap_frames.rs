//! Frames of a capture come in, get an outer header and go out into another capture, byte by byte.

mod common;

use std::path::Path;

use common::{BURST, eal, pool, running};
use godwit_dpdk::Mbuf;

const FRAMES: usize = 100;
const OUTER: [u8; 50] = [0xa5; 50];

fn frame(i: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, i as u8, 2, 0, 0, 0, 1, 0, 0x88, 0xb5];
    frame.extend((0..46 + i * 10).map(|b| (b * 7 + i) as u8));
    frame
}

fn write_pcap(path: &Path) {
    let mut file = Vec::new();
    // Magic number, version 2.4, zone, accuracy, longest frame, Ethernet.
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65535, 1] {
        file.extend(word.to_le_bytes());
    }
    for i in 0..FRAMES {
        let bytes = frame(i);
        for word in [i as u32, 0, bytes.len() as u32, bytes.len() as u32] {
            file.extend(word.to_le_bytes());
        }
        file.extend(bytes);
    }
    std::fs::write(path, file).expect("the capture is written");
}

fn read_pcap(path: &Path) -> Vec<Vec<u8>> {
    let file = std::fs::read(path).expect("the capture is there");
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[8..12].try_into().expect("four bytes")) as usize;
        frames.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    frames
}

#[test]
fn real_frames_pass_unharmed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
    write_pcap(&input);
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

    let frames = read_pcap(&output);
    assert_eq!(frames.len(), FRAMES);
    for (i, got) in frames.iter().enumerate() {
        assert_eq!((&got[..OUTER.len()], &got[OUTER.len()..]), (&OUTER[..], &frame(i)[..]));
    }
    assert_eq!(pool.in_use(), 0);
}

//! Mistakes are answered with what was tried, what DPDK said and what to do.

mod common;

use common::{eal, pool};
use godwit_dpdk::{Error, Mempool, Port, PortConfig};

fn probe_error(devargs: &str) -> String {
    let error = Port::probe(devargs).expect_err("no such device").to_string();
    assert!(error.contains(&format!("`{devargs}`")), "it names the device: {error}");
    error
}

#[test]
fn errors_name_the_thing_and_the_remedy() {
    let _eal = eal();
    let pool = pool();

    for devargs in ["net_nosuch0", "0000:ff:1f.7", "net_pcap0,rx_pcap=/nowhere/in.pcap", "net_null0,bogus=1"]
    {
        let error = probe_error(devargs);
        assert!(error.contains("(errno ") && error.contains("Check"), "{error}");
        eprintln!("{error}\n");
    }
    assert!(matches!(Port::probe("net_\0null"), Err(Error::Nul(_))));
    // A failed attempt leaves the name free.
    Port::probe("net_null0").expect("a null device").close().expect("unplugged");

    let error = Mempool::new("test", 63, 0, 2048, None).expect_err("the name is taken").to_string();
    assert!(error.contains("`test`") && error.contains("name of its own"), "{error}");
    let error = Mempool::new("huge", 1 << 22, 0, 2048, None).expect_err("no memory").to_string();
    assert!(error.contains("memory_mb"), "{error}");

    let mut port = Port::probe("net_null1").expect("a null device");
    let error = port.start().expect_err("not configured").to_string();
    assert_eq!(error, "port net_null1: cannot start while it is not configured");
    assert!(port.stop().is_err());
    // What the device cannot do is fitted, and said.
    let asked =
        PortConfig { rx_queues: 5000, mtu: Some(40), rss: true, tx_checksums: true, ..PortConfig::new(pool) };
    let report = port.configure(asked).expect("fitted");
    let info = port.dev_info().expect("abilities");
    assert_eq!(report.rx_queues, info.max_rx_queues);
    assert_eq!(report.mtu, info.min_mtu);
    assert!(!report.tx_checksums);
    assert!(report.notes.iter().any(|n| n.contains("5000 receive queues")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|n| n.contains("MTU of 40")), "{:?}", report.notes);
    eprintln!("{report:?}");
    let (rx, tx) = port.start().expect("started");
    let error = port.configure(PortConfig::new(Mempool::new("p", 63, 0, 128, None).expect("a pool")));
    assert_eq!(
        error.expect_err("it runs").to_string(),
        "port net_null1: cannot configure while it is started"
    );
    drop((rx, tx));
    port.set_mac([1, 0, 0, 0, 0, 0]).expect_err("a multicast address");
    port.close().expect("unplugged");
}

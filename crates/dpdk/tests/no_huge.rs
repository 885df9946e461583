//! Where hugepages do not suffice EAL runs without, and says so; where they are demanded it refuses first.

use godwit_dpdk::{Eal, EalConfig, Error, HugePages, Mempool, Pci, Port};

/// More than any machine that runs this test has in hugepages, and of ordinary pages only reserved.
const MUCH_MB: u32 = 64 * 1024 * 1024;

#[test]
fn ordinary_pages_serve_where_hugepages_lack() {
    let demand = EalConfig { memory_mb: MUCH_MB, huge: HugePages::Always, ..EalConfig::default() };
    let error = Eal::init(demand).expect_err("too much");
    assert!(matches!(error, Error::NoHugepages { .. }), "{error}");

    // That was no start: EAL can still be started. Extra arguments and a device come along.
    let eal = Eal::init(EalConfig {
        memory_mb: 32,
        huge: HugePages::Never,
        pci: Pci::Listed(Vec::new()),
        vdevs: vec!["net_null3,no-rx=1".into()],
        extra_args: "--no-hpet".into(),
        ..EalConfig::default()
    })
    .expect("EAL starts on ordinary pages");
    assert!(!eal.uses_hugepages());
    let pool = Mempool::new("small", 1023, 32, 2048, None).expect("a pool");
    assert_eq!((pool.size(), pool.data_room(), pool.name()), (1023, 2048, "small"));
    let held: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    assert_eq!((held.len(), pool.in_use(), pool.available()), (1023, 1023, 0), "to the last one, then None");
    drop(held);
    assert_eq!(pool.in_use(), 0);

    // A node that this machine does not have gives no memory, and leaves the name free (R13).
    Mempool::new("far", 1023, 32, 2048, Some(7)).expect_err("no such node");
    let anywhere = Mempool::new("far", 1023, 32, 2048, None).expect("a pool on any node");
    assert_eq!((anywhere.numa_node(), anywhere.available()), (None, 1023));
    let near = Mempool::new("near", 1023, 32, 2048, Some(0)).expect("a pool on the first node");
    assert_eq!(near.numa_node(), Some(0));

    let port = Port::probe("net_null3").expect("the one that EAL made");
    assert!(matches!(Port::probe("net_null3,no-rx=0"), Err(Error::PortClaimed { .. })));
    port.close().expect("unplugged");
}

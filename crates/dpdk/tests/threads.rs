//! Worker threads register with EAL, one each, and the thread that starts EAL keeps its affinity.

mod common;

use common::pool;
use godwit_dpdk::{Eal, EalConfig, Error, Mempool, Port, ThreadRegistration, tsc_hz};

fn affinity() -> Vec<usize> {
    // SAFETY: a plain bit set, filled by a system call that is given its true size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}

#[test]
fn threads_register_once_each() {
    // Without EAL everything that would crash is refused.
    assert!(matches!(ThreadRegistration::register(), Err(Error::EalNotRunning)));
    assert!(matches!(Port::probe("net_null0"), Err(Error::EalNotRunning)));
    assert!(matches!(Mempool::new("early", 63, 0, 2048, None), Err(Error::EalNotRunning)));
    assert_eq!(tsc_hz(), 0);
    assert!(godwit_dpdk::version().starts_with("DPDK "), "{}", godwit_dpdk::version());

    let before = affinity();
    let eal = common::eal();
    assert_eq!(affinity(), before, "EAL's pinning is undone");
    let pool = pool();
    let main = ThreadRegistration::register().expect_err("EAL's main thread is registered");
    assert!(matches!(main, Error::ThreadRegistered), "{main}");

    // More threads one after the other than EAL has lcore ids: each gives its id back.
    for _ in 0..200 {
        let pool = pool.clone();
        std::thread::spawn(move || {
            let registration = ThreadRegistration::register().expect("registered");
            assert_ne!(registration.lcore_id(), 0, "0 is the main thread's");
            assert!(ThreadRegistration::register().is_err());
            drop(pool.alloc().expect("a buffer"));
        })
        .join()
        .expect("the thread ends well");
    }
    assert_eq!((pool.in_use(), pool.available()), (0, pool.size()));

    // A second start is refused, and names what to do.
    let again = Eal::init(EalConfig::default()).expect_err("EAL starts once");
    assert!(matches!(again, Error::EalStartedTwice) && again.to_string().contains("restart"), "{again}");

    // SAFETY: the threads have ended, no port was made, and neither pool nor buffer is used after this.
    unsafe { eal.shutdown() };
    assert!(matches!(Port::probe("net_null0"), Err(Error::EalNotRunning)));
    assert!(matches!(Eal::init(EalConfig::default()), Err(Error::EalStartedTwice)));
}

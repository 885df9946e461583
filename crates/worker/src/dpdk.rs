//! DPDK's queues and buffers as a worker uses them.

use godwit_dpdk::{Mbuf, Pool, RxQueue as DpdkRx, TxQueue as DpdkTx};

use crate::io::{Io, RxQueue, TxQueue};
use crate::perf::CoreUse;

/// DPDK's queues.
#[derive(Debug)]
pub struct DpdkIo;

impl Io for DpdkIo {
    type Packet = Mbuf;
    type Rx = DpdkRx;
    type Tx = DpdkTx;
    type Pool = Pool;

    #[inline]
    fn ticks() -> u64 {
        godwit_dpdk::tsc()
    }

    fn core_use() -> CoreUse {
        CoreUse { preemptions: godwit_dpdk::preemptions(), on_core_ns: godwit_dpdk::on_core_ns() }
    }
}

impl RxQueue<Mbuf> for DpdkRx {
    #[inline]
    fn rx(&mut self, out: &mut Vec<Mbuf>, max: usize) -> usize {
        DpdkRx::rx(self, out, max)
    }

    #[inline]
    fn copies(&self) -> bool {
        DpdkRx::copies(self)
    }

    #[inline]
    fn can_rest(&self) -> bool {
        DpdkRx::can_rest(self)
    }

    #[inline]
    fn has_frames(&mut self) -> bool {
        DpdkRx::has_frames(self)
    }
}

impl TxQueue<Mbuf> for DpdkTx {
    #[inline]
    fn tx(&mut self, packets: &mut Vec<Mbuf>) -> usize {
        DpdkTx::tx(self, packets)
    }

    #[inline]
    fn keep_alive(&mut self) -> bool {
        DpdkTx::keep_alive(self)
    }
}

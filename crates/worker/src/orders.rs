//! The queue by which control's orders reach a worker.
//!
//! By far the most orders say where a VM is. Such an order fits into an entry of less than a cache line, which a worker
//! reads from the other core's cache; a [`Command`] has room for a whole frame and takes five. So there are two queues:
//! one of entries, which keeps the order, and one of what doesn't fit into them. The worker takes several entries at a
//! time, for their locations to be asked of memory together.

use core::net::IpAddr;

use crossbeam::queue::ArrayQueue;
use godwit_tables::update::{Key, Update, VmState, VnIdx};
use godwit_wire::{Instant, Mac};

use crate::command::{Command, Order};
use crate::io::Io;

/// An order as it lies in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// When control gave it.
    pub at: Instant,
    /// What, or where to find it.
    pub what: What,
}

impl Entry {
    /// Says nothing.
    pub(crate) const NONE: Entry = Entry { at: Instant(0), what: What::Else };
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// [`Update::VmSet`].
    Vm { key: Key, state: VmState },
    /// [`Update::VmRemove`].
    NoVm { key: Key },
    /// [`Update::NeighborSet`].
    Neighbor { vn: VnIdx, ip: IpAddr, mac: Mac, router: bool },
    /// [`Update::NeighborRemove`].
    NoNeighbor { vn: VnIdx, ip: IpAddr },
    /// The next of those that do not fit.
    Else,
}

impl What {
    fn of<I: Io>(command: &Command<I>) -> What {
        let Command::Table(update) = command else { return What::Else };
        match *update {
            Update::VmSet { key, state } => What::Vm { key, state },
            Update::VmRemove { key } => What::NoVm { key },
            Update::NeighborSet { vn, ip, mac, router } => What::Neighbor { vn, ip, mac, router },
            Update::NeighborRemove { vn, ip } => What::NoNeighbor { vn, ip },
            _ => What::Else,
        }
    }

    /// The update; `None`: it is [`Orders::rest`]'s next.
    #[inline]
    pub(crate) fn update(self) -> Option<Update> {
        Some(match self {
            What::Vm { key, state } => Update::VmSet { key, state },
            What::NoVm { key } => Update::VmRemove { key },
            What::Neighbor { vn, ip, mac, router } => Update::NeighborSet { vn, ip, mac, router },
            What::NoNeighbor { vn, ip } => Update::NeighborRemove { vn, ip },
            What::Else => return None,
        })
    }

    /// The VM whose location it sets.
    #[inline]
    pub(crate) fn key(self) -> Option<Key> {
        match self {
            What::Vm { key, .. } | What::NoVm { key } => Some(key),
            _ => None,
        }
    }
}

/// A bounded lock-free queue of orders, from one thread to one other.
pub struct Orders<I: Io> {
    entries: ArrayQueue<Entry>,
    /// What did not fit into entries, in their order. It lies here before its entry is seen.
    rest: ArrayQueue<Command<I>>,
}

impl<I: Io> Orders<I> {
    /// With room for so many.
    pub fn new(room: usize) -> Orders<I> {
        Orders { entries: ArrayQueue::new(room), rest: ArrayQueue::new(room) }
    }

    /// Adds an order; for one thread only.
    ///
    /// # Errors
    /// The order, where there is no room.
    // Control keeps it in its backlog by value, as it came.
    #[allow(clippy::result_large_err)]
    pub fn push(&self, order: Order<I>) -> Result<(), Order<I>> {
        let Order { at, command } = order;
        // Nobody else adds: the room that is seen here stays.
        if self.entries.is_full() {
            return Err(Order { at, command });
        }
        let what = What::of(&command);
        if matches!(what, What::Else) {
            // A worker that has taken the entry, but not yet what belongs to it, leaves less room here than there.
            self.rest.push(command).map_err(|command| Order { at, command })?;
        }
        let done = self.entries.push(Entry { at, what });
        assert!(done.is_ok(), "only one thread gives orders to a worker");
        Ok(())
    }

    /// The next order; for the thread that takes all of them.
    pub fn pop(&self) -> Option<Order<I>> {
        let Entry { at, what } = self.next()?;
        let command = match what.update() {
            Some(update) => Command::Table(update),
            None => self.rest()?,
        };
        Some(Order { at, command })
    }

    /// The next entry; whoever takes it takes what belongs to it by [`Self::rest`], too, before any later entry's.
    #[inline]
    pub(crate) fn next(&self) -> Option<Entry> {
        self.entries.pop()
    }

    /// The command of a [`What::Else`].
    #[inline]
    pub(crate) fn rest(&self) -> Option<Command<I>> {
        self.rest.pop()
    }

    /// Orders in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use godwit_tables::update::{PortIdx, Target, TunnelIdx};
    use godwit_wire::Vni;
    use proptest::prelude::*;

    use super::*;
    use crate::mem::MemIo;

    #[test]
    fn r14_an_entry_and_its_place_in_the_queue_fit_into_a_cache_line() {
        // The queue keeps a number of eight bytes beside each.
        assert!(size_of::<Entry>() + 8 <= 64, "{} bytes", size_of::<Entry>());
        assert!(size_of::<Order<MemIo>>() > 256, "what the entries save");
    }

    fn command(kind: u8, n: u64) -> Command<MemIo> {
        let (key, vn) = (Key(n), VnIdx(n as u16));
        let ip = IpAddr::from([10, 0, (n >> 8) as u8, n as u8]);
        let mac = Mac::from_u64(n);
        let to = Target { tunnel: TunnelIdx(n as u32), vni: Vni::from_low24(n as u32) };
        match kind {
            0 => Command::Table(Update::VmSet { key, state: VmState::Remote { to } }),
            1 => Command::Table(Update::VmRemove { key }),
            2 => Command::Table(Update::NeighborSet { vn, ip, mac, router: n.is_multiple_of(2) }),
            3 => Command::Table(Update::NeighborRemove { vn, ip }),
            4 => Command::Table(Update::NeighborAbsent { vn, ip, until: Instant(n) }),
            5 => {
                let (vni, mtu) = (Vni::from_low24(n as u32), 1450);
                Command::Table(Update::VnSet { vn, vni, mtu, transparent_vlan: false })
            }
            6 => Command::Barrier { token: n },
            _ => Command::RetirePort { port: PortIdx(n as u16) },
        }
    }

    /// What tells one order from another.
    fn seen(order: &Order<MemIo>) -> (Instant, String) {
        let what = match &order.command {
            Command::Table(update) => format!("{update:?}"),
            Command::Barrier { token } => format!("barrier {token}"),
            Command::RetirePort { port } => format!("retire {port:?}"),
            _ => String::new(),
        };
        (order.at, what)
    }

    proptest! {
        /// As a queue of whole orders does: nothing is lost, changed or overtaken, and a full one gives back.
        #[test]
        fn r14_orders_come_out_as_they_went_in(
            ops in prop::collection::vec(prop::option::weighted(0.6, 0u8..8), 0..200),
            room in 1usize..20,
        ) {
            let (orders, mut naive) = (Orders::<MemIo>::new(room), std::collections::VecDeque::new());
            for (n, op) in ops.into_iter().enumerate() {
                let at = Instant(n as u64);
                match op {
                    Some(kind) => {
                        let order = Order { at, command: command(kind, n as u64) };
                        let this = seen(&order);
                        match orders.push(order) {
                            Ok(()) => naive.push_back(this),
                            Err(back) => {
                                prop_assert_eq!(naive.len(), room);
                                prop_assert_eq!(seen(&back), this);
                            }
                        }
                    }
                    None => prop_assert_eq!(orders.pop().as_ref().map(seen), naive.pop_front()),
                }
                prop_assert_eq!(orders.len(), naive.len());
                prop_assert_eq!(orders.is_empty(), naive.is_empty());
            }
        }
    }
}

//! Which routes lead to a VM: what the forwarding table says of it changes, and they with it.

use core::num::NonZeroU64;

use crate::OutOfRange;
use crate::locations::Locations;
use crate::update::{Key, VnIdx};

/// No route.
const END: u32 = u32::MAX;

/// A route, by its number: the VM that it leads to, and its neighbors in the list of that VM's routes.
#[derive(Clone, Copy)]
struct Link {
    vm: Key,
    next: u32,
    prev: u32,
}

const FREE: Link = Link { vm: Key(0), next: END, prev: END };

/// The VMs that routes lead to, and the numbers of these.
pub(super) struct Followers {
    /// By number. What is free is a list of its own.
    links: Vec<Link>,
    free: u32,
    capacity: usize,
    /// The first of each VM's routes: its number, and 1.
    heads: Locations,
    /// Routes to VMs of each VN.
    of_vn: Vec<u32>,
}

impl Followers {
    pub fn new(capacity: usize, vns: usize, seed: [u64; 2]) -> Followers {
        Followers {
            links: Vec::with_capacity(capacity),
            free: END,
            capacity,
            heads: Locations::new(capacity, seed),
            of_vn: vec![0; vns],
        }
    }

    /// A number that no route has; `None` where there are as many as there may be.
    pub fn number(&mut self) -> Option<u32> {
        if self.free != END {
            let number = self.free;
            self.free = core::mem::replace(&mut self.links[number as usize], FREE).next;
            return Some(number);
        }
        (self.links.len() < self.capacity).then(|| {
            self.links.push(FREE);
            self.links.len() as u32 - 1
        })
    }

    /// The route with the number, which follows no VM, is gone.
    pub fn release(&mut self, number: u32) {
        self.links[number as usize] = Link { next: self.free, ..FREE };
        self.free = number;
    }

    /// Routes may lead to the VM.
    pub fn check(&self, vm: Key) -> Result<(), OutOfRange> {
        let known = usize::from(vm.vn().0) < self.of_vn.len() && vm.0 != 0;
        if known { Ok(()) } else { Err(OutOfRange) }
    }

    /// The VM of a route.
    pub fn vm(&self, number: u32) -> Key {
        self.links[number as usize].vm
    }

    /// A route leads to a VM that was checked; it led to none before.
    pub fn add(&mut self, number: u32, vm: Key) {
        let head = NonZeroU64::MIN.saturating_add(number.into());
        // No more VMs than routes, and the key is not 0.
        let next = match self.heads.insert(vm.0, head) {
            Ok(Some(old)) => (old.get() - 1) as u32,
            _ => END,
        };
        self.links[number as usize] = Link { vm, next, prev: END };
        if next != END {
            self.links[next as usize].prev = number;
        }
        self.of_vn[usize::from(vm.vn().0)] += 1;
    }

    /// It no longer does.
    pub fn remove(&mut self, number: u32) {
        let Link { vm, next, prev } = core::mem::replace(&mut self.links[number as usize], FREE);
        if next != END {
            self.links[next as usize].prev = prev;
        }
        if prev != END {
            self.links[prev as usize].next = next;
        } else if next == END {
            self.heads.remove(vm.0);
        } else {
            // The key is in the table, so this replaces and cannot fail.
            let _ = self.heads.insert(vm.0, NonZeroU64::MIN.saturating_add(next.into()));
        }
        self.of_vn[usize::from(vm.vn().0)] -= 1;
    }

    /// Routes lead to VMs of the VN.
    #[inline(always)]
    pub fn any(&self, vn: VnIdx) -> bool {
        self.of_vn.get(usize::from(vn.0)).is_some_and(|n| *n > 0)
    }

    /// The numbers of the routes that lead to a VM.
    pub fn of(&self, vm: Key) -> impl Iterator<Item = u32> {
        let mut at = self.heads.get(vm.0).map_or(END, |head| (head.get() - 1) as u32);
        core::iter::from_fn(move || {
            let number = at;
            at = self.links.get(number as usize)?.next;
            Some(number)
        })
    }
}

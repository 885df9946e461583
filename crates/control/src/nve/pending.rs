//! VMs that are to run at another NVE (R50): the way there is resolved ahead, nothing is sent by it, and nobody is
//! asked where such a VM is while it runs nowhere. The directory's word that it runs there is all that is missing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_model::{Locators, VmKey, VmRecord};

use crate::io::Outputs;
use crate::queries::Asked;

use super::Nve;

impl Nve {
    /// The VM's record changed, or the way to where it is to run.
    pub(super) fn follow_pending(&mut self, key: VmKey, out: &mut Outputs) {
        match self.pending_at(key) {
            Some(locators) => {
                self.pending.insert(key);
                // Its next hop is asked for with that.
                self.tunnel_to(key, locators, out);
            }
            None if self.pending.is_empty() => {}
            None => {
                self.pending.remove(&key);
            }
        }
    }

    /// Where a VM is to run, if that is another NVE.
    fn pending_at(&self, key: VmKey) -> Option<Locators> {
        let to = self.mirror.record(key)?.pending()?;
        (to.nve != self.config.nve).then_some(to.locators)
    }

    /// Tunnels to them stay, whoever uses them.
    pub(super) fn add_pending_locators(&mut self, wanted: &mut BTreeSet<IpAddr>) {
        let all: Vec<VmKey> = self.pending.iter().copied().collect();
        for key in all {
            match self.pending_at(key) {
                Some(l) => {
                    wanted.extend(l.v4.map(IpAddr::V4));
                    wanted.extend(l.v6.map(IpAddr::V6));
                }
                // Its VN was left.
                None => {
                    self.pending.remove(&key);
                }
            }
        }
    }

    /// What is asked for is a VM that runs nowhere and is about to: the directory, which has said so, says when. In a
    /// pulled VN it says so only to those who asked of late.
    pub(super) fn is_awaited(&self, asked: Asked) -> bool {
        let awaited = |r: &VmRecord| r.pending().is_some() && !r.is_active();
        match asked {
            _ if !self.session.is_up() || self.is_pulled(asked.vni()) => false,
            Asked::Mac(vni, mac) => self.mirror.record(self.carrier(VmKey { vni, mac })).is_some_and(awaited),
            Asked::Ip(vni, ip) => self.mirror.owners(vni, ip).first().is_some_and(|r| awaited(r)),
        }
    }
}

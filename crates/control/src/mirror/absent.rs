//! Negative answers of the directory (R36).

use std::net::IpAddr;

use godwit_model::VmKey;
use godwit_wire::{Instant, Mac, Vni};

use super::Mirror;

impl Mirror {
    /// A negative answer on a MAC; returns another one that had to go for it.
    pub(crate) fn set_absent(&mut self, key: VmKey, until: Instant) -> Option<VmKey> {
        let evicted = self.vns.get_mut(&key.vni)?.absent.insert(key.mac, until)?;
        Some(VmKey { mac: evicted, ..key })
    }

    /// A negative answer on an address; returns another one that had to go for it.
    pub(crate) fn set_absent_ip(&mut self, vni: Vni, ip: IpAddr, until: Instant) -> Option<IpAddr> {
        self.vns.get_mut(&vni)?.absent_ip.insert(ip, until)
    }

    /// The VM attaches here, or what was said of it is void: neither it nor its addresses are absent (R36).
    pub(crate) fn clear_absent(&mut self, key: VmKey) {
        if let Some(vn) = self.vns.get_mut(&key.vni) {
            vn.absent.remove(key.mac);
            for (ip, _) in vn.vms.get(&key.mac).into_iter().flat_map(|e| e.record.addresses()) {
                vn.absent_ip.remove(ip);
            }
        }
    }

    /// End of a negative answer on a MAC.
    pub(crate) fn absent(&self, key: VmKey) -> Option<Instant> {
        self.vns.get(&key.vni)?.absent.get(key.mac)
    }

    /// End of a negative answer on an address.
    pub(crate) fn absent_ip(&self, vni: Vni, ip: IpAddr) -> Option<Instant> {
        self.vns.get(&vni)?.absent_ip.get(ip)
    }

    /// Negative answers whose life is over are forgotten; `Instant::NEVER` takes all (R36). Returns
    /// the MACs and addresses.
    pub(crate) fn expire_negative_cache(&mut self, now: Instant) -> (Vec<VmKey>, Vec<(Vni, IpAddr)>) {
        let (mut keys, mut ips) = (Vec::new(), Vec::new());
        for (&vni, vn) in &mut self.vns {
            keys.extend(vn.absent.expire(now).into_iter().map(|mac| VmKey { vni, mac }));
            ips.extend(vn.absent_ip.expire(now).into_iter().map(|ip| (vni, ip)));
        }
        (keys, ips)
    }

    /// MACs with a negative answer in a VN, for people.
    pub(crate) fn absents(&self, vni: Vni) -> Vec<(Mac, Instant)> {
        self.vns.get(&vni).map_or_else(Vec::new, |v| v.absent.iter().collect())
    }
}

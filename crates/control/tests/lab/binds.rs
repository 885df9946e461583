//! What the lab's directory grants VMs by their own word (R92, R93), and what workers say of it.

use std::net::IpAddr;

use godwit_model::message::{Change, NvaToNve, NveToNva};
use godwit_model::{Allowed, BindRefusal, BoundIp, VmKey, VmRecord};
use godwit_tables::event::Event;
use godwit_tables::update::PortIdx;
use godwit_wire::Mac;

use super::nva::MiniNva;
use super::{Lab, location, nve_id, vm};

type Said = Vec<(usize, NvaToNve)>;

/// An address with the MAC that answers for it.
type Source = (Mac, Option<IpAddr>);

impl MiniNva {
    pub fn bind(&mut self, i: usize, seq: u64, key: VmKey, (mac, ip): Source, announced: bool) -> Said {
        let refuse = |reason| {
            let text = String::from("the operator may allow it");
            vec![(i, NvaToNve::BindRefused { seq, key, mac, ip, reason, text })]
        };
        let Some(r) = self.records.get(&key).cloned() else { return refuse(BindRefusal::UnknownVm) };
        if !r.is_at(&nve_id(i)) {
            return refuse(BindRefusal::NotHere);
        }
        let is_virtual = ip.is_some_and(|ip| r.allowed.shares_ip(ip));
        let owner = ip.and_then(|ip| self.records.values().find(|o| o.key != key && o.mac_of(ip).is_some()));
        if owner.is_some() && !(is_virtual && announced) {
            return refuse(BindRefusal::Taken);
        }
        if ip.is_some_and(|ip| !is_virtual && r.learning(Default::default(), mac, ip).room() == 0) {
            return refuse(BindRefusal::NotAllowed);
        }
        let shared = r.allowed.shares_mac(mac);
        let losers = self.records.values().filter(|o| {
            o.key != key
                && (ip.is_some_and(|ip| o.mac_of(ip).is_some()) || shared && o.bound.macs.contains(&mac))
        });
        let losers: Vec<VmKey> = losers.map(|o| o.key).collect();
        let mut said = Vec::new();
        for loser in losers {
            said.extend(self.change(loser, |l| {
                l.bound.ips.retain(|b| Some(b.ip) != ip && !(shared && b.mac == mac));
                l.bound.macs.retain(|m| *m != mac);
            }));
        }
        said.extend(self.change(key, |r| {
            if let Some(ip) = ip.filter(|ip| r.bound.at(*ip).is_none()) {
                r.bound.ips.push(BoundIp { ip, mac, is_virtual });
                r.bound.ips.sort();
            }
            if shared && !r.bound.macs.contains(&mac) {
                r.bound.macs.push(mac);
            }
        }));
        said.push((i, NvaToNve::Bound { seq, record: self.records[&key].clone() }));
        said
    }

    pub fn unbind(&mut self, key: VmKey, ip: IpAddr) -> Said {
        self.change(key, |r| r.bound.ips.retain(|b| b.ip != ip))
    }

    /// A record changes, with a new version, and everybody hears of it.
    pub fn change(&mut self, key: VmKey, f: impl FnOnce(&mut VmRecord)) -> Said {
        let version = self.version();
        let r = self.records.get_mut(&key).unwrap();
        f(r);
        r.version = version;
        let change = Change::Vm(r.clone());
        self.news(key.vni, &change, None)
    }
}

impl Lab {
    /// The operator's word on what a VM may have beside its recorded addresses.
    pub fn allow(&mut self, n: u8, f: impl FnOnce(&mut Allowed)) {
        let said = self.nva.change(vm(n), |r| f(&mut r.allowed));
        for (to, message) in said {
            if self.hosts[to].connected {
                self.hosts[to].inbox.push_back(message);
            }
        }
        self.settle();
    }

    /// A worker says that the VM of a port uses an address by its own word.
    pub fn seen(&mut self, i: usize, port: PortIdx, (mac, ip): Source, announced: bool) {
        self.event(i, Event::SourceSeen { port, mac, ip, announced });
        self.settle();
    }

    /// The VM answers its NVE's question.
    pub fn alive(&mut self, i: usize, port: PortIdx, mac: Mac, ip: Option<IpAddr>) {
        let kind = godwit_tables::event::AnnounceKind::Alive;
        self.event(i, Event::Announce { port, kind, mac, ip });
        self.settle();
    }
}

/// Requests that an NVE made, in order: number, MAC, address, whether it was announced, age.
pub fn binds(lab: &Lab, i: usize) -> Vec<(u64, Mac, Option<IpAddr>, bool, u32)> {
    let bind = |m: &NveToNva| match m {
        NveToNva::Bind { seq, mac, ip, announced, age_ms, .. } => {
            Some((*seq, *mac, *ip, *announced, *age_ms))
        }
        _ => None,
    };
    lab.hosts[i].said.iter().filter_map(bind).collect()
}

/// The VM runs at this NVE, as the directory has it.
pub fn is_at(lab: &Lab, n: u8, i: usize) -> bool {
    lab.nva.records[&vm(n)].active() == Some(&location(i))
}

//! A directory just good enough to play its part.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::channel;
use godwit_model::message::{Change, NvaToNve, NveToNva, PairKey, QueryBy};
use godwit_model::{
    DenyReason, DirectoryMode, Domain, DomainId, Gateway, Location, MoveId, Policy, Secret, StaticRoute,
    Version, VmKey, VmRecord, VnRouting, VnSettings,
};
use godwit_wire::Vni;

use super::{location, nve_id};

pub struct MiniNva {
    pub epoch: u32,
    seq: u64,
    pub records: BTreeMap<VmKey, VmRecord>,
    pub subscribed: Vec<BTreeSet<Vni>>,
    /// NVEs that only forward in a VN (R17).
    lingering: BTreeSet<(usize, Vni)>,
    revisions: BTreeMap<Vni, u64>,
    next_ack: u64,
    /// Acknowledgements by NVE, in order.
    pub acks: Vec<(usize, u64)>,
    /// Grant claims for VMs that live elsewhere without a move.
    pub accept_unplanned: bool,
    /// Say nothing on claims.
    pub mute: bool,
    /// Somebody has not acknowledged where VMs are: their forward entries are extended.
    pub needs_forwarding: bool,
    /// Settings of all VNs, but for their routing.
    pub settings: VnSettings,
    /// VNs' parts in routing domains, the domains with their routes, and who was told of which (R58).
    pub routing: BTreeMap<Vni, VnRouting>,
    pub domains: BTreeMap<DomainId, (Domain, Vec<StaticRoute>)>,
    pub told: BTreeSet<(usize, DomainId)>,
    pub gateway: Option<Gateway>,
    /// The key of datagrams between NVEs (R47).
    pub secret: Option<Secret>,
    last_sender: u32,
    /// Say nothing on questions.
    pub mute_queries: bool,
    /// Say nothing on requests for addresses.
    pub mute_binds: bool,
    /// Life of an answer, in milliseconds (R40).
    pub life_ms: u64,
    /// VNs that NVEs pull, and what each may still use of them: those who asked, and never forgotten here.
    pulled: BTreeSet<(usize, Vni)>,
    pub interests: BTreeSet<(usize, VmKey)>,
    /// Multicast groups by VN and NVE (R61).
    pub groups: BTreeMap<(Vni, usize), BTreeSet<IpAddr>>,
    /// Told at each welcome (R23).
    pub policies: Vec<Policy>,
}

pub type Said = Vec<(usize, NvaToNve)>;

impl MiniNva {
    pub fn new(count: usize) -> MiniNva {
        MiniNva {
            epoch: 1,
            seq: 0,
            records: BTreeMap::new(),
            lingering: BTreeSet::new(),
            subscribed: vec![BTreeSet::new(); count],
            revisions: BTreeMap::new(),
            next_ack: 0,
            acks: Vec::new(),
            accept_unplanned: false,
            mute: false,
            settings: VnSettings::default(),
            routing: BTreeMap::new(),
            domains: BTreeMap::new(),
            told: BTreeSet::new(),
            gateway: None,
            needs_forwarding: false,
            secret: None,
            last_sender: 0,
            mute_queries: false,
            mute_binds: false,
            life_ms: 30_000,
            pulled: BTreeSet::new(),
            interests: BTreeSet::new(),
            groups: BTreeMap::new(),
            policies: Vec::new(),
        }
    }

    pub fn version(&mut self) -> Version {
        self.seq += 1;
        Version { epoch: self.epoch, seq: self.seq }
    }

    pub fn define(&mut self, key: VmKey, ip: IpAddr) {
        let version = self.version();
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        match ip {
            IpAddr::V4(a) => ipv4.push(a),
            IpAddr::V6(a) => ipv6.push(a),
        }
        let record = VmRecord {
            name: format!("vm{}", key.mac.0[5]),
            key,
            ipv4,
            ipv6,
            bindings: Default::default(),
            version,
            router: false,
            router_pinned: false,
            allowed: Default::default(),
            bound: Default::default(),
            no_override: Vec::new(),
            frozen: false,
            policy: None,
            pinned: false,
            moving: None,
            standby: None,
        };
        self.records.insert(key, record);
    }

    pub fn order_move(&mut self, id: &str, key: VmKey) -> VmRecord {
        let r = self.records.get_mut(&key).unwrap();
        r.moving = Some(MoveId(id.into()));
        r.clone()
    }

    /// Where it is to run (R50): news to all.
    pub fn set_pending(&mut self, key: VmKey, to: Option<Location>) -> Said {
        self.renew(key, |r| {
            r.set_pending(to);
        })
    }

    /// It runs nowhere: news to all.
    pub fn detach(&mut self, key: VmKey) -> Said {
        self.renew(key, |r| {
            r.detach();
        })
    }

    fn renew(&mut self, key: VmKey, change: impl FnOnce(&mut VmRecord)) -> Said {
        let version = self.version();
        let Some(r) = self.records.get_mut(&key) else { return Vec::new() };
        change(r);
        r.version = version;
        let news = Change::Vm(r.clone());
        self.news(key.vni, &news, None)
    }

    pub fn lost(&mut self, i: usize) {
        self.subscribed[i].clear();
        self.pulled.retain(|(j, _)| *j != i);
        self.interests.retain(|(j, _)| *j != i);
        self.told.retain(|(j, _)| *j != i);
    }

    /// The NVA starts anew with what it stored.
    pub fn restart(&mut self) {
        self.epoch += 1;
        self.subscribed.iter_mut().for_each(BTreeSet::clear);
    }

    pub fn handle(&mut self, i: usize, message: NveToNva) -> Said {
        match message {
            NveToNva::Hello { .. } => self.welcome(i),
            NveToNva::Departed { key, version, .. } => {
                let others = (0..self.subscribed.len()).filter(|j| *j != i);
                let others = others.filter(|j| self.subscribed[*j].contains(&key.vni));
                others.map(|j| (j, NvaToNve::Departed { key, version, from: nve_id(i) })).collect()
            }
            NveToNva::Redirect { key, to, version, sender } => {
                let stale = (0..self.subscribed.len()).find(|j| location(*j).locators.contains(sender));
                stale
                    .map(|j| (j, NvaToNve::Redirect { key, to, version, from: nve_id(i) }))
                    .into_iter()
                    .collect()
            }
            NveToNva::Subscribe { vni, mode, lingers } => {
                match lingers {
                    true => self.lingering.insert((i, vni)),
                    false => self.lingering.remove(&(i, vni)),
                };
                if mode == DirectoryMode::Pull {
                    self.pulled.insert((i, vni));
                }
                self.subscribe(i, vni)
            }
            NveToNva::Unsubscribe { vni } => {
                self.subscribed[i].remove(&vni);
                self.lingering.remove(&(i, vni));
                let mut said = self.member_news(i, vni, Change::MemberLeft(nve_id(i)));
                said.extend(self.no_part_left(i));
                said
            }
            NveToNva::Linger { vni, lingers: true } => {
                self.lingering.insert((i, vni));
                self.member_news(i, vni, Change::MemberLingers(location(i)))
            }
            NveToNva::Linger { vni, lingers: false } => {
                self.lingering.remove(&(i, vni));
                let joined = Change::MemberJoined(location(i));
                self.news(vni, &joined, None)
            }
            NveToNva::Groups { vni, reset, joined, left } => {
                let known = self.groups.entry((vni, i)).or_default();
                known.retain(|ip| !reset && !left.contains(ip));
                known.extend(&joined);
                let others =
                    (0..self.subscribed.len()).filter(|j| *j != i && self.subscribed[*j].contains(&vni));
                let (nve, joined) = (nve_id(i), joined.clone());
                others
                    .map(|j| {
                        let (nve, joined, left) = (nve.clone(), joined.clone(), left.clone());
                        (j, NvaToNve::Groups { vni, nve, reset, joined, left })
                    })
                    .collect()
            }
            NveToNva::Associate { key, .. } => {
                self.interests.insert((i, key));
                vec![(i, NvaToNve::Provision { key, record: self.records.get(&key).cloned() })]
            }
            // What it has not heard of as a port: a VM that is held for although its port is gone.
            NveToNva::Report { attachments } => {
                let new = attachments.into_iter().filter(|a| self.interests.insert((i, a.key)));
                let new: Vec<VmKey> = new.map(|a| a.key).collect();
                let told = |key| (i, NvaToNve::Provision { key, record: self.records.get(&key).cloned() });
                new.into_iter().map(told).collect()
            }
            NveToNva::Claim { seq, key, base, .. } if !self.mute => self.claim(i, seq, key, base),
            NveToNva::ForwardEnding { key, version } if self.needs_forwarding => {
                vec![(i, NvaToNve::ForwardExtend { key, version })]
            }
            NveToNva::Withdraw { key, version } => self.withdraw(key, version),
            NveToNva::Query { seq, vni, by } if !self.mute_queries => {
                let record = self.records.values().find(|r| {
                    r.key.vni == vni
                        && match by {
                            QueryBy::Mac(mac) => r.macs().any(|own| own == mac),
                            QueryBy::Ip(ip) => r.mac_of(ip).is_some(),
                        }
                });
                self.interests.extend(record.map(|r| (i, r.key)));
                vec![(i, NvaToNve::Response { seq, record: record.cloned(), lifetime_ms: self.life_ms })]
            }
            NveToNva::Bind { seq, key, mac, ip, announced, .. } if !self.mute_binds => {
                self.bind(i, seq, key, (mac, ip), announced)
            }
            NveToNva::Unbind { key, ip } => self.unbind(key, ip),
            NveToNva::Ack { ack_id } => {
                self.acks.push((i, ack_id));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn welcome(&mut self, i: usize) -> Said {
        let mut said = vec![(i, NvaToNve::Welcome { epoch: self.epoch, keepalive_ms: 3000 })];
        let policies = self.policies.clone();
        said.push((i, NvaToNve::Policies { reset: true, policies, gone: Vec::new() }));
        if let Some(secret) = self.secret {
            self.last_sender += 1;
            let (number, sender) = (self.epoch, self.last_sender);
            let own = channel::receiver(&secret, number, &nve_id(i));
            said.push((i, NvaToNve::ChannelKey { number, sender, secret: own, alone: false }));
            let from = location(i).locators;
            let keys = (0..self.subscribed.len()).filter(|j| *j != i).flat_map(|j| {
                let (to, receiver) = (location(j).locators, channel::receiver(&secret, number, &nve_id(j)));
                let v4 = from.v4.zip(to.v4).map(|(a, b)| (IpAddr::V4(a), IpAddr::V4(b)));
                let v6 = from.v6.zip(to.v6).map(|(a, b)| (IpAddr::V6(a), IpAddr::V6(b)));
                let key = move |(from, to)| PairKey {
                    from,
                    to,
                    number,
                    secret: channel::pair(&receiver, sender, from, to),
                };
                v4.into_iter().chain(v6).map(key)
            });
            said.push((i, NvaToNve::PairKeys { keys: keys.collect() }));
        }
        said
    }

    pub fn subscribe(&mut self, i: usize, vni: Vni) -> Said {
        let members = (0..self.subscribed.len()).filter(|j| *j != i && self.subscribed[*j].contains(&vni));
        let members: Vec<usize> = members.collect();
        let lingering = members.iter().filter(|j| self.lingering.contains(&(**j, vni)));
        let lingering = lingering.map(|j| nve_id(*j)).collect();
        let members = members.into_iter().map(location).collect();
        let joined = self.subscribed[i].insert(vni);
        let news = match self.lingering.contains(&(i, vni)) {
            true => Change::MemberLingers(location(i)),
            false => Change::MemberJoined(location(i)),
        };
        let mut said = if joined { self.member_news(i, vni, news) } else { Vec::new() };
        let told = |r: &&VmRecord| r.key.vni == vni && self.tells(i, r.key);
        let vms = self.records.values().filter(told).cloned().collect();
        said.extend(self.tell_domains(i, vni));
        said.push((i, NvaToNve::Snapshot { vni, vms }));
        let revision = self.revisions.get(&vni).copied().unwrap_or(0);
        let settings = self.settings_of(vni);
        let gateway = self.gateway;
        said.push((i, NvaToNve::End { vni, revision, known: true, settings, gateway, members, lingering }));
        for ((_, j), joined) in self.groups.iter().filter(|((v, j), _)| *v == vni && *j != i) {
            let (nve, joined) = (nve_id(*j), joined.iter().copied().collect());
            said.push((i, NvaToNve::Groups { vni, nve, reset: true, joined, left: Vec::new() }));
        }
        said
    }

    fn tells(&self, i: usize, key: VmKey) -> bool {
        !self.pulled.contains(&(i, key.vni)) || self.interests.contains(&(i, key))
    }

    fn member_news(&mut self, about: usize, vni: Vni, change: Change) -> Said {
        self.news(vni, &change, Some(about))
    }

    /// An update to all subscribers but `except`, acknowledged.
    pub fn news(&mut self, vni: Vni, change: &Change, except: Option<usize>) -> Said {
        let about = match change {
            Change::Vm(r) => Some(r.key),
            Change::Removed { key, .. } | Change::Forgotten { key } => Some(*key),
            Change::MemberJoined(_) | Change::MemberLingers(_) | Change::MemberLeft(_) => None,
        };
        if let Some(key) = about.filter(|_| !self.pulled.is_empty()) {
            let told: Vec<usize> = (0..self.subscribed.len()).filter(|i| self.tells(*i, key)).collect();
            return self.news_to(&told, vni, change);
        }
        let revision = self.revisions.entry(vni).or_insert(0);
        *revision += 1;
        let revision = *revision;
        let mut said = Vec::new();
        for (i, vnis) in self.subscribed.iter().enumerate() {
            // Revisions count for everyone, so everyone hears of everything that counts.
            let quiet = Some(i) == except && matches!(change, Change::MemberJoined(_));
            if vnis.contains(&vni) && !quiet {
                self.next_ack += 1;
                let ack_id = self.next_ack;
                said.push((i, NvaToNve::Update { vni, revision, ack_id, change: change.clone() }));
            }
        }
        said
    }

    /// Where some pull, revisions are each one's own; 0 is never missed.
    fn news_to(&mut self, told: &[usize], vni: Vni, change: &Change) -> Said {
        let mut said = Vec::new();
        for &i in told.iter().filter(|i| self.subscribed[**i].contains(&vni)) {
            self.next_ack += 1;
            let ack_id = self.next_ack;
            said.push((i, NvaToNve::Update { vni, revision: 0, ack_id, change: change.clone() }));
        }
        said
    }

    fn claim(&mut self, i: usize, seq: u64, key: VmKey, base: Version) -> Said {
        let deny = |reason, record| {
            let text = String::from("no");
            vec![(i, NvaToNve::Deny { seq, key, reason, text, record })]
        };
        let Some(r) = self.records.get(&key).cloned() else { return deny(DenyReason::UnknownVm, None) };
        let ours = r.is_at(&nve_id(i));
        if ours {
            return vec![(i, NvaToNve::Grant { seq, record: r })];
        }
        if r.moving.is_none() && base < r.version {
            return deny(DenyReason::StaleVersion, Some(r));
        }
        if r.is_active() && r.moving.is_none() && !self.accept_unplanned {
            return deny(DenyReason::OwnedElsewhere, Some(r));
        }
        let version = self.version();
        let record = VmRecord { bindings: Some(location(i)).into(), version, moving: None, ..r };
        self.records.insert(key, record.clone());
        self.interests.insert((i, key));
        let mut said = vec![(i, NvaToNve::Grant { seq, record: record.clone() })];
        said.extend(self.news(key.vni, &Change::Vm(record), None));
        said
    }

    fn withdraw(&mut self, key: VmKey, version: Version) -> Said {
        let next = self.version();
        let Some(r) = self.records.get_mut(&key).filter(|r| r.version == version) else { return Vec::new() };
        r.detach();
        r.version = next;
        let change = Change::Vm(r.clone());
        self.news(key.vni, &change, None)
    }
}

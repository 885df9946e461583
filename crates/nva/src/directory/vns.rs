//! VNs: the operator's orders about them, their routers, and the news of both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use godwit_model::{
    DirectoryMode, DomainId, Gateway, Learning, ModeSet, Multicast, NveId, OnCold, UnderlayGroup, Unplanned,
    VnSettings, check_name,
};
use godwit_wire::{Mac, Vni};

use super::{Directory, Level, Refusal, SessionId, VnInfo, VnRecord, Write};

/// What is to change in a VN; `None`: it stays.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VnChanges {
    /// Requests for addresses that the directory does not have are flooded (R31).
    pub flood_silent: Option<bool>,
    /// What becomes of claims without a move for VMs of other NVEs (R21).
    pub unplanned: Option<Unplanned>,
    /// VMs that ask for their own IPv4 address by RARP are answered (R27).
    pub rarp: Option<bool>,
    /// Whose word binds IPv4 addresses to its VMs (R93); `Some(None)`: not said any more.
    pub learning_v4: Option<Option<Learning>>,
    /// Of IPv6 likewise.
    pub learning_v6: Option<Option<Learning>>,
    /// What becomes of multicast (R61).
    pub multicast: Option<Multicast>,
    /// Groups of the underlay, both families (R60).
    pub underlay_group: Option<UnderlayGroup>,
    /// What becomes of connections with VMs that are detached (R53).
    pub on_cold: Option<OnCold>,
    /// Moves that its VMs take (R56).
    pub modes: Option<ModeSet>,
    /// The routing domain that it joins; `Some(None)`: it leaves its domain (R58).
    pub domain: Option<Option<DomainId>>,
    /// Its VMs are not bridged (R58).
    pub routed_only: Option<bool>,
}

impl VnChanges {
    /// The settings with these changes, but for the part in a routing domain.
    fn applied_to(&self, mut s: VnSettings) -> VnSettings {
        s.flood_silent = self.flood_silent.unwrap_or(s.flood_silent);
        s.unplanned = self.unplanned.unwrap_or(s.unplanned);
        s.rarp = self.rarp.unwrap_or(s.rarp);
        s.learning.v4 = self.learning_v4.unwrap_or(s.learning.v4);
        s.learning.v6 = self.learning_v6.unwrap_or(s.learning.v6);
        s.multicast = self.multicast.unwrap_or(s.multicast);
        s.underlay_group = self.underlay_group.unwrap_or(s.underlay_group);
        s.on_cold = self.on_cold.unwrap_or(s.on_cold);
        s.modes = self.modes.unwrap_or(s.modes);
        s
    }
}

/// What the log says of a VN's settings.
fn settings_text(s: &VnSettings) -> String {
    format!(
        "requests for unknown addresses are {}, unplanned moves: {:?}, RARP: {}, addresses: {}, multicast: {}{}, \
         moves: {}, connections with detached VMs are {}",
        if s.flood_silent { "flooded" } else { "dropped" },
        s.unplanned,
        s.rarp,
        super::allowed::learning_text(s.learning),
        s.multicast.as_text(),
        group_text(&s.underlay_group),
        s.modes,
        match s.on_cold {
            OnCold::Drop => "left alone",
            OnCold::Reset => "reset",
        }
    )
}

fn group_text(g: &UnderlayGroup) -> String {
    let v4 = g.v4.map(|a| format!(" by {a}"));
    let v6 = g.v6.map(|a| format!(" by {a}"));
    v4.into_iter().chain(v6).collect()
}

/// A VN and who takes part in it. Members may be there before the operator defines it.
#[derive(Default)]
pub(super) struct Vn {
    pub record: Option<VnRecord>,
    /// NVEs that take part (R60).
    pub members: BTreeSet<NveId>,
    /// Those of them that only forward for VMs that left them: others do not replicate to them (R17).
    pub lingering: BTreeSet<NveId>,
    /// Multicast groups that VMs of NVEs have joined, by the word of their NVEs, which are members (R61).
    pub groups: super::groups::Groups,
    /// Connections that get updates.
    pub subscribers: BTreeSet<SessionId>,
    /// VMs that the operator defined as routers, with their first IPv4 addresses (R27).
    pub gateways: BTreeMap<Mac, Ipv4Addr>,
}

/// All VNs, by number and by name.
#[derive(Default)]
pub(super) struct Vns {
    by_vni: BTreeMap<Vni, Vn>,
    names: BTreeMap<String, Vni>,
}

impl Vns {
    pub fn get(&self, vni: Vni) -> Option<&Vn> {
        self.by_vni.get(&vni)
    }

    pub fn get_mut(&mut self, vni: Vni) -> Option<&mut Vn> {
        self.by_vni.get_mut(&vni)
    }

    /// Somebody takes part in the VN, whether it is defined or not.
    pub fn at(&mut self, vni: Vni) -> &mut Vn {
        self.by_vni.entry(vni).or_default()
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Vni, &Vn)> {
        self.by_vni.iter().map(|(vni, vn)| (*vni, vn))
    }

    /// How many are defined.
    pub fn defined_count(&self) -> usize {
        self.names.len()
    }

    /// The VN of this name.
    pub fn vni_of(&self, name: &str) -> Option<Vni> {
        self.names.get(name).copied()
    }

    /// What the operator defined.
    pub fn record(&self, vni: Vni) -> Option<&VnRecord> {
        self.get(vni)?.record.as_ref()
    }

    fn record_mut(&mut self, vni: Vni) -> Option<&mut VnRecord> {
        self.get_mut(vni)?.record.as_mut()
    }

    /// The VN is defined.
    pub fn define(&mut self, record: VnRecord) {
        self.names.insert(record.name.clone(), record.vni);
        let vn = self.at(record.vni);
        vn.record = Some(record);
    }

    /// Nobody defines it any more; those who take part stay.
    fn undefine(&mut self, vni: Vni) -> Option<VnRecord> {
        let record = self.get_mut(vni).and_then(|vn| vn.record.take())?;
        self.names.remove(&record.name);
        Some(record)
    }

    /// A VN that nobody defined and nobody uses leaves no trace.
    pub fn drop_unused(&mut self, vni: Vni) {
        let unused = |vn: &Vn| vn.record.is_none() && vn.members.is_empty() && vn.subscribers.is_empty();
        if self.get(vni).is_some_and(unused) {
            self.by_vni.remove(&vni);
        }
    }

    /// Connections that get updates of the VN.
    pub fn subscribers(&self, vni: Vni) -> BTreeSet<SessionId> {
        self.get(vni).map(|vn| vn.subscribers.clone()).unwrap_or_default()
    }

    /// What is to be persisted.
    pub fn stored(&self) -> BTreeMap<Vni, VnRecord> {
        self.iter().filter_map(|(vni, vn)| Some((vni, vn.record.clone()?))).collect()
    }
}

impl Directory {
    /// Makes a VN; the same order again changes nothing.
    ///
    /// # Errors
    /// Where its name or number is taken, or a value is of no use.
    pub(super) fn create_vn(&mut self, mut vn: VnRecord) -> Result<VnInfo, Refusal> {
        check_name("VN", &vn.name)?;
        let mtu = vn.settings.mtu;
        if mtu != 0 && !(576..=9216).contains(&mtu) {
            return Err(Refusal::BadMtu(mtu));
        }
        super::domains::check_underlay_group(&vn.settings.underlay_group)?;
        let vni = vn.vni;
        super::domains::put_in_order(&mut vn);
        let there = self.vns.vni_of(&vn.name);
        if let Some(vni) = there.filter(|v| self.vns.record(*v) != Some(&vn)) {
            return Err(Refusal::VnExists { name: vn.name, vni });
        }
        if there.is_none() {
            if let Some(r) = self.vns.record(vni) {
                return Err(Refusal::VniTaken { vni, name: r.name.clone() });
            }
            self.check_routing(&vn)?;
            self.persist(Write::PutVn(vn.clone()));
            self.log(Level::Info, format!("VN {} has VNI {vni}", vn.name));
            self.enter_domain(&vn);
            self.vns.define(vn);
            self.snapshot_all(vni);
        }
        self.vn_info(vni).ok_or(Refusal::UnknownVn(String::new()))
    }

    /// Changes a VN's settings; its members are told of those that they act on.
    ///
    /// # Errors
    /// Where it is not there, or a value is of no use.
    pub(super) fn set_vn(&mut self, name: &str, to: VnChanges) -> Result<VnInfo, Refusal> {
        let unknown = || Refusal::UnknownVn(name.into());
        let vni = self.vns.vni_of(name).ok_or_else(unknown)?;
        if let Some(group) = &to.underlay_group {
            super::domains::check_underlay_group(group)?;
        }
        let before = self.vns.record(vni).ok_or_else(unknown)?.settings.clone();
        let routing = self.changed_routing(vni, name, &to)?;
        let settings = VnSettings { routing, ..to.applied_to(before.clone()) };
        if settings.routing != before.routing {
            self.set_routing(vni, settings.clone());
        } else if settings != before {
            self.save_settings(vni, settings.clone());
            if !settings.same_for_nves(&before) {
                self.snapshot_all(vni);
            }
        }
        if settings.learning != before.learning {
            self.follow_learning(vni);
        }
        self.vn_info(vni).ok_or_else(unknown)
    }

    /// The VN has other settings: durable, and in the log.
    pub(super) fn save_settings(&mut self, vni: Vni, settings: VnSettings) {
        let Some(record) = self.vns.record_mut(vni) else { return };
        record.settings = settings;
        let record = record.clone();
        self.log(Level::Info, format!("VN {}: {}", record.name, settings_text(&record.settings)));
        self.persist(Write::PutVn(record));
    }

    /// Deletes a VN without VMs.
    ///
    /// # Errors
    /// Where it is not there, or has VMs.
    pub(super) fn delete_vn(&mut self, name: &str) -> Result<VnInfo, Refusal> {
        let vni = self.vns.vni_of(name).ok_or_else(|| Refusal::UnknownVn(name.into()))?;
        let vms = self.records.of_vn(vni).count();
        if vms > 0 {
            return Err(Refusal::VnHasVms { vn: name.into(), vms });
        }
        let info = self.vn_info(vni).ok_or_else(|| Refusal::UnknownVn(name.into()))?;
        let gone = self.vns.undefine(vni);
        self.persist(Write::RemoveVn(vni));
        self.forget_access_to(vni);
        self.log(Level::Info, format!("VN {name} is deleted"));
        self.snapshot_all(vni);
        self.leave_domain(gone);
        self.vns.drop_unused(vni);
        Ok(info)
    }

    /// Subscribers learn that the VN is there, or is not any more.
    pub(super) fn snapshot_all(&mut self, vni: Vni) {
        self.snapshot_to(vni, |_| true);
    }

    fn snapshot_to(&mut self, vni: Vni, mode: impl Fn(DirectoryMode) -> bool) {
        let all = self.vns.subscribers(vni);
        let mode_of = |s: &SessionId| self.sessions.get(s).and_then(|s| s.mode(vni));
        let those: Vec<_> = all.into_iter().filter(|s| mode_of(s).is_some_and(&mode)).collect();
        for session in those {
            self.settle_by_snapshot(session, vni);
            self.snapshot(session, vni);
        }
    }

    /// The router of a VN in whose name VMs are answered (R27): the first by MAC, where they are answered at all.
    fn gateway(&self, vn: &Vn) -> Option<Gateway> {
        let (mac, ip) = vn.gateways.first_key_value()?;
        vn.record.as_ref().filter(|r| r.settings.rarp).map(|_| Gateway { mac: *mac, ip: *ip })
    }

    /// What a subscriber is told of it: who is pushed all records finds it there.
    pub(super) fn told_gateway(&self, vn: &Vn, mode: DirectoryMode) -> Option<Gateway> {
        self.gateway(vn).filter(|_| mode == DirectoryMode::Pull)
    }

    /// Tells those who pull a VN that it has another router than `before`.
    pub(super) fn follow_gateway(&mut self, vni: Vni, before: Option<Gateway>) {
        if self.gateway_of(vni) != before {
            self.snapshot_to(vni, |mode| mode == DirectoryMode::Pull);
        }
    }

    pub(super) fn gateway_of(&self, vni: Vni) -> Option<Gateway> {
        self.vns.get(vni).and_then(|vn| self.gateway(vn))
    }
}

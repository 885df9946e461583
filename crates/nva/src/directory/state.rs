//! What the directory must not lose, and the writes that change it.

use std::collections::{BTreeMap, BTreeSet};

use godwit_model::{
    DomainId, DrainPhase, Locators, MoveId, MoveRecord, NveId, Policy, StaticRoute, VmKey, VmRecord,
    VnSettings,
};
use godwit_wire::{Prefix, Vni};

use super::authority::VnAccess;

/// A virtual network as the operator defined it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VnRecord {
    /// Its number on the wire.
    pub vni: Vni,
    /// The operator's name for it.
    pub name: String,
    /// What the operator set for it.
    pub settings: VnSettings,
}

/// A routing domain as the operator defined it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainRecord {
    /// Its number, which no other domain ever had.
    pub id: DomainId,
    /// The operator's name for it.
    pub name: String,
}

/// An NVE that spoke once, or that the operator defined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NveRecord {
    /// Its name.
    pub id: NveId,
    /// Its locators, from its last Hello or from the operator.
    pub locators: Locators,
    /// Defined by the operator; it has no session and never will.
    pub foreign: bool,
    /// Its software, for people.
    pub software: String,
    /// Instance number of its last session (R96).
    pub instance: u64,
    /// VNs that it subscribed to: a disconnected NVE stays a member (R17, R60).
    pub vnis: BTreeSet<Vni>,
}

/// A switch that is being drained (R85): until this record is removed, no VM comes to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainRecord {
    /// The switch.
    pub nve: NveId,
    /// Where its VMs may go; empty: to any other NVE.
    pub to: Vec<NveId>,
    /// Moves that may be under way at the same time, from 1 to
    /// [`MAX_PARALLEL_MOVES`](godwit_model::MAX_PARALLEL_MOVES).
    pub parallel: u32,
    /// VMs that take no hot move may be shut down for a cold one (R56).
    pub accept_interruption: bool,
    /// How far it is.
    pub phase: DrainPhase,
    /// When it was ordered, in microseconds since 1970.
    pub ordered_us: u64,
    /// When it was stopped or had ended; 0: it runs.
    pub ended_us: u64,
    /// VMs that were there when it was ordered.
    pub total: u32,
    /// VMs that its moves took away.
    pub moved: u32,
    /// Its moves that are under way.
    pub moving: BTreeMap<VmKey, MoveId>,
    /// VMs of which a move failed, and that have not been moved since.
    pub failed: BTreeMap<VmKey, DrainFailure>,
    /// Moves that failed since the last one that succeeded.
    pub failed_in_row: u32,
    /// Why it ended before each VM was tried; empty: it did not.
    pub note: String,
}

/// A VM that a drain could not move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DrainFailure {
    /// Moves that failed.
    pub tries: u32,
    /// Why the last one did.
    pub reason: String,
}

/// A move with its place in history, which decides who is forgotten first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMove {
    /// Rises with every move.
    pub number: u64,
    /// The move.
    pub record: MoveRecord,
}

/// One change of the persistent state. Writes of one step are one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant)] // Most are the large one.
pub enum Write {
    /// The last sequence number that a version was given (R20).
    Seq(u64),
    /// New or changed VN.
    PutVn(VnRecord),
    /// The VN is gone.
    RemoveVn(Vni),
    /// A new routing domain; its number is above all that were given before (R58).
    PutDomain(DomainRecord),
    /// The domain is gone, and its number is not given again.
    RemoveDomain(DomainId),
    /// New or changed static route of a domain.
    PutRoute(DomainId, StaticRoute),
    /// The route is gone.
    RemoveRoute(DomainId, Prefix),
    /// New or changed VM.
    PutVm(VmRecord),
    /// The VM is gone.
    RemoveVm(VmKey),
    /// New or changed policy.
    PutPolicy(Policy),
    /// The policy is gone.
    RemovePolicy(String),
    /// When a VM moved of late without being ordered to, in microseconds since 1970 (R22).
    PutFlaps(VmKey, Vec<u64>),
    /// That does not count any more.
    RemoveFlaps(VmKey),
    /// New or changed NVE, but for the VNs that it is in.
    PutNve(NveRecord),
    /// The NVE is gone, and from its VNs too.
    RemoveNve(NveId),
    /// The NVE has subscribed to the VN.
    JoinVn(NveId, Vni),
    /// It is in the VN no more.
    LeaveVn(NveId, Vni),
    /// The NVE, which may not have spoken yet, may take part in these VNs (R68).
    PutAccess(NveId, VnAccess),
    /// It may take part in all.
    RemoveAccess(NveId),
    /// New or changed move.
    PutMove(StoredMove),
    /// The move is forgotten.
    RemoveMove(MoveId),
    /// New or changed drain (R85).
    PutDrain(Box<DrainRecord>),
    /// The NVE takes VMs again.
    RemoveDrain(NveId),
}

/// Everything that survives a restart.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct State {
    /// Epoch of the last incarnation; the next one serves with a higher one (R73).
    pub epoch: u32,
    /// The last sequence number used.
    pub seq: u64,
    /// VNs.
    pub vns: BTreeMap<Vni, VnRecord>,
    /// The highest number that a routing domain has had (R58).
    pub last_domain: u32,
    /// Routing domains.
    pub domains: BTreeMap<DomainId, DomainRecord>,
    /// Next hops of their static routes.
    pub routes: BTreeMap<(DomainId, Prefix), VmKey>,
    /// VMs.
    pub vms: BTreeMap<VmKey, VmRecord>,
    /// Policies.
    pub policies: BTreeMap<String, Policy>,
    /// When VMs moved of late without being ordered to, in microseconds since 1970 (R22).
    pub flaps: BTreeMap<VmKey, Vec<u64>>,
    /// NVEs.
    pub nves: BTreeMap<NveId, NveRecord>,
    /// NVEs that may not take part in every VN (R68).
    pub access: BTreeMap<NveId, VnAccess>,
    /// Moves.
    pub moves: BTreeMap<MoveId, StoredMove>,
    /// Drains (R85).
    pub drains: BTreeMap<NveId, DrainRecord>,
}

impl State {
    /// Makes one change. Applying a list of writes again changes nothing more.
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Seq(n) => self.seq = self.seq.max(*n),
            Write::PutVn(r) => {
                self.vns.insert(r.vni, r.clone());
            }
            Write::RemoveVn(vni) => {
                self.vns.remove(vni);
            }
            Write::PutDomain(r) => {
                self.last_domain = self.last_domain.max(r.id.0);
                self.domains.insert(r.id, r.clone());
            }
            Write::RemoveDomain(id) => {
                self.domains.remove(id);
            }
            Write::PutRoute(id, r) => {
                self.routes.insert((*id, r.prefix), r.via);
            }
            Write::RemoveRoute(id, prefix) => {
                self.routes.remove(&(*id, *prefix));
            }
            Write::PutVm(r) => {
                self.vms.insert(r.key, r.clone());
            }
            Write::RemoveVm(key) => {
                self.vms.remove(key);
            }
            Write::PutPolicy(p) => {
                self.policies.insert(p.name.clone(), p.clone());
            }
            Write::RemovePolicy(name) => {
                self.policies.remove(name);
            }
            Write::PutFlaps(key, times) => {
                self.flaps.insert(*key, times.clone());
            }
            Write::RemoveFlaps(key) => {
                self.flaps.remove(key);
            }
            Write::PutNve(r) => {
                let vnis = self.nves.remove(&r.id).map(|old| old.vnis).unwrap_or_default();
                self.nves.insert(r.id.clone(), NveRecord { vnis, ..r.clone() });
            }
            Write::RemoveNve(id) => {
                self.nves.remove(id);
            }
            Write::JoinVn(id, vni) => {
                self.nves.get_mut(id).map(|n| n.vnis.insert(*vni));
            }
            Write::LeaveVn(id, vni) => {
                self.nves.get_mut(id).map(|n| n.vnis.remove(vni));
            }
            Write::PutAccess(id, access) => {
                self.access.insert(id.clone(), access.clone());
            }
            Write::RemoveAccess(id) => {
                self.access.remove(id);
            }
            Write::PutMove(m) => {
                self.moves.insert(m.record.id.clone(), m.clone());
            }
            Write::RemoveMove(id) => {
                self.moves.remove(id);
            }
            Write::PutDrain(d) => {
                self.drains.insert(d.nve.clone(), DrainRecord::clone(d));
            }
            Write::RemoveDrain(nve) => {
                self.drains.remove(nve);
            }
        }
    }
}

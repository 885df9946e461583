//! The VNs that an NVE may take part in, and the orders about them.

use std::collections::BTreeSet;

use godwit_model::{NveId, VmKey};
use godwit_wire::Vni;

use super::super::{Directory, Level, NveInfo, Refusal, Write};

/// VNs that one NVE's access names at most.
const MAX_NAMED: usize = 4_096;

/// The VNs that an NVE may take part in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VnAccess {
    /// All but these.
    AllBut(BTreeSet<Vni>),
    /// These only.
    Only(BTreeSet<Vni>),
}

/// The VNs that an order is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VnChoice {
    /// All that there are and will be.
    All,
    /// These, by name.
    Named(Vec<String>),
}

/// A stored access that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{named} VNs are more than an NVE's access may name ({MAX_NAMED})")]
pub struct BadAccess {
    named: usize,
}

impl Default for VnAccess {
    fn default() -> VnAccess {
        VnAccess::AllBut(BTreeSet::new())
    }
}

impl VnAccess {
    /// The NVE may take part in this VN.
    pub fn allows(&self, vni: Vni) -> bool {
        match self {
            VnAccess::AllBut(vnis) => !vnis.contains(&vni),
            VnAccess::Only(vnis) => vnis.contains(&vni),
        }
    }

    /// The VNs that it names.
    pub fn named(&self) -> &BTreeSet<Vni> {
        let (VnAccess::AllBut(vnis) | VnAccess::Only(vnis)) = self;
        vnis
    }

    /// As it is where nobody said anything.
    fn is_default(&self) -> bool {
        *self == VnAccess::default()
    }

    /// These too, or these no more.
    fn set(&mut self, vnis: &BTreeSet<Vni>, allowed: bool) {
        match (self, allowed) {
            (VnAccess::AllBut(but), true) => but.retain(|v| !vnis.contains(v)),
            (VnAccess::Only(only), true) => only.extend(vnis),
            (VnAccess::AllBut(but), false) => but.extend(vnis),
            (VnAccess::Only(only), false) => only.retain(|v| !vnis.contains(v)),
        }
    }

    /// No more VNs than may be named.
    fn checked(self) -> Result<VnAccess, BadAccess> {
        let named = self.named().len();
        if named > MAX_NAMED { Err(BadAccess { named }) } else { Ok(self) }
    }
}

impl Directory {
    /// The NVE may take part in these VNs too, or with `only` in no others. It need not have spoken yet.
    ///
    /// # Errors
    /// Where there is no such VN, the NVE is foreign, or it has VMs in a VN that it may not take part in then.
    pub(in crate::directory) fn allow_nve(
        &mut self,
        id: &NveId,
        vns: &VnChoice,
        only: bool,
    ) -> Result<NveInfo, Refusal> {
        let mut access = self.access_of(id);
        match (vns, only) {
            (VnChoice::All, _) => access = VnAccess::default(),
            (VnChoice::Named(names), true) => access = VnAccess::Only(self.vnis_of(names)?),
            (VnChoice::Named(names), false) => access.set(&self.vnis_of(names)?, true),
        }
        self.set_access(id, access, false)
    }

    /// The NVE may take part in these VNs no more: it leaves them at once. With `force`, its VMs there are detached.
    ///
    /// # Errors
    /// As [`Directory::allow_nve`].
    pub(in crate::directory) fn deny_nve(
        &mut self,
        id: &NveId,
        vns: &VnChoice,
        force: bool,
    ) -> Result<NveInfo, Refusal> {
        let mut access = self.access_of(id);
        match vns {
            VnChoice::All => access = VnAccess::Only(BTreeSet::new()),
            VnChoice::Named(names) => access.set(&self.vnis_of(names)?, false),
        }
        self.set_access(id, access, force)
    }

    /// What the NVE may take part in.
    pub fn access_of(&self, id: &NveId) -> VnAccess {
        self.access.get(id).cloned().unwrap_or_default()
    }

    fn vnis_of(&self, names: &[String]) -> Result<BTreeSet<Vni>, Refusal> {
        let vni = |name: &String| self.vns.vni_of(name).ok_or_else(|| Refusal::UnknownVn(name.clone()));
        names.iter().map(vni).collect()
    }

    fn set_access(&mut self, id: &NveId, access: VnAccess, force: bool) -> Result<NveInfo, Refusal> {
        let access = access.checked()?;
        let known = self.nves.get(id);
        if known.is_some_and(|n| n.record.foreign) {
            return Err(Refusal::NveForeign { nve: id.clone() });
        }
        let full = self.access.len() >= self.config.max_nves;
        if full && !self.access.contains_key(id) && !access.is_default() {
            return Err(Refusal::Full { what: "NVEs with VNs of their own", max: self.config.max_nves });
        }
        let lost = |vni: Vni| !access.allows(vni);
        let vms: Vec<VmKey> =
            known.into_iter().flat_map(|n| &n.vms).copied().filter(|key| lost(key.vni)).collect();
        if let (Some(first), false) = (vms.first(), force) {
            let vn = self.vns.record(first.vni).map_or_else(|| first.vni.to_string(), |r| r.name.clone());
            return Err(Refusal::NveHasVmsIn { nve: id.clone(), vms: vms.len(), vn });
        }
        if self.access_of(id) != access {
            self.enforce(id, access, &vms);
        }
        // Of one that has not spoken, and may take part in all VNs, nothing is known.
        let info = self.nve_info(id, self.now);
        Ok(info.unwrap_or_else(|| NveInfo::unheard(id, VnAccess::default())))
    }

    /// From now on: it leaves what it may not be in, and begins a session anew, in which it is told what it may be in.
    fn enforce(&mut self, id: &NveId, access: VnAccess, vms: &[VmKey]) {
        let member_of: Vec<Vni> = self.nves.get(id).map(super::super::view::memberships).unwrap_or_default();
        let lost: Vec<Vni> = member_of.into_iter().filter(|vni| !access.allows(*vni)).collect();
        self.log(Level::Info, format!("NVE {id} may take part in other VNs than before"));
        self.put_access(id, access);
        if let Some(session) = self.session_of(id) {
            self.close(session, "the VNs that it may take part in have changed".into());
        }
        for key in vms {
            self.detach(*key);
        }
        for vni in lost {
            self.leave(id, vni);
        }
    }

    fn put_access(&mut self, id: &NveId, access: VnAccess) {
        if access.is_default() {
            self.forget_access(id);
        } else {
            self.access.insert(id.clone(), access.clone());
            self.persist(Write::PutAccess(id.clone(), access));
        }
    }

    /// As of an NVE of which nobody said anything.
    pub(in crate::directory) fn forget_access(&mut self, id: &NveId) {
        if self.access.remove(id).is_some() {
            self.persist(Write::RemoveAccess(id.clone()));
        }
    }

    /// The VN is gone: another one that gets its number is another VN.
    pub(in crate::directory) fn forget_access_to(&mut self, vni: Vni) {
        let named = self.access.iter().filter(|(_, a)| a.named().contains(&vni));
        for (id, mut access) in named.map(|(id, a)| (id.clone(), a.clone())).collect::<Vec<_>>() {
            let (VnAccess::AllBut(vnis) | VnAccess::Only(vnis)) = &mut access;
            vnis.remove(&vni);
            self.put_access(&id, access);
        }
    }
}

//! VNs that join a routing domain, leave it, or are bridged no more, while their VMs run.

use godwit_model::{VmKey, VnRouting, VnSettings};
use godwit_wire::{Prefix, Vni};

use super::super::vns::VnChanges;
use super::super::{Directory, Level, Refusal};
use super::some;

impl Directory {
    /// The part in a routing domain that a VN is to have after these changes.
    ///
    /// # Errors
    /// Where the VN is in another domain, or in none and the mode alone is to change; where a VM has the gateway's MAC;
    /// or where routes of the domain that it leaves go by its VMs.
    pub(in super::super) fn changed_routing(
        &self,
        vni: Vni,
        vn: &str,
        to: &VnChanges,
    ) -> Result<Option<VnRouting>, Refusal> {
        if let Some(Some(domain)) = to.domain
            && self.domains.get(domain).is_none()
        {
            return Err(Refusal::UnknownDomain(format!("number {}", domain.0)));
        }
        let now = self.routing_of(vni).cloned();
        match (now, to.domain) {
            (Some(now), None) => Ok(Some(with_mode(now, to))),
            (None, None) if to.routed_only.is_some() => Err(Refusal::NotRouted { vn: vn.into() }),
            (None, None | Some(None)) => Ok(None),
            (Some(now), Some(None)) => {
                self.check_leaves(vni, vn, &now)?;
                Ok(None)
            }
            (None, Some(Some(domain))) => {
                self.check_joins(vni)?;
                Ok(Some(with_mode(VnRouting { domain, routed_only: false, subnets: Vec::new() }, to)))
            }
            (Some(now), Some(Some(domain))) if now.domain == domain => Ok(Some(with_mode(now, to))),
            (Some(now), Some(Some(domain))) => Err(Refusal::VnInDomain {
                vn: vn.into(),
                domain: self.domain_name(now.domain).unwrap_or_default().into(),
                other: self.domain_name(domain).unwrap_or_default().into(),
            }),
        }
    }

    /// No VM of the VN has what every gateway has.
    fn check_joins(&self, vni: Vni) -> Result<(), Refusal> {
        let mac = self.config.gateway_mac;
        match self.records.of_vn(vni).find(|r| r.macs().any(|its| its == mac)) {
            Some(r) => Err(Refusal::GatewayMac { mac, vm: r.name.clone() }),
            None => Ok(()),
        }
    }

    /// No route of the domain goes by a VM of the VN.
    fn check_leaves(&self, vni: Vni, vn: &str, now: &VnRouting) -> Result<(), Refusal> {
        let Some(d) = self.domains.get(now.domain) else { return Ok(()) };
        let routes: Vec<(&Prefix, &VmKey)> = d.routes.iter().filter(|(_, via)| via.vni == vni).collect();
        if routes.is_empty() {
            return Ok(());
        }
        let described = |(prefix, via): &(&Prefix, &VmKey)| {
            let vm = self.records.get(via).map(|r| r.name.as_str()).unwrap_or_default();
            format!("{prefix} by {vm}")
        };
        Err(Refusal::VnHasRoutes {
            vn: vn.into(),
            domain: d.name.clone(),
            routes: routes.len(),
            some: some(routes.iter().map(described)),
        })
    }

    /// The VN has another part in a routing domain, which was checked. Who knows the domain learns of a VN that joins
    /// it before the VN's `End` names it, and of one that leaves it after that.
    pub(in super::super) fn set_routing(&mut self, vni: Vni, settings: VnSettings) {
        let Some(before) = self.vns.record(vni).cloned() else { return };
        let (old, new) = (before.settings.routing.as_ref(), settings.routing.as_ref());
        let name = |d: &Directory, of: Option<&VnRouting>| {
            of.and_then(|r| d.domain_name(r.domain)).unwrap_or_default().to_owned()
        };
        let text = match (old, new) {
            (None, new) => format!("joins routing domain {}", name(self, new)),
            (old, None) => format!("leaves routing domain {}", name(self, old)),
            (_, Some(new)) if new.routed_only => "is routed only".into(),
            _ => "is bridged and routed".into(),
        };
        self.log(Level::Info, format!("VN {} {text}", before.name));
        let (joins, leaves) = (old.is_none(), new.is_none());
        self.save_settings(vni, settings);
        if joins && let Some(record) = self.vns.record(vni).cloned() {
            self.enter_domain(&record);
        }
        self.snapshot_all(vni);
        if leaves {
            self.leave_domain(Some(before));
        }
    }
}

fn with_mode(routing: VnRouting, to: &VnChanges) -> VnRouting {
    VnRouting { routed_only: to.routed_only.unwrap_or(routing.routed_only), ..routing }
}

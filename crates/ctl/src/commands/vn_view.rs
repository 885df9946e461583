//! VNs for output.

use godwit_api::v1;
use serde::Serialize;

use super::addresses::LearningView;
use super::subnets::SubnetView;
use crate::context::Report;
use crate::table::{Table, facts};
use crate::text;

/// A VN for output.
#[derive(Serialize)]
pub(super) struct VnView {
    pub name: String,
    pub vni: u32,
    /// Null: each NVE's own.
    mtu: Option<u32>,
    transparent_vlan: bool,
    /// query or flood.
    silent: &'static str,
    /// verify, accept or deny.
    unplanned: &'static str,
    /// Questions for own addresses are answered.
    rarp: bool,
    /// Whose word binds addresses, where a VM's definition does not say.
    addresses: LearningView,
    /// What becomes of multicast: flood, snoop or off.
    multicast: &'static str,
    /// Segments for detached VMs: drop or reset.
    on_cold: &'static str,
    /// Groups of the underlay, of IPv4 and of IPv6.
    underlay_groups: Vec<String>,
    /// Null: bridged only.
    routing: Option<RoutingView>,
    vms: u32,
    members: Vec<String>,
    /// Members that ask for the records that they need.
    pulling: Vec<String>,
    /// NVEs without ports in it that route to its VMs.
    routers: Vec<String>,
}

/// A VN's part in a routing domain, for output.
#[derive(Serialize)]
struct RoutingView {
    domain: String,
    /// bridged and routed, or routed only.
    mode: &'static str,
    subnets: Vec<SubnetView>,
}

impl From<v1::Vn> for VnView {
    fn from(v: v1::Vn) -> VnView {
        let settings = v.settings.unwrap_or_default();
        let unplanned = match settings.unplanned() {
            v1::Unplanned::Unspecified | v1::Unplanned::Verify => "verify",
            v1::Unplanned::Accept => "accept",
            v1::Unplanned::Deny => "deny",
        };
        let multicast = match settings.multicast() {
            v1::Multicast::Unspecified | v1::Multicast::Flood => "flood",
            v1::Multicast::Snoop => "snoop",
            v1::Multicast::Off => "off",
        };
        let on_cold = match settings.on_cold() {
            v1::OnCold::Unspecified | v1::OnCold::Drop => "drop",
            v1::OnCold::Reset => "reset",
        };
        let groups = [&settings.underlay_group_v4, &settings.underlay_group_v6];
        let domain = v.domain;
        let routing = settings.routing.map(|r| RoutingView {
            domain,
            mode: if r.routed_only { "routed only" } else { "bridged and routed" },
            subnets: r.subnets.into_iter().map(SubnetView::from).collect(),
        });
        VnView {
            name: v.name,
            vni: v.vni,
            mtu: (settings.mtu != 0).then_some(settings.mtu),
            transparent_vlan: settings.transparent_vlan,
            silent: if settings.flood_silent { "flood" } else { "query" },
            unplanned,
            rarp: settings.rarp,
            addresses: settings.learning.as_ref().into(),
            multicast,
            on_cold,
            underlay_groups: groups.into_iter().filter_map(|g| text::locator(g)).collect(),
            routing,
            vms: v.vms,
            members: v.members,
            pulling: v.pulling,
            routers: v.routing,
        }
    }
}

impl VnView {
    fn nves(&self) -> String {
        let pulls = |n: &String| if self.pulling.contains(n) { " (pulls)" } else { "" };
        let members = self.members.iter().map(|n| format!("{n}{}", pulls(n)));
        let routers = self.routers.iter().map(|n| format!("{n}{} (routes)", pulls(n)));
        members.chain(routers).collect::<Vec<_>>().join(" ")
    }

    fn mtu(&self) -> String {
        self.mtu.map(|m| m.to_string()).unwrap_or_default()
    }

    fn tags(&self) -> &'static str {
        if self.transparent_vlan { "pass" } else { "dropped" }
    }

    fn rarp(&self) -> &'static str {
        if self.rarp { "on" } else { "off" }
    }

    /// The domain; and that the VN is not bridged.
    pub fn domain(&self) -> String {
        match &self.routing {
            Some(r) if r.mode == "routed only" => format!("{} (routed only)", r.domain),
            Some(r) => r.domain.clone(),
            None => String::new(),
        }
    }

    /// The mode in words, for a list of a domain's VNs.
    pub fn mode(&self) -> &'static str {
        self.routing.as_ref().map_or("bridged only", |r| r.mode)
    }

    /// The prefixes of its subnets.
    pub fn prefixes(&self) -> String {
        let subnets = self.routing.iter().flat_map(|r| &r.subnets);
        subnets.map(|s| s.prefix.clone()).collect::<Vec<_>>().join(" ")
    }

    /// VMs in it.
    pub fn vms(&self) -> u32 {
        self.vms
    }
}

/// One VN with all that is set for it.
impl Report for VnView {
    fn text(&self) -> String {
        let mut lines = vec![
            ("VN", format!("{} (VNI {})", self.name, self.vni)),
            ("domain", self.routing.as_ref().map(|r| r.domain.clone()).unwrap_or_default()),
            ("mode", self.mode().into()),
        ];
        let subnets = self.routing.iter().flat_map(|r| &r.subnets);
        lines.extend(subnets.map(|s| ("subnet", s.sentence())));
        lines.extend([
            ("MTU", self.mtu()),
            ("VLAN tags", self.tags().into()),
            ("silent hosts", self.silent.into()),
            ("unplanned moves", self.unplanned.into()),
            ("RARP", self.rarp().into()),
            ("addresses", self.addresses.words()),
            ("multicast", self.multicast.into()),
            ("on cold", self.on_cold.into()),
            ("underlay groups", self.underlay_groups.join(" ")),
            ("VMs", self.vms.to_string()),
            ("NVEs", self.nves()),
        ]);
        facts(&lines)
    }
}

#[derive(Serialize)]
pub(super) struct VnList {
    pub vns: Vec<VnView>,
}

impl Report for VnList {
    fn text(&self) -> String {
        let mut t = Table::new(&[
            "NAME",
            ">VNI",
            ">MTU",
            "VLAN TAGS",
            "SILENT",
            "UNPLANNED",
            "RARP",
            "ADDRESSES",
            "DOMAIN",
            "SUBNETS",
            ">VMS",
            "NVES",
        ]);
        for v in &self.vns {
            t.row([
                v.name.clone(),
                v.vni.to_string(),
                v.mtu(),
                v.tags().into(),
                v.silent.into(),
                v.unplanned.into(),
                v.rarp().into(),
                v.addresses.words(),
                v.domain(),
                v.prefixes(),
                v.vms.to_string(),
                v.nves(),
            ]);
        }
        t.text_or("no VNs; `godwitctl vn create` makes one")
    }
}

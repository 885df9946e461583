//! What VMs may have beside their recorded addresses, and what they have of it: arguments and output of `vm` and `vn`.

use clap::{ArgGroup, Args};
use godwit_api::v1;
use godwit_wire::{Mac, Prefix};
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::parse::{self, Word};
use crate::text;

/// Whose word binds addresses.
#[derive(Args, Clone, Default, Debug)]
pub struct LearningArgs {
    /// Whose word binds addresses, of both families: `recorded` (yours alone), `learned` or `learned=N` (the VM's own
    /// too, 8 or N of each family: DHCP, privacy addresses, SLAAC), or `default` (a VM inherits from its VN, and where
    /// that says nothing, learns exactly where no address of the family is recorded). Link-local addresses are always
    /// learned.
    #[arg(long, value_name = "WORD", value_parser = parse::learning)]
    pub addresses: Option<Word>,
    /// The same of IPv4 alone.
    #[arg(long, value_name = "WORD", value_parser = parse::learning)]
    pub addresses_v4: Option<Word>,
    /// The same of IPv6 alone.
    #[arg(long, value_name = "WORD", value_parser = parse::learning)]
    pub addresses_v6: Option<Word>,
}

impl LearningArgs {
    /// The word for each family, where there is one.
    fn words(&self) -> (Option<Word>, Option<Word>) {
        (self.addresses_v4.or(self.addresses), self.addresses_v6.or(self.addresses))
    }

    /// All that is said.
    pub fn all(&self) -> v1::Learning {
        let raw = |w: Option<Word>| w.and_then(|w| w.0).map(|l| l.room().into());
        let (v4, v6) = self.words();
        v1::Learning { v4: raw(v4), v6: raw(v6) }
    }

    /// What is to change; `None`: nothing.
    pub fn change(&self) -> Option<v1::LearningChange> {
        let raw = |w: Option<Word>| w.map(|w| v1::LearningWord { room: w.0.map(|l| l.room().into()) });
        let (v4, v6) = self.words();
        (v4.is_some() || v6.is_some()).then(|| v1::LearningChange { v4: raw(v4), v6: raw(v6) })
    }
}

/// What a VM may have.
#[derive(Args, Clone, Default, Debug)]
pub struct AllowedArgs {
    /// An address, or a prefix of some, that it shares with other VMs, each of which names it: who announces one last
    /// has it (VRRP, keepalived, MetalLB in layer 2 mode, failover by gratuitous ARP); may be repeated, or several with
    /// commas.
    #[arg(long = "virtual", value_name = "PREFIX", value_parser = parse::prefix, value_delimiter = ',')]
    pub virtual_ips: Vec<Prefix>,
    /// A MAC address that it shares with other VMs: who speaks from it last has it (VRRP's own, 00:00:5e:00:01:xx and
    /// 00:00:5e:00:02:xx, as keepalived's `use_vmac`).
    #[arg(long = "virtual-mac", value_name = "MAC", value_parser = parse::vm_mac, value_delimiter = ',')]
    pub virtual_macs: Vec<Mac>,
    /// A prefix that it routes for and may send from: pods of a Kubernetes node, networks behind a VPN gateway. Others
    /// reach it by a route via this VM.
    #[arg(long = "route", value_name = "PREFIX", value_parser = parse::prefix, value_delimiter = ',')]
    pub routes: Vec<Prefix>,
    /// The MAC address of a VM or container within it, on a bridge, macvlan or nested hypervisor; its frames are this
    /// VM's own, and move along.
    #[arg(long, value_name = "MAC", value_parser = parse::vm_mac, value_delimiter = ',')]
    pub nested: Vec<Mac>,
}

impl AllowedArgs {
    /// As a definition has it.
    pub fn allowed(&self, learning: &LearningArgs) -> Option<v1::Allowed> {
        let allowed = v1::Allowed {
            learning: Some(learning.all()).filter(|l| *l != v1::Learning::default()),
            virtual_ips: texts(&self.virtual_ips),
            virtual_macs: raw(&self.virtual_macs),
            routes: texts(&self.routes),
            nested: raw(&self.nested),
        };
        (allowed != v1::Allowed::default()).then_some(allowed)
    }
}

fn texts(prefixes: &[Prefix]) -> Vec<String> {
    prefixes.iter().map(Prefix::to_string).collect()
}

fn raw(macs: &[Mac]) -> Vec<u64> {
    macs.iter().map(|m| m.to_u64()).collect()
}

/// Of what `vm set` takes one at least.
const CHANGES: [&str; 19] = [
    "ipv4",
    "ipv6",
    "router",
    "addresses",
    "addresses_v4",
    "addresses_v6",
    "virtual_ips",
    "virtual_macs",
    "routes",
    "nested",
    "policy",
    "no_ipv4",
    "no_ipv6",
    "no_router",
    "no_virtual",
    "no_virtual_mac",
    "no_route",
    "no_nested",
    "no_policy",
];

/// Arguments of `vm set`.
#[derive(Args, Clone, Debug)]
#[command(
    group = ArgGroup::new("change").required(true).multiple(true).args(CHANGES),
    after_help = "\
Examples:
  a virtual address of keepalived, VRRP or MetalLB, at each of the VMs that share it:
    godwitctl vm set lb1 --virtual 10.0.0.200
    godwitctl vm set lb1 --virtual-mac 00:00:5e:00:01:33   (keepalived with use_vmac)
  addresses that the VM binds by itself (DHCP, privacy addresses):
    godwitctl vm set web1 --addresses learned=16
  VMs or containers within it, and networks behind it:
    godwitctl vm set node1 --nested 02:00:00:00:01:01 --route 10.244.1.0/24
  a router or NAT gateway, which sends from addresses that are nobody's:
    godwitctl vm set gw --router

It changes what is named, while the VM runs; `vm define` says all at once."
)]
pub struct SetArgs {
    /// The VM.
    #[arg(value_parser = parse::name)]
    pub name: String,
    /// One more IPv4 address of it; may be repeated, or several with commas, as all of these.
    #[arg(long, value_name = "IP", value_parser = parse::ipv4, value_delimiter = ',')]
    ipv4: Vec<Ipv4Addr>,
    /// One more IPv6 address of it.
    #[arg(long, value_name = "IP", value_parser = parse::ipv6, value_delimiter = ',')]
    ipv6: Vec<Ipv6Addr>,
    /// It is a router: it may send from any address that is no other VM's of the VN, and send router advertisements,
    /// redirects and answers of DHCP.
    #[arg(long, conflicts_with = "no_router")]
    router: bool,
    #[command(flatten)]
    learning: LearningArgs,
    #[command(flatten)]
    more: AllowedArgs,
    /// What it may send and receive; `godwitctl policy define` makes one.
    #[arg(long, value_name = "NAME", value_parser = parse::name, conflicts_with = "no_policy")]
    pub policy: Option<String>,
    /// This IPv4 address is its no more.
    #[arg(long, value_name = "IP", value_parser = parse::ipv4, value_delimiter = ',')]
    no_ipv4: Vec<Ipv4Addr>,
    /// This IPv6 address is its no more.
    #[arg(long, value_name = "IP", value_parser = parse::ipv6, value_delimiter = ',')]
    no_ipv6: Vec<Ipv6Addr>,
    /// It is no router by your word; its own advertisements decide.
    #[arg(long)]
    no_router: bool,
    /// It does not share this any more.
    #[arg(long, value_name = "PREFIX", value_parser = parse::prefix, value_delimiter = ',')]
    no_virtual: Vec<Prefix>,
    /// It does not share this any more.
    #[arg(long, value_name = "MAC", value_parser = parse::vm_mac, value_delimiter = ',')]
    no_virtual_mac: Vec<Mac>,
    /// It does not route for this any more.
    #[arg(long, value_name = "PREFIX", value_parser = parse::prefix, value_delimiter = ',')]
    no_route: Vec<Prefix>,
    /// That VM is not within it any more.
    #[arg(long, value_name = "MAC", value_parser = parse::vm_mac, value_delimiter = ',')]
    no_nested: Vec<Mac>,
    /// It has no policy any more.
    #[arg(long)]
    no_policy: bool,
}

impl SetArgs {
    /// As the protocol says it.
    pub fn request(&self) -> v1::SetVmRequest {
        let (router, policy) = (self.router || self.no_router, self.policy.is_some() || self.no_policy);
        let add = v1::VmAddresses {
            ipv4: self.ipv4.iter().map(|ip| ip.octets().to_vec()).collect(),
            ipv6: self.ipv6.iter().map(|ip| ip.octets().to_vec()).collect(),
            virtual_ips: texts(&self.more.virtual_ips),
            virtual_macs: raw(&self.more.virtual_macs),
            routes: texts(&self.more.routes),
            nested: raw(&self.more.nested),
        };
        let remove = v1::VmAddresses {
            ipv4: self.no_ipv4.iter().map(|ip| ip.octets().to_vec()).collect(),
            ipv6: self.no_ipv6.iter().map(|ip| ip.octets().to_vec()).collect(),
            virtual_ips: texts(&self.no_virtual),
            virtual_macs: raw(&self.no_virtual_mac),
            routes: texts(&self.no_route),
            nested: raw(&self.no_nested),
        };
        let some = |a: v1::VmAddresses| (a != v1::VmAddresses::default()).then_some(a);
        v1::SetVmRequest {
            name: self.name.clone(),
            router: router.then_some(self.router),
            policy: policy.then(|| self.policy.clone().unwrap_or_default()),
            learning: self.learning.change(),
            remove: some(remove),
            add: some(add),
        }
    }
}

/// Whose word binds addresses, for output; null: not said.
#[derive(Serialize, Clone, Debug)]
pub struct LearningView {
    /// recorded, or learned=N.
    pub ipv4: Option<String>,
    /// recorded, or learned=N.
    pub ipv6: Option<String>,
}

impl From<Option<&v1::Learning>> for LearningView {
    fn from(l: Option<&v1::Learning>) -> LearningView {
        let word = |n: u32| if n == 0 { "recorded".to_owned() } else { format!("learned={n}") };
        let l = l.copied().unwrap_or_default();
        LearningView { ipv4: l.v4.map(word), ipv6: l.v6.map(word) }
    }
}

impl LearningView {
    /// One word where both families have the same.
    pub fn words(&self) -> String {
        match (&self.ipv4, &self.ipv6) {
            (None, None) => "default".into(),
            (Some(a), Some(b)) if a == b => a.clone(),
            (a, b) => {
                let word = |l: &Option<String>| l.clone().unwrap_or_else(|| "default".into());
                format!("IPv4 {}, IPv6 {}", word(a), word(b))
            }
        }
    }
}

/// What a VM may have, for output.
#[derive(Serialize, Clone, Debug)]
pub struct AllowedView {
    /// Whose word binds addresses.
    pub addresses: LearningView,
    /// Prefixes that it shares.
    pub r#virtual: Vec<String>,
    /// MACs that it shares.
    pub virtual_macs: Vec<String>,
    /// Prefixes that it routes for.
    pub routes: Vec<String>,
    /// MACs of VMs within it.
    pub nested: Vec<String>,
}

impl From<v1::Allowed> for AllowedView {
    fn from(a: v1::Allowed) -> AllowedView {
        AllowedView {
            addresses: a.learning.as_ref().into(),
            r#virtual: a.virtual_ips,
            virtual_macs: a.virtual_macs.iter().map(|m| text::mac(*m)).collect(),
            routes: a.routes,
            nested: a.nested.iter().map(|m| text::mac(*m)).collect(),
        }
    }
}

impl AllowedView {
    /// How many there are of each, in words.
    pub fn counts(&self) -> impl Iterator<Item = String> + '_ {
        let shared = self.r#virtual.len() + self.virtual_macs.len();
        let counts = [("virtual", shared), ("routes", self.routes.len()), ("nested", self.nested.len())];
        let learning = self.addresses.words();
        let learning = (learning != "default").then_some(learning);
        let counts = counts.into_iter().filter(|c| c.1 > 0).map(|(what, n)| format!("{what} ({n})"));
        counts.chain(learning)
    }
}

/// An address that a VM has by its own word, for output.
#[derive(Serialize, Clone, Debug)]
pub struct BoundView {
    /// The address.
    pub ip: String,
    /// The MAC that answers for it.
    pub mac: String,
    /// learned or virtual.
    pub kind: &'static str,
}

impl From<v1::BoundIp> for BoundView {
    fn from(b: v1::BoundIp) -> BoundView {
        let kind = if b.is_virtual { "virtual" } else { "learned" };
        BoundView { ip: text::ip(&b.ip), mac: text::mac(b.mac), kind }
    }
}

/// Who has something that the VM shares, for output.
#[derive(Serialize, Clone, Debug)]
pub struct OwnerView {
    /// The address or the MAC.
    pub address: String,
    /// The VM that has it.
    pub vm: String,
}

impl From<v1::SharedOwner> for OwnerView {
    fn from(o: v1::SharedOwner) -> OwnerView {
        let address = if o.ip.is_empty() { text::mac(o.mac) } else { text::ip(&o.ip) };
        OwnerView { address, vm: o.vm }
    }
}

/// Bound addresses in a cell or a line: those of the VM's own MAC alone, others with theirs.
pub fn bound_text(bound: &[BoundView], own: &str, kind: &str) -> String {
    let of = bound.iter().filter(|b| b.kind == kind);
    let one = |b: &BoundView| if b.mac == own { b.ip.clone() } else { format!("{} ({})", b.ip, b.mac) };
    of.map(one).collect::<Vec<_>>().join(" ")
}

//! Alarms on what a VM sends from and may not: what was seen, and the command that would allow it (R65, R92 to R94).

use std::net::IpAddr;

use godwit_model::{LEARNED_MAX, VmKey};
use godwit_tables::event::Refused;
use godwit_tables::update::PortIdx;
use godwit_wire::Mac;

use crate::io::Outputs;

use super::{Nve, PortKind};

/// Beginnings of the MACs of VRRP (RFC 9568 section 7.3).
const VRRP: [[u8; 5]; 2] = [[0, 0, 0x5e, 0, 1], [0, 0, 0x5e, 0, 2]];

/// Why a source is refused, after "from <source>, ".
pub(super) fn words(why: Refused) -> &'static str {
    match why {
        Refused::Mac => "a MAC that is not its own",
        Refused::Address => "an address that is not its own",
        Refused::Full => "an address more than it may bind by its own word",
        Refused::Taken => "an address that another VM has",
        Refused::NotAnnounced => "a virtual address that it has not announced",
    }
}

fn is_vrrp(mac: Mac) -> bool {
    VRRP.iter().any(|head| mac.0.starts_with(head))
}

impl Nve {
    /// A worker dropped frames; it bounds how often it says so.
    pub(super) fn refused(
        &mut self,
        port: PortIdx,
        mac: Mac,
        ip: Option<IpAddr>,
        why: Refused,
        out: &mut Outputs,
    ) {
        let Some(PortKind::Access(key)) = self.ports.get(&port).map(|p| p.kind) else { return };
        let allow = self.what_allows(key, mac, ip, why);
        self.refusal(port, mac, ip, words(why), &allow, out);
    }

    /// Notes a refused source, and tells of it where that is news.
    pub(super) fn refusal(
        &mut self,
        port: PortIdx,
        mac: Mac,
        ip: Option<IpAddr>,
        why: &str,
        allow: &str,
        out: &mut Outputs,
    ) {
        let Some(p) = self.ports.get(&port) else { return };
        let PortKind::Access(key) = p.kind else { return };
        let Some(times) = self.refusals.note(self.now, port, (mac, ip), why, allow) else { return };
        let source = match ip {
            Some(ip) if mac == key.mac => ip.to_string(),
            Some(ip) => format!("{ip} (MAC {mac})"),
            None => mac.to_string(),
        };
        let often = if times > 1 { format!(", {times} times by now") } else { String::new() };
        let text = format!(
            "port {}: {} sends from {source}, {why}: dropped{often}; {allow}",
            p.name,
            self.called(key)
        );
        self.alarm(text, out);
    }

    /// A VM as people know it.
    fn called(&self, key: VmKey) -> String {
        match self.mirror.record(key).map(|r| r.name.as_str()).filter(|n| !n.is_empty()) {
            Some(name) => format!("VM {name} ({key})"),
            None => format!("VM {key}"),
        }
    }

    /// What an operator may do where that is meant to be.
    fn what_allows(&self, key: VmKey, mac: Mac, ip: Option<IpAddr>, why: Refused) -> String {
        let Some(r) = self.mirror.record(key).filter(|r| !r.name.is_empty()) else {
            return String::from("`godwitctl vm define` with what it has allows it");
        };
        let set = format!("`godwitctl vm set {}", r.name);
        match (why, ip) {
            (Refused::Mac, _) | (_, None) if is_vrrp(mac) => {
                format!("{set} --virtual-mac {mac}` allows it (VRRP, keepalived with use_vmac)")
            }
            (Refused::Mac, _) | (_, None) => {
                format!("{set} --nested {mac}` allows it (a VM, container or bridge within it)")
            }
            (Refused::Address, Some(ip)) => {
                let (family, bits) = if ip.is_ipv4() { ("v4", 32) } else { ("v6", 128) };
                format!(
                    "{set} --addresses-{family} learned` lets it bind addresses by its own word (DHCP, privacy \
                     addresses), `--virtual {ip}/{bits}` shares this one with other VMs (keepalived, MetalLB), \
                     `--route PREFIX` or `--router` lets it forward for others"
                )
            }
            (Refused::Full, Some(ip)) => {
                let family = if ip.is_ipv4() { "v4" } else { "v6" };
                format!("{set} --addresses-{family} learned={LEARNED_MAX}` allows as many as there may be")
            }
            (Refused::Taken, Some(ip)) => match self.owner_named(key, ip) {
                Some(owner) => format!("it is {owner}'s; only one of them may use it"),
                None => String::from("only one VM may use it"),
            },
            (Refused::NotAnnounced, Some(_)) => String::from(
                "the VM that announces it last has it, by gratuitous ARP or neighbor advertisement",
            ),
        }
    }

    fn owner_named(&self, key: VmKey, ip: IpAddr) -> Option<String> {
        let owner = self.mirror.owners(key.vni, ip).into_iter().find(|r| r.key != key)?;
        Some(self.called(owner.key))
    }
}

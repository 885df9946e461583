//! What a host of the lab has said, and how it sees a VM or a port.

use std::net::IpAddr;

use godwit_control::Level;
use godwit_model::message::NveToNva;
use godwit_model::{ClaimCause, Version, VmRecord};
use godwit_tables::update::{Admission, PortIdx, PortRole, VmState};

use super::{Lab, location, locator, vm};

pub const A: usize = 0;
pub const B: usize = 1;
pub const C: usize = 2;

pub fn admission(lab: &Lab, i: usize, port: PortIdx) -> Option<Admission> {
    match lab.hosts[i].tables.ports.get(&port)? {
        PortRole::Access { admission, .. } => Some(*admission),
        _ => None,
    }
}

pub fn claims(lab: &Lab, i: usize) -> Vec<(u64, ClaimCause, Vec<IpAddr>)> {
    let claim = |m: &NveToNva| match m {
        NveToNva::Claim { seq, cause, ips, .. } => Some((*seq, *cause, ips.clone())),
        _ => None,
    };
    lab.hosts[i].said.iter().filter_map(claim).collect()
}

pub fn queries(lab: &Lab, i: usize) -> Vec<u64> {
    let seq = |m: &NveToNva| if let NveToNva::Query { seq, .. } = m { Some(*seq) } else { None };
    lab.hosts[i].said.iter().filter_map(seq).collect()
}

pub fn withdrawals(lab: &Lab, i: usize) -> Vec<Version> {
    let version =
        |m: &NveToNva| if let NveToNva::Withdraw { version, .. } = m { Some(*version) } else { None };
    lab.hosts[i].said.iter().filter_map(version).collect()
}

pub fn warned(lab: &Lab, i: usize, what: &str) -> bool {
    lab.hosts[i].notes.iter().any(|n| n.level >= Level::Warn && n.text.contains(what))
}

pub fn is_remote_to(lab: &Lab, i: usize, n: u8, to: usize) -> bool {
    matches!(lab.hosts[i].state(n), Some(VmState::Remote { .. }))
        && lab.hosts[i].tunnel_ip(n) == Some(locator(to))
}

pub fn other_record(lab: &Lab, n: u8, at: usize, version: Version) -> VmRecord {
    VmRecord { bindings: Some(location(at)).into(), version, ..lab.nva.records[&vm(n)].clone() }
}

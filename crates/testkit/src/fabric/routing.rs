//! Routing domains: their orders, what a routed frame looks like, and VMs that are gone (R58).

use std::net::{IpAddr, Ipv6Addr};

use godwit_model::{DomainId, GATEWAY_MAC, Subnet, VnRouting};
use godwit_nva::Order;
use godwit_pipeline::mem::MemPacket;
use godwit_pipeline::packet::Packet as _;
use godwit_tables::update::{DomainIdx, PortIdx, Update};
use godwit_wire::route::decrement_ttl;
use godwit_wire::{Mac, Span};

use super::invariants::Invariant;
use super::names::{self, Tag};
use super::schedule::{RoutingPlan, Sabotage, Schedule};
use super::world::World;
use crate::frames;

/// A VM whose port is gone is given up by its switch, the directory and all others after so long.
const GONE: Span = Span::from_ms(60_000);

impl Schedule {
    /// A frame from one VN to a VM of the other goes by way of the gateway.
    pub fn is_routed(&self, from: usize, to: usize) -> bool {
        self.routing.as_ref().is_some_and(|plan| plan.is_routed(from, to))
    }

    /// VMs of the two VNs may reach each other.
    pub fn joins(&self, a: usize, b: usize) -> bool {
        let domain = |vn: usize| self.routing.as_ref().and_then(|plan| plan.domain(vn));
        a == b || domain(a).is_some() && domain(a) == domain(b)
    }

    /// VMs of the VN are not bridged: the gateway answers for each of them.
    pub fn is_routed_only(&self, vn: usize) -> bool {
        self.routing.as_ref().is_some_and(|plan| plan.is_routed_only(vn))
    }
}

/// Name of a domain.
pub(super) fn domain(number: usize) -> String {
    format!("domain{number}")
}

/// The part of a VN in its domain, by the directory's number.
pub(super) fn part(plan: &RoutingPlan, vn: usize, domain: DomainId) -> VnRouting {
    let first = names::first_number(plan, vn);
    let subnet = |v6: bool| {
        let (net, gateway) = (names::subnet(first, v6), names::gateway(first, v6));
        Subnet { prefix: net, gateway, advertise: None, dhcp: None }
    };
    VnRouting { domain, routed_only: plan.is_routed_only(vn), subnets: vec![subnet(false), subnet(true)] }
}

/// Routes by way of VMs.
pub(super) fn routes(plan: &Schedule) -> Vec<Order> {
    let routers = plan.routing.iter().flat_map(|r| r.routers.iter().enumerate());
    let both = routers.flat_map(|(number, vm)| [false, true].map(|v6| (number, *vm, v6)));
    let order = |(number, vm, v6): (usize, usize, bool)| {
        let vm = &plan.vms[vm];
        let (prefix, via) = (names::routed(vm.number, v6), names::vm_name(vm.vn, vm.number));
        Order::AddRoute { domain: domain(number), prefix, via }
    };
    both.map(order).collect()
}

/// What a frame is after the gateway has sent it on.
pub(super) fn after_gateway(sent: &[u8], to: Mac) -> Vec<u8> {
    let mut frame = sent.to_vec();
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&GATEWAY_MAC.0);
    match frame[12..14] {
        [8, 0] => {
            frame[22] -= 1;
            frame[24..26].fill(0);
            let sum = frames::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        _ => frame[21] -= 1,
    }
    frame
}

/// TTL or hop limit.
pub(super) fn hops(frame: &[u8]) -> Option<u8> {
    match frame.get(12..14)? {
        [8, 0] => frame.get(22).copied(),
        [0x86, 0xdd] => frame.get(21).copied(),
        _ => None,
    }
}

/// What broken switches make of an update.
pub(super) fn broken(by: Sabotage, update: Update) -> Option<Update> {
    let one = DomainIdx(0);
    match (by, update) {
        (Sabotage::OneDomain, Update::DomainSet { v4, v6, .. }) => {
            Some(Update::DomainSet { domain: one, v4, v6 })
        }
        (Sabotage::OneDomain, Update::RouteSet { prefix, to, .. }) => {
            Some(Update::RouteSet { domain: one, prefix, to })
        }
        (Sabotage::OneDomain, Update::VnRoutingSet { vn, routing: Some(mut routing) }) => {
            routing.domain = one;
            Some(Update::VnRoutingSet { vn, routing: Some(routing) })
        }
        (Sabotage::OneDomain, Update::RouteRemove { .. } | Update::DomainRemove { .. }) => None,
        (Sabotage::AnswersForGone, Update::NeighborRemove { .. } | Update::RouteRemove { .. }) => None,
        _ => Some(update),
    }
}

impl World {
    /// A switch that routes where frames leave the overlay, too.
    pub fn route_again(&self, packet: &mut MemPacket) {
        let Some((_, inner)) = names::inside_vxlan(packet.data()) else { return };
        let at = packet.data().len() - inner.len();
        if inner.get(6..12) == Some(&GATEWAY_MAC.0) && Tag::of(inner).is_some() {
            let _ = packet.data_mut().get_mut(at + 14..).and_then(decrement_ttl);
        }
    }

    /// The gateway says that an address is at its MAC: its own, or any where nobody is bridged.
    pub fn gateway_tells(&self, vn: usize, ip: IpAddr) -> bool {
        let Some(plan) = self.plan.routing.as_ref().filter(|plan| plan.domain(vn).is_some()) else {
            return false;
        };
        plan.is_routed_only(vn) || ip == names::gateway(names::first_number(plan, vn), ip.is_ipv6())
    }

    /// A switch that has just started knows VMs of a VN before its settings.
    pub fn has_no_routing(&self, host: usize, vm: usize) -> bool {
        let lacks = |w: &super::worker::Worker| {
            w.key(self.guests[vm].key).is_none_or(|key| w.tables.routes.of_vn(key.vn()).is_none())
        };
        self.hosts[host].workers.iter().any(lacks)
    }

    /// When all is over, a VM of a routed VN is gone for good. Then nobody is told that it has its address, and no
    /// frame for it comes to anybody.
    pub fn check_gone(&mut self) {
        let Some(vm) = self.plan.routing.as_ref().map(|_| self.plan.vms.len() - 1) else { return };
        let Some((host, port)) = self.guests[vm].at else { return };
        self.guests[vm].running = false;
        self.guests[vm].at = None;
        self.unplug(host, port);
        self.run_until(self.now + GONE);
        self.guests[vm].gone = true;
        let number = self.guests[vm].number;
        let others = (0..self.guests.len()).filter(|other| self.guests[*other].vn == self.guests[vm].vn);
        let others: Vec<usize> = others.filter(|other| *other != vm).collect();
        for other in others {
            let mac = self.guests[other].key.mac;
            let probe = frames::arp_probe(mac, names::vm_v4(number));
            self.guest_puts(other, 0, MemPacket::new(&probe));
            let probe = frames::Nd::solicit(mac, Ipv6Addr::UNSPECIFIED, names::vm_v6(number)).frame();
            self.guest_puts(other, 0, MemPacket::new(&probe));
        }
        for flow in 0..self.flows.len() {
            if !self.flows[flow].periodic && self.flows[flow].to == Some(vm) {
                self.send_one(flow);
            }
        }
        self.run_until(self.now + Span::from_ms(1000));
    }

    /// An answer to a VM about one that is gone. Where VMs are not bridged the gateway answers all, but for those who
    /// probe whether an address is taken: by ARP from nobody, or by ND with an answer for everybody.
    pub fn check_ghost(&mut self, at: (usize, PortIdx), vm: usize, frame: &[u8]) {
        let Some((ip, mac, to_all)) = names::told_of(frame) else { return };
        let vn = self.guests[vm].vn;
        let of = self.guests.iter().find(|g| g.gone && g.vn == vn);
        let gone = of.is_some_and(|g| names::number_of(ip) == Some(g.number));
        let probed = to_all || ip.is_ipv4() && frame.get(38..42) == Some(&[0; 4]);
        if gone && (probed || !self.plan.is_routed_only(vn)) {
            let text = format!("n{} told vm {vm} that {ip}, which is gone, has {mac}", at.0);
            self.fail(Invariant::Ghost, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r58_a_routed_frame_has_another_ethernet_header_and_one_hop_less() {
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        for (from, to) in [("10.0.0.17", "10.0.0.33"), ("fd00::11", "fd00::21")] {
            let ends: [IpAddr; 2] = [from.parse().unwrap(), to.parse().unwrap()];
            let sent = names::data_frame(3, (a, ends[0]), Some((GATEWAY_MAC, ends[1])));
            let came = after_gateway(&sent, b);
            assert_eq!(hops(&came), hops(&sent).map(|hops| hops - 1));
            assert_eq!((&came[..6], &came[6..12]), (&b.0[..], &GATEWAY_MAC.0[..]));
            let mut real = sent.clone();
            decrement_ttl(&mut real[14..]).unwrap();
            assert_eq!(came[14..], real[14..], "{from}");
        }
    }
}

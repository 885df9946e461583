//! What VMs ask of their gateway and control answers: router advertisements and DHCP (R58).
//!
//! Answers go to the port that asked and to no other; [`crate::gateway`] makes them.

use std::collections::BTreeMap;

use godwit_model::{VmKey, VnRouting};
use godwit_tables::update::PortIdx;
use godwit_wire::{Bucket, Mac, Rate, Span, Vni};

use crate::gateway::{self, Advertisement, Advertiser, Asked, Client, Outcome, Question};
use crate::io::{Level, Outputs};

use super::{Nve, PortKind, Timer};

/// Advertisements that a host gets alone, because it asked from an address of its own.
const SOLICITED: Rate = Rate::every(Span::from_ms(500), 4);
/// Messages of DHCP clients behind a port.
const DHCP: Rate = Rate::per_second(10, 20);
/// Log lines on VMs without a recorded address, of all ports together.
const NOTES: Rate = Rate::every(Span::from_ms(60_000), 4);

/// Who asks: the VM's own interface, or one within it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    Yes,
    No,
}

/// What the gateway keeps.
#[derive(Default, Debug)]
pub(super) struct Services {
    ports: BTreeMap<PortIdx, PortServices>,
    notes: Bucket,
}

/// What it keeps of a port.
#[derive(Default, Debug)]
struct PortServices {
    solicited: Bucket,
    dhcp: Bucket,
    advertiser: Option<Advertiser>,
}

impl Nve {
    // ---- What is known ----

    /// What the VN is in its routing domain, and the gateway's MAC there.
    fn routing_of(&self, vni: Vni) -> Option<(&VnRouting, Mac)> {
        let routing = self.mirror.settings(vni).routing.as_ref()?;
        let known = self.mirror.domains.get(routing.domain)?;
        Some((routing, known.domain.gateway_mac))
    }

    fn advertisement(&self, vni: Vni) -> Option<Advertisement> {
        let (routing, gateway) = self.routing_of(vni)?;
        Advertisement::of(routing, gateway, self.tenant_mtu(self.mirror.settings(vni).mtu))
    }

    // ---- What VMs ask ----

    /// A worker punted a VM's frame.
    pub(super) fn punted(&mut self, port: PortIdx, frame: &[u8], out: &mut Outputs) {
        let Some(PortKind::Access(key)) = self.ports.get(&port).map(|p| p.kind) else { return };
        if self.membership_heard(key.vni, port, frame, out) {
            return;
        }
        let question = Question::of(frame).filter(|q| self.is_vms(key, q.mac));
        let Some(Question { mac, asked }) = question else {
            self.counts.gateway_ignored += 1;
            return;
        };
        match asked {
            Asked::Router { src } => self.solicited(port, key, (mac, src), out),
            Asked::Dhcp4(message) => {
                self.dhcp(port, key, Own::Yes, |client| gateway::dhcp4(client, message), out);
            }
            Asked::Dhcp6 { src, dst, message } => {
                // The record's addresses are those of the VM's own interface.
                let own = if mac == key.mac { Own::Yes } else { Own::No };
                self.dhcp(port, key, own, |client| gateway::dhcp6(client, mac, (src, dst), message), out);
            }
            // Of a kind that is nothing to groups (R61).
            Asked::Membership => self.counts.gateway_ignored += 1,
        }
    }

    /// The VM sends from this MAC.
    fn is_vms(&self, key: VmKey, mac: Mac) -> bool {
        mac == key.mac || self.mirror.record(key).is_some_and(|r| r.macs().any(|its| its == mac))
    }

    fn solicited(&mut self, port: PortIdx, key: VmKey, from: (Mac, std::net::Ipv6Addr), out: &mut Outputs) {
        let Some(says) = self.advertisement(key.vni) else {
            self.counts.gateway_ignored += 1;
            return;
        };
        let now = self.now;
        let services = self.services.ports.entry(port).or_default();
        match &mut services.advertiser {
            // It cannot be answered alone.
            Some(advertiser) if from.1.is_unspecified() => {
                advertiser.hasten(now);
                let due = advertiser.due();
                self.timers.set(Timer::Advertise(port), Some(due));
            }
            _ if services.solicited.take(SOLICITED, now) => {
                let (mac, ip) = from;
                let frame = if ip.is_unspecified() { says.to_all() } else { says.to_host(mac, ip) };
                self.counts.ra_sent += 1;
                out.frames.push((port, frame));
            }
            _ => self.counts.ra_limited += 1,
        }
    }

    fn dhcp(
        &mut self,
        port: PortIdx,
        key: VmKey,
        own: Own,
        answer: impl FnOnce(&Client<'_>) -> Outcome,
        out: &mut Outputs,
    ) {
        let now = self.now;
        if !self.services.ports.entry(port).or_default().dhcp.take(DHCP, now) {
            self.counts.dhcp_limited += 1;
            return;
        }
        let Some((routing, gateway)) = self.routing_of(key.vni) else {
            self.counts.gateway_ignored += 1;
            return;
        };
        let record = self.mirror.record(key).filter(|_| own == Own::Yes);
        let recorded = record.into_iter().flat_map(godwit_model::VmRecord::ips).collect();
        let mtu = self.tenant_mtu(self.mirror.settings(key.vni).mtu);
        let outcome = answer(&Client { key, recorded, subnets: &routing.subnets, gateway, mtu });
        self.answered(port, key, outcome, out);
    }

    fn answered(&mut self, port: PortIdx, key: VmKey, outcome: Outcome, out: &mut Outputs) {
        let frame = match outcome {
            Outcome::Answer(frame) => {
                self.counts.dhcp_answered += 1;
                Some(frame)
            }
            Outcome::Unrecorded => {
                self.counts.dhcp_unrecorded += 1;
                if self.services.notes.take(NOTES, self.now) {
                    let text = format!(
                        "{key} asks for an address by DHCP and has none in its record: no answer; \
                        `godwitctl vm set` records one"
                    );
                    out.note(Level::Warn, text);
                }
                None
            }
            Outcome::Refused => {
                self.counts.dhcp_refused += 1;
                None
            }
            Outcome::Released(frame) => {
                self.counts.dhcp_released += 1;
                frame
            }
            Outcome::Declined(ip, frame) => {
                self.counts.dhcp_declined += 1;
                if self.services.notes.take(NOTES, self.now) {
                    let text = format!(
                        "{key} declines its address {ip}: it has found another host that uses it; look for \
                        that host, or record another address"
                    );
                    self.alarm(text, out);
                }
                frame
            }
        };
        out.frames.extend(frame.map(|f| (port, f)));
    }

    // ---- What the gateway says by itself ----

    /// What is advertised in the VN may have changed.
    pub(super) fn follow_advertisers(&mut self, vni: Vni) {
        if self.services.ports.is_empty() && self.routing_of(vni).is_none() {
            return;
        }
        let keys: Vec<VmKey> = self.vms_of(vni).map(|(key, _)| *key).collect();
        for key in keys {
            self.follow_advertiser(key);
        }
    }

    /// The VM came or left, or what is advertised in its VN may have changed.
    pub(super) fn follow_advertiser(&mut self, key: VmKey) {
        let says = self.advertisement(key.vni);
        if says.is_none() && self.services.ports.is_empty() {
            return;
        }
        let Some(vm) = self.vms.get(&key) else { return };
        let runs_on = vm.phase.running_on();
        let ports: Vec<PortIdx> = vm.ports.keys().copied().collect();
        for port in ports {
            match &says {
                _ if runs_on != Some(port) => self.forget_advertiser(port),
                Some(says) => self.advertise(port, key, says.clone()),
                None => self.withdraw_advertisements(port),
            }
        }
    }

    fn forget_advertiser(&mut self, port: PortIdx) {
        if let Some(services) = self.services.ports.get_mut(&port) {
            services.advertiser = None;
            self.timers.set(Timer::Advertise(port), None);
        }
    }

    fn advertise(&mut self, port: PortIdx, key: VmKey, says: Advertisement) {
        let (now, seed) = (self.now, self.own_number(key));
        let services = self.services.ports.entry(port).or_default();
        match &mut services.advertiser {
            Some(advertiser) => advertiser.change(says, now),
            none => *none = Some(Advertiser::new(says, seed, now)),
        }
        let due = services.advertiser.as_ref().map(Advertiser::due);
        self.timers.set(Timer::Advertise(port), due);
    }

    fn withdraw_advertisements(&mut self, port: PortIdx) {
        let now = self.now;
        let Some(services) = self.services.ports.get_mut(&port) else { return };
        let Some(advertiser) = &mut services.advertiser else { return };
        advertiser.end(now);
        let due = advertiser.due();
        self.timers.set(Timer::Advertise(port), Some(due));
    }

    /// An advertisement is due.
    pub(super) fn advertise_due(&mut self, port: PortIdx, out: &mut Outputs) {
        let now = self.now;
        let Some(services) = self.services.ports.get_mut(&port) else { return };
        let Some(advertiser) = &mut services.advertiser else { return };
        let frames = advertiser.take(now);
        let due = (!advertiser.is_over()).then_some(advertiser.due());
        if due.is_none() {
            services.advertiser = None;
        }
        self.timers.set(Timer::Advertise(port), due);
        self.counts.ra_sent += frames.len() as u64;
        out.frames.extend(frames.into_iter().map(|frame| (port, frame)));
    }

    /// The port is gone.
    pub(super) fn forget_services(&mut self, port: PortIdx) {
        self.services.ports.remove(&port);
        self.timers.set(Timer::Advertise(port), None);
    }
}

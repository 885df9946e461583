//! A VM without a disk asks for its own IPv4 address (R27).
//!
//! On the wire its request is what a hypervisor sends to announce a VM (R26), so that it is answered only where
//! the VN says so, beside the claim that it makes. The address is the directory's; none is ever made up.

use std::net::Ipv4Addr;

use godwit_model::{Gateway, VmKey};
use godwit_tables::update::PortIdx;
use godwit_wire::arp::{self, ArpRepr};
use godwit_wire::{Mac, Rate, Span};

use crate::io::{Level, Outputs};
use crate::queries::Asked;

use super::{Nve, PortKind};

/// So long a request waits for the directory; the VM asks again.
const PATIENCE: Span = Span::from_ms(500);
/// Replies of this NVE, to all VMs together.
const REPLIES: Rate = Rate::per_second(100, 50);

impl Nve {
    /// The VM on a port asked, or its hypervisor announced it.
    pub(super) fn rarp_asked(&mut self, key: VmKey, port: PortIdx, out: &mut Outputs) {
        // One that has a record and runs nowhere is absent for those who send to it, and may ask all the same.
        let recorded = self.mirror.record(key).is_some();
        if !recorded && self.mirror.absent(key).is_some_and(|until| until > self.now) {
            return;
        }
        self.rarp.insert(key, (port, self.now + PATIENCE));
        if !recorded && self.mirror.settings(key.vni).rarp {
            self.ask(Asked::Mac(key.vni, key.mac));
        }
        self.rarp_known(key, out);
    }

    /// The directory spoke on the VM or on its VN: a request that waits may have its answer.
    pub(super) fn rarp_known(&mut self, key: VmKey, out: &mut Outputs) {
        let Some((port, until)) = self.rarp.get(&key).copied() else { return };
        let there = self.ports.get(&port).is_some_and(|p| p.kind == PortKind::Access(key));
        if until < self.now || !there {
            self.rarp.remove(&key);
            return;
        }
        if !self.mirror.settings(key.vni).rarp {
            return;
        }
        let Some(tpa) = self.mirror.record(key).and_then(|r| r.ipv4.first().copied()) else { return };
        self.rarp.remove(&key);
        if !self.rarp_replies.take(REPLIES, self.now) {
            self.counts.rarp_limited += 1;
            return;
        }
        // Without a router in the VN the switch speaks for itself, which has no address there.
        let nobody = Gateway { mac: Mac::PROBER, ip: Ipv4Addr::UNSPECIFIED };
        let gateway = self.gateway_for(key, tpa).unwrap_or(nobody);
        let (sha, spa) = (gateway.mac, gateway.ip);
        let reply = ArpRepr { op: arp::OP_RARP_REPLY, sha, spa, tha: key.mac, tpa };
        let mut buf = [0; arp::FRAME_LEN];
        if reply.emit_frame(&mut buf, key.mac, sha).is_ok() {
            self.counts.rarp_answered += 1;
            out.note(Level::Info, format!("{key} asked for its address: {tpa}"));
            out.frames.push((port, buf.to_vec()));
        }
    }
}

//! Sealed datagrams between NVEs: how one is sent, and whom a received one concerns (R39, R47, R77). A kind of datagram
//! is added here; its format is in `wire/src/peer.rs`.

use std::net::IpAddr;

use godwit_model::{Locators, NveId, Version, VmKey};
use godwit_wire::peer::{self, Datagram, Kind, Notice};

use crate::io::Outputs;
use crate::seal::Refused;

use super::Nve;

/// Who says something.
#[derive(Clone, Copy, Debug)]
pub(super) enum By<'a> {
    /// The NVE with this locator, by a datagram.
    Locator(IpAddr),
    /// This NVE, by way of the NVA.
    Nve(&'a NveId),
}

impl Nve {
    /// Sends a sealed datagram to a member of the VM's VN; false where there is no key, no way, or no such
    /// member: a stranger's source address may be anybody's.
    pub(super) fn send_notice(
        &mut self,
        kind: Kind,
        key: VmKey,
        remote: IpAddr,
        to: Locators,
        version: Version,
        out: &mut Outputs,
    ) -> bool {
        let members = self.mirror.members(key.vni, &self.config.nve);
        if !self.seals.has_key() || !members.values().any(|l| l.contains(remote)) {
            return false;
        }
        let Some(hop) = self.underlay.hop(remote) else {
            // The next one finds its way.
            let _ = self.tunnel(remote, out);
            return false;
        };
        let version = (version.epoch, version.seq);
        let notice = Notice { kind, vni: key.vni, mac: key.mac, version, v4: to.v4, v6: to.v6 };
        let Some(datagram) = self.seals.seal(hop.src_ip, remote, &notice) else { return false };
        let mut buf = [0; peer::MAX_FRAME_LEN];
        let macs = (hop.src_mac, hop.dst_mac);
        let Ok(n) = peer::emit_frame(&mut buf, macs, (hop.src_ip, remote), &datagram) else { return false };
        out.frames.push((hop.uplink, buf[..n].to_vec()));
        true
    }

    /// A datagram came; what does not open is counted and has no effect.
    pub(super) fn peer_datagram(&mut self, src: IpAddr, dst: IpAddr, datagram: &Datagram, out: &mut Outputs) {
        let notice = match self.seals.open(src, dst, datagram) {
            Ok(notice) => notice,
            Err(why) => {
                let c = &mut self.counts;
                let counter = match why {
                    Refused::UnknownKey => &mut c.notices_unknown_key,
                    Refused::Forged => &mut c.notices_forged,
                    Refused::Replayed => &mut c.notices_replayed,
                    Refused::Nonsense => &mut c.notices_refused,
                };
                *counter += 1;
                return;
            }
        };
        if notice.version.0 > self.session.epoch {
            // No NVA that we know of has given such a version: it would count for ever.
            self.counts.notices_refused += 1;
            return;
        }
        self.counts.notices_opened += 1;
        let key = VmKey { vni: notice.vni, mac: notice.mac };
        let version = Version { epoch: notice.version.0, seq: notice.version.1 };
        let by = By::Locator(src);
        match notice.kind {
            Kind::Redirect => {
                let to = Locators { v4: notice.v4, v6: notice.v6 };
                self.redirected(key, Some(to), version, by, out);
            }
            Kind::NotHere => self.redirected(key, None, version, by, out),
            Kind::Departed => self.departed_elsewhere(key, version, by, out),
            Kind::PathEnd => {
                let sender = Locators { v4: notice.v4, v6: notice.v6 };
                self.path_end(key, sender, version, out);
            }
            Kind::PathEnded => self.path_ended(key, version, out),
            Kind::SentAll => self.with_known_vm(key, out, |vm, cx| vm.all_was_sent(src, cx)),
        }
    }
}

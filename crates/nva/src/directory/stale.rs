//! What the old NVE of a VM has to tell those who may still send to it, where it goes by the NVA: that the VM
//! left (R39), and where a sender should send instead (R47).
//!
//! Both are hints. Nothing is kept and nothing repeated: whoever misses one learns the same by its update.

use std::net::IpAddr;

use godwit_model::message::NvaToNve;
use godwit_model::{Locators, NveId, Version, VmKey};

use super::{Directory, Level, SessionId};

impl Directory {
    /// The key that protects datagrams between NVEs, with the session's own number under it. Numbers are not
    /// given twice, so no two NVEs, and no NVE after a restart, ever use a nonce again.
    pub(super) fn give_channel_key(&mut self, session: SessionId) {
        let Some(secret) = self.config.channel_secret else { return };
        let Some(sender) = self.last_sender.checked_add(1) else { return };
        self.last_sender = sender;
        self.send(session, NvaToNve::ChannelKey { number: self.epoch, sender, secret });
    }

    /// An NVE says that a VM left it: the others of the VN hear of it, if it is the VM's to say (R39).
    pub(super) fn departed(&mut self, session: SessionId, nve: &NveId, key: VmKey, version: Version) {
        let Some(r) = self.vms.get(&key) else { return };
        let owner = r.location.as_ref().is_some_and(|l| l.nve == *nve) && version <= r.version;
        let former = self.former.get(&key).is_some_and(|(n, v)| n == nve && version <= *v);
        if !owner && !former {
            // After a start the NVA does not know who had what before; everybody gets a snapshot anyhow.
            if version.epoch < self.epoch && version < r.version {
                return;
            }
            let text =
                format!("NVE {nve} is not the recorded owner of {key}: its departure is not passed on");
            return self.error(session, text);
        }
        let others: Vec<SessionId> = self.hearers(key).into_iter().filter(|s| *s != session).collect();
        self.log(Level::Debug, format!("NVE {nve} says that {key} left it: {} NVEs are told", others.len()));
        for other in others {
            self.send(other, NvaToNve::Departed { key, version, from: nve.clone() });
        }
    }

    /// An NVE has a stale sender that it cannot tell directly: its NVE is told (R47). What contradicts the
    /// directory is not passed on.
    pub(super) fn redirect(
        &mut self,
        session: SessionId,
        from: NveId,
        key: VmKey,
        to: Option<Locators>,
        version: Version,
        sender: IpAddr,
    ) {
        if to.is_some() && self.vms.get(&key).is_none_or(|r| r.version < version) {
            let text =
                format!("a redirect for {key} names version {version}, which the directory never gave");
            return self.error(session, text);
        }
        let members = self.vns.get(&key.vni).into_iter().flat_map(|vn| &vn.members);
        let stale = members.filter_map(|m| self.nves.get(m)).find(|n| n.record.locators.contains(sender));
        if let Some(other) = stale.and_then(|n| n.session) {
            self.send(other, NvaToNve::Redirect { key, to, version, from });
        }
    }
}

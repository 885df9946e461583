//! A VM that left: its stale senders are told where it is (R47), the other NVEs of its VN that it is gone
//! (R39); and what is made of it when others say so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{Locators, NveId, Version, VmKey};
use godwit_tables::update::Key;
use godwit_wire::peer::Kind;
use godwit_wire::{Bucket, Instant, Rate, Span};

use crate::io::{Level, Outputs};
use crate::mobility::DesiredEntry;
use crate::queries::Asked;
use crate::unconfirmed::Hearsay;

use super::notices::By;
use super::{Nve, Timer};

/// Pairs of VM and sender whose last redirect is remembered.
const MAX_TOLD: usize = 4096;
/// Redirects, whoever they go to.
const REDIRECTS: Rate = Rate::per_second(1000, 200);
/// The questions that a departure leads to spread over this time (R39).
const JITTER_MS: u64 = 50;

/// Who was told what, and when.
#[derive(Default, Debug)]
pub(super) struct Told {
    last: BTreeMap<(VmKey, IpAddr), (Instant, u32)>,
    redirects: Bucket,
}

impl Told {
    /// Whether the sender may be told now; if so, which time in a row this is.
    fn may(&mut self, now: Instant, key: VmKey, sender: IpAddr, interval: Span) -> Option<u32> {
        if !self.redirects.has(REDIRECTS, now) {
            return None;
        }
        let last = self.last.get(&(key, sender)).copied();
        if last.is_some_and(|(t, _)| now.since(t) < interval) {
            return None;
        }
        if last.is_none() && self.last.len() >= MAX_TOLD {
            self.last.retain(|_, (t, _)| now.since(*t) < interval);
            if self.last.len() >= MAX_TOLD {
                return None;
            }
        }
        let recent = |t: Instant| now.since(t).0 < interval.0.saturating_mul(20);
        let times = last.filter(|(t, _)| recent(*t)).map_or(1, |(_, n)| n.saturating_add(1));
        self.last.insert((key, sender), (now, times));
        self.redirects.take(REDIRECTS, now);
        Some(times)
    }
}

/// Where this NVE sends a VM's frames now.
struct Sent {
    nve: Option<NveId>,
    to: Locators,
    version: Version,
}

impl Sent {
    fn goes_to(&self, by: By<'_>, named: Option<Locators>) -> bool {
        match by {
            By::Locator(ip) => self.to.contains(ip),
            By::Nve(nve) => self.nve.as_ref() == Some(nve) || named == Some(self.to),
        }
    }
}

impl Nve {
    // ---- What the old NVE says ----

    /// A sender with an old location is told where the VM is: directly, and by way of the NVA where that
    /// cannot be done or was done in vain.
    pub(super) fn tell_sender(
        &mut self,
        key: VmKey,
        sender: IpAddr,
        to: Option<(Locators, Version)>,
        out: &mut Outputs,
    ) {
        if self.underlay.locators().contains(sender) || to.is_some_and(|(l, _)| l.contains(sender)) {
            return;
        }
        let Some(times) = self.told.may(self.now, key, sender, self.config.redirect_ival) else {
            self.counts.redirects_withheld += 1;
            return;
        };
        let kind = if to.is_some() { Kind::Redirect } else { Kind::NotHere };
        let (locators, version) = to.unwrap_or_default();
        let direct = self.send_notice(kind, key, sender, locators, version, out);
        self.counts.redirects_direct += u64::from(direct);
        if direct && times == 1 {
            return;
        }
        if self.session.is_up() {
            self.counts.redirects_by_nva += 1;
            let to = to.map(|(l, _)| l);
            self.send(NveToNva::Redirect { key, to, version, sender }, out);
        } else if !direct {
            self.counts.redirects_untold += 1;
        }
    }

    /// A frame came for what is not here and has no forward entry (R43 F).
    pub(super) fn not_local(&mut self, worker: usize, at: Key, sender: IpAddr, out: &mut Outputs) {
        // Known, there is nothing to do but to drop; unknown, we learn at least where it is (R42).
        if self.desired.vm(at).is_none() {
            self.miss_mac(worker, at);
        }
        let Some(key) = self.vm_key(at) else { return };
        if self.vms.get(&key).is_some_and(|vm| vm.is_hosted()) {
            return;
        }
        self.seek(Some(key), out);
        let record = self.mirror.record(key).filter(|r| r.version > Version::ZERO);
        let elsewhere = record.and_then(|r| r.active().map(|l| (l, r.version)));
        let elsewhere = elsewhere.filter(|(l, _)| l.nve != self.config.nve);
        let to = elsewhere.map(|(l, version)| (l.locators, version));
        self.tell_sender(key, sender, to, out);
    }

    /// A VM is not here any more (R39).
    pub(super) fn tell_departure(&mut self, key: VmKey, version: Version, out: &mut Outputs) {
        if self.session.is_up() {
            self.counts.departures_by_nva += 1;
            let ips = self.mirror.addresses(key).into_iter().collect();
            return self.send(NveToNva::Departed { key, ips, version }, out);
        }
        let ours = self.underlay.locators();
        for (_, l) in self.mirror.members(key.vni, &self.config.nve) {
            let v4 = l.v4.filter(|_| ours.v4.is_some()).map(IpAddr::V4);
            let remote = l.v6.filter(|_| ours.v6.is_some()).map(IpAddr::V6).or(v4);
            let Some(remote) = remote else { continue };
            let done = self.send_notice(Kind::Departed, key, remote, Locators::default(), version, out);
            self.counts.departures_direct += u64::from(done);
        }
    }

    // ---- What is made of it when others say so ----

    /// Another NVE says that we send to an old location (R47): used at once if our frames do go there and its
    /// word is newer than ours, and asked about.
    pub(super) fn redirected(
        &mut self,
        key: VmKey,
        to: Option<Locators>,
        version: Version,
        by: By<'_>,
        out: &mut Outputs,
    ) {
        let asked = Asked::Mac(key.vni, key.mac);
        if let Some(f) = self.vms.get(&key).and_then(|vm| vm.forward.as_ref()) {
            // We forward to where it has left again: the directory retargets that (R43).
            let sent = Sent { nve: Some(f.to.nve.clone()), to: f.to.locators, version: f.version };
            if self.is_hearsay_news(&sent, key, by) && version > sent.version {
                return self.ask(asked);
            }
        }
        let news = self.sent_to(key).filter(|s| self.is_hearsay_news(s, key, by));
        let Some(sent) = news else {
            self.counts.redirects_late += 1;
            return;
        };
        let ours = self.underlay.locators();
        let is_ours = |l: Locators| {
            l.v4.is_some_and(|a| ours.v4 == Some(a)) || l.v6.is_some_and(|a| ours.v6 == Some(a))
        };
        match to {
            Some(to) if version > sent.version && !to.is_empty() && !is_ours(to) => {
                if !self.unconfirmed.believe(key, Hearsay { to, version }) {
                    self.counts.unconfirmed_dropped += 1;
                    return self.ask(asked);
                }
                self.counts.redirects_used += 1;
                let text = format!("{key} is elsewhere ({version}), says the NVE that we sent to: followed");
                out.note(Level::Info, text);
                self.sync_vm(key, out);
                self.ask(asked);
            }
            Some(_) => self.counts.redirects_late += 1,
            None if self.suspect(key) => self.ask(asked),
            None => {}
        }
    }

    fn is_hearsay_news(&self, sent: &Sent, key: VmKey, by: By<'_>) -> bool {
        let named = match by {
            By::Nve(nve) => self.mirror.locators_of(key.vni, &self.config.nve, nve),
            By::Locator(_) => None,
        };
        sent.goes_to(by, named)
    }

    /// Where frames for the VM go by what we heard or know; `None` where it is here, or nowhere.
    fn sent_to(&self, key: VmKey) -> Option<Sent> {
        let record = self.mirror.record(key);
        if let Some(vm) = self.vms.get(&key)
            && vm.desired_entry(self.now, record, &self.config.nve) != DesiredEntry::Directory
        {
            return None;
        }
        let heard = self.unconfirmed.hearsay(key);
        let known = record.and_then(|r| r.active().map(|l| (l, r.version)));
        let known = known.filter(|(l, _)| l.nve != self.config.nve);
        match (heard, known) {
            (Some(h), known) if known.is_none_or(|(_, v)| h.version > v) => {
                Some(Sent { nve: None, to: h.to, version: h.version })
            }
            (_, Some((l, version))) => Some(Sent { nve: Some(l.nve.clone()), to: l.locators, version }),
            _ => None,
        }
    }

    /// Another NVE says that the VM left it (R39). An entry that is not newer is in doubt: traffic goes on by
    /// it while the directory is asked.
    pub(super) fn departed_elsewhere(&mut self, key: VmKey, version: Version, by: By<'_>, out: &mut Outputs) {
        let Some(sent) = self.sent_to(key).filter(|s| s.version <= version) else { return };
        // What comes by the NVA it has checked, and our entry may be older than two moves.
        let vouched = matches!(by, By::Nve(_)) && sent.version < version;
        if !vouched && !self.is_hearsay_news(&sent, key, by) {
            self.counts.notices_refused += 1;
            let text = format!("{by:?} says that {key} left it, but we have it elsewhere: refused");
            return self.alarm(text, out);
        }
        if self.suspect(key) {
            let wait = Span::from_ms(self.own_number(key) % (JITTER_MS + 1));
            self.timers.arm(Timer::Suspect(key), self.now + wait);
        }
    }

    fn suspect(&mut self, key: VmKey) -> bool {
        let news = self.unconfirmed.suspect(self.now, key);
        self.counts.entries_suspected += u64::from(news);
        news
    }

    /// The jitter is over; meanwhile the directory may have spoken.
    pub(super) fn suspect_due(&mut self, key: VmKey) {
        if self.unconfirmed.is_suspect(key) {
            self.ask(Asked::Mac(key.vni, key.mac));
        }
    }

    /// The directory has spoken on the VM, with this version; what was heard of a newer one stays until it
    /// answers to that.
    pub(super) fn settle_unconfirmed(&mut self, key: VmKey, version: Option<Version>) -> bool {
        let newer = |h: Hearsay| version.is_some_and(|v| h.version > v);
        !self.unconfirmed.hearsay(key).is_some_and(newer) && self.unconfirmed.settle(key)
    }
}

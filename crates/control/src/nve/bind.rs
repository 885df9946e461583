//! VMs bind addresses and virtual MACs by their own word: the directory is asked, and refusals are told (R92, R93).

use std::net::IpAddr;

use godwit_model::message::NveToNva;
use godwit_model::{BindRefusal, Version, VmKey, VmRecord};
use godwit_tables::event::Refused;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Mac};

use crate::binds::{PATIENCE, Wanted};
use crate::io::Outputs;

use super::{Nve, PortKind, Timer, provision};

/// How it stands with what a VM uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It has it.
    Bound,
    /// The directory may grant it.
    Open,
    /// It will not.
    Refused(Refused),
    /// It may be another VM's, which only the directory knows, and that has been away for too long.
    Unasked,
}

impl Nve {
    /// How it stands with a source of a VM, by what is known of it. `announced`: by ARP or a neighbor advertisement.
    pub(super) fn standing(&self, wanted: Wanted, announced: bool) -> Standing {
        let Wanted { key, mac, ip } = wanted;
        let Some(r) = self.mirror.record(key) else {
            let taken = ip.is_some_and(|ip| self.is_anothers(key, ip, |_| false));
            return if taken { Standing::Refused(Refused::Taken) } else { Standing::Open };
        };
        if r.version == Version::ZERO {
            // A configuration file's, which nobody grants anything.
            return Standing::Bound;
        }
        let shared = r.allowed.shares_mac(mac);
        if mac != key.mac && !shared && !r.allowed.nests(mac) {
            return Standing::Refused(Refused::Mac);
        }
        let Some(ip) = ip else {
            let has = !shared || r.bound.macs.contains(&mac);
            return if has { Standing::Bound } else { Standing::Open };
        };
        let recorded = r.ips().any(|own| own == ip) || r.allowed.routes_ip(ip);
        match r.mac_of(ip) {
            _ if recorded => Standing::Bound,
            // Bound by another MAC of it: an announcement says that this one answers now.
            Some(has) if has == mac || !announced => Standing::Bound,
            Some(_) => Standing::Open,
            None if r.allowed.shares_ip(ip) => Standing::Open,
            None if self.is_anothers(key, ip, |mac| r.allowed.shares_mac(mac)) => {
                Standing::Refused(Refused::Taken)
            }
            None => {
                let vn = self.mirror.learning(key.vni);
                match provision::room_of(r, vn, mac, ip) {
                    0 if r.learning(vn, mac, ip).room() == 0 => Standing::Refused(Refused::Address),
                    0 => Standing::Refused(Refused::Full),
                    _ if self.unasked_at(key).is_some_and(|at| at <= self.now) => Standing::Unasked,
                    _ => Standing::Open,
                }
            }
        }
    }

    /// Without the NVA: another VM has the address by the directory's last word, wherever that VM is. With the NVA it
    /// is asked, because what a VM learned falls to others when it is gone. `shares`: a MAC that both may speak from.
    fn is_anothers(&self, key: VmKey, ip: IpAddr, shares: impl Fn(Mac) -> bool) -> bool {
        let others = |r: &&VmRecord| r.key != key && !r.mac_of(ip).is_some_and(&shares);
        !self.session.is_up() && self.mirror.owners(key.vni, ip).iter().any(others)
    }

    /// Without the NVA, from when on a VM binds no new addresses by its own word: where this switch is not told of all
    /// VMs of its VN, it does not know whose they are.
    fn unasked_at(&self, key: VmKey) -> Option<Instant> {
        let knows_less = self.is_pulled(key.vni) && self.mirror.record(key).is_some();
        (!self.session.is_up() && knows_less).then(|| self.nva_gone + PATIENCE)
    }

    /// The VM of a port uses an address or a virtual MAC that its record does not have.
    pub(super) fn source_seen(
        &mut self,
        port: PortIdx,
        mac: Mac,
        ip: Option<IpAddr>,
        announced: bool,
        out: &mut Outputs,
    ) {
        let Some(PortKind::Access(key)) = self.ports.get(&port).map(|p| p.kind) else { return };
        if !self.is_hosted(key) {
            return;
        }
        let wanted = Wanted { key, mac, ip };
        match self.standing(wanted, announced) {
            Standing::Bound if announced && self.has_virtual(wanted) => {
                if let Some(at) = self.binds.say_again(self.now, wanted, &mut self.seq) {
                    self.timers.set(Timer::Bind(wanted), Some(at));
                    if at <= self.now {
                        self.bind_due(wanted, out);
                    }
                }
            }
            Standing::Bound => self.forget_unless_said_again(wanted),
            Standing::Refused(why) => {
                if let Some(ip) = ip {
                    self.desired.refuse_source(port, ip);
                }
                self.refused(port, mac, ip, why, out);
            }
            Standing::Unasked => self.refuse_unasked(wanted, out),
            Standing::Open => {
                if self.binds.want(self.now, wanted, announced, &mut self.seq) {
                    self.bind_due(wanted, out);
                }
            }
        }
    }

    /// It is a virtual address that the directory has as the VM's.
    fn has_virtual(&self, wanted: Wanted) -> bool {
        let bound = |ip| self.mirror.record(wanted.key).and_then(|r| r.bound.at(ip));
        wanted.ip.and_then(bound).is_some_and(|b| b.is_virtual && b.mac == wanted.mac)
    }

    /// A worker dropped what a VM sent from an address that another VM has, or a VM asked whether anybody has it and
    /// was told so. Where that one learned it, the directory has it asked whether it uses it still (R93): it may have
    /// given it up, as with DHCP.
    pub(super) fn contest(&mut self, port: PortIdx, mac: Option<Mac>, ip: IpAddr, out: &mut Outputs) {
        let Some(PortKind::Access(key)) = self.ports.get(&port).map(|p| p.kind) else { return };
        let wanted = Wanted { key, mac: mac.unwrap_or(key.mac), ip: Some(ip) };
        let learned = |r: &&VmRecord| r.key != key && r.bound.at(ip).is_some_and(|b| !b.is_virtual);
        let has = self.mirror.owners(key.vni, ip).iter().any(learned);
        if has
            && self.is_hosted(key)
            && self.standing(wanted, false) == Standing::Open
            && self.binds.want(self.now, wanted, false, &mut self.seq)
        {
            self.bind_due(wanted, out);
        }
    }

    /// What its owner says again is said in any case.
    fn forget_unless_said_again(&mut self, wanted: Wanted) {
        if !self.binds.is_to_say_again(wanted) {
            self.forget_bind(wanted);
        }
    }

    fn forget_bind(&mut self, wanted: Wanted) {
        self.binds.forget(wanted);
        self.timers.set(Timer::Bind(wanted), None);
    }

    /// A request is to go out, first or again.
    pub(super) fn bind_due(&mut self, wanted: Wanted, out: &mut Outputs) {
        let key = wanted.key;
        if !self.is_hosted(key) {
            return self.forget_bind(wanted);
        }
        if !self.session.is_up() {
            if wanted.ip.is_some() && self.standing(wanted, true) == Standing::Unasked {
                return self.refuse_unasked(wanted, out);
            }
            // The next session asks, if it comes in time.
            return self.timers.set(Timer::Bind(wanted), self.unasked_at(key).filter(|at| *at > self.now));
        }
        let here = |r: &VmRecord| r.is_at(&self.config.nve);
        let granted = self.mirror.record(key).is_some_and(here) && self.vms[&key].claim.is_none();
        if !granted {
            let at = self.binds.look_later(self.now);
            return self.timers.set(Timer::Bind(wanted), Some(at));
        }
        let Some((request, next)) = self.binds.due(self.now, wanted) else {
            return self.timers.set(Timer::Bind(wanted), None);
        };
        self.timers.set(Timer::Bind(wanted), Some(next));
        let age_ms = u32::try_from(self.now.since(request.heard).as_ms()).unwrap_or(u32::MAX);
        let (seq, announced) = (request.seq, request.announced);
        let message = NveToNva::Bind { seq, key, mac: wanted.mac, ip: wanted.ip, announced, age_ms };
        self.send(message, out);
    }

    /// The session is over: what waits may have to be given up before the next one.
    pub(super) fn bind_without_nva(&mut self, out: &mut Outputs) {
        for wanted in self.binds.all() {
            self.bind_due(wanted, out);
        }
    }

    /// The NVA stays away. The VM's next word after the NVA is back is asked for.
    fn refuse_unasked(&mut self, wanted: Wanted, out: &mut Outputs) {
        self.forget_bind(wanted);
        let Some(port) = self.runs_on(wanted.key) else { return };
        if let Some(ip) = wanted.ip {
            self.desired.refuse_source(port, ip);
        }
        let why = "a new address, for which the NVA, which is away, cannot be asked";
        let allow = "it is asked for when the NVA is back";
        self.refusal(port, wanted.mac, wanted.ip, why, allow, out);
    }

    /// A new session: everything that waits is asked for, with its age.
    pub(super) fn bind_again(&mut self, out: &mut Outputs) {
        self.binds.session_over();
        let mut seq = self.seq;
        let mut binds = std::mem::take(&mut self.binds);
        binds.say_all_again(|wanted| self.is_hosted(wanted.key) && self.has_virtual(wanted), &mut seq);
        (self.binds, self.seq) = (binds, seq);
        for wanted in self.binds.all() {
            self.bind_due(wanted, out);
        }
    }

    /// The directory spoke on a VM, or it was granted: what it has now is asked for no more, the rest may be.
    pub(super) fn follow_binds(&mut self, key: VmKey, out: &mut Outputs) {
        if self.binds.is_empty() {
            return;
        }
        for wanted in self.binds.of(key) {
            if !self.is_hosted(key) {
                self.forget_bind(wanted);
            } else if self.standing(wanted, true) == Standing::Bound {
                if self.has_virtual(wanted) && !self.binds.is_to_say_again(wanted) {
                    self.binds.granted(self.now, wanted);
                }
                self.forget_unless_said_again(wanted);
            } else if !self.binds.has_gone_out(wanted) {
                self.bind_due(wanted, out);
            }
        }
    }

    pub(super) fn bound(&mut self, seq: u64, record: VmRecord, out: &mut Outputs) {
        if let Some(wanted) = self.binds.asked(seq).filter(|w| w.key == record.key) {
            let is_virtual = wanted.ip.and_then(|ip| record.bound.at(ip)).is_some_and(|b| b.is_virtual);
            let is_news = !is_virtual || self.binds.granted(self.now, wanted);
            self.counts.addresses_bound += u64::from(is_news);
            self.forget_bind(wanted);
        }
        self.learn(record, out);
    }

    pub(super) fn bind_refused(&mut self, seq: u64, reason: BindRefusal, text: &str, out: &mut Outputs) {
        let Some(wanted) = self.binds.asked(seq) else { return };
        if reason == BindRefusal::NotHere {
            // It is on its way, or its grant is: the request is put again.
            return;
        }
        self.forget_bind(wanted);
        if self.binds.lost(wanted) && reason == BindRefusal::Taken {
            // It had it while there was no session, and somebody else announced it since: nobody did wrong.
            return;
        }
        self.counts.addresses_refused += 1;
        let Some(port) = self.runs_on(wanted.key) else { return };
        if let Some(ip) = wanted.ip {
            self.desired.refuse_source(port, ip);
        }
        let why = match reason {
            BindRefusal::NotAllowed => Refused::Address,
            BindRefusal::Full => Refused::Full,
            BindRefusal::Taken => Refused::Taken,
            BindRefusal::UnknownVm | BindRefusal::NotHere => Refused::NotAnnounced,
        };
        let said = super::refused::words(why);
        self.refusal(port, wanted.mac, wanted.ip, &format!("{said}, says the NVA"), text, out);
    }

    /// The port that a VM runs on.
    pub(super) fn runs_on(&self, key: VmKey) -> Option<PortIdx> {
        self.vms.get(&key)?.phase.port()
    }
}

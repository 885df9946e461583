//! Answers of the directory to questions.

use godwit_model::{VmKey, VmRecord};
use godwit_tables::update::Key;
use godwit_wire::Span;

use crate::io::{Level, Outputs};
use crate::queries::Asked;

use super::{Nve, Timer};

/// A negative answer counts at least so long, or what waits for it would only be asked for again.
const MIN_NEGATIVE: Span = Span::from_ms(100);
/// No negative answer counts longer, in milliseconds.
const MAX_NEGATIVE_MS: u64 = 3_600_000;

impl Nve {
    pub(super) fn response(
        &mut self,
        seq: u64,
        record: Option<VmRecord>,
        lifetime_ms: u64,
        out: &mut Outputs,
    ) {
        let Some((asked, since)) = self.queries.asked(seq) else { return };
        if record.as_ref().is_some_and(|r| !answers(asked, r)) {
            return out.note(Level::Warn, format!("the NVA answered {asked:?} with another VM: ignored"));
        }
        self.queries.answered(seq);
        self.timers.set(Timer::Query(asked), None);
        match (record, asked) {
            (Some(record), _) => {
                self.renew_life(record.key, since, lifetime_ms);
                self.hear(record, out);
            }
            (None, Asked::Mac(vni, mac)) => self.pulled_is_gone(VmKey { vni, mac }, out),
            (None, Asked::Ip(vni, ip)) => self.doubt_owners(vni, ip),
        }
        if let Asked::Mac(vni, mac) = asked
            && self.settle_unconfirmed(VmKey { vni, mac }, None)
        {
            // The directory contradicts what another NVE said.
            self.sync_vm(VmKey { vni, mac }, out);
        }
        self.negative_unless_known(asked, lifetime_ms, out);
        self.ask_about_former_addresses(asked);
    }

    /// In a pulled VN nobody tells that an address has got another owner once the former one's record has aged out.
    /// Local VMs that know the former one still send to it: what it had and has no more is asked about, so that they
    /// are told (R24).
    fn ask_about_former_addresses(&mut self, asked: Asked) {
        let Asked::Mac(vni, mac) = asked else { return };
        if !self.is_pulled(vni) {
            return;
        }
        for ip in self.announcer.had(vni, mac) {
            self.ask_within_bounds(Asked::Ip(vni, ip));
        }
    }

    /// What was asked for and is nowhere, or nowhere that frames could go, is absent for a while
    /// (R36), so that what waits for it is dropped and not asked for with every packet.
    pub(super) fn negative_unless_known(&mut self, asked: Asked, lifetime_ms: u64, out: &mut Outputs) {
        let life =
            Span::from_ms(lifetime_ms.min(MAX_NEGATIVE_MS)).min(self.config.neg_life).max(MIN_NEGATIVE);
        let until = self.now + life;
        let Some(vn) = self.desired.vn(asked.vni()) else { return };
        match asked {
            Asked::Mac(vni, mac) if self.desired.vm(Key::new(vn, mac)).is_none() => {
                let evicted = self.mirror.set_absent(VmKey { vni, mac }, until);
                for key in evicted.into_iter().chain([VmKey { vni, mac }]) {
                    self.sync_vm(key, out);
                }
            }
            Asked::Ip(vni, ip) if !self.desired.has_answer(vn, ip) => {
                let evicted = self.mirror.set_absent_ip(vni, ip, until);
                for ip in evicted.into_iter().chain([ip]) {
                    self.sync_ip(vni, ip);
                }
            }
            Asked::Mac(..) | Asked::Ip(..) => return,
        }
        self.timers.arm(Timer::NegativeCache, until);
    }
}

/// Whether the record is about what was asked for (R34).
fn answers(asked: Asked, record: &VmRecord) -> bool {
    match asked {
        Asked::Mac(vni, mac) => record.key.vni == vni && record.macs().any(|own| own == mac),
        Asked::Ip(vni, ip) => record.key.vni == vni && record.mac_of(ip).is_some(),
    }
}

//! A VM's machine handles something, and what it wants of the rest is done.

use godwit_model::message::NveToNva;
use godwit_model::{Version, VmKey};

use crate::barrier::After;
use crate::io::Outputs;
use crate::mobility::{Action, Ctx, Vm};

use super::{Nve, policy};

/// Reports that wait for a session; the oldest goes first.
const MAX_REPORTS: usize = 256;

impl Nve {
    /// Lets a VM's machine handle something; it is made where there is none.
    pub(super) fn with_vm(&mut self, key: VmKey, out: &mut Outputs, f: impl FnOnce(&mut Vm, &mut Ctx<'_>)) {
        let mut actions = Vec::new();
        let mut cx = Ctx {
            now: self.now,
            wall_us: self.wall_us,
            config: &self.config,
            online: self.session.is_up(),
            record: self.mirror.record(key),
            learning: self.mirror.learning(key.vni),
            missing_policy: matches!(self.policy_of(key), policy::Wanted::Missing(_)),
            seq: &mut self.seq,
            asks: &mut self.seek_bucket,
            actions: &mut actions,
        };
        let vm = self.vms.entry(key).or_insert_with(|| Vm::new(key));
        f(vm, &mut cx);
        vm.follow_seek(self.now);
        // Tables before messages: what a message promises is on its way to the workers (R18).
        self.sync_vm(key, out);
        for action in actions {
            self.perform(key, action, out);
        }
        self.check_peer(key, out);
        self.tidy(key, out);
    }

    /// Likewise, for a VM that has a machine.
    pub(super) fn with_known_vm(
        &mut self,
        key: VmKey,
        out: &mut Outputs,
        f: impl FnOnce(&mut Vm, &mut Ctx<'_>),
    ) {
        if self.vms.contains_key(&key) {
            self.with_vm(key, out, f);
        }
    }

    fn perform(&mut self, key: VmKey, action: Action, out: &mut Outputs) {
        match action {
            Action::Send(message) => self.send(message, out),
            Action::Departed(version) => self.tell_departure(key, version, out),
            Action::ClaimDelayed => self.counts.claims_delayed += 1,
            Action::ScanOthers => self.scan_others(key, out),
            Action::Withdraw(version) => self.withdraw(key, version, out),
            Action::Report { id, step, counts } => {
                let message = NveToNva::MoveReport { id, key, step, counts };
                if self.session.is_up() {
                    out.to_nva.push(message);
                } else {
                    if self.reports.len() >= MAX_REPORTS {
                        self.reports.pop_front();
                    }
                    self.reports.push_back(message);
                }
            }
            Action::Settle => self.settle(key),
            Action::SentAll { to, port } => self.send_all(key, to, port, out),
            Action::SendsAgain { to } => self.sends_again(key, to, out),
            Action::MarkerLate => self.counts.sent_all_late += 1,
            Action::Gate { seq } => self.barriers.after_applied(After::Claim { key, seq }),
            Action::Probe { port, ips } => self.probe(key, port, &ips, out),
            Action::Note(level, text) => out.note(level, text),
        }
    }

    /// Says that the VM left, now or with the next session (R19).
    pub(super) fn withdraw(&mut self, key: VmKey, version: Version, out: &mut Outputs) {
        if self.session.is_up() {
            out.to_nva.push(NveToNva::Withdraw { key, version });
        } else {
            self.withdrawals.insert(key, version);
        }
    }
}

//! Policies: what VMs may send and receive, wherever they run (R23, R33).
//!
//! They are few and small, so every NVE is told all of them, before any record that names one. Thus an NVE that is
//! to run a VM has its policy when it hears of the VM.

use std::collections::BTreeMap;

use godwit_model::Policy;
use godwit_model::message::NvaToNve;

use super::{Directory, Level, Refusal, SessionId, Write};

/// Policies in one message.
const CHUNK: usize = 64;

/// All policies, by name.
#[derive(Default)]
pub(super) struct Policies {
    by_name: BTreeMap<String, Policy>,
}

impl Policies {
    /// What was persisted.
    pub fn restored(by_name: BTreeMap<String, Policy>) -> Policies {
        Policies { by_name }
    }

    /// What is to be persisted.
    pub fn stored(&self) -> BTreeMap<String, Policy> {
        self.by_name.clone()
    }

    pub fn get(&self, name: &str) -> Option<&Policy> {
        self.by_name.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Policy> {
        self.by_name.values()
    }

    /// News that tell an NVE all of them. One message also where there are none: the NVE may have some of before.
    fn messages(&self) -> Vec<NvaToNve> {
        let all: Vec<Policy> = self.all().cloned().collect();
        let count = all.len().div_ceil(CHUNK).max(1);
        let chunk = |at: usize| NvaToNve::Policies {
            reset: at == 0,
            policies: all.iter().skip(at * CHUNK).take(CHUNK).cloned().collect(),
            gone: Vec::new(),
        };
        (0..count).map(chunk).collect()
    }
}

impl Directory {
    /// Makes a policy, or gives one that is there other rules; the VMs that have it follow at once.
    ///
    /// # Errors
    /// Where it cannot be used, or there are too many.
    pub(super) fn define_policy(&mut self, policy: Policy) -> Result<Policy, Refusal> {
        policy.check()?;
        let before = self.policies.get(&policy.name);
        if before == Some(&policy) {
            return Ok(policy);
        }
        if before.is_none() && self.policies.by_name.len() >= self.config.max_policies {
            return Err(Refusal::Full { what: "policies", max: self.config.max_policies });
        }
        self.policies.by_name.insert(policy.name.clone(), policy.clone());
        self.persist(Write::PutPolicy(policy.clone()));
        self.log(Level::Info, format!("policy {} has {} rules", policy.name, policy.rules.len()));
        let news = NvaToNve::Policies { reset: false, policies: vec![policy.clone()], gone: Vec::new() };
        self.tell_every_nve(&news);
        Ok(policy)
    }

    /// Removes a policy that no VM has.
    ///
    /// # Errors
    /// Where it is not there, or a VM has it.
    pub(super) fn remove_policy(&mut self, name: &str) -> Result<Policy, Refusal> {
        let policy = self.policy(name)?.clone();
        let vms = self.records.values().filter(|r| r.policy.as_deref() == Some(name)).count();
        if vms > 0 {
            return Err(Refusal::PolicyUsed { name: name.into(), vms });
        }
        self.policies.by_name.remove(name);
        self.persist(Write::RemovePolicy(name.into()));
        self.log(Level::Info, format!("policy {name} is removed"));
        self.tell_every_nve(&NvaToNve::Policies {
            reset: false,
            policies: Vec::new(),
            gone: vec![name.into()],
        });
        Ok(policy)
    }

    /// A session begins: its NVE is told all of them.
    pub(super) fn tell_policies(&mut self, session: SessionId) {
        for message in self.policies.messages() {
            self.send(session, message);
        }
    }

    fn tell_every_nve(&mut self, news: &NvaToNve) {
        let sessions: Vec<SessionId> = self.nves.values().filter_map(|n| n.session).collect();
        for session in sessions {
            self.send(session, news.clone());
        }
    }
}

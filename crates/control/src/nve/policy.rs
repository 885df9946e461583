//! Policies that follow their VMs (R23, RFC 8394 section 3.3): the NVA tells them before the records that name them.

use std::collections::BTreeMap;

use godwit_model::{Policy, VmKey};

use crate::io::Outputs;
use crate::mirror::Mirror;
use crate::mobility::Vm;

use super::Nve;

/// Which policy a VM is to have here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted<'a> {
    /// Nothing is known of the VM.
    Unknown,
    /// None.
    None,
    /// This one.
    Known(&'a Policy),
    /// One of this name, which nobody has told us.
    Missing(&'a str),
}

fn wanted<'a>(mirror: &'a Mirror, policies: &'a BTreeMap<String, Policy>, key: VmKey) -> Wanted<'a> {
    let Some(record) = mirror.record(key) else { return Wanted::Unknown };
    match record.policy.as_deref() {
        None => Wanted::None,
        Some(name) => policies.get(name).map_or(Wanted::Missing(name), Wanted::Known),
    }
}

impl Nve {
    pub(super) fn policy_of(&self, key: VmKey) -> Wanted<'_> {
        wanted(&self.mirror, &self.policies, key)
    }

    /// Before the workers hear that the VM is here: nothing passes its ports without its policy.
    pub(super) fn sync_policy(&mut self, key: VmKey) {
        let Some(vm) = self.vms.get(&key) else { return };
        for &port in vm.ports.keys() {
            match wanted(&self.mirror, &self.policies, key) {
                Wanted::None => self.desired.set_policy(port, None),
                Wanted::Known(policy) => self.desired.set_policy(port, Some(policy)),
                // What is in force stays in force, and nothing opens meanwhile.
                Wanted::Missing(_) | Wanted::Unknown => {}
            }
        }
    }

    /// The NVA's word. VMs that waited for it may begin.
    pub(super) fn policies_came(
        &mut self,
        reset: bool,
        policies: Vec<Policy>,
        gone: &[String],
        out: &mut Outputs,
    ) {
        if reset {
            self.policies.clear();
        }
        for name in gone {
            self.policies.remove(name);
        }
        // One that the workers could not carry out would be refused there; it is as good as missing.
        self.policies.extend(policies.into_iter().filter(|p| p.check().is_ok()).map(|p| (p.name.clone(), p)));
        let here: Vec<VmKey> =
            self.vms.iter().filter(|(_, vm)| !vm.ports.is_empty()).map(|(key, _)| *key).collect();
        for key in here {
            if matches!(self.policy_of(key), Wanted::Known(_)) {
                self.with_known_vm(key, out, Vm::policy_came);
            }
        }
    }
}

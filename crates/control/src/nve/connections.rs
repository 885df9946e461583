//! What workers are told of a VM whose connections were paused until their time was over (R54).

use godwit_model::VmKey;
use godwit_tables::update::{Key, VmState};

use super::Nve;

impl Nve {
    /// Takes the record's word on a pause of a VM's connections. Where its time is over, what is held goes at once, and
    /// not with what follows.
    pub(super) fn follow_connections(&mut self, key: VmKey, at: Key) {
        let record = self.mirror.record(key);
        let Some(vm) = self.vms.get_mut(&key) else { return };
        if vm.follow_connections(record, self.now) {
            self.counts.pauses_timed_out += 1;
            self.desired.set_vm(at, Some(VmState::Blocked));
            self.sync_nested(key, Some(VmState::Blocked));
        }
    }
}

//! What the directory counts, for operators. It is part of its state, and does not outlive a restart.

use godwit_counters::Entry;

use super::Directory;

godwit_counters::counters! {
    /// Counters of the directory, since its start.
    Counts;

    /// Messages of NVEs.
    messages: One,
    /// Those that were answered with an error.
    messages_refused: One,
    /// Lines of the log left out, because what one NVE said led to too many.
    lines_withheld: One,
    /// Orders of operators.
    orders: One,
    /// Those that were refused.
    orders_refused: One,
    /// Sessions of NVEs begun.
    sessions_opened: One,
    /// Sessions of NVEs ended, for whatever reason.
    sessions_closed: One,
    /// Of these, those that had not said who they are in time, or that were too many.
    sessions_turned_away: One,
    /// Queries of NVEs answered.
    queries_answered: One, // R34
    /// Claims of a VM granted that another NVE had, or none.
    claims_granted: One, // R18
    /// Claims of the NVE that has the VM already, answered once more.
    claims_confirmed: One, // R18
    /// Claims refused.
    claims_refused: One, // R21, R55
    /// Claims that no order explains, about which the NVE that has the VM was asked first.
    claims_contested: One, // R21
    /// Addresses and virtual MACs bound to VMs by their own word.
    binds_granted: One, // R92, R93
    /// Bindings asked for once more by who has them.
    binds_confirmed: One, // R92, R93
    /// Bindings refused.
    binds_refused: One, // R92, R93
    /// Bindings not answered: too many of one VM in a second.
    binds_limited: One, // R67
    /// Moves ordered.
    moves_ordered: One, // R49
    /// Moves that began with a grant that nobody had ordered.
    moves_unplanned: One, // R21
    /// Moves, ordered or not, that came to their end.
    moves_done: One, // R49
    /// Moves that were called off before their grant, or whose time was over.
    moves_aborted: One, // R49
    /// Moves that failed at one of their NVEs before their grant.
    moves_failed: One, // R49
    /// Drains of NVEs ordered.
    drains_ordered: One, // R85
    /// VMs that drains moved away.
    vms_drained: One, // R85
    /// Pauses of VMs' connections ordered.
    pauses_ordered: One, // R54
    /// Pauses that ended because their time was over: what was held was dropped.
    pauses_timed_out: One, // R54
    /// VMs frozen because they moved too often without being ordered to.
    vms_frozen: One, // R22
}

godwit_counters::counters! {
    /// The directory's size and what waits in it.
    Gauges;

    /// VNs that are defined.
    vns: One as Gauge,
    /// VMs that are defined.
    vms: One as Gauge,
    /// NVEs with a session.
    nves_connected: One as Gauge,
    /// Moves that are neither done nor called off.
    moves_unfinished: One as Gauge,
    /// Claims that wait for the word of the NVE that has the VM.
    claims_waiting: One as Gauge, // R21
    /// Updates that NVEs have not acknowledged.
    updates_unacknowledged: One as Gauge, // R38
    /// News of VMs that wait, because their NVEs have much to acknowledge.
    updates_waiting: One as Gauge, // R38
    /// Snapshots of VNs that are not told to their end.
    snapshots_under_way: One as Gauge, // R37
}

impl Directory {
    /// What it counts, then how large it is.
    pub fn counters(&self) -> impl Iterator<Item = Entry> + use<> {
        let status = self.status();
        let gauges = Gauges {
            vns: status.vns as u64,
            vms: status.vms as u64,
            nves_connected: status.nves_connected as u64,
            moves_unfinished: status.moves_unfinished as u64,
            claims_waiting: self.claims.contests.len() as u64,
            updates_unacknowledged: self.updates.unacknowledged() as u64,
            updates_waiting: self.updates.waiting() as u64,
            snapshots_under_way: self.streams.len() as u64,
        };
        self.counts.entries().chain(gauges.entries())
    }
}

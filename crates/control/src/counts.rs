//! What control counts, for operators.

godwit_tables::named_counters! {
    /// Counters of an NVE's control, since its start.
    Counts;

    /// Stale senders told directly where a VM is, or that it is not here (R47).
    redirects_direct,
    /// Stale senders told by way of the NVA (R47).
    redirects_by_nva,
    /// Stale senders that could be told neither directly nor by way of the NVA (R47).
    redirects_untold,
    /// Reports of stale senders not answered: so shortly after another, or too many in all (R47).
    redirects_withheld,
    /// Redirects of other NVEs that led to another location, until the directory confirms it (R47).
    redirects_used,
    /// Redirects of other NVEs that were no news: late, or about what does not go to that NVE (R47).
    redirects_late,
    /// Datagrams of other NVEs that opened.
    notices_opened,
    /// Datagrams refused: the NVA gave no such key here (R47).
    notices_unknown_key,
    /// Datagrams refused: the seal was wrong (R47).
    notices_forged,
    /// Datagrams refused: they had come before (R47).
    notices_replayed,
    /// Datagrams refused: their content made no sense, or was not their sender's to say (R39, R47).
    notices_refused,
    /// Departures of VMs told by way of the NVA (R39).
    departures_by_nva,
    /// Departures of VMs told to another NVE directly, while the NVA was away (R39).
    departures_direct,
    /// Entries put in doubt by what another NVE said, and asked about (R39).
    entries_suspected,
    /// Pulled entries asked about again because they were in use (R40).
    entries_refreshed,
    /// Pulled entries forgotten because nobody used them, or nobody answered (R40).
    entries_aged,
    /// Rumours that found no room.
    rumours_dropped,
    /// Questions of workers not put to the directory: too many in a second (R67).
    queries_limited,
    /// Claims put off: too many of one VM in a second (R67).
    claims_delayed,
    /// VMs that asked for their own address and were told (R27).
    rarp_answered,
    /// VMs that asked for their own address and were not told, because there were many (R27).
    rarp_limited,
    /// VMs asked whether they are still here because another left (R32).
    scanned,
    /// Addresses and virtual MACs of VMs here that the directory bound by their own word (R92, R93).
    addresses_bound,
    /// Those that it refused (R92, R93).
    addresses_refused,
    /// Learned addresses given back because nobody answered for them (R93).
    addresses_unbound,
}

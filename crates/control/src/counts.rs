//! What control counts, for operators.

godwit_counters::counters! {
    /// Counters of an NVE's control, since its start.
    Counts;

    /// Stale senders told directly where a VM is, or that it is not here.
    redirects_direct: One, // R47
    /// Stale senders told by way of the NVA.
    redirects_by_nva: One, // R47
    /// Stale senders that could be told neither directly nor by way of the NVA.
    redirects_untold: One, // R47
    /// Reports of stale senders not answered: so shortly after another, or too many in all.
    redirects_withheld: One, // R47
    /// Redirects of other NVEs that led to another location, until the directory confirms it.
    redirects_used: One, // R47
    /// Redirects of other NVEs that were no news: late, or about what does not go to that NVE.
    redirects_late: One, // R47
    /// Datagrams of other NVEs that opened.
    notices_opened: Packets,
    /// Datagrams refused: the NVA gave no such key here.
    notices_unknown_key: Packets, // R47
    /// Datagrams refused: the seal was wrong.
    notices_forged: Packets, // R47
    /// Datagrams refused: they had come before.
    notices_replayed: Packets, // R47
    /// Datagrams refused: their content made no sense, or was not their sender's to say.
    notices_refused: Packets, // R39, R47
    /// Departures of VMs told by way of the NVA.
    departures_by_nva: One, // R39
    /// Departures of VMs told to another NVE directly, while the NVA was away.
    departures_direct: One, // R39
    /// Entries put in doubt by what another NVE said, and asked about.
    entries_suspected: One, // R39
    /// End markers sent behind the last frame by an old path.
    markers_sent: One, // R77
    /// End markers of other NVEs passed on to where the VM went.
    markers_passed: One, // R77
    /// End markers of other NVEs answered: all that they sent for a VM is here.
    markers_answered: One, // R77
    /// End markers whose answer came in time.
    markers_come: One, // R77
    /// Waits for the answer to an end marker that ran out: order was not kept for sure.
    markers_late: One, // R77
    /// Words that others wait for not sent to another NVE: no next hop to it was found in time.
    notices_unsent: Packets, // R77
    /// Frames held for the end of an old path.
    order_held: Packets, // R77
    /// New NVEs told that all that a VM sent from here has left.
    sent_all: One, // R77
    /// Moves here whose old NVE did not say so in time.
    sent_all_late: One, // R77
    /// Pauses of VMs' connections here that ended because their time was over: what was held was dropped.
    pauses_timed_out: One, // R54
    /// Pulled entries asked about again because they were in use.
    entries_refreshed: One, // R40
    /// Pulled entries forgotten because nobody used them, or nobody answered.
    entries_aged: One, // R40
    /// Unconfirmed locations that found no room.
    unconfirmed_dropped = "rumours_dropped": One,
    /// Questions of workers not put to the directory: too many in a second.
    queries_limited: One, // R67
    /// Claims put off: too many of one VM in a second.
    claims_delayed: One, // R67
    /// VMs that asked for their own address and were told.
    rarp_answered: One, // R27
    /// VMs that asked for their own address and were not told, because there were many.
    rarp_limited: One, // R27
    /// Router advertisements sent to VMs.
    ra_sent: Packets, // R58
    /// Router solicitations not answered: too many from one port.
    ra_limited: Packets, // R58
    /// Messages of DHCP clients answered.
    dhcp_answered: Packets, // R58
    /// Messages of DHCP clients not answered: the VM has no recorded address in a subnet with DHCP.
    dhcp_unrecorded: Packets, // R58
    /// Messages of DHCP clients not answered: malformed, relayed, of another client or for another server.
    dhcp_refused: Packets, // R58
    /// Messages of DHCP clients not answered: too many from one port.
    dhcp_limited: Packets, // R58
    /// Addresses given up by DHCP clients; records stay.
    dhcp_released: One, // R58
    /// Addresses that DHCP clients found in use by another host.
    dhcp_declined: One, // R58
    /// VMs' frames for the gateway that ask for nothing that it gives.
    gateway_ignored: Packets, // R58
    /// VMs asked whether they are still here because another left.
    scanned: One, // R32
    /// Multicast groups that VMs could not join: too many at their port or in their VN.
    groups_refused: One, // R61
    /// IGMP and MLD queries sent to VMs.
    group_queries: One, // R61
    /// Addresses and virtual MACs of VMs here that the directory bound by their own word.
    addresses_bound: One, // R92, R93
    /// Those that it refused.
    addresses_refused: One, // R92, R93
    /// Learned addresses given back because nobody answered for them.
    addresses_unbound: One, // R93
}

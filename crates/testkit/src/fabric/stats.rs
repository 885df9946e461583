//! What was done, so that a test can say how much it has seen.

use std::fmt;
use std::ops::AddAssign;

macro_rules! stats {
    ($($(#[doc = $help:literal])+ $name:ident,)*) => {
        /// Counts of one run, or of many.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Stats {
            $($(#[doc = $help])+ pub $name: u64,)*
        }

        impl AddAssign for Stats {
            fn add_assign(&mut self, other: Stats) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Stats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut first = true;
                $(
                    if !first {
                        f.write_str(", ")?;
                    }
                    first = false;
                    write!(f, "{} {}", self.$name, stringify!($name).replace('_', " "))?;
                )*
                let _ = first;
                Ok(())
            }
        }
    };
}

stats! {
    /// Schedules run.
    schedules,
    /// Virtual milliseconds.
    virtual_ms,
    /// Events.
    events,
    /// Clones of live switches that were refused.
    clones_refused, // R96
    /// Moves begun.
    moves,
    /// Moves after which the guest ran at the new switch.
    moves_made,
    /// Warm and cold moves, whose guests were shut down.
    moves_interrupting, // R50, R51
    /// Moves between ports of one switch.
    moves_within,
    /// Moves of VMs whose move before was not done yet.
    moves_on,
    /// Drains of switches begun.
    drains, // R85
    /// Moves that they ordered.
    drained, // R85
    /// Pauses of VMs' connections ordered.
    pauses, // R54
    /// VMs that died and were started elsewhere.
    cold_starts,
    /// Moves called off.
    moves_called_off,
    /// Moves that the directory did not take.
    moves_refused,
    /// Moves that went on without Prepared.
    moves_unprepared,
    /// Test frames sent by guests.
    frames_sent,
    /// Test frames received, broadcast ones by each receiver.
    frames_received,
    /// Those of them that a gateway sent on.
    frames_routed, // R58
    /// Test frames put into an outer header.
    encapsulations,
    /// Frames that switches held.
    frames_held,
    /// Frames that switches forwarded in flight.
    frames_forwarded,
    /// Test frames of guests or for them at a port that is not theirs any more.
    frames_at_dead_ports,
    /// Underlay frames lost by a storm.
    frames_lost_by_underlay,
    /// Underlay frames repeated by a storm.
    frames_repeated_by_underlay,
    /// Addresses of others that guests asked for and that had to be answered.
    asked,
    /// Of these, while the address's owner was being moved.
    asked_of_moving,
    /// Of these, answered.
    answered,
    /// Answers of guests that were asked for their own addresses.
    answers_of_guests,
    /// Guests that their switch asked because another had left.
    scanned,
    /// Senders with an old location that were told directly.
    redirects_direct,
    /// Senders with an old location that were told by way of the NVA.
    redirects_by_nva,
    /// Redirects that led to another location.
    redirects_used,
    /// End markers that senders sent, and whose answers came.
    markers_sent, // R77
    /// Of these, answered in time.
    markers_come, // R77
    /// Waits for an end that ran out.
    markers_late, // R77
    /// Frames that waited for it.
    order_held, // R77
    /// VMs whose new switch heard in time that all that they had sent had left the old one.
    sent_all, // R77
    /// Those whose new switch did not.
    sent_all_late, // R77
    /// Pulled entries asked about again because they were in use.
    entries_refreshed,
    /// Pulled entries forgotten because nobody used them.
    entries_aged,
    /// Messages between switches and the NVA.
    messages,
    /// Messages that came twice.
    messages_repeated,
    /// Sessions opened.
    sessions,
    /// Sessions cut.
    cuts,
    /// Faults of schedules.
    faults,
    /// Guests, switches and NVAs that stood still for a while.
    stalls,
    /// Guests that rebooted.
    guests_rebooted,
    /// Changes of a guest between its two ports.
    hops,
    /// Definitions changed.
    redefined,
    /// Virtual addresses that got another master.
    takeovers,
    /// Frames for virtual addresses, or from addresses that are their senders' by their own word at most.
    words,
    /// Of these, received.
    words_received,
    /// Of these, from an address that was another's, or nobody's to have.
    words_of_others,
    /// Addresses and virtual MACs that the NVA bound at a switch's request.
    addresses_bound,
    /// Requests that it refused.
    addresses_refused,
    /// Addresses that nobody answered for any more.
    addresses_given_back,
    /// Switches killed.
    reboots,
    /// Times that the NVA was killed.
    restarts,
    /// Transactions of its store.
    transactions,
    /// Alarms that switches raised.
    alarms,
}

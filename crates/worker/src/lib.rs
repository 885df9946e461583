//! The poll-mode loop of a pinned core, its mailbox, outboxes and counters.

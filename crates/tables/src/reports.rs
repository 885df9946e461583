//! How often the same thing is reported to control: rate limits of events, by key.

use core::net::IpAddr;

use godwit_wire::{Instant, Mac, Rate, Span};

use crate::update::Key;
use crate::{Tables, event_limiter};

/// Datagrams of other NVEs that are handed to control (R47).
const PEERS: Rate = Rate::per_second(1000, 256);

/// Membership queries of the underlay that control is told of (R60).
const QUERIES: Rate = Rate::per_second(10, 20);

impl Tables {
    /// A stale sender of frames for `key` may be reported now (R47).
    pub fn may_report_sender(&mut self, key: Key, sender: IpAddr, now: Instant) -> bool {
        self.redirects.allow(event_limiter::tag(key.0, sender), self.bounds.redirect_interval, now)
    }

    /// That frames of `sender` for `key` go round may be reported now (R46d).
    pub fn may_report_loop(&mut self, key: Key, sender: IpAddr, now: Instant) -> bool {
        self.news.allow(event_limiter::tag(!key.0, sender), Span::from_ms(1000), now)
    }

    /// A router's report on packets to `remote` may be passed on now (R9).
    pub fn may_report_path(&mut self, remote: IpAddr, now: Instant) -> bool {
        self.news.allow(event_limiter::tag(u64::MAX, remote), self.bounds.redirect_interval, now)
    }

    /// A datagram of another NVE may be handed to control now; nobody fills its queue with them (R47).
    pub fn may_report_peer(&mut self, now: Instant) -> bool {
        self.peers.take(PEERS, now)
    }

    /// A membership query of the underlay may be reported now (R60).
    pub fn may_report_query(&mut self, now: Instant) -> bool {
        self.queries.take(QUERIES, now)
    }

    /// An underlay neighbor's address may be reported now. Answers to our own questions and what
    /// was merely overheard do not silence each other.
    pub fn may_report_neighbor(&mut self, ip: IpAddr, mac: Mac, solicited: bool, now: Instant) -> bool {
        let tag = event_limiter::tag(mac.to_u64() << 1 | u64::from(solicited), ip);
        self.news.allow(tag, self.bounds.redirect_interval, now)
    }
}

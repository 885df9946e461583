//! One combination of IP versions as it is reported.

use serde::Serialize;

use super::{MoveLine, round, thousands};
use crate::agent::proto::Gap;
use crate::capture::Relayed;
use crate::clock::ms;
use crate::mover::Moved;
use crate::scenario::routed::Routing;
use crate::traffic::{Stream, Talk};

/// One combination of IP versions. The fields up to `tcp_alive` are the report's contract; the
/// others say more.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Inner IP version.
    pub inner: u8,
    /// Outer IP version.
    pub outer: u8,
    /// Moves carried out.
    pub moves: usize,
    /// Probe packets sent, both ways together.
    pub sent: u64,
    /// Different probe packets received.
    pub received: u64,
    /// Probe packets that never arrived.
    pub lost: u64,
    /// Arrivals of packets that had arrived before.
    pub duplicated: u64,
    /// Arrivals behind a later packet.
    pub reordered: u64,
    /// The longest silence between two arrivals at either receiver, the VM's pause included.
    pub gap_ms_max: f64,
    /// Packets that the NVEs held.
    pub held: u64,
    /// Packets that the NVEs forwarded in flight.
    pub forwarded: u64,
    /// The one TCP connection carried on after each move, and all its bytes arrived as sent.
    pub tcp_alive: bool,
    /// The longest silence once the time is taken out that the VM itself stood still.
    pub gap_ms_max_beyond_pause: f64,
    /// What the lab was doing when the longest silence beyond a pause began.
    pub gap_during: String,
    /// The longest time that the VM stood still.
    pub pause_ms_max: f64,
    /// Packets that NVEs held and gave up.
    pub hold_dropped: u64,
    /// The most memory that an NVE's held packets took in one move, in bytes.
    pub hold_peak_bytes: u64,
    /// Arrivals that were not what was sent.
    pub corrupt: u64,
    /// Frames that this machine's own kernel dropped between guests and switches.
    pub kernel_drops: u64,
    /// TCP bytes carried, both ways together.
    pub tcp_bytes: u64,
    /// What went wrong with TCP.
    pub tcp_error: Option<String>,
    /// Probes from the moving VM.
    pub from_v: Stream,
    /// Probes to the moving VM.
    pub to_v: Stream,
    /// Move by move.
    pub timeline: Vec<MoveLine>,
    /// The lab's id.
    pub lab: String,
    /// Switches had hugepages.
    pub hugepages: bool,
    /// The switches' workers.
    pub workers: String,
    /// Forwarding in flight was on.
    pub forward_in_flight: bool,
    /// Nothing may be reordered: switches mark the ends of their paths, and the NVA answers at once (R77).
    pub ordered: bool,
    /// What all switches count as forwarded in flight, a second after the last move.
    pub forwarded_by_switches: u64,
    /// What they forward in the 0.3 s from then on, under traffic (R48).
    pub forwarded_late: u64,
    /// What the first switch forwarded in flight as tshark sees it on its wire, where that was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relayed: Option<Relayed>,
    /// What was seen of the gateway and of the ways of packets, where v and p are in subnets of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routing>,
    /// When the VM stood still.
    #[serde(skip)]
    pub(super) pauses: Vec<Gap>,
}

impl Run {
    /// Puts together what was measured; `tcp_went_on` is whether TCP was seen to progress after every move.
    pub fn new(inner: u8, outer: u8, moves: &[Moved], talk: &Talk, tcp_went_on: bool) -> Run {
        let both = |f: fn(&Stream) -> u64| f(&talk.a_to_b) + f(&talk.b_to_a);
        let pauses: Vec<Gap> = moves.iter().filter_map(|m| m.paused).collect();
        let beyond = [&talk.a_to_b, &talk.b_to_a].map(|s| s.gap_ms_beyond(&pauses));
        let carried = || moves.iter().flat_map(|m| [m.carried(true), m.carried(false)]);
        let tcp = talk.tcp.as_ref();
        Run {
            inner,
            outer,
            moves: moves.iter().filter(|m| m.done()).count(),
            sent: both(|s| s.sent),
            received: both(|s| s.received),
            lost: both(|s| s.lost),
            duplicated: both(|s| s.duplicated),
            reordered: both(|s| s.reordered),
            gap_ms_max: round(talk.a_to_b.gap_ms_max.max(talk.b_to_a.gap_ms_max)),
            held: carried().map(|c| c.held).sum(),
            forwarded: carried().map(|c| c.forwarded).sum(),
            tcp_alive: tcp_went_on && tcp.is_none_or(|t| t.alive),
            gap_ms_max_beyond_pause: round(beyond[0].max(beyond[1])),
            gap_during: during(moves, [&talk.a_to_b, &talk.b_to_a], &pauses),
            pause_ms_max: round(moves.iter().map(Moved::pause_ms).fold(0.0, f64::max)),
            hold_dropped: carried().map(|c| c.dropped).sum(),
            hold_peak_bytes: carried().map(|c| c.peak_bytes).max().unwrap_or_default(),
            corrupt: both(|s| s.corrupt),
            kernel_drops: 0,
            tcp_bytes: tcp.map_or(0, |t| t.bytes),
            tcp_error: tcp.and_then(|t| t.error.clone()),
            from_v: talk.a_to_b.clone(),
            to_v: talk.b_to_a.clone(),
            timeline: moves.iter().zip(1..).map(|(m, n)| MoveLine::new(n, m)).collect(),
            lab: String::new(),
            hugepages: false,
            workers: String::new(),
            forward_in_flight: true,
            ordered: true,
            forwarded_by_switches: 0,
            forwarded_late: 0,
            relayed: None,
            routed: None,
            pauses,
        }
    }

    /// Nothing lost, duplicated, damaged or (where order is kept) reordered, TCP alive, and no fault seen on the wire
    /// where that was looked at.
    pub fn is_faultless(&self) -> bool {
        let seen = self.relayed.as_ref().is_none_or(Relayed::is_right);
        let routed = self.routed.as_ref().is_none_or(Routing::is_right);
        let whole = self.lost == 0 && self.duplicated == 0 && self.corrupt == 0;
        let in_order = !self.ordered || self.reordered == 0;
        whole && in_order && self.tcp_alive && seen && routed
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        format!(
            "{} probes sent, {} lost, {} duplicated, {} reordered; TCP carried {:.1} MB and is {}; holds took {:.1} MB \
             at most",
            thousands(self.sent),
            thousands(self.lost),
            thousands(self.duplicated),
            thousands(self.reordered),
            self.tcp_bytes as f64 / 1e6,
            if self.tcp_alive { "alive" } else { "DEAD" },
            self.hold_peak_bytes as f64 / 1e6,
        )
    }
}

/// What came of all combinations, with so many moves.
pub fn verdict(runs: &[Run], moves: u32) -> String {
    if !runs.iter().all(Run::is_faultless) {
        return "FAILED: see the lines above; each failed run says where its logs are.".into();
    }
    let order = match runs.iter().map(|r| r.reordered).sum() {
        0 => "nothing reordered".to_owned(),
        n => format!("{} reordered", thousands(n)),
    };
    format!(
        "PASSED: {moves} hot moves, nothing lost, nothing duplicated, {order}, every TCP connection alive."
    )
}

/// What happened when the longest silence beyond a pause began.
fn during(moves: &[Moved], streams: [&Stream; 2], pauses: &[Gap]) -> String {
    let longest = streams.iter().filter_map(|s| s.longest_beyond(pauses)).max_by_key(|l| l.1);
    let Some((gap, _)) = longest else { return "at no time".into() };
    let at = moves.iter().zip(1..).find_map(|(m, n)| m.part_at(gap.from_ns).map(|part| (n, part)));
    if let Some((n, part)) = at {
        return format!("in move {n}, {part}");
    }
    let ended = |m: &Moved| m.parts.last().map_or(u64::MAX, |p| p.1);
    let before = moves.iter().zip(1..).take_while(|(m, _)| ended(m) <= gap.from_ns).last();
    before.map_or("before the first move".into(), |(m, n)| {
        format!("{:.0} ms after move {n} was over", ms(gap.from_ns - ended(m)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A talk in which `lost` packets to the moving VM got lost.
    fn talk(lost: u64) -> Talk {
        let stream = |lost| Stream { sent: 100, received: 100 - lost, lost, ..Stream::default() };
        Talk { a_to_b: stream(0), b_to_a: stream(lost), tcp: None }
    }

    #[test]
    fn json_has_what_programs_rely_on() {
        let run = serde_json::to_value(Run::new(4, 6, &[], &talk(3), true)).unwrap();
        let numbers = ["inner", "outer", "moves", "sent", "received", "lost", "duplicated", "reordered"];
        for key in numbers.iter().chain(&["gap_ms_max", "held", "forwarded"]) {
            assert!(run[key].is_number(), "{key}: {run}");
        }
        assert_eq!(
            (run["sent"].as_u64(), run["received"].as_u64(), run["lost"].as_u64()),
            (Some(200), Some(197), Some(3))
        );
        assert_eq!(run["tcp_alive"], true);
    }

    #[test]
    fn r77_a_run_is_faultless_only_without_loss_in_order_and_with_tcp() {
        assert!(Run::new(4, 4, &[], &talk(0), true).is_faultless());
        assert!(!Run::new(4, 4, &[], &talk(1), true).is_faultless());
        assert!(!Run::new(4, 4, &[], &talk(0), false).is_faultless());
        let early = Run { reordered: 1, ..Run::new(4, 4, &[], &talk(0), true) };
        let words = verdict(std::slice::from_ref(&early), 1);
        assert!(!early.is_faultless() && words.starts_with("FAILED"), "order is kept: {words}");
        let allowed = Run { ordered: false, ..early };
        assert!(allowed.is_faultless() && verdict(&[allowed], 1).contains("1 reordered"));
        let text = super::super::table(&[Run::new(4, 6, &[], &talk(1), true)]);
        assert!(text.contains("IPv6") && text.contains("alive"), "{text}");
    }
}

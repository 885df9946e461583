//! A receiver moves hot, leaves its groups and joins them again: how long the streams are silent, and for which NVEs
//! copies leave the sender's.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::stream::{ToGroup, group};
use super::{Ms, NVES, Plan, verdict};
use crate::agent::proto::{Gap, Request};
use crate::capture::Capture;
use crate::clock::{ms, now_ns, wall_us};
use crate::copies::{self, Copy};
use crate::lab::Lab;
use crate::lab::nve::Locator;
use crate::lab::topology::{GUEST, set_sysctls};
use crate::lab::vm::VmSpec;
use crate::mover::{How, Moved, hot_move};
use crate::scenario::interop::only;
use crate::traffic::Stream;

/// Who sends, who receives, and who only takes part in the VN.
const SENDER: &str = "p";
const RECEIVER: &str = "v";
const BYSTANDER: &str = "o";
/// The sender's switch, and the one without members.
const OF_SENDER: &str = NVES[2];
const WITHOUT: &str = NVES[3];
/// A query's answer comes within this time (the switch asks an arriving VM with one second).
const ANSWER_MS: f64 = 1000.0;
/// Who left is asked for twice, a second apart (RFC 3376 section 8.8, RFC 3810 section 9.8).
const LEAVE_MS: f64 = 2000.0;
/// What a busy machine may take beside, until all have heard of it.
const ROOM: Duration = Duration::from_millis(500);
/// Traffic before and after each move.
const AROUND: Duration = Duration::from_millis(1800);
/// A stream's end has been seen by then.
const LEFT: Duration = Duration::from_millis(3500);

/// What came of one outer IP version.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    outer: u8,
    /// The receiver's versions of both protocols.
    igmp: u8,
    mld: u8,
    moves: Vec<Line>,
    leaves: Vec<Leave>,
    /// Of the IPv4 group, and of the IPv6 group.
    streams: [Stream; 2],
    /// Ranges of lost packets that belong to no move and no leave.
    unexplained: usize,
    /// Copies that left the sender's switch for others, by their names.
    copies: Vec<(&'static str, usize)>,
    passed: bool,
}

impl Run {
    pub fn is_right(&self) -> bool {
        self.passed
    }
}

/// A move.
#[derive(Debug, Serialize)]
struct Line {
    n: usize,
    from: String,
    to: String,
    done: bool,
    pause_ms: f64,
    /// Silence at the receiver, of the IPv4 group and of the IPv6 group.
    gap_ms: [f64; 2],
    /// From the pause to the last copy for the old NVE; nothing where none came after the pause.
    old_last_ms: Option<Ms>,
    /// From the end of the move to that.
    old_beyond_ms: Option<Ms>,
    /// From the pause to the first copy for the new NVE.
    new_first_ms: Option<Ms>,
}

/// The receiver left a group and joined it again.
#[derive(Debug, Serialize)]
struct Leave {
    family: u8,
    /// From the leave to the last copy for its NVE; nothing where none came.
    stopped_ms: Option<Ms>,
    /// From the join to the first packet.
    joined_ms: f64,
    /// The other stream went on.
    other_went_on: bool,
}

/// When things were done, for the capture.
struct Timed {
    moved: Moved,
    /// The wall clock when the move was over.
    over_us: u64,
}

struct Left {
    stream: usize,
    left_us: u64,
    until_us: u64,
    /// By the monotonic clock, until packets came again.
    absent: Gap,
    joined: Duration,
    other_went_on: bool,
}

/// Carries it out over one outer IP version.
///
/// # Errors
/// Where any step fails.
pub(super) fn run(lab: &mut Lab, plan: Plan) -> Result<Run> {
    let (igmp, mld) = if plan.outer == 4 { (3, 2) } else { (2, 1) };
    println!(
        "\n  outer IPv{}: p at c sends {} packets a second to each of {} and {}; v speaks IGMPv{igmp} and MLDv{mld}",
        plan.outer,
        plan.rate,
        group(false),
        group(true)
    );
    lab.start_vm(VmSpec::numbered(SENDER, 20), OF_SENDER)?;
    lab.start_vm(VmSpec::numbered(BYSTANDER, 30), WITHOUT)?;
    lab.start_vm(VmSpec::numbered(RECEIVER, 10), NVES[0])?;
    speak(&lab.namespace(RECEIVER), igmp, mld)?;
    let capture = Capture::start(&lab.namespace("net"), &format!("u-{OF_SENDER}"), &lab.dir)?;
    let ends = (SENDER, RECEIVER);
    let streams = [ToGroup::open(lab, false, plan.rate, ends)?, ToGroup::open(lab, true, plan.rate, ends)?];
    lab.vm(SENDER)?.agent.order(&Request::Run)?;
    sleep(AROUND);
    let mut moves = Vec::new();
    for n in 0..plan.moves as usize {
        let moved = hot_move(lab, RECEIVER, NVES[(n + 1) % 2], &format!("group-{n}"), How::default())?;
        moves.push(Timed { moved, over_us: wall_us() });
        sleep(AROUND);
    }
    let mut leaves = Vec::new();
    for which in 0..streams.len() {
        leaves.push(leave(lab, &streams, which)?);
    }
    lab.vm(SENDER)?.agent.order(&Request::Stop)?;
    sleep(ROOM);
    let judged = [streams[0].judge(lab)?, streams[1].judge(lab)?];
    let copies = copies::read(&capture.end_in_file()?)?;
    lab.check_processes()?;
    let run = Judged { plan, lab_v6: plan.outer == 6, copies, moves, leaves, streams: judged };
    Ok(run.judge((igmp, mld)))
}

/// Has a guest's kernel speak these versions.
fn speak(namespace: &str, igmp: u8, mld: u8) -> Result<()> {
    set_sysctls(
        namespace,
        &[
            (&format!("net/ipv4/conf/{GUEST}/force_igmp_version"), &igmp.to_string()),
            (&format!("net/ipv6/conf/{GUEST}/force_mld_version"), &mld.to_string()),
        ],
    )
}

fn leave(lab: &mut Lab, streams: &[ToGroup; 2], which: usize) -> Result<Left> {
    let (this, other) = (&streams[which], &streams[1 - which]);
    let (from_ns, left_us) = (now_ns(), wall_us());
    this.set_member(lab, false)?;
    sleep(LEFT);
    let until_us = wall_us();
    let before = other.received(lab)?.received;
    this.set_member(lab, true)?;
    let joined = this.wait_for_more(lab)?;
    sleep(AROUND);
    let other_went_on = other.received(lab)?.received > before;
    let absent = Gap::between(from_ns, now_ns());
    Ok(Left { stream: which, left_us, until_us, absent, joined, other_went_on })
}

/// All that was seen.
struct Judged {
    plan: Plan,
    lab_v6: bool,
    copies: Vec<Copy>,
    moves: Vec<Timed>,
    leaves: Vec<Left>,
    streams: [Stream; 2],
}

impl Judged {
    fn judge(self, (igmp, mld): (u8, u8)) -> Run {
        let moves: Vec<Line> = (0..self.moves.len()).map(|n| self.line(n)).collect();
        let mut passed = true;
        for line in &moves {
            passed &= line.judge();
        }
        let leaves: Vec<Leave> = self.leaves.iter().map(|l| self.left(l)).collect();
        for leave in &leaves {
            passed &= leave.judge();
        }
        let unexplained = self.unexplained();
        for (v6, s) in [(false, &self.streams[0]), (true, &self.streams[1])] {
            let text = format!(
                "group {}: {} sent, {} received, {} lost while v moved or was no member, {} duplicated",
                group(v6),
                s.sent,
                s.received,
                s.lost,
                s.duplicated
            );
            passed &= verdict(s.received > 0 && s.duplicated == 0 && s.corrupt == 0, &text);
        }
        passed &= verdict(unexplained == 0, &format!("{unexplained} losses at other times"));
        let count = |nve: &str| self.copies.iter().filter(|c| c.to == self.locator(nve)).count();
        let copies = [NVES[0], NVES[1], WITHOUT].map(|nve| (nve, count(nve)));
        let text: Vec<String> = copies.iter().map(|(nve, n)| format!("{n} to {nve}")).collect();
        let strangers = self.copies.len() - copies.iter().map(|c| c.1).sum::<usize>();
        let text = format!("copies that left c: {}, {strangers} to others", text.join(", "));
        passed &= verdict(count(WITHOUT) == 0 && strangers == 0 && count(NVES[0]) > 0, &text);
        let (outer, streams, copies) = (self.plan.outer, self.streams, copies.to_vec());
        Run { outer, igmp, mld, moves, leaves, streams, unexplained, copies, passed }
    }

    fn locator(&self, nve: &str) -> IpAddr {
        let number = NVES.iter().zip(1..).find(|(n, _)| **n == nve).map_or(0, |(_, number)| number);
        only(Locator::numbered(number, !self.lab_v6, self.lab_v6))
    }

    /// When copies for an NVE left between two times.
    fn to(&self, nve: &str, from_us: u64, until_us: u64) -> impl DoubleEndedIterator<Item = &Copy> {
        let to = self.locator(nve);
        self.copies.iter().filter(move |c| c.to == to && (from_us..until_us).contains(&c.at_us))
    }

    fn line(&self, at: usize) -> Line {
        let Timed { moved, over_us } = &self.moves[at];
        let paused_us = moved.paused_wall_us;
        let next = self.moves.get(at + 1).map_or(u64::MAX, |next| next.moved.paused_wall_us);
        let first_leave = self.leaves.first().map_or(u64::MAX, |l| l.left_us);
        let until = next.min(first_leave);
        let old_last = self.to(&moved.from, paused_us, until).next_back().map(|c| c.at_us);
        let new_first = self.to(&moved.to, paused_us, until).next().map(|c| c.at_us);
        Line {
            n: at + 1,
            from: moved.from.clone(),
            to: moved.to.clone(),
            done: moved.done(),
            pause_ms: moved.pause_ms(),
            gap_ms: [0, 1].map(|s| self.gap(s, moved).map_or(0.0, |g| ms(g.length_ns()))),
            old_last_ms: old_last.map(|at| Ms::between(paused_us, at)),
            old_beyond_ms: old_last.map(|at| Ms::between(*over_us, at)),
            new_first_ms: new_first.map(|at| Ms::between(paused_us, at)),
        }
    }

    /// The longest silence of a stream that a move's pause is part of.
    fn gap(&self, stream: usize, moved: &Moved) -> Option<Gap> {
        let paused = moved.paused?;
        let around = |g: &&Gap| g.to_ns > paused.from_ns && g.from_ns < paused.to_ns;
        self.streams[stream].gaps.iter().filter(around).max_by_key(|g| g.length_ns()).copied()
    }

    fn left(&self, left: &Left) -> Leave {
        let group = group(left.stream == 1);
        let at = self.moves.last().map_or(NVES[0], |m| m.moved.to.as_str());
        let mut copies = self.to(at, left.left_us, left.until_us).filter(|c| c.group == group);
        Leave {
            family: if left.stream == 1 { 6 } else { 4 },
            stopped_ms: copies.next_back().map(|c| Ms::between(left.left_us, c.at_us)),
            joined_ms: left.joined.as_secs_f64() * 1000.0,
            other_went_on: left.other_went_on,
        }
    }

    /// Ranges of lost packets that were sent neither around a move's pause nor while the receiver was no member.
    fn unexplained(&self) -> usize {
        let room = ROOM.as_nanos() as u64;
        let in_stream = |which: usize| {
            let moves = self.moves.iter().filter_map(move |m| {
                let (paused, gap) = (m.moved.paused?, self.gap(which, &m.moved));
                Some(Gap::between(paused.from_ns - room, gap.map_or(paused.to_ns, |g| g.to_ns) + room))
            });
            let leaves = self.leaves.iter().filter(|l| l.stream == which).map(|l| l.absent);
            let leaves = leaves.map(|t| Gap::between(t.from_ns - room, t.to_ns + room));
            let times: Vec<Gap> = moves.chain(leaves).collect();
            let explained = |at: u64| times.iter().any(|t| (t.from_ns..t.to_ns).contains(&at));
            self.streams[which].missing.iter().filter(|m| !explained(m.sent_ns)).count()
        };
        in_stream(0) + in_stream(1)
    }
}

impl Line {
    fn judge(&self) -> bool {
        let room = ROOM.as_secs_f64() * 1000.0;
        let in_time = self.gap_ms.iter().all(|gap| gap - self.pause_ms <= ANSWER_MS + room);
        let ended = self.old_beyond_ms.is_none_or(|Ms(at)| at <= room);
        let old = self.old_last_ms.map_or("none".into(), |Ms(at)| format!("the last {at:.0} ms"));
        let new = self.new_first_ms.map_or("none".into(), |Ms(at)| format!("the first {at:.0} ms"));
        let text = format!(
            "move {} from {} to {}: pause {:.0} ms, silence {:.0} ms (IPv4) and {:.0} ms (IPv6); after the pause \
             copies to {}: {old}, to {}: {new}",
            self.n, self.from, self.to, self.pause_ms, self.gap_ms[0], self.gap_ms[1], self.from, self.to
        );
        verdict(self.done && in_time && ended && self.new_first_ms.is_some(), &text)
    }
}

impl Leave {
    fn judge(&self) -> bool {
        let room = ROOM.as_secs_f64() * 1000.0;
        let stopped = self.stopped_ms.map_or("at once".into(), |Ms(at)| format!("after {at:.0} ms"));
        let in_time = self.stopped_ms.is_none_or(|Ms(at)| at <= LEAVE_MS + room);
        let text = format!(
            "v leaves the IPv{} group: the stream ends {stopped}; it joins again: the stream comes after {:.0} ms; the \
             other stream {}",
            self.family,
            self.joined_ms,
            if self.other_went_on { "goes on" } else { "HAS ENDED" }
        );
        verdict(in_time && self.joined_ms <= ANSWER_MS + room && self.other_went_on, &text)
    }
}

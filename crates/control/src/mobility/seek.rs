//! A VM that is behind a port here, for all that anybody knows, is looked for until it is found.
//!
//! Whatever withdrew, closed or lost it: while a port of its has a link and lets it in, it is asked by its addresses,
//! soon and then every [`SLOWEST`], so that one which only answers is found as well as one that speaks. Its answer
//! counts as a first frame does (R18). Four phases lead here:
//!
//! | The VM | Asked |
//! |---|---|
//! | does not run here | on all its ports |
//! | is paused, for longer than frames of before may be under way | there, and on its other ports |
//! | runs, and has other ports | where it runs; on the others when it is silent there |
//! | runs on its only port | not at all |
//!
//! Who left or was refused has closed ports: there the directory's word, or a new link, comes first.

use std::net::{IpAddr, Ipv6Addr};

use godwit_model::VmKey;
use godwit_tables::update::PortIdx;
use godwit_wire::{Instant, Span};

use crate::io::Level;

use super::verify::{MAX_ASKED, asked_in_turn};
use super::{Action, Ctx, Pause, Phase, Vm};

/// Between the first questions.
const SOON: Span = Span::from_ms(500);
/// Between questions once they have grown slow. Three of them are less than the ten seconds in which a VM is found.
const SLOWEST: Span = Span::from_ms(3000);
/// A VM with several ports is asked so often where it runs.
const LOOK: Span = Span::from_ms(2000);
/// After so many questions each of its addresses was asked for, in less than the ten seconds likewise.
const TURNS: usize = 4;
/// Nobody's word makes it be asked more often than that.
const LEAST: Span = Span::from_ms(200);
/// A VM that is paused is asked after so long, whether it really is: no handover takes that long.
const PAUSE_ASK: Span = Span::from_ms(6000);

/// Questions to a VM that is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seek {
    next: Instant,
    /// When it was asked last.
    last: Instant,
    /// Questions since it was heard last.
    silent: u32,
}

impl Seek {
    pub(super) fn deadline(&self) -> Instant {
        self.next
    }
}

/// VMs that wait for the same event are not asked all at once: up to a quarter of a second apart.
fn spread(key: VmKey) -> Span {
    let n = key.mac.0.iter().fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(*b)));
    Span::from_ms(n % 250)
}

impl Vm {
    /// It may be behind this port and could answer.
    fn may_be_on(&self, port: PortIdx) -> bool {
        self.ports
            .get(&port)
            .is_some_and(|p| !p.is_closed() && p.link_up && !p.is_stopped() && !p.awaits_order())
    }

    fn other_ports(&self, than: Option<PortIdx>) -> impl Iterator<Item = PortIdx> + '_ {
        self.ports.keys().copied().filter(move |p| Some(*p) != than && self.may_be_on(*p))
    }

    /// The port that it is asked on first, if any, and whether it is to be looked for at all.
    fn is_sought(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Left => self.other_ports(None).next().is_some(),
            Phase::Paused(Pause { port, .. }) => {
                port.is_some_and(|p| self.ports.get(&p).is_some_and(|p| p.link_up && !p.is_stopped()))
                    || self.other_ports(port).next().is_some()
            }
            Phase::Running(run) => self.other_ports(Some(run.port)).next().is_some(),
            Phase::Refused(_) => false,
        }
    }

    /// Begins to look for it, or ends that, by where it stands now.
    pub(crate) fn follow_seek(&mut self, now: Instant) {
        if !self.is_sought() {
            self.seek = None;
        } else if self.seek.is_none() {
            let first = match self.phase {
                Phase::Paused(Pause { port: Some(_), .. }) => PAUSE_ASK,
                Phase::Running(_) => LOOK,
                _ => SOON,
            };
            self.seek = Some(Seek { next: now + first + spread(self.key), last: Instant(0), silent: 0 });
        }
    }

    /// Something says that it may be there: it is asked at once.
    pub(crate) fn seek_now(&mut self, cx: &mut Ctx<'_>) {
        if self.phase.is_running() || !self.is_sought() {
            return;
        }
        let seek = self.seek.get_or_insert(Seek { next: cx.now, last: Instant(0), silent: 0 });
        seek.next = seek.next.min(cx.now.max(seek.last + LEAST));
        self.seek_due(cx);
    }

    /// Asks, if it is time.
    pub(super) fn seek_due(&mut self, cx: &mut Ctx<'_>) {
        let Some(mut seek) = self.seek.filter(|s| s.next <= cx.now) else { return };
        if !cx.asks.take(cx.config.seek_rate, cx.now) {
            seek.next = cx.asks.next(cx.config.seek_rate, cx.now);
            self.seek = Some(seek);
            return;
        }
        let ports: Vec<PortIdx> = match self.phase {
            Phase::Running(run) if seek.silent < 2 => vec![run.port],
            Phase::Running(_) | Phase::Idle | Phase::Left => self.other_ports(None).collect(),
            Phase::Paused(pause) => {
                let own = pause.port.filter(|p| self.ports.get(p).is_some_and(|p| p.link_up));
                let own = own.filter(|_| pause.is_old(cx.now));
                own.into_iter().chain(self.other_ports(pause.port)).collect()
            }
            Phase::Refused(_) => Vec::new(),
        };
        let ips = self.asked_addresses(seek.silent, cx);
        seek.last = cx.now;
        seek.silent = seek.silent.saturating_add(1);
        let gap =
            if self.phase.is_running() { LOOK } else { Span(SOON.0 << seek.silent.min(8)).min(SLOWEST) };
        seek.next = cx.now + gap;
        self.seek = Some(seek);
        cx.actions.extend(ports.into_iter().map(|port| Action::Probe { port, ips: ips.clone() }));
    }

    /// What it is asked for after so many questions without an answer: some of what the directory has of it, or else
    /// the address that IPv6 makes of its MAC.
    fn asked_addresses(&self, silent: u32, cx: &Ctx<'_>) -> Vec<IpAddr> {
        let known = cx.record.map_or(0, |r| r.addresses().count());
        match cx.record.filter(|_| known > 0) {
            Some(r) => asked_in_turn(r, silent, known.div_ceil(TURNS).max(MAX_ASKED)),
            None => vec![link_local(self.key).into()],
        }
    }

    /// It answered on this port, where it does not run as far as we knew.
    pub(super) fn found_on(&mut self, port: PortIdx, cx: &mut Ctx<'_>) {
        if self.phase.running_on() == Some(port) {
            if let Some(s) = &mut self.seek {
                s.silent = 0;
            }
            return;
        }
        let paused_on_it = self.phase.pause().filter(|pause| pause.port == Some(port));
        let too_early = paused_on_it.is_some_and(|pause| !pause.is_old(cx.now));
        let refused = matches!(self.phase, Phase::Refused(_));
        if too_early || refused || !(paused_on_it.is_some() || self.may_be_on(port)) {
            return;
        }
        if self.phase.is_running() && !self.may_change_ports(cx) {
            return;
        }
        let name = self.ports.get(&port).map_or("", |p| p.name.as_str());
        cx.note(Level::Info, format!("port {name}: {} answers there: taken up again", self.key));
        self.activate(port, godwit_model::ClaimCause::FirstFrame, cx);
    }

    /// A VM with several ports goes to and fro as it likes, within bounds: one that speaks on all of them at once is
    /// followed some times a second.
    pub(super) fn may_change_ports(&mut self, cx: &mut Ctx<'_>) -> bool {
        let may = self.changes.take(cx.config.claim_rate, cx.now);
        if !may && cx.now >= self.quiet_until {
            self.quiet_until = cx.now + Span::from_ms(1000);
            let text = format!(
                "{} speaks on several ports at once and is followed a few times a second: its guest should use one of \
                 them at a time",
                self.key
            );
            cx.note(Level::Alarm, text);
        }
        may
    }

    /// The VM ran on its port when that lost its link: with the link it is back, unless somebody else has it by then.
    pub(super) fn keep_door(&mut self) {
        if let Phase::Paused(Pause { port: Some(port), .. }) = self.phase
            && let Some(p) = self.ports.get_mut(&port).filter(|p| !p.is_closed())
        {
            p.door = super::port::Door::Kept;
        }
    }
}

/// The link-local address that IPv6 makes of a MAC (RFC 4291 appendix A).
fn link_local(key: VmKey) -> Ipv6Addr {
    let m = key.mac.0;
    let part = |a: u8, b: u8| u16::from_be_bytes([a, b]);
    Ipv6Addr::new(0xfe80, 0, 0, 0, part(m[0] ^ 2, m[1]), part(m[2], 0xff), part(0xfe, m[3]), part(m[4], m[5]))
}

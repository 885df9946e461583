//! The NVEs that VXLAN is accepted from (R69): the members of a VN, those that linger or forward in it, foreign ones
//! that were defined, and those that left it, for what is in flight. And the others, that were refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_model::Locators;
use godwit_wire::{Bucket, Instant, Rate, Span, Vni};

use crate::io::Outputs;
use crate::view::StrangerView;

use super::{Nve, Timer};

/// Unknown senders that are remembered; of more, the one that was longest silent goes.
const STRANGERS: usize = 256;
/// How often one is an alarm.
const ALARM: Rate = Rate::every(Span::from_ms(60_000), 1);
/// Alarms of all of them.
const ALARMS: Rate = Rate::every(Span::from_ms(1_000), 8);

/// Somebody who sends to a VN that its NVE has no part in.
#[derive(Clone, Copy, Debug)]
struct Stranger {
    frames: u64,
    last: Instant,
    alarm: Bucket,
}

/// What is known of senders beside the members.
#[derive(Default, Debug)]
pub(super) struct Senders {
    /// Those that left, and until when they are accepted.
    left: BTreeMap<(Vni, IpAddr), Instant>,
    strangers: BTreeMap<(IpAddr, Vni), Stranger>,
    alarms: Bucket,
}

fn addresses(l: Locators) -> impl Iterator<Item = IpAddr> {
    l.v4.map(IpAddr::V4).into_iter().chain(l.v6.map(IpAddr::V6))
}

impl Nve {
    /// Who may send to the VN, after its members changed. That is known while the directory tells of it: who joins
    /// while the NVA is away cannot be told from a stranger, and its frames are not to be lost (R72).
    ///
    /// An NVE that routes sends what it has routed as of the VN of its destination, with or without a part in that
    /// (R58): VNs of one domain take from the members of all of them.
    pub(super) fn sync_senders(&mut self, vni: Vni) {
        if !self.config.check_senders {
            return;
        }
        let domains = self.mirror.domains.of_vn(vni).filter_map(|id| self.mirror.domains.get(id));
        let mut vnis: BTreeSet<Vni> = domains.flat_map(|d| d.domain.vns.iter().copied()).collect();
        vnis.insert(vni);
        let members = vnis.iter().map(|v| self.mirror.members(*v, &self.config.nve));
        let all: BTreeSet<IpAddr> = members.flat_map(BTreeMap::into_values).flat_map(addresses).collect();
        vnis.into_iter().for_each(|v| self.sync_senders_of(v, all.clone()));
        self.wait_for_senders();
    }

    fn sync_senders_of(&mut self, vni: Vni, mut wanted: BTreeSet<IpAddr>) {
        let Some(vn) = self.desired.vn(vni) else { return };
        let end = self.now + self.config.fwd_timer;
        for ip in self.desired.senders(vn).difference(&wanted) {
            // What it has sent is still under way, and what it forwards.
            self.senders.left.entry((vni, *ip)).or_insert(end);
        }
        let (first, last) = ((vni, FIRST), (vni, LAST));
        let over: Vec<(Vni, IpAddr)> = (self.senders.left.range(first..=last))
            .filter(|((_, ip), until)| wanted.contains(ip) || **until <= self.now)
            .map(|(at, _)| *at)
            .collect();
        for at in over {
            self.senders.left.remove(&at);
        }
        wanted.extend(self.senders.left.range(first..=last).map(|((_, ip), _)| *ip));
        self.desired.set_senders(vn, wanted, self.mirror.is_complete(vni));
    }

    /// The directory tells of no VN any more.
    pub(super) fn forget_who_sends(&mut self) {
        let vnis: Vec<Vni> = self.desired.vnis().collect();
        for vn in vnis.into_iter().filter_map(|vni| self.desired.vn(vni)).collect::<Vec<_>>() {
            self.desired.set_senders(vn, self.desired.senders(vn), false);
        }
    }

    fn wait_for_senders(&mut self) {
        let next = self.senders.left.values().min().copied();
        self.timers.set(Timer::Senders, next);
    }

    /// Some that left have had their time.
    pub(super) fn senders_due(&mut self) {
        let now = self.now;
        let vnis: BTreeSet<Vni> =
            self.senders.left.iter().filter(|(_, until)| **until <= now).map(|((vni, _), _)| *vni).collect();
        for vni in vnis {
            if self.desired.vn(vni).is_some() {
                self.sync_senders(vni);
            } else {
                self.senders.left.retain(|(v, _), _| *v != vni);
            }
        }
        self.wait_for_senders();
    }

    /// The VN is not ours any more.
    pub(super) fn forget_senders(&mut self, vni: Vni) {
        self.senders.left.retain(|(v, _), _| *v != vni);
    }

    /// A worker dropped frames of a sender that has no part in their VN.
    pub(super) fn unknown_sender(&mut self, vni: Vni, ip: IpAddr, frames: u64, out: &mut Outputs) {
        let now = self.now;
        let all = &mut self.senders.strangers;
        if all.len() >= STRANGERS && !all.contains_key(&(ip, vni)) {
            let oldest = all.iter().min_by_key(|(_, s)| s.last).map(|(at, _)| *at);
            if let Some(at) = oldest {
                all.remove(&at);
            }
        }
        let s = all.entry((ip, vni)).or_insert(Stranger { frames: 0, last: now, alarm: Bucket::default() });
        s.frames = s.frames.saturating_add(frames);
        s.last = now;
        let total = s.frames;
        if s.alarm.take(ALARM, now) && self.senders.alarms.take(ALARMS, now) {
            let text = format!(
                "{ip} sends VXLAN of VN {vni} and is no NVE that takes part in it: {total} frames dropped; find out \
                 who that is, or `godwitctl nve define` a foreign NVE"
            );
            self.alarm(text, out);
        }
    }

    /// Unknown senders, those that sent most first.
    pub fn unknown_senders(&self) -> Vec<StrangerView> {
        let view = |(&(ip, vni), s): (&(IpAddr, Vni), &Stranger)| StrangerView {
            ip,
            vni,
            frames: s.frames,
            ago_ms: self.now.since(s.last).as_ms(),
        };
        let mut all: Vec<StrangerView> = self.senders.strangers.iter().map(view).collect();
        all.sort_by_key(|s| core::cmp::Reverse(s.frames));
        all
    }
}

const FIRST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
const LAST: IpAddr = IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::MAX));

//! Groups of the underlay that carry a VN's broadcast and multicast beyond the limit of copies (R60).
//!
//! The switch is a member as a host is: it reports each group by the uplink that its packets leave by, at once, when
//! that changes, when a router asks, and every minute, so that switches and routers of the underlay keep it whatever
//! asks them to, and leaves it when no VN has it any more.

use std::hash::Hasher as _;
use std::net::IpAddr;

use fnv::FnvHasher;
use godwit_model::Locators;
use godwit_tables::update::PortIdx;
use godwit_wire::membership::{Version, Wish};
use godwit_wire::{Instant, Span, Vni, igmp, mld};

use crate::io::Outputs;

use super::sync::choose_remote;
use super::{Nve, Timer};

/// Between two reports: below half the time that a membership lasts at a querier with usual timers.
const REPORTS: Span = Span::from_ms(60_000);
/// The first report is said once more after so long, since it may be lost (RFC 2236 section 3).
const AGAIN: Span = Span::from_ms(1000);

impl Nve {
    /// The VN's group, in the family that its copies have where it has groups of both.
    pub(super) fn sync_underlay_group(&mut self, vni: Vni, out: &mut Outputs) {
        let Some(vn) = self.desired.vn(vni) else { return };
        let group = self.mirror.settings(vni).underlay_group;
        let groups = Locators { v4: group.v4, v6: group.v6 };
        let remote = choose_remote(self.underlay.locators(), groups, self.config.outer, None);
        let remote = remote.filter(IpAddr::is_multicast);
        let tunnel = remote.and_then(|remote| self.tunnel(remote, out));
        self.desired.set_underlay_group(vn, tunnel);
        self.join_underlay_groups(out);
    }

    /// Joins what VNs use and leaves what they do not.
    pub(super) fn join_underlay_groups(&mut self, out: &mut Outputs) {
        let wanted = self.desired.underlay_groups();
        if wanted.is_empty() && self.underlay_groups.is_empty() {
            return;
        }
        let by = |group: &IpAddr| Some((*group, self.underlay.hop(*group)?.uplink));
        let wanted: std::collections::BTreeMap<IpAddr, PortIdx> = wanted.iter().filter_map(by).collect();
        let old = core::mem::replace(&mut self.underlay_groups, wanted.clone());
        for (&group, &uplink) in old.iter().filter(|(group, by)| wanted.get(group) != Some(by)) {
            self.report_group(group, uplink, Wish::Left, out);
        }
        let mut joined = false;
        for (&group, &uplink) in wanted.iter().filter(|(group, by)| old.get(group) != Some(by)) {
            self.report_group(group, uplink, Wish::Member, out);
            joined = true;
        }
        if joined {
            self.timers.set(Timer::UnderlayGroups, Some(self.now + AGAIN));
        }
    }

    /// A router of the underlay asks for members of a group, or (the unspecified address) of all of its family. The
    /// answer is due at a time of this switch's own within the first half of `max_response`, so that not all switches
    /// answer at once.
    pub(super) fn underlay_asks(&mut self, uplink: PortIdx, group: IpAddr, max_response: Span) {
        let asked = |of: &IpAddr| match group.is_unspecified() {
            true => of.is_ipv4() == group.is_ipv4(),
            false => *of == group,
        };
        if !self.underlay_groups.iter().any(|(of, by)| *by == uplink && asked(of)) {
            return;
        }
        let mut hasher = FnvHasher::default();
        hasher.write(self.config.nve.as_str().as_bytes());
        hasher.write_u64(self.now.0);
        let at = self.now + Span(hasher.finish() % (max_response.0 / 2 + 1));
        let before = self.timers.get(Timer::UnderlayGroups).unwrap_or(Instant::NEVER);
        self.timers.set(Timer::UnderlayGroups, Some(at.min(before)));
    }

    /// Says again what is joined.
    pub(super) fn underlay_groups_due(&mut self, out: &mut Outputs) {
        let joined = self.underlay_groups.clone();
        for (&group, &uplink) in &joined {
            self.report_group(group, uplink, Wish::Member, out);
        }
        let next = (!joined.is_empty()).then_some(self.now + REPORTS);
        self.timers.set(Timer::UnderlayGroups, next);
    }

    /// In the older version, which every querier and every switch on the way understands.
    fn report_group(&self, group: IpAddr, uplink: PortIdx, wish: Wish, out: &mut Outputs) {
        let Some(spec) = self.underlay.uplink(uplink) else { return };
        let eth_src = spec.mac;
        let mut buf = [0; mld::MAX_FRAME_LEN];
        let len = match (group, spec.v4) {
            (IpAddr::V4(group), Some(own)) => {
                igmp::ReportFrame { eth_src, src: own.addr, group, wish, version: Version::Igmp2 }
                    .emit_frame(&mut buf)
            }
            (IpAddr::V6(group), _) => {
                let src = spec.v6_link_local.unwrap_or(eth_src.link_local());
                mld::ReportFrame { eth_src, src, group, wish, version: Version::Mld1 }.emit_frame(&mut buf)
            }
            (IpAddr::V4(_), None) => return,
        };
        if let Ok(len) = len {
            out.frames.push((uplink, buf[..len].to_vec()));
        }
    }
}

//! What the VM of a port may call its own, as the workers are to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use godwit_tables::sources::MAX_SOURCES;
use godwit_tables::update::{PortIdx, PrefixKind, SourceRule, SourceRules, Update};
use godwit_wire::{Mac, Prefix};

/// Nobody has said what the VM has.
const UNSAID: SourceRules =
    SourceRules { v4: SourceRule::Any, v6: SourceRule::Any, link_local: SourceRule::Any };

/// All that a port's VM may call its own beside the MAC that the port was made for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bindings {
    /// Addresses that it may send from (R65).
    pub(crate) sources: BTreeSet<IpAddr>,
    /// What it may bind beside these (R93).
    pub(crate) rules: SourceRules,
    /// Its nested MACs, and the virtual ones, which it shares (R92, R94).
    pub(crate) macs: BTreeMap<Mac, bool>,
    /// What it routes for (R94).
    pub(crate) routed: BTreeSet<Prefix>,
    /// What it shares with others (R92).
    pub(crate) shared: BTreeSet<Prefix>,
    /// It may speak as a router and as a DHCP server (R66).
    pub(crate) server: bool,
}

impl Default for Bindings {
    fn default() -> Bindings {
        Bindings {
            sources: BTreeSet::new(),
            rules: UNSAID,
            macs: BTreeMap::new(),
            routed: BTreeSet::new(),
            shared: BTreeSet::new(),
            server: false,
        }
    }
}

impl Bindings {
    /// What leads from `old` to this. A VM whose addresses change is in between bound to more, not to none; where the
    /// workers have no room for both, and in lists that may be empty, what goes makes room first.
    pub(crate) fn updates(&self, port: PortIdx, old: &Bindings) -> Vec<Update> {
        let mut all = Vec::new();
        let changed = |from: &Bindings, to: &Bindings| {
            let unlike = |(mac, shared): &(&Mac, &bool)| to.macs.get(mac) != Some(shared);
            from.macs.iter().filter(unlike).map(|(mac, shared)| (*mac, *shared)).collect::<Vec<_>>()
        };
        all.extend(changed(old, self).into_iter().map(|(mac, _)| Update::MacRemove { port, mac }));
        all.extend(changed(self, old).into_iter().map(|(mac, shared)| Update::MacSet { port, mac, shared }));
        let prefixes = [
            (&self.routed, &old.routed, PrefixKind::Routed),
            (&self.shared, &old.shared, PrefixKind::Shared),
        ];
        for (new, old, kind) in prefixes {
            all.extend(old.difference(new).map(|&prefix| Update::PrefixRemove { port, prefix, kind }));
            all.extend(new.difference(old).map(|&prefix| Update::PrefixSet { port, prefix, kind }));
        }
        let gone = old.sources.difference(&self.sources).map(|&ip| Update::SourceRemove { port, ip });
        let (first, last) = match self.fits_beside(old) {
            true => (Vec::new(), gone.collect()),
            false => (gone.collect(), Vec::new()),
        };
        all.extend::<Vec<_>>(first);
        all.extend(self.sources.difference(&old.sources).map(|&ip| Update::SourceSet { port, ip }));
        if self.rules != old.rules {
            all.push(Update::SourceRulesSet { port, rules: self.rules });
        }
        if self.server != old.server {
            all.push(Update::ServerSet { port, server: self.server });
        }
        all.extend::<Vec<_>>(last);
        all
    }

    /// Workers have room for the addresses of both.
    fn fits_beside(&self, old: &Bindings) -> bool {
        let all = || self.sources.union(&old.sources);
        let v4 = all().filter(|ip| ip.is_ipv4()).count();
        v4.max(all().count() - v4) <= MAX_SOURCES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_tables::update::{Admission, PortRole, VnIdx};
    use godwit_tables::{Tables, TablesConfig};
    use godwit_wire::{Instant, Vni};

    const PORT: PortIdx = PortIdx(1);

    /// `n` of everything, beginning with number `from`.
    fn many(from: u32, n: u32, addresses: u32) -> Bindings {
        let mac = |i: u32| Mac::from_u64(0x0200_0000_0000 + u64::from(i));
        let prefix = |i: u32| Prefix::new(IpAddr::from([10, (i >> 8) as u8, i as u8, 0]), 24).unwrap();
        Bindings {
            sources: (from..from + addresses).map(|i| IpAddr::V4((0xc633_0000 + i).into())).collect(),
            rules: SourceRules { v4: SourceRule::Listed { room: 0 }, ..UNSAID },
            macs: (from..from + 2 * n).map(|i| (mac(i), false)).collect(),
            routed: (from..from + n).map(prefix).collect(),
            shared: (from..from + n).map(prefix).collect(),
            server: false,
        }
    }

    #[test]
    fn r92_r94_full_lists_are_replaced_by_full_ones() {
        let (old, new) = (many(0, 32, 320), many(1000, 32, 320));
        let half = many(16, 32, 320);
        for (old, new) in [(&Bindings::default(), &old), (&old, &new), (&old, &half), (&half, &old)] {
            let mut tables = Tables::new(&TablesConfig::default());
            let vn = VnIdx(0);
            let now = Instant(0);
            let _ = tables.apply(
                Update::VnSet { vn, vni: Vni::new(100).unwrap(), mtu: 1500, transparent_vlan: false },
                now,
            );
            let own = Mac([2, 0xff, 0, 0, 0, 1]);
            let role = PortRole::Access { vn, mac: own, admission: Admission::Activated };
            let _ = tables.apply(Update::PortSet { port: PORT, role }, now);
            let steps = old.updates(PORT, &Bindings::default()).into_iter().chain(new.updates(PORT, old));
            let refused: Vec<_> = steps.filter_map(|update| tables.apply(update, now)).collect();
            assert_eq!(refused.len(), 0, "{:?}", refused.first());
        }
    }
}

//! What the VM of a port may call its own, as the workers are to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
    /// What leads from `old` to this. New things first: in between, a VM whose addresses change is bound to more, not
    /// to none.
    pub(crate) fn updates(&self, port: PortIdx, old: &Bindings) -> Vec<Update> {
        let mut all = Vec::new();
        let new_macs = self.macs.iter().filter(|(mac, shared)| old.macs.get(mac) != Some(shared));
        all.extend(new_macs.map(|(&mac, &shared)| Update::MacSet { port, mac, shared }));
        let prefixes = [
            (&self.routed, &old.routed, PrefixKind::Routed),
            (&self.shared, &old.shared, PrefixKind::Shared),
        ];
        for (new, old, kind) in prefixes {
            all.extend(new.difference(old).map(|&prefix| Update::PrefixSet { port, prefix, kind }));
        }
        all.extend(self.sources.difference(&old.sources).map(|&ip| Update::SourceSet { port, ip }));
        if self.rules != old.rules {
            all.push(Update::SourceRulesSet { port, rules: self.rules });
        }
        if self.server != old.server {
            all.push(Update::ServerSet { port, server: self.server });
        }
        all.extend(old.sources.difference(&self.sources).map(|&ip| Update::SourceRemove { port, ip }));
        for (new, old, kind) in prefixes {
            all.extend(old.difference(new).map(|&prefix| Update::PrefixRemove { port, prefix, kind }));
        }
        let gone = old.macs.keys().filter(|mac| !self.macs.contains_key(mac));
        all.extend(gone.map(|&mac| Update::MacRemove { port, mac }));
        all
    }
}

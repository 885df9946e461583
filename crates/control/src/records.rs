//! What records are made of and what a change of one touches.

use std::collections::BTreeSet;
use std::net::IpAddr;

use godwit_model::{Location, Version, VmKey, VmRecord};
use godwit_wire::Mac;

/// What a record's change touches.
#[derive(Clone, Default, Debug)]
pub(crate) struct Touched {
    pub(crate) ips: BTreeSet<IpAddr>,
    /// Beside the VM's own.
    pub(crate) macs: BTreeSet<Mac>,
}

impl Touched {
    pub(crate) fn of(record: &VmRecord) -> Touched {
        Touched::default().and(record)
    }

    #[must_use]
    pub(crate) fn and(mut self, record: &VmRecord) -> Touched {
        self.ips.extend(record.addresses().map(|(ip, _)| ip));
        self.macs.extend(record.macs().skip(1));
        self
    }
}

/// A record of the configuration file.
pub(crate) fn static_record(key: VmKey, location: Location, ips: &[IpAddr], router: bool) -> VmRecord {
    let mut v4: Vec<_> =
        ips.iter().filter_map(|ip| if let IpAddr::V4(a) = ip { Some(*a) } else { None }).collect();
    let mut v6: Vec<_> =
        ips.iter().filter_map(|ip| if let IpAddr::V6(a) = ip { Some(*a) } else { None }).collect();
    v4.sort_unstable();
    v6.sort_unstable();
    VmRecord {
        name: String::new(),
        key,
        ipv4: v4,
        ipv6: v6,
        bindings: Some(location).into(),
        version: Version::ZERO,
        router,
        router_pinned: true,
        allowed: Default::default(),
        bound: Default::default(),
        no_override: Vec::new(),
        frozen: false,
        policy: None,
        pinned: false,
        moving: None,
        standby: None,
        pause: None,
        former: None,
    }
}

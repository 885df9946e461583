//! Who the guests are, and their ports.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_frontend::{Guest, Settings};
use godwit_wire::Mac;

use super::driver::Driver;
use super::{AWAY, HOME};
use crate::lab::Lab;
use crate::lab::vm::{Network, VmSpec};

/// Guests at the other switch, each of which talks to one here.
pub(super) const REMOTE: u32 = 4;
/// Who asks all others whether they are there.
pub(super) const ASKER: u32 = 0;
/// Guests that have not been found say once more that they are there, so often.
const AGAIN: Duration = Duration::from_secs(1);

/// Guests by number: those at the switch of the many, and then those at the other one.
#[derive(Clone, Copy)]
pub(super) struct Roster {
    here: u32,
}

impl Roster {
    /// So many guests at the switch of the many.
    pub(super) fn new(here: u32) -> Roster {
        Roster { here }
    }

    /// All guests.
    pub(super) fn all(self) -> Range<u32> {
        0..self.here + REMOTE
    }

    /// The last guests at the switch of the many.
    pub(super) fn last(self, count: u32) -> Range<u32> {
        self.here - count..self.here
    }

    /// Who talks to whom, both ways: pairs of the first guests here but the one that asks, and after them one here with
    /// each elsewhere.
    pub(super) fn flows(self, pairs: u32) -> Vec<(u32, u32)> {
        let first = ASKER + 1;
        let here = (0..pairs).map(|n| (first + 2 * n, first + 2 * n + 1));
        let there = (0..REMOTE).map(|n| (first + 2 * pairs + n, self.here + n));
        here.chain(there).flat_map(|(a, b)| [(a, b), (b, a)]).collect()
    }

    /// A guest's MAC address.
    pub(super) fn mac(self, n: u32) -> Mac {
        let [_, _, high, low] = n.to_be_bytes();
        Mac([0x02, 0x67, 0x78, 0, high, low])
    }

    /// A guest's address.
    pub(super) fn ip(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0ac8_0001 + n)
    }

    /// A guest as the directory has it.
    pub(super) fn spec(self, n: u32) -> VmSpec {
        let (name, mac, ips) = (format!("g{n}"), self.mac(n), vec![self.ip(n).into()]);
        VmSpec { name, mac, ips, vn: Network::default() }
    }

    fn home(self, n: u32) -> &'static str {
        if n < self.here { HOME } else { AWAY }
    }

    fn socket(self, lab: &Lab, n: u32) -> PathBuf {
        lab.dir.join(format!("g{n}.vhost"))
    }

    /// Adds a guest's port.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub(super) fn plug(self, lab: &Lab, n: u32) -> Result<()> {
        let VmSpec { name, mac, vn, .. } = self.spec(n);
        let devargs = format!("net_vhost{n},iface={}", self.socket(lab, n).display());
        let port = v1::AddPort { name, devargs, vni: vn.vni, mac: mac.to_u64(), ..Default::default() };
        lab.nve(self.home(n))?.admin.ask(Ask::AddPort(port)).map(drop)
    }

    /// Removes a guest's port.
    ///
    /// # Errors
    /// Where the switch refuses.
    pub(super) fn unplug(self, lab: &Lab, n: u32) -> Result<()> {
        let order = v1::RemovePort { name: format!("g{n}") };
        lab.nve(self.home(n))?.admin.ask(Ask::RemovePort(order)).map(drop)
    }

    /// Starts a guest at its port.
    ///
    /// # Errors
    /// Where its switch does not take it.
    pub(super) fn connect(self, lab: &Lab, n: u32, settings: &Settings) -> Result<Guest> {
        Guest::connect(&self.socket(lab, n), settings).with_context(|| format!("guest g{n}"))
    }

    /// Waits until the directory has all guests at home and their ports are active. Guests announce themselves, and
    /// again while they are not found.
    ///
    /// # Errors
    /// Where that takes too long.
    pub(super) fn wait_active(self, lab: &mut Lab, driver: &Driver, patience: Duration) -> Result<()> {
        let start = Instant::now();
        let mut missing: BTreeSet<u32> = self.all().collect();
        let mut told = None;
        while !missing.is_empty() {
            if told.is_none_or(|at: Instant| at.elapsed() > AGAIN) {
                driver.announce(missing.iter().copied().collect())?;
                told = Some(Instant::now());
            }
            std::thread::sleep(Duration::from_millis(50));
            lab.check_processes()?;
            missing = self.missing(lab)?;
            if start.elapsed() > patience && !missing.is_empty() {
                bail!("{} guests are not found and active after {patience:?}: {missing:?}", missing.len());
            }
        }
        Ok(())
    }

    /// Guests that the directory does not have at home, or whose ports are not active.
    fn missing(self, lab: &Lab) -> Result<BTreeSet<u32>> {
        let list = lab.nva.operator.list_vms(v1::ListVmsRequest::default())?.vms;
        let number = |name: &str| name.strip_prefix('g')?.parse::<u32>().ok();
        let at_home = |vm: &v1::VmRecord| {
            let n = number(&vm.name)?;
            (vm.location.as_ref()?.nve == self.home(n)).then_some(n)
        };
        let located: BTreeSet<u32> = list.iter().filter_map(at_home).collect();
        let mut active = BTreeSet::new();
        for switch in [HOME, AWAY] {
            let ports = lab.nve(switch)?.admin.ports()?;
            active.extend(ports.iter().filter(|p| p.state == "activated").filter_map(|p| number(&p.name)));
        }
        Ok(self.all().filter(|n| !located.contains(n) || !active.contains(n)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_talks_does_not_leave() {
        let roster = Roster::new(500);
        let talkers: BTreeSet<u32> = roster.flows(20).into_iter().flat_map(|(a, b)| [a, b]).collect();
        assert_eq!(talkers.len(), 48);
        assert!(roster.last(300).all(|n| !talkers.contains(&n)));
        assert!(talkers.iter().filter(|n| **n >= 500).count() == 4 && roster.all().end == 504);
        assert!(!talkers.contains(&ASKER));
        assert_eq!(
            (roster.mac(499), roster.ip(255)),
            (Mac([2, 0x67, 0x78, 0, 1, 0xf3]), [10, 200, 1, 0].into())
        );
    }
}

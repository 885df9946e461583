//! What a device rests on outside of DPDK, by which its disappearance is noticed: drivers say little of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::devices::is_pci;
use crate::kernel::{self, Interfaces};
use crate::presence::Sight;

/// What a device rests on.
#[derive(Clone, Debug)]
pub enum Watched {
    /// Nothing that could go by itself.
    Nothing,
    /// A kernel's interface; its number when the device was opened, once that is known.
    Interface {
        /// Its name.
        name: String,
        /// Its number.
        index: Option<u32>,
    },
    /// A tap that the driver makes: one of the process's files that lead to it. Wherever the interface was moved and
    /// however it was renamed, the file leads to it.
    Tap {
        /// Its name when it was made.
        name: String,
        /// The file's number.
        file: u32,
    },
    /// A card, by its PCI address, and DPDK's word that it was removed.
    Pci {
        /// The address.
        address: String,
        /// DPDK reported the removal.
        removed: Arc<AtomicBool>,
    },
}

impl Watched {
    /// What the device of these arguments, which was just opened, rests on.
    pub fn of(driver: &str, devargs: &str) -> Watched {
        let address = devargs.split(',').next().unwrap_or_default();
        if let Some(name) = kernel::kernel_link(driver, devargs) {
            return Watched::Interface { name, index: None };
        }
        if driver == "net_tap"
            && let Some(name) = argument(devargs, "iface")
            && let Some(file) = kernel::tap_file(Path::new("/proc/self"), name)
        {
            return Watched::Tap { name: name.to_owned(), file };
        }
        if is_pci(devargs) {
            // As the kernel writes it.
            let domain = if address.matches(':').count() == 1 { "0000:" } else { "" };
            let address = format!("{domain}{address}").to_lowercase();
            return Watched::Pci { address, removed: Arc::default() };
        }
        Watched::Nothing
    }

    /// The device is about to be opened, with the kernel's `interfaces` as they were read last: one that is made
    /// meanwhile is another one.
    pub fn note(&mut self, interfaces: &Interfaces) {
        if let Watched::Interface { name, index } = self {
            *index = interfaces.get(name).copied();
        }
    }

    /// What there is to be seen, with the kernel's `interfaces`, which are empty until they have been read; `None` for
    /// what cannot go, or where nothing can be told.
    pub fn look(&mut self, interfaces: &Interfaces) -> Option<Sight> {
        match self {
            Watched::Nothing => None,
            Watched::Interface { .. } if interfaces.is_empty() => None,
            Watched::Interface { name, index } => {
                let now = interfaces.get(name).copied();
                let opened = *index.get_or_insert(now.unwrap_or_default());
                Some(Sight { same: now == Some(opened), any: now.is_some() })
            }
            Watched::Tap { file, .. } => {
                let same = kernel::is_tap_file(Path::new("/proc/self"), *file);
                // The driver makes it anew.
                Some(Sight { same, any: true })
            }
            Watched::Pci { address, removed } => {
                let any = Path::new("/sys/bus/pci/devices").join(address).exists();
                Some(Sight { same: any && !removed.load(Ordering::Acquire), any })
            }
        }
    }
}

impl std::fmt::Display for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Watched::Nothing => f.write_str("device"),
            Watched::Interface { name, .. } => write!(f, "interface {name}"),
            Watched::Tap { name, .. } => write!(f, "tap {name}"),
            Watched::Pci { address, .. } => write!(f, "card {address}"),
        }
    }
}

fn argument<'a>(devargs: &'a str, key: &str) -> Option<&'a str> {
    devargs.split(',').find_map(|arg| arg.trim().strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_an_interface_is_the_one_that_was_opened_by_its_number() {
        let mut w = Watched::of("net_af_packet", "net_af_packet0,iface=up0");
        assert_eq!(w.to_string(), "interface up0");
        assert_eq!(w.look(&Interfaces::new()), None, "the kernel was not asked yet");
        let has = |index| Interfaces::from([("lo".to_owned(), 1), ("up0".to_owned(), index)]);
        let none = Interfaces::from([("lo".to_owned(), 1)]);
        assert_eq!(w.look(&has(7)), Some(Sight { same: true, any: true }));
        assert_eq!(w.look(&none), Some(Sight { same: false, any: false }));
        assert_eq!(w.look(&has(9)), Some(Sight { same: false, any: true }), "another one of its name");
        let mut again = Watched::of("net_af_packet", "net_af_packet0,iface=up0");
        again.note(&has(9));
        assert_eq!(
            again.look(&has(11)),
            Some(Sight { same: false, any: true }),
            "made anew while it was opened"
        );
        // One that was gone before it was looked at for the first time.
        let mut w = Watched::of("net_af_xdp", "net_af_xdp0,iface=up0");
        assert_eq!(w.look(&none), Some(Sight { same: false, any: false }));
    }

    #[test]
    fn r18_a_card_is_known_by_its_address() {
        let address = |devargs: &str| match Watched::of("net_mlx5", devargs) {
            Watched::Pci { address, .. } => address,
            other => panic!("{other:?}"),
        };
        assert_eq!(address("0000:03:00.0"), "0000:03:00.0");
        assert_eq!(address("AF:00.1,rxq_cqe_comp_en=0"), "0000:af:00.1");
        let mut w = Watched::of("net_e1000", "ffff:ff:1f.7");
        assert_eq!(w.look(&Interfaces::new()), Some(Sight { same: false, any: false }));
        assert!(matches!(Watched::of("net_null", "net_null0"), Watched::Nothing));
        assert!(matches!(Watched::of("net_vhost", "net_vhost0,iface=/run/x"), Watched::Nothing));
    }
}

//! What a switch lets be done to it, by its own file (D2).

use std::path::Path;

use godwit_api::v1::admin_request::Kind;
use godwit_model::{DevargsRefusal, DevargsRule, check_devargs};

use super::orders::Origin;
use crate::config::{DEVARGS_RELAYED, Nve};

/// Why an order is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It came by way of the NVA.
    #[error(
        "switch {nve} takes no changes by way of the NVA: order it at its admin socket (`godwitctl --socket PATH`), or \
         set nve.relayed_changes in its file"
    )]
    Relayed {
        /// The switch.
        nve: String,
    },
    /// The port's device.
    #[error("port {port:?} of {devargs:?}: {why}")]
    Devargs {
        /// The port.
        port: String,
        /// Its device.
        devargs: String,
        /// What is not allowed.
        why: Box<DevargsRefusal>,
    },
}

/// The order only looks; each kind is named, so that none is forgotten.
fn looks(kind: &Kind) -> bool {
    match kind {
        Kind::GetStatus(_)
        | Kind::ListPorts(_)
        | Kind::GetCounters(_)
        | Kind::Trace(_)
        | Kind::ListEntries(_)
        | Kind::GetPerf(_)
        | Kind::GetPlacement(_)
        | Kind::GetUnderlay(_)
        | Kind::GetRoutes(_) => true,
        Kind::AddPort(_)
        | Kind::RemovePort(_)
        | Kind::PausePort(_)
        | Kind::ActivatePort(_)
        | Kind::MovePort(_)
        | Kind::SetPlacement(_)
        | Kind::Rebalance(_)
        | Kind::SetVmState(_) => false,
    }
}

/// Whether the order may be carried out.
///
/// # Errors
/// Names the key of the file that would let it.
pub fn check(nve: &Nve, origin: Origin, kind: &Kind) -> Result<(), Refusal> {
    let relayed = origin == Origin::Relayed;
    if relayed && !nve.relayed_changes && !looks(kind) {
        return Err(Refusal::Relayed { nve: nve.id.clone() });
    }
    let Kind::AddPort(port) = kind else { return Ok(()) };
    let default;
    let rules: &[DevargsRule] = match &nve.devargs_allow {
        Some(rules) => rules,
        None if !relayed => return Ok(()),
        None => {
            default = DEVARGS_RELAYED.iter().filter_map(|r| r.parse().ok()).collect::<Vec<_>>();
            &default
        }
    };
    devargs(&port.devargs, rules).map_err(|why| Refusal::Devargs {
        port: port.name.clone(),
        devargs: port.devargs.clone(),
        why: Box::new(why),
    })
}

/// By the list, and by where its paths lead.
fn devargs(devargs: &str, rules: &[DevargsRule]) -> Result<(), DevargsRefusal> {
    let resolve = |path: &Path| std::fs::canonicalize(path);
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    check_devargs(devargs, rules)?.iter().try_for_each(|path| path.check(resolve, is_there))
}

#[cfg(test)]
mod tests {
    use godwit_api::v1;

    use super::*;

    fn add(devargs: &str) -> Kind {
        let (name, devargs) = ("p".into(), devargs.into());
        Kind::AddPort(v1::AddPort { name, devargs, ..Default::default() })
    }

    fn refused(nve: &Nve, origin: Origin, kind: &Kind) -> String {
        check(nve, origin, kind).unwrap_err().to_string()
    }

    #[test]
    fn d2_the_default_list_can_be_read() {
        for rule in DEVARGS_RELAYED {
            rule.parse::<DevargsRule>().unwrap();
        }
    }

    #[test]
    fn d2_changes_by_way_of_the_nva_take_the_switchs_own_word() {
        let mut nve = Nve { id: "a".into(), ..Nve::default() };
        let pause = Kind::PausePort(v1::PausePort::default());
        let status = Kind::GetStatus(v1::GetStatus {});
        for kind in [&add("net_tap0,iface=tap0"), &pause, &Kind::RemovePort(v1::RemovePort::default())] {
            let text = refused(&nve, Origin::Relayed, kind);
            assert!(
                text.contains("switch a takes no changes") && text.contains("nve.relayed_changes"),
                "{text}"
            );
            assert!(check(&nve, Origin::Local, kind).is_ok(), "its admin socket is root's");
        }
        assert!(check(&nve, Origin::Relayed, &status).is_ok(), "who looks is answered");
        nve.relayed_changes = true;
        assert!(check(&nve, Origin::Relayed, &pause).is_ok());
        assert!(check(&nve, Origin::Relayed, &add("net_tap0,iface=tap0")).is_ok());
    }

    #[test]
    fn d2_devargs_take_the_list() {
        let mut nve = Nve { relayed_changes: true, ..Nve::default() };
        for bad in ["net_pcap8,tx_pcap=/any/file", "net_af_packet0,iface=eth0", "0000:03:00.0"] {
            let text = refused(&nve, Origin::Relayed, &add(bad));
            assert!(text.contains(bad) && text.contains("nve.devargs_allow"), "{text}");
            assert!(check(&nve, Origin::Local, &add(bad)).is_ok(), "root may, where no list says otherwise");
        }
        nve.devargs_allow = Some(vec!["net_null".parse().unwrap()]);
        for origin in [Origin::Local, Origin::Relayed] {
            assert!(check(&nve, origin, &add("net_null0")).is_ok());
            assert!(refused(&nve, origin, &add("net_tap0,iface=tap0")).contains("nve.devargs_allow"));
        }
    }

    #[test]
    fn d2_a_link_in_the_list_s_directory_does_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("in");
        std::fs::create_dir(&here).unwrap();
        std::os::unix::fs::symlink("/etc", here.join("out")).unwrap();
        let rule = format!("net_vhost: iface={}/", here.display());
        let nve = Nve { devargs_allow: Some(vec![rule.parse().unwrap()]), ..Nve::default() };
        let of = |name: &str| add(&format!("net_vhost0,iface={}/{name}", here.display()));
        assert!(check(&nve, Origin::Local, &of("new.sock")).is_ok());
        assert!(refused(&nve, Origin::Local, &of("out/new.sock")).contains("leads to /etc/new.sock"));
    }
}

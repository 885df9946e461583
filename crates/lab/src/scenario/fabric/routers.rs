//! Routers of the fabric: FRR's zebra and bgpd in a namespace, as processes of the lab.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Group, User};

use crate::cmd;
use crate::lab::process::Process;

const FRR: &str = "/usr/lib/frr";
/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Hold time of a BGP session, in seconds. At the least that is usual, three times the keepalive interval, a busy
/// machine ends sessions that are well.
pub const HOLD_S: u64 = 9;

/// What a router's bgpd is told.
pub struct Bgp {
    /// Its AS.
    pub asn: u32,
    /// Its name among routers.
    pub id: Ipv4Addr,
    /// Neighbors: address and AS.
    pub neighbors: Vec<(Ipv4Addr, u32)>,
    /// Prefixes that it announces.
    pub networks: Vec<String>,
}

impl Bgp {
    fn text(&self) -> String {
        let mut text = format!(
            "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
             bgp bestpath as-path multipath-relax\n timers bgp 1 {HOLD_S}\n",
            self.asn, self.id
        );
        for (ip, asn) in &self.neighbors {
            text += &format!(
                " neighbor {ip} remote-as {asn}\n neighbor {ip} advertisement-interval 0\n \
                 neighbor {ip} timers connect 1\n"
            );
        }
        text += " address-family ipv4 unicast\n  maximum-paths 8\n";
        for network in &self.networks {
            text += &format!("  network {network}\n");
        }
        text + " exit-address-family\n"
    }
}

/// A running pair of zebra and bgpd.
pub struct Router {
    // Ended in this order.
    bgpd: Process,
    zebra: Process,
    namespace: String,
    dir: PathBuf,
}

impl Router {
    /// Whether FRR is here.
    ///
    /// # Errors
    /// It is not; says what to do.
    pub fn available() -> Result<()> {
        let there = Path::new(FRR).join("bgpd").is_file();
        ensure!(there, "FRR is missing: ./scripts/run --scenario fabric installs it (Debian's package frr)");
        Ok(())
    }

    /// Starts both in `namespace`; their files are in a new directory below `dir`.
    ///
    /// # Errors
    /// Where one does not start.
    pub fn start(name: &str, namespace: &str, bgp: &Bgp, dir: &Path) -> Result<Router> {
        let dir = dir.join(format!("frr-{name}"));
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let (zebra_conf, bgp_conf) = (dir.join("zebra.conf"), dir.join("bgpd.conf"));
        fs::write(&zebra_conf, format!("hostname {name}\n"))?;
        fs::write(&bgp_conf, format!("hostname {name}\n{}", bgp.text()))?;
        // The daemons give their rights up and go on as this user.
        let user = User::from_name("frr")?.context("FRR is installed, but there is no user frr")?;
        let group = Group::from_name("frr")?.context("FRR is installed, but there is no group frr")?;
        for path in [&dir, &zebra_conf, &bgp_conf] {
            chown(path, Some(user.uid.as_raw()), Some(group.gid.as_raw()))?;
        }
        let daemon = |program: &str, conf: &Path| {
            let mut command = cmd::in_namespace(namespace, Path::new(FRR).join(program));
            command.arg("-f").arg(conf).arg("-i").arg(dir.join(format!("{program}.pid")));
            command.arg("-z").arg(dir.join("zserv.api")).arg("--vty_socket").arg(&dir);
            // No terminal by TCP, and the log where the lab's are.
            command.args(["-P", "0", "--log", "stdout"]);
            Process::start(&format!("{program}-{name}"), command, &dir)
        };
        let mut zebra = daemon("zebra", &zebra_conf)?;
        wait_for(&dir.join("zserv.api"), &mut zebra)?;
        let mut bgpd = daemon("bgpd", &bgp_conf)?;
        wait_for(&dir.join("bgpd.vty"), &mut bgpd)?;
        Ok(Router { bgpd, zebra, namespace: namespace.into(), dir })
    }

    /// Carries out lines of its configuration.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn configure(&self, lines: &[&str]) -> Result<()> {
        let mut args = vec!["--vty_socket".to_owned(), self.dir.display().to_string()];
        for line in std::iter::once(&"configure terminal").chain(lines) {
            args.extend(["-c".to_owned(), (*line).to_owned()]);
        }
        cmd::run_in(&self.namespace, "vtysh", &args).map(drop)
    }

    /// How many next hops its kernel has for a prefix.
    ///
    /// # Errors
    /// Where the system does not tell.
    pub fn next_hops(&self, prefix: &str) -> Result<usize> {
        let text = cmd::run_in(&self.namespace, "ip", &["route", "show", prefix])?;
        Ok(text.split_whitespace().filter(|w| *w == "via").count())
    }

    /// Fails where a daemon has ended by itself.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        self.zebra.check()?;
        self.bgpd.check()
    }
}

fn wait_for(path: &Path, process: &mut Process) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !path.exists() {
        process.check()?;
        if Instant::now() > give_up {
            bail!("{} is not there after {PATIENCE:?}\n{}", path.display(), process.tail(15));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_and_networks_stand_in_the_configuration() {
        let bgp = Bgp {
            asn: 65001,
            id: Ipv4Addr::new(192, 0, 2, 1),
            neighbors: vec![(Ipv4Addr::new(10, 0, 1, 0), 65011)],
            networks: vec!["192.0.2.1/32".into()],
        };
        let text = bgp.text();
        for line in ["router bgp 65001", " neighbor 10.0.1.0 remote-as 65011", "  network 192.0.2.1/32"] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}

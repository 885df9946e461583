//! The switch at the other end of a bond: Open vSwitch in its userspace datapath, in a namespace and a directory of
//! its own, since the kernel may have neither bonds nor VLANs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cmd;
use crate::lab::process::Process;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long its daemons may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running Open vSwitch with one bridge.
pub struct Partner {
    // Ended in this order.
    vswitchd: Process,
    _ovsdb: Process,
    dir: PathBuf,
}

impl Partner {
    /// Starts it in `namespace`; its files are in a new directory below `dir`.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(namespace: &str, dir: &Path) -> Result<Partner> {
        let dir = dir.join("ovs");
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = |name: &str| dir.join(name).display().to_string();
        cmd::run("ovsdb-tool", &["create", &path("conf.db"), SCHEMA])?;
        let daemon = |program: &str, args: &[String]| {
            let mut command = cmd::in_namespace(namespace, program);
            command.args(args);
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, &dir);
            }
            Process::start(program, command, &dir)
        };
        let socket = format!("unix:{}", path("db.sock"));
        let control = |name: &str| format!("--unixctl={}", path(name));
        let ovsdb =
            daemon("ovsdb-server", &[path("conf.db"), format!("--remote=p{socket}"), control("db.ctl")])?;
        wait_for(&dir.join("db.sock"))?;
        let init = |dir: &Path| vsctl(dir, "--no-wait init");
        init(&dir)?;
        let vswitchd = daemon("ovs-vswitchd", &[socket.clone(), control("vs.ctl")])?;
        let mut partner = Partner { vswitchd, _ovsdb: ovsdb, dir };
        wait_for(&partner.dir.join("vs.ctl")).or_else(|e| partner.vswitchd.check().and(Err(e)))?;
        let bridge = partner.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
        bridge.or_else(|e| partner.vswitchd.check().and(Err(e)))?;
        Ok(partner)
    }

    /// Makes two of its namespace's interfaces a bond with LACP, flows spread by addresses and ports, that carries
    /// all VLANs, tagged.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn bond(&self, legs: [&str; 2]) -> Result<()> {
        let [a, b] = legs;
        self.vsctl(&format!(
            "add-bond br0 bond0 {a} {b} bond_mode=balance-tcp lacp=active other_config:lacp-time=fast"
        ))
        .map(drop)
    }

    /// Adds an interface whose frames have no tag and are in `vlan`.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn access(&self, interface: &str, vlan: u16) -> Result<()> {
        self.vsctl(&format!("add-port br0 {interface} tag={vlan}")).map(drop)
    }

    /// What it says of its bond.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn lacp(&self) -> Result<String> {
        let target = self.dir.join("vs.ctl").display().to_string();
        cmd::run("ovs-appctl", &["-t", &target, "lacp/show"])
    }

    fn vsctl(&self, line: &str) -> Result<String> {
        vsctl(&self.dir, line)
    }
}

fn vsctl(dir: &Path, line: &str) -> Result<String> {
    let front = [format!("--db=unix:{}", dir.join("db.sock").display()), "--timeout=30".into()];
    let words = line.split_whitespace().map(str::to_owned);
    cmd::run("ovs-vsctl", &front.into_iter().chain(words).collect::<Vec<_>>())
}

fn wait_for(file: &Path) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !file.exists() {
        if Instant::now() > give_up {
            bail!("{} does not appear in {PATIENCE:?}", file.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

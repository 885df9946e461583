//! OVS-DPDK as Debian has it between two guests, in directories of its own: what [`super::guest_tso`]
//! and [`super::compare`] measure beside the switch.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use godwit_wire::Mac;

use crate::cmd;
use crate::lab::process::Process;

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long its daemons may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A learning bridge with two vhost-user ports.
pub struct Ovs {
    // Ended in this order.
    _vswitchd: Process,
    _ovsdb: Process,
    dir: PathBuf,
    /// The ports' sockets, where QEMU connects.
    pub sockets: [PathBuf; 2],
}

/// OVS-DPDK is installed.
pub fn is_there() -> bool {
    Path::new(VSWITCHD).is_file()
}

impl Ovs {
    /// Starts it in a namespace with its polling thread on the cores of `mask`, which sleeps like an idle
    /// worker of ours.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(namespace: &str, dir: &Path, mask: &str, idle_sleep_us: u32) -> Result<Ovs> {
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
            let name = program.rsplit('/').next().unwrap_or(program);
            Process::start(name, command, &dir)
        };
        let socket = format!("unix:{}", path("db.sock"));
        let control = |name: &str| format!("--unixctl={}", path(name));
        let ovsdb =
            daemon("ovsdb-server", &[path("conf.db"), format!("--remote=p{socket}"), control("db.ctl")])?;
        wait_for(&dir.join("db.sock"))?;
        let vsctl = |line: String| {
            let front = [format!("--db={socket}"), "--timeout=30".into()];
            let words = line.split_whitespace().map(str::to_owned);
            cmd::run("ovs-vsctl", &front.into_iter().chain(words).collect::<Vec<_>>())
        };
        vsctl("--no-wait init".into())?;
        vsctl(format!(
            "--no-wait set Open_vSwitch . other_config:dpdk-init=true other_config:pmd-cpu-mask={mask} \
             other_config:pmd-maxsleep={idle_sleep_us} other_config:dpdk-socket-mem=512 \
             other_config:dpdk-extra=--no-pci"
        ))?;
        let mut vswitchd = daemon(VSWITCHD, &[socket.clone(), control("vs.ctl")])?;
        wait_for(&dir.join("vs.ctl")).or_else(|e| vswitchd.check().and(Err(e)))?;
        vsctl("add-br br0 -- set bridge br0 datapath_type=netdev".into())?;
        for port in ["vm0", "vm1"] {
            vsctl(format!("add-port br0 {port} -- set interface {port} type=dpdkvhostuser"))?;
        }
        let sockets = ["vm0", "vm1"].map(|port| dir.join(port));
        sockets.iter().try_for_each(|s| wait_for(s))?;
        Ok(Ovs { _vswitchd: vswitchd, _ovsdb: ovsdb, dir, sockets })
    }

    /// Adds an interface of the system's to the bridge.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn add_port(&self, interface: &str) -> Result<()> {
        let database = format!("--db=unix:{}", self.dir.join("db.sock").display());
        cmd::run("ovs-vsctl", &[&database, "--timeout=30", "add-port", "br0", interface]).map(drop)
    }

    /// What is for `mac` goes to both ports from now on, whatever the bridge has learned.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn clone_to_both(&self, mac: Mac) -> Result<()> {
        // Ports have numbers in the order in which they were added.
        self.flow("add-flow", &format!("priority=100,dl_dst={mac},actions=output:1,output:2"))
    }

    /// The bridge's own decision again.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn no_clones(&self, mac: Mac) -> Result<()> {
        self.flow("del-flows", &format!("dl_dst={mac}"))
    }

    fn flow(&self, what: &str, flow: &str) -> Result<()> {
        let bridge = format!("unix:{}", self.dir.join("br0.mgmt").display());
        cmd::run("ovs-ofctl", &[what, &bridge, flow]).map(drop)
    }
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

//! OVS-DPDK as Debian has it for guests, in directories of its own: what [`super::guest_tso`] and
//! [`super::compare`] measure beside the switch.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_wire::Mac;

use crate::cmd;
use crate::lab::VNI;
use crate::lab::process::Process;

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long its daemons may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// MiB of hugepages of one; three have room beside each other.
const MEMORY_MB: u32 = 256;
/// Numbers of its ports in flows: the first guest's, the first wire's and the first tunnel's.
const GUEST: u32 = 1;
const WIRE: u32 = 10;
const TUNNEL: u32 = 20;

/// What one OVS is to have.
pub struct OvsSpec<'a> {
    /// Its name among the OVSs of a lab.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Where its directory is made.
    pub dir: &'a Path,
    /// The cores of its polling threads, as a mask, and for how many microseconds they sleep when idle, like a worker
    /// of ours.
    pub cores: (&'a str, u32),
    /// vhost-user ports of its bridge.
    pub guests: u32,
    /// Interfaces of the namespace that its threads poll, by the driver that our uplinks have.
    pub wires: &'a [&'a str],
}

/// A running OVS with a learning bridge.
pub struct Ovs {
    // Ended in this order.
    vswitchd: Process,
    _ovsdb: Process,
    namespace: String,
    dir: PathBuf,
    wires: Vec<String>,
    tunnels: u32,
    /// The sockets of the vhost-user ports, where QEMU connects.
    pub sockets: Vec<PathBuf>,
}

/// An OVS's place in the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locator {
    /// Its tunnels' address.
    pub ip: IpAddr,
    /// The interface's that has it.
    pub mac: Mac,
}

/// OVS-DPDK is installed.
pub fn is_there() -> bool {
    Path::new(VSWITCHD).is_file()
}

impl Ovs {
    /// Starts it.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(spec: &OvsSpec<'_>) -> Result<Ovs> {
        let dir = spec.dir.join(format!("ovs-{}", spec.name));
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let path = |name: &str| dir.join(name).display().to_string();
        cmd::run("ovsdb-tool", &["create", &path("conf.db"), SCHEMA])?;
        let daemon = |program: &str, args: &[String]| {
            let mut command = cmd::in_namespace(spec.namespace, program);
            command.args(args);
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, &dir);
            }
            let name = program.rsplit('/').next().unwrap_or(program);
            Process::start(&format!("{name}-{}", spec.name), command, &dir)
        };
        let socket = format!("unix:{}", path("db.sock"));
        let control = |name: &str| format!("--unixctl={}", path(name));
        let ovsdb =
            daemon("ovsdb-server", &[path("conf.db"), format!("--remote=p{socket}"), control("db.ctl")])?;
        wait_for(&dir.join("db.sock"))?;
        vsctl(&dir, "--no-wait init")?;
        settings(&dir, spec)?;
        let mut vswitchd = daemon(VSWITCHD, &[socket.clone(), control("vs.ctl")])?;
        wait_for(&dir.join("vs.ctl")).or_else(|e| vswitchd.check().and(Err(e)))?;
        let ports: Vec<String> = (0..spec.guests).map(|n| format!("vm{n}")).collect();
        let mut ovs = Ovs {
            vswitchd,
            _ovsdb: ovsdb,
            namespace: spec.namespace.into(),
            wires: spec.wires.iter().map(|w| (*w).into()).collect(),
            tunnels: 0,
            sockets: ports.iter().map(|port| dir.join(port)).collect(),
            dir,
        };
        let bridge = ovs.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
        // It ends where there is no memory: that says more than a database that nobody answers.
        bridge.or_else(|e| ovs.vswitchd.check().and(Err(e)))?;
        for (n, port) in (GUEST..).zip(&ports) {
            ovs.add_port("br0", port, &format!("type=dpdkvhostuser ofport_request={n}"))?;
        }
        ovs.sockets.iter().try_for_each(|s| wait_for(s))?;
        Ok(ovs)
    }

    /// Connects one of its wires to the bridge.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn add_wire(&self, interface: &str) -> Result<()> {
        self.wire("br0", interface)
    }

    /// Gives it a place in the underlay, by a bridge with one of its wires.
    ///
    /// # Errors
    /// Where OVS or the system refuses.
    pub fn add_locator(&self, interface: &str, at: Locator) -> Result<()> {
        self.vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other_config:hwaddr={}",
            at.mac
        ))?;
        self.wire("br-phy", interface)?;
        let lines = [format!("address add {}/24 dev br-phy", at.ip), "link set br-phy up".into()];
        cmd::ip_batch(&self.namespace, &lines)
    }

    /// Adds a tunnel to another one to the bridge; the first is number 0.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn add_tunnel(&mut self, to: Locator) -> Result<()> {
        let (n, Locator { ip, mac }) = (self.tunnels, to);
        let options = format!("type=vxlan options:remote_ip={ip} options:key={VNI}");
        self.add_port("br0", &format!("vx{n}"), &format!("{options} ofport_request={}", TUNNEL + n))?;
        self.tunnels += 1;
        // As it comes it asks for the address when the first frame is there, which then is lost.
        let target = self.dir.join("vs.ctl").display().to_string();
        let set = ["-t", &target, "tnl/neigh/set", "br-phy", &ip.to_string(), &mac.to_string()];
        cmd::run("ovs-appctl", &set).map(drop)
    }

    /// What is for `mac` goes to all its vhost-user ports from now on, whatever the bridge has learned.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn to_all_guests(&self, mac: Mac) -> Result<()> {
        self.output(mac, (GUEST..).take(self.sockets.len()))
    }

    /// The same with all its tunnels.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn to_all_tunnels(&self, mac: Mac) -> Result<()> {
        self.output(mac, TUNNEL..TUNNEL + self.tunnels)
    }

    /// The bridge's own decision again.
    ///
    /// # Errors
    /// Where OVS refuses.
    pub fn as_learned(&self, mac: Mac) -> Result<()> {
        self.flow("del-flows", &format!("dl_dst={mac}"))
    }

    fn output(&self, mac: Mac, ports: impl Iterator<Item = u32>) -> Result<()> {
        let outputs: Vec<String> = ports.map(|n| format!("output:{n}")).collect();
        self.flow("add-flow", &format!("priority=100,dl_dst={mac},actions={}", outputs.join(",")))
    }

    fn flow(&self, what: &str, flow: &str) -> Result<()> {
        let bridge = format!("unix:{}", self.dir.join("br0.mgmt").display());
        cmd::run("ovs-ofctl", &[what, &bridge, flow]).map(drop)
    }

    fn wire(&self, bridge: &str, interface: &str) -> Result<()> {
        let n = self.wires.iter().position(|w| w == interface);
        let n = n.with_context(|| format!("OVS was started without the wire {interface}"))?;
        let request = WIRE + u32::try_from(n)?;
        let device = format!("type=dpdk options:dpdk-devargs=net_af_packet{n} ofport_request={request}");
        self.add_port(bridge, &format!("wire{n}"), &device)
    }

    /// Adds a port. OVS takes in whatever it is told: whether it has become a port, its number says.
    fn add_port(&self, bridge: &str, port: &str, settings: &str) -> Result<()> {
        self.vsctl(&format!("add-port {bridge} {port} -- set interface {port} {settings}"))?;
        let number = self.vsctl(&format!("get interface {port} ofport"))?;
        let is_port = number.trim().parse::<i64>().is_ok_and(|n| n > 0);
        ensure!(is_port, "OVS makes no port of {port} ({settings}); see {}", self.dir.display());
        Ok(())
    }

    fn vsctl(&self, line: &str) -> Result<String> {
        vsctl(&self.dir, line)
    }
}

fn settings(dir: &Path, spec: &OvsSpec<'_>) -> Result<()> {
    let wire =
        |(n, wire): (usize, &&str)| format!(" --vdev=net_af_packet{n},iface={wire},qpairs=1,framecnt=4096");
    let wires: String = spec.wires.iter().enumerate().map(wire).collect();
    let (mask, sleep) = spec.cores;
    let settings = [
        "dpdk-init=true".into(),
        format!("pmd-cpu-mask={mask}"),
        format!("pmd-maxsleep={sleep}"),
        format!("dpdk-socket-mem={MEMORY_MB}"),
        // It would take all that there are for its buffers.
        format!("dpdk-socket-limit={MEMORY_MB}"),
        // In memory: several at once do not share files.
        format!("dpdk-extra=\"--no-pci --in-memory{wires}\""),
    ];
    let mut args = vec![database(dir), "--no-wait".into(), "set".into(), "Open_vSwitch".into(), ".".into()];
    args.extend(settings.iter().map(|s: &String| format!("other_config:{s}")));
    cmd::run("ovs-vsctl", &args).map(drop)
}

fn database(dir: &Path) -> String {
    format!("--db=unix:{}", dir.join("db.sock").display())
}

fn vsctl(dir: &Path, line: &str) -> Result<String> {
    let front = [database(dir), "--timeout=30".into()];
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

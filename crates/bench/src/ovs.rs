//! OVS-DPDK as Debian has it, with one OpenFlow rule a destination, in directories of its own: an OVS
//! that the machine uses is not touched.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_lab::cmd;
use godwit_lab::lab::process::Process;

use crate::ends::{self, Ends, NEXT_HOP, PLAYER_MAC, VNI};
use crate::peer::{Measured, Peer, Site};
use crate::plan::{Case, Row};
use crate::routed::{self, FAR_VNI, GATEWAY};

const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// Most buffers that OVS gives ports of one MTU; a capture that takes more cannot be played to it.
const MAX_BUFFERS: usize = 262_144;
/// Most rules that it is given; how long it would take to have more ready was not tried.
const MAX_RULES: u32 = 100_000;
/// MiB that such a pool takes, and some for OVS itself.
const MEMORY_MB: usize = 1024;
/// How long its daemons may take to start.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// OpenFlow numbers of the tunnel and of the VM's port.
const TUNNEL: u32 = 10;
const ACCESS: u32 = 11;

/// The running daemons.
pub struct Ovs {
    // Ended in this order.
    vswitchd: Process,
    _ovsdb: Process,
    dir: PathBuf,
}

/// MiB of memory that it needs for a row.
pub fn memory_mb(ends: &Ends) -> usize {
    if ends.row.longest() > 2048 { 2 * MEMORY_MB } else { MEMORY_MB }
}

/// Why OVS has no such row.
pub fn cannot(ends: &Ends) -> Option<String> {
    let (frames, row) = (ends.captured(), ends.row);
    if frames + 16_384 > MAX_BUFFERS {
        let why = format!("OVS gives its ports {MAX_BUFFERS} buffers; {row} needs {frames} for the capture");
        return Some(format!("{why} alone"));
    }
    let why = || format!("OVS is given {MAX_RULES} rules at most, and {row} is one a destination");
    (row.destinations > MAX_RULES).then(why)
}

impl Ovs {
    /// Starts it and lets it see the row's frames until its caches are as full as they get.
    ///
    /// # Errors
    /// Where it is not installed or does not start.
    pub fn start(site: &Site, ends: &Ends) -> Result<Ovs> {
        ensure!(
            PathBuf::from(VSWITCHD).is_file(),
            "{VSWITCHD} is not there: apt-get install openvswitch-switch-dpdk"
        );
        let dir = site.dir.join("ovs");
        // What an earlier row left is of no use; mostly there is nothing.
        let _ = fs::remove_dir_all(&dir);
        for link in ["br-phy", "br-int", "ovs-netdev"] {
            let _ = cmd::run("ip", &["-n", &site.namespace, "link", "del", link]);
        }
        fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let db = dir.join("conf.db");
        cmd::run("ovsdb-tool", &[c("create"), db.display().to_string(), c(SCHEMA)])?;
        let daemon = |name: &str, program: &str, args: &[String]| {
            let mut command = cmd::in_namespace(&site.namespace, program);
            command.args(args);
            for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
                command.env(variable, &dir);
            }
            command.envs(ends.environment());
            Process::start(name, command, &site.dir)
        };
        let socket = format!("unix:{}/db.sock", dir.display());
        let control = |name: &str| format!("--unixctl={}/{name}.ctl", dir.display());
        let args = [db.display().to_string(), format!("--remote=p{socket}"), control("db")];
        let ovsdb = daemon("ovsdb", "ovsdb-server", &args)?;
        wait_for(&dir.join("db.sock"))?;
        set_up(site, ends, &socket)?;
        let mut vswitchd = daemon("vswitchd", VSWITCHD, &[socket.clone(), control("vs")])?;
        wait_for(&dir.join("vs.ctl")).or_else(|e| vswitchd.check().and(Err(e)))?;
        let ovs = Ovs { vswitchd, _ovsdb: ovsdb, dir };
        ovs.bridges(site, ends, &socket)?;
        ovs.settle(ends.row);
        Ok(ovs)
    }

    fn appctl(&self, args: &[&str]) -> Result<String> {
        let target = format!("{}/vs.ctl", self.dir.display());
        cmd::run("ovs-appctl", &[&["-t", target.as_str()], args].concat())
    }

    fn bridges(&self, site: &Site, ends: &Ends, db: &str) -> Result<()> {
        let (row, ns) = (ends.row, site.namespace.as_str());
        let (remote, locator) = (row.case.remote(0), row.case.locator());
        let player = ends.player.device();
        let (phy, acc) = if row.case.is_encap() { ("net_null1", player) } else { (player, "net_null1") };
        let guests = || self.guests(row, db);
        let vsctl = |line: &str| {
            let mut args = vec![format!("--db={db}"), c("--timeout=30")];
            args.extend(line.split_whitespace().map(c));
            cmd::run("ovs-vsctl", &args)
        };
        let dpdk = |bridge: &str, port: &str, device: &str, more: &str| {
            vsctl(&format!(
                "add-port {bridge} {port} -- set interface {port} type=dpdk \
                 options:dpdk-devargs={device} mtu_request={} {more}",
                row.underlay_mtu()
            ))
        };
        let queues = |device: &str| match row.workers {
            n if n > 1 && device == player => {
                let cores = site.cores.workers(n).iter().enumerate();
                let pins: Vec<String> = cores.map(|(queue, core)| format!("{queue}:{core}")).collect();
                format!("options:n_rxq={n} other_config:pmd-rxq-affinity=\"{}\"", pins.join(","))
            }
            _ => String::new(),
        };
        vsctl(&format!(
            "add-br br-phy -- set bridge br-phy datapath_type=netdev other_config:hwaddr={PLAYER_MAC}"
        ))?;
        vsctl("add-br br-int -- set bridge br-int datapath_type=netdev")?;
        let nodad = if row.case.is_v6() { "nodad" } else { "" };
        cmd::sh(&format!("ip -n {ns} addr add {locator}/{} dev br-phy {nodad}", row.case.prefix()))?;
        cmd::sh(&format!("ip -n {ns} link set br-phy up"))?;
        let (to, key) = if row.case.is_encap() {
            (c("flow"), c("flow"))
        } else {
            (quoted(&remote.to_string()), VNI.to_string())
        };
        vsctl(&format!(
            "add-port br-int vx0 -- set interface vx0 type=vxlan options:remote_ip={to} \
             options:key={key} ofport_request={TUNNEL}"
        ))?;
        // The source comes last: nothing flows before the rules are there.
        let sink_first = row.case.is_encap();
        let access = format!("ofport_request={ACCESS}");
        if sink_first {
            dpdk("br-phy", "phy0", phy, "")?;
        } else if row.case.is_vhost() {
            guests()?;
        } else {
            dpdk("br-int", "acc0", acc, &access)?;
        }
        let rules = self.dir.join("rules");
        fs::write(&rules, self::rules(ends)?).with_context(|| format!("writing {}", rules.display()))?;
        let bridge = format!("unix:{}/br-int.mgmt", self.dir.display());
        cmd::run("ovs-ofctl", &["del-flows", &bridge])?;
        cmd::run("ovs-ofctl", &["add-flows", &bridge, &rules.display().to_string()])?;
        for n in 0..row.nves {
            let ip = row.case.remote(n).to_string();
            self.appctl(&["tnl/neigh/set", "br-phy", &ip, &NEXT_HOP.to_string()])?;
        }
        if sink_first && row.case.is_vhost() {
            guests()?;
        } else if sink_first {
            dpdk("br-int", "acc0", acc, &format!("{access} {}", queues(acc)))?;
        } else {
            dpdk("br-phy", "phy0", phy, &queues(phy))?;
        }
        Ok(())
    }
}

impl Ovs {
    /// Adds the guests' ports, the idle ones behind the others: sockets that OVS listens at.
    fn guests(&self, row: Row, db: &str) -> Result<()> {
        let all: Vec<u32> = (0..row.guests + row.idle).collect();
        // As many at once as a command line takes.
        for some in all.chunks(64) {
            let mut args = vec![format!("--db={db}"), c("--timeout=60")];
            for n in some {
                let words = format!(
                    "-- add-port br-int acc{n} -- set interface acc{n} type=dpdkvhostuser \
                     ofport_request={} mtu_request={}",
                    ACCESS + n,
                    row.underlay_mtu()
                );
                args.extend(words.split_whitespace().map(c));
            }
            cmd::run("ovs-vsctl", &args)?;
        }
        Ok(())
    }

    /// Waits until its slow path has seen each destination.
    pub fn settle(&self, row: Row) {
        std::thread::sleep(Duration::from_secs(if row.destinations > 10_000 { 7 } else { 3 }));
    }
}

fn c(text: &str) -> String {
    text.to_owned()
}

/// As a value of the database: an IPv6 address has colons.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

fn set_up(site: &Site, ends: &Ends, db: &str) -> Result<()> {
    let mask = |cores: &[usize]| cores.iter().fold(0_u64, |m, core| m | 1 << core);
    let devices = match ends.row.case {
        Case::VhostEncap => vec![c(ends.sink())],
        Case::VhostDecap => vec![ends.source()],
        _ => vec![ends.source(), c(ends.sink())],
    };
    let devices: String = devices.iter().map(|device| format!(" --vdev={device}")).collect();
    let extra = format!("--no-pci --in-memory{devices}");
    let settings = [
        c("dpdk-init=true"),
        format!("dpdk-lcore-mask={:#x}", mask(&[site.cores.main()])),
        format!("pmd-cpu-mask={:#x}", mask(site.cores.workers(ends.row.workers))),
        format!("dpdk-socket-mem={}", memory_mb(ends)),
        c("flow-limit=1000000"),
        format!("dpdk-extra=\"{extra}\""),
    ];
    let vsctl = |args: &[String]| {
        let front = [format!("--db={db}"), c("--timeout=30"), c("--no-wait")];
        cmd::run("ovs-vsctl", &[&front, args].concat())
    };
    vsctl(&[c("init")])?;
    let all = settings.iter().map(|s| format!("other_config:{s}"));
    vsctl(&[c("set"), c("Open_vSwitch"), c(".")].into_iter().chain(all).collect::<Vec<_>>())?;
    Ok(())
}

/// One rule a destination.
fn rules(ends: &Ends) -> Result<String> {
    let row = ends.row;
    let field = if row.case.is_v6() { "tun_ipv6_dst" } else { "tun_dst" };
    let mut text = String::new();
    for n in 0..row.destinations {
        if row.case.is_routed() {
            let (matched, priority, vm) = routed::rule(&row, n);
            let (mac, remote) = (ends::remote_vm(&row, vm), row.case.remote(vm % row.nves));
            writeln!(
                text,
                "priority={priority},{matched},dl_dst={GATEWAY},actions=dec_ttl,mod_dl_src:{GATEWAY},\
                 mod_dl_dst:{mac},set_field:{FAR_VNI}->tun_id,set_field:{remote}->{field},output:{TUNNEL}"
            )?;
            continue;
        }
        let mac = if row.case.is_encap() { ends::remote_vm(&row, n) } else { ends::local_vm(&row, n) };
        if row.case.is_encap() {
            let remote = row.case.remote(n % row.nves);
            writeln!(
                text,
                "priority=10,dl_dst={mac},actions=set_field:{VNI}->tun_id,set_field:{remote}->{field},\
                 output:{TUNNEL}"
            )?;
        } else {
            let port = ACCESS + n % row.guests;
            writeln!(text, "priority=10,in_port={TUNNEL},dl_dst={mac},actions=output:{port}")?;
        }
    }
    Ok(text)
}

fn wait_for(socket: &std::path::Path) -> Result<()> {
    let give_up = Instant::now() + START_PATIENCE;
    while !socket.exists() {
        ensure!(Instant::now() < give_up, "{} did not appear in {START_PATIENCE:?}", socket.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Frames that all polling threads sent, and over how many seconds, by `pmd-perf-show`.
fn parse(text: &str) -> Option<(u64, f64)> {
    let number = |line: &str| line.split_whitespace().next()?.parse::<f64>().ok();
    let after = |name: &'static str| text.lines().filter_map(move |l| l.trim().split_once(name)).map(|p| p.1);
    let seconds = after("Measurement duration:").find_map(number)?;
    let sent: Vec<f64> = after("Tx packets:").filter_map(number).collect();
    (!sent.is_empty() && seconds > 0.0).then(|| (sent.iter().sum::<f64>() as u64, seconds))
}

impl Peer for Ovs {
    fn measure(&mut self, window: Duration) -> Result<Measured> {
        self.appctl(&["dpif-netdev/pmd-stats-clear"])?;
        std::thread::sleep(window);
        let text = self.appctl(&["dpif-netdev/pmd-perf-show", "-nh"])?;
        let (sent, seconds) = parse(&text).with_context(|| format!("pmd-perf-show said:\n{text}"))?;
        Ok(Measured { mpps: sent as f64 / seconds / 1e6, note: None })
    }

    fn run(&mut self, run: bool) -> Result<()> {
        self.vswitchd.run(run)
    }
}

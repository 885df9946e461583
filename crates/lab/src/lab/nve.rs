//! The switches and the NVA as processes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_api::v1;

use super::pki;
use super::process::Process;
use super::rpc::{Admin, Operator, Rpc};
use super::topology::UPLINK;
use crate::cmd;

/// How long a program may take to be ready; starting a DPDK process on a busy machine takes seconds, and a lab starts
/// many of them.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// The NVA's port.
pub const NVA_PORT: u16 = 6640;

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The switch.
    pub godwit: PathBuf,
    /// The directory.
    pub nva: PathBuf,
    /// The operator's command; only named in hints.
    pub ctl: PathBuf,
    /// This lab, for its agents.
    pub lab: PathBuf,
}

impl Binaries {
    /// Takes them from `dir`, or from the folder of the running program, or from the one above it,
    /// where cargo puts them for tests.
    ///
    /// # Errors
    /// Where one is missing; the error says which and how to build it.
    pub fn find(dir: Option<&Path>) -> Result<Binaries> {
        let exe = std::env::current_exe().context("where am I?")?;
        let near = exe.ancestors().skip(1).take(2).map(Path::to_owned);
        let places: Vec<PathBuf> = dir.map(|d| vec![d.to_owned()]).unwrap_or_else(|| near.collect());
        let find = |name: &str| {
            let found = places.iter().map(|p| p.join(name)).find(|p| p.is_file());
            found.with_context(|| {
                format!("{name} is in none of {places:?}: run `cargo build --release` first")
            })
        };
        Ok(Binaries {
            godwit: find("godwit")?,
            nva: find("godwit-nva")?,
            ctl: find("godwitctl")?,
            lab: find("godwit-lab")?,
        })
    }
}

/// Whether switches take hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hugepages {
    /// Where there are some.
    Auto,
    /// Or not start.
    Always,
    /// Ordinary pages only.
    Never,
}

impl Hugepages {
    fn as_str(self) -> &'static str {
        match self {
            Hugepages::Auto => "auto",
            Hugepages::Always => "always",
            Hugepages::Never => "never",
        }
    }
}

/// What is the same for all switches of a lab.
#[derive(Clone, Debug)]
pub struct SwitchOptions {
    /// Their worker cores, a mask or a list.
    pub workers: String,
    /// Memory for packets.
    pub hugepages: Hugepages,
    /// Forwarding in flight; off shows that the test can fail.
    pub forward_in_flight: bool,
    /// The ends of paths are marked (R77); off shows what is reordered without that.
    pub markers: bool,
    /// How long a worker without work sleeps, so that many share few cores.
    pub idle_sleep_us: u32,
    /// Queues of each uplink.
    pub uplink_queues: u32,
    /// The worker core that is kept for the ports of VMs in post-copy migration.
    pub postcopy_core: Option<usize>,
    /// Virtual networks whose records are pulled when they are needed, instead of pushed beforehand (R34, R40).
    pub pull: Vec<u32>,
    /// Packets of VMs on the move are held as long, and as many of them, as can be configured (R45).
    pub long_holds: bool,
    /// DPDK's memory, in MiB.
    pub memory_mb: u32,
    /// The NVA is spoken to in clear.
    pub plain: bool,
}

impl SwitchOptions {
    /// Two workers, of which the second is kept for the ports of VMs in post-copy migration.
    ///
    /// # Errors
    /// Where the machine has one core only.
    pub fn keep_for_postcopy(&mut self) -> Result<()> {
        ensure!(control_core() > 0, "a worker of its own for post-copy ports needs a second core");
        (self.workers, self.postcopy_core) = ("0x3".into(), Some(1));
        Ok(())
    }
}

impl Default for SwitchOptions {
    fn default() -> SwitchOptions {
        SwitchOptions {
            workers: "0x1".into(),
            hugepages: Hugepages::Auto,
            forward_in_flight: true,
            markers: true,
            idle_sleep_us: 50,
            uplink_queues: 1,
            postcopy_core: None,
            pull: Vec::new(),
            long_holds: true,
            memory_mb: 128,
            plain: false,
        }
    }
}

/// The underlay addresses of one NVE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Locator {
    /// IPv4.
    pub v4: Option<Ipv4Addr>,
    /// IPv6.
    pub v6: Option<Ipv6Addr>,
}

impl Locator {
    /// The locator of the NVE number `n`, of the families asked for.
    pub fn numbered(n: u8, v4: bool, v6: bool) -> Locator {
        Locator {
            v4: v4.then(|| Ipv4Addr::new(198, 18, 0, n)),
            v6: v6.then(|| Ipv6Addr::new(0x2001, 0xdb8, 0x18, 0, 0, 0, 0, u16::from(n))),
        }
    }

    /// As the operator protocol has it.
    pub fn to_proto(self) -> v1::Locators {
        v1::Locators {
            v4: self.v4.map(|a| a.octets().to_vec()).unwrap_or_default(),
            v6: self.v6.map(|a| a.octets().to_vec()).unwrap_or_default(),
        }
    }
}

/// A running switch.
pub struct Nve {
    /// Its name, `a` say.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its admin interface.
    pub admin: Admin,
    /// The socket of that.
    pub socket: PathBuf,
    /// The process.
    pub process: Process,
}

impl Nve {
    /// Starts a switch in a namespace that has what its `uplinks` name, `[[uplink]]` tables of the configuration;
    /// see [`Nve::wait_ready`].
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        name: &str,
        namespace: &str,
        uplinks: &str,
        options: &SwitchOptions,
        bins: &Binaries,
        (dir, rpc, nva_url): (&Path, &Rpc, &str),
    ) -> Result<Nve> {
        let socket = dir.join(format!("{name}.sock"));
        let config = dir.join(format!("{name}.toml"));
        let nva = format!("nva = \"{nva_url}\"\n{}", pki::switch_lines(dir, name)?);
        fs::write(&config, config_text(name, uplinks, options, &socket, &nva))?;
        let mut command = cmd::in_namespace(namespace, &bins.godwit);
        command.arg("--config").arg(&config);
        let process = Process::start(&format!("godwit-{name}"), command, dir)?;
        let admin = rpc.admin(&socket)?;
        Ok(Nve { name: name.into(), namespace: namespace.into(), admin, socket, process })
    }

    /// A switch that stands already.
    ///
    /// # Errors
    /// Where its socket makes no sense.
    pub fn adopt(name: &str, namespace: &str, dir: &Path, rpc: &Rpc) -> Result<Nve> {
        let socket = dir.join(format!("{name}.sock"));
        Ok(Nve {
            name: name.into(),
            namespace: namespace.into(),
            admin: rpc.admin(&socket)?,
            socket,
            process: Process::adopted(&format!("godwit-{name}"), dir),
        })
    }

    /// Waits until it forwards and has its session with the NVA.
    ///
    /// # Errors
    /// Where it ends or takes too long; the error has the end of its log.
    pub fn wait_ready(&mut self) -> Result<()> {
        let give_up = Instant::now() + START_PATIENCE;
        loop {
            self.process.check()?;
            let state = match self.admin.status() {
                Ok(status) if status.nva_connected => return Ok(()),
                Ok(_) => "it has no session with the NVA".to_owned(),
                Err(e) => format!("{e:#}"),
            };
            if Instant::now() > give_up {
                let (name, tail) = (&self.name, self.process.tail(15));
                bail!("switch {name} is not ready after {START_PATIENCE:?}: {state}\n{tail}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The usual uplink, with a locator on the lab's underlay.
pub fn uplink_text(loc: Locator, options: &SwitchOptions) -> String {
    // What an old NVE held for a second arrives within milliseconds, while the worker here waits for its core: a ring
    // of 4,096 frames lost a few hundred of 5,000 at every second move, and the kernel tells nobody.
    let mut text = format!(
        "[[uplink]]\nname = \"{UPLINK}\"\n\
         devargs = \"net_af_packet0,iface={UPLINK},qpairs={},framecnt=16384\"\n",
        options.uplink_queues
    );
    if let Some(ip) = loc.v4 {
        text += &format!("ipv4 = \"{ip}/24\"\n");
    }
    if let Some(ip) = loc.v6 {
        text += &format!("ipv6 = \"{ip}/64\"\n");
    }
    text
}

/// As long as a switch may hold: many processes share the lab's machine, and may be kept from their cores
/// for seconds in the midst of a move.
const LONG_HOLDS: &str = "handover_hold_ms = 10000\n";
/// As long as it may wait for an end marker.
const LONG_WAIT: &str = "marker_wait_ms = 200\n";

/// A switch's configuration file.
fn config_text(name: &str, uplinks: &str, options: &SwitchOptions, socket: &Path, nva: &str) -> String {
    let SwitchOptions { workers, hugepages, forward_in_flight, idle_sleep_us, postcopy_core, pull, .. } =
        options;
    let markers = match (options.markers, options.long_holds) {
        (false, _) => "marker_wait_ms = 0\n",
        (true, false) => "",
        (true, true) => LONG_WAIT,
    };
    let holds = if options.long_holds { LONG_HOLDS } else { "" };
    let kept = postcopy_core.map_or(String::new(), |core| format!("postcopy_core = {core}\n"));
    let mut text = format!(
        "[nve]\nid = \"{name}\"\nworkers = \"{workers}\"\ncontrol_core = {}\n{nva}\
         admin_socket = \"{}\"\nidle_sleep_us = {idle_sleep_us}\nhugepages = \"{}\"\nmemory_mb = {}\n\
         forward_in_flight = {forward_in_flight}\n{markers}{kept}{holds}\n{uplinks}",
        control_core(),
        socket.display(),
        hugepages.as_str(),
        options.memory_mb,
    );
    for vni in pull {
        text += &format!("\n[[vn]]\nvni = {vni}\ndirectory = \"pull\"\n");
    }
    text
}

fn url_of(at: SocketAddr, dir: &Path) -> String {
    format!("{}://{at}", if pki::is_there(dir) { "https" } else { "http" })
}

/// The last core: workers usually begin with the first.
fn control_core() -> usize {
    std::thread::available_parallelism().map_or(0, |n| n.get() - 1)
}

/// The directory; it may be killed and started again while others use it.
pub struct Nva {
    /// Its address as a switch's configuration has it.
    pub url: String,
    /// Its operator's interface.
    pub operator: Operator,
    namespace: String,
    ip: IpAddr,
    dir: PathBuf,
    binary: PathBuf,
    flags: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl Nva {
    /// Starts it in a namespace that has `ip`, with further flags, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not; the error has the end of its log.
    pub fn start(
        namespace: &str,
        ip: IpAddr,
        bins: &Binaries,
        dir: &Path,
        rpc: &Rpc,
        flags: &[&str],
    ) -> Result<Nva> {
        let mut nva = Nva::adopt(namespace, ip, bins, dir, rpc)?;
        nva.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        nva.launch()?;
        nva.wait_ready()?;
        Ok(nva)
    }

    /// One that stands already, or is yet to be launched.
    ///
    /// # Errors
    /// Where its address makes no sense.
    pub fn adopt(namespace: &str, ip: IpAddr, bins: &Binaries, dir: &Path, rpc: &Rpc) -> Result<Nva> {
        let url = url_of(SocketAddr::new(ip, NVA_PORT), dir);
        Ok(Nva {
            operator: rpc.operator(&url, pki::operator(dir)?.as_ref())?,
            url,
            namespace: namespace.into(),
            ip,
            dir: dir.into(),
            binary: bins.nva.clone(),
            flags: Vec::new(),
            process: Mutex::new(None),
        })
    }

    /// A switch's URL of another address that leads to it.
    pub fn url_of(&self, at: SocketAddr) -> String {
        url_of(at, &self.dir)
    }

    /// The options by which the operator's command reaches it.
    pub fn ctl_flags(&self) -> Vec<String> {
        let mut flags = vec!["--nva".to_owned(), self.url.clone()];
        flags.extend(pki::operator_flags(&self.dir));
        flags
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process on the data that is there.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn launch(&self) -> Result<()> {
        let mut command = cmd::in_namespace(&self.namespace, &self.binary);
        command.args(["--listen", &format!("{}:{NVA_PORT}", self.ip), "--data"]).arg(self.dir.join("nva"));
        command.args(pki::nva_flags(&self.dir)).args(&self.flags);
        *self.slot() = Some(Process::start("godwit-nva", command, &self.dir)?);
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// Where it ends or takes too long.
    pub fn wait_ready(&self) -> Result<()> {
        let give_up = Instant::now() + START_PATIENCE;
        loop {
            self.slot().as_mut().map_or(Ok(()), Process::check)?;
            match self.operator.get_status(v1::NvaStatusRequest {}) {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > give_up => return Err(e.context("the NVA is not ready")),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The process's number in the system; nothing where another program started it.
    pub fn process_id(&self) -> Option<u32> {
        self.slot().as_ref().and_then(Process::id)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn kill9(&self) -> Result<()> {
        self.slot().as_mut().map_or(Ok(()), Process::kill9)
    }

    /// Lets it run on after the lab is gone.
    pub fn leave(&self) {
        if let Some(p) = self.slot().as_mut() {
            p.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_only_the_families_asked_for() {
        let text = |v4, v6| {
            let loc = Locator::numbered(2, v4, v6);
            config_text(
                "b",
                &uplink_text(loc, &SwitchOptions::default()),
                &SwitchOptions::default(),
                Path::new("/tmp/b.sock"),
                "nva = \"https://198.18.255.1:6640\"\n",
            )
        };
        assert!(
            text(true, false).contains("ipv4 = \"198.18.0.2/24\"") && !text(true, false).contains("ipv6")
        );
        assert!(
            text(false, true).contains("ipv6 = \"2001:db8:18::2/64\"") && !text(false, true).contains("ipv4")
        );
    }

    #[test]
    fn a_configuration_holds_for_long_where_it_shall() {
        for long_holds in [false, true] {
            let options = SwitchOptions { long_holds, ..SwitchOptions::default() };
            let text = config_text("b", "", &options, Path::new("/tmp/b.sock"), "");
            assert_eq!(text.contains("handover_hold_"), long_holds, "{text}");
        }
    }
}

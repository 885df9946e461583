//! The switch of one window: a worker with three VMs. One sends to VMs that it knows, one asks for addresses, and
//! the third is the neighbor of both.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use godwit_api::convert::ip_bytes;
use godwit_api::v1::query::By;
use godwit_api::v1::{self, Counter, QueuePerf};
use godwit_lab::cmd;
use godwit_lab::lab::process::Process;
use godwit_lab::lab::rpc::Admin;
use godwit_testkit::frames;
use godwit_wire::Mac;

use super::Neighbor;
use super::resolver::Resolver;
use crate::directory::{Book, Directory};
use crate::ends::{self, NEXT_HOP, REMOTE_VM, VNI};
use crate::peer::Site;
use crate::plan::Case;

/// VMs elsewhere that traffic goes to.
const DESTINATIONS: u32 = 1_000;
/// Frames of the neighbor's capture: so many addresses of the /8, evenly spread.
pub const NEIGHBORS_FRAMES: u32 = 16_384;
/// MiB of each switch.
pub const MEMORY_MB: usize = 256;
/// The first directory's port; each switch has its own.
const DIRECTORY_PORT: u16 = 6650;
const START_PATIENCE: Duration = Duration::from_secs(60);
/// A question without an answer after this is lost; sooner while the switch starts, where some are.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// The VMs of the switch under test.
const STEADY: (Mac, Ipv4Addr) = (Mac([2, 0x10, 0, 0, 0, 1]), Ipv4Addr::new(198, 51, 100, 1));
const NEIGHBOR: (Mac, Ipv4Addr) = (Mac([2, 0x10, 0, 0, 0, 2]), Ipv4Addr::new(198, 51, 100, 2));
const RESOLVER: (Mac, Ipv4Addr) = (Mac([2, 0x10, 0, 0, 0, 3]), Ipv4Addr::new(198, 51, 100, 3));
/// The first of those elsewhere whose addresses are asked for, and of those that are nowhere.
const ASKED_FOR: Mac = Mac([2, 0x30, 0, 0, 0, 0]);
const NOWHERE: Mac = Mac([2, 0x40, 0, 0, 0, 0]);
/// Where the asked for addresses are: not in the /8 that is scanned.
const ASKED_NET: u32 = 0xac10_0000;
const ASKED_BITS: u32 = 0xfff0_0000;

/// A switch, its directory and the VM that asks.
pub struct Switch {
    /// Who the neighbor is.
    pub neighbor: Neighbor,
    process: Process,
    admin: Admin,
    directory: Directory,
    resolver: Resolver,
}

/// What a window showed.
pub struct Window {
    /// Frames of the steady VM that went out, in millions a second.
    pub steady_mpps: f64,
    /// Frames that came from the neighbor, in millions a second.
    pub neighbor_mpps: f64,
    /// Questions of the neighbor that reached the directory, a second.
    pub neighbor_questions: f64,
    /// How long answers took, `None` where none came.
    pub resolutions: Vec<Option<Duration>>,
    /// Ticks of the time stamp counter that the worker took for a frame of the steady VM, and of the neighbor.
    pub ticks: [Option<f64>; 2],
}

fn asked_for(n: u32) -> (Ipv4Addr, Mac) {
    (Ipv4Addr::from_bits(ASKED_NET + n), ends::nth(ASKED_FOR, n))
}

/// A record of a VM elsewhere.
fn elsewhere(mac: Mac, ip: Option<Ipv4Addr>, seq: u64) -> v1::VmRecord {
    let v4 = ip_bytes(Case::EncapV4.remote(0));
    v1::VmRecord {
        name: format!("vm-{:x}", mac.to_u64()),
        key: Some(v1::VmKey { vni: VNI, mac: mac.to_u64() }),
        ipv4: ip.map(|ip| ip.octets().to_vec()).into_iter().collect(),
        location: Some(v1::Location {
            nve: "elsewhere".into(),
            locators: Some(v1::Locators { v4, v6: Vec::new() }),
        }),
        state: v1::BindingState::Active.into(),
        version: Some(v1::Version { epoch: 1, seq }),
        ..v1::VmRecord::default()
    }
}

/// The number of an address that is asked for; none of another one, as of those of a scan.
fn number_asked(query: &v1::Query) -> Option<u32> {
    let Some(By::Ip(ip)) = &query.by else { return None };
    let bits = u32::from_be_bytes(<[u8; 4]>::try_from(ip.as_slice()).ok()?);
    (bits & ASKED_BITS == ASKED_NET).then_some(bits - ASKED_NET)
}

fn answer(query: &v1::Query) -> Option<v1::VmRecord> {
    let (ip, mac) = asked_for(number_asked(query)?);
    Some(elsewhere(mac, Some(ip), 1))
}

fn here(mac: u64) -> Ipv4Addr {
    let of = |vm: &&(Mac, Ipv4Addr)| vm.0.to_u64() == mac;
    [STEADY, NEIGHBOR, RESOLVER].iter().find(of).map_or(Ipv4Addr::UNSPECIFIED, |vm| vm.1)
}

/// Frame number `n` of a VM to those that it knows, 60 bytes.
fn known((mac, ip): (Mac, Ipv4Addr), n: u32) -> Vec<u8> {
    unicast((mac, ip), ends::nth(REMOTE_VM, n % DESTINATIONS), n)
}

fn unicast((mac, ip): (Mac, Ipv4Addr), to: Mac, n: u32) -> Vec<u8> {
    let far = IpAddr::from(Ipv4Addr::from_bits(0x0a80_0000 + n));
    frames::udp_frame((mac, ip.into(), 1024), (to, far, 5678), &[0; 18])
}

impl Neighbor {
    /// Frame number `n`; none of one that is silent.
    fn frame(self, n: u32) -> Option<Vec<u8>> {
        let (mac, ip) = NEIGHBOR;
        match self {
            Neighbor::Silent => None,
            Neighbor::Ordinary => Some(known(NEIGHBOR, n)),
            Neighbor::Arp => {
                let step = (1 << 24) / NEIGHBORS_FRAMES;
                let target = Ipv4Addr::from_bits(0x0a00_0000 + n * step + 1);
                Some(frames::padded(frames::arp_request(mac, ip, target), 60))
            }
            Neighbor::Unknown => Some(unicast(NEIGHBOR, ends::nth(NOWHERE, n), n)),
        }
    }

    fn devargs(self, dir: &Path) -> Result<String> {
        if self == Neighbor::Silent {
            return Ok("net_null2,no-rx=1".into());
        }
        let pcap = dir.join(format!("{}.pcap", self.name()));
        let all = ends::shuffled(NEIGHBORS_FRAMES).into_iter();
        ends::write_frames(&pcap, all.filter_map(|n| self.frame(n)))?;
        Ok(format!("net_pcap2,rx_pcap={},infinite_rx=1", pcap.display()))
    }
}

fn config(site: &Site, neighbor: Neighbor, interface: &str, directory: SocketAddr) -> Result<String> {
    let steady = site.dir.join("steady.pcap");
    ends::write_frames(&steady, (0..DESTINATIONS).map(|n| known(STEADY, n)))?;
    let (dir, name, case) = (site.dir.display(), neighbor.name(), Case::EncapV4);
    let mut text = format!(
        "[nve]\nid = \"{name}\"\nworkers = \"{}\"\ncontrol_core = {}\nmemory_mb = {MEMORY_MB}\n\
         admin_socket = \"{dir}/{name}.sock\"\nnva = \"http://{directory}\"\n\
         [[uplink]]\nname = \"up\"\ndevargs = \"net_null1,no-rx=1\"\nipv4 = \"{}/{}\"\n\
         [[neighbor]]\nuplink = \"up\"\nip = \"{}\"\nmac = \"{NEXT_HOP}\"\n",
        site.cores.workers(1).first().context("a machine has a core")?,
        site.cores.main(),
        case.locator(),
        case.prefix(),
        case.remote(0),
    );
    let ports = [
        ("steady", STEADY, format!("net_pcap1,rx_pcap={},infinite_rx=1", steady.display())),
        ("neighbor", NEIGHBOR, neighbor.devargs(&site.dir)?),
        ("resolver", RESOLVER, format!("net_af_packet0,iface={interface}")),
    ];
    for (port, (mac, ip), devargs) in ports {
        write!(
            text,
            "[[port]]\nname = \"{port}\"\ndevargs = \"{devargs}\"\nvni = {VNI}\nmac = \"{mac}\"\n\
             ips = [\"{ip}\"]\nactivate = \"start\"\n"
        )?;
    }
    Ok(text)
}

impl Switch {
    /// Starts it and waits until traffic's destinations are known and it carries the steady VM's frames.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(site: &Site, neighbor: Neighbor, number: u16) -> Result<Switch> {
        let (ours, theirs) = (format!("sw{number}"), format!("vm{number}"));
        let wire = format!("link add {ours} mtu 1400 type veth peer name {theirs} mtu 1400");
        let up = [&ours, &theirs].map(|end| format!("link set {end} addrgenmode none arp off up"));
        cmd::ip_batch(&site.namespace, &[vec![wire], up.to_vec()].concat())?;
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DIRECTORY_PORT + number);
        let book = Book { here, answer: Some(answer) };
        let directory = Directory::serve(&site.namespace, address, book)?;
        let name = neighbor.name();
        let file = site.dir.join(format!("{name}.toml"));
        fs::write(&file, config(site, neighbor, &ours, address)?)?;
        let mut command = cmd::in_namespace(&site.namespace, &site.godwit);
        command.arg("--config").arg(&file).env("GODWIT_LOG", "warn");
        let process = Process::start(&format!("godwit-{name}"), command, &site.dir)?;
        let admin = site.rpc.admin(&site.dir.join(format!("{name}.sock")))?;
        let (mac, ip) = RESOLVER;
        let namespace = site.namespace.clone();
        let resolver = Resolver { namespace, interface: theirs, mac, ip, next: 0, target: asked_for };
        let mut switch = Switch { neighbor, process, admin, directory, resolver };
        switch.wait()?;
        Ok(switch)
    }

    fn wait(&mut self) -> Result<()> {
        let give_up = Instant::now() + START_PATIENCE;
        let patience = |what: &str| {
            std::thread::sleep(Duration::from_millis(50));
            ensure!(Instant::now() < give_up, "the switch {what} in {START_PATIENCE:?}");
            Ok(())
        };
        while !self.directory.is_connected() {
            self.process.check()?;
            patience("opens no session")?;
        }
        for n in 0..DESTINATIONS {
            self.directory.update(VNI, elsewhere(ends::nth(REMOTE_VM, n), None, u64::from(n) + 2), 0)?;
        }
        loop {
            self.process.check()?;
            let known = self.admin.status().map_or(0, |s| s.workers.iter().map(|w| w.locations).sum::<u64>());
            // Nothing of the steady VM is lost any more, and the VM that asks is answered.
            if known >= u64::from(DESTINATIONS) {
                let before = self.admin.counters()?;
                std::thread::sleep(Duration::from_millis(100));
                let after = self.admin.counters()?;
                let delivered = delivered(&after, "steady") - delivered(&before, "steady");
                let once = Duration::from_millis(1);
                if delivered > 0.0 && self.resolver.ask(once, FIRST_PATIENCE)?.iter().all(Option::is_some) {
                    return Ok(());
                }
            }
            patience("carries nothing or answers nothing")?;
        }
    }

    /// Lets it run, or stops it where it is.
    ///
    /// # Errors
    /// Where it ended.
    pub fn run(&mut self, run: bool) -> Result<()> {
        self.process.run(run)
    }

    /// What it does during `window`, while it runs.
    ///
    /// # Errors
    /// Where it ended or tells no figures.
    pub fn measure(&mut self, window: Duration) -> Result<Window> {
        self.process.check()?;
        self.admin.perf(true)?;
        drop(self.directory.take_questions());
        let (before, start) = (self.admin.counters()?, Instant::now());
        let resolutions = self.resolver.ask(window, ANSWER_PATIENCE)?;
        let (after, seconds) = (self.admin.counters()?, start.elapsed().as_secs_f64());
        let asked = self.directory.take_questions();
        let by_neighbor = asked.iter().filter(|(q, at)| *at >= start && number_asked(q).is_none()).count();
        let queues = self.admin.perf(false)?.into_iter().next().map(|w| w.queues).unwrap_or_default();
        let rate =
            |of: fn(&[Counter], &str) -> f64, port| (of(&after, port) - of(&before, port)) / seconds / 1e6;
        Ok(Window {
            steady_mpps: rate(delivered, "steady"),
            neighbor_mpps: rate(came, "neighbor"),
            neighbor_questions: by_neighbor as f64 / seconds,
            resolutions,
            ticks: ["steady", "neighbor"].map(|port| ticks(&queues, port)),
        })
    }
}

fn came(all: &[Counter], port: &str) -> f64 {
    let of = all.iter().filter(|c| c.port == port && c.name == "rx_packets" && !c.device);
    of.map(|c| c.value as f64).sum()
}

/// Frames of a port that were not dropped: all go to VMs elsewhere, by an uplink that takes everything.
fn delivered(all: &[Counter], port: &str) -> f64 {
    let lost = all.iter().filter(|c| c.port == port && c.drop && !c.device);
    came(all, port) - lost.map(|c| c.value as f64).sum::<f64>()
}

fn ticks(queues: &[QueuePerf], port: &str) -> Option<f64> {
    let q = queues.iter().find(|q| q.port == port && q.timed_packets > 0)?;
    Some(q.ticks as f64 / q.timed_packets as f64)
}

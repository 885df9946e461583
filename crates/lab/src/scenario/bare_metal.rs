//! The switch on bare metal, as far as that can be emulated: in a machine of its own with an IOMMU and two
//! PCI network cards, which are bound to vfio-pci by `scripts/nic`. One card is the uplink, and Linux's own
//! vxlan device is at the other end of its wire; behind the other card's wire is a VM.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::Common;
use super::interop::{converse, is_whole, vxlan_device};
use super::report::{thousands, write_json_value};
use crate::agent::client::Agent;
use crate::capture::{Capture, Findings};
use crate::cmd;
use crate::guest::Guest;
use crate::guest::image::Image;
use crate::guest::kernel::Kernel;
use crate::guest::qemu::{GuestSpec, QEMU};
use crate::lab::nve::{Binaries, Locator};
use crate::lab::process::Process;
use crate::lab::topology::{self, GUEST_MTU};
use crate::lab::vm::{VmSpec, start_agent};
use crate::lab::{VNI, cleanup};
use crate::traffic::{End, Talk, Traffic, TrafficSpec};

/// The program under test beside the switch.
const NIC: &str = include_str!("../../../../scripts/nic");
/// Where the two cards are in the machine.
const UPLINK_PCI: &str = "0000:00:10.0";
const PORT_PCI: &str = "0000:00:11.0";
/// The ends of their wires.
const UPLINK_TAP: &str = topology::UPLINK;
const PORT_TAP: &str = "port0";
/// What the switch calls them.
const UPLINK_NAME: &str = "up0";
const PORT_NAME: &str = "v";
/// The locators of the switch and of its peer.
const SWITCH: u8 = 1;
const PEER: u8 = 9;
const DRIVERS: [&str; 6] = ["bus_pci", "bus_vdev", "mempool_ring", "net_e1000", "net_vmxnet3", "net_virtio"];
/// The underlay's MTU and the tenants' with jumbo frames: 50 bytes less over IPv4.
const JUMBO: (u32, u32) = (9_000, 8_950);
/// Both otherwise.
const USUAL: (u32, u32) = (1_500, GUEST_MTU);
/// A switch starts in two seconds where its processor is emulated on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(40);
const SOCKET: &str = "/run/godwit.sock";
/// Flows beside the two that are judged by every packet: so many that chance gives each queue some of them.
const MORE_FLOWS: u32 = 14;
/// Packets a second of each, each way.
const MORE_RATE: u32 = 20;
/// The switch's workers, each with a receive queue of each card that has several.
const WORKERS: u64 = 2;

/// Options of `godwit-lab bare-metal`.
#[derive(Clone, Debug, Args)]
pub struct BareMetal {
    #[command(flatten)]
    common: Common,
    /// Only this card as the uplink
    #[arg(long, value_enum)]
    uplink: Option<Card>,
    /// Seconds of traffic
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    duration: f64,
    /// Probe packets a second, each way and inner family; every other one is of 1,400 bytes
    #[arg(long, default_value_t = 300, value_name = "PPS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Packets of up to 8,950 bytes over an underlay of 9,000
    #[arg(long)]
    jumbo: bool,
}

/// Emulated cards that DPDK has drivers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Card {
    /// VMware's paravirtual card: several queues, of which QEMU fills the first
    Vmxnet3,
    /// Virtio: several queues, RSS
    Virtio,
    /// Intel 82574L: one queue that DPDK's driver uses
    E1000e,
}

impl Card {
    fn name(self) -> &'static str {
        match self {
            Card::Vmxnet3 => "vmxnet3",
            Card::Virtio => "virtio-net",
            Card::E1000e => "e1000e",
        }
    }

    /// Queues of its tap: virtio's have theirs there, too.
    fn tap(self) -> (&'static str, &'static str) {
        match self {
            Card::Virtio => (" multi_queue", ",vhost=off,queues=2"),
            Card::Vmxnet3 | Card::E1000e => ("", ""),
        }
    }

    /// QEMU's device with what it needs to be behind an IOMMU.
    fn device(self) -> &'static str {
        match self {
            Card::Vmxnet3 => "vmxnet3",
            Card::Virtio => "virtio-net-pci,mq=on,rss=on,vectors=6,iommu_platform=on,disable-legacy=on",
            Card::E1000e => "e1000e",
        }
    }

    fn rx_queues(self) -> u32 {
        match self {
            Card::Vmxnet3 | Card::Virtio => 2,
            Card::E1000e => 1,
        }
    }

    /// Every receive queue gets frames: QEMU gives all of vmxnet3's to its first one.
    fn fills_all_queues(self) -> bool {
        self == Card::Virtio
    }
}

/// What was found with one card.
#[derive(Debug, Serialize)]
struct Outcome {
    uplink: Card,
    inner4: Talk,
    inner6: Talk,
    capture: Findings,
    queues: Vec<Received>,
    passed: bool,
}

/// What each worker took from a card's receive queue of its own.
#[derive(Debug, Serialize)]
struct Received {
    port: &'static str,
    /// The card has a queue for each worker, and fills them all.
    spreads: bool,
    packets: Vec<u64>,
}

impl Received {
    fn is_right(&self) -> bool {
        !self.spreads || self.packets.iter().all(|n| *n > 0)
    }

    fn text(&self) -> String {
        let each: Vec<String> = self.packets.iter().map(|n| thousands(*n)).collect();
        let all = if !self.spreads {
            ""
        } else if self.is_right() {
            ": every queue carries traffic"
        } else {
            ": A QUEUE CARRIES NOTHING"
        };
        format!("received by {} at workers 0 and 1: {}{all}", self.port, each.join(" and "))
    }
}

impl BareMetal {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[QEMU, "busybox", "bridge", "tcpdump", "tshark"])?;
        println!("Godwit lab: bare metal, emulated");
        println!(
            "  The switch runs in a machine with an IOMMU on two PCI cards bound to vfio-pci, by their addresses."
        );
        println!(
            "  VM v, behind one card, talks to VM x behind Linux's vxlan device on the other card's wire."
        );
        let mut results = Vec::new();
        for uplink in self.uplink.map_or(vec![Card::Vmxnet3, Card::Virtio, Card::E1000e], |u| vec![u]) {
            println!("\n  uplink {}, VM's port virtio-net", uplink.name());
            let site = Site::new(bins.clone())?;
            let result = self.on(&site, uplink);
            if !matches!(&result, Ok(r) if r.passed) {
                site.keep_logs();
            }
            results.push(result.with_context(|| format!("logs in {}", site.dir.display()))?);
        }
        let passed = results.iter().all(|r| r.passed);
        let json = serde_json::json!({ "scenario": "bare-metal", "runs": results, "passed": passed });
        write_json_value(self.common.json.as_deref(), &json)?;
        let verdict =
            if passed { "PASSED: forwards through vfio; no bad frame on the wire." } else { "FAILED" };
        println!("\n{verdict}");
        Ok(passed)
    }

    fn on(&self, site: &Site, uplink: Card) -> Result<Outcome> {
        let (v, x) = (VmSpec::numbered("v", 10), VmSpec::numbered("x", 40));
        let (underlay_mtu, mtu) = self.mtus();
        let mut machine = site.start_machine(uplink, &v, &x, underlay_mtu)?;
        println!("    Linux {}", machine.sh("uname -r")?.trim());
        let (local, remote) = (locator(PEER), locator(SWITCH));
        cmd::ip_batch(&site.ns("wire"), &[format!("link set {UPLINK_TAP} mtu {underlay_mtu}")])?;
        topology::guest_addresses(&site.ns("wire"), UPLINK_TAP, &[local])?;
        topology::offloads_off(&site.ns("wire"), UPLINK_TAP)?;
        vxlan_device(&site.ns("wire"), (local, remote), (&x, &v), mtu)?;
        site.build_vm(&v, mtu)?;
        bind_cards(&mut machine)?;
        start_switch(&mut machine)?;

        let capture = Capture::start(&site.ns("wire"), UPLINK_TAP, &site.dir)?;
        let (_pv, mut agent_v) = site.agent("v", "vm")?;
        let (_px, mut agent_x) = site.agent("x", "wire")?;
        let talks = self.open(&v, &x, &mut agent_v, &mut agent_x)?;
        let time = Duration::from_secs_f64(self.duration);
        let [inner4, inner6] = converse(&mut agent_v, &mut agent_x, &talks, time)?;
        let capture = capture.finish(remote, mtu)?;
        println!("{}", indented(&machine.sh(&format!("godwitctl --timeout 20 --socket {SOCKET} counters"))?));
        let queues = received(&mut machine, uplink)?;
        stop_and_give_back(&mut machine)?;
        machine.shut_down()?;
        let passed = is_whole(&inner4)
            && is_whole(&inner6)
            && capture.complaints().is_empty()
            && queues.iter().all(Received::is_right);
        let outcome = Outcome { uplink, inner4, inner6, capture, queues, passed };
        print_outcome(&outcome);
        Ok(outcome)
    }

    /// Of the underlay and of the tenants.
    fn mtus(&self) -> (u32, u32) {
        if self.jumbo { JUMBO } else { USUAL }
    }

    fn open(&self, v: &VmSpec, x: &VmSpec, agent_v: &mut Agent, agent_x: &mut Agent) -> Result<Vec<Traffic>> {
        let load = TrafficSpec {
            rate: self.rate,
            one_way: false,
            payload: 100,
            big_every: 2,
            tcp_rate_bit: 2_000_000,
        };
        let more =
            TrafficSpec { rate: MORE_RATE, one_way: false, payload: 100, big_every: 0, tcp_rate_bit: 0 };
        let one = |(probe, v6, load): (u32, bool, TrafficSpec)| {
            let mut end_v = End { agent: &mut *agent_v, address: v.address(v6, 0) };
            let mut end_x = End { agent: &mut *agent_x, address: x.address(v6, 0) };
            Traffic::open(probe, load, self.mtus().1, &mut end_v, &mut end_x)
                .with_context(|| format!("flow {probe}, inner IPv{}", if v6 { 6 } else { 4 }))
        };
        let judged = [(1, false, load), (2, true, load)];
        let others = (0..MORE_FLOWS).map(|n| (n + 3, n % 2 == 1, more));
        judged.into_iter().chain(others).map(one).collect()
    }
}

/// The machine's surroundings: the peer's namespace with the ends of the wires, and the VM's. They go
/// with this value.
struct Site {
    id: String,
    dir: PathBuf,
    bins: Binaries,
    keep: std::cell::Cell<bool>,
}

impl Site {
    fn new(bins: Binaries) -> Result<Site> {
        let id = cleanup::claim()?;
        let dir = cleanup::directory(&id);
        let site = Site { id, dir, bins, keep: false.into() };
        topology::add_namespace(&site.ns("wire"))?;
        topology::add_namespace(&site.ns("vm"))?;
        Ok(site)
    }

    fn ns(&self, name: &str) -> String {
        format!("{}{name}", cleanup::prefix(&self.id))
    }

    fn keep_logs(&self) {
        self.keep.set(true);
    }

    fn agent(&self, name: &str, namespace: &str) -> Result<(Process, Agent)> {
        start_agent(name, &self.ns(namespace), &self.bins, &self.dir)
    }

    fn start_machine(&self, uplink: Card, v: &VmSpec, x: &VmSpec, mtu: u32) -> Result<Guest> {
        let wire = self.ns("wire");
        let tap = |name: &str, card: Card| format!("tuntap add dev {name} mode tap{}", card.tap().0);
        // What an emulated machine does not take at once waits in its tap.
        let queue = |name: &str| format!("link set {name} txqueuelen 10000");
        let taps = [tap(UPLINK_TAP, uplink), tap(PORT_TAP, Card::Virtio), queue(UPLINK_TAP), queue(PORT_TAP)];
        cmd::ip_batch(&wire, &taps)?;
        let kernel = Kernel::get()?;
        let image = self.dir.join("machine.cpio");
        self.image(&kernel, &config(uplink, v, x, mtu))?.write(&image)?;
        let mut spec = GuestSpec::new("metal", &kernel.image, &image);
        // What the switch takes, and some for what the kernel takes of it.
        let hugepages = memory_mb(mtu) / 2 + 32;
        (spec.memory_mb, spec.cpus) = (512 + 2 * hugepages, 2);
        spec.kernel_args = format!("intel_iommu=on iommu=pt hugepages={hugepages}");
        spec.extra = machine(uplink);
        Guest::start(spec, &self.dir, Some(&wire))
    }

    fn image(&self, kernel: &Kernel, config: &str) -> Result<Image> {
        let mut image = Image::new(kernel, &self.bins.lab)?;
        image.program(&self.bins.godwit, "/usr/bin/godwit")?;
        image.program(&self.bins.ctl, "/usr/bin/godwitctl")?;
        image.dpdk_drivers(&self.bins.godwit, &DRIVERS)?;
        image.file("/usr/bin/nic", 0o755, NIC.as_bytes());
        image.file("/etc/godwit.toml", 0o644, config.as_bytes());
        // Emulated IOMMUs remap no interrupts, which vfio wants to be told.
        image.load(&["vfio_iommu_type1 allow_unsafe_interrupts=1", "vfio-pci", "vmxnet3"])?;
        Ok(image)
    }

    /// What is behind the port's card: its tap, with the VM's address, in a namespace of its own.
    fn build_vm(&self, v: &VmSpec, mtu: u32) -> Result<()> {
        let (wire, vm) = (self.ns("wire"), self.ns("vm"));
        cmd::ip_batch(&wire, &[format!("link set {PORT_TAP} netns {vm}")])?;
        cmd::ip_batch(&vm, &[format!("link set {PORT_TAP} address {} mtu {mtu}", v.mac)])?;
        topology::offloads_off(&vm, PORT_TAP)?;
        topology::guest_addresses(&vm, PORT_TAP, &v.ips)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        cleanup::forget(&self.id);
        cleanup::sweep(&self.id, self.keep.get() || std::thread::panicking());
    }
}

fn locator(n: u8) -> IpAddr {
    Locator::numbered(n, true, false).v4.map_or(IpAddr::from([0, 0, 0, 0]), IpAddr::from)
}

/// QEMU's arguments for the IOMMU and the two cards.
fn machine(uplink: Card) -> Vec<String> {
    // The IOMMU first: cards are put behind it as they come.
    let mut words = vec!["-device".into(), "intel-iommu,intremap=off".into()];
    let cards = [(uplink, UPLINK_TAP, UPLINK_PCI, 1), (Card::Virtio, PORT_TAP, PORT_PCI, 2)];
    for (card, tap, pci, number) in cards {
        let (device, slot) = (card.device(), pci.trim_start_matches("0000:00:"));
        words.extend([
            "-netdev".into(),
            format!("tap,id={tap},ifname={tap},script=no,downscript=no{}", card.tap().1),
            "-device".into(),
            format!("{device},netdev={tap},mac=02:00:5e:00:00:{number:02x},romfile=,addr={slot}"),
        ]);
    }
    words
}

/// What the switch takes: buffers hold a whole frame.
fn memory_mb(underlay_mtu: u32) -> u32 {
    if underlay_mtu > USUAL.0 { 384 } else { 128 }
}

/// The switch's configuration: two workers, no directory.
fn config(uplink: Card, v: &VmSpec, x: &VmSpec, mtu: u32) -> String {
    let ips = |vm: &VmSpec| vm.ips.iter().map(|ip| format!("\"{ip}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "[nve]\nid = \"metal\"\nworkers = \"0-1\"\nidle_sleep_us = 100\nhugepages = \"always\"\nmemory_mb = {}\n\
         locations = 1024\nudp_checksum = true\nadmin_socket = \"{SOCKET}\"\n\n\
         [[uplink]]\nname = \"{UPLINK_NAME}\"\ndevargs = \"{UPLINK_PCI}\"\nipv4 = \"{}/24\"\n\
         rx_queues = {}\nmtu = {mtu}\n\n\
         [[port]]\nname = \"{PORT_NAME}\"\ndevargs = \"{PORT_PCI}\"\nvni = {VNI}\nmac = \"{}\"\nrx_queues = 2\n\
         activate = \"start\"\nips = [{}]\n\n\
         [[vm]]\nvni = {VNI}\nmac = \"{}\"\nips = [{}]\nlocator = \"{}\"\n",
        memory_mb(mtu),
        locator(SWITCH),
        uplink.rx_queues(),
        v.mac,
        ips(v),
        x.mac,
        ips(x),
        locator(PEER),
    )
}

/// Binds both cards, after it was seen that one in use is refused.
fn bind_cards(machine: &mut Guest) -> Result<()> {
    machine.sh("ip link set eth0 up && ip addr add 192.0.2.1/24 dev eth0")?;
    let both = [UPLINK_PCI, PORT_PCI].map(|pci| machine.sh(&format!("nic bind {pci}")));
    let refused = both.iter().filter_map(|r| r.as_ref().err()).map(|e| format!("{e:#}"));
    let refused: Vec<String> = refused.filter(|e| e.contains("has addresses")).collect();
    ensure!(refused.len() == 1, "one card has an address, and nic should have refused it alone: {both:?}");
    println!("    nic refuses the card that has an address, until it has none");
    machine.sh("ip addr flush dev eth0 && ip link set eth0 down")?;
    machine.sh(&format!("nic bind {UPLINK_PCI} {PORT_PCI}"))?;
    println!("{}", indented(&machine.sh("nic status")?));
    Ok(())
}

/// What each worker received from each card, by the switch's own command.
fn received(machine: &mut Guest, uplink: Card) -> Result<Vec<Received>> {
    let text = machine.sh(&format!("godwitctl --timeout 20 --socket {SOCKET} --json counters"))?;
    let json: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("counters: {text}"))?;
    let all = json["counters"].as_array().context("counters")?;
    let at = |port: &str, worker: u64| {
        let own = |c: &&serde_json::Value| {
            c["port"] == port && c["name"] == "rx_packets" && c["worker"].as_u64() == Some(worker)
        };
        // Those that stand at zero are not listed.
        all.iter().find(own).and_then(|c| c["value"].as_u64()).unwrap_or(0)
    };
    let of = |port, card: Card| Received {
        port,
        spreads: card.fills_all_queues(),
        packets: (0..WORKERS).map(|worker| at(port, worker)).collect(),
    };
    Ok(vec![of(UPLINK_NAME, uplink), of(PORT_NAME, Card::Virtio)])
}

fn start_switch(machine: &mut Guest) -> Result<()> {
    machine.sh("godwit --config /etc/godwit.toml >/tmp/godwit.log 2>&1 &")?;
    let give_up = Instant::now() + START_PATIENCE;
    loop {
        let log = machine.sh("cat /tmp/godwit.log; kill -0 $(pidof godwit) || echo ENDED")?;
        if log.contains("ready") {
            println!("{}", indented(&log));
            return Ok(());
        }
        if log.contains("ENDED") || Instant::now() > give_up {
            bail!("the switch does not come up in the machine:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the switch, in order, and gives the cards back to the kernel.
fn stop_and_give_back(machine: &mut Guest) -> Result<()> {
    machine.sh(
        "kill $(pidof godwit); for i in $(seq 100); do pidof godwit || exit 0; sleep 0.1; done; exit 1",
    )?;
    let said = machine.sh(&format!("nic unbind {UPLINK_PCI} {PORT_PCI}"))?;
    println!("{}", indented(&said));
    ensure!(said.contains("back at virtio-pci"), "the port's card did not go back to its driver: {said}");
    Ok(())
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|l| format!("      {l}")).collect::<Vec<_>>().join("\n")
}

fn print_outcome(o: &Outcome) {
    for (inner, talk) in [(4, &o.inner4), (6, &o.inner6)] {
        println!(
            "    inner IPv{inner}: v to x {} sent {} lost, x to v {} sent {} lost; TCP {:.1} MB {}",
            thousands(talk.a_to_b.sent),
            talk.a_to_b.lost,
            thousands(talk.b_to_a.sent),
            talk.b_to_a.lost,
            talk.tcp.as_ref().map_or(0.0, |t| t.bytes as f64 / 1e6),
            if talk.tcp.as_ref().is_some_and(|t| t.alive) { "alive" } else { "DEAD" },
        );
    }
    let c = &o.capture;
    println!(
        "    tshark: {} VXLAN frames from the switch, {} from Linux, {} malformed, {} bad checksums",
        thousands(c.from_switch.frames),
        thousands(c.from_foreign.frames),
        c.malformed,
        c.bad
    );
    o.queues.iter().for_each(|q| println!("    {}", q.text()));
    c.complaints().iter().for_each(|complaint| println!("    complaint: {complaint}"));
}

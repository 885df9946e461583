//! libvirt migrates a guest between two hosts with Godwit's hook, and nobody gives Godwit an order besides.

mod host;

use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use godwit_api::v1::{ListMovesRequest, MovePhase, MoveRecord, MoveStepKind, VmName};
use serde::Serialize;

use self::host::Host;
use super::report::thousands;
use super::{Common, Guests, Load, report};
use crate::agent::client::Agent;
use crate::guest::qemu::QEMU;
use crate::guest::standard_image;
use crate::lab::topology::GUEST_MTU;
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec, VN};
use crate::mover::timeline;
use crate::traffic::{End, Talk, Traffic, run};

/// The domain that moves and the VM it talks to.
const PAIR: (&str, &str) = ("v", "p");
/// The domain's UUID.
const UUID: &str = "0b0e5c44-94c5-4d3a-8f0c-9f1f8a3f5a10";
/// Its memory in KiB; see [`crate::guest::qemu`] on why it divides by no 256.
const MEMORY_KIB: u32 = 192 * 1024 - 8;
/// How long the guest may take to come up, and moves to be over, on a machine that is busy compiling.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a command in it may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(40);

/// Options of `godwit-lab libvirt`.
#[derive(Clone, Debug, Args)]
pub struct Libvirt {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    load: Load,
    /// How many times libvirt migrates the guest
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    moves: u32,
    /// Seconds of traffic around each migration
    #[arg(long, default_value_t = 2.0, value_name = "S")]
    duration_per_move: f64,
}

/// One migration.
#[derive(Debug, Serialize)]
struct Migration {
    id: String,
    from: String,
    to: String,
    /// Done, or how else the move ended.
    phase: &'static str,
    /// As libvirt has it.
    downtime_ms: Option<u64>,
    /// What the NVEs held and forwarded.
    held: u64,
    forwarded: u64,
    /// The old port is gone and the new one is activated.
    ports_right: bool,
    /// From the pause at the old NVE until the VM ran at the new one.
    paused_to_activated_ms: Option<f64>,
    #[serde(skip)]
    timeline: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    sent: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    tcp_alive: bool,
    migrations: Vec<Migration>,
    /// A domain in a VN that is not there did not start, and libvirt said why.
    refused: bool,
    /// When the domain was stopped its port went, and the directory has it nowhere.
    released: bool,
    passed: bool,
}

impl Libvirt {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let tools = ["libvirtd", "virsh", "unshare", "nsenter", "python3", QEMU, "busybox"];
        let bins = self.common.prepare(&tools)?;
        println!(
            "Godwit lab: libvirt\n  Two hosts a and b, each with a switch, libvirtd and Godwit's hook in namespaces of \
             its own.\n  libvirt migrates v, Linux under QEMU, {} times between them while it talks to p at switch \
             c;\n  Godwit gets no order but the hook's.\n",
            self.moves
        );
        let mut lab = Lab::start(&LabSpec::new(&["c"], false, &self.common.switch_options()), &bins)?;
        let mut hosts = Vec::new();
        let result = self.in_lab(&mut lab, &mut hosts);
        if !result.as_ref().is_ok_and(|r| r.passed) {
            for host in &hosts {
                println!("    the end of the log of libvirtd at {}:\n{}", host.name, host.log());
            }
        }
        let report = report::end(&mut lab, result, |r| r.passed)?;
        report::write_json_value(self.common.json.as_deref(), &serde_json::to_value(&report)?)?;
        println!(
            "\n{}",
            if report.passed {
                format!(
                    "PASSED: {} migrations by libvirt, nothing lost, nothing duplicated, TCP alive.",
                    self.moves
                )
            } else {
                "FAILED".into()
            }
        );
        Ok(report.passed)
    }

    fn in_lab(&self, lab: &mut Lab, hosts: &mut Vec<Host>) -> Result<Report> {
        let options = self.common.switch_options();
        for (name, n) in [("a", 2), ("b", 3)] {
            hosts.push(Host::start(lab, name, n, &options)?);
        }
        let (v, p) = (VmSpec::numbered(PAIR.0, 10), VmSpec::numbered(PAIR.1, 20));
        lab.start_vm(p.clone(), "c")?;
        let refused = refuses_without_a_vn(lab, &hosts[0], &v)?;
        let mut agent = start_domain(lab, &hosts[0], &v)?;
        println!("  v is up at a: its port, its definition and its location are the hook's work");

        let (at_v, at_p) = (v.address(false, 0), p.address(false, 0));
        let spec = self.load.spec(Guests::Qemu);
        let peer = &mut lab.vm(PAIR.1)?.agent;
        let mut ends = (End { agent: &mut agent, address: at_v }, End { agent: &mut *peer, address: at_p });
        let traffic = Traffic::open(1, spec, GUEST_MTU, &mut ends.0, &mut ends.1)?;
        run(peer)?;
        run(&mut agent)?;
        let mut migrations = Vec::new();
        let half = Duration::from_secs_f64(self.duration_per_move / 2.0);
        let mut tcp_went_on = true;
        for n in 1..=self.moves {
            sleep(half);
            let (from, to) = if n % 2 == 1 { (&hosts[0], &hosts[1]) } else { (&hosts[1], &hosts[0]) };
            let moved = migrate(lab, from, to).with_context(|| format!("migration {n}"))?;
            agent = Agent::connect(&to.file("v.agent"), PATIENCE)?;
            tcp_went_on &= traffic.tcp_progresses(&mut agent, &mut lab.vm(PAIR.1)?.agent)?;
            println!("  {n}  {}", moved.line());
            migrations.push(moved);
            hosts.iter_mut().try_for_each(Host::check)?;
        }
        sleep(half);
        let talk = traffic.finish(&mut agent, &mut lab.vm(PAIR.1)?.agent)?;
        lab.check_processes()?;
        let last = if self.moves % 2 == 1 { &hosts[1] } else { &hosts[0] };
        let released = releases(lab, last)?;
        Ok(judge(&talk, tcp_went_on, migrations, refused, released))
    }
}

impl Migration {
    fn line(&self) -> String {
        let Migration { id, from, to, phase, held, forwarded, .. } = self;
        let downtime = self.downtime_ms.map_or("unknown".into(), |ms| format!("{ms} ms"));
        let paused = self.paused_to_activated_ms.map_or("unknown".into(), |ms| format!("{ms:.0} ms"));
        format!(
            "{from} to {to}: {phase}; downtime {downtime} by libvirt, {paused} by the switches, held {held}, forwarded \
             {forwarded} ({id})"
        )
    }
}

fn judge(
    talk: &Talk,
    tcp_went_on: bool,
    migrations: Vec<Migration>,
    refused: bool,
    released: bool,
) -> Report {
    let both = |f: fn(&crate::traffic::Stream) -> u64| f(&talk.a_to_b) + f(&talk.b_to_a);
    let (sent, received, lost) = (both(|s| s.sent), both(|s| s.received), both(|s| s.lost));
    let (duplicated, reordered, corrupt) =
        (both(|s| s.duplicated), both(|s| s.reordered), both(|s| s.corrupt));
    let tcp_alive = tcp_went_on && talk.tcp.as_ref().is_none_or(|t| t.alive);
    let moved = migrations.iter().all(|m| m.phase == "done" && m.ports_right);
    println!(
        "\n  {} probes sent, {} lost, {} duplicated, {} reordered; TCP is {}",
        thousands(sent),
        thousands(lost),
        thousands(duplicated),
        thousands(reordered),
        if tcp_alive { "alive" } else { "DEAD" }
    );
    println!(
        "  a domain in a VN that is not there: {}",
        if refused { "refused, and why" } else { "NOT REFUSED" }
    );
    println!("  v stopped: {}", if released { "its port is gone, it is detached" } else { "NOT RELEASED" });
    if lost > 0 || !moved {
        for (way, s) in [("v to p", &talk.a_to_b), ("p to v", &talk.b_to_a)] {
            println!("  {way}: {} of {} lost, longest silence {:.0} ms", s.lost, s.sent, s.gap_ms_max);
        }
        migrations.iter().for_each(|m| println!("    {} to {}:\n{}", m.from, m.to, m.timeline));
    }
    let passed = lost == 0 && duplicated == 0 && corrupt == 0 && tcp_alive && moved && refused && released;
    Report {
        scenario: "libvirt",
        sent,
        received,
        lost,
        duplicated,
        reordered,
        tcp_alive,
        migrations,
        refused,
        released,
        passed,
    }
}

/// Starts the domain at a host and waits until the guest's agent answers and the directory has it there.
fn start_domain(lab: &mut Lab, host: &Host, v: &VmSpec) -> Result<Agent> {
    let (kernel, image) = standard_image(&lab.bins.lab.clone(), &lab.dir)?;
    create(lab, host, &domain_xml(v, &kernel, &image, VN)).context("libvirt does not start v")?;
    let mut agent = Agent::connect(&host.file("v.agent"), PATIENCE)?;
    agent.wait_up(PATIENCE, || Ok(()))?;
    let ips: Vec<String> = v.ips.iter().map(|ip| format!("ip addr add {} dev eth0", prefixed(ip))).collect();
    let line = format!("ip link set eth0 mtu {GUEST_MTU} up && {}", ips.join(" && "));
    let report = agent.exec(&["sh", "-c", &line], COMMAND_PATIENCE)?;
    ensure!(report.code == Some(0), "v does not take its addresses: {}", report.output);
    wait_record(lab, |nve| nve == Some(host.name.as_str()))
        .with_context(|| format!("the hook said that v runs at {}", host.name))?;
    Ok(agent)
}

fn prefixed(ip: &IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv6() { 64 } else { 24 })
}

fn create(lab: &Lab, host: &Host, xml: &str) -> Result<()> {
    let file = lab.dir.join("domain.xml");
    std::fs::write(&file, xml).with_context(|| format!("writing {}", file.display()))?;
    host.virsh(&["create", &file.to_string_lossy()]).map(drop)
}

/// A domain whose VN is not there must not start without its port; libvirt says what the hook says.
fn refuses_without_a_vn(lab: &Lab, host: &Host, v: &VmSpec) -> Result<bool> {
    let xml = domain_xml(v, Path::new("/boot/none"), Path::new("/boot/none"), "nowhere");
    let Err(refusal) = create(lab, host, &xml) else { bail!("a domain without a VN started") };
    let text = format!("{refusal:#}");
    Ok(text.contains("there is no VN nowhere") && host.port(lab, PAIR.0)?.is_none())
}

/// Has libvirt migrate the domain, and waits until the move that the hook ordered is over.
fn migrate(lab: &Lab, from: &Host, to: &Host) -> Result<Migration> {
    let before = moves(lab)?.len();
    let there = format!("tcp://{}", to.management);
    from.virsh(&[
        "migrate",
        "--live",
        PAIR.0,
        &to.uri(),
        "--migrateuri",
        &there,
        "--listen-address",
        "0.0.0.0",
    ])?;
    let give_up = Instant::now() + PATIENCE;
    let record = loop {
        let all = moves(lab)?;
        match all.iter().filter(|m| m.to == to.name).max_by_key(|m| m.steps.first().map(|s| s.at_us)) {
            Some(m) if all.len() > before && m.phase() >= MovePhase::Done => break m.clone(),
            _ if Instant::now() > give_up => bail!("the move is not over after {PATIENCE:?}: {all:?}"),
            _ => sleep(Duration::from_millis(20)),
        }
    };
    let old_gone = from.port(lab, PAIR.0)?.is_none();
    let new_there = to.port(lab, PAIR.0)?.is_some_and(|p| p.state == "activated");
    let at = |kind| record.steps.iter().find(|s| s.what() == kind).map(|s| s.at_us as f64 / 1000.0);
    let paused_to_activated_ms = at(MoveStepKind::Activated)
        .zip(at(MoveStepKind::Paused))
        .map(|(activated, paused)| activated - paused);
    let timeline = timeline(&record);
    let phase = if record.phase() == MovePhase::Done { "done" } else { "not done" };
    let (mut held, mut forwarded) = (0, 0);
    for counts in record.counts.iter().filter_map(|c| c.counts) {
        (held, forwarded) = (held + counts.held, forwarded + counts.forwarded);
    }
    Ok(Migration {
        id: record.id,
        from: from.name.clone(),
        to: to.name.clone(),
        phase,
        downtime_ms: downtime(&to.virsh(&["domjobinfo", PAIR.0, "--completed"]).unwrap_or_default()),
        held,
        forwarded,
        ports_right: old_gone && new_there,
        paused_to_activated_ms,
        timeline,
    })
}

fn moves(lab: &Lab) -> Result<Vec<MoveRecord>> {
    let request = ListMovesRequest { vm: PAIR.0.into(), ..Default::default() };
    Ok(lab.nva.operator.list_moves(request)?.moves)
}

/// `Total downtime: 52 ms`, of which there may be more than one.
fn downtime(text: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with("Total downtime:"))?;
    line.split_whitespace().find_map(|w| w.parse().ok())
}

/// Stops the domain: its port goes, and the directory has it nowhere.
fn releases(lab: &Lab, host: &Host) -> Result<bool> {
    host.virsh(&["destroy", PAIR.0])?;
    wait_record(lab, |nve| nve.is_none()).context("the domain was stopped")?;
    Ok(host.port(lab, PAIR.0)?.is_none())
}

/// Waits until the directory has the domain where it should.
fn wait_record(lab: &Lab, right: impl Fn(Option<&str>) -> bool) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let record = lab.nva.operator.show_vm(VmName { name: PAIR.0.into() })?;
        let nve = record.location.as_ref().map(|l| l.nve.as_str()).filter(|n| !n.is_empty());
        if right(nve) {
            return Ok(());
        }
        ensure!(Instant::now() < give_up, "the directory has {} at {nve:?} after {PATIENCE:?}", PAIR.0);
        sleep(Duration::from_millis(20));
    }
}

/// The domain as its owner writes it. QEMU's own arguments are about the emulation: no MSI-X, and memory whose
/// length QEMU migrates whole.
fn domain_xml(v: &VmSpec, kernel: &Path, image: &Path, vn: &str) -> String {
    let ips: Vec<String> = v.ips.iter().map(ToString::to_string).collect();
    let argument = |text: &str| format!("    <qemu:arg value='{text}'/>\n");
    let memory = format!("memory-backend-memfd,id=lab,size={MEMORY_KIB}K,share=on");
    let size = format!("size={MEMORY_KIB}K");
    let arguments: String = [
        "-global",
        "virtio-net-pci.vectors=0",
        "-global",
        "virtio-serial-pci.vectors=0",
        "-object",
        &memory,
        "-machine",
        "memory-backend=lab",
        "-m",
        &size,
    ]
    .map(argument)
    .concat();
    format!(
        "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{UUID}</uuid>
  <metadata>
    <godwit:ports xmlns:godwit='urn:godwit:libvirt:1'>
      <godwit:port mac='{mac}' vn='{vn}' ips='{ips}'/>
    </godwit:ports>
  </metadata>
  <memory unit='KiB'>{memory_kib}</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{image}</initrd>
    <cmdline>console=ttyS0 loglevel=4 oops=panic panic=-1 tsc=reliable no_timer_check mitigations=off</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>/usr/bin/{QEMU}</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='/run/lab/v.console'/></serial>
    <channel type='unix'>
      <source mode='bind' path='/run/lab/v.agent'/>
      <target type='virtio' name='agent'/>
    </channel>
    <interface type='vhostuser'>
      <mac address='{mac}'/>
      <source type='unix' path='/run/godwit/v.vhost' mode='client'/>
      <model type='virtio'/>
      <driver rx_queue_size='1024'/>
      <rom enabled='no'/>
    </interface>
    <memballoon model='none'/>
  </devices>
  <qemu:commandline>
{arguments}  </qemu:commandline>
</domain>
",
        name = v.name,
        mac = v.mac,
        ips = ips.join(" "),
        memory_kib = MEMORY_KIB,
        kernel = kernel.display(),
        image = image.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_downtime_that_virsh_prints() {
        let text = "Job type:         Completed\nTotal downtime:   52           ms\nSetup time:       5 ms\n";
        assert_eq!(downtime(text), Some(52));
        assert_eq!(downtime("Job type: None"), None);
    }

    #[test]
    fn the_domain_names_its_vn_and_its_socket() {
        let v = VmSpec::numbered("v", 10);
        let xml = domain_xml(&v, Path::new("/k"), Path::new("/i"), "blue");
        assert!(
            xml.contains(
                "<godwit:port mac='02:67:77:00:00:10' vn='blue' ips='203.0.113.10 2001:db8:64::10'/>"
            )
        );
        assert!(xml.contains("path='/run/godwit/v.vhost' mode='client'"), "{xml}");
    }
}

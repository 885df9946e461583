//! Guests that leave checksums and segmentation to the switch (R11): a real guest sends files in writes of
//! 64 KiB through VXLAN to Linux's own vxlan device and gets them back, under tshark's eyes; then two guests
//! of one switch measure with iperf3 what goes between them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::interop::{FOREIGN, FOREIGN_NUMBER, build_foreign, define_foreign, only};
use super::ovs_guests::{self, Ovs, OvsSpec};
use super::report::thousands;
use super::routed::Domain;
use super::routed::foreign::{self, OF_V, OF_X};
use super::{Common, ip_version};
use crate::capture::{Capture, Findings};
use crate::cmd;
use crate::guest::Guest;
use crate::guest::image::Image;
use crate::guest::kernel::Kernel;
use crate::guest::qemu::{GuestSpec, Nic, QEMU};
use crate::lab::nve::Locator;
use crate::lab::process::Process;
use crate::lab::topology::{GUEST_MTU, UNDERLAY_MTU};
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};

/// Ethernet header of the underlay; what is longer than this and the MTU is too long.
const ETHERNET: u64 = 14;
/// Where a guest keeps its files, and what it has of the lab's program.
const SENT: &str = "/tmp/sent";
const BACK: &str = "/tmp/back";
const AGENT: &str = "godwit-agent";
/// The port of the first iperf3.
const IPERF: u16 = 5201;
/// How long a file may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options of `godwit-lab guest-tso`.
#[derive(Clone, Debug, Args)]
pub struct GuestTso {
    #[command(flatten)]
    common: Common,
    /// Only this outer IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    outer: Option<u8>,
    /// Size of the file that is sent each way over each inner family, in MiB
    #[arg(long, default_value_t = 4, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..=64))]
    size: u32,
    /// Seconds of iperf3 between two guests of one switch; 0 for none
    #[arg(long, default_value_t = 5, value_name = "S")]
    iperf: u32,
    /// Also measure OVS-DPDK between the same two guests
    #[arg(long)]
    ovs: bool,
    /// g and x are in two subnets of a routing domain, and nothing is measured with iperf3
    #[arg(long, conflicts_with = "ovs")]
    routed: bool,
}

impl GuestTso {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&[QEMU, "busybox", "bridge", "tcpdump", "tshark", "iperf3"])?;
        println!("Godwit lab: guests with checksum and TCP segmentation offload");
        println!(
            "  g, Linux under QEMU at switch a, and x behind Linux's vxlan device; h, a second guest at a\n"
        );
        let mut passed = true;
        for outer in self.outer.map_or(vec![4, 6], |o| vec![o]) {
            println!("  outer IPv{outer}");
            let spec = LabSpec::new(&["a"], outer == 6, &self.common.switch_options());
            let mut lab = Lab::start(&spec, &bins)?;
            let result = self.in_lab(&mut lab, outer);
            passed &= super::report::end(&mut lab, result, |good| *good)
                .with_context(|| format!("outer IPv{outer}"))?;
        }
        let verdict = "PASSED: byte for byte, nothing too long, no bad checksum.";
        println!("\n{}", if passed { verdict } else { "FAILED" });
        Ok(passed)
    }

    fn in_lab(&self, lab: &mut Lab, outer: u8) -> Result<bool> {
        let (h, (g, x)) = (VmSpec::numbered("h", 11), self.ends(lab)?);
        let machine = machine(lab)?;
        let foreign = Locator::numbered(FOREIGN_NUMBER, outer == 4, outer == 6);
        define_foreign(lab, foreign, &x)?;
        lab.start_guest(&g, machine.clone(), "a", 1)?;
        let switch = only(Locator::numbered(1, outer == 4, outer == 6));
        let _foreign = if self.routed {
            lab.guest("g")?.sh(&foreign::default_routes_of_v())?;
            foreign::build_router(lab, (only(foreign), switch), (&x, &g))?
        } else {
            build_foreign(lab, only(foreign), switch, &x, &g)?
        };
        let capture = Capture::start(&lab.namespace("net"), &format!("u-{FOREIGN}"), &lab.dir)?;
        let random = format!("dd if=/dev/urandom of={SENT} bs=64k count={}", self.size * 16);
        lab.guest("g")?.sh(&random)?;
        let mut passed = true;
        for v6 in [false, true] {
            passed &= self.there_and_back(lab, &g, &x, v6)?;
        }
        passed &= look_at(&capture.finish(switch, GUEST_MTU)?);
        passed &= counted(lab, &["segmented", "checksums_completed"])?;
        if self.iperf > 0 && !self.routed {
            lab.start_guest(&h, machine.clone(), "a", 1)?;
            for v6 in [false, true] {
                self.iperf(lab, &h, v6)?;
            }
            passed &= counted(lab, &["handed_on"])?;
            if self.ovs && outer == self.outer.unwrap_or(4) {
                self.beside_ovs(lab, &machine, &g, &h)?;
            }
        }
        lab.check_processes()?;
        Ok(passed)
    }

    /// g and x, in the lab's network or in two of a routing domain.
    fn ends(&self, lab: &Lab) -> Result<(VmSpec, VmSpec)> {
        if !self.routed {
            return Ok((VmSpec::numbered("g", 10), VmSpec::numbered("x", 40)));
        }
        Domain::create(lab, &[OF_V.bridged(), OF_X.bridged()])?;
        Ok((OF_V.vm("g", 10), OF_X.vm("x", 40)))
    }

    /// Sends the file from g to x and from x back to g.
    fn there_and_back(&self, lab: &mut Lab, g: &VmSpec, x: &VmSpec, v6: bool) -> Result<bool> {
        let (port, family) = (5001 + u16::from(v6), if v6 { 6 } else { 4 });
        let ns = lab.namespace(if self.routed { &x.name } else { FOREIGN });
        let (program, file) = (lab.bins.lab.clone(), lab.dir.join(format!("x-{family}")));
        let mut receive = cmd::in_namespace(&ns, &program);
        receive.arg("bulk-receive").arg(port.to_string()).arg(&file);
        let mut receiver = Process::start(&format!("receive-{family}"), receive, &lab.dir)?;
        let to_x = x.address(v6, port).to_string();
        let guest = lab.guest("g")?;
        let sent = sha256(&guest.sh(&format!("sha256sum {SENT}"))?);
        run_long(guest, &[AGENT, "bulk-send", &to_x, SENT])?;
        // The sender has heard the receiver close, which it does with the file complete.
        let at_x = sha256(&cmd::run("sha256sum", &[&file])?);
        receiver.stop(Duration::from_secs(1));

        guest.sh(&format!("rm -f {BACK}; {AGENT} bulk-receive {port} {BACK} >/tmp/log 2>&1 &"))?;
        let to_g = g.address(v6, port).to_string();
        let file = file.display().to_string();
        cmd::run_in(&ns, &program.display().to_string(), &["bulk-send", &to_g, &file])?;
        let back = sha256(&guest.sh(&format!("sha256sum {BACK}"))?);
        let whole = sent.len() == 64 && at_x == sent && back == sent;
        let verdict = if whole { "the same" } else { "DIFFERENT" };
        println!("    inner IPv{family}: {} MiB there and back, SHA-256 {verdict}", self.size);
        Ok(whole)
    }

    /// iperf3 from g to h.
    fn iperf(&self, lab: &mut Lab, h: &VmSpec, v6: bool) -> Result<()> {
        let to = h.address(v6, IPERF + u16::from(v6));
        listen(lab.guest("h")?, to.port())?;
        let rate = iperf(lab.guest("g")?, to, self.iperf)?;
        println!("    g to h at one switch, IPv{}: {rate:.2} Gbit/s", if v6 { 6 } else { 4 });
        Ok(())
    }
}

impl GuestTso {
    /// The same two guests on a bridge of OVS-DPDK as it comes, its own segmentation offload off; the
    /// switch's worker idles meanwhile.
    fn beside_ovs(&self, lab: &mut Lab, machine: &GuestSpec, g: &VmSpec, h: &VmSpec) -> Result<()> {
        ensure!(ovs_guests::is_there(), "OVS-DPDK is missing: install the package openvswitch-switch-dpdk");
        lab.guests.clear();
        let ns = lab.namespace("h");
        let ovs = Ovs::start(&OvsSpec {
            name: "b",
            namespace: &ns,
            dir: &lab.dir,
            cores: (&self.common.workers, self.common.idle_sleep_us),
            guests: 2,
            wires: &[],
        })?;
        let start = |vm: &VmSpec, socket: &Path| -> Result<Guest> {
            let mut machine = machine.clone();
            machine.name = format!("{}-ovs", vm.name);
            machine.nics.push(Nic::new(socket, vm.mac));
            let mut guest = Guest::start(machine, &lab.dir, Some(&ns))?;
            guest.configure("eth0", GUEST_MTU, &vm.ips)?;
            Ok(guest)
        };
        let (mut a, mut b) = (start(g, &ovs.sockets[0])?, start(h, &ovs.sockets[1])?);
        for v6 in [false, true] {
            let to = h.address(v6, IPERF + u16::from(v6));
            listen(&mut b, to.port())?;
            let rate = iperf(&mut a, to, self.iperf)?;
            println!("    g to h over OVS-DPDK, IPv{}: {rate:.2} Gbit/s", if v6 { 6 } else { 4 });
        }
        Ok(())
    }
}

/// A guest with iperf3 and room for files.
fn machine(lab: &Lab) -> Result<GuestSpec> {
    let kernel = Kernel::get()?;
    let path = lab.dir.join("guest.cpio");
    let mut image = Image::new(&kernel, &lab.bins.lab)?;
    let iperf3 = ["/usr/bin/iperf3", "/usr/local/bin/iperf3"].map(PathBuf::from);
    let iperf3 =
        iperf3.iter().find(|p| p.is_file()).context("iperf3 is missing: install the package iperf3")?;
    image.program(iperf3, "/usr/bin/iperf3")?;
    image.write(&path)?;
    let mut machine = GuestSpec::new("", Path::new(&kernel.image), &path);
    machine.memory_mb = 384;
    Ok(machine)
}

fn run_long(guest: &mut Guest, argv: &[&str]) -> Result<String> {
    let report = guest.exec(argv, PATIENCE)?;
    ensure!(report.code == Some(0) && !report.timed_out, "{argv:?} failed: {}", report.output);
    Ok(report.output)
}

/// Starts an iperf3 for one test in a guest and waits until it listens.
fn listen(guest: &mut Guest, port: u16) -> Result<()> {
    let listens = format!("netstat -ltn | grep -q ':{port} '");
    guest.sh(&format!("iperf3 -s -1 -p {port} >/tmp/iperf 2>&1 & until {listens}; do sleep 0.1; done"))?;
    Ok(())
}

/// Gbit/s that the receiver saw.
fn iperf(guest: &mut Guest, to: SocketAddr, seconds: u32) -> Result<f64> {
    let (ip, port, seconds) = (to.ip().to_string(), to.port().to_string(), seconds.to_string());
    let output = run_long(guest, &["iperf3", "-c", &ip, "-p", &port, "-t", &seconds, "-l", "64K", "-J"])?;
    let report: serde_json::Value = serde_json::from_str(&output).context("reading what iperf3 says")?;
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(rate.with_context(|| format!("iperf3 says no rate: {output}"))? / 1e9)
}

fn sha256(line: &str) -> String {
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// What tshark found; true where nothing is wrong.
fn look_at(found: &Findings) -> bool {
    let limit = ETHERNET + u64::from(UNDERLAY_MTU);
    println!(
        "    capture: {} VXLAN frames from Godwit, {} from Linux; the longest has {} bytes, {limit} are allowed",
        thousands(found.from_switch.frames),
        thousands(found.from_foreign.frames),
        found.longest,
    );
    println!(
        "    tshark: {} malformed, {} bad checksums, {} good ones checked",
        found.malformed,
        found.bad,
        thousands(found.good)
    );
    let sides = [&found.from_switch, &found.from_foreign];
    let there = sides.iter().all(|s| s.tcp > 0 && s.full > 0 && s.inner4 > 0 && s.inner6 > 0);
    let sound = found.malformed == 0 && found.bad == 0 && found.good > 0;
    let short = found.longest <= limit;
    if !(there && sound && short) {
        println!("    complaint: frames {:?} of capture.pcap, or traffic is missing", found.faulty);
    }
    there && sound && short
}

/// The switch has done what these counters count: otherwise the guest did not leave it anything.
fn counted(lab: &Lab, names: &[&str]) -> Result<bool> {
    let counters = lab.nve("a")?.admin.counters()?;
    let mut all = true;
    for name in names {
        let n: u64 = counters.iter().filter(|c| c.name == *name).map(|c| c.value).sum();
        println!("    the switch counts {name}: {}", thousands(n));
        all &= n > 0;
    }
    for c in counters.iter().filter(|c| c.drop && c.name == "bad_offload") {
        println!("    complaint: {} frames dropped as bad_offload", c.value);
        all = false;
    }
    Ok(all)
}

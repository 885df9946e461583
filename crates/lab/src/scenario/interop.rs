//! Linux's own vxlan device as an NVE: one that nobody here wrote. It talks to a VM behind a switch
//! over both outer and both inner families, and a capture of the underlay is taken apart by tshark.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use godwit_api::v1::NveDefinition;
use serde::Serialize;

use super::report::{self, thousands};
use super::routed::foreign;
use super::{Common, ip_version};
use crate::agent::client::Agent;
use crate::agent::proto::Request;
use crate::capture::{Capture, Findings};
use crate::cmd;
use crate::lab::nve::Locator;
use crate::lab::process::Process;
use crate::lab::topology::{self, GUEST_MTU, UPLINK};
use crate::lab::vm::{VmSpec, start_agent};
use crate::lab::{Lab, LabSpec, VNI};
use crate::traffic::{End, Stream, Talk, Traffic, TrafficSpec, drain, run};

/// The foreign NVE: its name in the directory, and its number among the locators.
pub(super) const FOREIGN: &str = "linux";
pub(super) const FOREIGN_NUMBER: u8 = 9;
/// The VM that the foreign NVE itself is, behind its vxlan device.
pub(super) const DEVICE: &str = "vx0";
const PAYLOAD: usize = 100;

/// Options of `godwit-lab interop`.
#[derive(Clone, Debug, Args)]
pub struct Interop {
    #[command(flatten)]
    common: Common,
    /// Seconds of traffic for each outer family
    #[arg(long, default_value_t = 4.0, value_name = "S")]
    duration: f64,
    /// Only this outer IP version
    #[arg(long, value_name = "4|6", value_parser = ip_version)]
    outer: Option<u8>,
    /// Probe packets a second, each way and inner family; every other one is of 1,400 bytes
    #[arg(long, default_value_t = 1000, value_name = "PPS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// v and x are in two subnets of a routing domain: the switch routes what v sends, and Linux what x sends
    #[arg(long)]
    routed: bool,
}

/// What was found over one outer family.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub outer: u8,
    pub inner4: Talk,
    pub inner6: Talk,
    pub capture: Findings,
    pub passed: bool,
}

impl Interop {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&["bridge", "tcpdump", "tshark", "ping", "traceroute"])?;
        println!(
            "Godwit lab: a foreign NVE\n  VM v at switch a talks to VM x behind Linux's vxlan device, UDP and TCP,"
        );
        println!(
            "  inner IPv4 and IPv6, packets of up to {GUEST_MTU} bytes; tshark looks at every frame between them.\n"
        );
        let mut results = Vec::new();
        for outer in self.outer.map_or(vec![4, 6], |o| vec![o]) {
            println!("  outer IPv{outer}");
            let mut lab =
                Lab::start(&LabSpec::new(&["a"], outer == 6, &self.common.switch_options()), &bins)?;
            let result = if self.routed {
                foreign::in_lab(&mut lab, outer, self.load(), self.duration)
            } else {
                self.in_lab(&mut lab, outer)
            };
            let stays = self.common.keep && outer == self.outer.unwrap_or(6);
            let outcome = report::end_or_keep(stays, &mut lab, result, |r| r.passed);
            results.push(outcome.with_context(|| format!("outer IPv{outer}"))?);
        }
        let passed = results.iter().all(|r| r.passed);
        report::write_json_value(
            self.common.json.as_deref(),
            &serde_json::json!({ "scenario": "interop", "runs": results, "passed": passed }),
        )?;
        println!(
            "\n{}",
            if passed { "PASSED: nothing lost, nothing malformed, no bad checksum." } else { "FAILED" }
        );
        Ok(passed)
    }

    fn in_lab(&self, lab: &mut Lab, outer: u8) -> Result<Outcome> {
        let (v, x) = (VmSpec::numbered("v", 10), VmSpec::numbered("x", 40));
        let foreign = Locator::numbered(FOREIGN_NUMBER, outer == 4, outer == 6);
        define_foreign(lab, foreign, &x)?;
        lab.start_vm(v.clone(), "a")?;
        let switch = only(Locator::numbered(1, outer == 4, outer == 6));
        let (_process, mut agent_x) = build_foreign(lab, only(foreign), switch, &x, &v)?;
        let capture = Capture::start(&lab.namespace("net"), &format!("u-{FOREIGN}"), &lab.dir)?;

        let agent_v = &mut lab.vm("v")?.agent;
        let mut talks = Vec::new();
        for (probe, v6) in [(1, false), (2, true)] {
            let mut end_v = End { agent: &mut *agent_v, address: v.address(v6, 0) };
            let mut end_x = End { agent: &mut agent_x, address: x.address(v6, 0) };
            let opened = Traffic::open(probe, self.load(), GUEST_MTU, &mut end_v, &mut end_x);
            talks.push(opened.with_context(|| format!("inner IPv{}", if v6 { 6 } else { 4 }))?);
        }
        let judged = converse(agent_v, &mut agent_x, &talks, Duration::from_secs_f64(self.duration))?;
        let [inner4, inner6] = judged;
        let findings = capture.finish(switch, GUEST_MTU)?;
        lab.check_processes()?;
        let passed = is_whole(&inner4) && is_whole(&inner6) && findings.complaints().is_empty();
        let result = Outcome { outer, inner4, inner6, capture: findings, passed };
        result.print();
        Ok(result)
    }

    fn load(&self) -> TrafficSpec {
        TrafficSpec {
            rate: self.rate,
            one_way: false,
            payload: PAYLOAD,
            big_every: 2,
            tcp_rate_bit: 10_000_000,
        }
    }
}

/// Lets two agents talk for a while and judges both talks.
pub(super) fn converse(v: &mut Agent, x: &mut Agent, talks: &[Traffic], time: Duration) -> Result<[Talk; 2]> {
    run(v)?;
    run(x)?;
    thread::sleep(time);
    v.order(&Request::Stop)?;
    x.order(&Request::Stop)?;
    drain(&talks[..2], v, x)?;
    Ok([talks[0].judge(v, x)?, talks[1].judge(v, x)?])
}

/// Tells the directory of the foreign NVE, and that x is there.
pub(super) fn define_foreign(lab: &Lab, foreign: Locator, x: &VmSpec) -> Result<()> {
    let definition = NveDefinition { name: FOREIGN.into(), locators: Some(foreign.to_proto()) };
    lab.nva.operator.define_nve(definition)?;
    lab.define_vm(x, FOREIGN)
}

/// The one address that a locator has in this scenario.
pub(super) fn only(locator: Locator) -> IpAddr {
    locator.v4.map(IpAddr::from).or(locator.v6.map(IpAddr::from)).unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// Makes the foreign NVE: a namespace with its locator, and a vxlan device that carries x.
pub(super) fn build_foreign(
    lab: &Lab,
    local: IpAddr,
    remote: IpAddr,
    x: &VmSpec,
    v: &VmSpec,
) -> Result<(Process, Agent)> {
    let ns = lab.namespace(FOREIGN);
    topology::add_namespace(&ns)?;
    topology::connect_underlay(&lab.namespace("net"), &ns, FOREIGN)?;
    topology::guest_addresses(&ns, UPLINK, &[local])?;
    vxlan_device(&ns, (local, remote), (x, v), GUEST_MTU)?;
    start_agent(&x.name, &ns, &lab.bins, &lab.dir)
}

/// Makes Linux's own vxlan device in a namespace whose uplink has `local`: x is behind it, v behind the
/// switch at `remote`. `mtu` is the tenants'.
///
/// # Errors
/// Where the system refuses.
pub(super) fn vxlan_device(
    ns: &str,
    (local, remote): (IpAddr, IpAddr),
    (x, v): (&VmSpec, &VmSpec),
    mtu: u32,
) -> Result<()> {
    // Over IPv6 a switch sends tunnel packets without a UDP checksum (RFC 6935): Linux has to be
    // told that this is all right.
    let family = if local.is_ipv6() { "udp6zerocsumtx udp6zerocsumrx" } else { "noudpcsum" };
    cmd::ip_batch(
        ns,
        &[format!(
            "link add {DEVICE} mtu {mtu} address {} type vxlan id {VNI} dstport 4789 local {local} \
             dev {UPLINK} ttl 64 nolearning {family}",
            x.mac
        )],
    )?;
    topology::guest_addresses(ns, DEVICE, &x.ips)?;
    topology::offloads_off(ns, DEVICE)?;
    let fdb = format!("-n {ns} fdb append {} dev {DEVICE} dst {remote}", v.mac);
    cmd::run("bridge", &fdb.split(' ').collect::<Vec<_>>())?;
    let neighbor = |ip: &IpAddr| format!("neighbor replace {ip} lladdr {} dev {DEVICE} nud permanent", v.mac);
    cmd::ip_batch(ns, &v.ips.iter().map(neighbor).collect::<Vec<_>>())
}

pub(super) fn is_whole(talk: &Talk) -> bool {
    let stream = |s: &Stream| s.sent > 0 && s.lost == 0 && s.duplicated == 0 && s.corrupt == 0;
    stream(&talk.a_to_b) && stream(&talk.b_to_a) && talk.tcp.as_ref().is_some_and(|t| t.alive)
}

impl Outcome {
    /// For people.
    pub fn print(&self) {
        for (inner, talk) in [(4, &self.inner4), (6, &self.inner6)] {
            let tcp = talk.tcp.as_ref();
            println!(
                "    inner IPv{inner}: v to x {} sent {} lost, x to v {} sent {} lost; TCP {:.1} MB {}",
                thousands(talk.a_to_b.sent),
                talk.a_to_b.lost,
                thousands(talk.b_to_a.sent),
                talk.b_to_a.lost,
                tcp.map_or(0.0, |t| t.bytes as f64 / 1e6),
                tcp.map_or("none", |t| if t.alive { "alive" } else { "DEAD" }),
            );
        }
        let c = &self.capture;
        println!(
            "    capture: {} VXLAN frames from Godwit, {} from Linux, {} with a full {GUEST_MTU}-byte packet",
            thousands(c.from_switch.frames),
            thousands(c.from_foreign.frames),
            thousands(c.from_switch.full + c.from_foreign.full),
        );
        println!(
            "    tshark: {} malformed, {} bad checksums, {} good ones checked",
            c.malformed,
            c.bad,
            thousands(c.good)
        );
        for complaint in c.complaints() {
            println!("    complaint: {complaint}");
        }
    }
}

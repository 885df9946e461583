//! Linux as another's NVE in a routing domain: it bridges x's network to its vxlan device, routes what x sends by the
//! gateway's address and MAC, and has a second device for v's network.
//!
//! Each of both routes at its own end: what arrives has the network's number and the MAC of whom it is for.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use godwit_wire::Mac;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::cut;
use super::domain::{Domain, GATEWAY_MAC, Net, default_routes, start};
use super::look::{echoes, path, wait_reached};
use crate::agent::announce::{ethernet, icmpv6_checksum};
use crate::agent::client::Agent;
use crate::capture::{Capture, Findings, Side};
use crate::lab::Lab;
use crate::lab::nve::Locator;
use crate::lab::process::Process;
use crate::lab::topology::{self, GUEST, GUEST_MTU, UPLINK};
use crate::lab::vm::{VmSpec, start_agent};
use crate::scenario::interop::{FOREIGN, FOREIGN_NUMBER, Outcome, converse, define_foreign, is_whole, only};
use crate::traffic::{End, Traffic, TrafficSpec};
use crate::{cmd, netns};

/// The networks of v and x.
pub(crate) const OF_V: Net = Net(1);
pub(crate) const OF_X: Net = Net(2);
/// Linux's bridge of x's network, whose address is the gateway's, and its devices.
pub(super) const BRIDGE: &str = "br0";
pub(super) const BRIDGED: &str = "vx0";
const ROUTED: &str = "vx1";
pub(super) const WIRE: &str = "x0";
/// The bridged device takes nothing from its own MAC, and that of the gateway is what routed frames come from.
const DEVICE_MAC: Mac = Mac([0x02, 0x67, 0x77, 1, 0, 9]);
/// An address of x's network that nobody has.
const NOBODY: u8 = 99;
/// Bytes of an echo request in three fragments.
const LARGE: u32 = 3000;
/// Echo requests of each kind.
const ECHOES: u32 = 5;
/// What is left of a guest's time to live of 64 when it was routed once.
const ROUTED_ONCE: u8 = 63;

/// Linux with the gateway's role, and x behind it. The process is x's agent.
///
/// # Errors
/// Where the system refuses.
pub(crate) fn build_router(
    lab: &Lab,
    (local, remote): (IpAddr, IpAddr),
    (x, v): (&VmSpec, &VmSpec),
) -> Result<(Process, Agent)> {
    let (ns, of_x) = (lab.namespace(FOREIGN), lab.namespace(&x.name));
    topology::add_namespace(&ns)?;
    topology::add_namespace(&of_x)?;
    topology::connect_underlay(&lab.namespace("net"), &ns, FOREIGN)?;
    topology::guest_addresses(&ns, UPLINK, &[local])?;
    let family = if local.is_ipv6() { "udp6zerocsumtx udp6zerocsumrx" } else { "noudpcsum" };
    let device = |name: &str, mac: Mac, vni: u32| {
        format!(
            "link add {name} mtu {GUEST_MTU} address {mac} type vxlan id {vni} dstport 4789 local {local} \
             dev {UPLINK} ttl 64 nolearning {family}"
        )
    };
    cmd::ip_batch(
        &ns,
        &[
            format!(
                "link add {BRIDGE} mtu {GUEST_MTU} address {GATEWAY_MAC} type bridge stp_state 0 mcast_snooping 0"
            ),
            device(BRIDGED, DEVICE_MAC, x.vn.vni),
            device(ROUTED, GATEWAY_MAC, v.vn.vni),
            format!("link set {BRIDGED} master {BRIDGE} up"),
            // What another NVE has routed comes from the gateway's MAC, which is here, too.
            format!("link set {BRIDGED} type bridge_slave learning off"),
            format!(
                "link add {WIRE} mtu {GUEST_MTU} type veth peer name {GUEST} mtu {GUEST_MTU} netns {of_x}"
            ),
            format!("link set {WIRE} master {BRIDGE} up"),
        ],
    )?;
    cmd::ip_batch(&of_x, &[format!("link set {GUEST} address {}", x.mac)])?;
    topology::guest_addresses(&ns, BRIDGE, &[OF_X.gateway(false), OF_X.gateway(true)])?;
    topology::guest_addresses(&ns, ROUTED, &[OF_V.gateway(false), OF_V.gateway(true)])?;
    topology::guest_addresses(&of_x, GUEST, &x.ips)?;
    default_routes(&of_x, OF_X)?;
    for (ns, device) in [(&ns, BRIDGED), (&ns, ROUTED), (&ns, BRIDGE), (&ns, WIRE), (&of_x, GUEST)] {
        topology::offloads_off(ns, device)?;
    }
    topology::set_sysctls(&ns, &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
    cmd::sh(&format!("bridge -n {ns} fdb append {} dev {ROUTED} dst {remote}", v.mac))?;
    let neighbor = |ip: &IpAddr| format!("neighbor replace {ip} lladdr {} dev {ROUTED} nud permanent", v.mac);
    cmd::ip_batch(&ns, &v.ips.iter().map(neighbor).collect::<Vec<_>>())?;
    start_agent(&x.name, &of_x, &lab.bins, &lab.dir)
}

/// A line of shell that makes the gateway of v's network a guest's default routes.
pub(crate) fn default_routes_of_v() -> String {
    let [v4, v6] = [false, true].map(|v6| OF_V.gateway(v6));
    format!("ip route add default via {v4} && ip -6 route add default via {v6}")
}

/// VM v behind the switch and VM x behind Linux, in two networks, over one outer family.
///
/// # Errors
/// Where it cannot be carried out.
pub(crate) fn in_lab(lab: &mut Lab, outer: u8, load: TrafficSpec, seconds: f64) -> Result<Outcome> {
    Domain::create(lab, &[OF_V.bridged(), OF_X.bridged()])?;
    let (v, x) = (OF_V.vm("v", 10), OF_X.vm("x", 40));
    let foreign = Locator::numbered(FOREIGN_NUMBER, outer == 4, outer == 6);
    define_foreign(lab, foreign, &x)?;
    start(lab, OF_V, v.clone(), "a")?;
    let switch = only(Locator::numbered(1, outer == 4, outer == 6));
    let (_process, mut agent_x) = build_router(lab, (only(foreign), switch), (&x, &v))?;
    for ip in &x.ips {
        wait_reached(lab, "v", *ip)?;
    }
    let capture = Capture::start(&lab.namespace("net"), &format!("u-{FOREIGN}"), &lab.dir)?;

    let agent_v = &mut lab.vm("v")?.agent;
    let mut talks = Vec::new();
    for (probe, v6) in [(1, false), (2, true)] {
        let mut end_v = End { agent: &mut *agent_v, address: v.address(v6, 0) };
        let mut end_x = End { agent: &mut agent_x, address: x.address(v6, 0) };
        let opened = Traffic::open(probe, load, GUEST_MTU, &mut end_v, &mut end_x);
        talks.push(opened.with_context(|| format!("inner IPv{}", if v6 { 6 } else { 4 }))?);
    }
    let [inner4, inner6] = converse(agent_v, &mut agent_x, &talks, Duration::from_secs_f64(seconds))?;
    let mut good = options_and_fragments(lab, &v, &x)?;
    good &= cut::too_big(lab, outer, &x)?;
    let findings = capture.finish(switch, GUEST_MTU)?;
    for (who, side, vni) in
        [("Godwit", &findings.from_switch, x.vn.vni), ("Linux", &findings.from_foreign, v.vn.vni)]
    {
        good &= routed_once(who, side, vni);
    }
    good &= ways(lab, &x)? && errors(lab, &x)?;
    lab.check_processes()?;
    let passed = good && is_whole(&inner4) && is_whole(&inner6) && findings.complaints().is_empty();
    let outcome = Outcome { outer, inner4, inner6, capture: findings, passed };
    outcome.print();
    Ok(outcome)
}

/// What one side sent has the number of the network that it is for, and was routed once; true if so.
fn routed_once(who: &str, side: &Side, vni: u32) -> bool {
    let good = side.vnis == [vni].into() && side.ttls == [ROUTED_ONCE].into();
    let kinds = side.fragments > 0 && side.reassembled > 0 && side.options > 0;
    println!(
        "    {who}: VNIs {:?}, inner times to live {:?}, {} fragments of {} packets, {} packets with options{}",
        side.vnis,
        side.ttls,
        side.fragments,
        side.reassembled,
        side.options,
        if good && kinds { "" } else { ": NOT AS IT SHOULD BE" }
    );
    good && kinds
}

/// Packets with options and in fragments between v and x, both ways; true if all are answered.
fn options_and_fragments(lab: &mut Lab, v: &VmSpec, x: &VmSpec) -> Result<bool> {
    let mut good = true;
    for ip in &x.ips {
        let large = echoes(lab, "v", *ip, (ECHOES, LARGE))?;
        println!(
            "    {} of {} echo requests of {LARGE} bytes to {ip} were answered",
            large.received, large.sent
        );
        good &= large.received == large.sent;
    }
    // Timestamps of each on the way (RFC 791), which leave room for what the gateway does not write.
    let target = x.address(false, 0).ip();
    let line = format!("ping -c {ECHOES} -i 0.2 -W 5 -T tsonly {target} || true");
    let came = crate::scenario::guest::received(&super::look::sh(lab, "v", &line)?);
    println!("    {came} of {ECHOES} echo requests with an IPv4 option were answered");
    good &= came == ECHOES;
    let frame = with_destination_options(v, x)?;
    for _ in 0..ECHOES {
        send(&lab.namespace("v"), &frame)?;
    }
    // The answers to these have no options of their own: one from x.
    let back = with_destination_options(x, v)?;
    for _ in 0..ECHOES {
        send(&lab.namespace("x"), &back)?;
    }
    thread::sleep(Duration::from_millis(500));
    Ok(good)
}

/// The ways as Debian's traceroute sees them; true if they are the right ones.
fn ways(lab: &mut Lab, x: &VmSpec) -> Result<bool> {
    let mut good = true;
    for v6 in [false, true] {
        let target = x.address(v6, 0).ip();
        let seen = path(lab, ("v", "x"), "after", vec![OF_V.gateway(v6), target])?;
        println!("    {}", seen.text());
        good &= seen.is_right();
    }
    Ok(good)
}

/// What the gateway says of packets that it cannot carry, as tshark sees it at v; true if it says it, without fault.
fn errors(lab: &mut Lab, x: &VmSpec) -> Result<bool> {
    let dir = lab.dir.join("v");
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let capture = Capture::start(&lab.namespace("v"), GUEST, &dir)?;
    let mut good = true;
    for v6 in [false, true] {
        let (family, nobody) = (if v6 { "-6" } else { "-4" }, OF_X.ip(v6, NOBODY));
        let said = super::look::sh(lab, "v", &format!("ping {family} -c 2 -i 0.3 -W 2 {nobody} || true"))?;
        let unreachable =
            said.lines().any(|l| l.contains(&OF_V.gateway(v6).to_string()) && l.contains("nreachable"));
        let target = x.address(v6, 0).ip();
        let said =
            super::look::sh(lab, "v", &format!("ping {family} -t 1 -c 2 -i 0.3 -W 2 {target} || true"))?;
        let expired =
            said.lines().any(|l| l.contains(&OF_V.gateway(v6).to_string()) && l.contains("exceeded"));
        println!(
            "    the gateway over IPv{}: nobody there {}, time exceeded {}",
            if v6 { 6 } else { 4 },
            if unreachable { "said" } else { "NOT SAID" },
            if expired { "said" } else { "NOT SAID" }
        );
        good &= unreachable && expired;
    }
    let Findings { bad, malformed, good: sound, .. } = capture.finish(OF_V.gateway(false), GUEST_MTU)?;
    println!("    tshark at v: {malformed} malformed, {bad} bad checksums, {sound} good ones checked");
    Ok(good && bad == 0 && malformed == 0 && sound > 0)
}

/// An echo request with a destination options header (RFC 8200 section 4.6) of padding, to the gateway's MAC.
fn with_destination_options(from: &VmSpec, to: &VmSpec) -> Result<Vec<u8>> {
    let v6 = |spec: &VmSpec| match spec.address(true, 0).ip() {
        IpAddr::V6(ip) => Ok(ip),
        IpAddr::V4(ip) => Err(anyhow!("{ip} is no IPv6 address")),
    };
    let (source, target): (Ipv6Addr, Ipv6Addr) = (v6(from)?, v6(to)?);
    // Echo request, identifier 7, number 1, eight bytes.
    let mut icmp = vec![128, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    let sum = icmpv6_checksum(source, target, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    // Next: ICMPv6; eight bytes in all; PadN of four.
    let options = [58, 0, 1, 4, 0, 0, 0, 0];
    let mut frame = ethernet(GATEWAY_MAC.0, from.mac.0, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(((options.len() + icmp.len()) as u16).to_be_bytes());
    frame.extend([60, 64]);
    frame.extend(source.octets());
    frame.extend(target.octets());
    frame.extend(options);
    frame.extend(icmp);
    Ok(frame)
}

/// Sends a frame out of a VM's interface.
fn send(namespace: &str, frame: &[u8]) -> Result<()> {
    let here = || -> Result<()> {
        netns::enter(namespace)?;
        let link = netns::link(GUEST)?;
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        sendto(fd.as_raw_fd(), frame, &link, MsgFlags::empty()).context("sending a frame").map(drop)
    };
    // A thread of its own, for it changes namespaces.
    let sent = thread::scope(|s| s.spawn(here).join());
    sent.map_err(|_| anyhow!("the sending thread panicked"))?
}

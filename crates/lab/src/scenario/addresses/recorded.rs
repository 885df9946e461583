//! What the directory's record of a VM allows, and what it does not (R65, R94): a VM with twenty addresses, a router
//! that sends for another network, and a VM that speaks from an address that it has not, until the operator does as
//! `port show` says.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{ip, ping, ping_from, verdict, vm_set};
use crate::cmd;
use crate::lab::topology::{GUEST, set_sysctls};
use crate::lab::vm::VmSpec;
use crate::lab::{CTL_PATIENCE_S, Lab};

/// Addresses of the VM that has many, per family.
const MANY: u8 = 20;
/// Of a network behind the router.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// An address that nobody recorded.
const STRANGE: &str = "203.0.113.99";
const GAP: Duration = Duration::from_millis(10);
/// What the operator allows works within this time.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(lab: &mut Lab) -> Result<bool> {
    println!("\nRecorded addresses: many, gw and s at a, x at c");
    lab.start_vm(VmSpec::numbered("x", 12), "c")?;
    let mut good = many(lab)?;
    good &= router(lab)?;
    good &= refused_and_allowed(lab)?;
    Ok(good)
}

/// Each of its addresses sends, and is reached.
fn many(lab: &mut Lab) -> Result<bool> {
    let mut spec = VmSpec::numbered("many", 14);
    for n in 1..MANY {
        spec.ips.push(Ipv4Addr::new(203, 0, 113, 100 + n).into());
        spec.ips.push(format!("2001:db8:64::{:x}", 0x1000 + u16::from(n)).parse()?);
    }
    lab.start_vm(spec.clone(), "a")?;
    let (many, x) = (lab.namespace("many"), lab.namespace("x"));
    let x_ips = lab.vms["x"].spec.ips.clone();
    let (mut sent, mut there, mut back) = (0, 0, 0);
    for address in &spec.ips {
        let peer =
            x_ips.iter().find(|ip| ip.is_ipv6() == address.is_ipv6()).context("x has both families")?;
        let (address, peer) = (address.to_string(), peer.to_string());
        there += ping(&x, &address, 3, GAP)?.received;
        back += ping_from(&many, Some(&address), &peer, 3, GAP)?.received;
        sent += 3;
    }
    let text = format!(
        "a VM with {MANY} addresses of each family: {there} of {sent} reach it, {back} of {sent} sent from \
         them come back"
    );
    Ok(verdict(there == sent && back == sent, &text))
}

/// It sends for a network behind it.
fn router(lab: &mut Lab) -> Result<bool> {
    let spec = VmSpec::numbered("gw", 15);
    lab.start_vm(spec.clone(), "a")?;
    let (gw, x) = (lab.namespace("gw"), lab.namespace("x"));
    let x_ip = lab.vms["x"].spec.ips[0].to_string();
    ip(&gw, "link set lo up")?;
    // What a router forwards, it asks for from its own address; this one stands for the network as well as for itself.
    set_sysctls(&gw, &[("net/ipv4/conf/all/arp_announce", "2")])?;
    ip(&gw, &format!("address add {FOREIGN}/32 dev lo"))?;
    ip(&x, &format!("route add {FOREIGN}/32 via {}", v4(&spec)))?;
    let before = ping_from(&gw, Some(&FOREIGN.to_string()), &x_ip, 5, GAP)?;
    let mut good =
        verdict(before.received == 0, "no router by the directory: what it sends for others is dropped");
    vm_set(lab, "gw", &["--router"])?;
    let began = Instant::now();
    while ping_from(&gw, Some(&FOREIGN.to_string()), &x_ip, 1, GAP)?.received == 0
        && began.elapsed() < PATIENCE
    {}
    let there = ping_from(&gw, Some(&FOREIGN.to_string()), &x_ip, 20, GAP)?;
    let back = ping(&x, &FOREIGN.to_string(), 20, GAP)?;
    let text = format!(
        "a router: lost {} of {} sent for others, {} of {} to them",
        there.lost(),
        there.sent,
        back.lost(),
        back.sent
    );
    good &= verdict(there.lost() + back.lost() == 0, &text);
    Ok(good)
}

/// `port show` names what was refused and the command that allows it; that command does.
fn refused_and_allowed(lab: &mut Lab) -> Result<bool> {
    lab.start_vm(VmSpec::numbered("s", 16), "a")?;
    let s = lab.namespace("s");
    let x_ip = lab.vms["x"].spec.ips[0].to_string();
    ip(&s, &format!("address add {STRANGE}/24 dev {GUEST}"))?;
    let before = ping_from(&s, Some(STRANGE), &x_ip, 5, GAP)?;
    let mut good = verdict(before.received == 0, &format!("s speaks from {STRANGE}: dropped"));
    let port = lab.vms["s"].attached.clone().context("s is attached")?.port;
    let host = lab.nve("a")?;
    let socket = host.socket.display().to_string();
    let args = ["--timeout", CTL_PATIENCE_S, "--socket", &socket, "port", "show", &port];
    let shown = cmd::run_in(&host.namespace, &lab.bins.ctl.to_string_lossy(), &args)?;
    let refused = shown.lines().find(|l| l.contains("refused") && l.contains(STRANGE));
    good &= verdict(refused.is_some(), &format!("port show: {}", refused.unwrap_or("names nothing").trim()));
    let command = shown.split_once("`godwitctl ").and_then(|(_, rest)| rest.split_once('`')).map(|c| c.0);
    let Some(command) = command else {
        return Ok(verdict(false, &format!("port show names a command that allows it: {shown}")));
    };
    lab.ctl(&command.split(' ').collect::<Vec<_>>())?;
    let began = Instant::now();
    while ping_from(&s, Some(STRANGE), &x_ip, 1, GAP)?.received == 0 && began.elapsed() < PATIENCE {}
    let after = ping_from(&s, Some(STRANGE), &x_ip, 20, GAP)?;
    let text = format!("after `godwitctl {command}`: lost {} of {}", after.lost(), after.sent);
    good &= verdict(after.lost() == 0, &text);
    Ok(good)
}

fn v4(spec: &VmSpec) -> IpAddr {
    spec.address(false, 0).ip()
}

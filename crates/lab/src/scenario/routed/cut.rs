//! Packets that do not fit the way between two NVEs: the gateway cuts those that may be cut (R8), and tells the sender
//! of the others how much fits. Linux at the other end puts together what came in fragments.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::foreign::{BRIDGE, BRIDGED, OF_V, WIRE};
use super::look::sh;
use crate::cmd;
use crate::lab::Lab;
use crate::lab::topology::GUEST;
use crate::lab::vm::VmSpec;
use crate::scenario::guest::received;
use crate::scenario::interop::FOREIGN;

/// What guests take; the way has room for less.
const MTU: u32 = 1500;
/// What is left to tenants of an underlay with packets of 1,500 bytes, by the outer IP version.
const fn room(outer: u8) -> u32 {
    if outer == 4 { MTU - 50 } else { MTU - 70 }
}
/// Echo requests of each kind.
const ECHOES: u32 = 5;

/// A kind of echo request over IPv4 that the gateway has to cut.
struct Kind {
    what: &'static str,
    options: String,
}

/// Sends packets from v to x, behind Linux, that do not fit; true if all came as they should.
///
/// # Errors
/// Where it cannot be carried out.
pub(super) fn too_big(lab: &mut Lab, outer: u8, x: &VmSpec) -> Result<bool> {
    raise_mtu(lab, x)?;
    let target = |v6: bool| x.address(v6, 0).ip();
    let kinds = [
        // Headers of IPv4 and ICMP: a packet of 1,500 bytes.
        Kind { what: "of 1500 bytes", options: format!("-s {}", MTU - 28) },
        // The guest sends fragments, of which the gateway makes smaller ones.
        Kind { what: "of 4028 bytes, in fragments of 1500", options: "-s 4000".into() },
        // Timestamps (RFC 791) stay in the first fragment.
        Kind { what: "of 1468 bytes with an option", options: "-s 1400 -T tsonly".into() },
    ];
    let mut good = true;
    for Kind { what, options } in kinds {
        let before = (counted(lab)?, reassembled(lab, x)?);
        let line = format!("ping -4 -M dont -c {ECHOES} -i 0.2 -W 5 {options} {} || true", target(false));
        let came = received(&sh(lab, "v", &line)?);
        let (cut, whole) = (counted(lab)? - before.0, reassembled(lab, x)? - before.1);
        let right = came == ECHOES && cut >= u64::from(ECHOES) && whole >= u64::from(ECHOES);
        println!(
            "    {came} of {ECHOES} echo requests {what} were answered; the gateway cut {cut} packets, Linux put \
             {whole} together{}",
            if right { "" } else { ": NOT AS IT SHOULD BE" }
        );
        good &= right;
    }
    for v6 in [false, true] {
        good &= told(lab, outer, target(v6))?;
    }
    Ok(good)
}

/// A packet that must not be cut: the gateway says what fits, and v's kernel keeps to it.
fn told(lab: &mut Lab, outer: u8, target: IpAddr) -> Result<bool> {
    let (family, size) = if target.is_ipv6() { ("-6", MTU - 48) } else { ("-4 -M do", MTU - 28) };
    let said = sh(lab, "v", &format!("ping {family} -c 3 -i 0.3 -W 2 -s {size} {target} || true"))?;
    let (gateway, mtu) = (OF_V.gateway(target.is_ipv6()).to_string(), room(outer).to_string());
    let is_told = |l: &str| l.contains(&gateway) && l.contains("mtu") && l.contains(&mtu);
    let told = said.lines().any(is_told);
    let route = sh(lab, "v", &format!("ip route get {target}"))?;
    let mut words = route.split_whitespace().skip_while(|w| *w != "mtu");
    let kept = words.nth(1) == Some(&mtu);
    println!(
        "    a packet of {MTU} bytes to {target} that must not be cut: the gateway says {mtu}{}, v's kernel {}",
        if told { "" } else { ": NOT SAID" },
        if kept { "keeps to it" } else { "DOES NOT KNOW IT" }
    );
    Ok(told && kept)
}

/// Both guests take larger packets than the way.
fn raise_mtu(lab: &mut Lab, x: &VmSpec) -> Result<()> {
    let tap = lab.vm("v")?.attached.clone().context("v is attached")?.tap;
    let (of_v, linux, of_x) = (lab.namespace("v"), lab.namespace(FOREIGN), lab.namespace(&x.name));
    let places = [(&of_v, tap.as_str()), (&of_v, GUEST), (&linux, BRIDGED), (&linux, WIRE)];
    for (namespace, device) in places.into_iter().chain([(&linux, BRIDGE), (&of_x, GUEST)]) {
        cmd::sh(&format!("ip -n {namespace} link set {device} mtu {MTU}"))?;
    }
    Ok(())
}

/// Packets that v's switch has cut.
fn counted(lab: &Lab) -> Result<u64> {
    let all = lab.nve("a")?.admin.counters()?;
    Ok(all.iter().filter(|c| c.name == "fragmented").map(|c| c.value).sum())
}

/// IPv4 packets that x's kernel has put together.
fn reassembled(lab: &Lab, x: &VmSpec) -> Result<u64> {
    let snmp = cmd::run_in(&lab.namespace(&x.name), "cat", &["/proc/net/snmp"])?;
    reasm_oks(&snmp).context("/proc/net/snmp has no ReasmOKs")
}

/// `ReasmOKs` of the two `Ip:` lines, names and values.
fn reasm_oks(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|l| l.strip_prefix("Ip:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "ReasmOKs").and_then(|(_, value)| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_whole_packets_is_read() {
        let text = "Ip: Forwarding ReasmReqds ReasmOKs\nIp: 1 6 3\nIcmp: A\nIcmp: 1\n";
        assert_eq!(reasm_oks(text), Some(3));
        assert_eq!(reasm_oks("Ip: Forwarding\nIp: 1\n"), None);
    }
}

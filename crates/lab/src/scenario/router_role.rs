//! A router and a Linux host behind different switches (R29): what the switch answers for the router keeps the host's
//! default route, and nobody vouches for the router when its kernel does not speak any more.

use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use godwit_wire::Mac;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, socket};

use super::Common;
use crate::agent::announce::{ethernet, icmpv6_checksum};
use crate::lab::topology::{GUEST, set_sysctls, silence_guest};
use crate::lab::vm::VmSpec;
use crate::lab::{Lab, LabSpec};
use crate::{cmd, netns};

/// The host is at a, the router at b.
const HOST: (&str, u8) = ("h", 10);
const ROUTER: (&str, u8) = ("r", 20);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const PATIENCE: Duration = Duration::from_secs(20);
/// Questions to r that h lets go unanswered before it gives r up: many while r lives, since a busy machine answers
/// late.
const TRIES: (&str, &str) = ("20", "3");
/// Packets that h sends until it must have found out, and how long it may think nothing of one.
const PINGS: u32 = 10;
const DOUBT: Duration = Duration::from_millis(2500);
/// How often the host is asked what it thinks.
const POLL: Duration = Duration::from_millis(20);

/// Options of `godwit-lab router-role`.
#[derive(Clone, Debug, Args)]
pub struct RouterRole {
    #[command(flatten)]
    common: Common,
}

impl RouterRole {
    /// Runs the scenario and prints its report; false where it found fault.
    ///
    /// # Errors
    /// Where it cannot be carried out.
    pub fn run(&self) -> Result<bool> {
        let bins = self.common.prepare(&["ping"])?;
        println!("Godwit lab: a router's role");
        println!("  Host h at switch a learns its default route from router r at switch b.\n");
        let mut lab = Lab::start(&LabSpec::new(&["a", "b"], false, &self.common.switch_options()), &bins)?;
        let result = in_lab(&mut lab);
        let passed = super::report::end(&mut lab, result, |good| *good)?;
        println!("\n{}", if passed { "PASSED" } else { "FAILED" });
        Ok(passed)
    }
}

/// A VM of the scenario, with the address that its kernel makes of its MAC address.
struct Station {
    spec: VmSpec,
    link_local: Ipv6Addr,
    namespace: String,
}

impl Station {
    /// Starts it at a switch.
    fn start(lab: &mut Lab, (name, n): (&str, u8), nve: &str) -> Result<Station> {
        let mut spec = VmSpec::numbered(name, n);
        let link_local = link_local(spec.mac);
        lab.start_vm(spec.clone(), nve)?;
        spec.ips.push(link_local.into());
        Ok(Station { namespace: lab.namespace(name), spec, link_local })
    }

    fn ip(&self, line: &str) -> Result<String> {
        cmd::run_in(&self.namespace, "ip", &line.split(' ').collect::<Vec<_>>())
    }

    /// Sends a frame out of its interface.
    fn send(&self, frame: &[u8]) -> Result<()> {
        // A thread of its own, for it changes namespaces.
        let sent = thread::scope(|s| s.spawn(|| self.send_here(frame)).join());
        sent.map_err(|_| anyhow!("the sending thread panicked"))?
    }

    fn send_here(&self, frame: &[u8]) -> Result<()> {
        netns::enter(&self.namespace)?;
        let link = netns::link(GUEST)?;
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        sendto(fd.as_raw_fd(), frame, &link, MsgFlags::empty()).context("sending a frame").map(drop)
    }
}

fn in_lab(lab: &mut Lab) -> Result<bool> {
    let h = Station::start(lab, HOST, "a")?;
    let r = Station::start(lab, ROUTER, "b")?;
    lab.define_router(&h.spec, false)?;
    lab.define_router(&r.spec, true)?;
    let conf = |key: &str| format!("net/ipv6/conf/{GUEST}/{key}");
    let settings = [
        (conf("accept_ra"), "2"),
        // What a host believes without asking, and how it asks: short, so that this is over soon.
        (neigh("base_reachable_time_ms"), "500"),
        (neigh("delay_first_probe_time"), "1"),
        (neigh("retrans_time_ms"), "300"),
        (neigh("ucast_solicit"), TRIES.0),
    ];
    set_sysctls(&h.namespace, &settings.each_ref().map(|(key, value)| (key.as_str(), *value)))?;

    learn_route(&h, &r)?;
    println!("  r advertises itself: {}", routes(&h)?.trim());
    proxied(lab, &h, &r)?;
    let kept = default_route(&h, &r)?;
    println!(
        "  a answers for r: {}, r is {}",
        if kept { "the route stays" } else { "THE ROUTE IS GONE" },
        state(&h, &r)?
    );
    let is_router = state(&h, &r)?.contains("router");

    let found_out = finds_out(&h, &r)?;

    // The same once more without the flag, or what was seen above could not fail.
    learn_route(&h, &r)?;
    lab.define_router(&r.spec, false)?;
    // The first answers may come before a has heard of it.
    let gone = wait(|| {
        proxied(lab, &h, &r)?;
        Ok(!default_route(&h, &r)?)
    })?;
    println!(
        "  a answers for r as for no router: {}",
        if gone { "the route goes" } else { "THE ROUTE STAYS" }
    );
    lab.check_processes()?;
    Ok(kept && is_router && found_out && gone)
}

/// A setting of how h's kernel finds neighbors.
fn neigh(key: &str) -> String {
    format!("net/ipv6/neigh/{GUEST}/{key}")
}

/// Whether h finds out that r lives, and that it is dead; it lives again then.
fn finds_out(h: &Station, r: &Station) -> Result<bool> {
    let alive = probed(h, r)?;
    println!("  h probes r, which lives: {alive}");
    silence_guest(&r.namespace, true)?;
    set_sysctls(&h.namespace, &[(&neigh("ucast_solicit"), TRIES.1)])?;
    let dead = probed(h, r)?;
    println!("  h probes r, which is dead: {dead}");
    set_sysctls(&h.namespace, &[(&neigh("ucast_solicit"), TRIES.0)])?;
    silence_guest(&r.namespace, false)?;
    Ok(alive == "REACHABLE" && dead == "FAILED")
}

/// Lets r advertise itself as a router until h has a default route by it.
fn learn_route(h: &Station, r: &Station) -> Result<()> {
    let advert = router_advertisement(r);
    let came = wait(|| {
        r.send(&advert)?;
        sleep(Duration::from_millis(100));
        default_route(h, r)
    })?;
    ensure!(came, "h has no default route by r; its routes: {}", routes(h)?);
    // Another one's solicitation brings r's address and its flag where there is nothing yet.
    let _ = ping(h, r);
    let known = wait(|| Ok(state(h, r)?.contains("lladdr")))?;
    ensure!(known, "h does not know r's MAC address: {}", state(h, r)?);
    Ok(())
}

/// Makes h ask everybody for r, and waits until its switch has answered.
fn proxied(lab: &Lab, h: &Station, r: &Station) -> Result<()> {
    let before = answered(lab)?;
    h.send(&solicitation(h, r))?;
    ensure!(wait(|| Ok(answered(lab)? > before))?, "a has answered no solicitation");
    // The host's kernel takes the answer.
    sleep(Duration::from_millis(200));
    Ok(())
}

/// Solicitations that a has answered in others' names.
fn answered(lab: &Lab) -> Result<u64> {
    let all = lab.nve("a")?.admin.counters()?;
    Ok(all.iter().filter(|c| c.name == "answered_nd").map(|c| c.value).sum())
}

/// Lets h find out whether r can be reached, as it does when it sends after a while; what came of it.
fn probed(h: &Station, r: &Station) -> Result<&'static str> {
    // What is believed from before says nothing: it has to be doubted first.
    let mut doubted = false;
    for _ in 0..PINGS {
        let _ = ping(h, r);
        let sent = Instant::now();
        // Through STALE, DELAY and PROBE. From FAILED it would ask everybody at the next packet, so that there is none
        // while it asks r.
        loop {
            let now = state(h, r)?;
            let asks = ["DELAY", "PROBE"].iter().any(|s| now.contains(s));
            doubted |= asks || now.contains("STALE");
            if now.contains("FAILED") {
                return Ok("FAILED");
            }
            if doubted && now.contains("REACHABLE") {
                return Ok("REACHABLE");
            }
            if sent.elapsed() > if asks { PATIENCE } else { DOUBT } {
                break;
            }
            sleep(POLL);
        }
    }
    bail!("h neither reaches r nor gives it up: {}", state(h, r)?)
}

fn ping(h: &Station, r: &Station) -> Result<String> {
    let target = format!("{}%{GUEST}", r.link_local);
    cmd::run_in(&h.namespace, "ping", &["-6", "-c", "1", "-W", "1", &target])
}

fn state(h: &Station, r: &Station) -> Result<String> {
    Ok(h.ip(&format!("-6 neighbor show {} dev {GUEST}", r.link_local))?.trim().to_owned())
}

fn routes(h: &Station) -> Result<String> {
    h.ip("-6 route show default")
}

fn default_route(h: &Station, r: &Station) -> Result<bool> {
    let line = format!("default via {} ", r.link_local);
    Ok(routes(h)?.lines().any(|l| l.starts_with(&line) && l.contains("proto ra")))
}

/// True once it is so, false where it does not become so.
fn wait(mut so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if so()? {
            return Ok(true);
        }
        sleep(POLL);
    }
    Ok(false)
}

/// RFC 4291 appendix A.
fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// RFC 4861 section 4.2: a default router for half an hour, which says nothing of prefixes and times.
fn router_advertisement(r: &Station) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, 64, 0];
    icmp.extend(1800_u16.to_be_bytes());
    icmp.extend([0; 8]);
    // Option 1, one unit of eight bytes: source link-layer address.
    icmp.extend([1, 1]);
    icmp.extend(r.spec.mac.0);
    message(r, ALL_NODES, icmp)
}

/// RFC 4861 section 4.3: to all nodes that may have the address.
fn solicitation(h: &Station, r: &Station) -> Vec<u8> {
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(r.link_local.octets());
    icmp.extend([1, 1]);
    icmp.extend(h.spec.mac.0);
    let [.., x, y, z] = r.link_local.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
    message(h, group, icmp)
}

/// A frame from a station's link-local address to a group.
fn message(from: &Station, group: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let sum = icmpv6_checksum(from.link_local, group, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let [.., a, b, c, d] = group.octets();
    let mut f = ethernet([0x33, 0x33, a, b, c, d], from.spec.mac.0, 0x86dd);
    f.extend([0x60, 0, 0, 0]);
    f.extend((icmp.len() as u16).to_be_bytes());
    f.extend([58, 255]);
    f.extend(from.link_local.octets());
    f.extend(group.octets());
    f.extend(icmp);
    f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_own_address_has_the_mac_in_it() {
        let mac = VmSpec::numbered("h", 10).mac;
        assert_eq!(link_local(mac), "fe80::67:77ff:fe00:10".parse::<Ipv6Addr>().unwrap());
    }
}

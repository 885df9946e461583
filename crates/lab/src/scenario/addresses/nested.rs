//! A bridge with three VMs behind it, and a node that routes for its pods, move while everybody talks (R94).

use std::net::{IpAddr, Ipv4Addr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{ip, ping, verdict, vm_set};
use crate::cmd;
use crate::lab::Lab;
use crate::lab::topology::{GUEST, GUEST_MTU, add_namespace, guest_addresses, offloads_off, set_sysctls};
use crate::lab::vm::{Vm, VmSpec, start_agent};
use crate::mover::{How, hot_move};
use crate::scenario::{finish, talk, with_agents};
use crate::traffic::{Traffic, TrafficSpec, run as go};

/// The VM with a bridge, and those behind it.
const OUTER: &str = "v";
const INNER: [&str; 3] = ["v1", "v2", "v3"];
/// The node, and its pod.
const NODE: &str = "k";
const POD: &str = "pod";
const PODS: &str = "10.244.3.0/24";
const POD_IP: Ipv4Addr = Ipv4Addr::new(10, 244, 3, 7);
/// Who talks to all of them.
const CLIENT: &str = "y";
/// Traffic before and after a move.
const AROUND: Duration = Duration::from_millis(700);

pub(super) fn run(lab: &mut Lab, rate: u32) -> Result<bool> {
    println!("\nNested VMs behind v at a, pods {PODS} behind node k at a, client y at c");
    lab.start_vm(VmSpec::numbered(OUTER, 21), "a")?;
    lab.start_vm(VmSpec::numbered(NODE, 25), "a")?;
    lab.start_vm(VmSpec::numbered(CLIENT, 29), "c")?;
    let inner = INNER.iter().zip(22..).map(|(name, n)| nest(lab, OUTER, VmSpec::numbered(name, n)));
    let macs = inner.collect::<Result<Vec<String>>>()?;
    vm_set(lab, OUTER, &macs.iter().flat_map(|mac| ["--nested", mac]).collect::<Vec<_>>())?;
    add_pod(lab)?;
    vm_set(lab, NODE, &["--route", PODS])?;
    // A VM whose addresses nobody recorded is known from its first word on.
    let client = lab.vms[CLIENT].spec.ips[0].to_string();
    let mut good = true;
    for inner in INNER {
        let pings = ping(&lab.namespace(inner), &client, 20, Duration::from_millis(50))?;
        good &= verdict(pings.received > 0, &format!("{inner} speaks, and reaches {CLIENT}"));
    }
    // What the outer VMs send as well is theirs alone: only their kernels speak.
    let spec = TrafficSpec { rate, one_way: false, payload: 100, big_every: 0, tcp_rate_bit: 0 };
    let peers: Vec<&str> = INNER.into_iter().chain([POD]).collect();
    let mut talks: Vec<(Traffic, &str)> = Vec::new();
    for (probe, peer) in (1..).zip(&peers) {
        talks.push((talk(lab, probe, spec, false, (CLIENT, peer))?, peer));
    }
    for peer in &peers {
        with_agents(lab, (CLIENT, peer), |y, p| go(p).and_then(|()| go(y)))?;
    }
    sleep(AROUND);
    for (vm, to, id) in [(OUTER, "b", "nested-1"), (NODE, "b", "nested-2"), (OUTER, "c", "nested-3")] {
        let moved = hot_move(lab, vm, to, id, How::default())?;
        let (held, forwarded) = (moved.carried(true).held, moved.carried(true).forwarded);
        let text = format!("{vm} moves to {to}: held {held} and forwarded {forwarded} at the old NVE");
        good &= verdict(moved.done(), &text);
        sleep(AROUND);
    }
    for (traffic, peer) in &talks {
        let talk = finish(lab, traffic, (CLIENT, peer))?;
        let (there, back) = (&talk.a_to_b, &talk.b_to_a);
        let text = format!(
            "y and {peer}: lost {} of {} there, {} of {} back; longest silence {:.0} ms",
            there.lost,
            there.sent,
            back.lost,
            back.sent,
            there.gap_ms_max.max(back.gap_ms_max)
        );
        good &= verdict(there.lost + back.lost == 0 && there.received > 0 && back.received > 0, &text);
    }
    Ok(good)
}

/// Starts a VM within another one: its NIC hangs on the other's bridge. Returns its MAC address.
///
/// # Errors
/// Where any step fails.
pub(crate) fn nest(lab: &mut Lab, outer: &str, spec: VmSpec) -> Result<String> {
    let (host, namespace, name) = (lab.namespace(outer), lab.namespace(&spec.name), spec.name.clone());
    let mac = spec.mac.to_string();
    add_namespace(&namespace)?;
    let wire = format!("w{name}");
    let line = format!(
        "link add {wire} mtu {GUEST_MTU} type veth peer name {GUEST} mtu {GUEST_MTU} address {mac} netns {namespace}"
    );
    cmd::ip_batch(&host, &[line, format!("link set {wire} master {GUEST} up")])?;
    offloads_off(&host, &wire)?;
    guest_addresses(&namespace, GUEST, &spec.ips)?;
    offloads_off(&namespace, GUEST)?;
    live_within(lab, outer, spec, &namespace)?;
    Ok(mac)
}

/// A namespace behind the node, which forwards for it.
fn add_pod(lab: &mut Lab) -> Result<()> {
    let (node, namespace) = (lab.namespace(NODE), lab.namespace(POD));
    add_namespace(&namespace)?;
    set_sysctls(&node, &[("net/ipv4/ip_forward", "1")])?;
    let node_ip = VmSpec::numbered(NODE, 25).ips[0];
    cmd::ip_batch(
        &node,
        &[
            format!(
                "link add pods mtu {GUEST_MTU} type veth peer name {GUEST} mtu {GUEST_MTU} netns {namespace}"
            ),
            "address add 10.244.3.1/24 dev pods".into(),
            "link set pods up".into(),
        ],
    )?;
    offloads_off(&node, "pods")?;
    cmd::ip_batch(
        &namespace,
        &[
            format!("address add {POD_IP}/24 dev {GUEST}"),
            format!("link set {GUEST} up"),
            "route add default via 10.244.3.1".into(),
        ],
    )?;
    offloads_off(&namespace, GUEST)?;
    ip(&lab.namespace(CLIENT), &format!("route add {PODS} via {node_ip}"))?;
    let mut spec = VmSpec::numbered(POD, 30);
    spec.ips = vec![IpAddr::V4(POD_IP)];
    live_within(lab, NODE, spec, &namespace)
}

/// Starts the agent of a VM within another one, whose pause is its pause.
fn live_within(lab: &mut Lab, outer: &str, spec: VmSpec, namespace: &str) -> Result<()> {
    let name = spec.name.clone();
    let (process, agent) = start_agent(&name, namespace, &lab.bins, &lab.dir)
        .with_context(|| format!("VM {name} within {outer}"))?;
    lab.vms.insert(name.clone(), Vm::with(spec, namespace, process, agent));
    lab.inner.entry(outer.into()).or_default().push(name);
    Ok(())
}

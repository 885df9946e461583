//! Namespaces and wires: the underlay, the management network, and what a VM's guest is made of.

use std::net::IpAddr;

use anyhow::Result;

use super::spec::VmSpec;
use crate::cmd;

/// The interface of every NVE into the underlay.
pub const UPLINK: &str = "up0";
/// The interface of every NVE and of the NVA into the management network.
pub const MANAGEMENT: &str = "mg0";
/// The guest's interface.
pub const GUEST: &str = "eth0";
/// Underlay MTU: a tenant's 1500 bytes and the longest outer headers fit.
pub const UNDERLAY_MTU: u32 = 1600;
/// The guests' MTU, so that a full packet is one of 1,400 bytes.
pub const GUEST_MTU: u32 = 1400;
/// The wires' own bridge names in the namespace that stands for the data center's network.
const UNDERLAY_BRIDGE: &str = "under0";
const MANAGEMENT_BRIDGE: &str = "mgmt0";

/// Makes the namespace of the underlay and the management network.
///
/// # Errors
/// Where the system refuses.
pub fn build_network(net: &str) -> Result<()> {
    add_namespace(net)?;
    let bridge = |name: &str, mtu: u32| {
        [
            format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
            format!("link set {name} mtu {mtu} up"),
        ]
    };
    let lines = [bridge(UNDERLAY_BRIDGE, UNDERLAY_MTU), bridge(MANAGEMENT_BRIDGE, 1500)];
    cmd::ip_batch(net, &lines.concat())
}

/// Adds a namespace with its loopback up and IPv6 off on all interfaces that come, so that the
/// kernel neither answers for a switch nor adds packets of its own.
///
/// # Errors
/// Where the system refuses.
pub fn add_namespace(name: &str) -> Result<()> {
    cmd::run("ip", &["netns", "add", name])?;
    set_sysctls(name, &[("net/ipv6/conf/default/disable_ipv6", "1")])?;
    cmd::ip_batch(name, &["link set lo up".into()])
}

/// Connects a namespace to the underlay; the interface has no address there.
///
/// # Errors
/// Where the system refuses.
pub fn connect_underlay(net: &str, namespace: &str, short: &str) -> Result<()> {
    let wire = format!("u-{short}");
    connect(net, namespace, &wire, UNDERLAY_BRIDGE, UPLINK, UNDERLAY_MTU)?;
    // What crosses the wire is whole: checksums filled in, nothing larger than the MTU.
    offloads_off(namespace, UPLINK)?;
    offloads_off(net, &wire)?;
    one_backlog(namespace, UPLINK)?;
    one_backlog(net, &wire)
}

/// Has what comes in by an interface wait for the kernel in one row. Each sender's core has a row of its own
/// otherwise, so that a flow whose frames come from another worker than before overtakes itself: no wire does that.
fn one_backlog(namespace: &str, interface: &str) -> Result<()> {
    let line = format!("echo 1 > /sys/class/net/{interface}/queues/rx-0/rps_cpus");
    cmd::run_in(namespace, "sh", &["-c", &line]).map(drop)
}

/// Connects a namespace to the management network with the kernel address `ip`.
///
/// # Errors
/// Where the system refuses.
pub fn connect_management(net: &str, namespace: &str, short: &str, ip: IpAddr) -> Result<()> {
    connect(net, namespace, &format!("m-{short}"), MANAGEMENT_BRIDGE, MANAGEMENT, 1500)?;
    cmd::ip_batch(namespace, &[format!("address add {ip}/24 dev {MANAGEMENT}")])
}

fn connect(net: &str, namespace: &str, wire: &str, bridge: &str, inside: &str, mtu: u32) -> Result<()> {
    let lines = [
        format!("link add {wire} mtu {mtu} type veth peer name {inside} mtu {mtu} netns {namespace}"),
        format!("link set {wire} master {bridge} up"),
    ];
    cmd::ip_batch(net, &lines)?;
    cmd::ip_batch(namespace, &[format!("link set {inside} up")])
}

/// Turns off what lets a kernel leave checksums and segmentation to a NIC that is not there.
///
/// # Errors
/// Where ethtool fails.
pub fn offloads_off(namespace: &str, interface: &str) -> Result<()> {
    let mut args = vec!["-K", interface];
    args.extend(["rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"]);
    cmd::run_in(namespace, "ethtool", &args).map(drop)
}

/// Builds a guest: a bridge is its NIC, so that the NIC stays while the taps of its hosts come and go.
///
/// # Errors
/// Where the system refuses.
pub fn build_guest(namespace: &str, spec: &VmSpec) -> Result<()> {
    add_namespace(namespace)?;
    let (mac, mtu) = (spec.mac, GUEST_MTU);
    let lines = [
        format!("link add {GUEST} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"),
        format!("link set {GUEST} mtu {mtu}"),
        // A port that is always up keeps the carrier when no host's tap is attached: a guest's NIC
        // doesn't lose its own in a live migration either. Nothing is ever sent to it.
        format!("link add keep mtu {mtu} type veth peer name keep1 mtu {mtu}"),
        format!("link set keep master {GUEST} up"),
        "link set keep1 up".into(),
        "link set keep type bridge_slave flood off mcast_flood off bcast_flood off learning off".into(),
    ];
    cmd::ip_batch(namespace, &lines)?;
    guest_addresses(namespace, GUEST, &spec.ips)?;
    // Segments are cut before the bridge, so that its packet counter and a tap's can be compared.
    offloads_off(namespace, GUEST)
}

/// Gives an interface the addresses of a guest, at once usable, and takes it up.
///
/// # Errors
/// Where the system refuses.
pub fn guest_addresses(namespace: &str, interface: &str, ips: &[IpAddr]) -> Result<()> {
    let conf = |key: &str| format!("net/ipv6/conf/{interface}/{key}");
    set_sysctls(
        namespace,
        &[
            (&conf("disable_ipv6"), "0"),
            (&conf("accept_ra"), "0"),
            (&conf("accept_dad"), "0"),
            (&conf("router_solicitations"), "0"),
        ],
    )?;
    let mut lines = vec![format!("link set {interface} up")];
    lines.extend(ips.iter().map(|ip| match ip {
        IpAddr::V4(ip) => format!("address add {ip}/24 dev {interface}"),
        IpAddr::V6(ip) => format!("address add {ip}/64 dev {interface} nodad"),
    }));
    cmd::ip_batch(namespace, &lines)
}

/// Moves a tap from its switch's namespace into a guest's, ready to be attached.
///
/// # Errors
/// Where the system refuses.
pub fn hand_over_tap(tap: &str, from: &str, to: &str) -> Result<()> {
    // The switch's driver reads the tap's link state by its name in its own namespace: a stand-in of
    // that name, always up, shows it what the tap itself no longer can.
    let stand_in = [
        format!("link set {tap} netns {to}"),
        format!("link add {tap} type veth peer name {tap}x"),
        format!("link set {tap} up"),
        format!("link set {tap}x up"),
    ];
    cmd::ip_batch(from, &stand_in)?;
    // DPDK's taps have 256 queues, and the kernel would give each a discipline with buffers of the
    // queue's length: a quarter of a second of a core, taken from the switches' workers. So it goes
    // up with a short queue, loses its disciplines, and only then gets the long one.
    cmd::ip_batch(to, &[format!("link set {tap} mtu {GUEST_MTU} txqueuelen 1 up")])?;
    cmd::run("tc", &["-n", to, "qdisc", "replace", "dev", tap, "root", "noqueue"])?;
    // A long queue, because a guest's bursts wait for a switch that shares its core with others.
    cmd::ip_batch(to, &[format!("link set {tap} txqueuelen 10000")])
}

/// Removes what [`hand_over_tap`] left in the switch's namespace.
///
/// # Errors
/// Where the system refuses.
pub fn forget_tap(tap: &str, from: &str) -> Result<()> {
    cmd::ip_batch(from, &[format!("link delete {tap}")])
}

/// Writes kernel settings of a namespace; keys are paths below /proc/sys.
///
/// # Errors
/// Where one cannot be written.
pub fn set_sysctls(namespace: &str, settings: &[(&str, &str)]) -> Result<()> {
    let script: Vec<String> =
        settings.iter().map(|(key, value)| format!("echo {value} > /proc/sys/{key}")).collect();
    cmd::run_in(namespace, "sh", &["-ec", &script.join("\n")]).map(drop)
}

/// Cuts the guest's kernel off from its NIC, or lets it send again.
///
/// A hypervisor stops the whole guest; here its programs stop, and this keeps the kernel's own TCP
/// timers from sending on.
///
/// # Errors
/// Where tc fails.
pub fn silence_guest(namespace: &str, silent: bool) -> Result<()> {
    let mut args = vec!["-n", namespace, "qdisc"];
    if silent {
        args.extend(["replace", "dev", GUEST, "root", "pfifo", "limit", "0"]);
    } else {
        args.extend(["delete", "dev", GUEST, "root"]);
    }
    cmd::run("tc", &args).map(drop)
}

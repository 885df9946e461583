//! The switch as a station on the underlay, with Linux as its neighbor: it answers ARP, neighbor
//! solicitations and echo requests for its locators, and hands everything else to the exception
//! port; ports come, change workers and go by orders to the admin socket.

use std::path::Path;

use crate::common::alone;
use crate::common::net::{self, Namespace, Switch, ctl, run};

fn start(ns: &Namespace, folder: &Path) -> Switch {
    let text = format!(
        "[nve]\nid = \"a\"\nworkers = \"0-1\"\nidle_sleep_us = 50\nmemory_mb = 64\nlocations = 1024\n\
         admin_socket = \"{}\"\n\
         [[uplink]]\nname = \"up0\"\ndevargs = \"net_af_packet0,iface=up0\"\n\
         ipv4 = \"198.18.0.1/24\"\nipv6 = \"2001:db8:18::1/64\"\nexception = \"net_tap9,iface=exc0\"\n",
        folder.join("a.sock").display()
    );
    net::start(ns, folder, &text)
}

/// Two namespaces with a veth pair between them; the switch will own `up0` in the first.
fn wire() -> (Namespace, Namespace) {
    let (a, peer) = (Namespace::new("a"), Namespace::new("p"));
    run("ip", &["link", "add", "up0", "netns", &a.0, "type", "veth", "peer", "eth0", "netns", &peer.0]);
    a.run(&["sysctl", "-qw", "net.ipv6.conf.up0.disable_ipv6=1"]);
    for (ns, device) in [(&a, "up0"), (&peer, "eth0")] {
        ns.run(&["ethtool", "-K", device, "tx", "off"]);
        ns.run(&["ip", "link", "set", device, "up"]);
    }
    peer.run(&["ip", "addr", "add", "198.18.0.2/24", "dev", "eth0"]);
    peer.run(&["ip", "addr", "add", "2001:db8:18::2/64", "dev", "eth0", "nodad"]);
    (a, peer)
}

#[test]
fn locators_answer_and_the_rest_goes_to_the_exception_port() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (a, peer) = wire();
    let _switch = start(&a, folder.path());

    peer.run(&["ping", "-c", "3", "-i", "0.2", "-W", "2", "198.18.0.1"]);
    peer.run(&["ping", "-c", "3", "-i", "0.2", "-W", "2", "2001:db8:18::1"]);

    // What a routing daemon on the exception port would be: the host, with the uplink's MAC.
    let mac = a.run(&["cat", "/sys/class/net/up0/address"]);
    a.run(&["ip", "link", "set", "exc0", "address", mac.trim()]);
    a.run(&["ip", "link", "set", "exc0", "up"]);
    a.run(&["ip", "addr", "add", "198.18.0.77/24", "dev", "exc0"]);
    peer.run(&["ping", "-c", "3", "-i", "0.2", "-W", "2", "198.18.0.77"]);

    let (ok, counters) = ctl(folder.path(), &["counters"]);
    // Counters that stand at zero are not listed.
    assert!(ok && counters.contains("answered_echo"), "{counters}");
    let (ok, status) = ctl(folder.path(), &["nve", "show"]);
    assert!(ok && status.contains("198.18.0.2"), "the peer is a known neighbor: {status}");
}

/// Sends requests for the locator behind an 802.1Q tag, for so many seconds, and prints what comes back: the first
/// bytes of a reply.
const TAGGED_REQUEST: &str = r#"
import socket, sys, time
tci, seconds = int(sys.argv[1]), int(sys.argv[2])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(("eth0", 0))
s.settimeout(0.2)
own = bytes.fromhex("029900000009")
arp = bytes.fromhex("0001080006040001") + own + bytes([198, 18, 0, 9]) + bytes(6) + bytes([198, 18, 0, 1])
frame = b"\xff" * 6 + own + b"\x81\x00" + tci.to_bytes(2, "big") + b"\x08\x06" + arp
end = time.time() + seconds
while time.time() < end:
    s.send(frame.ljust(64, b"\0"))
    try:
        while True:
            got = s.recv(2048)
            if got[:6] == own:
                print("answered", got[12:14].hex())
                sys.exit(0)
    except socket.timeout:
        pass
print("silent")
"#;

#[test]
fn r95_a_priority_tagged_request_is_answered_and_a_vlans_is_not() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (a, peer) = wire();
    let _switch = start(&a, folder.path());
    let ask = |tci: &str, seconds: &str| peer.run(&["python3", "-c", TAGGED_REQUEST, tci, seconds]);
    assert_eq!(ask("0", "30").trim(), "answered 0806");
    assert_eq!(ask("49152", "30").trim(), "answered 0806");
    assert_eq!(ask("5", "3").trim(), "silent");
}

/// Port v is there with a queue for each of two workers.
fn placement_is_shown_and_set(folder: &Path) {
    let (ok, text) = ctl(folder, &["placement", "set", "v:0", "0"]);
    assert!(ok && text.contains("worker 0 polls v:0"), "{text}");
    let (ok, text) = ctl(folder, &["placement", "set", "v:9", "0"]);
    assert!(!ok && text.contains("no receive queue 9"), "{text}");
    let (ok, text) = ctl(folder, &["placement", "show", "--window", "50", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let queues = report["queues"].as_array().expect("queues");
    let at = queues.iter().find(|q| q["port"] == "v" && q["queue"] == 0).expect("v:0");
    // So few frames may pass that no burst of them was timed: then there is no load.
    assert!(ok && at["worker"] == 0 && at["core"] == 0 && at.get("load_percent").is_some(), "{text}");
    let (ok, text) = ctl(folder, &["placement", "rebalance", "--window", "50"]);
    assert!(ok && text.contains("nothing to move"), "an idle switch is balanced: {text}");
}

#[test]
fn ports_come_change_workers_and_go() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (a, _peer) = wire();
    let _switch = start(&a, folder.path());
    let add =
        ["port", "add", "v", "--devargs", "net_tap1,iface=tv1", "--vni", "100", "--mac", "02:00:00:00:00:01"];
    for round in 0..3 {
        let (ok, text) = ctl(folder.path(), &add);
        assert!(ok, "round {round}: {text}");
        a.run(&["ip", "link", "show", "tv1"]);
        let (ok, text) = ctl(folder.path(), &add);
        assert!(ok && text.contains("there already"), "said again it is the same port: {text}");
        let (ok, text) = ctl(folder.path(), &[&add[..8], &["02:00:00:00:00:02"]].concat());
        assert!(!ok && text.contains("there already"), "another VM's is refused: {text}");
        for worker in ["1", "0", "1"] {
            let (ok, text) = ctl(folder.path(), &["port", "move", "v", "--worker", worker]);
            assert!(ok, "{text}");
        }
        let (ok, text) = ctl(folder.path(), &["port", "move", "v", "--worker", "7"]);
        assert!(!ok && text.contains("no worker 7"), "{text}");
        placement_is_shown_and_set(folder.path());
        let (ok, text) = ctl(folder.path(), &["port", "remove", "v"]);
        assert!(ok, "{text}");
        assert!(a.try_run(&["ip", "link", "show", "tv1"]).is_none(), "the tap went with the port");
    }
    let (ok, text) = ctl(folder.path(), &["port", "remove", "up0"]);
    assert!(!ok && text.contains("uplinks stay"), "{text}");
}

/// R16: what the VM manager says of a VM, with a real port: it stays through a suspension and goes with its VM.
#[test]
fn r16_the_port_of_a_deleted_vm_goes() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (a, _peer) = wire();
    let _switch = start(&a, folder.path());
    let add =
        ["port", "add", "v", "--devargs", "net_tap1,iface=tv1", "--vni", "100", "--mac", "02:00:00:00:00:01"];
    let (ok, text) = ctl(folder.path(), &add);
    assert!(ok, "{text}");
    let say = |state| ctl(folder.path(), &["port", "state", "v", state]);
    for state in ["running", "suspending", "suspended", "resuming", "running", "shuttingdown"] {
        let (ok, text) = say(state);
        assert!(ok, "{state}: {text}");
    }
    let (ok, text) = say("deleted");
    assert!(!ok && text.contains("shutdown"), "RFC 7666 has no way there but by a shutdown: {text}");
    a.run(&["ip", "link", "show", "tv1"]);
    assert!(say("shutdown").0 && say("deleted").0);
    assert!(a.try_run(&["ip", "link", "show", "tv1"]).is_none(), "the tap went with the port");
    let (ok, text) = ctl(folder.path(), &["port", "list"]);
    assert!(ok && !text.contains("tv1"), "{text}");
    // Whoever comes next on a port of that name is another VM.
    let (ok, text) = ctl(folder.path(), &add);
    assert!(ok, "{text}");
    assert!(say("running").0);
}

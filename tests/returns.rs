//! Devices that are deleted under a running switch, and made again.

use std::path::Path;

use crate::common::alone;
use crate::common::net::{self, Namespace, Switch, ctl, run, wait};

fn start(ns: &Namespace, folder: &Path) -> Switch {
    let text = format!(
        "[nve]\nid = \"a\"\nworkers = \"0\"\nidle_sleep_us = 50\nmemory_mb = 64\nlocations = 1024\n\
         hugepages = \"never\"\nadmin_socket = \"{}\"\n\
         [[uplink]]\nname = \"up0\"\ndevargs = \"net_af_packet0,iface=up0\"\nipv4 = \"198.18.0.1/24\"\n\
         [[port]]\nname = \"v\"\ndevargs = \"net_tap1,iface=tv1\"\nvni = 100\nmac = \"02:00:00:00:00:01\"\n",
        folder.join("a.sock").display()
    );
    net::start(ns, folder, &text)
}

/// A veth pair from the switch's uplink to its peer.
fn wire(a: &Namespace, peer: &Namespace) {
    run("ip", &["link", "add", "up0", "netns", &a.0, "type", "veth", "peer", "eth0", "netns", &peer.0]);
    for (ns, device) in [(a, "up0"), (peer, "eth0")] {
        ns.run(&["ethtool", "-K", device, "tx", "off"]);
        ns.run(&["ip", "link", "set", device, "up"]);
    }
    peer.run(&["ip", "addr", "add", "198.18.0.2/24", "dev", "eth0"]);
}

/// State, link and address of a port.
fn port(folder: &Path, name: &str) -> (String, bool, String) {
    let (ok, text) = ctl(folder, &["port", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let ports = list.as_array().or_else(|| list["ports"].as_array()).expect("a list of ports");
    let p = ports.iter().find(|p| p["name"] == name).expect("the port");
    assert!(ok);
    let text = |key: &str| p[key].as_str().unwrap_or_default().to_owned();
    (text("state"), p["link_up"].as_bool().expect("a link"), text("mac"))
}

fn says(folder: &Path, what: &str) -> bool {
    std::fs::read_to_string(folder.join("a.log")).is_ok_and(|log| log.contains(what))
}

#[test]
fn r95_an_uplink_whose_interface_is_made_again_is_used_again() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (a, peer) = (Namespace::new("a"), Namespace::new("p"));
    wire(&a, &peer);
    let _switch = start(&a, folder);
    let ping = || peer.try_run(&["ping", "-c", "1", "-W", "1", "198.18.0.1"]).is_some();
    wait("the switch answers", ping);
    let (_, up, mac) = port(folder, "up0");
    assert!(up);

    a.run(&["ip", "link", "del", "up0"]);
    wait("the loss is noticed", || !port(folder, "up0").1);
    assert!(says(folder, "interface up0 is gone"));
    wire(&a, &peer);
    wait("the switch answers again", ping);
    assert!(says(folder, "back and in use again"));
    assert_eq!(port(folder, "up0").2, mac, "neighbors know it by that");

    // Made anew before anybody has looked: it is another one all the same.
    a.run(&["ip", "link", "del", "up0"]);
    wire(&a, &peer);
    wait("the switch answers again", ping);
    assert!(port(folder, "up0").1);
}

#[test]
fn r18_a_port_whose_tap_is_deleted_gets_it_again_and_its_vm_is_active_again() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (a, peer, guest) = (Namespace::new("a"), Namespace::new("p"), Namespace::new("g"));
    wire(&a, &peer);
    let _switch = start(&a, folder);
    let (ok, text) = ctl(folder, &["port", "activate", "v"]);
    assert!(ok, "{text}");
    wait("the VM is active", || port(folder, "v").0 == "activated");

    a.run(&["ip", "link", "del", "tv1"]);
    wait("the loss is noticed", || says(folder, "tap tv1 is gone"));
    wait("the tap is there again", || a.try_run(&["ip", "link", "show", "tv1"]).is_some());
    wait("the VM is active again", || port(folder, "v").0 == "activated");

    // In a guest's namespace it is the same tap, and it goes with that.
    a.run(&["ip", "link", "set", "tv1", "netns", &guest.0]);
    guest.run(&["ip", "link", "set", "tv1", "name", "eth0"]);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let log = std::fs::read_to_string(folder.join("a.log")).expect("a log");
    assert_eq!(log.matches("is gone").count(), 1, "{log}");
    guest.run(&["ip", "link", "del", "eth0"]);
    wait("the tap is there again", || a.try_run(&["ip", "link", "show", "tv1"]).is_some());
    wait("the VM is active again", || port(folder, "v").0 == "activated");

    // And a port goes whose device is gone.
    a.run(&["ip", "link", "del", "tv1"]);
    let (ok, text) = ctl(folder, &["port", "remove", "v"]);
    assert!(ok, "{text}");
    assert!(!ctl(folder, &["port", "list"]).1.contains("tv1"));
}

//! Outer UDP checksums left to the uplink's device, as far as that can be had without a card: DPDK's tap
//! fills them in, and Linux, at the other end, drops whatever has a wrong one.

use crate::common::alone;
use crate::common::net::{Namespace, answered, ctl, start, wait};

const VM_MAC: &str = "02:00:00:00:00:01";

fn station(ns: &Namespace, device: &str, n: u8) {
    ns.run(&["ip", "link", "set", device, "up"]);
    ns.run(&["ip", "addr", "add", &format!("203.0.113.{n}/24"), "dev", device]);
}

#[test]
fn r5_linux_accepts_checksums_that_the_device_filled_in() {
    let _alone = alone();
    for (mode, word) in [("on", "by the card"), ("auto", "in software, the driver has no loopback")] {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, peer, vm) = (Namespace::new("oa"), Namespace::new("op"), Namespace::new("ov"));
        let text = format!(
            "[nve]\nid = \"a\"\nworkers = \"0\"\nidle_sleep_us = 50\nmemory_mb = 64\nlocations = 1024\n\
             hugepages = \"never\"\nudp_checksum = true\nadmin_socket = \"{}\"\n\
             [[uplink]]\nname = \"up0\"\noffloads = \"{mode}\"\nipv4 = \"198.18.0.1/24\"\n\
             devargs = \"net_tap0,iface=ou0\"\n\
             [[port]]\nname = \"v\"\ndevargs = \"net_tap1,iface=ov0\"\nvni = 100\nmac = \"{VM_MAC}\"\n\
             mtu = 1400\nips = [\"203.0.113.1\"]\nactivate = \"start\"\n\
             [[vm]]\nvni = 100\nmac = \"02:00:00:00:00:02\"\nips = [\"203.0.113.2\"]\nlocator = \"198.18.0.2\"\n",
            folder.path().join("a.sock").display()
        );
        let _switch = start(&a, folder.path(), &text);
        let (ok, ports) = ctl(folder.path(), &["port", "list"]);
        assert!(ok && ports.contains(&format!("up0: outer UDP checksums: {word}")), "{ports}");

        a.run(&["ip", "link", "set", "ou0", "netns", &peer.0]);
        // The tap has the card's address at both ends; here another one.
        peer.run(&["ip", "link", "set", "ou0", "address", "02:00:00:00:00:f2"]);
        peer.run(&["ethtool", "-K", "ou0", "tx", "off"]);
        peer.run(&["ip", "link", "set", "ou0", "up"]);
        peer.run(&["ip", "addr", "add", "198.18.0.2/24", "dev", "ou0"]);
        let tunnel = "ip link add vx0 address 02:00:00:00:00:02 mtu 1400 type vxlan id 100 local 198.18.0.2 \
                      remote 198.18.0.1 dstport 4789 udpcsum dev ou0";
        peer.run(&tunnel.split_whitespace().collect::<Vec<_>>());
        station(&peer, "vx0", 2);
        a.run(&["ip", "link", "set", "ov0", "netns", &vm.0]);
        vm.run(&["ip", "link", "set", "ov0", "address", VM_MAC]);
        vm.run(&["ethtool", "-K", "ov0", "tx", "off"]);
        station(&vm, "ov0", 1);

        wait("the VMs reach each other", || {
            vm.try_run(&["ping", "-c", "1", "-W", "1", "203.0.113.2"]).is_some()
        });
        for size in ["56", "57", "1300"] {
            // ping leaves soon after its last request: what counts is that the first are answered.
            let said = vm.run(&["ping", "-c", "60", "-i", "0.02", "-W", "2", "-s", size, "203.0.113.2"]);
            assert!(answered(&said, 20) && !said.contains("wrong data"), "{said}");
        }
        let snmp = peer.run(&["cat", "/proc/net/snmp"]);
        let udp: Vec<&str> = snmp.lines().filter(|l| l.starts_with("Udp:")).collect();
        let at = udp[0].split(' ').position(|w| w == "InCsumErrors").expect("the kernel counts them");
        assert_eq!(udp[1].split(' ').nth(at), Some("0"), "{snmp}");
        let (ok, counters) = ctl(folder.path(), &["counters"]);
        assert!(ok && counters.contains("checksums_left") == (mode == "on"), "{counters}");
    }
}

//! Guests, agents and traffic without any switch: two VMs on a plain bridge, one of which is moved
//! from one wire to another. What fails here is the lab's fault, not the switch's.
//!
//! Makes network namespaces: passes by where it is not run as root.

use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_lab::capture::Capture;
use godwit_lab::clock::now_ns;
use godwit_lab::cmd;
use godwit_lab::lab::nve::Binaries;
use godwit_lab::lab::vm::{Attachment, Vm, VmSpec};
use godwit_lab::lab::{cleanup, topology};
use godwit_lab::traffic::{End, Traffic, TrafficSpec, run};

/// A network of guests and wires that goes with this value.
struct Site {
    id: String,
    dir: PathBuf,
}

impl Site {
    fn new() -> Option<Site> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("passed by: making network namespaces needs root");
            return None;
        }
        let id = cleanup::claim().unwrap();
        let dir = cleanup::directory(&id);
        let site = Site { id, dir };
        topology::build_network(&site.ns("net")).unwrap();
        Some(site)
    }

    fn ns(&self, name: &str) -> String {
        format!("{}{name}", cleanup::prefix(&self.id))
    }

    fn vm(&self, name: &str, number: u8) -> Vm {
        let lab = PathBuf::from(env!("CARGO_BIN_EXE_godwit-lab"));
        let none = Path::new("/nonexistent").to_owned();
        let bins = Binaries { godwit: none.clone(), nva: none.clone(), ctl: none, lab };
        Vm::start(VmSpec::numbered(name, number), &self.ns(name), &bins, &self.dir).unwrap()
    }

    /// A wire from the bridge into a guest, in place of a switch's tap.
    fn wire(&self, vm: &Vm, wire: &str) -> Attachment {
        let ns = &vm.namespace;
        let lines = [
            format!("link add w{wire} mtu 1600 type veth peer name {wire} mtu 1400 netns {ns}"),
            format!("link set w{wire} master under0 up"),
        ];
        cmd::ip_batch(&self.ns("net"), &lines).unwrap();
        cmd::ip_batch(ns, &[format!("link set {wire} up")]).unwrap();
        Attachment { nve: "none".into(), port: wire.into(), tap: wire.into() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        cleanup::forget(&self.id);
        cleanup::sweep(&self.id, false);
    }
}

const LOAD: TrafficSpec =
    TrafficSpec { rate: 2000, one_way: false, payload: 100, big_every: 4, tcp_rate_bit: 10_000_000 };

fn open(v: &mut Vm, p: &mut Vm, v6: bool) -> Traffic {
    let (at_v, at_p) = (v.spec.address(v6, 0), p.spec.address(v6, 0));
    let mut v = End { agent: &mut v.agent, address: at_v };
    let mut p = End { agent: &mut p.agent, address: at_p };
    Traffic::open(1, LOAD, topology::GUEST_MTU, &mut v, &mut p).unwrap()
}

fn moved_between_wires(v6: bool) {
    let Some(site) = Site::new() else { return };
    let (mut v, mut p) = (site.vm("v", 10), site.vm("p", 20));
    v.attach(&site.wire(&v, "tv1")).unwrap();
    p.attach(&site.wire(&p, "tp1")).unwrap();
    let traffic = open(&mut v, &mut p, v6);
    run(&mut p.agent).unwrap();
    run(&mut v.agent).unwrap();
    std::thread::sleep(Duration::from_millis(500));

    // A bridge holds nothing for a paused guest, so the other end pauses as well.
    let second = site.wire(&v, "tv2");
    assert!(p.pause().unwrap() && v.pause().unwrap(), "everything sent was taken");
    let from_ns = now_ns();
    std::thread::sleep(Duration::from_millis(50));
    v.attach(&second).unwrap();
    v.resume(true).unwrap();
    let to_ns = now_ns();
    p.resume(false).unwrap();
    assert!(traffic.tcp_progresses(&mut v.agent, &mut p.agent).unwrap());
    std::thread::sleep(Duration::from_millis(500));

    let talk = traffic.finish(&mut v.agent, &mut p.agent).unwrap();
    for stream in [&talk.a_to_b, &talk.b_to_a] {
        assert!(stream.sent > 1500, "{stream:?}");
        assert_eq!(
            (stream.lost, stream.duplicated, stream.reordered, stream.corrupt),
            (0, 0, 0, 0),
            "{stream:?}"
        );
        // A busy machine may have been silent for longer at another time: only the pause's own silence is looked at.
        let of_pause = stream.gaps.iter().find(|g| g.from_ns < to_ns && g.to_ns > from_ns);
        let of_pause = of_pause.unwrap_or_else(|| panic!("the pause shows: {stream:?}"));
        assert!(of_pause.to_ns - of_pause.from_ns >= 50_000_000, "the whole pause shows: {stream:?}");
    }
    let tcp = talk.tcp.unwrap();
    assert!(tcp.alive && tcp.bytes > 1_000_000, "{tcp:?}");
    assert_eq!(v.all_kernel_drops().unwrap() + p.all_kernel_drops().unwrap(), 0);
}

#[test]
fn a_guest_moves_between_wires_over_ipv4() {
    moved_between_wires(false);
}

#[test]
fn a_guest_moves_between_wires_over_ipv6() {
    moved_between_wires(true);
}

/// What a guest sends while it is connected is owed to neither tap, or its pause would wait for it for ever.
#[test]
fn a_guest_that_speaks_while_it_is_connected_can_be_paused() {
    let Some(site) = Site::new() else { return };
    let (mut v, mut p) = (site.vm("v", 10), site.vm("p", 20));
    let (first, second) = (site.wire(&v, "tv1"), site.wire(&v, "tv2"));
    v.attach(&first).unwrap();
    p.attach(&site.wire(&p, "tp1")).unwrap();
    let traffic = open(&mut v, &mut p, false);
    run(&mut p.agent).unwrap();
    run(&mut v.agent).unwrap();
    for wire in [&second, &first] {
        v.attach(wire).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(v.pause().unwrap(), "everything sent was taken");
        v.resume(false).unwrap();
    }
    traffic.finish(&mut v.agent, &mut p.agent).unwrap();
}

#[test]
fn what_is_not_delivered_is_found_missing() {
    let Some(site) = Site::new() else { return };
    let (mut v, mut p) = (site.vm("v", 10), site.vm("p", 20));
    let wire = site.wire(&v, "tv1");
    v.attach(&wire).unwrap();
    p.attach(&site.wire(&p, "tp1")).unwrap();
    let traffic = open(&mut v, &mut p, false);
    run(&mut p.agent).unwrap();
    run(&mut v.agent).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let before = now_ns();
    cmd::ip_batch(&v.namespace, &["link set tv1 nomaster".into()]).unwrap();
    for vm in [&mut v, &mut p] {
        let sent = vm.agent.probe_report(1, 0).unwrap().sent;
        while vm.agent.probe_report(1, 0).unwrap().sent < sent + 100 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    v.attach(&wire).unwrap();
    let after = now_ns();
    std::thread::sleep(Duration::from_millis(1500));
    let talk = traffic.finish(&mut v.agent, &mut p.agent).unwrap();
    for stream in [&talk.a_to_b, &talk.b_to_a] {
        assert!(stream.lost >= 60, "{stream:?}");
        let longest = stream.missing.iter().max_by_key(|m| m.last - m.first).unwrap();
        // The kernel may have had some of them on their way when the wire was cut.
        let cut = before - 100_000_000..=after;
        assert!(cut.contains(&longest.sent_ns), "{longest:?}, cut from {before} to {after}");
    }
    assert!(talk.tcp.unwrap().alive, "TCP makes good what is lost");
}

/// Two Linux vxlan devices, so that capture and analysis are tried without a switch.
#[test]
fn a_capture_between_two_linux_tunnels_shows_no_fault() {
    let tools = ["tcpdump", "tshark"];
    if let Some(missing) = tools.iter().find(|t| !cmd::exists(t)) {
        eprintln!("passed by: {missing} is missing");
        return;
    }
    let Some(site) = Site::new() else { return };
    let ends = [("x", 1, 2), ("y", 2, 1)];
    for (name, n, other) in ends {
        let ns = site.ns(name);
        topology::add_namespace(&ns).unwrap();
        topology::connect_underlay(&site.ns("net"), &ns, name).unwrap();
        let local = format!("198.18.0.{n}").parse().unwrap();
        topology::guest_addresses(&ns, topology::UPLINK, &[local]).unwrap();
        let device = format!(
            "link add vx0 mtu 1400 type vxlan id 100 dstport 4789 local {local} remote 198.18.0.{other} dev up0"
        );
        cmd::ip_batch(&ns, &[device]).unwrap();
        topology::guest_addresses(&ns, "vx0", &VmSpec::numbered(name, n).ips).unwrap();
        topology::offloads_off(&ns, "vx0").unwrap();
    }
    let capture = Capture::start(&site.ns("net"), "u-y", &site.dir).unwrap();
    let bins = Binaries {
        godwit: PathBuf::new(),
        nva: PathBuf::new(),
        ctl: PathBuf::new(),
        lab: PathBuf::from(env!("CARGO_BIN_EXE_godwit-lab")),
    };
    let start = |name| godwit_lab::lab::vm::start_agent(name, &site.ns(name), &bins, &site.dir).unwrap();
    let ((_px, mut x), (_py, mut y)) = (start("x"), start("y"));
    let mut talks = Vec::new();
    for (probe, v6) in [(1, false), (2, true)] {
        let at = |name: &str, n| VmSpec::numbered(name, n).address(v6, 0);
        let mut end_x = End { agent: &mut x, address: at("x", 1) };
        let mut end_y = End { agent: &mut y, address: at("y", 2) };
        talks.push(Traffic::open(probe, LOAD, topology::GUEST_MTU, &mut end_x, &mut end_y).unwrap());
    }
    run(&mut x).unwrap();
    run(&mut y).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    for talk in &talks {
        let talk = talk.finish(&mut x, &mut y).unwrap();
        assert_eq!((talk.a_to_b.lost, talk.b_to_a.lost), (0, 0));
        assert!(talk.tcp.unwrap().alive);
    }
    let findings = capture.finish("198.18.0.1".parse().unwrap(), 1400).unwrap();
    assert_eq!(findings.complaints(), Vec::<String>::new(), "{findings:?}");
    assert!(findings.good > findings.from_switch.frames, "checksums were looked at: {findings:?}");
}

//! Sockets of vhost-user ports: one that a killed switch left is replaced, one in use and a file are not touched, a
//! start that fails leaves none, and no two ports share one (R18).

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::net::{Namespace, ctl, start};
use crate::common::{alone, program};

const PORTS: usize = 5;

fn socket(folder: &Path, n: usize) -> PathBuf {
    folder.join(format!("v{n}.vhost"))
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.file_type().is_socket())
}

fn head(folder: &Path) -> String {
    format!(
        "[nve]\nid = \"a\"\nworkers = \"0\"\nidle_sleep_us = 50\nmemory_mb = 64\nlocations = 1024\n\
         hugepages = \"never\"\nadmin_socket = \"{}\"\n\
         [[uplink]]\nname = \"up0\"\ndevargs = \"net_null0\"\nipv4 = \"198.18.0.1/24\"\n",
        folder.join("a.sock").display()
    )
}

fn port(n: usize, devargs: &str) -> String {
    format!(
        "[[port]]\nname = \"p{n}\"\ndevargs = \"{devargs}\"\nvni = 100\nmac = \"02:00:00:00:{:02x}:{:02x}\"\n",
        n / 256,
        n % 256
    )
}

fn vhost(folder: &Path, n: usize) -> String {
    format!("net_vhost{n},iface={}", socket(folder, n).display())
}

/// The same in the switch's own form.
fn ours(folder: &Path, n: usize) -> String {
    format!("vhost={}", socket(folder, n).display())
}

/// A switch with [`PORTS`] guests' sockets, of both forms.
fn with_sockets(folder: &Path) -> String {
    head(folder)
        + &(0..PORTS)
            .map(|n| port(n, &if n % 2 == 0 { vhost(folder, n) } else { ours(folder, n) }))
            .collect::<String>()
}

/// Runs the switch where it has to refuse; what it said.
#[track_caller]
fn refused(folder: &Path, text: &str, flags: &[&str]) -> String {
    let config = folder.join("bad.toml");
    std::fs::write(&config, text).expect("the configuration is written");
    let out = Command::new("timeout")
        .arg("20")
        .arg(program("godwit"))
        .arg("--config")
        .arg(&config)
        .args(flags)
        .output()
        .expect("the switch runs");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(matches!(out.status.code(), Some(1 | 2)), "{}: {said}", out.status);
    said.lines().last().unwrap_or_default().to_owned()
}

fn add(folder: &Path, name: &str, devargs: &str) -> (bool, String) {
    ctl(folder, &["port", "add", name, "--devargs", devargs, "--vni", "100", "--mac", "02:00:00:00:01:00"])
}

#[test]
fn r18_a_killed_switch_starts_again_at_the_first_try() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let ns = Namespace::new("s");
    start(&ns, folder, &with_sockets(folder)).kill();
    assert!((0..PORTS).all(|n| is_socket(&socket(folder, n))), "a killed switch leaves its sockets");

    let again = start(&ns, folder, &with_sockets(folder));
    let (ok, ports) = ctl(folder, &["port", "list"]);
    assert!(ok && (0..PORTS).all(|n| ports.contains(&format!("p{n}"))), "{ports}");
    assert!((0..PORTS).all(|n| is_socket(&socket(folder, n))));
    drop(again);
    assert!(!(0..PORTS).any(|n| socket(folder, n).exists()), "one that ends by itself leaves none");
}

#[test]
fn r18_a_start_that_fails_leaves_no_socket() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    // The last of them is another process's.
    let last = socket(folder, PORTS - 1);
    let listener = UnixListener::bind(&last).expect("a listener");
    let said = refused(folder, &with_sockets(folder), &[]);
    assert!(said.contains(&last.display().to_string()) && said.contains("in use"), "{said}");
    assert!(said.contains("port \"p4\""), "{said}");
    assert!(!(0..PORTS - 1).any(|n| socket(folder, n).exists()), "what it made is gone");
    assert!(is_socket(&last) && !folder.join("a.sock").exists());
    listener.set_nonblocking(true).expect("set");
    assert!(listener.accept().is_err(), "the other process was not disturbed");

    // And by a device that cannot be.
    let text = head(folder) + &port(0, &vhost(folder, 0)) + &port(1, "net_pcap0,rx_pcap=/nowhere/in.pcap");
    let said = refused(folder, &text, &[]);
    assert!(said.contains("port \"p1\"") && !socket(folder, 0).exists(), "{said}");
}

#[test]
fn r18_a_socket_is_given_once_and_a_file_is_never_touched() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let ns = Namespace::new("s");
    let real = folder.join("real");
    std::fs::create_dir(&real).expect("a folder");
    std::os::unix::fs::symlink(&real, folder.join("link")).expect("a link");
    let named = |n: usize, path: &str| format!("net_vhost{n},iface={}", folder.join(path).display());
    let file = folder.join("file");
    std::fs::write(&file, "keep me").expect("a file");
    let long = "x".repeat(108 - folder.as_os_str().len());

    let bad = |devargs: &str, wanted: [&str; 2]| {
        let text = head(folder) + &port(0, &named(0, "real/v.vhost")) + &port(1, devargs);
        for flags in [&["--check"][..], &[]] {
            let said = refused(folder, &text, flags);
            assert!(wanted.iter().all(|w| said.contains(w)), "{said:?} says {wanted:?}");
        }
        assert!(!real.join("v.vhost").exists(), "nothing was made");
    };
    bad(&named(1, "link/../real/./v.vhost"), ["port[1].devargs", "socket of port[0].devargs (\"p0\")"]);
    bad(&named(1, "a.sock"), ["port[1].devargs", "nve.admin_socket"]);
    bad(&named(1, "file"), ["port[1].devargs", "is an ordinary file"]);
    bad(&named(1, "real"), ["port[1].devargs", "is a folder"]);
    bad(&named(1, &long), ["port[1].devargs", "at most 107"]);
    bad("net_vhost1,iface=", ["port[1].devargs", "iface is empty"]);
    let same = format!("vhost={}", folder.join("link/v.vhost").display());
    bad(&same, ["port[1].devargs", "socket of port[0].devargs (\"p0\")"]);
    bad("vhost=/a,bogus=1", ["port[1].devargs", "use vhost, mode, queues, tso, postcopy"]);
    bad("vhost=/a,mode=both", ["port[1].devargs", "mode=both is unknown; use server"]);
    bad(&(named(1, "w.vhost") + ",queues=200"), ["port[1].devargs", "use 1 to 128"]);

    let _switch = start(&ns, folder, &(head(folder) + &port(0, &named(0, "real/v.vhost"))));
    let no = |devargs: &str, wanted: &str| {
        let (ok, said) = add(folder, "w", devargs);
        assert!(!ok && said.contains("\"w\"") && said.contains(wanted), "{said:?} says {wanted:?}");
        assert!(is_socket(&real.join("v.vhost")));
    };
    no(&named(1, "link/v.vhost"), "is the socket of port \"p0\"");
    no(&same, "is the socket of port \"p0\"");
    no("vhost=/a,bogus=1", "use vhost, mode, queues, tso, postcopy");
    no(&named(1, "a.sock"), "in use");
    no(&named(1, "file"), "is an ordinary file");
    no(&named(1, "nowhere/w.vhost"), "there is no folder");
    no(&named(1, &long), "at most 107");
    no("net_vhost1,iface=", "iface is empty");
    no(&(named(1, "w.vhost") + ",queues=0"), "use 1 to 128");
    assert_eq!(std::fs::read_to_string(&file).expect("the file is there"), "keep me");

    // As many queues as there are; a socket that was another switch's; and all anew after a removal.
    drop(UnixListener::bind(folder.join("w.vhost")).expect("a listener"));
    for round in 0..3 {
        let (ok, said) = add(folder, "w", &(named(1, "w.vhost") + ",queues=128"));
        assert!(ok && is_socket(&folder.join("w.vhost")), "round {round}: {said}");
        let (ok, said) = ctl(folder, &["port", "remove", "w"]);
        assert!(ok && !folder.join("w.vhost").exists(), "round {round}: {said}");
    }
    assert!(is_socket(&real.join("v.vhost")), "the other port's stayed");
}

#[test]
fn r18_more_devices_than_dpdk_has_room_for_are_refused_by_their_number() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let ns = Namespace::new("s");
    let ports = |count: usize| -> String { (1..=count).map(|n| port(n, &format!("net_null{n}"))).collect() };
    let said = refused(folder, &(head(folder) + &ports(1000)), &["--check"]);
    let (_, room) = said.split_once("has room for ").expect("the reason");
    let room: usize = room.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(said.contains(&format!("port[{}].devargs", room - 1)) && room >= 32, "{said}");

    // Guests' sockets are no devices.
    let guests: String = (1000..1100).map(|n| port(n, &ours(folder, n))).collect();
    let _switch = start(&ns, folder, &(head(folder) + &ports(room - 1) + &guests));
    assert!((1000..1100).all(|n| is_socket(&socket(folder, n))));
    let (ok, said) = add(folder, "w", "net_null999");
    assert!(!ok && said.contains(&format!("room for {room} devices")), "{said}");
    let (ok, said) = ctl(folder, &["port", "remove", "p1"]);
    assert!(ok, "{said}");
    let (ok, said) = add(folder, "w", "net_null999");
    assert!(ok, "{said}");
}

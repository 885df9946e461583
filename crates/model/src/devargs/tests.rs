//! What a switch's list lets through, and what it does not.

use proptest::prelude::*;

use super::*;

fn rules(list: &[&str]) -> Vec<DevargsRule> {
    list.iter().map(|r| r.parse().unwrap()).collect()
}

fn list() -> Vec<DevargsRule> {
    rules(&[
        "net_vhost: iface=/run/godwit/, queues, tso=0",
        "net_tap: iface=vm*",
        "vhost: vhost=/run/godwit/, mode",
        "0000:03:00.1: representor",
        "net_null",
    ])
}

fn refused(devargs: &str) -> String {
    check_devargs(devargs, &list()).unwrap_err().to_string()
}

#[test]
fn d2_what_the_list_has_may_be_ordered() {
    let below = |path: &str| vec![PathBelow { path: path.into(), below: "/run/godwit/".into() }];
    for (devargs, paths) in [
        ("net_vhost0,iface=/run/godwit/a.sock,queues=2", below("/run/godwit/a.sock")),
        ("net_vhost17,queues=2,iface=/run/godwit/x/a.sock,tso=0", below("/run/godwit/x/a.sock")),
        ("vhost=/run/godwit/b.sock,mode=client", below("/run/godwit/b.sock")),
        ("net_tap3,iface=vm3", vec![]),
        ("0000:03:00.1,representor=1", vec![]),
        ("net_null9", vec![]),
    ] {
        assert_eq!(check_devargs(devargs, &list()), Ok(paths), "{devargs}");
    }
}

#[test]
fn d2_devargs_outside_the_list_are_refused_by_name() {
    for (devargs, why) in [
        ("net_pcap8,tx_pcap=/etc/cron.d/x", "has no driver \"net_pcap\", it has net_vhost, net_tap"),
        ("net_af_packet0,iface=eth0", "has no driver \"net_af_packet\""),
        ("0000:03:00.0", "has no driver \"0000:03:00.0\""),
        ("net_null0,no-rx=1", "has no key \"no-rx\" for net_null"),
        ("net_vhost0,iface=/run/godwit/a,dequeue-zero-copy=1", "has no key \"dequeue-zero-copy\""),
        ("net_vhost0,iface=/run/other/a.sock", "a path below /run/godwit/, and not \"/run/other/a.sock\""),
        ("net_vhost0,iface=/run/godwit/../x.sock", "a path below /run/godwit/"),
        ("net_vhost0,iface=/run/godwit/./x.sock", "a path below /run/godwit/"),
        ("net_vhost0,iface=/run/godwit/", "a path below /run/godwit/"),
        ("net_vhost0,iface=/run/godwit", "a path below /run/godwit/"),
        ("net_vhost0,iface=/run/godwit2/a.sock", "a path below /run/godwit/"),
        ("net_vhost0,iface=run/godwit/a.sock", "a path below /run/godwit/"),
        ("net_vhost0,queues=/etc/passwd", "a value that is no path"),
        ("net_vhost0,tso=1", "has for the key \"tso\" of net_vhost: 0, and not \"1\""),
        ("net_tap0,iface=eth0", "vm*, and not \"eth0\""),
        ("net_tap0,iface=vm/../eth0", "vm*, and not"),
        ("net_vhost0,iface=/run/godwit/a,iface=/etc/x", "the key \"iface\" is there twice"),
        ("vhost=/run/godwit/a,vhost=/etc/x", "the key \"vhost\" is there twice"),
        ("net_vhost0,iface=[/run/godwit/a,/etc/x]", "'[' may not stand in device arguments"),
        ("net_vhost0, iface=/run/godwit/a", "' ' may not stand in device arguments"),
        ("net_vhost0,iface", "a path below /run/godwit/, and not \"\""),
        ("net_vhost0,=x", "\"=x\" is no argument"),
        ("net_vhost0,iface=/run/godwit/a=b", "is no argument"),
        ("net_vhost0,", "\"\" is no argument"),
        ("vdev:net_vhost0,iface=/run/godwit/a", "\"vdev:net_vhost0\" is no device"),
        ("bus=vdev,name=net_pcap0", "has no driver \"bus\""),
        ("class=eth", "has no driver \"class\""),
        ("pci", "\"pci\" is no device"),
        ("", "\"\" is no device"),
        ("net_vhost_pcap0", "has no driver \"net_vhost_pcap\""),
    ] {
        let text = refused(devargs);
        assert!(text.contains(why), "{devargs}: {text}");
    }
    assert!(check_devargs("net_null0", &[]).unwrap_err().to_string().contains("it has none"));
    assert_eq!(check_devargs("0000:03:00.0", &rules(&["pci"])), Ok(vec![]));
    assert!(refused(&"x".repeat(2000)).contains("2000 bytes"));
}

#[test]
fn d2_a_rule_that_makes_no_sense_is_refused() {
    for (rule, why) in [
        ("", "is no driver"),
        ("net_vhost0", "is no driver"),
        ("net_vhost: iface=/run/../etc/", "is no directory"),
        ("net_vhost: iface=/run/godwit", "is no directory"),
        ("net_vhost: iface=run/", "is no directory"),
        ("net_vhost: iface=/run/*", "is no directory"),
        ("net_vhost: a b", "is no key"),
        ("net_vhost: a, a=1", "is there twice"),
    ] {
        let text = rule.parse::<DevargsRule>().unwrap_err().to_string();
        assert!(text.contains(why), "{rule}: {text}");
    }
}

#[test]
fn d2_links_do_not_lead_out() {
    let below = |path: &str| PathBelow { path: path.into(), below: "/run/godwit/".into() };
    let fs = |path: &Path| -> io::Result<PathBuf> {
        match path.to_str().unwrap().trim_end_matches('/') {
            "/run/godwit" => Ok("/var/run/godwit".into()),
            "/run/godwit/out" => Ok("/etc".into()),
            "/run/godwit/x.sock" => Ok("/var/run/godwit/x.sock".into()),
            "/run/godwit/link" => Ok("/etc/passwd".into()),
            "/run/godwit/self" => Ok("/var/run/godwit".into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    };
    assert_eq!(below("/run/godwit/x.sock").check(fs, |_| false), Ok(()));
    assert_eq!(below("/run/godwit/new.sock").check(fs, |_| false), Ok(()));
    for (path, why) in [
        ("/run/godwit/link", "leads to /etc/passwd, which is not below /run/godwit/"),
        ("/run/godwit/out/new.sock", "leads to /etc/new.sock"),
        ("/run/godwit/self", "leads to /var/run/godwit,"),
        ("/run/godwit/no/new.sock", "make its directory first"),
    ] {
        let text = below(path).check(fs, |_| false).unwrap_err().to_string();
        assert!(text.contains(why), "{path}: {text}");
    }
}

#[test]
fn d2_links_of_a_real_file_system_do_not_lead_out() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::create_dir_all(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.join("f"), inside.join("dangling")).unwrap();
    let check = |name: &str| {
        let path = PathBelow { path: inside.join(name), below: inside.clone() };
        path.check(|p| std::fs::canonicalize(p), |p| p.symlink_metadata().is_ok())
    };
    assert_eq!(check("new"), Ok(()));
    assert!(matches!(check("dir/new"), Err(DevargsRefusal::Leads { .. })));
    assert!(matches!(check("dir"), Err(DevargsRefusal::Leads { .. })));
    assert!(check("dangling").is_err(), "what is made there is made elsewhere");
}

proptest! {
    /// What passes names nothing but what the list has: read anew by the simplest means there are.
    #[test]
    fn d2_nothing_passes_that_names_another_file(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("net_vhost0".to_owned()), Just("net_tap1".to_owned()), Just("net_pcap0".to_owned()),
                "(iface|queues|tso|mode|tx_pcap|vhost)=(/run/godwit/)?[a-z./\\[\\], ]{0,8}",
                "[a-z_=/.,:0-9]{0,12}",
            ],
            1..5,
        ),
    ) {
        let text = parts.join(",");
        if check_devargs(&text, &list()).is_ok() {
            let driver = ["net_vhost", "net_tap", "vhost", "0000:03:00.1", "net_null"];
            prop_assert!(driver.iter().any(|d| text.starts_with(d)), "{text}");
            prop_assert!(!text.contains("..") && !text.contains("pcap"), "{text}");
            let mut keys = std::collections::BTreeSet::new();
            for part in text.split(',') {
                if let Some((key, value)) = part.split_once('=') {
                    prop_assert!(keys.insert(key), "{text}");
                    prop_assert!(!value.contains('/') || value.starts_with("/run/godwit/"), "{text}");
                }
            }
        }
    }

    #[test]
    fn d2_no_text_is_a_panic(text in ".{0,40}") {
        let _ = check_devargs(&text, &list());
        let _ = text.parse::<DevargsRule>();
    }
}

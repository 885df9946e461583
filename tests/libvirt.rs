//! Managers that exist (R57): libvirt migrates a guest with Godwit's hook installed, and nobody gives Godwit an order
//! besides.

use crate::common::lab;

#[test]
#[ignore = "long: a minute, and it installs libvirt; the hook has tests of its own"]
fn r57_libvirt_migrates_a_guest_five_times_and_godwit_needs_no_other_command() {
    let (output, report) = lab(&["libvirt", "--moves", "5", "--rate", "1000", "--long-holds"]);
    assert!(output.status.success(), "the scenario failed");
    assert_eq!((report["lost"].as_u64(), report["duplicated"].as_u64()), (Some(0), Some(0)), "{report}");
    let migrations = report["migrations"].as_array().expect("there were migrations");
    assert_eq!(migrations.len(), 5);
    for m in migrations {
        assert_eq!(m["phase"], "done", "{m}");
        assert_eq!(m["ports_right"], true, "the hook removed the old port and added the new one: {m}");
        assert!(m["id"].as_str().is_some_and(|id| id.starts_with("libvirt-")), "the hook ordered it: {m}");
    }
    assert_eq!(report["refused"], true, "a domain whose VN is not there does not start");
    assert_eq!(report["released"], true, "a domain that stops is detached, and its port goes");
}

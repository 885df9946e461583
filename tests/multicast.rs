//! Multicast only where it is wanted (R61), with real switches, and Linux's kernel as member, snooping bridge and
//! querier.

use crate::common::lab;
use serde_json::Value;

/// A receiver moves, leaves and joins again; p's switch sends copies for its NVE and for no other.
#[track_caller]
fn follows(args: &[&str]) -> Value {
    let (output, report) = lab(&[&["multicast", "--part=moves", "--rate=1000"], args].concat());
    assert!(output.status.success(), "the scenario found fault");
    let run = report["runs"][0].clone();
    for line in run["moves"].as_array().expect("moves") {
        assert_eq!(line["done"], true, "{line}");
        for gap in line["gap_ms"].as_array().expect("two groups") {
            let beyond = gap.as_f64().expect("a number") - line["pause_ms"].as_f64().expect("a number");
            assert!(beyond < 1500.0, "more than a query's answer beyond the pause: {line}");
        }
    }
    for stream in run["streams"].as_array().expect("two groups") {
        assert_eq!((&stream["duplicated"], &stream["corrupt"]), (&0.into(), &0.into()), "{stream}");
        assert!(stream["received"].as_u64() > Some(0), "{stream}");
    }
    let copies: Vec<&str> = ["a", "b", "d"].to_vec();
    for (seen, name) in run["copies"].as_array().expect("copies").iter().zip(copies) {
        assert_eq!(seen[0], name, "{seen}");
        assert_eq!(seen[1].as_u64() == Some(0), name == "d", "d has no member: {seen}");
    }
    assert_eq!(run["unexplained"], 0, "lost where nobody moved or left");
    run
}

#[test]
fn r61_streams_to_groups_follow_their_receiver_and_leave_its_old_nve() {
    let run = follows(&["--outer=4", "--moves=2"]);
    assert_eq!((&run["igmp"], &run["mld"]), (&3.into(), &2.into()));
    let leaves = run["leaves"].as_array().expect("leaves");
    assert_eq!(leaves.len(), 2, "one of each family: {run}");
}

#[test]
#[ignore = "long: half a minute; the new versions of both protocols run always"]
fn r61_the_same_in_old_versions_of_both_protocols() {
    let run = follows(&["--outer=6", "--moves=2"]);
    assert_eq!((&run["igmp"], &run["mld"]), (&2.into(), &1.into()));
}

/// Linux's bridge gives way to the switch, and the switch takes one behind a router VM for a querier: both name the
/// same members in all versions.
#[test]
#[ignore = "long: three quarters of a minute"]
fn r61_linux_s_bridge_as_a_querier_and_the_switch_agree() {
    let (output, report) = lab(&["multicast", "--part=queriers", "--outer=4"]);
    assert!(output.status.success(), "the scenario found fault");
    let looks = report["queriers"]["looks"].as_array().expect("looks");
    assert_eq!(looks.len(), 14, "one without, three in each pair of versions, of both families");
    for look in looks {
        assert_eq!(look["copies"], look["expected"], "{look}");
    }
}

//! Addresses that VMs have beside those that their definition lists (R92 to R94), with real switches.

use crate::common::lab;

/// What a part of the scenario printed; fails where it found fault.
fn part(name: &str) -> String {
    let (output, _) = lab(&["addresses", "--part", name]);
    assert!(output.status.success(), "the scenario found fault");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn r92_keepalived_fails_over_across_nves_before_and_after_a_hot_move() {
    let text = part("keepalived");
    assert_eq!(text.matches("dies: 203.0.113.200 is silent for").count(), 2);
    assert!(text.contains("m moves from a to c"));
}

#[test]
fn r65_r94_many_addresses_a_router_and_what_was_refused_until_the_operator_did_as_told() {
    let text = part("recorded");
    assert!(text.contains("120 of 120 reach it, 120 of 120 sent"));
    assert!(text.contains("a router: lost 0 of 20 sent for others, 0 of 20 to them"));
    assert!(
        text.contains("port show: refused")
            && text.contains("after `godwitctl vm set s --addresses-v4 learned`")
    );
}

#[test]
fn r93_privacy_leased_and_link_local_addresses_and_a_vm_without_recorded_ones_are_reached_before_and_after_a_move()
 {
    let text = part("learned");
    assert_eq!(text.matches("lost 0 of 20").count(), 10);
    assert!(text.contains("n moves from a to b"));
}

#[test]
fn r94_nested_vms_and_a_nodes_pods_move_hot_and_lose_nothing() {
    let text = part("nested");
    assert_eq!(text.matches("lost 0 of ").count(), 4);
    assert!(text.contains("y and pod: lost 0 of"));
}

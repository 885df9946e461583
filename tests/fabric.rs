//! The underlay as it is found (R95), with real partners: a bond with LACP in a VLAN loses a leg while VMs talk to
//! another's NVE behind Open vSwitch; two uplinks with BGP, FRR's, of which one is lost.

use crate::common::lab;

#[test]
#[ignore = "long: a minute; the bond runs always, and next hops and ways have tests of their own"]
fn r95_two_uplinks_with_bgp_lose_one() {
    let args = ["fabric", "--part", "routed", "--rate", "1600", "--duration", "3", "--slack", "5"];
    let (output, _) = lab(&args);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    for loss in ["dead, link up", "link down", "taken out by BGP"] {
        assert!(text.contains(loss), "an uplink was lost in each of three ways");
    }
}

#[test]
fn r95_a_bond_in_a_vlan_loses_a_leg_and_goes_on() {
    let (output, _) = lab(&["fabric", "--part", "bond", "--rate", "1000", "--duration", "2"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("at its return, 0 otherwise").count(), 2, "nothing else is lost");
}

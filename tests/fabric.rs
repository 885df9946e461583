//! The underlay as it is found (R95), with real partners: a bond with LACP in a VLAN loses a leg while VMs talk to
//! another's NVE behind Open vSwitch.

use crate::common::lab;

#[test]
fn r95_a_bond_in_a_vlan_loses_a_leg_and_goes_on() {
    let (output, _) = lab(&["fabric", "--part", "bond", "--rate", "1000", "--duration", "2"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.matches("was noticed, 0 otherwise").count(),
        2,
        "nothing is lost while both legs are there"
    );
}

//! The underlay as it is found (R95), with real partners: two uplinks with BGP, FRR's, of which one is lost.

use crate::common::lab;

#[test]
fn r95_two_uplinks_with_bgp_lose_one() {
    let (output, _) = lab(&["fabric", "--part", "routed", "--rate", "1600", "--duration", "3"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    for loss in ["dead, link up", "link down", "taken out by BGP"] {
        assert!(text.contains(loss), "an uplink was lost in each of three ways");
    }
}

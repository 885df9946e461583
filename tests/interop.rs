//! Linux's own vxlan device as an NVE that nobody here wrote (R1–R5, R44): both outer and inner
//! families, UDP and TCP, full-size packets; tshark looks at every frame between the two.

use crate::common::lab;

/// Linux's vxlan device is a peer, over both families (R1, R3, R4).
#[test]
fn linux_vxlan_talks_to_us_and_tshark_finds_no_fault() {
    let (output, _) = lab(&["interop"]);
    assert!(output.status.success(), "the scenario failed");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.matches("0 malformed, 0 bad checksums").count(), 2, "both outer families were looked at");
}

//! A Linux guest under QEMU on a vhost-user port (R11): it talks through VXLAN to a VM at another switch,
//! both ways and over both families, is migrated there by QEMU (R49), and still talks.

mod common;

#[test]
fn a_real_guest_talks_and_migrates() {
    let (output, _) = common::lab(&["guest"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches(": 20 of 20 echoes").count(), 8, "each way and family, before and after");
    assert!(text.contains("the move is MOVE_PHASE_DONE"));
}

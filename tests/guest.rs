//! A Linux guest under QEMU on a vhost-user port (R11): it talks through VXLAN to a VM at another switch,
//! both ways and over both families, is migrated there by QEMU (R49), and still talks.

mod common;

#[test]
fn a_real_guest_talks_and_migrates() {
    // Code 2: it could not be carried out. A guest sometimes does not survive an emulated migration; what it lost
    // where it did is code 1, and not tried again.
    let mut tries = (0..3).map(|_| common::lab(&["guest"]).0);
    let output =
        tries.find(|output| output.status.code() != Some(2)).expect("a guest that survives its migration");
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches(": 20 of 20 echoes").count(), 8, "each way and family, before and after");
    assert!(text.contains("the move is MOVE_PHASE_DONE"));
}

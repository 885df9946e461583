//! Real guests with TCP segmentation offload (R11): files in writes of 64 KiB through VXLAN to Linux's own
//! vxlan device and back, compared byte for byte, every frame looked at by tshark; then between two guests
//! of one switch, where frames stay whole.

use crate::common::lab;

#[test]
#[ignore = "long: three quarters of a minute; tests of offloads cover it frame by frame"]
fn r11_64_kib_writes_of_a_real_guest_arrive_and_no_frame_is_too_long() {
    let (output, _) = lab(&["guest-tso", "--iperf", "1"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("SHA-256 the same").count(), 4, "both outer and both inner families");
    assert_eq!(text.matches("0 malformed, 0 bad checksums").count(), 2);
    assert_eq!(text.matches("the switch counts handed_on").count(), 2);
}

//! The switch on PCI cards behind an IOMMU, bound to vfio-pci by `scripts/nic`: an emulated machine for
//! each card that is the uplink, Linux's own vxlan device on its wire, tshark looking at every frame.

use crate::common::lab;

#[test]
fn the_switch_forwards_between_cards_bound_to_vfio() {
    let (output, _) = lab(&["bare-metal"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("0 malformed, 0 bad checksums").count(), 3, "each card was the uplink once");
    assert_eq!(text.matches("nic refuses the card that has an address").count(), 3);
    assert_eq!(text.matches("0000:00:11.0 is back at virtio-pci").count(), 3);
    // The VM's card each time, and the uplink where that is virtio-net, too.
    let spread = |port: &str| {
        let line = format!("received by {port} at workers 0 and 1: ");
        text.lines().filter(|l| l.contains(&line) && l.ends_with(": every queue carries traffic")).count()
    };
    assert_eq!((spread("v"), spread("up0")), (3, 1));
}

/// The card hands frames of more than 8,192 bytes over in pieces.
#[test]
#[ignore = "long: half a minute; the other one runs always"]
fn r11_jumbo_frames_pass_between_cards_too() {
    let (output, _) = lab(&["bare-metal", "--jumbo", "--uplink", "e1000e"]);
    assert!(output.status.success(), "the scenario failed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("0 malformed, 0 bad checksums").count(), 1);
    assert!(text.contains("gathered"), "{text}");
}

//! A guest, a switch and the NVA stand still in the midst of hot moves: every VM is reached again within ten seconds,
//! whoever stood still, and nobody has to speak first (R18, R19, R32, R49).

use crate::common::lab;

#[test]
fn r32_every_vm_is_found_again_after_stalls_in_the_midst_of_moves() {
    let (output, _) = lab(&["stalls", "--count", "3", "--seed", "4", "--longest", "5s"]);
    assert!(output.status.success(), "the scenario failed");
}

#[test]
fn r32_r23_vms_that_were_lost_and_only_answer_are_reached() {
    let (output, _) = lab(&["found"]);
    assert!(output.status.success(), "the scenario failed");
}

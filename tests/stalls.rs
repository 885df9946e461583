//! Whoever stood still, rebooted or started beside a directory that stood still, every VM is reached again within ten
//! seconds, and nobody has to speak first (R18, R19, R32, R49, R55).

use crate::common::lab;

#[test]
fn r32_every_vm_is_found_again_after_stalls_in_the_midst_of_moves() {
    let (output, _) = lab(&["stalls", "--count", "3", "--seed", "4", "--longest", "5s"]);
    assert!(output.status.success(), "the scenario failed");
}

fn found(part: &str) {
    let (output, _) = lab(&["found", "--part", part]);
    assert!(output.status.success(), "the scenario failed");
}

#[test]
fn r32_r23_vms_that_were_lost_and_only_answer_are_reached() {
    found("taps");
}

#[test]
#[ignore = "long: three quarters of a minute; two others of its kind run always"]
fn r19_r18_guests_on_vhost_user_ports_that_reboot_and_only_answer_are_reached() {
    found("vhost");
}

#[test]
fn r18_r55_two_hundred_vms_that_start_while_the_nva_stands_still_are_all_active() {
    found("crowd");
}

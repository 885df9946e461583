//! The same VM at two switches, with a real guest (R21): a live one keeps its place and its traffic, a hung one loses
//! its place after three seconds.

mod common;

#[test]
fn r21_a_live_guest_keeps_its_place_and_a_hung_one_loses_it() {
    let (output, _) = common::lab(&["split-brain"]);
    assert!(output.status.success(), "the scenario found fault");
}

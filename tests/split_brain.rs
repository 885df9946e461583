//! The same VM at two switches, with a real guest (R21): a live one keeps its place and its traffic, a hung one loses
//! its place after three seconds.

use crate::common::lab;

#[test]
fn r21_r75_a_live_guest_keeps_its_place_and_a_hung_one_loses_it_and_move_show_says_why() {
    let (output, _) = lab(&["split-brain"]);
    assert!(output.status.success(), "the scenario found fault");
    let text = String::from_utf8_lossy(&output.stdout);
    let shown: Vec<&str> = text.split("godwitctl move show ").skip(1).collect();
    assert_eq!(shown.len(), 2, "two claims that nobody ordered");
    let says = |n: usize, sentence: &str| assert!(shown[n].contains(sentence), "{sentence}: {}", shown[n]);
    for n in [0, 1] {
        says(n, "Nobody ordered it: b claimed v (by ");
        says(n, "), which was at a.");
    }
    says(0, "The NVA asked a, which said that it runs here: it answered.");
    says(0, "The claim was refused: ");
    says(1, "it answered nothing for 3 s.");
    says(1, "b got v, and every connected NVE of its VN knows.");
}

//! kill -9 of the NVA in the middle of moves, then restart (R19–R21, R37): one owner each, directory
//! and switches agree, traffic of unmoved VMs loses nothing.

use crate::common::lab;

/// Moves end in one owner though the NVA is killed at any point (R72, R73).
#[test]
fn moves_survive_the_nvas_death() {
    let (output, _) = lab(&["nva-kill", "--rate", "1000", "--long-holds"]);
    assert!(output.status.success(), "the scenario failed");
}

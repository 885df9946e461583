//! A sender whose session with the NVA is cut loses nothing while it cannot be told of a move, and goes straight to
//! the new switch once it can (R43, R47, R48).

use crate::common::lab;

#[test]
fn r47_r48_a_sender_without_an_nva_loses_nothing_and_is_redirected_within_50_ms() {
    let (output, _) = lab(&["frozen-sender", "--rate", "1000", "--long-holds"]);
    assert!(output.status.success(), "the scenario found fault");
}

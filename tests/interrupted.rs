//! Warm and cold moves among switches as processes: entries go and come, addresses stay, nothing is asked for (R50,
//! R51, R55).

use crate::common::lab;

fn two_moves(mode: &str, on_cold: &str) {
    let (output, _) =
        lab(&[mode, "--moves", "2", "--rate", "1000", "--on-cold", on_cold, "--no-time-limits"]);
    assert!(output.status.success(), "the scenario failed");
}

#[test]
fn r50_r55_a_warm_move_asks_nobody_anything() {
    two_moves("warm", "drop");
}

#[test]
fn r51_r55_a_cold_move_keeps_addresses_and_ends_entries() {
    two_moves("cold", "drop");
}

#[test]
fn r53_a_cold_move_resets_the_peers_connection_where_its_vn_says_so() {
    two_moves("cold", "reset");
}

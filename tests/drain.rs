//! A switch is emptied for its maintenance while its VMs talk (R85).

use crate::common::lab;

#[test]
fn r85_twenty_vms_leave_without_a_loss_whoever_is_killed_half_way() {
    let (output, report) = lab(&["drain", "--vms", "20", "--parallel", "4", "--fast", "2", "--long-holds"]);
    assert!(output.status.success(), "the scenario failed");
    let rounds = report["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 4);
    for round in rounds {
        assert_eq!((&round["report"]["phase"], &round["report"]["here"]), (&"ended".into(), &0.into()));
    }
    assert!(rounds[..3].iter().all(|r| r["lost"] == 0 && r["probes"]["sent"].as_u64() > Some(0)));
}

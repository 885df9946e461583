//! Receive queues change workers while two VMs talk through two switches: nothing is lost, doubled or
//! overtaken (R2, R13), with a transmit queue for each worker and with one that they share.

use crate::common::lab;

fn handovers(uplink_queues: &str) {
    let (output, _) =
        lab(&["placement", "--workers", "0-1", "--handovers", "40", "--uplink-queues", uplink_queues]);
    assert!(output.status.success(), "the scenario failed");
}

#[test]
fn r13_queues_change_workers_under_traffic() {
    handovers("2");
}

#[test]
fn r13_queues_change_workers_that_share_a_transmit_queue() {
    handovers("1");
}

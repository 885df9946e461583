//! A VM that comes back and makes itself known twice: seeds 173 and 1544 of the simulation.

use crate::lab::{Lab, PORT};
use godwit_control::Input;
use godwit_model::message::NveToNva;
use godwit_tables::update::{PortIdx, VmState};

const A: usize = 0;
const B: usize = 1;
const BACK: PortIdx = PortIdx(9);

#[test]
fn r46_a_second_word_of_the_vm_does_not_pass_the_gate_of_the_first() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    // To B, so that A forwards; then back to another port of A.
    lab.order_move("m1", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.announce(B, PORT, 1);
    lab.settle();
    assert!(matches!(lab.hosts[A].state(1), Some(VmState::Departed { .. })));
    lab.input(A, Input::PortRemoved { port: PORT });
    lab.order_move("m2", 1, B, A);
    lab.add_port(A, BACK, 1);
    lab.settle();
    // The workers of A are slow to let go of the forward entry.
    lab.apply = false;
    let said = lab.hosts[A].said.len();
    lab.input(A, Input::ActivatePort { port: BACK });
    lab.announce(A, BACK, 1);
    let claims = |lab: &Lab| lab.hosts[A].said[said..].iter().any(|m| matches!(m, NveToNva::Claim { .. }));
    assert!(!claims(&lab), "{:?}", &lab.hosts[A].said[said..]);
    lab.apply = true;
    let reached: Vec<_> = lab.hosts[A].barriers.drain(..).collect();
    for (worker, token) in reached {
        lab.input(A, Input::Applied { worker, token });
    }
    assert!(claims(&lab), "{:?}", &lab.hosts[A].said[said..]);
}

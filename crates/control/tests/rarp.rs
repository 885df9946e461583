//! A VM without a disk asks for its own address (R27).

use crate::lab::*;
use godwit_model::Gateway;
use godwit_model::message::NveToNva;
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::PortIdx;

const A: usize = 0;
const B: usize = 1;

fn lab(rarp: bool) -> Lab {
    let mut lab = Lab::new(2);
    lab.nva.settings.rarp = rarp;
    lab
}

fn ask(lab: &mut Lab, i: usize, n: u8) {
    lab.hosts[i].frames.clear();
    let port = PortIdx(u16::from(n));
    lab.event(i, Event::Announce { port, kind: AnnounceKind::Rarp, mac: mac(n), ip: None });
    lab.settle();
}

/// Frames to the VM's port; without what is for the underlay.
fn replies(lab: &Lab, i: usize, n: u8) -> Vec<Vec<u8>> {
    let of = lab.hosts[i].frames.iter().filter(|(port, _)| *port == PortIdx(u16::from(n)));
    of.map(|(_, f)| f.clone()).collect()
}

#[test]
fn r27_a_vm_at_a_new_nve_gets_its_former_address() {
    let mut lab = lab(true);
    lab.run_vm(A, 1);
    lab.hosts[A].frames.clear();
    lab.add_port(B, PORT, 1);
    lab.settle();
    ask(&mut lab, B, 1);
    #[rustfmt::skip]
    let golden = [
        2, 0, 0, 0, 0, 1, 2, 0x67, 0x77, 0x74, 0, 1, 0x80, 0x35, // Unicast, RARP.
        0, 1, 8, 0, 6, 4, 0, 4, // Ethernet, IPv4, reply reverse.
        2, 0x67, 0x77, 0x74, 0, 1, 0, 0, 0, 0, // No gateway in this VN.
        2, 0, 0, 0, 0, 1, 10, 0, 0, 1, // Its address.
    ];
    assert_eq!(replies(&lab, B, 1), [golden]);
    assert_eq!(replies(&lab, A, 1), [[0; 0]; 0], "nobody else hears of it");
}

#[test]
fn r27_the_reply_comes_in_the_name_of_the_gateway() {
    let mut lab = lab(true);
    lab.nva.define(vm(254), vm_ip(254));
    let r = lab.nva.records.get_mut(&vm(254)).unwrap();
    (r.router, r.router_pinned) = (true, true);
    // This one says of itself that it is a router.
    lab.nva.define(vm(2), vm_ip(2));
    lab.nva.records.get_mut(&vm(2)).unwrap().router = true;
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    ask(&mut lab, A, 1);
    assert_in_the_name_of_254(&lab);
}

fn assert_in_the_name_of_254(lab: &Lab) {
    let [reply] = &replies(lab, A, 1)[..] else { panic!("no reply") };
    assert_eq!((&reply[6..12], &reply[22..28]), (&mac(254).0[..], &mac(254).0[..]));
    assert_eq!(reply[28..32], [10, 0, 0, 254]);
}

/// Where records are pulled, nobody here has asked for the router's.
#[test]
fn r27_in_a_pulled_vn_too_the_reply_comes_in_the_name_of_the_gateway() {
    let mut lab = Lab::with(1, |c| c.pull = [vni()].into());
    lab.nva.settings.rarp = true;
    lab.nva.gateway = Some(Gateway { mac: mac(254), ip: [10, 0, 0, 254].into() });
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    ask(&mut lab, A, 1);
    assert_in_the_name_of_254(&lab);
}

#[test]
fn r27_it_is_off_unless_the_vn_says_so() {
    let mut lab = lab(false);
    lab.nva.define(vm(1), vm_ip(1));
    lab.add_port(A, PORT, 1);
    lab.settle();
    ask(&mut lab, A, 1);
    assert!(replies(&lab, A, 1).is_empty());
}

#[test]
fn r27_an_unknown_vm_gets_no_answer_and_a_silent_nva_is_waited_for() {
    let mut lab = lab(true);
    lab.add_port(A, PORT, 1);
    lab.settle();
    ask(&mut lab, A, 1);
    lab.pass(1000);
    assert!(replies(&lab, A, 1).is_empty(), "no address is made up");
    // The negative answer counts for 5 s: whoever asks again asks nobody.
    let asked = |lab: &Lab| lab.hosts[A].said.iter().filter(|m| matches!(m, NveToNva::Query { .. })).count();
    assert_eq!(asked(&lab), 1);
    lab.pass(3_900);
    ask(&mut lab, A, 1);
    assert_eq!((asked(&lab), replies(&lab, A, 1).len()), (1, 0), "4.9 s after the answer");
    lab.pass(200);
    ask(&mut lab, A, 1);
    assert_eq!((asked(&lab), replies(&lab, A, 1).len()), (2, 0), "5.1 s after the answer");
}

#[test]
fn r27_while_the_nva_is_silent_there_is_no_answer_and_half_a_second_later_neither() {
    for (later, answered) in [(400, 1), (600, 0)] {
        let mut lab = lab(true);
        lab.nva.define(vm(1), vm_ip(1));
        lab.disconnect(A);
        lab.add_port(A, PORT, 1);
        ask(&mut lab, A, 1);
        lab.pass(later);
        assert!(replies(&lab, A, 1).is_empty());
        lab.connect(A);
        lab.settle();
        assert_eq!(replies(&lab, A, 1).len(), answered, "the NVA is back after {later} ms");
    }
}

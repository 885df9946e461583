//! A VM's addresses, forgotten with its VN between two ports: seed 7030 of the simulation.

use crate::lab::{self, Lab, PORT, vm, vm_ip};
use godwit_control::Input;
use godwit_model::message::NveToNva;
use godwit_tables::event::{AnnounceKind, Event};
use godwit_tables::update::PortIdx;
use std::net::{IpAddr, Ipv6Addr};

const A: usize = 0;
const B: usize = 1;
const SECOND: PortIdx = PortIdx(9);

#[test]
fn r55_a_claim_after_a_reconnect_has_all_addresses() {
    let mut lab = Lab::new(2);
    lab.run_vm(A, 1);
    let second: IpAddr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into();
    if let (Some(r), IpAddr::V6(ip)) = (lab.nva.records.get_mut(&vm(1)), second) {
        r.ipv6.push(ip);
    }
    // The first port of a move that is ordered but not made yet goes, and with it the VN.
    lab.order_move("m1", 1, A, B);
    lab.add_port(B, PORT, 1);
    lab.settle();
    lab.input(B, Input::PortRemoved { port: PORT });
    lab.settle();
    // The second one comes while nobody can answer for the VM.
    lab.disconnect(B);
    lab.add_port(B, SECOND, 1);
    let kind = AnnounceKind::NeighborAdvertisement { router: false, overrides: true };
    lab.event(B, Event::Announce { port: SECOND, kind, mac: lab::mac(1), ip: Some(second) });
    lab.connect(B);
    lab.settle();
    let claimed = lab.hosts[B].said.iter().find_map(|m| match m {
        NveToNva::Claim { ips, .. } => Some(ips.clone()),
        _ => None,
    });
    assert_eq!(claimed, Some(vec![vm_ip(1), second]));
}

//! Policies: what a VM may send and get, wherever frames come from and however they wait (R23).

use crate::common::*;
use godwit_pipeline::trace;
use godwit_tables::DropReason;
use godwit_tables::update::*;
use godwit_testkit::frames;
use godwit_wire::policy::{Direction, PortRange, Rule, Verdict};
use godwit_wire::{Mac, Prefix, Rate, proto};

fn rule(verdict: Verdict, direction: Direction, remote_port: Option<u16>) -> Rule {
    let range = |p| PortRange::new(p, p).expect("a range");
    let proto = remote_port.map(|_| proto::UDP);
    Rule { verdict, direction, proto, remote_port: remote_port.map(range), ..Rule::ANY }
}

/// UDP between two VMs' addresses 10.0.0.1 and 10.0.0.2.
fn udp(src: Mac, dst: Mac, ports: (u16, u16)) -> Vec<u8> {
    frames::udp_frame((src, v4(1).into(), ports.0), (dst, v4(2).into(), ports.1), &[0; 40])
}

impl Lab {
    fn policy(&mut self, port: PortIdx, rules: &[Rule], default: Verdict, rate: Rate) {
        for (rule, at) in rules.iter().zip(0..) {
            self.apply(Update::PolicyRule { port, at, rule: *rule });
        }
        self.apply(Update::PolicySet { port, rules: rules.len() as u8, default, rate, dscp: None });
    }
}

#[test]
fn r23_what_a_vm_may_not_send_goes_nowhere() {
    let mut lab = Lab::new();
    let deny = rule(Verdict::Deny, Direction::Out, Some(25));
    lab.policy(P1, &[deny], Verdict::Allow, Rate::UNLIMITED);
    for dst in [R4, M2, Mac::BROADCAST] {
        dropped(&mut lab, P1, &udp(M1, dst, (1000, 25)), DropReason::PolicyDenied);
        lab.one(P1, &udp(M1, dst, (1000, 26)));
        assert!(!lab.out.sent.is_empty(), "another port");
        lab.clear();
    }
    lab.one(P2, &udp(M2, R4, (1000, 25)));
    assert_eq!(lab.to(UPLINK).len(), 1, "another VM");
    // Among others in a burst, and their order stays.
    lab.clear();
    let burst: Vec<Vec<u8>> = (0..64).map(|n| udp(M1, R4, (1000 + n, 25 + n % 2))).collect();
    lab.input(P1, &burst);
    let ports: Vec<u16> =
        lab.to(UPLINK).iter().map(|f| u16::from_be_bytes([open(f).1[34], open(f).1[35]])).collect();
    assert_eq!(ports, (0..64).filter(|n| n % 2 == 1).map(|n| 1000 + n).collect::<Vec<_>>());
    assert_eq!(lab.tables.counters.worker.encapsulated, 32 + 2, "these, and one of each VM before");
}

#[test]
fn r23_what_a_vm_may_not_get_does_not_reach_it_by_any_way() {
    let mut lab = Lab::new();
    let deny = rule(Verdict::Deny, Direction::In, Some(53));
    lab.policy(P1, &[deny], Verdict::Allow, Rate::UNLIMITED);
    let (bad, good) = ((53, 9), (54, 9));
    for (from, wrap) in [(P2, false), (UPLINK, true)] {
        let src = if wrap { R4 } else { M2 };
        let frame = |ports| {
            let inner = udp(src, M1, ports);
            if wrap { vxlan().frame(&inner) } else { inner }
        };
        dropped(&mut lab, from, &frame(bad), DropReason::PolicyDenied);
        lab.one(from, &frame(good));
        assert_eq!(lab.to(P1), [udp(src, M1, good)]);
        lab.clear();
    }
    // A broadcast reaches those that may get it.
    lab.one(UPLINK, &vxlan().frame(&udp(R4, Mac::BROADCAST, bad)));
    assert_eq!((lab.to(P1).len(), lab.to(P2).len()), (0, 1));
    lab.clear();
    // What was held is looked at when it goes.
    lab.vm(M1, VmState::Expected { via: None, hold: limits(100, 2000) });
    lab.one(UPLINK, &vxlan().frame(&udp(R4, M1, bad)));
    lab.one(UPLINK, &vxlan().frame(&udp(R4, M1, good)));
    lab.vm(M1, VmState::Local { port: P1 });
    lab.settle();
    assert_eq!(lab.to(P1), [udp(R4, M1, good)]);
}

/// R23's acceptance test.
#[test]
fn r23_a_denied_flow_stays_denied_at_another_port_and_nothing_is_tunnelled() {
    let mut lab = Lab::new();
    let to_r4 = Rule { remote: Prefix::new(v4(2).into(), 32), ..rule(Verdict::Deny, Direction::Out, None) };
    lab.policy(P1, &[to_r4], Verdict::Allow, Rate::UNLIMITED);
    dropped(&mut lab, P1, &udp(M1, R4, (1, 2)), DropReason::PolicyDenied);
    // From P1 to another port of this NVE: control sets the policy there before the port opens.
    let p4 = PortIdx(4);
    lab.policy(p4, &[to_r4], Verdict::Allow, Rate::UNLIMITED);
    lab.access(p4, VN, M1, Admission::Activated);
    lab.access(P1, VN, M1, Admission::Closed);
    lab.vm(M1, VmState::Local { port: p4 });
    dropped(&mut lab, p4, &udp(M1, R4, (1, 2)), DropReason::PolicyDenied);
    lab.one(P2, &udp(M2, M1, (1, 2)));
    lab.one(UPLINK, &vxlan().frame(&udp(R4, M1, (1, 2))));
    assert_eq!((lab.to(p4).len(), lab.to(UPLINK).len()), (2, 0), "no VXLAN");
}

#[test]
fn r23_a_policy_says_nothing_of_resolution() {
    let mut lab = Lab::new();
    lab.policy(P1, &[], Verdict::Deny, Rate::per_second(1, 1));
    lab.neighbor(v4(4), R4);
    for _ in 0..3 {
        lab.one(P1, &frames::padded(frames::arp_request(M1, v4(1), v4(4)), 60));
    }
    assert_eq!(lab.to(P1).len(), 3, "answered");
    dropped(&mut lab, P1, &udp(M1, R4, (1, 2)), DropReason::PolicyDenied);
    dropped(&mut lab, P2, &udp(M2, M1, (1, 2)), DropReason::PolicyDenied);
}

#[test]
fn r23_a_vm_sends_no_more_packets_than_its_policy_lets_it() {
    let mut lab = Lab::new();
    lab.policy(P1, &[], Verdict::Allow, Rate::per_second(1000, 10));
    lab.input(P1, &vec![udp(M1, R4, (1, 2)); 64]);
    assert_eq!((lab.to(UPLINK).len(), lab.drops(DropReason::PolicyRate)), (10, 54));
    lab.clear();
    lab.wait(ms(5));
    lab.input(P1, &vec![udp(M1, R4, (1, 2)); 64]);
    assert_eq!(lab.to(UPLINK).len(), 5);
    lab.clear();
    lab.policy(P1, &[], Verdict::Allow, Rate::UNLIMITED);
    lab.input(P1, &vec![udp(M1, R4, (1, 2)); 64]);
    assert_eq!(lab.to(UPLINK).len(), 64, "without a rate at once");
    lab.clear();
    lab.input(P2, &vec![udp(M2, M1, (1, 2)); 64]);
    assert_eq!(lab.to(P1).len(), 64, "what it gets is others' to send");
}

#[test]
fn r23_a_policy_changes_as_a_whole_and_ends_with_its_port() {
    let mut lab = Lab::new();
    let frame = udp(M1, R4, (1000, 25));
    lab.policy(P1, &[], Verdict::Deny, Rate::UNLIMITED);
    lab.apply(Update::PolicyRule { port: P1, at: 0, rule: rule(Verdict::Allow, Direction::Out, None) });
    dropped(&mut lab, P1, &frame, DropReason::PolicyDenied);
    let rate = Rate::UNLIMITED;
    lab.apply(Update::PolicySet { port: P1, rules: 1, default: Verdict::Deny, rate, dscp: None });
    lab.one(P1, &frame);
    assert_eq!(lab.to(UPLINK).len(), 1);
    lab.policy(P1, &[], Verdict::Deny, Rate::UNLIMITED);
    dropped(&mut lab, P1, &frame, DropReason::PolicyDenied);
    lab.apply(Update::PolicyClear { port: P1 });
    lab.clear();
    lab.one(P1, &frame);
    assert_eq!(lab.to(UPLINK).len(), 1);
    lab.policy(P1, &[], Verdict::Deny, Rate::UNLIMITED);
    lab.apply(Update::PortRemove { port: P1 });
    lab.access(P1, VN, M1, Admission::Activated);
    lab.one(P1, &frame);
    assert_eq!(lab.to(UPLINK).len(), 2, "the next VM at that port has its own");
}

#[test]
fn r23_what_waits_for_its_port_to_open_is_looked_at_then() {
    let mut lab = Lab::new();
    lab.access(P1, VN, M1, Admission::Associated);
    lab.one(P1, &udp(M1, R4, (1000, 25)));
    lab.one(P1, &udp(M1, R4, (1000, 26)));
    lab.policy(P1, &[rule(Verdict::Deny, Direction::Out, Some(25))], Verdict::Allow, Rate::UNLIMITED);
    lab.access(P1, VN, M1, Admission::Activated);
    lab.settle();
    assert_eq!((lab.to(UPLINK).len(), lab.drops(DropReason::PolicyDenied)), (1, 1));
}

#[test]
fn r23_the_trace_names_the_rule() {
    let mut lab = Lab::new();
    lab.policy(P1, &[rule(Verdict::Deny, Direction::Out, Some(25))], Verdict::Allow, Rate::UNLIMITED);
    lab.policy(P2, &[], Verdict::Deny, Rate::UNLIMITED);
    let says = |port, frame: &[u8]| {
        let trace = trace::trace(&lab.tables, port, frame, lab.now);
        let steps: Vec<String> = trace.steps().iter().map(|s| s.to_string()).collect();
        (trace.verdict(), steps.join("\n"))
    };
    let denied = trace::Ending::Drop(DropReason::PolicyDenied);
    let (verdict, steps) = says(P1, &udp(M1, R4, (1000, 25)));
    assert_eq!(verdict, denied);
    assert!(steps.contains("policy of port 1: deny, by the rule `deny out udp remote-port 25`"), "{steps}");
    let (verdict, steps) = says(UPLINK, &vxlan().frame(&udp(R4, M2, (1, 2))));
    assert_eq!(verdict, denied);
    assert!(steps.contains("policy of port 2: deny, by its default"), "{steps}");
}

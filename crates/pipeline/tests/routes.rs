//! R58: the fast path of routed frames, against frames that are rewritten by the plainest of means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::*;
use crate::properties::{Op, cases, op};
use godwit_tables::update::*;
use godwit_tables::vms::Fib;
use godwit_testkit::frames::{self, Vxlan};
use godwit_wire::{HashKey, Mac, Prefix, Vni, checksum, flow};
use proptest::prelude::*;

const GATEWAY: Mac = mac(0xffff);
const DOMAIN: DomainIdx = DomainIdx(5);
/// The VM of the other VN that routes lead to.
const FAR: Mac = mac(0x77);

/// An address in a subnet that is not the sender's.
fn far4(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, n)
}

fn far6(n: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, n)
}

fn through_other(tunnel: TunnelIdx) -> Target {
    Target { tunnel, vni: other_vni() }
}

/// A lab whose VN is joined with the other one, in this mode.
fn lab(routed_only: bool) -> Lab {
    let mut lab = Lab::new();
    let lengths = |some: &[u8]| core::array::from_fn(|i| some.get(i).copied().unwrap_or(NO_LENGTH));
    lab.apply(Update::DomainSet { domain: DOMAIN, v4: lengths(&[24, 16, 0]), v6: lengths(&[64]) });
    let routing = Some(VnRouting::new(DOMAIN, GATEWAY, routed_only));
    lab.apply(Update::VnRoutingSet { vn: VN, routing });
    lab
}

impl Lab {
    fn route(&mut self, prefix: &str, to: NextHop) {
        let prefix = prefix.parse().expect("a prefix");
        self.apply(Update::RouteSet { domain: DOMAIN, prefix, to });
    }

    fn host(&mut self, ip: impl Into<IpAddr>, vm: Key) {
        let prefix = Prefix::host(ip.into());
        self.apply(Update::RouteSet { domain: DOMAIN, prefix, to: NextHop::Vm(vm) });
    }

    fn far(&mut self, state: VmState) {
        self.apply(Update::VmSet { key: far(), state });
    }
}

fn far() -> Key {
    Key::new(OTHER_VN, FAR)
}

/// A UDP frame of the first VM with this TTL.
fn sent(dst: Mac, to: impl Into<IpAddr>, ttl: u8, len: usize) -> Vec<u8> {
    let to = to.into();
    let from = if to.is_ipv4() { v4(1).into() } else { v6(1).into() };
    let mut f = frames::udp_frame((M1, from, 1000), (dst, to, 2000), &vec![7; len]);
    set_ttl(&mut f, ttl);
    f
}

/// Writes a TTL, and the header's checksum anew.
fn set_ttl(f: &mut [u8], ttl: u8) {
    if f[12..14] == [0x86, 0xdd] {
        f[21] = ttl;
        return;
    }
    f[22] = ttl;
    f[24..26].fill(0);
    let sum = checksum::checksum(&f[14..34]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The same frame as a router sends it on.
fn routed(f: &[u8], dst: Mac) -> Vec<u8> {
    let mut f = f.to_vec();
    let ttl = if f[12..14] == [0x86, 0xdd] { f[21] } else { f[22] };
    f[..6].copy_from_slice(&dst.0);
    f[6..12].copy_from_slice(&GATEWAY.0);
    set_ttl(&mut f, ttl - 1);
    f
}

/// And with a header to another NVE.
fn outer(inner: &[u8], remote: IpAddr, vni: Vni) -> Vec<u8> {
    let own = if remote.is_ipv4() { LOC4.into() } else { LOC6.into() };
    let hash = flow::flow_hash(inner, &HashKey::new(0, 0));
    let mut x = Vxlan::new((UP_MAC, HOP_MAC), (own, remote), vni);
    (x.ports, x.label) = ((hash.src_port(), 4789), hash.flow_label());
    x.frame(inner)
}

#[test]
fn r58_a_frame_to_the_gateway_goes_to_the_owner_of_its_address_with_the_owners_vni() {
    for (tunnel, remote) in [(T4, IpAddr::from(NVE_B)), (T6, NVE_B6.into())] {
        for to in [IpAddr::from(far4(9)), far6(9).into()] {
            let mut lab = lab(false);
            lab.host(to, far());
            lab.far(VmState::Remote { to: through_other(tunnel) });
            let frame = sent(GATEWAY, to, 64, 100);
            lab.one(P1, &frame);
            assert_eq!(lab.only(), (UPLINK, &outer(&routed(&frame, FAR), remote, other_vni())[..]), "{to}");
            assert_eq!(lab.tables.counters.worker.encapsulated, 1);
        }
    }
}

#[test]
fn r58_a_frame_to_a_vm_at_a_port_here_is_rewritten_and_delivered() {
    for to in [IpAddr::from(far4(9)), far6(9).into()] {
        let mut lab = lab(false);
        lab.host(to, Key::new(OTHER_VN, M1));
        let frame = sent(GATEWAY, to, 2, 0);
        lab.one(P1, &frame);
        assert_eq!(lab.only(), (P3, &routed(&frame, M1)[..]), "{to}");
    }
}

#[test]
fn r58_beside_the_gateway_a_bridge_stays_a_bridge() {
    let mut lab = lab(false);
    lab.host(v4(2), far());
    lab.far(VmState::Remote { to: through_other(T4) });
    let (near, remote) = (numbered(M1, M2, 1), numbered(M1, R4, 2));
    lab.input(P1, &[near.clone(), remote.clone()]);
    assert_eq!(lab.to(P2), [&near[..]]);
    assert_eq!(lab.to(UPLINK), [&golden(&remote, NVE_B.into(), 0)[..]]);
}

#[test]
fn r58_where_nothing_is_bridged_every_single_mac_is_the_gateways() {
    let mut lab = lab(true);
    lab.host(v4(2), far());
    lab.far(VmState::Remote { to: through_other(T4) });
    for dst in [GATEWAY, M2, R4, STRANGER] {
        lab.clear();
        let frame = sent(dst, v4(2), 64, 10);
        lab.one(P1, &frame);
        assert_eq!(lab.only(), (UPLINK, &outer(&routed(&frame, FAR), NVE_B.into(), other_vni())[..]));
    }
}

#[test]
fn r58_one_burst_is_bridged_and_routed_in_its_order() {
    let mut lab = lab(false);
    lab.host(far4(9), far());
    lab.host(far6(9), far());
    lab.far(VmState::Remote { to: through_other(T4) });
    let burst: Vec<_> = (0..30_usize)
        .map(|n| match n % 3 {
            0 => sent(GATEWAY, far4(9), 64, n),
            1 => sent(R4, v4(4), 64, n),
            _ => sent(GATEWAY, far6(9), 9, n),
        })
        .collect();
    lab.input(P1, &burst);
    let expected: Vec<_> = burst
        .iter()
        .enumerate()
        .map(|(n, f)| match n % 3 {
            1 => golden(f, NVE_B.into(), 0),
            _ => outer(&routed(f, FAR), NVE_B.into(), other_vni()),
        })
        .collect();
    assert_eq!(lab.to(UPLINK), expected);
}

#[test]
fn r58_the_longest_prefix_counts_and_the_host_route_before_all() {
    let mut lab = lab(false);
    let hops = [mac(0x70), mac(0x71), mac(0x72), mac(0x73)];
    for hop in hops {
        lab.vm(hop, VmState::Remote { to: through(T4) });
    }
    lab.route("0.0.0.0/0", NextHop::Vm(key(hops[0])));
    lab.route("10.9.0.0/16", NextHop::Vm(key(hops[1])));
    lab.route("10.9.1.0/24", NextHop::Vm(key(hops[2])));
    lab.host(Ipv4Addr::new(10, 9, 1, 1), key(hops[3]));
    lab.route("fd00:9::/64", NextHop::Vm(key(hops[1])));
    for (to, hop) in [
        ("10.9.1.1", Some(3)),
        ("10.9.1.2", Some(2)),
        ("10.9.2.1", Some(1)),
        ("192.0.2.1", Some(0)),
        ("fd00:9::5", Some(1)),
        ("fd00:9:0:1::5", None),
        // A default route is none for martians (RFC 1812 section 5.3.7).
        ("127.0.0.1", None),
        ("169.254.1.1", None),
        ("224.0.0.1", None),
        ("255.255.255.255", None),
    ] {
        lab.clear();
        let frame = sent(GATEWAY, to.parse::<IpAddr>().expect("an address"), 64, 10);
        lab.one(P1, &frame);
        let expected = hop.map(|n| outer(&routed(&frame, hops[n]), NVE_B.into(), vni()));
        assert_eq!(lab.to(UPLINK).first().copied(), expected.as_deref(), "{to}");
    }
}

#[test]
fn r58_what_must_not_go_on_does_not() {
    let mut lab = lab(false);
    lab.host(far4(9), far());
    lab.host(far6(9), far());
    lab.far(VmState::Remote { to: through_other(T4) });
    lab.host(far4(1), Key::new(VN, M1));
    lab.route("10.9.5.0/24", NextHop::Subnet { vn: OTHER_VN, ask: false });
    lab.route("10.9.6.1", NextHop::Gateway(VN));
    lab.route("10.9.7.7", NextHop::Vm(Key::new(OTHER_VN, STRANGER)));
    let mut martian = sent(GATEWAY, far4(9), 64, 10);
    martian[26..30].fill(0xff);
    let mut options = sent(GATEWAY, far4(9), 64, 100);
    options[14] = 0x46;
    for frame in [
        sent(GATEWAY, far4(9), 0, 10),
        sent(GATEWAY, far4(9), 1, 10),
        sent(GATEWAY, far6(9), 1, 10),
        sent(GATEWAY, far4(1), 64, 10),
        sent(GATEWAY, Ipv4Addr::new(10, 9, 5, 5), 64, 10),
        sent(GATEWAY, Ipv4Addr::new(10, 9, 6, 1), 64, 10),
        sent(GATEWAY, Ipv4Addr::new(10, 9, 7, 7), 64, 10),
        sent(GATEWAY, far4(9), 64, 1700),
        martian,
        options,
    ] {
        lab.one(P1, &frame);
        assert!(lab.to(UPLINK).is_empty() && lab.to(P3).is_empty(), "{frame:02x?}");
    }
}

/// A routed frame never passes by those that its VM's entry holds, nor does it end a pause.
#[test]
fn r45_r58_a_paused_vm_gets_nothing_and_a_vm_that_moved_is_sent_to_where_it_is() {
    let mut lab = lab(false);
    lab.host(far4(9), far());
    let frame = sent(GATEWAY, far4(9), 64, 10);
    let until = lab.now + ms(1000);
    for (state, remote) in [
        (VmState::Local { port: P3 }, None),
        (VmState::Paused { hold: limits(10, 1000) }, None),
        (VmState::Departed { to: through_other(T6), until }, None),
        (VmState::Remote { to: through_other(T4) }, Some(IpAddr::from(NVE_B))),
        (VmState::Absent { until }, None),
    ] {
        lab.far(state);
        lab.settle();
        lab.clear();
        let by_word = matches!(lab.tables.vms.get(far()), Some(Fib::Local(_) | Fib::Remote(_)));
        lab.one(P1, &frame);
        if by_word {
            let expected = match remote {
                Some(remote) => (UPLINK, outer(&routed(&frame, FAR), remote, other_vni())),
                None => (P3, routed(&frame, FAR)),
            };
            assert_eq!(lab.only(), (expected.0, &expected.1[..]), "{state:?}");
        } else {
            assert!(!matches!(state, VmState::Remote { .. } | VmState::Local { .. }));
            assert!(lab.to(P3).is_empty(), "{state:?}");
        }
    }
}

#[test]
fn r65_r58_a_routed_frame_from_an_address_that_is_not_its_senders_goes_nowhere() {
    let mut lab = lab(false);
    lab.host(far4(9), far());
    lab.far(VmState::Remote { to: through_other(T4) });
    let bound = SourceRule::Listed { room: 0 };
    lab.apply(Update::SourceRulesSet {
        port: P1,
        rules: SourceRules { v4: bound, v6: bound, link_local: bound },
    });
    lab.apply(Update::SourceSet { port: P1, ip: v4(1).into() });
    let mut foreign = sent(GATEWAY, far4(9), 64, 10);
    foreign[29] = 77;
    dropped(&mut lab, P1, &foreign, godwit_tables::DropReason::SpoofedSource);
    lab.one(P1, &sent(GATEWAY, far4(9), 64, 10));
    assert_eq!(lab.to(UPLINK).len(), 1);
}

/// Where a frame to the gateway goes by what tables say, if nothing of its VM but its place is to be known.
fn by_tables(lab: &Lab, frame: &[u8], to: IpAddr) -> Option<(PortIdx, Vec<u8>)> {
    let NextHop::Vm(vm) = lab.tables.routes.get(DOMAIN, to)? else { return None };
    let inner = routed(frame, vm.mac());
    match lab.tables.vms.get(vm)? {
        Fib::Local(port) if port != P1 => lab.tables.ports.serves(port, vm.vn()).then_some((port, inner)),
        Fib::Remote(target) => {
            let hash = flow::flow_hash(&inner, &lab.tables.hash_key);
            let (_, tunnel) = lab.tables.tunnels.for_frame(target.tunnel, to.is_ipv4(), hash)?;
            let header = tunnel.header.as_ref()?;
            (inner.len() <= usize::from(tunnel.inner_max))
                .then(|| (tunnel.uplink, written(header, &inner, target.vni, hash)))
        }
        _ => None,
    }
}

fn written(header: &godwit_wire::OuterHeader, inner: &[u8], vni: Vni, hash: flow::FlowHash) -> Vec<u8> {
    let mut bytes = vec![0; header.len()];
    let class = godwit_wire::Ecn::NotEct.into();
    header.write(&mut bytes, inner.len(), 64, godwit_wire::outer::Patch { vni, hash, class });
    bytes.extend(inner);
    bytes
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn r58_the_fast_path_does_what_the_tables_say_after_any_history(
        ops in proptest::collection::vec(op(), 0..25),
        frames in proptest::collection::vec((0u8..8, any::<bool>(), 2u8.., 0usize..1700), 1..10),
    ) {
        let mut lab = lab(false);
        let macs = [M1, M2, R4, R6, STRANGER, FAR];
        for (n, m) in macs.iter().enumerate() {
            let vn = if n % 2 == 0 { VN } else { OTHER_VN };
            lab.host(far4(n as u8), Key::new(vn, *m));
            lab.host(far6(n as u16), Key::new(vn, *m));
        }
        lab.far(VmState::Remote { to: through_other(T6) });
        lab.route("10.9.0.0/24", NextHop::Vm(key(R4)));
        // What the sender may send from is other tests', and so is what the domain has.
        for op in ops.into_iter().filter(|op| !matches!(op, Op::Other(34..42 | 46..56, ..))) {
            lab.run(op);
        }
        for (n, six, ttl, len) in frames {
            lab.settle();
            let to: IpAddr = if six { far6(n.into()).into() } else { far4(n).into() };
            let frame = sent(GATEWAY, to, ttl, len);
            let Some(expected) = by_tables(&lab, &frame, to) else { continue };
            let opens = matches!(lab.tables.ports.role(P1),
                Some(PortRole::Access { vn: VN, mac: M1, admission: Admission::Activated }));
            let plain = opens && lab.tables.routes.of_vn(VN).is_some() && !lab.tables.ports.is_filtered(P1);
            if !plain {
                continue;
            }
            lab.clear();
            lab.one(P1, &frame);
            let seen: Vec<_> = lab.out.sent.iter().map(|(port, p)| (*port, p.bytes())).collect();
            prop_assert_eq!(seen, [expected]);
        }
    }
}

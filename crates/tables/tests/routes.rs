//! Routes under any orders: against plain maps, and against what the forwarding table says of the VMs they lead to.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::common::*;
use godwit_tables::event::Event;
use godwit_tables::routes::Found;
use godwit_tables::update::*;
use godwit_tables::vms::Fib;
use godwit_tables::{Tables, TablesConfig};
use godwit_wire::{Prefix, route};
use proptest::prelude::*;

/// The lengths of each family that there are prefixes of.
const V4: [u8; 5] = [0, 8, 16, 24, 31];
const V6: [u8; 5] = [0, 32, 64, 127, 1];

/// What a lookup must find, by the plainest of means.
#[derive(Default)]
struct Naive {
    lengths: HashMap<DomainIdx, (Lengths, Lengths)>,
    routes: HashMap<(DomainIdx, Prefix), NextHop>,
}

impl Naive {
    fn get(&self, domain: DomainIdx, dst: IpAddr) -> Option<NextHop> {
        if let Some(to) = self.routes.get(&(domain, Prefix::host(dst))) {
            return Some(*to);
        }
        let (v4, v6) = self.lengths.get(&domain)?;
        let lengths = if dst.is_ipv4() { v4 } else { v6 };
        let known = lengths.iter().take_while(|len| **len != NO_LENGTH);
        known.filter_map(|len| self.routes.get(&(domain, Prefix::of(dst, *len)))).next().copied()
    }

    fn has_room(&self, domain: DomainIdx, prefix: Prefix, capacity: usize) -> bool {
        self.routes.len() < capacity || self.routes.contains_key(&(domain, prefix))
    }
}

/// What a burst finds: by the host route alone where no prefix leads to a VM, and else where it aims.
fn found(t: &Tables, domain: DomainIdx, ip: IpAddr) -> Option<Found> {
    let routes = t.routes.in_domain(domain);
    let tries = routes.has_prefixes().then(|| routes.tries());
    match ip {
        IpAddr::V4(ip) => {
            let (home, ip) = (routes.home_v4(ip.to_bits()), ip.to_bits());
            let Some(tries) = tries else { return routes.host_v4(home, ip) };
            let (step, home) = routes.aim_v4(&tries, home, ip)?;
            routes.find_v4(step, home, ip)
        }
        IpAddr::V6(ip) => {
            let (home, ip) = (routes.home_v6(ip.to_bits()), ip.to_bits());
            let Some(tries) = tries else { return routes.host_v6(home, ip) };
            let (step, home) = routes.aim_v6(&tries, home, ip)?;
            routes.find_v6(step, home, ip)
        }
    }
}

/// A burst finds what `get` finds, and of a VM what the forwarding table says. What leads to no VM it need not find.
fn check(t: &Tables, domain: DomainIdx, ip: IpAddr, expected: Option<NextHop>) {
    assert_eq!(t.routes.get(domain, ip), expected);
    let exact = t.routes.exact(domain, Prefix::host(ip));
    let found = found(t, domain, ip);
    if route::is_martian(ip) && exact.is_none() {
        return assert_eq!(found, None, "{ip}");
    }
    let Some(NextHop::Vm(vm)) = expected else {
        let to = found.map(|f| (f.remote(), f.local()));
        return assert!(to.is_none_or(|to| to == (None, None)), "{ip}: {expected:?}, {to:?}");
    };
    let found = found.unwrap_or_else(|| panic!("{ip}: no {expected:?}"));
    assert_eq!(found.mac(), vm.mac().to_u64());
    let (remote, local) = match t.vms.get(vm) {
        Some(Fib::Remote(to)) => (Some(to), None),
        Some(Fib::Local(port)) => (None, Some((vm.vn(), port))),
        _ => (None, None),
    };
    assert_eq!((found.remote(), found.local()), (remote, local), "{vm:?}: {:?}", t.vms.get(vm));
}

#[derive(Clone, Debug)]
enum Op {
    Domain(u16, Vec<usize>),
    Forget(u16),
    Set(u16, Prefix, NextHop),
    Remove(u16, Prefix),
    Vm(Key, Option<VmState>),
    VnRemove(VnIdx),
}

/// Few addresses, so that prefixes overlap: with and without bits that are set, martians too.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = proptest::sample::select(
        &[0u32, 0x0a00_0001, 0x0a00_0002, 0x0a00_0101, 0x0a01_0001, 0xa9fe_0101][..],
    );
    let v6 =
        proptest::sample::select(&[0u128, 1, 0xfd00 << 112 | 1, 0xfd00 << 112 | 2, 0xfe80 << 112 | 1][..]);
    prop_oneof![
        v4.prop_map(|ip| Ipv4Addr::from_bits(ip).into()),
        v6.prop_map(|ip| Ipv6Addr::from_bits(ip).into()),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0usize..7).prop_map(|(ip, len)| match ip {
        IpAddr::V4(_) => Prefix::of(ip, V4.get(len).copied().unwrap_or(32)),
        IpAddr::V6(_) => Prefix::of(ip, V6.get(len).copied().unwrap_or(128)),
    })
}

fn vm() -> impl Strategy<Value = Key> {
    (1u16..3, 10u64..14).prop_map(|(vn, n)| Key::new(VnIdx(vn), mac(n)))
}

fn next_hop() -> impl Strategy<Value = NextHop> {
    prop_oneof![
        6 => vm().prop_map(NextHop::Vm),
        1 => any::<bool>().prop_map(|ask| NextHop::Subnet { vn: OTHER_VN, ask }),
        1 => Just(NextHop::Gateway(VN)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let (domain, lengths) = (0u16..2, proptest::sample::subsequence(vec![0, 1, 2, 3, 4], 0..5));
    let states = [
        VmState::Remote { to: to(READY) },
        VmState::Remote { to: Target { tunnel: PENDING, vni: vni(0x00ff_ffff) } },
        VmState::Ageing { to: to(READY) },
        VmState::Local { port: P2 },
        VmState::Paused { hold: limits(2) },
        VmState::Absent { until: NOW + ms(100) },
    ];
    let state = proptest::option::of(proptest::sample::select(states.to_vec()));
    prop_oneof![
        2 => (domain.clone(), lengths).prop_map(|(d, lengths)| Op::Domain(d, lengths)),
        1 => domain.clone().prop_map(Op::Forget),
        12 => (domain.clone(), prefix(), next_hop()).prop_map(|(d, p, to)| Op::Set(d, p, to)),
        4 => (domain, prefix()).prop_map(|(d, p)| Op::Remove(d, p)),
        8 => (vm(), state).prop_map(|(key, state)| Op::Vm(key, state)),
        1 => proptest::sample::select(&[VN, OTHER_VN][..]).prop_map(Op::VnRemove),
    ]
}

/// Some of the lengths, longest first.
fn lengths(of: &[u8], some: &[usize]) -> Lengths {
    let mut known: Vec<_> = some.iter().map(|i| of[*i]).collect();
    known.sort_unstable_by(|a, b| b.cmp(a));
    core::array::from_fn(|i| known.get(i).copied().unwrap_or(NO_LENGTH))
}

proptest! {
    #[test]
    fn r58_a_lookup_finds_what_was_set_and_a_vm_where_it_is(
        ops in proptest::collection::vec(op(), 0..120),
        addresses in proptest::collection::vec(address(), 20),
        seed in any::<[u64; 2]>(),
        capacity in 1usize..40,
    ) {
        let config = TablesConfig { route_capacity: capacity, table_seed: seed, ..config() };
        let (mut t, mut naive) = (tables_of(&config), Naive::default());
        for op in ops {
            let refused = t.counters.worker.table_full;
            let mut fits = true;
            let update = match op {
                Op::Domain(d, some) => {
                    let (v4, v6) = (lengths(&V4, &some), lengths(&V6, &some));
                    naive.lengths.insert(DomainIdx(d), (v4, v6));
                    Update::DomainSet { domain: DomainIdx(d), v4, v6 }
                }
                Op::Forget(d) => {
                    naive.lengths.remove(&DomainIdx(d));
                    Update::DomainRemove { domain: DomainIdx(d) }
                }
                Op::Set(d, prefix, to) => {
                    fits = naive.has_room(DomainIdx(d), prefix, capacity);
                    if fits {
                        naive.routes.insert((DomainIdx(d), prefix), to);
                    }
                    Update::RouteSet { domain: DomainIdx(d), prefix, to }
                }
                Op::Remove(d, prefix) => {
                    naive.routes.remove(&(DomainIdx(d), prefix));
                    Update::RouteRemove { domain: DomainIdx(d), prefix }
                }
                Op::Vm(key, Some(state)) => Update::VmSet { key, state },
                Op::Vm(key, None) => Update::VmRemove { key },
                Op::VnRemove(vn) => Update::VnRemove { vn },
            };
            let event = t.apply(update, NOW);
            let said = |e| match e {
                Event::Handover { .. } => true,
                Event::TableFull { .. } => !fits,
                _ => false,
            };
            prop_assert!(event.is_none_or(said), "{:?}", event);
            prop_assert_eq!(t.counters.worker.table_full, refused + u64::from(!fits));
            prop_assert_eq!(t.routes.len(), naive.routes.len());
            for &ip in &addresses {
                for d in [DomainIdx(0), DomainIdx(1)] {
                    check(&t, d, ip, naive.get(d, ip));
                }
            }
        }
    }
}

/// Fillers so many that half of all prefixes which are not there have a bit in the filter.
#[test]
fn r58_the_shorter_prefix_is_found_where_the_filter_is_wrong() {
    const FILLERS: u32 = 400_000;
    let config = TablesConfig { route_capacity: 1 << 19, ..config() };
    let (mut t, mut naive, domain) = (tables_of(&config), Naive::default(), DomainIdx(1));
    let (v4, v6) = (lengths(&V4, &[0, 2, 3, 4]), lengths(&V6, &[0, 1, 2, 3]));
    let route = |prefix, to| Update::RouteSet { domain, prefix, to };
    let mut set = |prefix: Prefix, to| {
        naive.routes.insert((domain, prefix), to);
        assert_eq!(t.apply(route(prefix, to), NOW), None);
    };
    set("0.0.0.0/0".parse().expect("a prefix"), NextHop::Vm(key(10)));
    set("::/0".parse().expect("a prefix"), NextHop::Vm(key(11)));
    for n in 0..250 {
        set(Prefix::of(Ipv4Addr::from_bits(20 << 24 | n << 16).into(), 16), NextHop::Vm(key(12)));
        set(
            Prefix::of(Ipv6Addr::from_bits(u128::from(0xfd00_0000 + n) << 96).into(), 32),
            NextHop::Vm(key(13)),
        );
        set(Prefix::of(Ipv4Addr::from_bits(20 << 24 | n << 16).into(), 24), NextHop::Gateway(VN));
    }
    for n in 0..FILLERS {
        let prefix = Prefix::of(Ipv4Addr::from_bits(30 << 24 | n << 8).into(), 24);
        assert_eq!(t.apply(route(prefix, NextHop::Vm(key(14))), NOW), None);
    }
    naive.lengths.insert(domain, (v4, v6));
    assert_eq!(t.apply(Update::DomainSet { domain, v4, v6 }, NOW), None);
    for vm in 10..15 {
        let state = VmState::Remote { to: to(READY) };
        assert_eq!(t.apply(Update::VmSet { key: key(vm), state }, NOW), None);
    }
    for n in 0..2_000 {
        let v4 = Ipv4Addr::from_bits(20 << 24 | n << 13 | 9).into();
        let v6 = Ipv6Addr::from_bits(u128::from(0xfd00_0000 + n / 4) << 96 | u128::from(n)).into();
        check(&t, domain, v4, naive.get(domain, v4));
        check(&t, domain, v6, naive.get(domain, v6));
    }
}

#[test]
fn r58_what_is_out_of_range_is_refused_and_counted() {
    let mut t = tables();
    let (domain, prefix) = (DomainIdx(0), Prefix::host(v4(1)));
    let routing = VnRouting {
        domain,
        mac: mac(0xf),
        routed_only: false,
        dhcp_v4: false,
        dhcp_v6: false,
        advertise: false,
    };
    let none = [NO_LENGTH; MAX_LENGTHS];
    for (n, update) in [
        Update::RouteSet { domain, prefix, to: NextHop::Vm(Key(0)) },
        Update::RouteSet { domain, prefix, to: NextHop::Vm(Key::new(VnIdx(4), mac(1))) },
        Update::VnRoutingSet { vn: VnIdx(4), routing: Some(routing) },
        Update::DomainSet { domain: DomainIdx(u16::MAX), v4: none, v6: none },
    ]
    .into_iter()
    .enumerate()
    {
        // Of a VM that has no route control is told by name.
        let vm = if let Update::RouteSet { to: NextHop::Vm(vm), .. } = update { Some(vm) } else { None };
        assert_eq!(t.apply(update, NOW), vm.map(|key| Event::TableFull { key }));
        assert_eq!(t.counters.worker.table_full, n as u64 + 1);
    }
    assert!(t.routes.is_empty());
    assert_eq!((t.routes.of_vn(VnIdx(4)), t.routes.get(DomainIdx(u16::MAX), v4(1))), (None, None));
}

#[test]
fn r58_a_route_waits_while_its_vm_is_asked_for_and_while_frames_for_it_wait() {
    let (mut t, domain, vm) = (tables(), DomainIdx(3), key(10));
    let prefix = Prefix::host(v4(10));
    assert_eq!(t.apply(Update::RouteSet { domain, prefix, to: NextHop::Vm(vm) }, NOW), None);
    let remote = |t: &Tables| found(t, domain, v4(10)).expect("a route").remote();
    let at = t.begin_query(vm, P1, NOW).expect("room");
    assert_eq!(remote(&t), None);
    assert_eq!(t.hold(at, &[1; 60], about(godwit_tables::holds::Origin::Local, NOW)), Ok(()));
    assert_eq!(t.apply(Update::VmSet { key: vm, state: VmState::Remote { to: to(READY) } }, NOW), None);
    assert_eq!(remote(&t), None, "the frame that waits goes first");
    let (gone, _) = tick(&mut t, NOW);
    assert_eq!((gone.len(), remote(&t)), (1, Some(to(READY))));
    // Its life nears its end, and it is used.
    assert_eq!(t.apply(Update::VmSet { key: vm, state: VmState::Ageing { to: to(READY) } }, NOW), None);
    assert_eq!(remote(&t), None);
    t.used(vm, to(READY));
    assert_eq!(remote(&t), Some(to(READY)));
    // A tunnel that is not ready holds frames in an entry of its own.
    t.await_tunnel(vm, to(PENDING)).expect("room");
    assert_eq!(remote(&t), None);
    assert_eq!(t.apply(Update::VmRemove { key: vm }, NOW), None);
    assert_eq!((remote(&t), t.routes.get(domain, v4(10))), (None, Some(NextHop::Vm(vm))));
}

//! Random values of what messages are made of.

use super::*;

pub fn name() -> impl Strategy<Value = String> {
    (any::<u32>(), 0..4usize).prop_map(|(n, pad)| format!("n{n:x}{}", &"_.-"[..pad]))
}

pub fn nve() -> impl Strategy<Value = NveId> {
    name().prop_map(|n| NveId::new(n).unwrap())
}

pub fn vni() -> impl Strategy<Value = Vni> {
    (0..=Vni::MAX).prop_map(Vni::from_low24)
}

pub fn key() -> impl Strategy<Value = VmKey> {
    (vni(), any::<[u8; 6]>()).prop_map(|(vni, mac)| VmKey { vni, mac: Mac(mac) })
}

pub fn version() -> impl Strategy<Value = Version> {
    (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Version { epoch, seq })
}

pub fn locators() -> impl Strategy<Value = Locators> {
    (of(any::<[u8; 4]>()), of(any::<[u8; 16]>())).prop_map(|(v4, v6)| {
        let v4 = if v6.is_none() { v4.or(Some([0, 0, 0, 0])) } else { v4 };
        Locators { v4: v4.map(Into::into), v6: v6.map(Into::into) }
    })
}

pub fn location() -> impl Strategy<Value = Location> {
    (nve(), locators()).prop_map(|(nve, locators)| Location { nve, locators })
}

pub fn move_id() -> impl Strategy<Value = MoveId> {
    any::<u64>().prop_map(|n| MoveId(format!("manager/{n}")))
}

pub fn ips4() -> impl Strategy<Value = Vec<Ipv4Addr>> {
    btree_set(any::<[u8; 4]>().prop_map(Ipv4Addr::from), 0..3).prop_map(|s| s.into_iter().collect())
}

pub fn ips6() -> impl Strategy<Value = Vec<Ipv6Addr>> {
    btree_set(any::<[u8; 16]>().prop_map(Ipv6Addr::from), 0..3).prop_map(|s| s.into_iter().collect())
}

pub fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

pub fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| IpAddr::V4(a.into())),
        any::<[u8; 16]>().prop_map(|a| IpAddr::V6(a.into())),
    ]
}

pub fn learning() -> impl Strategy<Value = LearningOf> {
    let one =
        || of((0..=LEARNED_MAX).prop_map(|n| if n == 0 { Learning::Recorded } else { Learning::Learned(n) }));
    (one(), one()).prop_map(|(v4, v6)| LearningOf { v4, v6 })
}

pub fn macs() -> impl Strategy<Value = Vec<Mac>> {
    btree_set(mac(), 0..3).prop_map(|s| s.into_iter().collect())
}

pub fn prefix() -> impl Strategy<Value = Prefix> {
    (ip(), any::<u8>()).prop_map(|(ip, len)| {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let clear = u32::from(bits - len % (bits + 1));
        let ip = match ip {
            IpAddr::V4(a) => {
                Ipv4Addr::from_bits(u32::MAX.checked_shl(clear).unwrap_or(0) & a.to_bits()).into()
            }
            IpAddr::V6(a) => {
                Ipv6Addr::from_bits(u128::MAX.checked_shl(clear).unwrap_or(0) & a.to_bits()).into()
            }
        };
        Prefix::new(ip, len % (bits + 1)).unwrap()
    })
}

pub fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    btree_set(prefix(), 0..3).prop_map(|s| s.into_iter().collect())
}

pub fn routing() -> impl Strategy<Value = VnRouting> {
    let advertise = (any::<bool>(), any::<bool>(), any::<u16>())
        .prop_map(|(managed, other, lifetime_s)| Advertise { managed, other, lifetime_s });
    let dhcp = (any::<u32>(), vec(ip(), 0..3)).prop_map(|(lease_s, dns)| Dhcp { lease_s, dns });
    let subnet = (prefix(), ip(), of(advertise), of(dhcp))
        .prop_map(|(prefix, gateway, advertise, dhcp)| Subnet { prefix, gateway, advertise, dhcp });
    (any::<u32>(), any::<bool>(), vec(subnet, 0..3)).prop_map(|(id, routed_only, subnets)| VnRouting {
        domain: DomainId(id),
        routed_only,
        subnets,
    })
}

pub fn multicast() -> impl Strategy<Value = Multicast> {
    select([Multicast::Flood, Multicast::Snoop, Multicast::Off].to_vec())
}

/// Sorted, without doubles.
pub fn groups() -> impl Strategy<Value = (Vni, bool, Vec<IpAddr>, Vec<IpAddr>)> {
    let ips = || btree_set(ip(), 0..4).prop_map(|s| s.into_iter().collect());
    (vni(), any::<bool>(), ips(), ips())
}

pub fn underlay_group() -> impl Strategy<Value = UnderlayGroup> {
    (of(any::<[u8; 4]>()), of(any::<[u8; 16]>()))
        .prop_map(|(v4, v6)| UnderlayGroup { v4: v4.map(Into::into), v6: v6.map(Into::into) })
}

pub fn domain() -> impl Strategy<Value = Domain> {
    (any::<u32>(), name(), mac(), vec(vni(), 0..3)).prop_map(|(id, name, gateway_mac, vns)| Domain {
        id: DomainId(id),
        name,
        gateway_mac,
        vns,
    })
}

pub fn domain_routes() -> impl Strategy<Value = NvaToNve> {
    let route = (prefix(), key()).prop_map(|(prefix, via)| StaticRoute { prefix, via });
    (any::<u32>(), vec(route, 0..3), vec(prefix(), 0..3))
        .prop_map(|(id, routes, gone)| NvaToNve::DomainRoutes { id: DomainId(id), routes, gone })
}

pub fn allowed() -> impl Strategy<Value = Allowed> {
    (learning(), prefixes(), macs(), prefixes(), macs()).prop_map(
        |(learning, virtual_ips, virtual_macs, routes, nested)| Allowed {
            learning,
            virtual_ips,
            virtual_macs,
            routes,
            nested,
        },
    )
}

pub fn bound() -> impl Strategy<Value = Bound> {
    let one = (ip(), mac(), any::<bool>()).prop_map(|(ip, mac, is_virtual)| BoundIp { ip, mac, is_virtual });
    (btree_set(one, 0..4), macs()).prop_map(|(ips, macs)| Bound { ips: ips.into_iter().collect(), macs })
}

pub fn bindings() -> impl Strategy<Value = Bindings> {
    (of(location()), of(location())).prop_map(|(active, pending)| {
        let mut all = Bindings::from(active);
        all.set_pending(pending);
        all
    })
}

pub fn mirror() -> impl Strategy<Value = Mirror> {
    (nve(), any::<u32>(), any::<u64>()).prop_map(|(nve, interval_s, mirrored_us)| Mirror {
        nve,
        interval_s,
        mirrored_us,
    })
}

pub fn pause() -> impl Strategy<Value = ConnectionPause> {
    let treatment = select(vec![WhilePaused::Hold, WhilePaused::Drop]);
    let end = (select(vec![PauseEnd::Resumed, PauseEnd::TimedOut]), any::<u64>());
    (treatment, any::<u64>(), any::<u32>(), of(end)).prop_map(|(treatment, since_us, limit_s, ended)| {
        ConnectionPause { treatment, since_us, limit_s, ended }
    })
}

pub fn record() -> impl Strategy<Value = VmRecord> {
    let flags =
        (any::<bool>(), any::<bool>(), any::<bool>(), of(move_id()), any::<bool>(), of(name()), ips6());
    (
        name(),
        key(),
        ips4(),
        ips6(),
        bindings(),
        version(),
        flags,
        (allowed(), bound(), of(mirror()), of(pause()), of((nve(), version()))),
    )
        .prop_map(
            |(
                name,
                key,
                ipv4,
                ipv6,
                bindings,
                version,
                (router, router_pinned, pinned, moving, frozen, policy, no_override),
                (allowed, bound, standby, pause, former),
            )| {
                VmRecord {
                    name,
                    key,
                    ipv4,
                    ipv6,
                    bindings,
                    version,
                    router,
                    router_pinned,
                    pinned,
                    moving,
                    frozen,
                    policy,
                    no_override,
                    allowed,
                    bound,
                    standby,
                    pause,
                    former,
                }
            },
        )
}

pub fn policy() -> impl Strategy<Value = Policy> {
    let rules = [
        "allow in",
        "deny out tcp 10.0.0.0/8 port 1-9",
        "deny in udp 2001:db8::/32 remote-port 53",
        "allow out 47",
    ];
    let rule = select(rules.to_vec()).prop_map(|r| godwit_model::parse_rule(r).unwrap());
    let default = select(vec![Verdict::Allow, Verdict::Deny]);
    let dscp = of(0..64u8).prop_map(|n| n.and_then(Dscp::new));
    (name(), vec(rule, 0..4), default, any::<u32>(), 1..u32::MAX, dscp).prop_map(
        |(name, rules, default, rate, burst, dscp)| Policy { name, rules, default, rate, burst, dscp },
    )
}

pub fn step() -> impl Strategy<Value = MoveStep> {
    use MoveStepKind as K;
    let kinds = [
        K::Ordered,
        K::Prepared,
        K::Paused,
        K::Activated,
        K::Claimed,
        K::Granted,
        K::FirstForwarded,
        K::LastForwarded,
        K::Acknowledged,
        K::Aborted,
        K::Failed,
        K::Done,
        K::Denied,
        K::Restarted,
        K::Overtaken,
        K::Accepted,
        K::Stopped,
        K::Packaged,
        K::Sent,
        K::Instantiated,
        K::InOrder,
        K::ConnectionsPaused,
        K::ConnectionsResumed,
    ];
    (any::<u64>(), of(nve()), select(kinds.to_vec()), any::<String>())
        .prop_map(|(at_us, nve, what, note)| MoveStep { at_us, nve, what, note })
}

pub fn counts() -> impl Strategy<Value = HandoverCounts> {
    (any::<[u64; 6]>(), any::<[u64; 5]>()).prop_map(|(packets, more)| {
        let [held, flushed, forwarded, dropped, first_forward_us, last_forward_us] = packets;
        let [dropped_memory, dropped_limit, dropped_age, held_bytes, peak_bytes] = more;
        HandoverCounts {
            held,
            flushed,
            forwarded,
            dropped,
            dropped_memory,
            dropped_limit,
            dropped_age,
            held_bytes,
            peak_bytes,
            first_forward_us,
            last_forward_us,
        }
    })
}

pub fn move_record() -> impl Strategy<Value = MoveRecord> {
    use MovePhase as P;
    let phases = [P::Preparing, P::Prepared, P::Paused, P::Granted, P::Done, P::Aborted, P::Failed];
    let who = (move_id(), name(), key(), nve(), nve());
    let how = (select(phases.to_vec()), select([MoveOrigin::Ordered, MoveOrigin::Unplanned].to_vec()));
    (who, how, version(), vec(step(), 0..4), vec((nve(), counts()), 0..3)).prop_map(
        |((id, vm, key, from, to), (phase, origin), version, steps, counts)| MoveRecord {
            id,
            vm,
            key,
            from,
            to,
            mode: MoveMode::Hot,
            origin,
            phase,
            version,
            steps,
            counts,
        },
    )
}

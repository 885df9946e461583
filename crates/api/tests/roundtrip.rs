//! Every message of the model survives the wire, and no bytes from the wire make the conversions panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_api::prost::Message as _;
use godwit_api::{SessionDown, SessionUp, v1};
use godwit_model::message::{Attachment, Change, MoveRole, NvaToNve, NveToNva, QueryBy};
use godwit_model::{
    Abilities, Advertise, Allowed, BindRefusal, Bound, BoundIp, ClaimCause, DenyReason, Dhcp, DirectoryMode,
    Domain, DomainId, Gateway, HandoverCounts, LEARNED_MAX, Learning, LearningOf, Location, Locators,
    ModeSet, MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep, MoveStepKind, Multicast, NveId,
    OnCold, Policy, Secret, StaticRoute, Subnet, UnderlayGroup, Unplanned, Version, VmKey, VmRecord,
    VnRouting, VnSettings,
};
use godwit_wire::policy::Verdict;
use godwit_wire::{Dscp, Mac, Prefix, Vni};
use proptest::collection::{btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

fn name() -> impl Strategy<Value = String> {
    (any::<u32>(), 0..4usize).prop_map(|(n, pad)| format!("n{n:x}{}", &"_.-"[..pad]))
}

fn nve() -> impl Strategy<Value = NveId> {
    name().prop_map(|n| NveId::new(n).unwrap())
}

fn vni() -> impl Strategy<Value = Vni> {
    (0..=Vni::MAX).prop_map(Vni::from_low24)
}

fn key() -> impl Strategy<Value = VmKey> {
    (vni(), any::<[u8; 6]>()).prop_map(|(vni, mac)| VmKey { vni, mac: Mac(mac) })
}

fn version() -> impl Strategy<Value = Version> {
    (any::<u32>(), any::<u64>()).prop_map(|(epoch, seq)| Version { epoch, seq })
}

fn locators() -> impl Strategy<Value = Locators> {
    (of(any::<[u8; 4]>()), of(any::<[u8; 16]>())).prop_map(|(v4, v6)| {
        let v4 = if v6.is_none() { v4.or(Some([0, 0, 0, 0])) } else { v4 };
        Locators { v4: v4.map(Into::into), v6: v6.map(Into::into) }
    })
}

fn location() -> impl Strategy<Value = Location> {
    (nve(), locators()).prop_map(|(nve, locators)| Location { nve, locators })
}

fn move_id() -> impl Strategy<Value = MoveId> {
    any::<u64>().prop_map(|n| MoveId(format!("manager/{n}")))
}

fn ips4() -> impl Strategy<Value = Vec<Ipv4Addr>> {
    btree_set(any::<[u8; 4]>().prop_map(Ipv4Addr::from), 0..3).prop_map(|s| s.into_iter().collect())
}

fn ips6() -> impl Strategy<Value = Vec<Ipv6Addr>> {
    btree_set(any::<[u8; 16]>().prop_map(Ipv6Addr::from), 0..3).prop_map(|s| s.into_iter().collect())
}

fn mac() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(Mac)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| IpAddr::V4(a.into())),
        any::<[u8; 16]>().prop_map(|a| IpAddr::V6(a.into())),
    ]
}

fn learning() -> impl Strategy<Value = LearningOf> {
    let one =
        || of((0..=LEARNED_MAX).prop_map(|n| if n == 0 { Learning::Recorded } else { Learning::Learned(n) }));
    (one(), one()).prop_map(|(v4, v6)| LearningOf { v4, v6 })
}

fn macs() -> impl Strategy<Value = Vec<Mac>> {
    btree_set(mac(), 0..3).prop_map(|s| s.into_iter().collect())
}

fn prefix() -> impl Strategy<Value = Prefix> {
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

fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    btree_set(prefix(), 0..3).prop_map(|s| s.into_iter().collect())
}

fn routing() -> impl Strategy<Value = VnRouting> {
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

fn multicast() -> impl Strategy<Value = Multicast> {
    select([Multicast::Flood, Multicast::Snoop, Multicast::Off].to_vec())
}

/// Sorted, without doubles.
fn groups() -> impl Strategy<Value = (Vni, bool, Vec<IpAddr>, Vec<IpAddr>)> {
    let ips = || btree_set(ip(), 0..4).prop_map(|s| s.into_iter().collect());
    (vni(), any::<bool>(), ips(), ips())
}

fn underlay_group() -> impl Strategy<Value = UnderlayGroup> {
    (of(any::<[u8; 4]>()), of(any::<[u8; 16]>()))
        .prop_map(|(v4, v6)| UnderlayGroup { v4: v4.map(Into::into), v6: v6.map(Into::into) })
}

fn domain() -> impl Strategy<Value = (Domain, bool, Vec<StaticRoute>, Vec<Prefix>)> {
    let domain = (any::<u32>(), name(), mac(), vec(vni(), 0..3))
        .prop_map(|(id, name, gateway_mac, vns)| Domain { id: DomainId(id), name, gateway_mac, vns });
    let route = (prefix(), key()).prop_map(|(prefix, via)| StaticRoute { prefix, via });
    (domain, any::<bool>(), vec(route, 0..3), vec(prefix(), 0..3))
}

fn allowed() -> impl Strategy<Value = Allowed> {
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

fn bound() -> impl Strategy<Value = Bound> {
    let one = (ip(), mac(), any::<bool>()).prop_map(|(ip, mac, is_virtual)| BoundIp { ip, mac, is_virtual });
    (btree_set(one, 0..4), macs()).prop_map(|(ips, macs)| Bound { ips: ips.into_iter().collect(), macs })
}

fn record() -> impl Strategy<Value = VmRecord> {
    let flags =
        (any::<bool>(), any::<bool>(), any::<bool>(), of(move_id()), any::<bool>(), of(name()), ips6());
    (name(), key(), ips4(), ips6(), of(location()), version(), flags, (allowed(), bound())).prop_map(
        |(
            name,
            key,
            ipv4,
            ipv6,
            location,
            version,
            (router, router_pinned, pinned, moving, frozen, policy, no_override),
            (allowed, bound),
        )| {
            VmRecord {
                name,
                key,
                ipv4,
                ipv6,
                bindings: location.into(),
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
            }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
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

fn step() -> impl Strategy<Value = MoveStep> {
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
    ];
    (any::<u64>(), of(nve()), select(kinds.to_vec()), any::<String>())
        .prop_map(|(at_us, nve, what, note)| MoveStep { at_us, nve, what, note })
}

fn counts() -> impl Strategy<Value = HandoverCounts> {
    any::<[u64; 6]>().prop_map(|[held, flushed, forwarded, dropped, first_forward_us, last_forward_us]| {
        HandoverCounts { held, flushed, forwarded, dropped, first_forward_us, last_forward_us }
    })
}

fn move_record() -> impl Strategy<Value = MoveRecord> {
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

fn claim() -> impl Strategy<Value = NveToNva> {
    use ClaimCause as C;
    let causes = [C::Activate, C::GratuitousArp, C::NeighborAdvertisement, C::Rarp, C::FirstFrame, C::Resync];
    let flags = (of(any::<bool>()), ips6(), any::<bool>());
    (any::<u64>(), key(), ips4(), ips6(), select(causes.to_vec()), version(), name(), flags).prop_map(
        |(seq, key, v4, v6, cause, base, port, (router, heard, set))| {
            let overrides = heard.into_iter().map(|ip| (ip, set)).collect();
            let ips = v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)).collect();
            NveToNva::Claim { seq, key, ips, cause, base, port, router, overrides }
        },
    )
}

fn mode() -> impl Strategy<Value = MoveMode> {
    select(MoveMode::ALL.to_vec())
}

fn modes() -> impl Strategy<Value = ModeSet> {
    vec(mode(), 1..4).prop_map(|modes| ModeSet::of(&modes))
}

fn abilities() -> impl Strategy<Value = Abilities> {
    (modes(), any::<bool>(), any::<u32>()).prop_map(|(modes, end_markers, capacity)| Abilities {
        modes,
        end_markers,
        capacity,
    })
}

fn up() -> impl Strategy<Value = NveToNva> {
    let by = prop_oneof![mac().prop_map(QueryBy::Mac), ip().prop_map(QueryBy::Ip)];
    let attachment = (key(), name(), version(), any::<bool>())
        .prop_map(|(key, port, version, active)| Attachment { key, port, version, active });
    prop_oneof![
        (nve(), locators(), any::<String>(), any::<u32>(), any::<u64>(), abilities()).prop_map(
            |(nve, locators, software, last_epoch, instance, abilities)| NveToNva::Hello {
                nve,
                locators,
                software,
                last_epoch,
                instance,
                abilities
            }
        ),
        (vni(), any::<bool>()).prop_map(|(vni, pull)| {
            let mode = if pull { DirectoryMode::Pull } else { DirectoryMode::Push };
            NveToNva::Subscribe { vni, mode }
        }),
        vni().prop_map(|vni| NveToNva::Unsubscribe { vni }),
        (vni(), any::<bool>()).prop_map(|(vni, lingers)| NveToNva::Linger { vni, lingers }),
        groups().prop_map(|(vni, reset, joined, left)| NveToNva::Groups { vni, reset, joined, left }),
        (key(), name()).prop_map(|(key, port)| NveToNva::Associate { key, port }),
        (key(), name()).prop_map(|(key, port)| NveToNva::Disassociate { key, port }),
        (any::<u64>(), vni(), by).prop_map(|(seq, vni, by)| NveToNva::Query { seq, vni, by }),
        claim(),
        (key(), version()).prop_map(|(key, version)| NveToNva::Withdraw { key, version }),
        any::<u64>().prop_map(|ack_id| NveToNva::Ack { ack_id }),
        (key(), version()).prop_map(|(key, version)| NveToNva::ForwardEnding { key, version }),
        (key(), ips4(), ips6(), version()).prop_map(|(key, v4, v6, version)| {
            let ips = v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)).collect();
            NveToNva::Departed { key, ips, version }
        }),
        (key(), of(locators()), version(), ip()).prop_map(|(key, to, version, sender)| NveToNva::Redirect {
            key,
            to,
            version,
            sender
        }),
        (any::<u64>(), key(), mac(), of(ip()), any::<bool>(), any::<u32>()).prop_map(
            |(seq, key, mac, ip, announced, age_ms)| NveToNva::Bind { seq, key, mac, ip, announced, age_ms }
        ),
        (key(), ip()).prop_map(|(key, ip)| NveToNva::Unbind { key, ip }),
        (key(), version(), any::<bool>(), any::<String>())
            .prop_map(|(key, version, alive, note)| NveToNva::Verified { key, version, alive, note }),
        (move_id(), key(), of(step()), of(counts()))
            .prop_map(|(id, key, step, counts)| NveToNva::MoveReport { id, key, step, counts }),
        vec(attachment, 0..4).prop_map(|attachments| NveToNva::Report { attachments }),
        Just(NveToNva::Keepalive),
    ]
}

fn down() -> impl Strategy<Value = NvaToNve> {
    use DenyReason as D;
    let change = prop_oneof![
        record().prop_map(Change::Vm),
        (key(), version()).prop_map(|(key, version)| Change::Removed { key, version }),
        location().prop_map(Change::MemberJoined),
        location().prop_map(Change::MemberLingers),
        nve().prop_map(Change::MemberLeft),
        key().prop_map(|key| Change::Forgotten { key }),
    ];
    let reasons =
        [D::UnknownVm, D::AddressMismatch, D::OwnedElsewhere, D::StaleVersion, D::Pinned, D::Frozen].to_vec();
    use BindRefusal as B;
    let refusals = [B::UnknownVm, B::NotHere, B::NotAllowed, B::Full, B::Taken].to_vec();
    let refused = (any::<u64>(), key(), mac(), of(ip()), select(refusals), any::<String>());
    let flags = any::<[bool; 4]>();
    let unplanned = select([Unplanned::Verify, Unplanned::Accept, Unplanned::Deny].to_vec());
    let settings =
        (any::<u16>(), learning(), unplanned, of(routing()), multicast(), underlay_group(), modes());
    let gateway =
        (any::<[u8; 6]>(), any::<[u8; 4]>()).prop_map(|(mac, ip)| Gateway { mac: Mac(mac), ip: ip.into() });
    let members = (vec(location(), 0..3), vec(nve(), 0..3));
    let end = (vni(), any::<u64>(), flags, settings, members, of(gateway));
    let prepare = (move_id(), any::<bool>(), record(), location(), location());
    prop_oneof![
        (any::<u32>(), any::<u32>())
            .prop_map(|(epoch, keepalive_ms)| NvaToNve::Welcome { epoch, keepalive_ms }),
        (vni(), vec(record(), 0..3)).prop_map(|(vni, vms)| NvaToNve::Snapshot { vni, vms }),
        end.prop_map(|(vni, revision, flags, settings, (members, lingering), gateway)| {
            let [known, transparent_vlan, flood_silent, rarp] = flags;
            let (mtu, learning, unplanned, routing, multicast, underlay_group, modes) = settings;
            let settings = VnSettings {
                mtu,
                transparent_vlan,
                flood_silent,
                rarp,
                learning,
                unplanned,
                routing,
                multicast,
                underlay_group,
                modes,
                on_cold: if rarp { OnCold::Reset } else { OnCold::Drop },
            };
            NvaToNve::End { vni, revision, known, settings, gateway, members, lingering }
        }),
        (vni(), any::<u64>(), any::<u64>(), change)
            .prop_map(|(vni, revision, ack_id, change)| NvaToNve::Update { vni, revision, ack_id, change }),
        // The wire counts lifetimes in units of 100 ms.
        (any::<u64>(), of(record()), any::<u32>()).prop_map(|(seq, record, l)| NvaToNve::Response {
            seq,
            record,
            lifetime_ms: u64::from(l) * 100
        }),
        (any::<u64>(), record()).prop_map(|(seq, record)| NvaToNve::Grant { seq, record }),
        (any::<u64>(), key(), select(reasons), any::<String>(), of(record()))
            .prop_map(|(seq, key, reason, text, record)| NvaToNve::Deny { seq, key, reason, text, record }),
        (prepare, mode(), vec(locators(), 0..3)).prop_map(
            |((id, source, record, from, to), mode, senders)| NvaToNve::MovePrepare {
                id,
                role: if source { MoveRole::Source } else { MoveRole::Target },
                record,
                from,
                to,
                mode,
                senders
            }
        ),
        (move_id(), key(), any::<String>()).prop_map(|(id, key, reason)| NvaToNve::MoveAbort {
            id,
            key,
            reason
        }),
        (key(), of(record())).prop_map(|(key, record)| NvaToNve::Provision { key, record }),
        (any::<bool>(), vec(policy(), 0..3), vec(name(), 0..3))
            .prop_map(|(reset, policies, gone)| NvaToNve::Policies { reset, policies, gone }),
        domain().prop_map(|(domain, reset, routes, gone)| NvaToNve::Domain { domain, reset, routes, gone }),
        (any::<bool>(), prop::collection::vec(nve(), 0..3), prop::collection::vec(nve(), 0..3))
            .prop_map(|(reset, nves, gone)| NvaToNve::EndMarkers { reset, nves, gone }),
        any::<u32>().prop_map(|id| NvaToNve::DomainGone { id: DomainId(id) }),
        (nve(), groups()).prop_map(|(nve, (vni, reset, joined, left))| NvaToNve::Groups {
            vni,
            nve,
            reset,
            joined,
            left
        }),
        (key(), version()).prop_map(|(key, version)| NvaToNve::ForwardExtend { key, version }),
        (key(), version(), nve()).prop_map(|(key, version, from)| NvaToNve::Departed { key, version, from }),
        (key(), of(locators()), version(), nve()).prop_map(|(key, to, version, from)| NvaToNve::Redirect {
            key,
            to,
            version,
            from
        }),
        (any::<u32>(), any::<u32>(), any::<[u8; 32]>()).prop_map(|(number, sender, key)| {
            NvaToNve::ChannelKey { number, sender, secret: Secret(key) }
        }),
        (key(), version()).prop_map(|(key, version)| NvaToNve::Verify { key, version }),
        (any::<u64>(), record()).prop_map(|(seq, record)| NvaToNve::Bound { seq, record }),
        refused.prop_map(|(seq, key, mac, ip, reason, text)| NvaToNve::BindRefused {
            seq,
            key,
            mac,
            ip,
            reason,
            text
        }),
        (key(), ip()).prop_map(|(key, ip)| NvaToNve::VerifyIp { key, ip }),
        any::<String>().prop_map(|text| NvaToNve::Error { text }),
        any::<String>().prop_map(|text| NvaToNve::Refused { text }),
        Just(NvaToNve::Keepalive),
    ]
}

proptest! {
    #[test]
    fn messages_of_an_nve_survive_the_wire(m in up()) {
        let bytes = v1::NveMessage::from(m.clone()).encode_to_vec();
        let back = SessionUp::try_from(v1::NveMessage::decode(&bytes[..]).unwrap());
        prop_assert_eq!(back, Ok(SessionUp::Message(m)));
    }

    #[test]
    fn messages_of_the_nva_survive_the_wire(m in down()) {
        let bytes = v1::NvaMessage::from(m.clone()).encode_to_vec();
        let back = SessionDown::try_from(v1::NvaMessage::decode(&bytes[..]).unwrap());
        prop_assert_eq!(back, Ok(SessionDown::Message(m)));
    }

    #[test]
    fn moves_survive_the_wire(m in move_record()) {
        let bytes = v1::MoveRecord::from(m.clone()).encode_to_vec();
        prop_assert_eq!(MoveRecord::try_from(v1::MoveRecord::decode(&bytes[..]).unwrap()), Ok(m));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        convert_all(&bytes);
    }

    // Flipped bytes of a good message reach much deeper than noise does.
    #[test]
    fn damaged_messages_never_panic(
        u in up(), d in down(), m in move_record(), hits in vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let good = [
            v1::NveMessage::from(u).encode_to_vec(),
            v1::NvaMessage::from(d).encode_to_vec(),
            v1::MoveRecord::from(m).encode_to_vec(),
        ];
        for mut bytes in good {
            for (at, with) in &hits {
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] = *with;
                }
            }
            convert_all(&bytes);
        }
    }
}

fn convert_all(bytes: &[u8]) {
    if let Ok(p) = v1::NveMessage::decode(bytes) {
        let _ = SessionUp::try_from(p);
    }
    if let Ok(p) = v1::NvaMessage::decode(bytes) {
        let _ = SessionDown::try_from(p);
    }
    if let Ok(p) = v1::VmRecord::decode(bytes) {
        let _ = VmRecord::try_from(p);
    }
    if let Ok(p) = v1::MoveRecord::decode(bytes) {
        let _ = MoveRecord::try_from(p);
    }
}

#[test]
fn a_lifetime_is_rounded_down_to_the_units_of_the_wire() {
    let m = NvaToNve::Response { seq: 1, record: None, lifetime_ms: 199 };
    let SessionDown::Message(NvaToNve::Response { lifetime_ms, .. }) =
        SessionDown::try_from(v1::NvaMessage::from(m)).unwrap()
    else {
        panic!("another kind came back")
    };
    assert_eq!(lifetime_ms, 100);
}

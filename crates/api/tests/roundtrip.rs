//! Every message of the model survives the wire, and no bytes from the wire make the conversions panic.

mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use godwit_api::prost::Message as _;
use godwit_api::{SessionDown, SessionUp, v1};
use godwit_model::message::{Attachment, Change, MoveRole, NvaToNve, NveToNva, PairKey, QueryBy};
use godwit_model::{
    Abilities, Advertise, Allowed, BindRefusal, Bindings, Bound, BoundIp, ClaimCause, DenyReason, Dhcp,
    DirectoryMode, Domain, DomainId, Gateway, HandoverCounts, LEARNED_MAX, Learning, LearningOf, Location,
    Locators, Mirror, ModeSet, MoveId, MoveMode, MoveOrigin, MovePhase, MoveRecord, MoveStep, MoveStepKind,
    Multicast, NveId, OnCold, Policy, Secret, StaticRoute, Subnet, UnderlayGroup, Unplanned, Version, VmKey,
    VmRecord, VnRouting, VnSettings,
};
use godwit_wire::policy::Verdict;
use godwit_wire::{Dscp, Mac, Prefix, Vni};
use proptest::collection::{btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use values::*;

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
        (vni(), any::<bool>(), any::<bool>()).prop_map(|(vni, pull, lingers)| {
            let mode = if pull { DirectoryMode::Pull } else { DirectoryMode::Push };
            NveToNva::Subscribe { vni, mode, lingers }
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
    let reasons = [
        D::UnknownVm,
        D::AddressMismatch,
        D::OwnedElsewhere,
        D::StaleVersion,
        D::Pinned,
        D::Frozen,
        D::NotAllowed,
    ]
    .to_vec();
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
        (prepare, mode()).prop_map(|((id, source, record, from, to), mode)| NvaToNve::MovePrepare {
            id,
            role: if source { MoveRole::Source } else { MoveRole::Target },
            record,
            from,
            to,
            mode
        }),
        (move_id(), key(), any::<String>()).prop_map(|(id, key, reason)| NvaToNve::MoveAbort {
            id,
            key,
            reason
        }),
        (key(), of(record())).prop_map(|(key, record)| NvaToNve::Provision { key, record }),
        (any::<bool>(), vec(policy(), 0..3), vec(name(), 0..3))
            .prop_map(|(reset, policies, gone)| NvaToNve::Policies { reset, policies, gone }),
        (domain(), any::<bool>()).prop_map(|(domain, reset)| NvaToNve::Domain { domain, reset }),
        domain_routes(),
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
        (any::<u32>(), any::<u32>(), any::<[u8; 32]>(), any::<bool>()).prop_map(
            |(number, sender, key, alone)| {
                NvaToNve::ChannelKey { number, sender, secret: Secret(key), alone }
            }
        ),
        vec((ip(), ip(), any::<u32>(), any::<[u8; 32]>()), 0..4).prop_map(|keys| {
            let key = |(from, to, number, key)| PairKey { from, to, number, secret: Secret(key) };
            NvaToNve::PairKeys { keys: keys.into_iter().map(key).collect() }
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

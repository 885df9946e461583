//! What an identity may do, and what the audit log has of it (R68).

use std::net::SocketAddr;

use godwit_model::Role;

use super::*;

fn operator(name: &str, role: Role) -> Operator {
    let address = SocketAddr::from(([198, 18, 9, 9], 4242));
    Operator { identity: Identity::Operator { name: name.into(), role }, address: Some(address) }
}

/// The certificate of an NVE that lists the locators of these numbers.
fn certificate(name: &str, locators: &[u8]) -> Identity {
    let locators = locators.iter().map(|n| IpAddr::V4(Ipv4Addr::new(10, 0, 0, *n))).collect();
    Identity::Nve { id: id(name), locators }
}

fn hello(name: &str, n: u8) -> NveToNva {
    NveToNva::Hello {
        nve: id(name),
        locators: locators(n),
        software: "test".into(),
        last_epoch: 0,
        instance: 1,
        abilities: Abilities { modes: ModeSet::ALL, end_markers: false, capacity: 100 },
    }
}

fn subscribe() -> NveToNva {
    NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false }
}

/// The entries of the audit log.
fn audited(outputs: &[Output]) -> Vec<AuditEntry> {
    let of = outputs.iter().filter_map(|o| match o {
        Output::Audit(entry) => Some(AuditEntry::clone(entry)),
        _ => None,
    });
    of.collect()
}

/// The one refused attempt: who, what, why.
fn attempt(outputs: &[Output]) -> (String, String, String) {
    let entries = audited(outputs);
    let [AuditEntry { who, what, verdict: Verdict::Refused(why), .. }] = &entries[..] else {
        panic!("no single refusal: {entries:?}")
    };
    (who.clone(), what.to_string(), why.clone())
}

fn closed(outputs: &[Output], session: SessionId) -> bool {
    outputs.iter().any(|o| matches!(o, Output::Close { session: s, .. } if *s == session))
}

fn welcomed(outputs: &[Output]) -> bool {
    all_sent(outputs).iter().any(|(_, m)| matches!(m, NvaToNve::Welcome { .. }))
}

impl World {
    /// A connection that proved this.
    fn connect_as(&mut self, identity: Identity) -> (SessionId, Vec<Output>) {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let address = Some(SocketAddr::from(([198, 18, 0, 7], 555)));
        let out = self.nve(session, Input::Connected { address, identity });
        (session, out)
    }

    fn hello_as(&mut self, identity: Identity, name: &str, n: u8) -> (SessionId, Vec<Output>) {
        let (session, _) = self.connect_as(identity);
        let out = self.say(session, hello(name, n));
        (session, out)
    }

    fn ordered_by(&mut self, who: &Operator, order: Order) -> Reply {
        self.request(Peer::Operator(who.clone()), Input::Order(order))
    }
}

fn policy() -> Policy {
    let default = godwit_wire::policy::Verdict::Allow;
    Policy { name: "p".into(), rules: vec![], default, rate: 0, burst: 0, dscp: None }
}

/// Each order, once.
fn orders() -> Vec<Order> {
    let (vm, vn) = (String::from("vm1"), String::from("red"));
    let prefix: godwit_wire::Prefix = "10.9.0.0/24".parse().unwrap();
    let subnet =
        godwit_model::Subnet { prefix, gateway: "10.9.0.1".parse().unwrap(), advertise: None, dhcp: None };
    let all = VnChoice::All;
    vec![
        Order::CreateVn(VnRecord { vni: vni(7), name: "new".into(), settings: VnSettings::default() }),
        Order::SetVn { name: vn.clone(), changes: VnChanges::default() },
        Order::DeleteVn { name: vn.clone() },
        Order::AddSubnet { vn: vn.clone(), subnet },
        Order::RemoveSubnet { vn, prefix },
        Order::CreateDomain { name: "d".into() },
        Order::DeleteDomain { name: "d".into() },
        Order::AddRoute { domain: "d".into(), prefix, via: vm.clone() },
        Order::RemoveRoute { domain: "d".into(), prefix },
        Order::DefineVm(definition(9)),
        Order::SetVm { name: vm.clone(), changes: VmChanges::default() },
        Order::DeleteVm { name: vm.clone() },
        Order::ClearVm { name: vm.clone() },
        Order::VmDeparted { name: vm.clone(), nve: None },
        Order::DefinePolicy(policy()),
        Order::RemovePolicy { name: "p".into() },
        Order::DefineNve { id: id("z"), locators: locators(99) },
        Order::DeleteNve { id: id("z") },
        Order::AllowNve { id: id("z"), vns: all.clone(), only: false },
        Order::DenyNve { id: id("z"), vns: all, force: false },
        Order::StartMove { vm: vm.clone(), to: id("b"), mode: MoveMode::Hot, id: "m".into(), accept: true },
        Order::ReportMove { id: MoveId("m".into()), phase: MovePhase::Sent },
        Order::SetMirror { vm: vm.clone(), to: None },
        Order::VmMirrored { vm, at_us: None },
        Order::AbortMove { id: MoveId("m".into()) },
        Order::DrainNve(DrainOrder { nve: id("a"), to: vec![], parallel: 1, accept_interruption: false }),
        Order::StopDrain { nve: id("a") },
        Order::UndrainNve { nve: id("a") },
    ]
}

#[test]
fn r68_each_order_takes_its_role_and_is_audited_either_way() {
    for order in orders() {
        let (what, needs) = order.needs();
        assert!(needs > Role::Read, "{what} changes something");
        for role in Role::ALL {
            let mut w = World::new();
            w.join("a");
            let before = w.d.state();
            let Reply { answer, outputs } = w.ordered_by(&operator("alice", role), order.clone());
            let entries = audited(&outputs);
            let [entry] = &entries[..] else { panic!("{what}: {entries:?}") };
            assert_eq!((entry.who.as_str(), &*entry.what), (&*format!("operator alice ({role})"), what));
            assert_eq!(entry.from, operator("alice", role).address);
            assert_eq!(entry.at_us, w.wall_us());
            assert!(!entry.details.is_empty());
            if role < needs {
                let text = format!(
                    "operator alice ({role}) may not `{what}`: this takes the role {needs}; use a certificate or a \
                     token that has it"
                );
                let refusal = answer.unwrap_err();
                assert_eq!((refusal.to_string(), refusal.kind()), (text.clone(), RefusalKind::Permission));
                assert_eq!(entry.verdict, Verdict::Refused(text));
                assert_eq!(w.d.state(), before, "{what} by {role}");
            } else {
                // It may be refused for another reason.
                let verdict = answer.map_or_else(|r| Verdict::Refused(r.to_string()), |_| Verdict::Done);
                assert_eq!(entry.verdict, verdict);
                assert!(!format!("{verdict:?}").contains("takes the role"), "{verdict:?}");
            }
        }
    }
}

#[test]
fn r68_questions_take_the_role_read_and_only_refused_ones_are_audited() {
    let mut w = World::new();
    for role in Role::ALL {
        let peer = Peer::Operator(operator("bob", role));
        let Reply { answer, outputs } = w.request(peer, Input::Look("ListVms".into()));
        assert_eq!((answer, outputs), (Ok(Answered::Nothing), vec![]));
    }
    let nve = Operator { identity: certificate("a", &[]), address: None };
    let Reply { answer, outputs } = w.request(Peer::Operator(nve.clone()), Input::Look("ListVms".into()));
    assert!(answer.unwrap_err().to_string().contains("the certificate of a switch is no operator's"));
    assert_eq!(attempt(&outputs).0, "NVE a");
    let Reply { answer, outputs } = w.ordered_by(&nve, Order::DeleteVm { name: "vm1".into() });
    assert_eq!(answer.unwrap_err().kind(), RefusalKind::Permission);
    assert_eq!(attempt(&outputs).1, "vm delete");
}

#[test]
fn r68_a_request_for_a_switch_takes_its_role() {
    let mut w = World::new();
    let (a, _) = w.hello("a");
    let relay = |needs| Relay { nve: id("a"), what: "port add", needs, details: "devargs".into() };
    for role in Role::ALL {
        for needs in Role::ALL {
            let peer = Peer::Operator(operator("carol", role));
            let Reply { answer, outputs } = w.request(peer, Input::Relay(relay(needs)));
            let entries = audited(&outputs);
            if role >= needs {
                assert_eq!(answer, Ok(Answered::Session(a)));
                assert_eq!(entries.len(), usize::from(needs > Role::Read), "what only looks is not written");
            } else {
                assert_eq!(answer.unwrap_err().kind(), RefusalKind::Permission);
                assert!(matches!(&entries[..], [e] if e.details == "NVE a: devargs"), "{entries:?}");
            }
        }
    }
}

#[test]
fn r68_an_nve_speaks_for_itself_only() {
    let mut w = World::new();
    let (b, out) = w.hello_as(certificate("b", &[]), "b", 2);
    assert!(welcomed(&out), "{out:?}");
    let before = w.d.state();
    let (s, out) = w.hello_as(certificate("c", &[]), "b", 3);
    let (who, what, why) = attempt(&out);
    assert_eq!((&*who, &*what), ("NVE c", "hello"));
    assert!(why.starts_with("the certificate is that of NVE c, and it speaks for NVE b"), "{why}");
    assert!(closed(&out, s) && !welcomed(&out));
    assert_eq!(audited(&out)[0].from, Some(SocketAddr::from(([198, 18, 0, 7], 555))));
    assert_eq!((w.d.state(), w.nve_session("b")), (before, b), "its session goes on");
}

#[test]
fn r68_an_nve_speaks_from_its_own_locators_only() {
    let mut w = World::new();
    let (_, out) = w.hello_as(certificate("b", &[2, 12]), "b", 2);
    assert!(welcomed(&out));
    // A locator that its certificate does not list.
    let (s, out) = w.hello_as(certificate("c", &[3]), "c", 4);
    assert!(closed(&out, s) && !welcomed(&out));
    let why = attempt(&out).2;
    assert!(
        why.starts_with("the certificate of NVE c lists the locators 10.0.0.3, and not 10.0.0.4"),
        "{why}"
    );
    // One of another NVE, whether that is there or away, and of one without a session.
    let tor = locators(9);
    w.define_nve(&id("tor"), tor).unwrap();
    let b = w.nve_session("b");
    for (n, away) in [(2, false), (2, true), (9, false)] {
        if away {
            w.leave(b);
        }
        let (s, out) = w.hello_as(certificate("c", &[]), "c", n);
        assert!(closed(&out, s) && !welcomed(&out), "{out:?}");
        assert!(attempt(&out).2.starts_with(&format!("locator 10.0.0.{n} is that of NVE ")), "{out:?}");
    }
    // Its own, listed or not.
    assert!(welcomed(&w.hello_as(certificate("c", &[]), "c", 3).1));
    assert!(welcomed(&w.hello_as(certificate("b", &[2, 12]), "b", 12).1), "it lists two");
}

#[test]
fn r68_an_operator_opens_no_session_of_an_nve() {
    let mut w = World::new();
    let Identity::Operator { .. } = operator("mallory", Role::Admin).identity else { unreachable!() };
    let (s, out) = w.connect_as(operator("mallory", Role::Admin).identity);
    assert!(closed(&out, s));
    let (who, what, _) = attempt(&out);
    assert_eq!((&*who, &*what), ("operator mallory (admin)", "session"));
    assert_eq!(w.say(s, hello("a", 1)), [], "what follows is not heard");
}

#[test]
fn r68_an_nve_takes_part_in_its_vns_only() {
    let mut w = World::new();
    let (a, b) = (w.join("a"), w.join("b"));
    w.take(a, 1);
    // It may not be denied what it runs VMs in, but by force.
    let refusal = w.deny("a", &["red"], false).unwrap_err().to_string();
    assert!(refusal.contains("has 1 VMs") && refusal.contains("\"red\""), "{refusal}");
    let (info, out) = w.deny("a", &["red"], true).unwrap();
    assert!(!info.access.allows(vni(100)));
    assert!(closed(&out, a), "it begins anew");
    let left = |(to, m): &(SessionId, NvaToNve)| {
        *to == b && matches!(m, NvaToNve::Update { change: Change::MemberLeft(n), .. } if *n == id("a"))
    };
    assert!(all_sent(&out).iter().any(left), "the others drop it");
    assert!(!w.vm(1).is_active());

    let (a, _) = w.hello("a");
    let k = key(1);
    let by = godwit_model::message::QueryBy::Mac(k.mac);
    let bind = NveToNva::Bind { seq: 1, key: k, mac: k.mac, ip: Some(ip(9)), announced: true, age_ms: 0 };
    for (message, what) in [
        (subscribe(), "subscribe"),
        (NveToNva::Query { seq: 1, vni: k.vni, by }, "query"),
        (NveToNva::Associate { key: k, port: "p".into() }, "associate"),
        (bind, "bind"),
        (NveToNva::Departed { key: k, ips: vec![], version: Version::ZERO }, "departed"),
        (claim(1, Version::ZERO), "claim"),
    ] {
        let out = w.say(a, message);
        let (who, tried, why) = attempt(&out);
        assert_eq!((&*who, &*tried), ("NVE a (unproven)", what));
        let text = "NVE a may not take part in VN red (100); `godwitctl nve allow a --vn red` lets it";
        assert_eq!(why, text);
        assert!(!out.iter().any(|o| matches!(o, Output::Persist(_))), "{out:?}");
        match &sent(&out, a)[..] {
            [NvaToNve::Deny { reason: DenyReason::NotAllowed, .. }] => assert_eq!(what, "claim"),
            [NvaToNve::Error { .. }] => {}
            other => panic!("{what}: {other:?}"),
        }
    }
    let report =
        godwit_model::message::Attachment { key: k, port: "p".into(), version: Version::ZERO, active: false };
    let out = w.say(a, NveToNva::Report { attachments: vec![report] });
    assert_eq!(sent(&out, a), [], "nothing of the VM is told for a port in its report");
    // Nor does a move lead there.
    w.take(b, 1);
    let refusal = w.start(1, "a", "m").unwrap_err().to_string();
    assert!(refusal.starts_with("NVE a may not take part in VN \"red\""), "{refusal}");

    w.allow("a", &["red"], false).unwrap();
    let a = w.join("a");
    assert!(w.d.nve_info(&id("a"), w.now).unwrap().vnis.contains(&vni(100)));
    w.say(b, NveToNva::Withdraw { key: k, version: w.vm(1).version });
    w.take(a, 1);
}

#[test]
fn r68_what_an_nve_may_survives_a_restart_and_not_its_vn() {
    let mut w = World::new();
    w.allow("new", &["red"], true).unwrap();
    let info = w.d.nves(w.now).into_iter().find(|n| n.record.id == id("new")).expect("it is shown");
    assert_eq!((info.connected, info.access.clone()), (false, VnAccess::Only([vni(100)].into())));
    assert!(w.allow("new", &["blue"], false).unwrap_err().to_string().contains("there is no VN \"blue\""));
    let blue = VnRecord { vni: vni(200), name: "blue".into(), settings: VnSettings::default() };
    w.create_vn(blue.clone()).unwrap();
    w.deny("b", &["blue"], false).unwrap();
    w.restart();
    assert_eq!(w.d.access_of(&id("new")), VnAccess::Only([vni(100)].into()));
    assert_eq!(w.d.access_of(&id("b")), VnAccess::AllBut([vni(200)].into()));
    // The number is given to another VN.
    w.allow("new", &["blue"], false).unwrap();
    w.delete_vn("blue").unwrap();
    w.create_vn(VnRecord { name: "green".into(), ..blue }).unwrap();
    assert_eq!(w.d.access_of(&id("new")), VnAccess::Only([vni(100)].into()));
    assert_eq!(w.d.access_of(&id("b")), VnAccess::default());
    let all =
        |w: &mut World| w.order::<NveInfo>(Order::AllowNve { id: id("c"), vns: VnChoice::All, only: false });
    w.allow("c", &["red"], true).unwrap();
    assert_eq!(all(&mut w).unwrap().0.access, VnAccess::default());
    assert!(all(&mut w).unwrap().1.is_empty(), "nothing is known of it");
    w.delete_nve(&id("new")).unwrap();
    assert_eq!(w.d.access_of(&id("new")), VnAccess::default());
    assert_eq!(w.d.state().access, w.durable.access);
}

#[test]
fn r68_an_nve_reports_of_its_own_moves_only() {
    let mut w = World::new();
    let (a, _b, c) = (w.join("a"), w.join("b"), w.join("c"));
    w.take(a, 1);
    w.start(1, "b", "m").unwrap();
    let before = w.d.move_record(&MoveId("m".into())).unwrap().clone();
    let out = w.step(c, "m", MoveStepKind::Failed);
    let (who, what, why) = attempt(&out);
    assert_eq!((&*who, &*what), ("NVE c (unproven)", "move report"));
    assert_eq!(why, "NVE c has no part in move m and reports nothing of it");
    assert_eq!(w.d.move_record(&MoveId("m".into())).unwrap(), &before);
    w.step(a, "m", MoveStepKind::Prepared);
    assert_ne!(w.d.move_record(&MoveId("m".into())).unwrap(), &before, "its source does");
}

#[test]
fn r68_attempts_of_one_session_are_not_written_without_end() {
    let mut w = World::new();
    w.deny("a", &["red"], false).unwrap();
    let (a, _) = w.hello("a");
    let mut written = Vec::new();
    for _ in 0..1000 {
        written.extend(audited(&w.say(a, subscribe())));
    }
    assert!(written.len() <= 16, "{}", written.len());
    w.pass(20);
    w.now = w.now + Span::from_ms(1000);
    w.say(a, NveToNva::Keepalive);
    w.now = w.now + Span::from_ms(60_000);
    written.extend(audited(&w.say(a, subscribe())));
    let all: u64 = written.iter().map(|e| 1 + e.unwritten).sum();
    assert_eq!(all, 1001, "each is counted");
}

#[test]
fn r68_an_entry_of_the_audit_log_is_bounded() {
    let mut w = World::new();
    let names = (0..50_000).map(|n| format!("vn-{n}-ü")).collect();
    let order = Order::AllowNve { id: id("a"), vns: VnChoice::Named(names), only: true };
    let Reply { answer, outputs } = w.ordered_by(&operator("eve", Role::Admin), order);
    assert!(answer.is_err());
    let entry = &audited(&outputs)[0];
    assert!(entry.details.len() < 2100 && entry.details.ends_with('…'), "{}", entry.details.len());
}

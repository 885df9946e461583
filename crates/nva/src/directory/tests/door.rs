//! Who may ask what of the directory.

use super::*;

#[test]
fn a_peer_is_refused_what_only_another_one_may_send() {
    let mut w = World::new();
    let a = w.join("a");
    let before = w.d.state();
    let order = || Input::Order(Order::DeleteVm { name: "vm1".into() });
    let cases = [
        (Peer::Nve(a), order(), "an NVE (session 1) sent operators' orders"),
        (Peer::Nve(a), Input::Tick, "an NVE (session 1) sent ticks of the clock"),
        (Peer::Clock, order(), "the clock sent operators' orders"),
        (Peer::Clock, Input::Disconnected, "the clock sent the messages of an NVE's session"),
        (
            Peer::operator(),
            Input::Message(claim(1, Version::ZERO)),
            "an operator sent the messages of an NVE",
        ),
        (Peer::operator(), Input::Tick, "an operator sent ticks of the clock"),
    ];
    for (peer, what, text) in cases {
        let Reply { answer, outputs } = w.request(peer, what);
        let refusal = answer.unwrap_err();
        assert!(refusal.to_string().starts_with(text), "{refusal}");
        assert_eq!((refusal.kind(), outputs), (RefusalKind::Permission, vec![]));
    }
    assert_eq!(w.d.state(), before);
}

#[test]
fn an_answer_is_read_as_what_it_is() {
    let mut w = World::new();
    let answer = |w: &mut World| {
        let order = Order::DefineVm(definition(1));
        w.request(Peer::operator(), Input::Order(order)).answer.unwrap()
    };
    assert_eq!(VmRecord::try_from(answer(&mut w)).as_ref(), Ok(w.vm(1)));
    let other = VnInfo::try_from(answer(&mut w)).unwrap_err();
    assert!(other.to_string().contains("which is no VnInfo"), "{other}");
}

/// The same requests to another directory lead to the same, answers included.
#[test]
fn requests_can_be_played_again() {
    let w = World::new();
    let mut first = Vec::new();
    let mut requests = Vec::new();
    let (now, wall_us) = (w.now, w.wall_us());
    let session = SessionId(9);
    let hello = NveToNva::Hello {
        nve: id("a"),
        locators: locators(1),
        software: "test".into(),
        last_epoch: 0,
        instance: 1,
        abilities: godwit_model::Abilities::unsaid(),
    };
    for (peer, what) in [
        (Peer::operator(), Input::Order(Order::DefineVm(definition(7)))),
        (Peer::Nve(session), Input::Connected { address: None, identity: Identity::Unproven }),
        (Peer::Nve(session), Input::Message(hello)),
        (Peer::Nve(session), Input::Message(claim(7, Version::ZERO))),
        (Peer::operator(), Input::Order(Order::DeleteVm { name: "vm7".into() })),
        (Peer::Clock, Input::Tick),
    ] {
        requests.push(Request { peer, what, now, wall_us });
    }
    let [mut once, mut again] = [0; 2].map(|_| Directory::restore(Config::default(), w.d.state(), 2));
    for r in &requests {
        first.push(once.handle(r.clone()));
    }
    assert!(first[4].answer.is_err(), "the VM runs: {:?}", first[4]);
    for (r, reply) in requests.into_iter().zip(first) {
        assert_eq!(again.handle(r), reply);
    }
}

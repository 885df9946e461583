//! What NVEs seal their datagrams to each other with (R47, D13).

use std::collections::BTreeMap;

use godwit_model::message::PairKey;
use godwit_model::{Secret, channel};

use super::*;

const NVA: Secret = Secret([7; 32]);

fn world() -> World {
    World::with(Config { channel_secret: Some(NVA), ..Config::default() })
}

/// What the NVEs were told, by session.
#[derive(Default)]
struct Heard {
    own: BTreeMap<SessionId, (u32, u32, Secret, bool)>,
    pairs: BTreeMap<(SessionId, IpAddr, IpAddr), PairKey>,
}

impl Heard {
    fn take(&mut self, outputs: &[Output]) {
        for (session, message) in all_sent(outputs) {
            match message {
                NvaToNve::ChannelKey { number, sender, secret, alone } => {
                    self.own.insert(session, (number, sender, secret, alone));
                }
                NvaToNve::PairKeys { keys } => {
                    self.pairs.extend(keys.into_iter().map(|k| ((session, k.from, k.to), k)));
                }
                _ => {}
            }
        }
    }

    /// What the session of NVE `from` seals for that of `to` opens there.
    fn fits(&self, (from, a): (SessionId, u8), (to, b): (SessionId, u8)) -> bool {
        let (a, b) = (at(a), at(b));
        let Some(key) = self.pairs.get(&(from, a, b)) else { return false };
        let (number, _, secret, _) = self.own[&to];
        let (_, sender, ..) = self.own[&from];
        key.number == number && key.secret == channel::pair(&secret, sender, a, b)
    }
}

fn at(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

fn join(w: &mut World, heard: &mut Heard, name: &str, instance: u64) -> SessionId {
    let session = w.connect();
    let n = name.as_bytes()[0] - b'a' + 1;
    let hello = NveToNva::Hello {
        nve: id(name),
        locators: locators(n),
        software: "test".into(),
        last_epoch: 0,
        instance,
        abilities: Abilities::unsaid(),
    };
    heard.take(&w.say(session, hello));
    let subscribe = NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false };
    heard.take(&w.say(session, subscribe));
    heard.take(&w.pass(20));
    session
}

#[test]
fn d13_each_pair_of_members_can_speak_and_nobody_else() {
    let (mut w, mut heard) = (world(), Heard::default());
    let sessions = ["a", "b", "c"].map(|n| join(&mut w, &mut heard, n, 1));
    let (stranger, out) = w.hello("d");
    heard.take(&out);
    heard.take(&w.pass(20));
    for (x, from) in (1..).zip(sessions) {
        for (y, to) in (1..).zip(sessions).filter(|(_, to)| *to != from) {
            assert!(heard.fits((from, x), (to, y)), "{x} to {y}");
        }
        assert!(!heard.fits((stranger, 4), (from, x)), "it has no part in the VN");
    }
    let mut secrets: Vec<[u8; 32]> = heard.own.values().map(|k| k.2.0).collect();
    secrets.extend(heard.pairs.values().map(|k| k.secret.0));
    let all = secrets.len();
    secrets.sort_unstable();
    secrets.dedup();
    assert_eq!((secrets.len(), heard.pairs.len()), (all, 6), "no two have the same key");
    let (_, out) = World::new().hello("a");
    assert!(
        !all_sent(&out).iter().any(|(_, m)| matches!(m, NvaToNve::ChannelKey { .. })),
        "without a secret none"
    );
}

#[test]
fn d13_a_session_has_a_number_that_no_other_one_gets() {
    let (mut w, mut heard) = (world(), Heard::default());
    let a = join(&mut w, &mut heard, "a", 1);
    let b = join(&mut w, &mut heard, "b", 1);
    let again = join(&mut w, &mut heard, "a", 1);
    assert_ne!(heard.own[&a].1, heard.own[&again].1, "or it would use a nonce twice");
    assert_eq!(heard.own[&a].0, heard.own[&again].0, "the process has not forgotten what it saw");
    assert!(heard.fits((again, 1), (b, 2)) && heard.fits((b, 2), (again, 1)));
    // Started anew it has: nobody's old datagrams open any more.
    w.leave(again);
    let anew = join(&mut w, &mut heard, "a", 2);
    assert_ne!(heard.own[&a].0, heard.own[&anew].0);
    assert!(heard.fits((anew, 1), (b, 2)) && heard.fits((b, 2), (anew, 1)));
}

#[test]
fn d13_keys_are_renewed_by_time() {
    let (mut w, mut heard) = (world(), Heard::default());
    w.d.config.key_life = Span::from_ms(1000);
    let (a, b) = (join(&mut w, &mut heard, "a", 1), join(&mut w, &mut heard, "b", 1));
    let before = heard.own[&a];
    heard.take(&w.pass(1000));
    let after = heard.own[&a];
    assert_eq!((before.1, after.3), (after.1, false), "the session stays, and so does what is under way");
    assert_ne!((before.0, before.2), (after.0, after.2));
    assert!(heard.fits((a, 1), (b, 2)) && heard.fits((b, 2), (a, 1)));
}

#[test]
fn d13_a_deleted_nve_speaks_to_nobody() {
    let (mut w, mut heard) = (world(), Heard::default());
    let (a, b) = (join(&mut w, &mut heard, "a", 1), join(&mut w, &mut heard, "b", 1));
    let c = join(&mut w, &mut heard, "c", 1);
    assert!(heard.fits((c, 3), (b, 2)));
    w.leave(c);
    heard.take(&w.delete_nve(&id("c")).unwrap().1);
    assert!(heard.own[&b].3, "what came before opens no more");
    assert!(!heard.fits((c, 3), (b, 2)));
    heard.take(&w.pass(20));
    assert!(heard.fits((a, 1), (b, 2)) && heard.fits((b, 2), (a, 1)), "the others go on");
}

#[test]
fn d13_another_nva_has_other_keys() {
    let (mut w, mut heard) = (world(), Heard::default());
    let a = join(&mut w, &mut heard, "a", 1);
    let first = heard.own[&a];
    w.restart();
    w.d.config.channel_secret = Some(Secret([8; 32]));
    let mut heard = Heard::default();
    let a = join(&mut w, &mut heard, "a", 1);
    let second = heard.own[&a];
    assert!(first.0 != second.0 && first.2 != second.2);
    assert_eq!(format!("{NVA:?}"), "Secret(..)", "no log shows a key");
}

#[test]
fn d13_keys_for_many_are_made_in_steps() {
    let (mut w, mut heard) = (world(), Heard::default());
    let mut sessions = Vec::new();
    for n in 0..60u8 {
        let session = w.connect();
        let hello = NveToNva::Hello {
            nve: id(&format!("n{n}")),
            locators: locators(n + 1),
            software: "test".into(),
            last_epoch: 0,
            instance: 1,
            abilities: Abilities::unsaid(),
        };
        heard.take(&w.say(session, hello));
        heard.take(
            &w.say(session, NveToNva::Subscribe { vni: vni(100), mode: DirectoryMode::Push, lingers: false }),
        );
        sessions.push(session);
    }
    let mut most = 0;
    while heard.pairs.len() < 60 * 59 {
        let before = heard.pairs.len();
        w.now = w.now + Span::from_ms(10);
        heard.take(&w.tick());
        most = most.max(heard.pairs.len() - before);
        assert!(heard.pairs.len() > before, "it goes on until all are told");
    }
    assert!(most <= 600, "{most} in one tick");
}

//! What is sealed opens once, at its receiver, and nothing else opens.

use std::net::Ipv4Addr;

use godwit_model::NveId;
use godwit_wire::peer::Kind;
use godwit_wire::{Mac, Vni};
use proptest::prelude::*;

use super::*;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2));
const C: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 3));

fn notice() -> Notice {
    let (vni, mac) = (Vni::from_low24(7), Mac([2, 0, 0, 0, 0, 1]));
    Notice { kind: Kind::NotHere, vni, mac, version: (1, 2), v4: None, v6: None }
}

/// An NVA with its secret, the generation of its keys, and the numbers that it gave out.
struct Nva {
    secret: Secret,
    generation: u32,
    last: u32,
}

impl Nva {
    fn new(secret: u8, generation: u32) -> Nva {
        Nva { secret: Secret([secret; 32]), generation, last: 0 }
    }

    fn receiver(&self, at: IpAddr) -> Secret {
        channel::receiver(&self.secret, self.generation, &NveId::new(format!("n{at}")).unwrap())
    }

    /// A session of the NVE at a locator: its secret, and the keys to all others.
    fn greet(&mut self, seals: &mut Seals, at: IpAddr) {
        self.last += 1;
        self.give(seals, at, self.last, false);
    }

    fn give(&self, seals: &mut Seals, at: IpAddr, sender: u32, alone: bool) {
        seals.set_key(self.generation, sender, self.receiver(at), alone);
        seals.add_pairs(&self.pairs(at, sender));
    }

    fn pairs(&self, at: IpAddr, sender: u32) -> Vec<PairKey> {
        let others = [A, B, C].into_iter().filter(|to| *to != at);
        let key = |to| channel::pair(&self.receiver(to), sender, at, to);
        others.map(|to| PairKey { from: at, to, number: self.generation, secret: key(to) }).collect()
    }
}

fn pair() -> (Seals, Seals, Nva) {
    let (mut a, mut b, mut nva) = (Seals::default(), Seals::default(), Nva::new(1, 1));
    nva.greet(&mut a, A);
    nva.greet(&mut b, B);
    (a, b, nva)
}

#[test]
fn r47_what_is_sealed_opens_once() {
    let (mut a, mut b, _) = pair();
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Ok(notice()));
    assert_eq!(b.open(A, B, &d), Err(Refused::Replayed));
    assert_eq!(a.open(A, B, &d), Err(Refused::Forged), "reflected");
    assert_eq!(Seals::default().seal(A, B, &notice()), None);
}

#[test]
fn r47_a_changed_or_redirected_datagram_is_forged() {
    let (mut a, mut b, _) = pair();
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(B, B, &d), Err(Refused::Forged), "from elsewhere");
    assert_eq!(b.open(A, A, &d), Err(Refused::Forged), "to elsewhere");
    for at in 8..LEN {
        let mut bad = d;
        bad[at] ^= 1;
        assert_eq!(b.open(A, B, &bad), Err(Refused::Forged), "byte {at}");
    }
    let mut other = d;
    other[7] ^= 1;
    assert_eq!(b.open(A, B, &other), Err(Refused::UnknownKey));
    let (mut stranger, mut nva) = (Seals::default(), Nva::new(2, 1));
    nva.greet(&mut stranger, A);
    let d2 = stranger.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d2), Err(Refused::Forged));
    assert_eq!(b.open(A, B, &d), Ok(notice()), "what was refused spent nothing");
}

#[test]
fn d13_an_insider_speaks_for_itself_only() {
    let (mut a, mut b, mut nva) = pair();
    let mut c = Seals::default();
    nva.greet(&mut c, C);
    // C has all that it was given: its own secret, and the keys of its pairs. It seals in A's name and number.
    assert_eq!(c.seal(A, B, &notice()), None, "it has no key of that pair");
    for secret in [nva.receiver(C), channel::pair(&nva.receiver(B), c.sender, C, B)] {
        let mut mallory = Seals::default();
        mallory.set_key(1, a.sender, secret, false);
        for key in [secret, channel::pair(&secret, a.sender, A, B)] {
            mallory.add_pairs(&[PairKey { from: A, to: B, number: 1, secret: key }]);
            let d = mallory.seal(A, B, &notice()).unwrap();
            assert_eq!(b.open(A, B, &d), Err(Refused::Forged));
        }
    }
    // Its own, with a source that is not its own.
    let d = c.seal(C, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Err(Refused::Forged));
    assert_eq!(a.open(C, A, &d), Err(Refused::Forged), "nor at another receiver");
    assert_eq!(b.open(C, B, &d), Ok(notice()));
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Ok(notice()), "A is heard as before");
}

#[test]
fn r47_datagrams_may_overtake_each_other_within_a_window() {
    let (mut a, mut b, _) = pair();
    let sent: Vec<Datagram> = (0..100).map(|_| a.seal(A, B, &notice()).unwrap()).collect();
    assert_eq!(b.open(A, B, &sent[70]), Ok(notice()));
    assert_eq!(b.open(A, B, &sent[10]), Ok(notice()));
    assert_eq!(b.open(A, B, &sent[10]), Err(Refused::Replayed));
    assert_eq!(b.open(A, B, &sent[6]), Err(Refused::Replayed), "too old to tell");
    assert_eq!(b.open(A, B, &sent[99]), Ok(notice()));
    assert_eq!(b.open(A, B, &sent[70]), Err(Refused::Replayed));
}

#[test]
fn d13_a_new_generation_and_a_new_session_keep_what_was_seen() {
    let (mut a, mut b, mut nva) = pair();
    let old = a.seal(A, B, &notice()).unwrap();
    let late = a.seal(A, B, &notice()).unwrap();
    let later = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &old), Ok(notice()));
    nva.greet(&mut b, B);
    assert_eq!(b.open(A, B, &old), Err(Refused::Replayed), "the same secret on a new session");
    nva.generation = 2;
    nva.give(&mut b, B, 3, false);
    assert_eq!(b.open(A, B, &late), Ok(notice()), "A has not heard of the new generation");
    assert_eq!(b.open(A, B, &late), Err(Refused::Replayed));
    // The receivers first: A has its new secret, and goes on with the old keys until new ones come.
    a.set_key(2, 1, nva.receiver(A), false);
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Ok(notice()));
    a.add_pairs(&nva.pairs(A, 1));
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Ok(notice()));
    // Another NVE was removed: what it may still have is worth nothing.
    nva.generation = 3;
    nva.give(&mut b, B, 3, true);
    assert_eq!(b.open(A, B, &later), Err(Refused::UnknownKey));
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Err(Refused::UnknownKey), "until A has its keys");
    nva.give(&mut a, A, 1, true);
    let d = a.seal(A, B, &notice()).unwrap();
    assert_eq!(b.open(A, B, &d), Ok(notice()));
}

/// Something that happens to A, B and C, which speak under one NVA after the other.
#[derive(Clone, Debug)]
enum Step {
    /// From one to another.
    Send(usize, usize),
    /// What was sent as the n-th arrives once more, perhaps elsewhere, perhaps changed.
    Again(usize, usize, usize, Option<u8>),
    /// The process of an NVE is started anew.
    Restart(usize),
    /// It connects anew.
    Reconnect(usize),
    /// New keys by time, or because an NVE is removed.
    Rotate(bool),
    /// The NVA is started anew, or another one takes over.
    OtherNva,
}

fn step() -> impl Strategy<Value = Step> {
    let nve = || 0..3usize;
    prop_oneof![
        6 => (nve(), nve()).prop_map(|(a, b)| Step::Send(a, b)),
        6 => (any::<usize>(), nve(), nve(), proptest::option::of(any::<u8>()))
            .prop_map(|(n, a, b, change)| Step::Again(n, a, b, change)),
        1 => nve().prop_map(Step::Restart),
        1 => nve().prop_map(Step::Reconnect),
        1 => any::<bool>().prop_map(Step::Rotate),
        1 => Just(Step::OtherNva),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Over restarts of either side and of the NVA: a datagram is believed at most once by one process, at its
    /// receiver, unchanged, and no nonce is used twice under one key.
    #[test]
    fn d13_replayed_forged_and_cross_sender_datagrams_change_nothing(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        const AT: [IpAddr; 3] = [A, B, C];
        let mut nva = Nva::new(1, 1);
        let mut seals = [Seals::default(), Seals::default(), Seals::default()];
        let mut numbers = [0; 3];
        for n in 0..3 {
            nva.greet(&mut seals[n], AT[n]);
            numbers[n] = nva.last;
        }
        let mut sent: Vec<(usize, usize, Datagram)> = Vec::new();
        let mut nonces = std::collections::BTreeSet::new();
        let mut believed = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Send(from, to) if from != to => {
                    let Some(d) = seals[from].seal(AT[from], AT[to], &notice()) else { continue };
                    let head = Head::parse(&d).unwrap();
                    let key = channel::pair(&nva.receiver(AT[to]), head.sender, AT[from], AT[to]);
                    if head.key == nva.generation {
                        prop_assert!(nonces.insert((key.0, head.sender, head.counter)), "a nonce twice");
                    }
                    sent.push((from, to, d));
                }
                Step::Again(n, from, to, change) if !sent.is_empty() => {
                    let n = n % sent.len();
                    let (source, receiver, mut d) = sent[n];
                    if let Some(at) = change {
                        d[usize::from(at) % LEN] ^= 1;
                    }
                    let opened = seals[to].open(AT[from], AT[to], &d).is_ok();
                    let right = (from, to) == (source, receiver) && change.is_none();
                    prop_assert!(!opened || right, "believed from {from} at {to}, sent from {source} to {receiver}");
                    prop_assert!(!opened || believed.insert((n, to)), "believed twice");
                }
                Step::Restart(n) => {
                    seals[n] = Seals::default();
                    nva.generation += 1;
                    // The NVA gives a receiver that was started anew a new secret: it has forgotten what it saw.
                    nva.greet(&mut seals[n], AT[n]);
                    numbers[n] = nva.last;
                    for m in (0..3).filter(|m| *m != n) {
                        nva.give(&mut seals[m], AT[m], numbers[m], false);
                    }
                }
                Step::Reconnect(n) => {
                    nva.greet(&mut seals[n], AT[n]);
                    numbers[n] = nva.last;
                }
                Step::Rotate(alone) => {
                    nva.generation += 1;
                    for n in 0..3 {
                        nva.give(&mut seals[n], AT[n], numbers[n], alone);
                    }
                }
                Step::OtherNva => {
                    nva = Nva::new(nva.secret.0[0].wrapping_add(1), nva.generation + 1);
                    for n in 0..3 {
                        nva.greet(&mut seals[n], AT[n]);
                        numbers[n] = nva.last;
                    }
                }
                _ => {}
            }
        }
    }
}

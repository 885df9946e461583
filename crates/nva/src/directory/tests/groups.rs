//! Multicast groups of NVEs (R61).

use godwit_model::{MAX_GROUPS, Multicast};

use super::*;

fn group(n: u16) -> IpAddr {
    Ipv4Addr::new(239, 1, (n / 250) as u8, (n % 250) as u8).into()
}

/// A VN that snoops, which is not VN red.
const VN: u32 = 101;

fn world() -> World {
    let mut w = World::new();
    let settings = VnSettings { multicast: Multicast::Snoop, ..VnSettings::default() };
    w.create_vn(VnRecord { vni: vni(VN), name: "tv".into(), settings }).unwrap();
    w
}

fn join(w: &mut World, name: &str) -> SessionId {
    let (session, _) = w.hello(name);
    w.say(session, NveToNva::Subscribe { vni: vni(VN), mode: DirectoryMode::Push, lingers: false });
    session
}

fn say(w: &mut World, s: SessionId, reset: bool, joined: &[IpAddr], left: &[IpAddr]) -> Vec<Output> {
    w.say(s, NveToNva::Groups { vni: vni(VN), reset, joined: joined.to_vec(), left: left.to_vec() })
}

/// What a session is told of groups: NVE, whether these are all, joined, left.
fn told(out: &[Output], to: SessionId) -> Vec<(String, bool, Vec<IpAddr>, Vec<IpAddr>)> {
    let of = sent(out, to).into_iter().filter_map(|m| match m {
        NvaToNve::Groups { nve, reset, joined, left, .. } => Some((nve.to_string(), reset, joined, left)),
        _ => None,
    });
    of.collect()
}

fn errors(out: &[Output], to: SessionId) -> usize {
    sent(out, to).iter().filter(|m| matches!(m, NvaToNve::Error { .. })).count()
}

#[test]
fn r61_what_an_nve_joins_and_leaves_is_told_to_the_others_of_its_vn_alone() {
    let mut w = world();
    let (a, b) = (join(&mut w, "a"), join(&mut w, "b"));
    let other = w.join("c");
    let out = say(&mut w, a, true, &[group(1), group(2)], &[]);
    assert_eq!(told(&out, b), [("a".into(), true, vec![group(1), group(2)], vec![])]);
    assert_eq!((told(&out, a), told(&out, other)), (vec![], vec![]));
    let out = say(&mut w, a, false, &[group(3)], &[group(1)]);
    assert_eq!(told(&out, b), [("a".into(), false, vec![group(3)], vec![group(1)])]);
    assert_eq!(say(&mut w, a, false, &[group(3)], &[group(9)]), [], "no news");
    // The whole once more, as after a reconnect: only the difference is news.
    let out = say(&mut w, a, true, &[group(3), group(4)], &[]);
    assert_eq!(told(&out, b), [("a".into(), false, vec![group(4)], vec![group(2)])]);
}

#[test]
fn r61_a_snapshot_ends_with_the_groups_of_all_others() {
    let mut w = world();
    let a = join(&mut w, "a");
    say(&mut w, a, true, &[group(1)], &[]);
    let (b, _) = w.hello("b");
    let out = w.say(b, NveToNva::Subscribe { vni: vni(VN), mode: DirectoryMode::Push, lingers: false });
    let end = sent(&out, b).iter().position(|m| matches!(m, NvaToNve::End { .. }));
    let groups = sent(&out, b).iter().position(|m| matches!(m, NvaToNve::Groups { .. }));
    assert!(end.is_some() && end < groups);
    assert_eq!(told(&out, b), [("a".into(), true, vec![group(1)], vec![])]);
    // One without a session cannot say what it wants.
    w.define_nve(&id("tor"), locators(99)).unwrap();
    w.define_vm(VmDefinition { vn: "tv".into(), pinned: Some(id("tor")), ..definition(9) }).unwrap();
    let out = w.say(b, NveToNva::Subscribe { vni: vni(VN), mode: DirectoryMode::Push, lingers: false });
    let every: [IpAddr; 2] = [[0, 0, 0, 0].into(), std::net::Ipv6Addr::UNSPECIFIED.into()];
    assert!(told(&out, b).contains(&("tor".into(), true, every.to_vec(), vec![])), "{:?}", told(&out, b));
}

#[test]
fn r61_groups_stay_while_their_nve_is_a_member_connected_or_not() {
    let mut w = world();
    let a = join(&mut w, "a");
    say(&mut w, a, true, &[group(1)], &[]);
    w.leave(a);
    let b = join(&mut w, "b");
    let again = NveToNva::Subscribe { vni: vni(VN), mode: DirectoryMode::Push, lingers: false };
    let out = w.say(b, again.clone());
    assert_eq!(told(&out, b).len(), 1, "its VMs go on without the NVA");
    let a = join(&mut w, "a");
    w.say(a, NveToNva::Unsubscribe { vni: vni(VN) });
    let out = w.say(b, again.clone());
    assert_eq!(told(&out, b), []);
    // A restart forgets, and says nothing of who has not spoken yet.
    let a = join(&mut w, "a");
    say(&mut w, a, true, &[group(1)], &[]);
    w.restart();
    let (b, _) = w.hello("b");
    let out = w.say(b, again);
    assert_eq!(told(&out, b), []);
}

#[test]
fn r61_bad_words_are_refused_and_groups_have_a_bound() {
    let mut w = world();
    let (a, b) = (join(&mut w, "a"), join(&mut w, "b"));
    let out = say(&mut w, a, false, &[ip(1)], &[]);
    assert_eq!((errors(&out, a), told(&out, b)), (1, vec![]));
    let out =
        w.say(a, NveToNva::Groups { vni: vni(100), reset: false, joined: vec![group(1)], left: vec![] });
    assert_eq!(errors(&out, a), 1, "not subscribed");
    let many: Vec<IpAddr> = (0..1100).map(group).collect();
    let out = say(&mut w, a, true, &many, &[]);
    assert_eq!(errors(&out, a), 1);
    assert_eq!(told(&out, b)[0].2.len(), MAX_GROUPS);
    let out = say(&mut w, a, false, &[], &many[..1]);
    assert_eq!((errors(&out, a), told(&out, b)[0].3.len()), (0, 1));
    let out = say(&mut w, a, false, &many[1099..], &[]);
    assert_eq!((errors(&out, a), told(&out, b)[0].2.len()), (0, 1), "there is room again");
}

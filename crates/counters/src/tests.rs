//! Sets as their users make them.

use crate::{Descriptor, Entry, Kind, Unit};

crate::drop_reasons! {
    /// Why a letter was lost.
    Lost;

    /// Nobody lives
    /// there.
    Nobody = "nobody",
    /// The stamp is missing.
    NoStamp = "no_stamp",
}

crate::counters! {
    /// Counters of a post office.
    Office;

    /// Letters taken in.
    taken: Packets,
    /// Their weight.
    weight = "grams": Bytes,
    /// Letters that lie there now.
    waiting: One as Gauge,
    by Lost:
    /// Letters lost, by reason.
    lost,
}

crate::counters! {
    /// Counters that nothing adds to.
    Short;

    /// Time spent.
    spent: Nanoseconds,
}

fn shown(entries: impl Iterator<Item = Entry>) -> Vec<(&'static str, Unit, Kind, u64)> {
    entries.map(|e| (e.descriptor.name, e.descriptor.unit, e.descriptor.kind, e.value)).collect()
}

#[test]
fn entries_come_in_the_order_of_their_definition_with_all_that_is_said_of_them() {
    let mut office = Office { taken: 5, weight: 90, ..Office::default() };
    office.waiting += 2;
    office.lost[Lost::NoStamp as usize] += 1;
    let expected = [
        ("taken", Unit::Packets, Kind::Count, 5),
        ("grams", Unit::Bytes, Kind::Count, 90),
        ("waiting", Unit::One, Kind::Gauge, 2),
        ("nobody", Unit::Packets, Kind::Drop, 0),
        ("no_stamp", Unit::Packets, Kind::Drop, 1),
    ];
    assert_eq!(shown(office.entries()), expected);
    assert_eq!(shown(Short { spent: 7 }.entries()), [("spent", Unit::Nanoseconds, Kind::Count, 7)]);
    let helps: Vec<_> = office.entries().map(|e| e.descriptor.help).collect();
    assert_eq!(helps[1..4], ["Their weight.", "Letters that lie there now.", "Nobody lives there."]);
}

#[test]
fn sets_add_up() {
    let mut sum = Office { taken: 1, lost: [3, 0], ..Office::default() };
    sum += &Office { taken: 2, waiting: 4, lost: [1, 1], ..Office::default() };
    assert_eq!(sum, Office { taken: 3, weight: 0, waiting: 4, lost: [4, 1] });
}

#[test]
fn reasons_know_their_counters() {
    for (i, reason) in Lost::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, i);
        let d = Lost::DESCRIPTORS[i];
        assert_eq!((d.name, d.help), (reason.name(), reason.help()));
    }
}

/// Names and helps that the macros refuse to compile.
#[test]
fn names_are_words_and_helps_are_sentences() {
    let made = |name, help| std::panic::catch_unwind(|| Descriptor::new(name, Unit::One, Kind::Count, help));
    assert!(made("rx_packets2", "Packets.").is_ok());
    for (name, help) in
        [("", "X."), ("Rx", "X."), ("2rx", "X."), ("rx-1", "X."), ("rx", "X"), ("rx", " X."), ("rx", "")]
    {
        assert!(made(name, help).is_err(), "{name:?} {help:?}");
    }
}

#[test]
fn units_and_kinds_have_names() {
    let units = [Unit::One, Unit::Packets, Unit::Bytes, Unit::Nanoseconds].map(Unit::as_str);
    assert_eq!(units, ["1", "packets", "bytes", "nanoseconds"]);
    assert_eq!([Kind::Count, Kind::Drop, Kind::Gauge].map(Kind::as_str), ["count", "drop", "gauge"]);
}

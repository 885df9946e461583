//! What a counter says of itself.

/// What the value is a number of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unit {
    /// Events or things, one by one.
    One,
    /// Packets, or frames.
    Packets,
    /// Bytes.
    Bytes,
    /// Time.
    Nanoseconds,
}

impl Unit {
    /// The unit's name; `1` for what has none.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unit::One => "1",
            Unit::Packets => "packets",
            Unit::Bytes => "bytes",
            Unit::Nanoseconds => "nanoseconds",
        }
    }
}

/// How the value changes, and what that means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// It rises.
    Count,
    /// It rises by what is lost.
    Drop,
    /// It rises and falls: a state, not a sum of events.
    Gauge,
}

impl Kind {
    /// The kind's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Count => "count",
            Kind::Drop => "drop",
            Kind::Gauge => "gauge",
        }
    }
}

/// A counter without its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Its name, as operators and scripts know it.
    pub name: &'static str,
    /// What it is a number of.
    pub unit: Unit,
    /// How it changes.
    pub kind: Kind,
    /// One line for the operator.
    pub help: &'static str,
}

impl Descriptor {
    /// Of a counter.
    ///
    /// # Panics
    /// Where the name has other characters than `a-z 0-9 _`, or the help is no sentence. The macros make descriptors at
    /// compile time, so a bad one does not compile.
    pub const fn new(name: &'static str, unit: Unit, kind: Kind, help: &'static str) -> Descriptor {
        assert!(is_name(name), "a counter's name has letters a to z first, then digits and underscores too");
        assert!(is_sentence(help), "a counter's help begins without a blank and ends with a period");
        Descriptor { name, unit, kind, help }
    }
}

const fn is_name(name: &str) -> bool {
    let mut rest = name.as_bytes();
    let mut first = true;
    while let [c, others @ ..] = rest {
        if !(c.is_ascii_lowercase() || !first && (c.is_ascii_digit() || *c == b'_')) {
            return false;
        }
        (rest, first) = (others, false);
    }
    !first
}

const fn is_sentence(help: &str) -> bool {
    matches!(help.as_bytes(), [first, .., b'.'] if !first.is_ascii_whitespace())
}

/// A counter with its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What it is.
    pub descriptor: &'static Descriptor,
    /// Its value, in the descriptor's unit.
    pub value: u64,
}

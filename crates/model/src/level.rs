//! Importance of a line of the log, at NVE and NVA alike.

/// How much a line of the log matters. The cores make lines with a level; the programs around them map it to that of
/// their log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// For those who look for something.
    Debug,
    /// The course of things.
    Info,
    /// Something was refused, is late or differs.
    Warn,
    /// A person should look.
    Alarm,
}

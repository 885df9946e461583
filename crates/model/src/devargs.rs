//! Device arguments, and which of them a switch lets others order (D2).
//!
//! A device's arguments name files and interfaces of the host, and the switch runs as root: whoever may order a port
//! may write `/etc/passwd` by way of `net_pcap`. A switch's own file lists what may be ordered: drivers, their keys,
//! and for values that are paths the directories that they lie in.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Bytes of device arguments.
const LONGEST: usize = 1024;
/// The driver of devices on the PCI bus, in rules.
const PCI: &str = "pci";

/// Device arguments in their parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Devargs<'a> {
    /// The device: a PCI address, or a driver with a number.
    pub device: &'a str,
    /// The driver: the device without its number, `pci` of a PCI address.
    pub driver: &'a str,
    /// Keys with their values, each key once.
    pub args: Vec<(&'a str, &'a str)>,
}

/// Device arguments that cannot be told apart with certainty.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadDevargs {
    /// Too many of them.
    #[error("{0} bytes of device arguments are more than {LONGEST}")]
    TooLong(usize),
    /// A character that has a meaning of its own, or none.
    #[error("{0:?} may not stand in device arguments")]
    Character(char),
    /// The first part is no device.
    #[error("{0:?} is no device: write a PCI address or a driver with a number, as in net_vhost0")]
    Device(String),
    /// A part that is no argument.
    #[error("{0:?} is no argument: write KEY=VALUE")]
    Argument(String),
    /// What the driver would do then is not certain.
    #[error("the key {0:?} is there twice")]
    Twice(String),
}

/// A part of a PCI address: so many hexadecimal digits.
fn is_hex(s: &str, digits: usize) -> bool {
    s.len() == digits && s.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `0000:03:00.0` or `03:00.0`.
fn is_pci(device: &str) -> bool {
    let mut parts = device.rsplitn(3, ':');
    let (Some(slot), Some(bus)) = (parts.next(), parts.next()) else { return false };
    let domain = parts.next().is_none_or(|d| is_hex(d, 4));
    let slot = slot.split_once('.').is_some_and(|(slot, function)| is_hex(slot, 2) && is_hex(function, 1));
    domain && is_hex(bus, 2) && slot
}

fn is_word(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl<'a> Devargs<'a> {
    /// Tells the parts of device arguments apart as DPDK does; what DPDK could read in another way is refused.
    ///
    /// # Errors
    /// Where they are too long, have characters with a meaning (lists, quotes, blanks), a part that is no argument, or
    /// a key twice.
    pub fn parse(text: &'a str) -> Result<Devargs<'a>, BadDevargs> {
        if text.len() > LONGEST {
            return Err(BadDevargs::TooLong(text.len()));
        }
        let may = |c: &char| c.is_ascii_graphic() && !"[](){}<>\"'`\\;|&$!?*#^".contains(*c);
        if let Some(c) = text.chars().find(|c| !may(c)) {
            return Err(BadDevargs::Character(c));
        }
        let (first, rest) = text.split_once(',').map_or((text, None), |(first, rest)| (first, Some(rest)));
        // The switch's own form, as in vhost=PATH.
        let (device, own) = first.split_once('=').map_or((first, None), |(d, value)| (d, Some((d, value))));
        let driver = match is_pci(device) {
            true => PCI,
            false => device.trim_end_matches(|c: char| c.is_ascii_digit()),
        };
        if !(driver == PCI && own.is_none() && is_pci(device) || is_word(driver) && driver != PCI) {
            return Err(BadDevargs::Device(device.into()));
        }
        let mut args: Vec<(&str, &str)> = own.into_iter().collect();
        for part in rest.into_iter().flat_map(|r| r.split(',')) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if !is_word(key) || value.contains('=') {
                return Err(BadDevargs::Argument(part.into()));
            }
            if args.iter().any(|(k, _)| *k == key) {
                return Err(BadDevargs::Twice(key.into()));
            }
            args.push((key, value));
        }
        Ok(Devargs { device, driver, args })
    }
}

/// What a key may have as its value.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Values {
    /// Anything that is no path.
    Any,
    /// This.
    Exactly(String),
    /// What begins so and is no path.
    Begins(String),
    /// A path below this directory.
    Below(PathBuf),
}

/// A driver that others may order devices of, with the keys that they may give it.
///
/// Written as in `net_vhost: iface=/run/godwit/, queues, tso`: a key alone may have any value that is no path, one with
/// a directory (its `/` at the end) a path below that, one with a text this value, and with a `*` behind it values that
/// begin so. `pci` stands for all devices on the PCI bus, an address for one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevargsRule {
    driver: String,
    keys: BTreeMap<String, Values>,
}

/// Text that is no rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadDevargsRule {
    /// No driver.
    #[error("{0:?} is no driver: write one without a number, as in net_vhost, or pci, or a PCI address")]
    Driver(String),
    /// No key.
    #[error("{0:?} is no key: write a word, and what its value may be, as in iface=/run/godwit/")]
    Key(String),
    /// A key that is there twice.
    #[error("the key {0:?} is there twice")]
    Twice(String),
    /// A path that is no plain directory.
    #[error(
        "{0:?} is no directory that paths may lie in: write it from / on, without . and .., with a / at its end"
    )]
    Directory(String),
}

/// From the root on, with no step back.
fn is_plain(path: &Path) -> bool {
    let mut parts = path.components();
    let text = path.as_os_str().as_encoded_bytes();
    let dots = text.split(|b| *b == b'/').any(|part| part == b"." || part == b"..");
    parts.next() == Some(Component::RootDir) && parts.all(|c| matches!(c, Component::Normal(_))) && !dots
}

fn values(text: Option<&str>) -> Result<Values, BadDevargsRule> {
    let Some(text) = text else { return Ok(Values::Any) };
    if let Some(begin) = text.strip_suffix('*').filter(|b| !b.contains(['*', '/'])) {
        return Ok(Values::Begins(begin.into()));
    }
    if !text.contains(['/', '*']) {
        return Ok(Values::Exactly(text.into()));
    }
    let path = Path::new(text);
    if text.ends_with('/') && !text.contains('*') && is_plain(path) {
        return Ok(Values::Below(path.into()));
    }
    Err(BadDevargsRule::Directory(text.into()))
}

impl FromStr for DevargsRule {
    type Err = BadDevargsRule;

    fn from_str(text: &str) -> Result<DevargsRule, BadDevargsRule> {
        // A PCI address has colons of its own: those of a driver's keys have a blank or the end behind them.
        let end = text.char_indices().find(|(n, c)| *c == ':' && text[n + 1..].starts_with([' ', '\t']));
        let (driver, keys) = end.map_or((text, ""), |(n, _)| (&text[..n], &text[n + 1..]));
        let driver = driver.trim().trim_end_matches(':');
        let numbered = driver.ends_with(|c: char| c.is_ascii_digit());
        if !is_pci(driver) && (!is_word(driver) || numbered) {
            return Err(BadDevargsRule::Driver(driver.into()));
        }
        let mut rule = DevargsRule { driver: driver.into(), keys: BTreeMap::new() };
        for part in keys.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = part.split_once('=').map_or((part, None), |(k, v)| (k, Some(v)));
            if !is_word(key) {
                return Err(BadDevargsRule::Key(part.into()));
            }
            if rule.keys.insert(key.into(), values(value)?).is_some() {
                return Err(BadDevargsRule::Twice(key.into()));
            }
        }
        Ok(rule)
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Values::Any => f.write_str("a value that is no path"),
            Values::Exactly(text) => f.write_str(text),
            Values::Begins(begin) => write!(f, "{begin}*"),
            Values::Below(dir) => write!(f, "a path below {}", dir.display()),
        }
    }
}

/// A path that device arguments name, and the directory that it must lie in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathBelow {
    /// The path.
    pub path: PathBuf,
    /// The directory.
    pub below: PathBuf,
}

/// Why device arguments may not be ordered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DevargsRefusal {
    /// They cannot be read.
    #[error(transparent)]
    Bad(#[from] BadDevargs),
    /// The driver is not in the list.
    #[error("nve.devargs_allow has no driver {driver:?}, it has {known}; add it to the switch's own file")]
    Driver {
        /// The driver.
        driver: String,
        /// Those that it has.
        known: String,
    },
    /// The key is not in the list.
    #[error("nve.devargs_allow has no key {key:?} for {driver}; add it to the switch's own file")]
    Key {
        /// The driver.
        driver: String,
        /// The key.
        key: String,
    },
    /// The value is not in the list.
    #[error("nve.devargs_allow has for the key {key:?} of {driver}: {may}, and not {value:?}")]
    Value {
        /// The driver.
        driver: String,
        /// The key.
        key: String,
        /// What it may be.
        may: String,
        /// What it is.
        value: String,
    },
    /// The path leads out of its directory.
    #[error("{} leads to {}, which is not below {} as nve.devargs_allow wants", path.display(), leads.display(),
        below.display())]
    Leads {
        /// The path.
        path: PathBuf,
        /// Where it leads.
        leads: PathBuf,
        /// Where it should.
        below: PathBuf,
    },
    /// Where the path leads cannot be found out.
    #[error("cannot find out where {} leads: {why}; make its directory first", path.display())]
    Unknown {
        /// The path.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// Whether the rules let these device arguments be ordered; the paths that are to be looked at then, since a link may
/// lead elsewhere.
///
/// # Errors
/// Names the first part that no rule has.
pub fn check_devargs(devargs: &str, rules: &[DevargsRule]) -> Result<Vec<PathBelow>, DevargsRefusal> {
    let Devargs { device, driver, args } = Devargs::parse(devargs)?;
    let of =
        |name: &str| rules.iter().filter(move |r| r.driver.eq_ignore_ascii_case(name)).collect::<Vec<_>>();
    let mut mine = of(driver);
    if driver == PCI {
        mine.extend(of(device));
    }
    if mine.is_empty() {
        let known: Vec<&str> = rules.iter().map(|r| r.driver.as_str()).collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        let driver = if driver == PCI { device } else { driver };
        return Err(DevargsRefusal::Driver { driver: driver.into(), known });
    }
    // Of several rules for a driver one allows all of them.
    let mut refusal = None;
    for rule in mine {
        match rule.check(driver, &args) {
            Ok(paths) => return Ok(paths),
            Err(why) => refusal = refusal.or(Some(why)),
        }
    }
    Err(refusal.unwrap_or(DevargsRefusal::Driver { driver: driver.into(), known: "none".into() }))
}

impl DevargsRule {
    fn check(&self, driver: &str, args: &[(&str, &str)]) -> Result<Vec<PathBelow>, DevargsRefusal> {
        let mut paths = Vec::new();
        for (key, value) in args {
            let Some(values) = self.keys.get(*key) else {
                return Err(DevargsRefusal::Key { driver: driver.into(), key: (*key).into() });
            };
            let fits = match values {
                Values::Any => !value.contains('/'),
                Values::Exactly(text) => text == value,
                Values::Begins(begin) => value.starts_with(begin) && !value.contains('/'),
                Values::Below(dir) => {
                    let path = Path::new(value);
                    paths.push(PathBelow { path: path.into(), below: dir.clone() });
                    is_plain(path) && path.starts_with(dir) && path != dir && !value.ends_with('/')
                }
            };
            if !fits {
                return Err(DevargsRefusal::Value {
                    driver: driver.into(),
                    key: (*key).into(),
                    may: values.to_string(),
                    value: (*value).into(),
                });
            }
        }
        Ok(paths)
    }
}

impl PathBelow {
    /// Whether the path leads below its directory, whatever links are on the way. `resolve` follows links, as
    /// [`std::fs::canonicalize`] does; `is_there` follows none.
    ///
    /// # Errors
    /// Where it leads elsewhere, or that cannot be found out.
    pub fn check(
        &self,
        resolve: impl Fn(&Path) -> io::Result<PathBuf>,
        is_there: impl Fn(&Path) -> bool,
    ) -> Result<(), DevargsRefusal> {
        let unknown =
            |why: io::Error| DevargsRefusal::Unknown { path: self.path.clone(), why: why.to_string() };
        let below = resolve(&self.below).map_err(unknown)?;
        let leads = match resolve(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // It is to be made: in a directory that is there.
                let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else {
                    return Err(unknown(e));
                };
                let made = resolve(dir).map_err(unknown)?.join(name);
                // A link that leads to nothing is there all the same, and what is made at its end is made elsewhere.
                if is_there(&self.path) {
                    return Err(unknown(io::Error::new(e.kind(), "it is a link that leads nowhere")));
                }
                made
            }
            led => led.map_err(unknown)?,
        };
        if leads.starts_with(&below) && leads != below {
            return Ok(());
        }
        Err(DevargsRefusal::Leads { path: self.path.clone(), leads, below: self.below.clone() })
    }
}

#[cfg(test)]
mod tests;

//! Core masks and lists as operators write them: `0x3c`, `2-5`, `0,2,4-6`.

use std::collections::BTreeSet;

/// A text that names no cores.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCores {
    /// An empty set.
    #[error("{0:?} names no core; write a mask such as 0x3c or a list such as 2-5")]
    Empty(String),
    /// No mask, though it begins as one.
    #[error("{0:?} is not a core mask; write hexadecimal digits after 0x, as in 0x3c")]
    Mask(String),
    /// A part of a list that cannot be read.
    #[error(
        "{part:?} in {text:?} is not a core or a range; write numbers and ranges such as 2-5,7, or a mask such as 0x3c"
    )]
    Part {
        /// The part.
        part: String,
        /// The list.
        text: String,
    },
}

/// Parses a mask (`0x3c`) or a list (`2-5,7`) into core numbers, ascending.
///
/// # Errors
/// Text that is neither, an empty set, or a core number above 1023; the message says what was expected.
pub fn parse(text: &str) -> Result<Vec<usize>, BadCores> {
    let text = text.trim();
    let cores = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => parse_mask(text, hex)?,
        None => parse_list(text)?,
    };
    if cores.is_empty() {
        return Err(BadCores::Empty(text.into()));
    }
    Ok(cores.into_iter().collect())
}

fn parse_mask(text: &str, hex: &str) -> Result<BTreeSet<usize>, BadCores> {
    let bad = || BadCores::Mask(text.into());
    if hex.is_empty() || hex.len() > 256 {
        return Err(bad());
    }
    let mut cores = BTreeSet::new();
    for (i, c) in hex.chars().rev().enumerate() {
        let digit = c.to_digit(16).ok_or_else(bad)?;
        cores.extend((0..4).filter(|b| digit >> b & 1 == 1).map(|b| i * 4 + b));
    }
    Ok(cores)
}

fn parse_list(text: &str) -> Result<BTreeSet<usize>, BadCores> {
    let bad = |part: &str| BadCores::Part { part: part.into(), text: text.into() };
    let number = |s: &str, part: &str| -> Result<usize, BadCores> {
        s.trim().parse::<usize>().ok().filter(|&n| n < 1024).ok_or_else(|| bad(part))
    };
    let mut cores = BTreeSet::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => {
                cores.insert(number(part, part)?);
            }
            Some((a, b)) => {
                let (a, b) = (number(a, part)?, number(b, part)?);
                if a > b {
                    return Err(bad(part));
                }
                cores.extend(a..=b);
            }
        }
    }
    Ok(cores)
}

/// The cores that this process may run on, ascending, isolated ones included.
///
/// Read from the kernel's list of online cores, since an affinity query hides isolated cores.
pub fn online() -> Vec<usize> {
    std::fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|t| parse(&t).ok())
        .unwrap_or_else(|| (0..std::thread::available_parallelism().map_or(1, usize::from)).collect())
}

/// The NUMA node of a core; `None` where the kernel tells none.
pub fn node(core: usize) -> Option<u32> {
    let folder = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")).ok()?;
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("node")?.parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_lists() {
        assert_eq!(parse("0x3c").unwrap(), [2, 3, 4, 5]);
        assert_eq!(parse("0x1").unwrap(), [0]);
        assert_eq!(parse("0x8000000000000000f").unwrap(), [0, 1, 2, 3, 67]);
        assert_eq!(parse("2-5").unwrap(), [2, 3, 4, 5]);
        assert_eq!(parse("7,0-1,1").unwrap(), [0, 1, 7]);
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        for bad in ["", "0x", "0x0", "0xg", "a", "3-1", "1-", "-1", "1,,2", "5000"] {
            let e = parse(bad).unwrap_err().to_string();
            assert!(e.contains("0x3c"), "{bad:?}: {e}");
        }
    }
}

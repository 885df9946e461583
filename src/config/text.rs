//! Values that are written as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Reads a value from its text.
pub fn from_text<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<T, D::Error>
where
    T::Err: fmt::Display,
{
    let text = String::deserialize(d)?;
    text.parse().map_err(serde::de::Error::custom)
}

/// Reads an address with the length of its prefix.
pub fn net<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<T, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address with a prefix length, such as 198.18.0.1/24 or 2001:db8::1/64"
        ))
    })
}

/// As [`net`], for a key that may be absent.
pub fn optional_net<'de, D: Deserializer<'de>, T: FromStr>(d: D) -> Result<Option<T>, D::Error> {
    net(d).map(Some)
}

//! What the environment asks for.

use std::env;
use std::fs;
use std::io;
use std::sync::OnceLock;

use crate::capture::{BadCapture, Capture};

/// Name of the variable with the path of the capture that is played, or with several, separated by commas. Without it
/// nothing is done.
pub const CAPTURE: &str = "GODWIT_REPLAY_CAPTURE";
/// Name of the variable with the device that plays it, such as `net_null0`; one for each capture.
pub const DEVICE: &str = "GODWIT_REPLAY_DEVICE";
/// Name of the variable with the MAC address that the device says it has, such as `02:00:00:00:00:01`;
/// without it the device has its own.
pub const MAC: &str = "GODWIT_REPLAY_MAC";

/// What is asked for.
pub struct Settings {
    /// What is played.
    pub plays: Vec<Play>,
    /// What the devices say their address is.
    pub mac: Option<[u8; 6]>,
}

/// A capture and a device.
pub struct Play {
    /// What is played.
    pub capture: Capture,
    /// By which device.
    pub device: String,
}

impl Settings {
    /// What a device plays.
    pub fn of(&self, device: &[u8]) -> Option<&Play> {
        self.plays.iter().find(|play| play.device.as_bytes() == device)
    }
}

/// A variable that cannot be followed, and why.
#[derive(Debug, thiserror::Error)]
pub enum BadSetting {
    /// The capture cannot be read.
    #[error("{CAPTURE}: {path}: {error}")]
    Unreadable {
        /// Its path.
        path: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The file is no capture.
    #[error("{CAPTURE}: {path}: {why}")]
    NoCapture {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: BadCapture,
    },
    /// The device is missing, or there are more captures or fewer than devices.
    #[error("{DEVICE} is to name the device that plays {path}, one for each capture")]
    NoDevice {
        /// Path of the capture.
        path: String,
    },
    /// The device's address cannot be read.
    #[error("{MAC}: {text:?} is no MAC address")]
    NoMac {
        /// The variable's value.
        text: String,
    },
}

/// What the environment asked for when it was looked at first; `None` if for nothing.
///
/// # Errors
/// Which variable is wrong, and why.
pub fn get() -> Result<Option<&'static Settings>, &'static BadSetting> {
    static ONCE: OnceLock<Result<Option<Settings>, BadSetting>> = OnceLock::new();
    let settings = ONCE.get_or_init(|| read(|name| env::var(name).ok()));
    settings.as_ref().map(Option::as_ref)
}

fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Settings>, BadSetting> {
    let Some(paths) = variable(CAPTURE) else { return Ok(None) };
    let devices = variable(DEVICE).unwrap_or_default();
    let devices: Vec<&str> = devices.split(',').filter(|d| !d.is_empty()).collect();
    let mut plays = Vec::new();
    for (n, path) in paths.split(',').enumerate() {
        let path = path.to_owned();
        let bytes = fs::read(&path).map_err(|error| BadSetting::Unreadable { path: path.clone(), error })?;
        let capture =
            Capture::parse(&bytes).map_err(|why| BadSetting::NoCapture { path: path.clone(), why })?;
        let device = (*devices.get(n).ok_or(BadSetting::NoDevice { path })?).to_owned();
        plays.push(Play { capture, device });
    }
    if plays.len() < devices.len() {
        return Err(BadSetting::NoDevice { path: paths });
    }
    let mac = match variable(MAC) {
        None => None,
        Some(text) => Some(mac(&text).ok_or(BadSetting::NoMac { text })?),
    };
    Ok(Some(Settings { plays, mac }))
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let parts: Option<Vec<u8>> = text.split(':').map(|p| u8::from_str_radix(p, 16).ok()).collect();
    parts?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let with = |list: &[(&'static str, &'static str)]| {
            let list = list.to_vec();
            read(move |name| list.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert!(with(&[(DEVICE, "net_null0")]).unwrap().is_none(), "nothing is asked for");
        let why = with(&[(CAPTURE, "/nowhere/at/all")]).err().unwrap().to_string();
        assert!(why.starts_with("GODWIT_REPLAY_CAPTURE: /nowhere/at/all: "), "{why}");
        let why = with(&[(CAPTURE, "/dev/null")]).err().unwrap().to_string();
        assert!(why.contains("no little-endian pcap"), "{why}");
        let why = with(&[(CAPTURE, "/nowhere,/nowhere"), (DEVICE, "net_null0")]).err().unwrap().to_string();
        assert!(why.starts_with("GODWIT_REPLAY_CAPTURE: /nowhere: "), "{why}");
        assert_eq!(mac("02:70:63:61:70:00"), Some([2, 0x70, 0x63, 0x61, 0x70, 0]));
        assert_eq!((mac("02:70:63:61:70"), mac("02:70:63:61:70:zz")), (None, None));
    }
}

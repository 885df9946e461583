//! Frames as tshark reads them, which nobody here wrote.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::pcap;

/// Which of a frame's headers is meant where it has several of a kind, one within the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// The first.
    Outer,
    /// The last.
    Inner,
    /// All of them, from the outside, with commas between.
    All,
}

/// Files of one process have different names.
static FILES: AtomicU32 = AtomicU32::new(0);

/// The fields of each frame by their names in Wireshark, joined by blanks; one that is not there leaves its place
/// empty, and what is malformed ends with the word. Checksums are looked at.
///
/// # Panics
/// Where there is no tshark, or it does not know a field.
pub fn read(frames: &[Vec<u8>], which: Which, fields: &str) -> Vec<String> {
    let file = format!("godwit-{}-{}.pcap", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(file);
    pcap::save(&path, frames).expect("the temporary folder takes a file");
    let occurrence = match which {
        Which::Outer => "occurrence=f",
        Which::Inner => "occurrence=l",
        Which::All => "occurrence=a",
    };
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path);
    for check in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{check}.check_checksum:TRUE")]);
    }
    // Tunnels may go without over IPv6, too (RFC 6935).
    tshark.args(["-o", "udp.ignore_ipv6_zero_checksum:TRUE"]);
    tshark.args(["-T", "fields", "-E", "separator= ", "-E", occurrence]);
    for f in fields.split_whitespace().chain(["_ws.malformed"]) {
        tshark.args(["-e", f]);
    }
    let out = tshark.output();
    std::fs::remove_file(&path).expect("it was there");
    let out = out.expect("tshark is needed: apt-get install tshark");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|l| l.trim_end().to_owned()).collect()
}

//! The body of the fuzz target `guest`: scripts at a port of a switch that runs.
//!
//! The folder in `GODWIT_FUZZ_PORTS` has the sockets of three vhost-user ports, `g0.vhost` to `g2.vhost`, with the
//! addresses of [`Station::numbered`]. The first two are of guests that watch.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::script;
use crate::watch::{Station, Watch};

/// Name of the variable with the folder of the ports' sockets.
pub const PORTS: &str = "GODWIT_FUZZ_PORTS";
/// Scripts between two looks at the guests that watch.
const AT_ONCE: usize = 32;

struct Range {
    watch: Watch,
    evil: Station,
    frame: Vec<u8>,
    played: usize,
}

fn start() -> Mutex<Range> {
    let folder = std::env::var_os(PORTS).unwrap_or_else(|| panic!("{PORTS} names no folder of sockets"));
    let station = |n: u8| Station::numbered(folder.as_ref(), n);
    let watch = Watch::start([station(0), station(1)], vec![station(2)]);
    let watch = watch.unwrap_or_else(|e| panic!("no switch has ports g0 and g1: {e}"));
    let frame = station(2).frame(&station(0), 7300, &[0x5a; 400]);
    Mutex::new(Range { watch, evil: station(2), frame, played: 0 })
}

/// Plays one script.
///
/// # Panics
/// Where there is no switch, or its ordinary guests are not well any more.
pub fn guest(bytes: &[u8]) {
    static RANGE: OnceLock<Mutex<Range>> = OnceLock::new();
    let mut range = RANGE.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner);
    let played = script::play(&range.evil.socket, bytes, &range.frame);
    range.played += 1;
    // A port that nobody listens at any more is the end of the switch.
    if played.is_err() || range.played.is_multiple_of(AT_ONCE) {
        let seen = range.watch.look();
        assert!(seen.is_well(), "the switch's other guests are not well: {seen:?}; {played:?}");
    }
}

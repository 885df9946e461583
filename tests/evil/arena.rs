//! A switch with a port for the hostile guest and two for ordinary ones, which watch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use godwit_frontend::{Guest, Header, Settings, Station, Watch, features};
use serde_json::Value;

use crate::common::net::{Namespace, Switch, ctl, start};

/// How long the port may take to be ready for the next guest.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the switch may take to close what a guest had.
const QUIET: Duration = Duration::from_millis(500);
/// How long the guests that watch send after what was tried, until they are asked.
const AFTERWARDS: Duration = Duration::from_millis(100);
/// Who watches, and who is hostile. One more port is of a newcomer.
const WATCH: [u8; 2] = [0, 1];
const EVIL: u8 = 2;
const NEWCOMER: u8 = 3;
/// UDP port of frames that say that a guest is well.
const HELLO: u16 = 7200;

/// What is tried, with its name.
pub type Case = (&'static str, fn(&Arena));

/// The switch and its guests.
pub struct Arena {
    folder: tempfile::TempDir,
    _namespace: Namespace,
    switch: Switch,
    watch: Watch,
    files: usize,
}

fn config(folder: &Path) -> String {
    let head = format!(
        "[nve]\nid = \"a\"\nworkers = \"0\"\nidle_sleep_us = 50\nmemory_mb = 128\nlocations = 1024\n\
         hugepages = \"never\"\nadmin_socket = \"{}\"\n\
         [[uplink]]\nname = \"up0\"\ndevargs = \"net_null0,no-rx=1\"\nipv4 = \"198.18.0.1/24\"\n",
        folder.join("a.sock").display()
    );
    let port = |n: u8| {
        let Station { socket, mac, ip } = Station::numbered(folder, n);
        format!(
            "[[port]]\nname = \"g{n}\"\ndevargs = \"net_vhost{n},iface={},queues=2\"\nvni = 100\nrx_queues = 2\n\
             mac = \"{mac}\"\nips = [\"{ip}\"]\nactivate = \"start\"\n",
            socket.display()
        )
    };
    head + &[WATCH[0], WATCH[1], EVIL, NEWCOMER].map(port).concat()
}

impl Arena {
    /// Starts the switch and the guests that watch.
    pub fn start() -> Arena {
        let folder = tempfile::tempdir().expect("a folder");
        // The next arena is there before the last one's namespace has gone.
        static ARENAS: AtomicU32 = AtomicU32::new(0);
        let namespace = Namespace::new(&format!("e{}", ARENAS.fetch_add(1, Ordering::Relaxed)));
        let switch = start(&namespace, folder.path(), &config(folder.path()));
        let [one, two] = WATCH.map(|n| Station::numbered(folder.path(), n));
        let evil = Station::numbered(folder.path(), EVIL);
        let watch = Watch::start([one, two], vec![evil]).expect("ordinary guests connect");
        let mut arena = Arena { folder, _namespace: namespace, switch, watch, files: 0 };
        arena.check("ordinary guests").expect("the switch works");
        // The guests of the check are on their way out.
        std::thread::sleep(QUIET);
        arena.files = arena.open_files();
        arena
    }

    /// Tries all cases, each of them after the last one's harm was looked for, and on a new switch if there was any.
    /// Answers with what went wrong.
    pub fn try_all(cases: &[Case]) -> Vec<String> {
        let (mut arena, mut wrong) = (Arena::start(), Vec::new());
        for (name, case) in cases {
            println!("{name}");
            let tried = catch_unwind(AssertUnwindSafe(|| case(&arena)));
            let checked = arena.check(name);
            if let Err(why) = tried.map_err(|_| format!("{name}: a guest was refused")).and(checked) {
                println!("{why}");
                wrong.push(why);
                // A switch that hangs would not end by itself.
                arena.switch.kill();
                arena = Arena::start();
            }
        }
        // Of a message that it cannot read librte_vhost leaves the files open that came with it, eight at most, before
        // anybody else sees the message.
        let most = arena.files + 8 * cases.len();
        let give_up = Instant::now() + PATIENCE;
        while arena.open_files() > most && Instant::now() < give_up {
            std::thread::sleep(QUIET);
        }
        let files = arena.open_files();
        if files > most {
            wrong.push(format!("the switch has {files} files open, {} before", arena.files));
        }
        wrong
    }

    fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.switch.id());
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    /// Whether the switch and its guests are well, and the hostile guest's port takes an ordinary one.
    pub fn check(&mut self, after: &str) -> Result<(), String> {
        // They send on for a while after what was tried.
        std::thread::sleep(AFTERWARDS);
        let seen = self.watch.look();
        if let Some(how) = self.switch.ended() {
            let log = std::fs::read_to_string(self.folder.path().join("a.log")).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(3).collect();
            return Err(format!("{after}: the switch ended, {how}: {end:?}"));
        }
        if !seen.is_well() {
            return Err(format!("{after}: {seen:?}"));
        }
        self.recovers().map_err(|e| format!("{after}: {e}"))
    }

    /// Waits until an ordinary guest at the hostile one's port reaches a newcomer at another port.
    fn recovers(&self) -> Result<(), String> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.hello() {
                Ok(()) => return Ok(()),
                Err(e) if Instant::now() > give_up => return Err(format!("the ports take nobody: {e}")),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn hello(&self) -> Result<(), String> {
        let settings = Settings { patience: Duration::from_secs(2), ..Settings::default() };
        let connect = |n: u8| Guest::connect(&self.station(n).socket, &settings).map_err(|e| e.to_string());
        let (mut one, mut other) = (connect(EVIL)?, connect(NEWCOMER)?);
        let frame = self.station(EVIL).frame(&self.station(NEWCOMER), HELLO, b"well");
        let give_up = Instant::now() + Duration::from_secs(2);
        while Instant::now() < give_up {
            one.send(0, &Header::default(), &frame).map_err(|e| e.to_string())?;
            std::thread::sleep(Duration::from_millis(5));
            let mut got = false;
            other.receive(0, |_, f| got |= f == frame).map_err(|e| e.to_string())?;
            if got {
                return Ok(());
            }
        }
        Err("no frame arrives".into())
    }

    /// Whether an ordinary guest can start at another port while the hostile one goes on.
    #[track_caller]
    pub fn takes_a_newcomer(&self) {
        let settings = Settings { patience: PATIENCE, ..Settings::default() };
        let guest = Guest::connect(&self.station(NEWCOMER).socket, &settings);
        assert!(
            guest.is_ok(),
            "another port takes no guest: {}",
            guest.err().map_or_else(String::new, |e| e.to_string())
        );
    }

    /// A port and its guest.
    pub fn station(&self, n: u8) -> Station {
        Station::numbered(self.folder.path(), n)
    }

    /// The socket of the hostile guest's port.
    pub fn socket(&self) -> PathBuf {
        self.station(EVIL).socket
    }

    /// A frame of the hostile guest to one that watches.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        self.station(EVIL).frame(&self.station(WATCH[0]), HELLO, payload)
    }

    /// A hostile guest whose rings work so far; the port may be busy with the end of the last one.
    pub fn evil(&self, settings: &Settings) -> Guest {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match Guest::connect(&self.socket(), settings) {
                Ok(guest) => return guest,
                Err(e) => assert!(Instant::now() < give_up, "the port takes no guest: {e}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One with split rings of 256 descriptors, and the usual features.
    pub fn split(&self) -> Guest {
        self.evil(&Settings::default())
    }

    /// One with packed rings.
    pub fn packed(&self) -> Guest {
        self.evil(&Settings::default().packed())
    }

    /// One without offloads and merged buffers.
    pub fn plain(&self) -> Guest {
        self.evil(&Settings { features: features::PLAIN, ..Settings::default() })
    }

    /// Counters of the switch and its ports that are not zero.
    pub fn counters(&self) -> Vec<Value> {
        let (ok, text) = ctl(self.folder.path(), &["counters", "--json"]);
        assert!(ok, "{text}");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        all.as_array().or_else(|| all["counters"].as_array()).cloned().unwrap_or_default()
    }

    /// What the switch has received from the hostile guest, and dropped of that, frames.
    pub fn received(&self) -> (u64, u64) {
        let counters = self.counters();
        let port = format!("g{EVIL}");
        let of = |wanted: &dyn Fn(&Value) -> bool| -> u64 {
            let ours = counters.iter().filter(|c| c["port"] == port && wanted(c));
            ours.filter_map(|c| c["value"].as_u64()).sum()
        };
        (of(&|c| c["name"] == "rx_packets"), of(&|c| c["drop"] == true))
    }
}

/// Fails with all that went wrong.
#[track_caller]
pub fn nobody_is_harmed(cases: &[Case]) {
    let _alone = crate::common::alone();
    let wrong = Arena::try_all(cases);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Lets the switch see what a guest has done.
pub fn let_it_work() {
    std::thread::sleep(Duration::from_millis(30));
}

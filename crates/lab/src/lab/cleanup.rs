//! Leaves the machine as it was: a lab's processes, namespaces and directory go when the lab is
//! dropped, when the program panics and when it is told to end.
//!
//! Everything of a lab carries its random id, and only what runs inside its namespaces is killed.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::cmd;

/// Labs that must be taken down if the program ends early.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// How long processes may take to end when asked, before they are made to.
const PATIENCE: Duration = Duration::from_millis(1500);

fn live() -> MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The prefix of all names of lab `id`.
pub fn prefix(id: &str) -> String {
    format!("gw{id}-")
}

/// The directory of lab `id`: its configurations, sockets, data and logs.
pub fn directory(id: &str) -> PathBuf {
    std::env::temp_dir().join(format!("godwit-lab-{id}"))
}

/// Chooses an id, makes the lab's directory and sees to it that all goes with the program.
///
/// # Errors
/// Where the directory cannot be made.
pub fn claim() -> Result<String> {
    let id = format!("{:04x}", RandomState::new().hash_one(std::process::id()) as u16);
    ensure!(!labs().contains(&id), "lab {id} exists: try again");
    let dir = directory(&id);
    fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
    register(&id);
    Ok(id)
}

/// From now on the lab is taken down with the program.
fn register(id: &str) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            // Only where the panic ends the process: an unwinding test thread drops its own lab.
            if cfg!(panic = "abort") {
                sweep_all();
            }
        }));
    });
    live().push(id.into());
}

/// The lab has been taken down, or is to stay.
pub fn forget(id: &str) {
    live().retain(|l| l != id);
}

/// Takes all labs of this program down on SIGINT, SIGTERM and SIGHUP and ends it with the usual code.
///
/// To be called before any other thread starts, since those inherit the blocked signals.
///
/// # Errors
/// Where signals cannot be blocked.
pub fn on_signals() -> Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Ok(signal) = set.wait() {
            eprintln!("\n{signal}: taking the lab down");
            sweep_all();
            // Not every init of a container takes in orphans that have ended.
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(s) if s != WaitStatus::StillAlive) {}
            std::process::exit(128 + signal as i32);
        }
    })?;
    Ok(())
}

fn sweep_all() {
    let ids = std::mem::take(&mut *live());
    for id in ids {
        sweep(&id, false);
    }
}

/// Ends what runs in the lab's namespaces and removes them, and its directory unless it is to stay.
///
/// Goes on where a step fails: what is left matters more than what was not there.
pub fn sweep(id: &str, keep_directory: bool) {
    let namespaces = namespaces(id);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let give_up = Instant::now() + PATIENCE;
        for pid in namespaces.iter().flat_map(|ns| pids(ns)) {
            // It may have ended by itself since it was listed.
            let _ = kill(pid, signal);
        }
        while namespaces.iter().any(|ns| !pids(ns).is_empty()) && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(10));
        }
    }
    for ns in &namespaces {
        if let Err(e) = cmd::run("ip", &["netns", "del", ns]) {
            eprintln!("namespace {ns} stays: {e:#}");
        }
    }
    if !keep_directory {
        let _ = fs::remove_dir_all(directory(id));
    }
}

/// The names of the lab's namespaces that exist.
pub fn namespaces(id: &str) -> Vec<String> {
    let prefix = prefix(id);
    all_namespaces().into_iter().filter(|n| n.starts_with(&prefix)).collect()
}

/// Ids of all labs on this machine.
pub fn labs() -> Vec<String> {
    let mut ids: Vec<String> = all_namespaces()
        .iter()
        .filter_map(|n| n.strip_prefix("gw")?.split_once('-').map(|(id, _)| id.to_owned()))
        .filter(|id| id.len() == 4 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn all_namespaces() -> Vec<String> {
    // The folder that iproute2 keeps its named namespaces in.
    let Ok(entries) = fs::read_dir(Path::new("/run/netns")) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

/// Processes whose main thread is in the namespace.
fn pids(namespace: &str) -> Vec<Pid> {
    let text = cmd::run("ip", &["netns", "pids", namespace]).unwrap_or_default();
    text.split_whitespace().filter_map(|p| p.parse().ok()).map(Pid::from_raw).collect()
}

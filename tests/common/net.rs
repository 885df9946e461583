//! Namespaces, and a switch in one of them.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::program;

/// A network namespace that goes with the value.
pub struct Namespace(pub String);

impl Namespace {
    /// With a name of this test's own.
    pub fn new(role: &str) -> Namespace {
        let name = format!("gwt{}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        Namespace(name)
    }

    /// Runs a program in it; its output, where it succeeded.
    pub fn try_run(&self, args: &[&str]) -> Option<String> {
        let mut all = vec!["netns", "exec", &self.0];
        all.extend(args);
        let out = Command::new("ip").args(&all).output().expect("ip runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let error = String::from_utf8_lossy(&out.stderr);
        println!("{args:?}: {}\n{text}{error}", out.status);
        out.status.success().then_some(text)
    }

    /// The same for what has to succeed.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        self.try_run(args).unwrap_or_else(|| panic!("{args:?} failed"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs a program that has to succeed.
#[track_caller]
pub fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().expect("it starts");
    assert!(status.success(), "{program} {args:?}: {status}");
}

/// The switch in its namespace; ended with the value.
pub struct Switch(Child);

impl Switch {
    /// Its process's number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, where it has.
    pub fn ended(&mut self) -> Option<String> {
        self.0.try_wait().expect("it is a child").map(|status| status.to_string())
    }

    /// Ends it without a chance to clean up.
    pub fn kill(mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        // The child is ip, which has become the switch by exec.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Starts a switch with this configuration, beside which its log lies, and waits until it is ready.
pub fn start(ns: &Namespace, folder: &Path, text: &str) -> Switch {
    let config = folder.join("a.toml");
    std::fs::write(&config, text).expect("the configuration is written");
    let log = std::fs::File::create(folder.join("a.log")).expect("a log");
    let child = Command::new("ip")
        .args(["netns", "exec", &ns.0])
        .arg(program("godwit"))
        .arg("--config")
        .arg(config)
        .stderr(log)
        .spawn()
        .expect("the switch starts");
    let switch = Switch(child);
    wait("the switch is ready", || {
        let log = std::fs::read_to_string(folder.join("a.log")).unwrap_or_default();
        assert!(!log.starts_with("godwit: "), "the switch refused: {log}");
        log.contains("ready")
    });
    switch
}

/// Waits until something is so.
#[track_caller]
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        sleep(Duration::from_millis(100));
    }
}

/// Whether the first `count` requests of a row of pings were answered, by what ping printed.
pub fn answered(text: &str, count: u32) -> bool {
    let answers = text.lines().filter(|l| l.contains("bytes from"));
    let number = |l: &str| l.split_once("icmp_seq=")?.1.split(' ').next()?.parse::<u32>().ok();
    let numbers: HashSet<u32> = answers.filter_map(number).collect();
    (1..=count).all(|n| numbers.contains(&n))
}

/// `godwitctl` at the switch that was started in that folder; whether it succeeded and what it said.
pub fn ctl(folder: &Path, args: &[&str]) -> (bool, String) {
    ctl_at(&folder.join("a.sock"), args)
}

/// `godwitctl` at the switch with that admin socket; whether it succeeded and what it said.
pub fn ctl_at(socket: &Path, args: &[&str]) -> (bool, String) {
    let mut ctl = Command::new(program("godwitctl"));
    let out = ctl.args(["--timeout", "60", "--socket"]).arg(socket).args(args).output();
    let out = out.expect("godwitctl runs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    println!("godwitctl {args:?}: {}\n{text}", out.status);
    (out.status.success(), text)
}

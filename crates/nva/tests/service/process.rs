//! The program itself: start, ready line, stop, errors.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running `godwit-nva`, killed when it goes out of scope.
pub struct Process {
    child: Child,
    pub url: String,
    pub ready: String,
}

pub fn command(data: &Path) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_godwit-nva"));
    // A test that was kept from its core for a while is no NVE that is away.
    c.args(["--listen", "127.0.0.1:0", "--log", "warn", "--keepalive-ms", "60000", "--data"]).arg(data);
    c.stdout(Stdio::piped()).stderr(Stdio::piped());
    c
}

impl Process {
    /// Starts it and waits until it is ready.
    pub fn start(data: &Path) -> Process {
        Process::start_by(command(data))
    }

    /// As [`Process::start`], by a command with further flags.
    pub fn start_by(mut command: Command) -> Process {
        let mut child = command.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let addr = ready.split([' ', ',']).find(|w| w.starts_with("127.0.0.1:"));
        let url = format!("http://{}", addr.unwrap_or_else(|| panic!("not ready: {ready:?}")));
        Process { child, url, ready }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Its exit code.
    fn ended(&mut self) -> Option<i32> {
        let patience = Instant::now() + Duration::from_secs(20);
        while Instant::now() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code and stderr of a start that fails.
fn fails(c: &mut Command) -> (Option<i32>, String) {
    let out = c.output().unwrap();
    (out.status.code(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn r73_it_says_when_it_is_ready_and_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    for (epoch, name) in [(1, "TERM"), (2, "INT")] {
        let mut p = Process::start(dir.path());
        assert!(p.ready.starts_with("godwit-nva listening on 127.0.0.1:"), "{}", p.ready);
        assert!(p.ready.trim_end().ends_with(&format!("epoch {epoch}, 0 VMs")), "{}", p.ready);
        p.signal(name);
        assert_eq!(p.ended(), Some(0));
    }
}

#[tokio::test]
async fn it_stops_although_an_nve_is_connected() {
    let dir = tempfile::tempdir().unwrap();
    let mut p = Process::start(dir.path());
    let _nve = crate::client::Nve::join(&p.url, "a").await.unwrap();
    p.signal("TERM");
    assert_eq!(tokio::task::spawn_blocking(move || p.ended()).await.unwrap(), Some(0));
}

#[test]
fn a_second_one_with_the_same_data_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Process::start(dir.path());
    let (code, text) = fails(&mut command(dir.path()));
    assert_eq!(code, Some(1));
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    assert!(text.contains("is in use") && text.contains("--data"), "{text}");
}

#[test]
fn a_taken_address_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut c = Command::new(env!("CARGO_BIN_EXE_godwit-nva"));
    let (code, text) = fails(c.args(["--listen", &addr, "--data"]).arg(dir.path()));
    assert_eq!(code, Some(1));
    assert!(text.contains(&addr) && text.contains("--listen"), "{text}");
}

#[test]
fn r58_a_gateway_mac_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (code, text) = fails(command(dir.path()).args(["--gateway-mac", "01:00:5e:00:00:01"]));
    assert_eq!(code, Some(2));
    assert!(text.contains("01:00:5e:00:00:01") && text.contains("locally administered"), "{text}");
}

#[test]
fn r68_in_clear_other_hosts_are_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = Command::new(env!("CARGO_BIN_EXE_godwit-nva"));
    let (code, text) = fails(c.args(["--listen", "0.0.0.0:0", "--data"]).arg(dir.path()));
    assert_eq!(code, Some(1));
    assert!(text.contains("0.0.0.0:0") && text.contains("pki init") && text.contains("--insecure"), "{text}");
}

#[test]
fn r68_a_file_that_cannot_be_used_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = command(dir.path());
    c.args(["--certificate", "/nonexistent/c", "--key", "/nonexistent/k", "--authority", "/nonexistent/a"]);
    let (code, text) = fails(&mut c);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("authority /nonexistent/a: cannot be read") && text.contains("check the path"),
        "{text}"
    );
}

#[test]
fn damaged_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("directory.redb"), [7; 5000]).unwrap();
    let (code, text) = fails(&mut command(dir.path()));
    assert_eq!(code, Some(1));
    assert!(text.contains("directory.redb is damaged"), "{text}");
}

#[test]
fn it_tells_its_version() {
    let mut c = Command::new(env!("CARGO_BIN_EXE_godwit-nva"));
    let mut child = c.arg("--version").stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    assert!(text.starts_with("godwit-nva "), "{text}");
}

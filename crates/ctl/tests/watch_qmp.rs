//! `watch-qmp` between a QEMU that only talks and a switch that only takes orders (R16, R57).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::fixture::Fixture;

/// A control socket that serves a client for each of `lives`, its events told after the questions, and then ends.
fn qemu(path: &Path, status: &'static str, lives: Vec<Vec<Value>>) -> JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    let path = path.to_owned();
    std::thread::spawn(move || {
        for events in lives {
            serve(&listener.accept().unwrap().0, status, &events);
        }
        drop(listener);
        std::fs::remove_file(path).unwrap();
    })
}

fn serve(stream: &UnixStream, status: &str, events: &[Value]) {
    let mut writer = stream;
    let mut say = |what: &Value| writeln!(writer, "{what}").unwrap();
    say(&json!({ "QMP": { "version": {}, "capabilities": [] } }));
    let mut orders = BufReader::new(stream).lines();
    for expected in ["qmp_capabilities", "migrate-set-capabilities", "query-status", "query-migrate"] {
        let order: Value = serde_json::from_str(&orders.next().unwrap().unwrap()).unwrap();
        assert_eq!(order["execute"], expected);
        // An event may come before an answer.
        say(&json!({ "event": "RTC_CHANGE", "data": { "offset": 1 } }));
        match expected {
            "migrate-set-capabilities" => {
                assert_eq!(order["arguments"]["capabilities"][0]["capability"], "events");
                say(&json!({ "error": { "class": "GenericError", "desc": "a migration is under way" } }));
            }
            "query-status" => say(&json!({ "return": { "status": status, "running": true } })),
            _ => say(&json!({ "return": {} })),
        }
    }
    events.iter().for_each(say);
}

fn event(name: &str) -> Value {
    json!({ "event": name, "data": {}, "timestamp": { "seconds": 1, "microseconds": 2 } })
}

fn migration(status: &str) -> Value {
    json!({ "event": "MIGRATION", "data": { "status": status } })
}

/// What was ordered, beside whether it was carried out.
fn orders(stdout: &str) -> Vec<(String, bool)> {
    let lines = stdout.lines().map(|l| serde_json::from_str::<Value>(l).expect("a document a line"));
    lines.filter_map(|l| Some((l["order"].as_str()?.to_owned(), l["done"] == true))).collect()
}

#[test]
fn r57_a_migration_out_is_told_to_the_switch_until_qemu_ends() {
    let (f, dir) = (Fixture::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("v.qmp");
    let events = [migration("active"), event("STOP"), migration("completed"), event("SHUTDOWN")];
    let qemu = qemu(&path, "running", vec![events.to_vec()]);
    let o = f.run(&format!("--socket SOCKET --json watch-qmp {} --port vm1", path.display()));
    assert_eq!(o.code, 0, "{o:?}");
    let expected = ["running", "migrating", "pause", "shutdown"].map(|w| (w.to_owned(), true));
    assert_eq!(orders(&o.stdout), expected, "{}", o.stdout);
    assert!(!o.stdout.contains("RTC_CHANGE"), "what is not of the guest's life is not told");
    qemu.join().unwrap();
}

#[test]
fn r57_a_connection_that_is_lost_is_made_again_and_nothing_is_said_twice() {
    let (f, dir) = (Fixture::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("v.qmp");
    let qemu = qemu(&path, "running", vec![vec![event("RESET")], vec![event("POWERDOWN")]]);
    let o = f.run(&format!("--socket SOCKET --json watch-qmp {} --port vm1", path.display()));
    assert_eq!(o.code, 0, "{o:?}");
    let expected = [("running".to_owned(), true), ("crashed".to_owned(), true)];
    assert_eq!(orders(&o.stdout), expected, "{}", o.stdout);
    qemu.join().unwrap();
}

#[test]
fn r16_a_refusal_of_the_switch_is_told_and_the_watch_goes_on() {
    let (f, dir) = (Fixture::start(), tempfile::tempdir().unwrap());
    let path = dir.path().join("v.qmp");
    let qemu = qemu(&path, "inmigrate", vec![vec![event("RESUME"), event("SHUTDOWN")]]);
    let o = f.run(&format!("watch-qmp {} --port vm2 --nve nve-a", path.display()));
    assert_eq!(o.code, 0, "{o:?}");
    assert!(
        o.stdout.contains("RESUME: NOT TOLD: NVE nve-a refused: 5001/02:00:00:00:00:02 was suspended"),
        "{o:?}"
    );
    assert!(o.stdout.contains("SHUTDOWN: NOT TOLD"), "{o:?}");
    qemu.join().unwrap();
}

#[test]
fn r57_without_a_qemu_or_a_switch_it_says_what_to_do() {
    let (f, dir) = (Fixture::start(), tempfile::tempdir().unwrap());
    let nowhere = dir.path().join("v.qmp");
    let o = f.run(&format!("--socket SOCKET watch-qmp {} --port vm1 --wait 0.2", nowhere.display()));
    assert_eq!(o.code, 3, "{o:?}");
    assert!(o.stderr.contains("no QEMU answers") && o.stderr.contains("-qmp unix:PATH"), "{o:?}");
    let o = f.run(&format!("watch-qmp {} --port vm1", nowhere.display()));
    assert_eq!(o.code, 2, "{o:?}");
    assert!(o.stderr.contains("which NVE?"), "{o:?}");
    let strange = UnixListener::bind(&nowhere).unwrap();
    let liar = std::thread::spawn(move || strange.accept().unwrap().0.write_all(b"SSH-2.0\n").unwrap());
    let o = f.run(&format!("--socket SOCKET watch-qmp {} --port vm1 --wait 0.2", nowhere.display()));
    assert_eq!(o.code, 1, "{o:?}");
    assert!(o.stderr.contains("this is no QEMU"), "{o:?}");
    liar.join().unwrap();
}

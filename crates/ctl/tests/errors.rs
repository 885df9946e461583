//! Error paths: exit code, and what stderr says. Each says one or two lines and names thing and remedy.

use crate::fixture::{Fixture, Outcome, binary};

fn run(args: &str) -> Outcome {
    Outcome::of(&binary().args(args.split_whitespace()).output().unwrap())
}

fn assert_says(o: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(o.code, code, "{o:?}");
    assert_eq!(o.stdout, "", "an error prints nothing to stdout");
    for part in parts {
        assert!(o.stderr.contains(part), "{part:?} is missing in: {}", o.stderr);
    }
}

/// A command without an NVA fails and says why (R75).
#[test]
fn an_nva_that_is_not_there() {
    // Port 1 on the loopback address: nobody listens.
    let o = run("--nva http://127.0.0.1:1 vm list");
    assert_says(&o, 3, &["no NVA answers at http://127.0.0.1:1", "refused", "--nva or GODWIT_NVA"]);
    assert_eq!(o.stderr.lines().count(), 2);
}

#[test]
fn an_nva_that_does_not_answer() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let o = run(&format!("--nva {url} --timeout 0.3 nva status"));
    assert_says(&o, 3, &[&url, "within 0.3 s"]);
}

#[test]
fn an_answer_that_does_not_come() {
    let o = Fixture::start().run("--timeout 3 vm show slow");
    assert_says(&o, 3, &["the NVA at URL gave no answer within 3 s", "raise --timeout"]);
}

#[test]
fn urls_that_are_none() {
    assert_says(&run("--nva ftp://nva vn list"), 2, &["ftp://nva", "https://HOST:PORT"]);
}

#[test]
fn r68_an_nva_with_tls_needs_files() {
    let says = ["with TLS", "no authority", "--authority", "godwitctl pki operator"];
    assert_says(&run("--nva https://nva:6640 vn list"), 2, &says);
    let says = ["/nonexistent/a.pem", "cannot be read", "check the path"];
    let files = "--certificate /nonexistent/c.pem --key /nonexistent/k.pem --authority /nonexistent/a.pem";
    assert_says(&run(&format!("--nva https://nva:6640 {files} vn list")), 2, &says);
}

#[test]
fn a_socket_that_is_not_there_or_dead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let args = format!("--socket {} port list", path.display());
    assert_says(&run(&args), 3, &[path.to_str().unwrap(), "is godwit running", "--socket"]);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_says(&run(&args), 3, &[path.to_str().unwrap(), "refused", "start godwit"]);
}

#[test]
fn a_socket_where_the_nva_is_wanted() {
    let f = Fixture::start();
    assert_says(&f.run("--socket SOCKET vm list"), 2, &["asks the NVA", "leave out --socket"]);
    assert_says(&f.run("--socket SOCKET port list --nve nve-a"), 2, &["--nve and --socket"]);
}

#[test]
fn a_socket_in_the_environment_stands_back() {
    let mut command = binary();
    command.env("GODWIT_SOCKET", "/nowhere/admin.sock").args(["--nva", "127.0.0.1:1", "vm", "list"]);
    assert_says(&Outcome::of(&command.output().unwrap()), 3, &["no NVA answers at 127.0.0.1:1"]);
}

/// A wrong argument is named with what is possible (R75).
#[test]
fn bad_addresses_and_numbers() {
    let define = "vm define v --vn blue --mac";
    assert_says(&run(&format!("{define} 02:00")), 2, &["'02:00'", "--mac", "six hexadecimal octets"]);
    assert_says(&run(&format!("{define} 01:00:5e:00:00:01")), 2, &["--mac", "individual"]);
    let with_ip = format!("{define} 02:00:00:00:00:01 --ipv4 10.0.0.1/24");
    assert_says(&run(&with_ip), 2, &["'10.0.0.1/24'", "--ipv4", "without a prefix length"]);
    assert_says(&run("vn create blue --vni 16777216"), 2, &["'16777216'", "--vni", "0 to 16777215"]);
    assert_says(&run("vn create -- -x --vni 1"), 2, &[]);
    assert_says(&run("vm show a/b"), 2, &["'a/b'", "letter or digit"]);
    assert_says(&run("nve define r7"), 2, &["--ipv4", "--ipv6"]);
    assert_says(&run("vm fly web1"), 2, &["fly"]);
}

#[test]
fn help_has_examples() {
    for args in [
        "--help",
        "vm define --help",
        "vm move --help",
        "vm departed --help",
        "move show --help",
        "counters --help",
        "trace --help",
    ] {
        let o = run(args);
        assert_eq!(o.code, 0);
        assert!(o.stdout.contains("godwitctl ") && o.stdout.contains("Example"), "{args}: {}", o.stdout);
        assert!(o.stdout.lines().all(|l| l.chars().count() <= 110), "{args} is wide: {}", o.stdout);
    }
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let o = run(&format!("completions {shell}"));
        assert_eq!(o.code, 0);
        assert!(o.stdout.contains("counters"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child =
        binary().args(["completions", "bash"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn one_nve_that_hangs_does_not_hide_the_others() {
    let f = Fixture::start_flaky();
    insta::assert_snapshot!(f.transcript(&["counters --drops", "counters --drops --json"]));
}

#[test]
fn a_watch_outlives_a_restart_of_the_nva() {
    let o = Fixture::start_flaky().run("move watch m-1");
    assert_eq!(o.code, 0, "{o:?}");
    assert_eq!(o.stdout.matches("by the operator").count(), 1, "no step twice: {}", o.stdout);
    assert!(o.stdout.contains("last_forwarded") && o.stdout.contains("outage: 11.250 ms"));
}

#[test]
fn a_watch_that_never_ends_gives_up() {
    let o = Fixture::start().run("--timeout 3 move watch m-2");
    assert_eq!(o.code, 3, "{o:?}");
    assert!(o.stderr.contains("m-2") && o.stderr.contains("godwitctl move show m-2"), "{}", o.stderr);
}

//! The directory stands: silent connections, storms, and a process that stood still.

use std::time::{Duration, Instant};

use godwit_api::v1;
use godwit_model::Version;
use godwit_model::message::NveToNva;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{Nve, define, operator};
use crate::process::{Process, command};

/// An operator's answer may take so long.
const ANSWERED: Duration = Duration::from_secs(1);

fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// As many sessions as said, beside as many silent connections: the slowest of ten answers to an operator who connects
/// anew each time, and how long it took until all sessions were there.
async fn answers(honest: usize, silent: usize) -> (Duration, Duration) {
    let files = godwit_nva::service::accept::raise_file_limit().unwrap();
    assert!(files > honest + silent + 100, "the hard limit of open files, {files}, is too low for this test");
    let dir = tempfile::tempdir().unwrap();
    let mut flags = command(dir.path());
    flags.args(["--connections-per-source", "100000"]);
    let p = Process::start_by(flags);
    let mut op = operator(&p.url).await;
    define(&mut op, 1).await;
    let began = Instant::now();
    let mut joining = JoinSet::new();
    let mut sessions = Vec::new();
    for n in 0..honest {
        let url = p.url.clone();
        joining.spawn(async move { Nve::join_at(&url, &format!("nve-{n}"), n).await });
        if joining.len() >= 64 {
            sessions.push(joining.join_next().await.unwrap().unwrap().unwrap());
        }
    }
    while let Some(joined) = joining.join_next().await {
        sessions.push(joined.unwrap().unwrap());
    }
    let joined = began.elapsed();
    let mut strangers = Vec::new();
    let mut slowest = Duration::ZERO;
    for n in 0..silent {
        strangers.push(TcpStream::connect(address(&p.url)).await.unwrap());
        if n % (silent / 10) == 0 {
            let asked = Instant::now();
            let mut op = operator(&p.url).await;
            let status = op.get_status(v1::NvaStatusRequest {}).await.unwrap().into_inner();
            slowest = slowest.max(asked.elapsed());
            assert_eq!(status.nves_connected as usize, honest, "after {n} silent connections");
        }
    }
    assert!(sessions[0].claim(1, Version::ZERO).await.is_ok(), "who was there goes on");
    (slowest, joined)
}

#[tokio::test]
async fn d1_operators_are_answered_beside_silent_connections_and_sessions_go_on() {
    let (slowest, _) = answers(64, 1_500).await;
    assert!(slowest < ANSWERED, "{slowest:?}");
}

#[tokio::test]
#[ignore = "long: 4,096 sessions beside 10,000 silent connections"]
async fn d1_operators_are_answered_within_a_second_beside_ten_thousand() {
    let (slowest, joined) = answers(4_096, 10_000).await;
    println!("slowest answer {slowest:?}; 4,096 sessions were there after {joined:?}");
    assert!(slowest < ANSWERED, "{slowest:?}");
}

#[tokio::test]
async fn d1_operators_have_an_address_of_their_own_where_they_want_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = command(dir.path());
    flags.args(["--operators", "127.0.0.1:0"]);
    let p = Process::start_by(flags);
    let addrs: Vec<&str> = p.ready.split([' ', ',']).filter(|w| w.starts_with("127.0.0.1:")).collect();
    let [nves, operators] = addrs[..] else { panic!("{}", p.ready) };
    let (nves, operators) = (format!("http://{nves}"), format!("http://{operators}"));
    define(&mut operator(&operators).await, 1).await;
    let refused = operator(&nves).await.get_status(v1::NvaStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), godwit_api::tonic::Code::Unimplemented);
    let mut nve = Nve::join(&nves, "a").await.unwrap();
    nve.claim(1, Version::ZERO).await.unwrap();
    assert!(Nve::join(&operators, "b").await.is_err(), "no session there");
}

#[tokio::test]
async fn d11_a_session_outlives_five_seconds_without_its_nva() {
    let dir = tempfile::tempdir().unwrap();
    let p = Process::start(dir.path());
    define(&mut operator(&p.url).await, 1).await;
    let mut nve = Nve::join(&p.url, "a").await.unwrap();
    p.signal("STOP");
    let stopped = Instant::now();
    // Small messages, at 2,000 a second.
    for n in 0..10_000 {
        nve.say(NveToNva::Keepalive).await;
        if n % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(5).saturating_sub(stopped.elapsed())).await;
    p.signal("CONT");
    nve.claim(1, Version::ZERO).await.unwrap();
}

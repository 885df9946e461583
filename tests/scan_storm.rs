//! A VM scans a /8 at full speed, by ARP and by unknown MAC addresses: what of it reaches the directory, and whether
//! another VM of the worker is still answered, and how soon (R67). `scripts/bench --storm` fails where the 99th
//! percentile or what others keep of their throughput is not what R67 promises, which takes a machine that does
//! nothing else.

use std::process::Command;

use serde_json::Value;

use crate::common::{Hugepages, alone, program};

#[test]
fn r67_a_scan_is_50_questions_a_second_to_the_directory_and_others_are_answered() {
    let _alone = alone();
    let _restored = Hugepages::remember();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = folder.path().join("storm.json");
    let mut bench = Command::new(program("godwit-bench"));
    bench.args(["--storm", "--rounds", "2", "--window-ms", "1000", "--json"]).arg(&json);
    // 1: something of R67 is not so. Beside other tests times and throughput may not be; what must be is looked at
    // below.
    let ended = bench.status().expect("the benchmark runs").code();
    assert!([Some(0), Some(1)].contains(&ended), "{ended:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON");
    let beside = report["storm"]["beside"].as_array().expect("neighbors");
    assert_eq!(beside.len(), 4);
    for b in beside {
        let (name, asked) = (b["neighbor"].as_str().unwrap_or_default(), b["questions_per_second"].as_f64());
        // What reaches a busy directory late may fall into the next second, and a scan asks for thousands.
        let expected = if ["arp-scan", "unknown-macs"].contains(&name) { 1.0..=75.0 } else { 0.0..=0.0 };
        assert!(asked.is_some_and(|n| expected.contains(&n)), "{name}: {asked:?} questions a second");
        assert_eq!(b["unanswered"], 0, "{name}: of {} resolutions", b["resolutions"]);
        assert!(b["resolutions"].as_u64() >= Some(2), "{name}");
        let took: Vec<f64> =
            b["resolution_ms"].as_array().expect("times").iter().filter_map(Value::as_f64).collect();
        println!("beside {name}: median, 99th percentile and maximum of others' resolutions: {took:?} ms");
        assert_eq!(took.len(), 3, "{name}: {took:?}");
        assert!(took[0] < 1000.0, "{name}: half of the others' resolutions take {} ms", took[0]);
        let sent = b["steady_mpps"].as_array().expect("rates");
        assert!(sent.iter().all(|r| r.as_f64() > Some(0.0)), "{name}: {sent:?}");
    }
}

//! `scripts/bench` carries rows of its table between either pair of ends. How fast is not looked at here: that takes a
//! machine that does nothing else.

use std::process::Command;

use serde_json::Value;

use crate::common::{Hugepages, alone, program};

/// None of them is one of the table's pairs, which would be measured as well; flows are more than destinations.
const ROWS: &str = "encap-v4/60/1000,encap-v6/imix/64,decap-v4/1514/10/inner=6,decap-v6/60/64/flows=5000,\
                    route-v4/60/100/flows=1000,route-v6/imix/64/inner=4,route-v6/62/100/flows=1000/routers=16";

fn measured(ends: &str) -> Value {
    let _alone = alone();
    let _restored = Hugepages::remember();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let json = folder.path().join("rows.json");
    let mut bench = Command::new(program("godwit-bench"));
    bench
        .args(["--no-ovs", "--rounds", "1", "--window-ms", "100", "--ends", ends])
        .args(["--case", ROWS])
        .arg("--json")
        .arg(&json);
    assert!(bench.status().expect("the benchmark runs").success());
    serde_json::from_slice(&std::fs::read(&json).expect("a report")).expect("JSON")
}

#[test]
#[ignore = "long: half a minute; about the benchmark, not the switch"]
fn r76_rows_of_either_player_lose_no_frame() {
    for ends in ["replay", "pcap"] {
        let report = measured(ends);
        assert_eq!(report["conditions"]["ends"], ends);
        let rows = report["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 7);
        for row in rows {
            assert!(row["godwit_mpps"].as_f64() > Some(0.0), "{ends}: {row}");
            // Whoever gets other frames than the row's drops them, for they are of no VM and to none.
            let notes = row["notes"].as_array().expect("notes");
            let lost = notes.iter().filter_map(Value::as_str).find(|n| n.starts_with("godwit"));
            assert_eq!(lost, None, "{ends}: {row}");
        }
    }
}

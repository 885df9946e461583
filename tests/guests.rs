//! Hundreds of guests on the vhost-user ports of one switch (R11, R18): all are reached, nobody who talks loses a
//! frame while others leave and come again with their ports, and nothing is left behind.

use crate::common::lab;

fn guests(args: &[&str]) {
    let (output, report) = lab(&[&["guests"], args].concat());
    assert!(output.status.success(), "the scenario failed");
    assert!(report["talked"]["sent"].as_u64() > Some(0) && report["talked"]["lost"] == 0, "{report}");
    let silent = report["silent"].as_array().expect("guests that did not answer");
    assert!(silent.iter().all(|s| s.as_array().is_some_and(Vec::is_empty)), "{report}");
    let (steps, last) =
        (report["steps"].as_array().expect("steps"), report["steps"].as_array().map_or(0, Vec::len));
    for what in ["files", "hugepages_kb"] {
        assert_eq!(steps[0]["resources"][what], steps[last - 1]["resources"][what], "{what}: {report}");
    }
}

#[test]
fn r18_guests_by_the_hundred_come_and_go() {
    guests(&["--hugepages", "never", "--rounds", "1"]);
}

#[test]
fn r18_guests_with_packed_rings_come_and_go() {
    guests(&[
        "--hugepages",
        "never",
        "--guests",
        "20",
        "--churn",
        "8",
        "--pairs",
        "3",
        "--packed",
        "--rounds",
        "1",
    ]);
}

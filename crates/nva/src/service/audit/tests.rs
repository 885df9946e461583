//! The file of the audit log.

use std::fs;

use super::*;
use crate::directory::Verdict;

fn entry(n: u64) -> AuditEntry {
    AuditEntry {
        at_us: 1_700_000_000_000_000 + n,
        who: format!("operator alice{} (admin)", n % 2),
        from: Some(([198, 18, 0, 9], 4242).into()),
        what: if n.is_multiple_of(3) { "vm define" } else { "nve delete" }.into(),
        details: format!("line\nends \"{n}\""),
        verdict: if n.is_multiple_of(5) { Verdict::Refused("why".into()) } else { Verdict::Done },
        unwritten: n % 7,
    }
}

fn all(reader: &mut Reader) -> Vec<Line> {
    let mut lines = Vec::new();
    loop {
        let (more, end) = reader.read().unwrap();
        lines.extend(more);
        if end {
            return lines;
        }
    }
}

fn settings(dir: &std::path::Path, max_bytes: u64, files: usize) -> AuditFile {
    AuditFile { path: dir.join("audit.log"), max_bytes, files }
}

async fn write(audit: &mut Audit, numbers: std::ops::Range<u64>) {
    let entries = numbers.map(entry).collect();
    audit.append(entries).expect("there is something to wait for").await;
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    lines.iter().map(|l| l.at_us - 1_700_000_000_000_000).collect()
}

#[tokio::test]
async fn r68_what_was_appended_is_on_the_disk_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 1 << 20, 4);
    let mut audit = Audit::open(settings.clone()).unwrap();
    assert!(audit.append(vec![]).is_none());
    write(&mut audit, 0..10).await;
    let text = fs::read_to_string(&settings.path).unwrap();
    assert_eq!(text.lines().count(), 10, "a line each, whatever is in it");
    assert!(text.starts_with("{\"at\":\"2023-11-14T22:13:20.000000Z\""), "{text}");
    drop(audit);
    let mut audit = Audit::open(settings.clone()).unwrap();
    write(&mut audit, 10..20).await;
    let lines = all(&mut Reader::new(&settings, Filter::default()));
    assert_eq!(lines, (0..20).map(|n| Line::from(entry(n))).collect::<Vec<_>>());
    let filter = Filter { who: "alice1".into(), what: "vm".into(), since_us: 1_700_000_000_000_004 };
    assert_eq!(numbers(&all(&mut Reader::new(&settings, filter))), [9, 15]);
}

#[tokio::test]
async fn r68_it_is_rotated_and_a_reader_follows() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 2_000, 3);
    let mut audit = Audit::open(settings.clone()).unwrap();
    let mut reader = Reader::new(&settings, Filter::default());
    let mut seen = Vec::new();
    for n in 0..100 {
        write(&mut audit, n..n + 1).await;
        seen.extend(numbers(&all(&mut reader)));
        // A rotation is noticed at the next look.
        seen.extend(numbers(&all(&mut reader)));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>(), "nothing is missed and nothing comes twice");
    let mut names: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
    for name in names {
        assert!(fs::metadata(dir.path().join(name)).unwrap().len() <= 2_000);
    }
    let kept = numbers(&all(&mut Reader::new(&settings, Filter::default())));
    assert_eq!(kept.last(), Some(&99));
    assert!(kept.windows(2).all(|w| w[0] + 1 == w[1]), "in order: {kept:?}");
}

#[tokio::test]
async fn r68_half_a_line_of_a_crash_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), 1 << 20, 2);
    fs::write(&settings.path, Line::from(entry(0)).text() + "\n{\"at\":\"20").unwrap();
    let mut audit = Audit::open(settings.clone()).unwrap();
    write(&mut audit, 1..3).await;
    assert_eq!(numbers(&all(&mut Reader::new(&settings, Filter::default()))), [0, 1, 2]);
}

#[tokio::test]
async fn r68_a_disk_that_refuses_stops_nothing() {
    // /dev/full says what a full disk says.
    let settings = AuditFile { path: "/dev/full".into(), max_bytes: 1 << 20, files: 1 };
    let Ok(mut audit) = Audit::open(settings) else { return };
    for n in 0..3 {
        write(&mut audit, n..n + 1).await;
    }
    let count = |name: &str| audit.entries().find(|e| e.descriptor.name == name).unwrap().value;
    assert_eq!((count("audit_written"), count("audit_waiting"), count("audit_lost")), (0, 3, 0));
    assert!(
        Audit::open(AuditFile { path: "/no/such/dir/audit.log".into(), max_bytes: 1, files: 1 }).is_err()
    );
}

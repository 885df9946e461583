//! `godwitctl pki`: the five commands of a first installation, and what comes later.

use std::path::Path;

use crate::fixture::{Outcome, binary};

fn pki(dir: &Path, args: &str) -> Outcome {
    let mut command = binary();
    command.env("GODWIT_PKI", dir.join("pki")).arg("pki").args(args.split_whitespace());
    Outcome::of(&command.output().unwrap()).hide(&dir.display().to_string(), "DIR")
}

fn done(dir: &Path, args: &str) -> String {
    let o = pki(dir, args);
    assert_eq!((o.code, o.stderr.as_str()), (0, ""), "{args}");
    o.stdout
}

fn list(dir: &Path) -> Vec<(String, String, String)> {
    let json: serde_json::Value = serde_json::from_str(&done(dir, "list --json")).unwrap();
    let text = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    let rows = json["certificates"].as_array().unwrap().iter();
    rows.map(|r| (text(r, "subject"), text(r, "state"), r["names"].to_string())).collect()
}

#[test]
fn r68_an_authority_from_its_first_day_on() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let o = pki(dir, "list");
    assert_eq!(o.code, 1);
    assert!(o.stderr.contains("DIR/pki has no authority") && o.stderr.contains("pki init"), "{}", o.stderr);

    assert!(done(dir, "init --address 192.0.2.10").contains("DIR/pki/nva"));
    let made = done(dir, "nve nve-a --locator 198.18.0.1 --locator 2001:db8:18::1");
    assert_eq!(made, "nve/nve-a: certificate.pem, key.pem and authority.pem are in DIR/pki/nve/nve-a\n");
    done(dir, "operator ann --role admin");
    for file in ["certificate.pem", "key.pem", "authority.pem"] {
        assert!(dir.join("pki/operator/ann").join(file).is_file(), "{file}");
    }
    let o = pki(dir, "init");
    assert!(o.code == 1 && o.stderr.contains("has an authority already"), "{}", o.stderr);
    let o = pki(dir, "nve nve-a");
    assert!(o.code == 1 && o.stderr.contains("pki renew nve/nve-a"), "{}", o.stderr);
    let o = pki(dir, "operator bob --role root");
    assert!(o.code == 2 && o.stderr.contains("read, operate or admin"), "{}", o.stderr);

    done(dir, "renew nve/nve-a");
    assert!(done(dir, "revoke nve/nve-a").contains("2 certificates revoked"));
    let row = |subject: &str, state: &str, names: &str| (subject.into(), state.into(), names.into());
    let locators = "[\"198.18.0.1\",\"2001:db8:18::1\"]";
    let expected = [
        row("nva", "good", "[\"192.0.2.10\",\"localhost\",\"127.0.0.1\",\"::1\"]"),
        row("nve/nve-a", "revoked", locators),
        row("operator/ann", "good", "[\"admin\"]"),
        row("nve/nve-a", "revoked", locators),
    ];
    assert_eq!(list(dir), expected);
}

#[test]
fn r68_a_token_is_printed_once_and_kept_as_its_hash() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("tokens");
    let token = done(temp.path(), &format!("token ci --role operate --file {}", file.display()));
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!((token.trim().len(), text.contains(token.trim())), (64, false));
    assert!(text.contains("\nci operate "), "{text}");
}

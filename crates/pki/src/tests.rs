//! An authority's life: what it issues is what the NVA reads.

use std::os::unix::fs::PermissionsExt as _;

use godwit_api::tls::{Credentials, TlsFiles, certificates, identity, tokens};
use godwit_model::{Identity, NveId, Role};

use super::*;

fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate: folder.join(CERTIFICATE),
        key: folder.join(KEY),
        authority: folder.join(AUTHORITY),
    }
}

fn nve(name: &str) -> (NveId, Subject) {
    let id = NveId::new(name).unwrap();
    let subject = Subject::nve(&id, vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]);
    (id, subject)
}

#[test]
fn r68_a_certificate_names_whom_it_was_issued_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut pki = Pki::init(&dir.path().join("pki")).unwrap();
    let (id, subject) = nve("a");
    let folder = pki.issue(subject, 10).unwrap();
    let own = &certificates("certificate", &folder.join(CERTIFICATE)).unwrap()[0];
    let locators = vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    assert_eq!(identity(own), Ok(Identity::Nve { id, locators }));
    Credentials::load(files(&folder)).unwrap();

    let folder = pki.issue(Subject::operator("ann", Role::Operate).unwrap(), 10).unwrap();
    let own = &certificates("certificate", &folder.join(CERTIFICATE)).unwrap()[0];
    assert_eq!(identity(own), Ok(Identity::Operator { name: "ann".into(), role: Role::Operate }));

    let addresses = vec!["nva.example".into(), "::1".into()];
    let folder = pki.issue(Subject::Nva { addresses }, 10).unwrap();
    let own = &certificates("certificate", &folder.join(CERTIFICATE)).unwrap()[0];
    assert!(identity(own).is_err(), "an NVA gives no orders");
    assert!(folder.join(REVOKED).is_file());
}

#[test]
fn r68_keys_are_for_their_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("pki");
    let mut pki = Pki::init(&root).unwrap();
    let folder = pki.issue(nve("a").1, 10).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        [mode(&root), mode(&root.join(AUTHORITY_KEY)), mode(&folder.join(KEY))],
        [0o700, 0o600, 0o600]
    );
    std::fs::set_permissions(folder.join(KEY), std::fs::Permissions::from_mode(0o644)).unwrap();
    let e = Credentials::load(files(&folder)).unwrap_err().to_string();
    assert!(e.contains("key.pem: is open to other users (mode 0644)") && e.contains("chmod 600"), "{e}");
}

#[test]
fn r68_a_name_is_issued_once_renewed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("pki");
    drop(Pki::init(&root).unwrap());
    assert!(matches!(Pki::init(&root), Err(PkiError::Exists { .. })));
    let name: SubjectName = "nve/a".parse().unwrap();
    let mut pki = Pki::open(&root).unwrap();
    assert!(matches!(pki.renew(&name, 10), Err(PkiError::Unknown { .. })));
    let folder = pki.issue(nve("a").1, 10).unwrap();
    assert!(matches!(pki.issue(nve("a").1, 10), Err(PkiError::Issued { .. })));
    let first = std::fs::read(folder.join(CERTIFICATE)).unwrap();
    drop(pki);

    let mut pki = Pki::open(&root).unwrap();
    pki.renew(&name, 20).unwrap();
    assert_ne!(first, std::fs::read(folder.join(CERTIFICATE)).unwrap());
    let list = std::fs::read(pki.revoked_file()).unwrap();
    assert_eq!(pki.revoke(&name).unwrap(), 2);
    assert_ne!(list, std::fs::read(pki.revoked_file()).unwrap());
    assert!(matches!(pki.revoke(&name), Err(PkiError::Unknown { .. })));
    assert!(matches!(pki.renew(&name, 10), Err(PkiError::Revoked { .. })));
    pki.issue(nve("a").1, 10).unwrap();
    let states: Vec<State> = pki.issued().iter().map(|i| i.state(issue::now_s())).collect();
    assert_eq!(states, [State::Revoked, State::Revoked, State::Good]);
}

#[test]
fn r68_what_is_wrong_with_a_file_is_said_of_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut pki = Pki::init(&dir.path().join("pki")).unwrap();
    let (a, b) = (pki.issue(nve("a").1, 10).unwrap(), pki.issue(nve("b").1, 10).unwrap());
    let mixed = TlsFiles { key: b.join(KEY), ..files(&a) };
    let e = Credentials::load(mixed).unwrap_err().to_string();
    assert!(e.contains("nve/b/key.pem: does not match certificate") && e.contains("nve/a/"), "{e}");
    let swapped = TlsFiles { certificate: a.join(KEY), ..files(&a) };
    let e = Credentials::load(swapped).unwrap_err().to_string();
    assert!(e.contains("key.pem: has no certificate in PEM"), "{e}");
    let expired = TlsFiles { certificate: pki.issue(nve("c").1, 0).unwrap().join(CERTIFICATE), ..files(&a) };
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let e = Credentials::load(expired).unwrap_err().to_string();
    assert!(e.contains("nve/c/certificate.pem: expired on") && e.contains("pki renew"), "{e}");
}

#[test]
fn r68_a_damaged_index_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("pki");
    drop(Pki::init(&root).unwrap());
    std::fs::write(root.join(INDEX), "{").unwrap();
    let e = Pki::open(&root).err().unwrap().to_string();
    assert!(e.contains("index.json: cannot be read") && e.contains("backup"), "{e}");
    let e = Pki::open(dir.path()).err().unwrap().to_string();
    assert!(e.contains("has no authority") && e.contains("pki init"), "{e}");
}

#[test]
fn r68_a_token_replaces_the_operators_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let (one, two, three) = (new_token().unwrap(), new_token().unwrap(), new_token().unwrap());
    add_token(&file, "ann", Role::Read, &one).unwrap();
    add_token(&file, "bob", Role::Admin, &two).unwrap();
    add_token(&file, "ann", Role::Operate, &three).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = tokens::parse(&text).unwrap();
    assert_eq!(tokens::find(&lines, &one), None);
    assert_eq!(tokens::find(&lines, &two).unwrap().name, "bob");
    assert_eq!(tokens::find(&lines, &three).unwrap().role, Role::Operate);
    assert!(!text.contains(&three));
}

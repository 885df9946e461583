//! The lab's authority: certificates of its NVA, its switches and its operator, in the lab's folder.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use godwit_api::tls::{Credentials, TlsFiles};
use godwit_model::{NveId, Role};
use godwit_pki::{CERTIFICATE, KEY, Pki, Subject};

/// The folder within the lab's.
const FOLDER: &str = "pki";
/// The lab as an operator.
const OPERATOR: &str = "lab";
/// A lab is no older.
const DAYS: u32 = 30;

/// Files of one whom a certificate was issued to.
fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate: folder.join(CERTIFICATE),
        key: folder.join(KEY),
        authority: folder.join("authority.pem"),
    }
}

fn root(dir: &Path) -> PathBuf {
    dir.join(FOLDER)
}

/// Makes the authority, with certificates of the NVA at `ip` and of the operator.
///
/// # Errors
/// Where a file cannot be written.
pub fn make(dir: &Path, ip: IpAddr) -> Result<()> {
    let mut pki = Pki::init(&root(dir)).context("making the lab's authority")?;
    pki.issue(Subject::Nva { addresses: vec![ip.to_string()] }, DAYS)?;
    pki.issue(Subject::operator(OPERATOR, Role::Admin)?, DAYS)?;
    Ok(())
}

/// Whether the lab has one; without it, the NVA is spoken to in clear.
pub fn is_there(dir: &Path) -> bool {
    root(dir).is_dir()
}

/// The options of the NVA.
pub fn nva_flags(dir: &Path) -> Vec<String> {
    if !is_there(dir) {
        return vec!["--insecure".into()];
    }
    let of_nva = files(&root(dir).join("nva"));
    let mut flags = words(&of_nva);
    flags.extend(["--revoked".into(), root(dir).join("revoked.pem").display().to_string()]);
    flags
}

/// The options of the operator's command; none in clear.
pub fn operator_flags(dir: &Path) -> Vec<String> {
    if is_there(dir) { words(&files(&operator_folder(dir))) } else { Vec::new() }
}

/// Where the operator's files are.
pub fn operator_folder(dir: &Path) -> PathBuf {
    root(dir).join("operator").join(OPERATOR)
}

/// What the lab itself shows to the NVA.
///
/// # Errors
/// Where a file is damaged.
pub fn operator(dir: &Path) -> Result<Option<Arc<Credentials>>> {
    is_there(dir).then(|| Ok(Credentials::load(files(&operator_folder(dir)))?)).transpose()
}

/// Lines of a switch's configuration; its certificate is issued with the first ones.
///
/// # Errors
/// Where that cannot be issued.
pub fn switch_lines(dir: &Path, name: &str) -> Result<String> {
    if !is_there(dir) {
        return Ok(String::new());
    }
    let folder = root(dir).join("nve").join(name);
    if !folder.is_dir() {
        Pki::open(&root(dir))?.issue(Subject::nve(&NveId::new(name)?, Vec::new()), DAYS)?;
    }
    let TlsFiles { certificate, key, authority } = files(&folder);
    let line = |key: &str, path: &Path| format!("{key} = \"{}\"\n", path.display());
    Ok(line("nva_certificate", &certificate) + &line("nva_key", &key) + &line("nva_authority", &authority))
}

fn words(files: &TlsFiles) -> Vec<String> {
    let pairs =
        [("--certificate", &files.certificate), ("--key", &files.key), ("--authority", &files.authority)];
    pairs.iter().flat_map(|(option, path)| [(*option).to_owned(), path.display().to_string()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r68_a_lab_with_an_authority_has_what_each_program_needs() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nva_flags(dir.path()), ["--insecure"]);
        assert!(operator_flags(dir.path()).is_empty() && operator(dir.path()).unwrap().is_none());
        assert_eq!(switch_lines(dir.path(), "a").unwrap(), "");
        make(dir.path(), IpAddr::from([198, 18, 255, 1])).unwrap();
        let first = switch_lines(dir.path(), "a").unwrap();
        assert!(
            first.contains("nva_certificate = ") && first.contains("pki/nve/a/certificate.pem"),
            "{first}"
        );
        assert_eq!(first, switch_lines(dir.path(), "a").unwrap(), "a switch that starts again keeps its own");
        assert!(operator(dir.path()).unwrap().unwrap().has_certificate());
        assert_eq!((nva_flags(dir.path()).len(), operator_flags(dir.path()).len()), (8, 6));
    }
}

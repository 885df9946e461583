//! What the NVA is shown: an operator's certificate or token, and where they are found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use godwit_api::OperatorAuth;
use godwit_api::client::is_secure;
use godwit_api::tls::{Credentials, TlsError, TlsFiles, private_file};

use crate::failure::Failure;

/// File names in the folder of an operator, as `godwitctl pki operator` makes it.
const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "authority.pem";
const TOKEN: &str = "token";
/// The folder of this host's operators.
const OF_HOST: &str = "/etc/godwit/operator";

/// How the NVA is spoken to with TLS.
///
/// What is not given is looked for as certificate.pem, key.pem, authority.pem and token in ~/.config/godwit, then in
/// /etc/godwit/operator.
#[derive(Args, Clone, Default, Debug)]
pub struct SecureArgs {
    /// Your certificate for the NVA (PEM) [default: certificate.pem in ~/.config/godwit or /etc/godwit/operator].
    #[arg(long, global = true, env = "GODWIT_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,

    /// Its key (PEM), readable by you only [default: key.pem beside it].
    #[arg(long, global = true, env = "GODWIT_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// The authority that the NVA's certificate is from (PEM) [default: authority.pem beside it].
    #[arg(long, global = true, env = "GODWIT_AUTHORITY", value_name = "FILE")]
    pub authority: Option<PathBuf>,

    /// A file with your token, instead of a certificate, readable by you only.
    #[arg(long, global = true, env = "GODWIT_TOKEN", value_name = "FILE")]
    pub token: Option<PathBuf>,
}

/// What the NVA is shown.
#[derive(Clone, Default, Debug)]
pub struct Secured {
    /// Certificates; none: in clear.
    pub credentials: Option<Arc<Credentials>>,
    /// What each request carries.
    pub auth: OperatorAuth,
}

/// The files that are there, of those that may be given.
#[derive(PartialEq, Eq, Debug)]
struct Found {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authority: Option<PathBuf>,
    token: Option<PathBuf>,
}

impl SecureArgs {
    /// Whether there is anything to show, given or in its usual place.
    pub fn is_there(&self) -> bool {
        self.find(&folders()).authority.is_some()
    }

    /// Reads what is to be shown to the NVA at `url`; nothing where that is spoken to in clear.
    ///
    /// # Errors
    /// Says which file is missing or wrong.
    pub fn read(&self, url: &str) -> Result<Secured, Failure> {
        let found = self.find(&folders());
        if url.contains("://") && !is_secure(url, None) {
            return if self.token.is_some() {
                Err(Failure::usage("a token is not sent in clear").remedy("give --nva as https://HOST:PORT"))
            } else {
                Ok(Secured::default())
            };
        }
        if !url.contains("://") && found.authority.is_none() && !self.names_any() {
            return Ok(Secured::default());
        }
        found.read()
    }

    fn names_any(&self) -> bool {
        [&self.certificate, &self.key, &self.authority, &self.token].into_iter().any(Option::is_some)
    }

    /// What was given, and for the rest what the first folder has that has an authority.
    fn find(&self, folders: &[PathBuf]) -> Found {
        let beside = self.authority.as_ref().or(self.certificate.as_ref()).and_then(|p| p.parent());
        let usual = folders.iter().find(|f| f.join(AUTHORITY).is_file());
        let folder = beside.or(usual.map(PathBuf::as_path));
        let there = |name: &str| folder.map(|f| f.join(name)).filter(|p| p.is_file());
        let authority = self.authority.clone().or_else(|| there(AUTHORITY));
        let (certificate, key, token) = (self.certificate.clone(), self.key.clone(), self.token.clone());
        // A token that was given is not to be shown beside somebody's certificate.
        if token.is_some() && certificate.is_none() {
            return Found { certificate: None, key: None, authority, token };
        }
        let certificate = certificate.or_else(|| there(CERTIFICATE));
        let token = token.or_else(|| if certificate.is_some() { None } else { there(TOKEN) });
        let key = key.or_else(|| certificate.is_some().then(|| there(KEY)).flatten());
        Found { certificate, key, authority, token }
    }
}

impl Found {
    fn read(self) -> Result<Secured, Failure> {
        let missing = |what: &str, option: &str| {
            Failure::usage(format!("the NVA is spoken to with TLS, and there is no {what}")).remedy(format!(
                "give {option}, or put the files of `godwitctl pki operator` into ~/.config/godwit or {OF_HOST}"
            ))
        };
        let authority =
            self.authority.ok_or_else(|| missing("authority to check its certificate by", "--authority"))?;
        let Some(certificate) = self.certificate else {
            let token = self
                .token
                .ok_or_else(|| missing("certificate or token to show", "--certificate and --key"))?;
            let auth = OperatorAuth::token(&token_in(&token)?).map_err(|e| unusable(&e))?;
            let credentials = Credentials::anonymous(authority).map_err(|e| unusable(&e))?;
            return Ok(Secured { credentials: Some(credentials), auth });
        };
        let key = self.key.ok_or_else(|| missing("key of the certificate", "--key"))?;
        let files = TlsFiles { certificate, key, authority };
        let credentials = Credentials::load(files).map_err(|e| unusable(&e))?;
        Ok(Secured { credentials: Some(credentials), auth: OperatorAuth::default() })
    }
}

fn token_in(path: &Path) -> Result<String, Failure> {
    let bytes = private_file("token", path).map_err(|e| unusable(&e))?;
    let text = String::from_utf8(bytes).unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        let e = TlsError::new("token", path, "has no token", "write the token into it, on one line");
        return Err(unusable(&e));
    }
    Ok(text)
}

fn unusable(e: &TlsError) -> Failure {
    Failure::usage(format!("{} {}: {}", e.kind, e.path.display(), e.what)).remedy(e.remedy.clone())
}

fn folders() -> Vec<PathBuf> {
    let of_user = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let of_user = of_user.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    of_user.map(|f| f.join("godwit")).into_iter().chain([PathBuf::from(OF_HOST)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|f| std::fs::write(dir.path().join(f), "").unwrap());
        dir
    }

    #[test]
    fn r68_files_are_found_in_the_first_folder_that_has_them() {
        let (none, some) = (folder(&[]), folder(&[CERTIFICATE, KEY, AUTHORITY, TOKEN]));
        let folders = [none.path().to_owned(), some.path().to_owned()];
        let found = SecureArgs::default().find(&folders);
        assert_eq!(found.certificate, Some(some.path().join(CERTIFICATE)));
        assert_eq!((found.key, found.token), (Some(some.path().join(KEY)), None));
        let nothing = SecureArgs::default().find(&folders[..1]);
        assert_eq!(nothing, Found { certificate: None, key: None, authority: None, token: None });
    }

    #[test]
    fn r68_a_token_is_shown_instead_of_a_certificate() {
        let dir = folder(&[CERTIFICATE, KEY, AUTHORITY]);
        let args = SecureArgs { token: Some("t".into()), ..SecureArgs::default() };
        let found = args.find(&[dir.path().to_owned()]);
        assert_eq!((found.certificate, found.key, found.token), (None, None, Some("t".into())));
        let tokens = folder(&[AUTHORITY, TOKEN]);
        let found = SecureArgs::default().find(&[tokens.path().to_owned()]);
        assert_eq!((found.certificate, found.token), (None, Some(tokens.path().join(TOKEN))));
    }

    #[test]
    fn r68_what_is_missing_is_named_and_a_token_stays_at_home() {
        let dir = folder(&[AUTHORITY]);
        let found = SecureArgs::default().find(&[dir.path().to_owned()]);
        assert!(found.read().unwrap_err().text.contains("no certificate or token"));
        let args = SecureArgs { token: Some("t".into()), ..SecureArgs::default() };
        assert!(args.read("http://a:1").unwrap_err().text.contains("in clear"));
    }
}

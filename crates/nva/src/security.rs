//! Options that say how connections are secured.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use godwit_api::tls::TlsFiles;
use godwit_nva::service::Security;

/// Port of the NVA.
const PORT: u16 = 6640;

/// How connections are secured.
#[derive(Args, Debug)]
pub struct SecurityFlags {
    /// This NVA's certificate (PEM). With it, all connections are TLS 1.3, and who connects shows a certificate.
    #[arg(long, value_name = "FILE", env = "GODWIT_NVA_CERTIFICATE", requires_all = ["key", "authority"])]
    certificate: Option<PathBuf>,

    /// The certificate's key (PEM), readable by this user only.
    #[arg(long, value_name = "FILE", env = "GODWIT_NVA_KEY", requires = "certificate")]
    key: Option<PathBuf>,

    /// Certificates of the authorities that NVEs and operators have their certificates from (PEM).
    #[arg(long, value_name = "FILE", env = "GODWIT_NVA_AUTHORITY", requires = "certificate")]
    authority: Option<PathBuf>,

    /// Certificates that the authorities revoked: their lists (PEM). Connections with one of them end.
    #[arg(long, value_name = "FILE", env = "GODWIT_NVA_REVOKED", requires = "certificate")]
    revoked: Option<PathBuf>,

    /// Operators that show a token instead of a certificate, a line each: NAME ROLE HASH.
    #[arg(long, value_name = "FILE", env = "GODWIT_NVA_TOKENS", requires = "certificate")]
    tokens: Option<PathBuf>,

    /// Take connections in clear on addresses that other hosts reach: whoever does has full control.
    #[arg(long, conflicts_with = "certificate")]
    insecure: bool,
}

impl SecurityFlags {
    /// Where to listen if nothing is said: on all addresses with TLS, on this host alone without.
    pub fn default_listen(&self) -> SocketAddr {
        let host = if self.certificate.is_some() { Ipv6Addr::UNSPECIFIED } else { Ipv6Addr::LOCALHOST };
        SocketAddr::from((host, PORT))
    }

    /// The settings of TLS; `None`: in clear.
    ///
    /// # Errors
    /// Where strangers would reach the NVA in clear and nobody said that they may.
    pub fn settings(self, listen: &[SocketAddr]) -> anyhow::Result<Option<Security>> {
        if let (Some(certificate), Some(key), Some(authority)) = (self.certificate, self.key, self.authority)
        {
            let files = TlsFiles { certificate, key, authority };
            return Ok(Some(Security { files, revoked: self.revoked, tokens: self.tokens }));
        }
        let Some(open) = listen.iter().find(|a| !a.ip().to_canonical().is_loopback()) else {
            return Ok(None);
        };
        if !self.insecure {
            bail!(
                "--listen {open} is reached by other hosts, and no certificate is given: whoever connects would \
                 have full control; make certificates with `godwitctl pki init` and give --certificate, --key and \
                 --authority, or listen on [::1]:{PORT}, or say --insecure"
            );
        }
        tracing::warn!(
            "--insecure: connections to {open} are in clear and prove nothing; whoever reaches it has full \
             control of all networks and switches"
        );
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        security: SecurityFlags,
    }

    fn settings(flags: &[&str], listen: &str) -> anyhow::Result<Option<Security>> {
        let flags = Flags::try_parse_from([&["nva"], flags].concat())?;
        flags.security.settings(&[listen.parse()?])
    }

    #[test]
    fn r68_in_clear_is_for_this_host_unless_it_is_demanded() {
        for local in ["127.0.0.1:1", "[::1]:1", "127.1.2.3:1", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(settings(&[], local).unwrap(), None, "{local}");
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[2001:db8::1]:1"] {
            let e = settings(&[], open).unwrap_err().to_string();
            assert!(e.contains(open) && e.contains("--certificate") && e.contains("--insecure"), "{e}");
            assert_eq!(settings(&["--insecure"], open).unwrap(), None);
        }
    }

    #[test]
    fn r68_half_of_the_files_are_not_enough() {
        for half in [&["--certificate", "c"][..], &["--key", "k"], &["--revoked", "r"], &["--tokens", "t"]] {
            assert!(settings(half, "[::1]:1").is_err(), "{half:?}");
        }
        let all = ["--certificate", "c", "--key", "k", "--authority", "a"];
        assert!(settings(&all, "[::]:1").unwrap().is_some());
        assert!(settings(&[&all[..], &["--insecure"]].concat(), "[::]:1").is_err());
    }
}

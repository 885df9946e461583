//! Where the NVA is, and the files that connections to it are secured with.

use std::net::IpAddr;
use std::sync::Arc;

use godwit_api::client::endpoint;
use godwit_api::tls::{Credentials, TlsError, TlsFiles};
use serde::{Deserialize, Deserializer};

use super::file::Nve;

/// A key, what is wrong with it, what to do.
type Mistake = (&'static str, String, String);

/// One address or several.
pub(super) fn addresses<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "an NVA is \"https://HOST:PORT\", several are [\"https://...\", \"https://...\"]"
    )]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Given::deserialize(d)? {
        Given::One(url) => vec![url],
        Given::Several(urls) => urls,
    })
}

/// What the NVA is shown; nothing without files.
///
/// # Errors
/// Says which file is wrong.
pub fn credentials(n: &Nve) -> Result<Option<Arc<Credentials>>, TlsError> {
    match (&n.nva_certificate, &n.nva_key, &n.nva_authority) {
        (Some(certificate), Some(key), Some(authority)) => {
            let (certificate, key, authority) = (certificate.clone(), key.clone(), authority.clone());
            Credentials::load(TlsFiles { certificate, key, authority }).map(Some)
        }
        _ => Ok(None),
    }
}

/// The NVA's addresses that are spoken to in clear over a network.
pub fn in_clear(n: &Nve) -> impl Iterator<Item = &str> {
    n.nva.iter().map(String::as_str).filter(|url| url.starts_with("http://") && !is_local(url))
}

fn is_local(url: &str) -> bool {
    let Ok(endpoint) = endpoint(url) else { return false };
    let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// The first mistake in these keys.
pub(super) fn mistake(n: &Nve) -> Option<Mistake> {
    for url in &n.nva {
        let has_scheme = url.starts_with("https://") || url.starts_with("http://");
        if !has_scheme || endpoint(url).is_err() {
            return Some((
                "nve.nva",
                format!("{url:?} is no URL of an NVA"),
                "write https://HOST:PORT".into(),
            ));
        }
    }
    let given = [
        ("nve.nva_certificate", n.nva_certificate.is_some()),
        ("nve.nva_key", n.nva_key.is_some()),
        ("nve.nva_authority", n.nva_authority.is_some()),
    ];
    let secure = n.nva.iter().any(|url| url.starts_with("https://"));
    let some = given.iter().any(|(_, is_there)| *is_there);
    if some && !secure {
        let what = "there is no NVA with https:// that they are for".into();
        return Some(("nve.nva_certificate", what, "write nve.nva as https://HOST:PORT".into()));
    }
    if let Some((key, _)) = given.iter().find(|(_, is_there)| (secure || some) && !is_there) {
        let what = "is not set, and an NVA with https:// needs it".into();
        let remedy = "set nva_certificate, nva_key and nva_authority (`godwitctl pki nve` makes them)";
        return Some((key, what, remedy.into()));
    }
    let e = credentials(n).err()?;
    let key = match e.kind {
        "key" => "nve.nva_key",
        "authority" => "nve.nva_authority",
        _ => "nve.nva_certificate",
    };
    Some((key, format!("{}: {}", e.path.display(), e.what), e.remedy))
}

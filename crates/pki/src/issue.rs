//! The authority's signature on certificates and revocation lists.

use std::net::IpAddr;

use godwit_api::tls::uri;
use godwit_model::{Identity, NveId, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::index::{Index, unhex};
use crate::{PkiError, Subject};

/// How long the authority is good for.
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks of hosts may be behind by so much.
const BACKDATED: Duration = Duration::minutes(10);
/// When the next revocation list is due at the latest; the NVA goes by the newest it has.
const LIST_DAYS: i64 = 3650;

pub(crate) struct Signer(Issuer<'static, KeyPair>);

/// A certificate with its key, both in PEM.
pub(crate) struct Made {
    pub certificate: String,
    pub key: String,
    pub serial: String,
    pub until_s: i64,
}

pub(crate) fn now_s() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

impl Signer {
    /// A new authority: with its certificate and its key in PEM.
    pub fn new() -> Result<(Signer, String, String), PkiError> {
        let (number, bytes) = serial()?;
        let mut params = params(&format!("Godwit authority {}", &number[..8]), &bytes, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        let key_text = key.serialize_pem();
        Ok((Signer::open(&certificate, &key_text)?, certificate, key_text))
    }

    pub fn open(certificate: &str, key: &str) -> Result<Signer, PkiError> {
        Ok(Signer(Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?))
    }

    pub fn sign(&self, subject: &Subject, days: u32) -> Result<Made, PkiError> {
        let (number, bytes) = serial()?;
        let mut params = params(common_name(subject), &bytes, days.into());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match subject {
            Subject::Nva { .. } => ExtendedKeyUsagePurpose::ServerAuth,
            Subject::Nve { .. } | Subject::Operator { .. } => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.subject_alt_names = names(subject)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?.pem();
        let until_s = params.not_after.unix_timestamp();
        Ok(Made { certificate, key: key.serialize_pem(), serial: number, until_s })
    }

    /// The list of what was revoked, in PEM.
    pub fn revocation_list(&self, index: &Index) -> Result<String, PkiError> {
        let revoked = index.issued.iter().filter_map(|i| {
            let at = OffsetDateTime::from_unix_timestamp(i.revoked_s?).ok()?;
            Some(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&unhex(&i.serial)?),
                revocation_time: at,
                reason_code: Some(RevocationReason::Unspecified),
                invalidity_date: None,
            })
        });
        let now = OffsetDateTime::now_utc();
        let params = CertificateRevocationListParams {
            this_update: now - BACKDATED,
            next_update: now + Duration::days(LIST_DAYS),
            crl_number: SerialNumber::from(index.list_number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.0)?.pem()?)
    }
}

fn params(name: &str, serial: &[u8], days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - BACKDATED, now + Duration::days(days));
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

/// A number that no other certificate has, in hexadecimal and as bytes.
fn serial() -> Result<(String, [u8; 16]), PkiError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    // Positive, and of 16 bytes.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok((bytes.iter().map(|b| format!("{b:02x}")).collect(), bytes))
}

fn common_name(subject: &Subject) -> &str {
    match subject {
        Subject::Nva { .. } => "godwit-nva",
        Subject::Nve { name, .. } | Subject::Operator { name, .. } => name,
    }
}

fn names(subject: &Subject) -> Result<Vec<SanType>, PkiError> {
    let identity = match subject {
        Subject::Nva { addresses } => {
            let name = |text: &String| match text.parse::<IpAddr>() {
                Ok(ip) => Ok(SanType::IpAddress(ip)),
                Err(_) => Ok(SanType::DnsName(text.as_str().try_into()?)),
            };
            return addresses.iter().map(name).collect();
        }
        Subject::Nve { name, locators } => {
            let id = NveId::new(name).ok();
            id.map(|id| Identity::Nve { id, locators: locators.clone() })
        }
        Subject::Operator { name, role } => {
            Role::of(role).map(|role| Identity::Operator { name: name.clone(), role })
        }
    };
    let uri = identity.as_ref().and_then(uri).unwrap_or_default();
    let mut names = vec![SanType::URI(uri.try_into()?)];
    if let Some(Identity::Nve { locators, .. }) = identity {
        names.extend(locators.into_iter().map(SanType::IpAddress));
    }
    Ok(names)
}

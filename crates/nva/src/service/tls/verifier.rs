//! Which certificates of clients are good.

use std::sync::Arc;

use godwit_api::tls::rustls::client::danger::HandshakeSignatureValid;
use godwit_api::tls::rustls::pki_types::pem::PemObject as _;
use godwit_api::tls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use godwit_api::tls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use godwit_api::tls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use godwit_api::tls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use godwit_api::tls::{TlsError, identity, provider, read, roots};

use super::Security;

/// Takes certificates that an authority of ours issued, that are valid today, not revoked, and name somebody.
#[derive(Debug)]
pub(super) struct Verifier {
    chains: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    /// From the files of the authorities and of what they revoked.
    ///
    /// # Errors
    /// Says which file is wrong.
    pub fn read(settings: &Security) -> Result<Verifier, TlsError> {
        let authority = &settings.files.authority;
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), provider());
        if let Some(path) = &settings.revoked {
            let bytes = read("revocation list", path)?;
            let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
            let bad = |what: String| {
                let remedy = "give the list of the authority, which has a line -----BEGIN X509 CRL-----";
                TlsError::new("revocation list", path, what, remedy)
            };
            let lists = lists.map_err(|e| bad(format!("is no PEM: {e}")))?;
            if lists.is_empty() {
                return Err(bad("has no list in PEM".into()));
            }
            // An authority without a list has revoked nothing.
            builder = builder.with_crls(lists).allow_unknown_revocation_status();
        }
        if settings.tokens.is_some() {
            builder = builder.allow_unauthenticated();
        }
        let (kind, path) = match &settings.revoked {
            Some(path) => ("revocation list", path),
            None => ("authority", authority),
        };
        let unusable = |e: VerifierBuilderError| {
            TlsError::new(kind, path, format!("cannot be used: {e}"), "make it anew")
        };
        Ok(Verifier { chains: builder.build().map_err(unusable)? })
    }
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        self.chains.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(own, between, now)?;
        let other = |e| CertificateError::Other(OtherError(Arc::new(e)));
        identity(own).map_err(other)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

//! TLS on connections to the NVA (R68): files, who a certificate names, a client's credentials.
//!
//! TLS 1.3 only, without resumption: a session is as good as the certificate that is shown at its start.

mod credentials;
mod files;
mod identity;
mod stamp;
pub mod tokens;

pub use credentials::Credentials;
pub use files::{TlsError, TlsFiles, Validity, certificates, private_file, read, roots, validity};
pub use identity::{NamelessError, identity, uri};
pub use stamp::Stamp;
pub use tokens::TokenLine;
pub use tokio_rustls;
pub use tokio_rustls::rustls;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// Name of the application protocol in TLS: HTTP/2.
pub const ALPN: &[u8] = b"h2";

/// The cryptography that all our TLS uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

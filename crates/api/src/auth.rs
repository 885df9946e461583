//! What an operator's requests carry beside what they ask: a token, for one without a certificate (R68).

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::tls::TlsError;

/// A connection to an NVA whose requests carry an operator's token, if it has one.
pub type OperatorChannel = InterceptedService<Channel, OperatorAuth>;

/// Puts an operator's token into requests, or nothing.
#[derive(Clone, Default)]
pub struct OperatorAuth(Option<MetadataValue<Ascii>>);

impl OperatorAuth {
    /// Of an operator with this token.
    ///
    /// # Errors
    /// Where it has other characters than tokens have.
    pub fn token(token: &str) -> Result<OperatorAuth, TlsError> {
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut value = value.map_err(|_| {
            TlsError::new("token", "given".as_ref(), "has characters that tokens do not have", "copy it anew")
        })?;
        value.set_sensitive(true);
        Ok(OperatorAuth(Some(value)))
    }

    /// The connection with it.
    pub fn on(self, channel: Channel) -> OperatorChannel {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for OperatorAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for OperatorAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OperatorAuth(token)" } else { "OperatorAuth(none)" })
    }
}

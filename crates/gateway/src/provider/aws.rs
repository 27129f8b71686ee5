//! Calls that are signed with AWS's keys (Signature Version 4).

use std::{fmt, sync::Arc, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret as _, SecretString};

use super::{aws_chain::Chain, http::Response};

/// How many tokens a model that Bedrock invoked says that it read.
pub(crate) fn input_tokens(response: &Response) -> Option<u64> {
    let count = response.headers().get("x-amzn-bedrock-input-token-count")?;
    count.to_str().ok()?.parse().ok()
}

/// The keys of an account, and where its calls go.
#[derive(Clone)]
pub struct AwsKeys {
    pub(crate) keys: Keys,
    pub(crate) region: String,
}

/// Where keys come from.
#[derive(Clone)]
pub(crate) enum Keys {
    /// The configuration.
    Own {
        id: String,
        secret: SecretString,
        /// Of temporary keys.
        session_token: Option<SecretString>,
    },
    /// Where the process runs.
    Found(Arc<Chain>),
}

/// No key, not even its id.
impl fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKeys")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl AwsKeys {
    /// Keys that are valid now; or why there are none.
    pub(crate) async fn credentials(&self) -> Result<Credentials, String> {
        let (id, secret, token) = match &self.keys {
            Keys::Own {
                id,
                secret,
                session_token,
            } => {
                let token = session_token.as_ref();
                let token = token.map(|token| token.expose_secret().to_owned());
                (id.clone(), secret.expose_secret().to_owned(), token)
            }
            Keys::Found(chain) => {
                let found = Box::pin(chain.credential()).await?;
                (
                    found.access_key_id,
                    found.secret_access_key,
                    found.session_token,
                )
            }
        };
        Ok(Credentials::new(id, secret, token, None, "vorrang"))
    }

    /// Adds the signature of a call. `None`: it cannot be signed.
    pub(crate) fn sign(
        &self,
        credentials: Credentials,
        url: &str,
        body: &[u8],
        headers: &mut HeaderMap,
        now: SystemTime,
    ) -> Option<()> {
        let identity = credentials.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("bedrock")
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .ok()?;
        // Others may be changed on the way.
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let signed = [("content-type", kind)].into_iter();
        let request = SignableRequest::new("POST", url, signed, SignableBody::Bytes(body)).ok()?;
        let (added, _) = sign(request, &params.into()).ok()?.into_parts();
        let (added, _) = added.into_parts();
        for one in added {
            let name: HeaderName = one.name().parse().ok()?;
            let mut value = HeaderValue::from_str(one.value()).ok()?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Some(())
    }
}

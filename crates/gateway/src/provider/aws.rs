//! Calls that are signed with AWS's keys (Signature Version 4).

use std::{fmt, time::SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4::SigningParams,
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret as _, SecretString};

/// The keys of an account, and where its calls go.
#[derive(Clone)]
pub struct AwsKeys {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    /// Of temporary keys.
    pub(crate) session_token: Option<SecretString>,
    pub(crate) region: String,
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
    /// Adds the signature of a call. `None`: it cannot be signed.
    pub(crate) fn sign(
        &self,
        url: &str,
        body: &[u8],
        headers: &mut HeaderMap,
        now: SystemTime,
    ) -> Option<()> {
        let token = self.session_token.as_ref();
        let credentials = Credentials::new(
            &self.id,
            self.secret.expose_secret(),
            token.map(|token| token.expose_secret().to_owned()),
            None,
            "vorrang",
        );
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

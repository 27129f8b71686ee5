//! Tokens that expire: Google's, from a service account or from where the process runs; those of Microsoft Entra ID.

use std::{fmt, sync::Arc};

use gcp_auth::{CustomServiceAccount, Error, TokenProvider};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OnceCell;

use super::entra::{Application, Source};

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloud-platform"];

/// What an address has in the place of a project that only the credentials name. No project is called so.
pub(crate) const PROJECT: &str = "PROJECT-OF-THE-CREDENTIALS";

/// Gets bearer tokens, keeps each until it expires, and then gets another.
#[derive(Clone)]
pub struct TokenSource(Arc<Inner>);

enum Inner {
    Google(Google),
    Entra(Source),
}

struct Google {
    /// The JSON of a service account; `None`: Google's application default credentials.
    account: Option<SecretString>,
    provider: OnceCell<Arc<dyn TokenProvider>>,
}

impl TokenSource {
    /// Tokens of a service account, of which this is the JSON; without one those of the process.
    pub(crate) fn google(account: Option<SecretString>) -> Self {
        let provider = OnceCell::new();
        Self(Arc::new(Inner::Google(Google { account, provider })))
    }

    /// Tokens of an application of Entra ID.
    pub(crate) fn entra(application: Application) -> Self {
        Self(Arc::new(Inner::Entra(Source::new(application))))
    }

    /// A token that is valid now; or why there is none, without a secret.
    pub(crate) async fn token(&self) -> Result<SecretString, String> {
        match &*self.0 {
            Inner::Google(google) => google.token().await.map_err(|error| error.to_string()),
            Inner::Entra(source) => source.token().await,
        }
    }

    /// A URL with the project of the credentials where it has [`PROJECT`]; or why there is none.
    pub(crate) async fn completed(&self, url: Url) -> Result<Url, String> {
        let Inner::Google(google) = &*self.0 else {
            return Ok(url);
        };
        let Some((before, after)) = url.as_str().split_once(PROJECT) else {
            return Ok(url);
        };
        let missing =
            |error| format!("set vertex_project: the credentials name no project ({error})");
        let project = google
            .project()
            .await
            .map_err(|error| missing(error.to_string()))?;
        if !is_project(&project) {
            return Err(missing("it is no name of one".into()));
        }
        let whole = format!("{before}{project}{after}");
        Url::parse(&whole).map_err(|error| missing(error.to_string()))
    }
}

/// Whether a text may be a project, and changes nothing else of a path.
pub(crate) fn is_project(text: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    !text.is_empty() && text.chars().all(harmless)
}

impl Google {
    async fn project(&self) -> Result<Arc<str>, Error> {
        let provider = self.provider.get_or_try_init(|| self.open()).await?;
        provider.project_id().await
    }

    async fn token(&self) -> Result<SecretString, Error> {
        let provider = self.provider.get_or_try_init(|| self.open()).await?;
        let token = provider.token(SCOPES).await?;
        Ok(token.as_str().to_owned().into())
    }

    async fn open(&self) -> Result<Arc<dyn TokenProvider>, Error> {
        match &self.account {
            Some(json) => {
                let account = CustomServiceAccount::from_json(json.expose_secret())?;
                Ok(Arc::new(account))
            }
            None => gcp_auth::provider().await,
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

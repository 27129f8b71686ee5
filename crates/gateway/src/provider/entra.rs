//! Tokens of Microsoft Entra ID for an application: OAuth 2.0 client credentials.

use std::time::Duration;

use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, Scope, TokenResponse as _,
    TokenUrl, basic::BasicClient,
};
use reqwest::redirect;
use secrecy::{ExposeSecret, SecretString};
use tokio::{sync::Mutex, time::Instant};

/// Before its end a token is replaced: the clocks differ, and a call takes its time to arrive.
const MARGIN: Duration = Duration::from_secs(60);

/// Calls wait for it.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An application, and where it gets its tokens.
pub(crate) struct Application {
    pub(crate) token_url: TokenUrl,
    pub(crate) client_id: String,
    pub(crate) client_secret: SecretString,
    pub(crate) scope: String,
}

/// Gets tokens and keeps each until it expires.
pub(super) struct Source {
    application: Application,
    kept: Mutex<Option<Token>>,
}

struct Token {
    text: SecretString,
    until: Instant,
}

impl Source {
    pub(super) fn new(application: Application) -> Self {
        let kept = Mutex::default();
        Self { application, kept }
    }

    /// While one is fetched, other calls wait for the same.
    pub(super) async fn token(&self) -> Result<SecretString, String> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.text.clone());
        }
        let token = self.application.fetch().await?;
        Ok(kept.insert(token).text.clone())
    }
}

impl Application {
    async fn fetch(&self) -> Result<Token, String> {
        let secret = ClientSecret::new(self.client_secret.expose_secret().to_owned());
        let client = BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(secret)
            .set_token_uri(self.token_url.clone())
            .set_auth_type(AuthType::RequestBody);
        let request = client
            .exchange_client_credentials()
            .add_scope(Scope::new(self.scope.clone()));
        let asked = Instant::now();
        let response = request.request_async(&send).await;
        let response = response.map_err(|error| format!("Entra ID: {error}"))?;
        let lasts = response.expires_in().unwrap_or_default();
        Ok(Token {
            text: response.access_token().secret().clone().into(),
            until: asked + lasts.saturating_sub(MARGIN),
        })
    }
}

async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        // The secret goes nowhere else.
        .redirect(redirect::Policy::none())
        .build()?;
    let (head, body) = request.into_parts();
    let request = client.request(head.method, head.uri.to_string());
    let answer = request.headers(head.headers).body(body).send().await;
    let answer = answer.map_err(reqwest::Error::without_url)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.bytes().await.map_err(reqwest::Error::without_url)?;
    let mut response = HttpResponse::new(body.to_vec());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

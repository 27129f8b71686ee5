//! Keys of AWS that are found where the process runs: profiles, web identities, containers, instances, assumed roles.

use std::{collections::HashMap, fmt, time::Duration};

use bytes::Bytes;
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, Credential, DefaultCredentialProvider, RequestSigner,
    StaticCredentialProvider,
};
use reqsign_core::{
    CommandExecute, CommandOutput, Context, Error, FileRead, HttpSend, ProvideCredentialDyn,
    Result, Signer, SigningCredential as _, StaticEnv,
};
use reqwest::redirect;
use tokio::{process::Command, sync::Mutex};

/// Metadata servers are near, or not there at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls wait for it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Variables that say where keys are.
const VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// What is done to get keys.
#[derive(Default)]
pub(crate) struct Way {
    /// A profile of the shared files, and nothing else; `None`: the default chain.
    pub(crate) profile: Option<String>,
    /// Keys instead of the chain, with which a role is assumed: id, secret, session token.
    pub(crate) own: Option<(String, String, Option<String>)>,
    /// A role that is assumed with what was found.
    pub(crate) role: Option<Role>,
}

pub(crate) struct Role {
    pub(crate) arn: String,
    pub(crate) session: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) region: String,
}

/// Finds keys, and keeps them until they expire.
pub(crate) struct Chain {
    context: Context,
    provider: Box<dyn ProvideCredentialDyn<Credential = Credential>>,
    kept: Mutex<Option<Credential>>,
}

impl Chain {
    /// `variable`: the environment as the configuration sees it.
    pub(crate) fn new(way: Way, variable: impl Fn(&str) -> Option<String>) -> Self {
        Self::with(way, variable, Network)
    }

    fn with(way: Way, variable: impl Fn(&str) -> Option<String>, network: impl HttpSend) -> Self {
        let set = VARIABLES.iter();
        let envs: HashMap<String, String> = set
            .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
            .filter(|(_, value)| !value.trim().is_empty())
            .collect();
        let home_dir = variable("HOME").map(Into::into);
        let context = Context::new()
            .with_file_read(Files)
            .with_command_execute(Commands)
            .with_http_send(network)
            .with_env(StaticEnv { home_dir, envs });
        Self {
            provider: provider(way, &context),
            context,
            kept: Mutex::default(),
        }
    }

    /// Keys that are valid now; or why there are none. While they are fetched, other calls wait for the same.
    pub(crate) async fn credential(&self) -> std::result::Result<Credential, String> {
        let mut kept = self.kept.lock().await;
        if let Some(credential) = kept.as_ref().filter(|credential| credential.is_valid()) {
            return Ok(credential.clone());
        }
        let found = self.provider.provide_credential_dyn(&self.context).await;
        let found = found.map_err(|error| format!("AWS: {error}"))?;
        let found = found.ok_or("AWS: no keys are found in the environment, in profiles, in the container or the instance")?;
        Ok(kept.insert(found).clone())
    }
}

fn provider(way: Way, context: &Context) -> Box<dyn ProvideCredentialDyn<Credential = Credential>> {
    let chain = DefaultCredentialProvider::builder();
    let chain = match way.profile {
        Some(profile) => chain
            .with_profile(profile)
            .no_env()
            .no_web_identity()
            .no_ecs()
            .no_imds(),
        None => chain,
    };
    let mut chain = chain.build();
    if let Some((id, secret, token)) = way.own {
        let own = StaticCredentialProvider::new(&id, &secret);
        chain = chain.push_front(match token {
            Some(token) => own.with_session_token(&token),
            None => own,
        });
    }
    let Some(role) = way.role else {
        return Box::new(chain);
    };
    let signer = RequestSigner::new("sts", &role.region);
    let signer = Signer::new(context.clone(), chain, signer);
    let mut assumed = AssumeRoleCredentialProvider::new(role.arn, signer)
        .with_role_session_name(role.session.unwrap_or_else(|| "vorrang".into()))
        .with_region(role.region)
        .with_regional_sts_endpoint();
    if let Some(id) = role.external_id {
        assumed = assumed.with_external_id(id);
    }
    Box::new(assumed)
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>> {
        let read = tokio::fs::read(path).await;
        read.map_err(|error| Error::unexpected(format!("{path}: {error}")))
    }
}

/// `credential_process` of a profile.
#[derive(Debug)]
struct Commands;

impl CommandExecute for Commands {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        arguments: &'a [&'a str],
    ) -> Result<CommandOutput> {
        let output = Command::new(program)
            .args(arguments)
            .kill_on_drop(true)
            .output();
        let output = output
            .await
            .map_err(|error| Error::unexpected(format!("{program}: {error}")))?;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

#[derive(Debug)]
struct Network;

impl HttpSend for Network {
    async fn http_send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        let sent = async {
            let client = reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TIMEOUT)
                // Keys and tokens go nowhere else.
                .redirect(redirect::Policy::none())
                .build()?;
            let answer = client.execute(request.try_into()?).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut response = http::Response::new(answer.bytes().await?);
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        };
        let sent: reqwest::Result<_> = sent.await;
        sent.map_err(|error| Error::unexpected(error.without_url().to_string()))
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex as Blocking};

    use super::*;

    /// AWS's token service: it keeps what it is asked.
    #[derive(Debug, Clone, Default)]
    struct Sts(Arc<Blocking<Vec<http::Request<Bytes>>>>);

    impl HttpSend for Sts {
        async fn http_send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
            self.0.lock().unwrap().push(request);
            let answer = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAEXAMPLE123456</AccessKeyId>\
                          <SecretAccessKey>secret-2</SecretAccessKey><SessionToken>session-2</SessionToken>\
                          <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";
            Ok(http::Response::new(answer.into()))
        }
    }

    #[tokio::test]
    async fn role_is_assumed_once_with_the_given_keys() {
        let sts = Sts::default();
        let way = Way {
            own: Some(("AKID1".into(), "secret-1".into(), None)),
            role: Some(Role {
                arn: "arn:aws:iam::123456789012:role/caller".into(),
                session: Some("gateway".into()),
                external_id: Some("ext-1".into()),
                region: "eu-west-1".into(),
            }),
            profile: None,
        };
        let chain = Chain::with(way, |_| None, sts.clone());
        for _ in 0..2 {
            let found = chain.credential().await.unwrap();
            let token = found.session_token.as_deref();
            assert_eq!(
                (&*found.access_key_id, token),
                ("ASIAEXAMPLE123456", Some("session-2"))
            );
        }
        let asked = sts.0.lock().unwrap();
        assert_eq!(asked.len(), 1);
        let (uri, body) = (asked[0].uri().to_string(), asked[0].body());
        let all = format!("{uri} {}", String::from_utf8_lossy(body));
        assert!(
            uri.starts_with("https://sts.eu-west-1.amazonaws.com/"),
            "{uri}"
        );
        for part in [
            "Action=AssumeRole",
            "RoleSessionName=gateway",
            "ExternalId=ext-1",
        ] {
            assert!(all.contains(part), "{all}");
        }
        let signature = asked[0].headers()["authorization"].to_str().unwrap();
        assert!(signature.contains("Credential=AKID1/"), "{signature}");
    }
}

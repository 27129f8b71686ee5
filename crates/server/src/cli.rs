//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use secrecy::{ExposeSecret as _, SecretString};
use vorrang_gateway::{Config, ConfigError, Env, GroupSettings, Loaded, RedisSettings};

use crate::{queue, simulate::Simulate, top};

/// A gateway for LLM APIs that decides who goes next.
#[derive(Debug, Parser)]
#[command(name = "vorrang", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (what `vorrang` does without a command, too)
    Serve(Box<Serve>),
    /// Print what a configuration means, without serving it
    Check(Check),
    /// Show the fleet's queues in the terminal, and steer them
    Top(top::Options),
    /// Run recorded or invented requests through a configuration in virtual time: what would they wait?
    Simulate(Box<Simulate>),
    /// List the waiting tickets of a running fleet; move, cancel, pause, change limits
    Queue(queue::Options),
}

/// What to print of a configuration, and when to fail.
#[derive(Debug, Args)]
pub struct Check {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub settings: Settings,
    /// Exit with 1 also where calls are not served that LiteLLM would serve, or are served otherwise
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where the configuration comes from.
    #[command(flatten)]
    pub settings: Settings,
    /// Address to listen on
    #[arg(long, env = "HOST", default_value = "0.0.0.0")]
    pub host: String,
    /// Port to listen on; 0: a free one
    #[arg(long, env = "PORT", default_value_t = 4000)]
    pub port: u16,
    /// Another port, on the same address, for health, metrics, /ui and the admin API; 0: a free one
    #[arg(long = "admin-port", value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Refuse to start without a master key or vorrang_settings.keys
    #[arg(long = "require-keys")]
    pub require_keys: bool,
    /// Read the configuration again when its files change, as on SIGHUP
    #[arg(long)]
    pub watch: bool,
    /// With the built-in demo: sends it traffic, so that /ui and `vorrang top` show a queue
    #[arg(long = "demo-load")]
    pub demo_load: bool,
    /// Taken for LiteLLM's sake: one process uses all cores
    #[arg(long = "num_workers", alias = "num-workers", value_name = "N")]
    pub num_workers: Option<u32>,
    /// Other options of LiteLLM's command line.
    #[command(flatten)]
    pub litellms: LiteLlms,
}

/// Options of LiteLLM's command line that do nothing here. Those that ask for something else than a gateway with a file are no options.
#[derive(Debug, Args)]
pub struct LiteLlms {
    #[arg(long = "detailed_debug", hide = true)]
    detailed_debug: bool,
    #[arg(long, hide = true)]
    debug: bool,
    #[arg(long = "run_gunicorn", hide = true)]
    run_gunicorn: bool,
    #[arg(long = "run_hypercorn", hide = true)]
    run_hypercorn: bool,
    #[arg(long = "run_granian", hide = true)]
    run_granian: bool,
    #[arg(long = "use_prisma_db_push", hide = true)]
    use_prisma_db_push: bool,
    #[arg(long, hide = true)]
    local: bool,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    telemetry: Option<String>,
    #[arg(long = "log_config", hide = true)]
    log_config: Option<String>,
    #[arg(long = "keepalive_timeout", hide = true)]
    keepalive_timeout: Option<String>,
    #[arg(long = "granian_threads", hide = true)]
    granian_threads: Option<String>,
    #[arg(long = "timeout_worker_healthcheck", hide = true)]
    timeout_worker_healthcheck: Option<String>,
    #[arg(long = "max_requests_before_restart", hide = true)]
    max_requests_before_restart: Option<String>,
    #[arg(long = "max_requests_before_restart_jitter", hide = true)]
    max_requests_before_restart_jitter: Option<String>,
}

impl LiteLlms {
    /// What to say of those that are given.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        const DEBUG: &str =
            "the environment variable RUST_LOG says what is logged, for example RUST_LOG=debug";
        const SERVER: &str = "the server is the gateway's own, in one process";
        let options = [
            ("detailed_debug", self.detailed_debug, DEBUG),
            ("debug", self.debug, DEBUG),
            ("log_config", self.log_config.is_some(), DEBUG),
            ("run_gunicorn", self.run_gunicorn, SERVER),
            ("run_hypercorn", self.run_hypercorn, SERVER),
            ("run_granian", self.run_granian, SERVER),
            ("granian_threads", self.granian_threads.is_some(), SERVER),
            (
                "timeout_worker_healthcheck",
                self.timeout_worker_healthcheck.is_some(),
                SERVER,
            ),
            (
                "max_requests_before_restart",
                self.max_requests_before_restart.is_some(),
                SERVER,
            ),
            (
                "max_requests_before_restart_jitter",
                self.max_requests_before_restart_jitter.is_some(),
                SERVER,
            ),
            (
                "keepalive_timeout",
                self.keepalive_timeout.is_some(),
                "idle connections of clients are kept",
            ),
            (
                "use_prisma_db_push",
                self.use_prisma_db_push,
                "there is no database",
            ),
            (
                "telemetry",
                self.telemetry.is_some(),
                "nothing is reported to anyone",
            ),
            ("local", self.local, "nor does it in LiteLLM"),
        ];
        let given = options.into_iter().filter(|(_, given, _)| *given);
        given.map(|(name, _, why)| format!("--{name} does nothing: {why}"))
    }
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
pub struct Settings {
    /// LiteLLM's config.yaml; without it a built-in demo is served
    #[arg(long, short, value_name = "FILE", env = "CONFIG_FILE_PATH")]
    config: Option<PathBuf>,
    /// Redis to share the queues on, instead of the configuration's
    #[arg(long, value_name = "URL", env = "VORRANG_REDIS_URL", hide_env_values = true, value_parser = secret)]
    redis_url: Option<SecretString>,
    /// The listener's certificate (PEM), which makes it speak TLS, instead of the configuration's
    #[arg(
        long = "ssl_certfile_path",
        alias = "ssl-certfile-path",
        value_name = "FILE",
        env = "SSL_CERTFILE_PATH"
    )]
    certificate: Option<PathBuf>,
    /// The private key of --ssl_certfile_path (PEM)
    #[arg(
        long = "ssl_keyfile_path",
        alias = "ssl-keyfile-path",
        value_name = "FILE",
        env = "SSL_KEYFILE_PATH"
    )]
    certificate_key: Option<PathBuf>,
    /// Groups that the demo has beside its own.
    #[arg(skip)]
    pub demo_groups: Vec<GroupSettings>,
}

fn secret(value: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(value.into())
}

/// A path that is given. An empty variable is how compose files say "not set".
fn set(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

// === impl Cli ===

impl Cli {
    /// The command, `serve` where none is given.
    pub fn command(self) -> Command {
        self.command
            .unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

// === impl Settings ===

impl Settings {
    /// Whether the built-in demo is served.
    pub fn is_demo(&self) -> bool {
        self.file().is_none()
    }

    fn file(&self) -> Option<&Path> {
        set(&self.config)
    }

    /// The configuration they lead to, and what its author should know.
    ///
    /// # Errors
    /// What [`Config::load`] says of the file, and [`Loaded::with_certificate`] of the listener's certificate.
    pub fn load(&self, env: &dyn Env) -> Result<Loaded, ConfigError> {
        self.load_config(env)?
            .with_certificate(set(&self.certificate), set(&self.certificate_key))
    }

    fn load_config(&self, env: &dyn Env) -> Result<Loaded, ConfigError> {
        let redis_url = self.redis_url.as_ref();
        let redis_url = redis_url.filter(|url| !url.expose_secret().is_empty());
        match (self.file(), redis_url) {
            (Some(file), url) => Config::load_with_redis(file, env, url),
            (None, url) => {
                let mut config = Config::demo();
                config.groups.extend(self.demo_groups.iter().cloned());
                let redis = |url| RedisSettings::from_url(url, &config.namespace, env);
                config.redis = url.map(redis).transpose()?;
                Ok(Loaded::new(config))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(Cli::command)
    }

    fn serve(line: &str) -> Serve {
        match parse(line).unwrap() {
            Command::Serve(serve) => *serve,
            other => panic!("{line} is {other:?}"),
        }
    }

    #[test]
    fn serve_subcommand_is_optional() {
        for line in [
            "vorrang --config a.yaml --host 127.0.0.1 --port 0 --num_workers 4",
            "vorrang serve --config a.yaml --host 127.0.0.1 --port 0 --num-workers 4",
        ] {
            let serve = serve(line);
            assert_eq!(serve.settings.file(), Some(Path::new("a.yaml")), "{line}");
            assert_eq!(
                (serve.host.as_str(), serve.port),
                ("127.0.0.1", 0),
                "{line}"
            );
            assert_eq!(serve.num_workers, Some(4), "{line}");
        }
    }

    #[test]
    fn options_of_litellms_command_line_are_taken_and_named() {
        let line = "vorrang --config a.yaml --detailed_debug --run_gunicorn --telemetry False --num_workers 8";
        let warnings: Vec<String> = serve(line).litellms.warnings().collect();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(
            warnings[0].contains("--detailed_debug does nothing: "),
            "{warnings:?}"
        );
        assert!(parse("vorrang --model gpt-4o").is_err());
        assert!(parse("vorrang --ciphers TLSv1.2").is_err());
    }

    #[test]
    fn cli_keeps_litellms_defaults_and_variables() {
        // Read off the definition: the machine's own HOST and PORT must not decide.
        let cli = <Cli as clap::CommandFactory>::command();
        for (name, variable, default) in [("host", "HOST", "0.0.0.0"), ("port", "PORT", "4000")] {
            let argument = cli
                .get_arguments()
                .find(|one| one.get_id() == name)
                .unwrap();
            assert_eq!(argument.get_env().unwrap(), variable);
            assert_eq!(argument.get_default_values(), [default]);
        }
        let config = cli.get_arguments().find(|one| one.get_id() == "config");
        assert_eq!(config.unwrap().get_env().unwrap(), "CONFIG_FILE_PATH");
        assert!(serve("vorrang").settings.is_demo());
    }

    #[test]
    fn check_accepts_config_and_rejects_server_options() {
        let Command::Check(check) = parse("vorrang check --config a.yaml --strict").unwrap() else {
            panic!("a check");
        };
        assert!(!check.settings.is_demo() && check.strict && !check.json);
        assert!(parse("vorrang check --port 1").is_err());
        assert!(parse("vorrang nonsense").is_err());
    }

    #[test]
    fn redis_url_option_is_used_and_hidden_in_debug_output() {
        let serve = serve("vorrang --redis-url redis://:geheim@localhost:1");
        assert!(!format!("{serve:?}").contains("geheim"));
        let loaded = serve
            .settings
            .load(&std::collections::BTreeMap::new())
            .unwrap();
        let redis = loaded.config.redis.unwrap();
        assert_eq!(redis.url.expose_secret(), "redis://:geheim@localhost:1");
        assert_eq!(redis.namespace, loaded.config.namespace);
    }

    #[test]
    fn redis_url_option_takes_sentinels_and_the_password_of_the_environment() {
        let env = std::collections::BTreeMap::from([(
            "REDIS_SENTINEL_PASSWORD".to_owned(),
            "geheim".to_owned(),
        )]);
        let load = |url: &str| {
            serve(&format!("vorrang --redis-url {url}"))
                .settings
                .load(&env)
        };
        let redis = load("redis+sentinel://h1,h2:7/service")
            .unwrap()
            .config
            .redis;
        let password = redis.unwrap().sentinel_password.unwrap();
        assert_eq!(password.expose_secret(), "geheim");
        let error = load("redis+sentinel://h1,h2:7").unwrap_err().to_string();
        assert!(error.contains("--redis-url"), "{error}");
    }

    #[test]
    fn redis_url_option_overrides_only_the_url_of_the_file() {
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        let text = "
model_list: [{model_name: chat, litellm_params: {model: openai/x, mock_response: hello}}]
router_settings: {redis_host: elsewhere, redis_port: 7, redis_password: geheim}
vorrang_settings: {redis_namespace: mine}
";
        file.write_all(text.as_bytes()).unwrap();
        let line = format!("vorrang --config {}", file.path().display());
        for (line, url) in [
            (
                format!("{line} --redis-url redis://here:8/1"),
                "redis://here:8/1",
            ),
            (line, "redis://:geheim@elsewhere:7/0"),
        ] {
            let settings = serve(&line).settings;
            let loaded = settings.load(&std::collections::BTreeMap::new()).unwrap();
            let redis = loaded.config.redis.unwrap();
            assert_eq!(redis.url.expose_secret(), url, "{line}");
            assert_eq!(redis.namespace, "mine", "{line}");
        }
    }
}

//! Which Redis the arguments of a client name: a cluster, else a URL, else a service of sentinels, else a host. That is LiteLLM's order.

use reqwest::Url;
use vorrang_scheduler::backend::Topology;

use super::{
    address::{self, Credentials, bracketed},
    arguments::{Arguments, Origin},
    nodes::nodes,
    tls,
};
use crate::config::{ConfigError, Kind};

type Result<T> = std::result::Result<T, ConfigError>;

/// What names a Redis.
pub(super) const NAMES: &[&str] = &["url", "host", "startup_nodes", "sentinel_nodes"];

/// A Redis that is named.
pub(super) struct Target {
    pub(super) url: String,
    /// What named it.
    pub(super) name: String,
    /// The user of sentinels that have a password, where none is named: LiteLLM sends them the servers' user.
    pub(super) user: Option<String>,
}

/// The arguments of a client, and how they are read.
pub(super) struct Client<'r, 's, 'a> {
    pub(super) arguments: &'r Arguments<'s, 'a>,
    /// All that may say something of TLS.
    pub(super) all: &'r Arguments<'s, 'a>,
    /// `REDIS_URL` and `REDIS_HOST` count where the file names no Redis. `REDIS_HOST` comes first for a cache without any parameter.
    pub(super) inferred: Option<First>,
}

/// Which variable counts where both are set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Url,
    Host,
}

impl<'s, 'a> Client<'_, 's, 'a> {
    /// The Redis; `None`: nothing names one.
    pub(super) fn target(&self) -> Result<Option<Target>> {
        let arguments = self.arguments;
        let cluster = arguments.find_list("startup_nodes")?;
        let sentinels = arguments.find_list("sentinel_nodes")?;
        let url = arguments.named("url").or_else(|| self.inferred("url"));
        let host = arguments.named("host").or_else(|| self.inferred("host"));
        self.check(cluster.as_ref(), sentinels.as_ref(), url.as_ref())?;
        let host_first = self.inferred == Some(First::Host) && host.is_some();
        let url = url.filter(|url| url.is_file() || !host_first);
        if let Some(cluster) = cluster {
            self.only(&cluster, &["url", "host", "port"]);
            return self.cluster(&cluster).map(Some);
        }
        if let Some(url) = url {
            self.only(&url, &["host", "port", "sentinel_nodes"]);
            return self.url(&url).map(Some);
        }
        if let Some(sentinels) = sentinels {
            self.only(&sentinels, &["host", "port"]);
            return self.sentinels(&sentinels).map(Some);
        }
        host.map(|host| self.host(&host)).transpose()
    }

    /// A variable that names a Redis, where nothing in the file does.
    fn inferred(&self, name: &str) -> Option<Origin<'s, 'a>> {
        let arguments = self.arguments;
        let named = NAMES.iter().any(|name| arguments.named(name).is_some());
        let counts = self.inferred.is_some() && !named;
        counts.then(|| arguments.variable(name)).flatten()
    }

    /// Two Redis at once, or half of one.
    fn check(
        &self,
        cluster: Option<&Origin<'s, 'a>>,
        sentinels: Option<&Origin<'s, 'a>>,
        url: Option<&Origin<'s, 'a>>,
    ) -> Result<()> {
        let sections = self.arguments.sections;
        let both = |one: &Origin<'_, '_>, other: &Origin<'_, '_>| {
            let other = other.name();
            let text = format!("names another Redis than {other}: expected one of the two");
            Err(one.error(&text))
        };
        if let (Some(cluster), Some(sentinels)) = (cluster, sentinels)
            // A cluster comes before sentinels of the environment, as in LiteLLM.
            && sentinels.is_file()
        {
            return both(sentinels, cluster);
        }
        for nodes in [cluster, sentinels].into_iter().flatten() {
            if let Some(url) = url
                && nodes.is_ours(sections)
            {
                return both(nodes, url);
            }
        }
        if sentinels.is_none()
            && let Some(service) = self.arguments.named("service_name")
        {
            let text = "names a service of sentinels, and nothing names these: expected sentinel_nodes beside it (in vorrang_settings redis_sentinel_nodes)";
            return Err(service.error(text));
        }
        Ok(())
    }

    /// What LiteLLM ignores beside what it takes.
    fn only(&self, taken: &Origin<'_, '_>, others: &[&str]) {
        let text = format!("is not used; {} is", taken.name());
        for name in others {
            for (section, key) in self.arguments.in_file(name) {
                Origin::File(section, key).unused(Kind::UNUSED, &text);
            }
        }
    }

    fn credentials(&self) -> Result<Credentials> {
        let user = self.arguments.find("username");
        let password = self.arguments.find("password");
        Ok(Credentials {
            user: user.map(|user| user.text()).transpose()?,
            password: match password {
                Some(password) => password.secret()?,
                None => None,
            },
        })
    }

    fn database(&self) -> Result<Option<u64>> {
        let database = self.arguments.find("db");
        let number = database.map(|database| database.whole(0)).transpose()?;
        Ok(number.flatten())
    }

    fn scheme(&self, clear: &'static str, encrypted: &'static str) -> Result<&'static str> {
        let asked = tls::asked(self.all)?.is_some();
        Ok(if asked { encrypted } else { clear })
    }

    fn cluster(&self, origin: &Origin<'_, '_>) -> Result<Target> {
        if let Some(database) = self.arguments.find("db")
            && database.whole(0)?.is_some_and(|number| number > 0)
        {
            return Err(database.error("expected 0: a cluster has no other database"));
        }
        let scheme = self.scheme("redis+cluster", "rediss+cluster")?;
        let nodes = nodes(origin, 6379)?;
        Ok(Target {
            url: address::of_nodes(scheme, &self.credentials()?, &nodes, None),
            name: origin.name(),
            user: None,
        })
    }

    fn sentinels(&self, origin: &Origin<'_, '_>) -> Result<Target> {
        let Some(service) = self.arguments.find("service_name") else {
            let text = "names sentinels, and nothing names what they watch: expected service_name beside it (in vorrang_settings redis_service_name)";
            return Err(origin.error(text));
        };
        let service = service.text()?;
        let credentials = self.credentials()?;
        let scheme = self.scheme("redis+sentinel", "rediss+sentinel")?;
        let nodes = nodes(origin, 26379)?;
        let path = Some((service.as_str(), self.database()?));
        Ok(Target {
            url: address::of_nodes(scheme, &credentials, &nodes, path),
            name: origin.name(),
            user: credentials.user,
        })
    }

    fn host(&self, origin: &Origin<'_, '_>) -> Result<Target> {
        let port = match self.arguments.find("port") {
            Some(port) => {
                let number = port.whole(1)?.map_or(Ok(6379), u16::try_from);
                number.map_err(|_| port.error("expected a port between 1 and 65535"))?
            }
            None => 6379,
        };
        let host = bracketed(&origin.text()?);
        let database = self.database()?.unwrap_or(0);
        let credentials = self.credentials()?;
        let scheme = self.scheme("redis", "rediss")?;
        let url = Url::parse(&format!("{scheme}://{host}:{port}/{database}")).ok();
        let url = url
            .filter(|url| url.username().is_empty() && url.host_str().is_some())
            // Not by the setters of the URL: these leave a `%` as it is.
            .and_then(|url| credentials.put_into(url.as_str()));
        let url = url.ok_or_else(|| origin.error("expected a host name or an address"))?;
        Ok(Target {
            url,
            name: origin.name(),
            user: None,
        })
    }

    fn url(&self, origin: &Origin<'_, '_>) -> Result<Target> {
        let sections = self.arguments.sections;
        let mut url = origin.text()?;
        let Some(topology) = address::topology(&url) else {
            return Err(origin.error(address::EXPECTED));
        };
        let text = format!("stands in the URL; {} is used", origin.name());
        if let Some(database) = self.arguments.named("db") {
            if database.is_ours(sections) {
                return Err(database.error("expected the database in the URL, at its end"));
            }
            database.unused(Kind::UNUSED, &text);
        }
        let credentials = ["username", "password"].map(|name| self.arguments.named(name));
        let ours = credentials.iter().flatten();
        if let Some(own) = ours.into_iter().find(|one| one.is_ours(sections)) {
            if topology == Topology::Socket {
                let text = "expected the user and the password of a socket in its URL: unix:///PATH?user=USER&pass=PASSWORD";
                return Err(own.error(text));
            }
            let Some(full) = self.credentials()?.put_into(&url) else {
                return Err(own.error("expected user and password once: the URL has them"));
            };
            url = full;
        } else {
            let [user, password] = credentials;
            if let Some(password) = password {
                password.unused(Kind::UNUSED, &text);
            }
            let named = user.is_some();
            let user = user.or_else(|| self.arguments.find("username"));
            if let Some(user) = user {
                match address::with_user(&url, &user.text()?) {
                    Some(full) => url = full,
                    None if named => user.unused(Kind::UNUSED, &text),
                    None => {}
                }
            }
        }
        Ok(Target {
            url,
            name: origin.name(),
            user: None,
        })
    }
}

//! What all requests of one instance share.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use prometheus_client::registry::Registry;
use vorrang_gateway::{
    Bounds, Config, Endpoint, KeyPolicy, Router,
    config::{AddressSettings, CorsOrigins, Exposure},
};
use vorrang_scheduler::{Scheduler, backend::Backend};

use crate::{
    certificates::Certificates,
    connection::{
        addresses::AddressCounts,
        slots::{Budget, Slots},
    },
    eviction::Eviction,
    failure::Failure,
    keys::{auth::Keys, body_budget::BodyBudget},
    lifecycle::Lifecycle,
    metrics::Metrics,
    patience::Patience,
    record::Record,
    request_body::BodyLimits,
    shadow::Shadow,
    traces::{Came, Traces},
};

/// What every request needs.
pub(crate) struct App {
    pub(crate) scheduler: Scheduler,
    pub(crate) router: Router,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) eviction: Eviction,
    live: ArcSwap<Live>,
    pub(crate) cors_origins: CorsOrigins,
    patience: Patience,
    pub(crate) lifecycle: Lifecycle,
    /// Every group has had an open session.
    pub(crate) was_ready: AtomicBool,
    pub(crate) slots: Arc<Slots>,
    /// Connections to the main port.
    pub(crate) addresses: Arc<AddressCounts>,
    /// `None`: no listener speaks TLS.
    pub(crate) certificates: Option<Arc<Certificates>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    /// `None`: nothing is traced.
    pub(crate) traces: Option<Traces>,
}

/// What a reload replaces. A request keeps what it began with.
pub(crate) struct Live {
    keys: Keys,
    /// No key is configured: every caller is served.
    pub(crate) open: bool,
    pub(crate) exposure: Exposure,
    pub(crate) addresses: AddressSettings,
    /// Headers that say whose share of a group a call takes from.
    fair_headers: HashSet<HeaderName>,
    /// Whether any group passes headers of clients on.
    pub(crate) passes_headers: bool,
    /// How often a client that asked for it gets a comment while its call waits; zero: never.
    pub(crate) keepalive: Duration,
    pub(crate) body_limits: BodyLimits,
    pub(crate) body_budget: BodyBudget,
}

// === impl Live ===

impl Live {
    fn new(config: &Config, patience: Patience, before: Option<&Live>) -> Self {
        Self {
            keys: Keys::new(config),
            open: config.is_open(),
            exposure: config.exposure.clone(),
            addresses: config.addresses.clone(),
            fair_headers: config.fair_headers(),
            passes_headers: config.passes_headers(),
            keepalive: config.keepalive,
            body_limits: BodyLimits {
                size: config.max_body_bytes,
                pause: patience.body_pause,
                total: patience.body,
            },
            body_budget: BodyBudget::new(config, before.map(|live| &live.body_budget)),
        }
    }

    /// What the caller's key says about its calls; its name goes into the request's line.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        record: &Record,
    ) -> Result<Option<KeyPolicy>, Failure> {
        let key = self.keys.authenticate(headers)?;
        if let Some(key) = &key {
            record.key(&key.name);
        }
        Ok(key)
    }

    /// The file's own header for keys of callers.
    pub(crate) fn key_header(&self) -> Option<&HeaderName> {
        self.keys.header()
    }

    /// Those that name a tenant in any group, and no others: what a caller sends beside is not the router's business.
    pub(crate) fn labels(&self, headers: &HeaderMap) -> HashMap<String, Bytes> {
        let sent = |name: &HeaderName| {
            let value = Bytes::copy_from_slice(headers.get(name)?.as_bytes());
            Some((name.as_str().to_owned(), value))
        };
        self.fair_headers.iter().filter_map(sent).collect()
    }
}

// === impl App ===

impl App {
    /// Opens a session in every group. Needs a tokio runtime.
    pub(crate) fn start(
        config: Config,
        backend: Arc<dyn Backend>,
        eviction: Eviction,
        patience: Patience,
        budget: Budget,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        // Each start of the process is a new instance.
        let instance = uuid::Uuid::new_v4().to_string();
        let scheduler = Scheduler::new(backend.clone(), instance, metrics.clone());
        let config = Arc::new(config);
        let slots = Slots::new(budget);
        let bounds = Bounds {
            idle_connections: budget.idle_upstream,
            room: slots.clone(),
            ..Bounds::default()
        };
        let traces = config.traces.as_ref().and_then(|settings| {
            let traces = Traces::start(settings, metrics.spans.clone());
            traces
                .inspect_err(|error| tracing::error!("{error:#}: nothing is traced"))
                .ok()
        });
        let certificates = config
            .tls
            .as_ref()
            .map(|tls| Arc::new(Certificates::new(tls, metrics.clone())));
        let router = Router::bounded(config.clone(), scheduler.clone(), bounds);
        let app = Self {
            live: ArcSwap::from_pointee(Live::new(&config, patience, None)),
            cors_origins: config.cors_origins.clone(),
            patience,
            registry: metrics.registry(router.clone(), slots.clone(), certificates.clone()),
            addresses: Arc::default(),
            certificates,
            lifecycle: Lifecycle::default(),
            was_ready: AtomicBool::new(false),
            slots,
            scheduler,
            router,
            backend,
            eviction,
            metrics,
            traces,
        };
        app.shadow(&config);
        app
    }

    /// Begins a request's trace, where traces are sent. `route`: its path without what a caller may choose.
    pub(crate) fn trace(
        &self,
        record: &Record,
        head: &http::request::Parts,
        route: &'static str,
        endpoint: Option<Endpoint>,
    ) {
        let Some(traces) = &self.traces else { return };
        let came = Came {
            method: &head.method,
            route,
            endpoint,
            call_id: &record.call_id,
            since: record.came.elapsed(),
            client: record.client,
        };
        record.known().trace = Some(Arc::new(traces.request(&head.headers, came)));
    }

    /// What is in force now.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// The same, for a moment.
    pub(crate) fn live_now(&self) -> arc_swap::Guard<Arc<Live>> {
        self.live.load()
    }

    /// Puts another configuration in force. What the process was started with stays as it is.
    pub(crate) fn reload(&self, config: Arc<Config>) {
        let live = Live::new(&config, self.patience, Some(&self.live()));
        if let (Some(certificates), Some(tls)) = (&self.certificates, &config.tls) {
            certificates.replace(tls.identity.clone());
        }
        self.router.reload(config.clone());
        self.live.store(Arc::new(live));
        self.shadow(&config);
    }

    /// Begins what the configuration says of a shadow, in place of the one before.
    fn shadow(&self, config: &Config) {
        let of = config.shadow.as_ref().and_then(|shadow| {
            let config = shadow.config.clone()?;
            let metrics = self.metrics.shadowed.clone();
            tracing::info!(
                file = shadow.file,
                "the shadow's decisions are in the metrics"
            );
            Some(Shadow::start(config, self.router.clone(), metrics))
        });
        self.metrics.shadow.store(of);
    }

    /// What the caller's key says about its calls; its name goes into the request's line.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        record: &Record,
    ) -> Result<Option<KeyPolicy>, Failure> {
        self.live.load().authenticate(headers, record)
    }

    /// Whether a caller may see how the instance is, and not only whether it serves.
    pub(crate) fn shows_details(&self, headers: &HeaderMap) -> bool {
        let live = self.live.load();
        live.exposure.public_metrics || live.keys.is_master(headers)
    }
}

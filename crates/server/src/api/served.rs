//! The list of all that is served: the router is made of it, and so is `/openapi.json`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    routing::{MethodFilter, MethodRouter, get, on, post},
};
use http::Method;
use vorrang_gateway::{Endpoint, Resource};

use super::{
    admin,
    allowed::List,
    calls::{self, Route},
    listing, model_in_path, openapi, readiness,
    resources::{self, Operation},
    scrape,
    ui::{self, Asset},
};
use crate::app::App;

const QUEUE: Route = Route {
    endpoint: Endpoint::ChatCompletions,
    name: "/queue/chat/completions",
    priority_required: true,
};

/// A model's name follows, and then an endpoint's path.
pub(super) const MODELS_FOLLOW: [&str; 2] = ["/engines", "/openai/deployments"];

/// One path, as the router writes it, and what answers there.
pub(super) struct Served {
    pub(super) path: String,
    pub(super) what: What,
}

/// What answers at a path.
pub(super) enum What {
    Call(Route),
    /// Any endpoint's path after a model's name.
    ModelInPath,
    /// What can be done at one path of files, batches or fine-tuning jobs.
    Resource(Vec<Operation>),
    Models,
    Model,
    ModelInfo,
    ModelGroupInfo,
    Health,
    Alive,
    Readiness,
    Metrics,
    OpenApi,
    Ui(Asset),
    Admin(admin::Operation),
}

impl What {
    /// What says how the instance is; it answers whatever happens to calls, and on the admin port.
    pub(super) fn is_operating(&self) -> bool {
        matches!(
            self,
            Self::Alive | Self::Readiness | Self::Metrics | Self::Ui(_)
        )
    }

    /// What operators see and do; it answers on the admin port, too.
    pub(super) fn is_admins(&self) -> bool {
        matches!(self, Self::Admin(operation) if operation.is_admins())
    }

    /// Which list of networks says from where it is reached.
    pub(super) fn list(&self) -> Option<List> {
        match self {
            Self::Metrics => Some(List::Metrics),
            Self::Ui(_) => Some(List::Admin),
            what if what.is_admins() => Some(List::Admin),
            _ => None,
        }
    }

    pub(super) fn handler(self) -> MethodRouter<Arc<App>> {
        match self {
            Self::Call(route) => {
                post(move |state, request| calls::call(state, request, route, None))
            }
            Self::ModelInPath => post(model_in_path),
            Self::Resource(operations) => {
                let routes = operations.into_iter().map(handled);
                routes.fold(MethodRouter::new(), MethodRouter::merge)
            }
            Self::Models => get(listing::models),
            Self::Model => get(listing::model),
            Self::ModelInfo => get(listing::model_info),
            Self::ModelGroupInfo => get(listing::model_group_info),
            Self::Health => get(listing::health),
            Self::Alive => get(readiness::alive),
            Self::Readiness => get(readiness::readiness),
            Self::Metrics => get(scrape),
            Self::OpenApi => get(openapi::page),
            Self::Ui(asset) => get(move |headers| ui::file(asset, headers)),
            Self::Admin(operation) => operation.handler(),
        }
    }
}

fn handled(operation: Operation) -> MethodRouter<Arc<App>> {
    let filter = match operation.method {
        Method::GET => MethodFilter::GET,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::POST,
    };
    let call =
        move |state: State<Arc<App>>, request: Request| resources::call(state, request, operation);
    on(filter, call)
}

/// All paths that are served.
pub(super) fn served() -> Vec<Served> {
    let mut all = Vec::new();
    let mut add = |path: String, what| all.push(Served { path, what });
    // SDKs are given a base URL with or without `/v1`.
    for prefix in ["", "/v1"] {
        for route in Endpoint::all().map(Route::of).chain([QUEUE]) {
            add(format!("{prefix}{}", route.name), What::Call(route));
        }
        add(format!("{prefix}/models"), What::Models);
        add(format!("{prefix}/model/info"), What::ModelInfo);
        add(format!("{prefix}/models/{{*id}}"), What::Model);
        for operation in admin::Operation::CLIENTS {
            add(
                format!("{prefix}{}", operation.path()),
                What::Admin(operation),
            );
        }
    }
    for prefix in ["", "/v1", "/{provider}/v1"] {
        for (path, operations) in Resource::all().flat_map(resources::operations) {
            add(format!("{prefix}{path}"), What::Resource(operations));
        }
    }
    for endpoint in Endpoint::all() {
        for path in endpoint.other_paths() {
            add((*path).to_owned(), What::Call(Route::of(endpoint)));
        }
    }
    for prefix in MODELS_FOLLOW {
        add(format!("{prefix}/{{*rest}}"), What::ModelInPath);
    }
    for operation in admin::Operation::ADMIN {
        add(operation.path().into(), What::Admin(operation));
    }
    add("/model_group/info".into(), What::ModelGroupInfo);
    add("/health".into(), What::Health);
    add("/openapi.json".into(), What::OpenApi);
    add("/health/liveliness".into(), What::Alive);
    add("/health/liveness".into(), What::Alive);
    add("/health/readiness".into(), What::Readiness);
    add("/metrics".into(), What::Metrics);
    for asset in ui::ASSETS {
        add(asset.path.into(), What::Ui(asset));
    }
    all
}

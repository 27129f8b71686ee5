//! The Router, as Python's half of the package uses it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use pyo3::{exceptions::PyValueError, prelude::*};
use serde_json::{Map, Value};
use tokio::time::timeout;
use vorrang_gateway::{BuildError, CallInfo, Endpoint, Events, Router, SdkError};

use crate::{
    errors::{Failure, info_of},
    inbox::{News, To},
    process::{OfProcess, runtime},
    status,
    task::Task,
};

/// A router of the gateway.
#[pyclass(frozen, module = "vorrang._vorrang")]
pub(crate) struct Core {
    router: OfProcess<Router>,
}

#[pymethods]
impl Core {
    /// A router of these settings: the JSON of an object like a file's, with `model_list` and sections.
    #[staticmethod]
    fn of_settings(json: &[u8]) -> PyResult<Self> {
        let wrong = |error: serde_json::Error| PyValueError::new_err(error.to_string());
        let settings: Map<String, Value> = serde_json::from_slice(json).map_err(wrong)?;
        let mut builder = Router::builder();
        for (section, value) in settings {
            match (section.as_str(), value) {
                ("model_list", list) => builder = builder.model_list(&list),
                (section, Value::Object(values)) => {
                    for (name, value) in values {
                        builder = builder.setting(section, &name, &value);
                    }
                }
                (section, _) => {
                    let message = format!("{section} must be a dict");
                    return Err(PyValueError::new_err(message));
                }
            }
        }
        let runtime = runtime()?;
        let entered = runtime.enter();
        let built = builder.build();
        drop(entered);
        Self::opened(built)
    }

    /// A router of a `config.yaml`.
    #[staticmethod]
    fn of_file(path: PathBuf) -> PyResult<Self> {
        Self::opened(runtime()?.block_on(Router::from_file(path)))
    }

    /// Makes a call as soon as it is granted. `endpoint`: a path such as `/embeddings`. `body`: JSON. With `watched` a
    /// wait is reported.
    fn call(
        &self,
        endpoint: &str,
        body: &[u8],
        stream: bool,
        watched: bool,
        to: To,
    ) -> PyResult<Task> {
        let (router, runtime) = self.router.get()?;
        let endpoint = endpoint_of(endpoint)?;
        let (router, body) = (router.clone(), Bytes::copy_from_slice(body));
        let watched = watched.then(|| Arc::new(Watched(to.clone())));
        let task = async move {
            let mut call = router.request_json(endpoint, body);
            if let Some(watched) = watched {
                call = call.events(watched);
            }
            let done = if stream {
                call.stream().await.map(Begun::Stream)
            } else {
                call.send().await.map(Begun::Answer)
            };
            report(&router, done)
        };
        Ok(Task::start(runtime, to, task))
    }

    /// Waits for the right to make a call by oneself. `tokens`: of its input and its output.
    #[pyo3(signature = (model, priority, tokens, seconds, watched, to))]
    fn permit(
        &self,
        model: &str,
        priority: Option<i32>,
        tokens: (u64, u64),
        seconds: Option<f64>,
        watched: bool,
        to: To,
    ) -> PyResult<Task> {
        let (router, runtime) = self.router.get()?;
        let (router, model) = (router.clone(), model.to_owned());
        let time = seconds.map(|seconds| duration("timeout", seconds));
        let time = time.transpose()?;
        let watched = watched.then(|| Arc::new(Watched(to.clone())));
        let task = async move {
            let mut permit = router.permit(&model).tokens(tokens);
            if let Some(priority) = priority {
                permit = permit.priority(priority);
            }
            if let Some(time) = time {
                permit = permit.timeout(time);
            }
            if let Some(watched) = watched {
                permit = permit.events(watched);
            }
            report(&router, permit.acquire().await.map(Begun::Permit))
        };
        Ok(Task::start(runtime, to, task))
    }

    /// Reports when every group is ready, or when so many seconds are over.
    fn until_ready(&self, seconds: f64, to: To) -> PyResult<Task> {
        let (router, runtime) = self.router.get()?;
        let most = duration("seconds", seconds)?;
        let router = router.clone();
        Ok(Task::start(runtime, to, async move {
            // Whether it was is asked afterwards.
            _ = timeout(most, router.until_ready()).await;
            News::Done
        }))
    }

    /// Refuses calls that wait, and lets the others end within so many seconds.
    fn close(&self, grace: f64, to: To) -> PyResult<Task> {
        let (router, runtime) = self.router.get()?;
        let grace = duration("grace", grace)?;
        let router = router.clone();
        Ok(Task::start(runtime, to, async move {
            router.close(grace).await;
            News::Done
        }))
    }

    /// What is known of every group, as JSON.
    fn status(&self) -> PyResult<String> {
        Ok(status::of(&self.router.get()?.0).to_string())
    }

    /// The names that calls can use.
    fn models(&self) -> PyResult<Vec<String>> {
        Ok(self.router.get()?.0.models(None))
    }

    /// Whether every group has an open session.
    fn ready(&self) -> PyResult<bool> {
        Ok(self.router.get()?.0.ready())
    }
}

impl Core {
    fn opened(built: Result<Router, BuildError>) -> PyResult<Self> {
        let router = built.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let router = OfProcess::new(router, runtime()?);
        Ok(Self { router })
    }
}

enum Begun {
    Answer(vorrang_gateway::Response),
    Stream(vorrang_gateway::EventStream),
    Permit(vorrang_gateway::CallPermit),
}

fn report(router: &Router, done: Result<Begun, SdkError>) -> News {
    match done {
        Ok(Begun::Answer(response)) => {
            let provider = provider(router, &response.info);
            News::Answer(response, provider)
        }
        Ok(Begun::Stream(stream)) => {
            let provider = provider(router, &stream.info);
            News::Stream(stream, provider)
        }
        Ok(Begun::Permit(permit)) => {
            let provider = provider(router, &permit.info);
            News::Permit(Box::new(permit), provider)
        }
        Err(error) => {
            let info = info_of(&error).cloned().unwrap_or_default();
            let provider = provider(router, &info);
            News::Failed(Box::new(Failure::of(error, &info, provider)))
        }
    }
}

/// The provider of the last attempt's deployment; of the group's first one, where there was no attempt.
fn provider(router: &Router, info: &CallInfo) -> Option<&'static str> {
    let config = router.config();
    let group = config
        .groups
        .iter()
        .find(|group| group.name == info.group)?;
    let mut deployments = group.deployments.iter();
    let last = deployments.find(|one| one.id == info.deployment);
    last.or(group.deployments.first())?.about.provider
}

fn duration(name: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| PyValueError::new_err(format!("{name}: {error}")))
}

fn endpoint_of(path: &str) -> PyResult<Endpoint> {
    let known = [
        Endpoint::ChatCompletions,
        Endpoint::Completions,
        Endpoint::Embeddings,
    ];
    let mut known = known.into_iter();
    known
        .find(|endpoint| endpoint.path() == path)
        .ok_or_else(|| PyValueError::new_err(format!("there is no endpoint {path}")))
}

/// Reports the waits of a call.
struct Watched(To);

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Events for Watched {
    fn queued(&self, group: &str, priority: i32, ahead: u64, least_wait: Duration) {
        self.0.send(News::Waiting {
            group: group.to_owned(),
            priority,
            ahead,
            least_wait,
        });
    }
}

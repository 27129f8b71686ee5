//! What is known of a call, as `_hidden_params` has it.

use http::HeaderMap;
use pyo3::{prelude::*, types::PyDict};
use vorrang_gateway::CallInfo;

/// LiteLLM's names where it has one. Times are in seconds.
pub(crate) fn of_call<'py>(
    py: Python<'py>,
    info: &CallInfo,
    headers: &HeaderMap,
    provider: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    let params = PyDict::new(py);
    params.set_item("custom_llm_provider", provider)?;
    params.set_item("model_id", non_empty(&info.deployment))?;
    params.set_item("model_group", non_empty(&info.group))?;
    let call_id = headers.get("x-litellm-call-id");
    let call_id = call_id.map(|id| String::from_utf8_lossy(id.as_bytes()));
    params.set_item("litellm_call_id", call_id)?;
    params.set_item("priority", info.priority)?;
    params.set_item("prioritized", info.prioritized)?;
    params.set_item("wait_seconds", seconds(info.waited))?;
    params.set_item("least_wait_seconds", info.least_wait.map(seconds))?;
    params.set_item("attempts", info.attempts)?;
    params.set_item("retries", info.retries)?;
    params.set_item("fallbacks", info.fallbacks)?;
    params.set_item("fallback_from", info.fallback_from.as_deref())?;
    params.set_item("spilled_from", info.spilled_from.as_deref())?;
    let ticket = match info.numbers {
        None => None,
        Some(numbers) => {
            let ticket = PyDict::new(py);
            ticket.set_item("arrival", numbers.arrival.0)?;
            ticket.set_item("entered", numbers.entered.0)?;
            ticket.set_item("granted", numbers.granted.0)?;
            ticket.set_item("score", numbers.score)?;
            ticket.set_item("start", numbers.start)?;
            Some(ticket)
        }
    };
    params.set_item("ticket", ticket)?;
    params.set_item("additional_headers", of_headers(py, headers)?)?;
    Ok(params)
}

/// Headers by their names in lower case. Of several of one name the last counts.
pub(crate) fn of_headers<'py>(
    py: Python<'py>,
    headers: &HeaderMap,
) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (name, value) in headers {
        all.set_item(name.as_str(), String::from_utf8_lossy(value.as_bytes()))?;
    }
    Ok(all)
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

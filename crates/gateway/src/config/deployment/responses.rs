//! Which deployments have their chats called by the Responses API.

use crate::{
    config::{Dialect, read::Section},
    provider::{
        openai_models,
        table::{Format, Provider},
    },
};

/// What LiteLLM writes before the names of such models.
const PREFIX: &str = "responses/";

/// How a deployment's chats are called, and the model without what says so. LiteLLM's order: the prefix, `model_info.mode`,
/// the name of the model, which may be its `base_model`.
pub(super) fn dialect<'a>(
    params: &Section<'_>,
    info: &Section<'_>,
    provider: &Provider,
    model: &'a str,
) -> (Dialect, &'a str) {
    let openai = matches!(provider.name, "openai" | "azure" | "azure_ai");
    let speaks = matches!(
        provider.format,
        Format::OpenAi | Format::InV1 | Format::UnderV1 | Format::Azure | Format::AzureAi
    );
    if let Some(model) = model.strip_prefix(PREFIX).filter(|_| openai) {
        return (Dialect::Responses, model);
    }
    // What is wrong with them is reported where they are read for themselves.
    let text = |section: &Section<'_>, key| section.name(key).ok().flatten();
    let dialect = match text(info, "mode").as_deref() {
        Some("responses") if speaks => Dialect::Responses,
        Some("chat") => Dialect::OpenAi,
        _ if !openai => Dialect::OpenAi,
        _ => {
            let base = text(info, "base_model").or(text(params, "base_model"));
            let name = base.as_deref().unwrap_or(model);
            let name = name.rsplit('/').next().unwrap_or(name);
            if openai_models::only_responses(name) {
                Dialect::Responses
            } else if name.contains('*') {
                Dialect::ByModel
            } else {
                Dialect::OpenAi
            }
        }
    };
    (dialect, model)
}

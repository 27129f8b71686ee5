//! `/openapi.json` against what is served: Schemathesis makes requests of it, right ones and wrong ones, and compares the answers.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use vorrang_tests::{Client, Gateway};

use crate::sdk::python;

/// The master key makes the server read every body, whatever type it says it has.
const CONFIG: &str = "
model_list:
  - {model_name: free, litellm_params: {model: openai/free, mock_response: hello}}
general_settings: {master_key: sk-master}
";

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth";

/// One of each two ways to the same; not the events of the admin API, which never end.
const PATHS: &str = "^/(v1|v2|openai|openapi|health|metrics|model_group|admin/(overview|groups|requests|instances))";

/// The model's name is the one thing that the document cannot know: without it no request would reach a model.
fn with_model(mut document: Value) -> Result<Value> {
    let paths = document["paths"].as_object_mut().context("paths")?;
    for operation in paths.values_mut().filter_map(|item| item.get_mut("post")) {
        let content = operation.pointer_mut("/requestBody/content");
        let content = content.and_then(Value::as_object_mut).into_iter();
        for content in content.flat_map(|content| content.values_mut()) {
            // What a provider keeps is called without a model.
            if let Some(model) = content.pointer_mut("/schema/properties/model") {
                *model = json!({"enum": ["free"]});
            }
        }
        // Else the path's is nearly always one that does not exist.
        for parameter in operation["parameters"].as_array_mut().context("headers")? {
            if parameter["name"] == "model" {
                parameter["schema"] = json!({"enum": ["free"]});
            }
        }
    }
    Ok(document)
}

#[tokio::test]
async fn answers_are_as_the_openapi_document_says() -> Result<()> {
    let program = python().map(|python| python.with_file_name("schemathesis"));
    let Some(program) = program.filter(|program| program.is_file()) else {
        eprintln!("\n!!!! SKIPPED: Schemathesis: no .venv with it; scripts/test makes one\n");
        return Ok(());
    };
    let gateway = Gateway::start(CONFIG).await?;
    let document = gateway.client().get("/openapi.json").await?.ok()?.json()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, with_model(document)?.to_string())?;
    let output = Command::new(program)
        .arg("run")
        .arg(&file)
        .args(["--url", gateway.url(), "--checks", CHECKS])
        .args(["--include-path-regex", PATHS])
        .args(["--phases", "coverage,fuzzing", "--max-examples", "6"])
        .args(["--seed", "1", "--generation-deterministic"])
        // Several threads at once meet a fault of CPython 3.11.
        .args(["--workers", "1", "--continue-on-failure", "--no-color"])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--header", "authorization: Bearer sk-master"])
        .current_dir(folder.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(output.status.success(), "{text}");
    ensure!(text.contains("API Operations:"), "{text}");
    ensure!(!text.contains("Tested: 0"), "{text}");
    // It serves on. The connection of before has been idle for so long that the gateway may be closing it.
    let client = Client::new(gateway.url())?;
    client.get("/health/readiness").await?.ok()?;
    Ok(())
}

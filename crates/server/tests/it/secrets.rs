//! Secrets in every place of a configuration: none is in what the binary prints, logs and answers, whatever happens.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use rustix::process::Signal;
use serde_json::json;
use vorrang_gateway::Config;

use crate::{
    binary::{Serving, file, until, vorrang},
    support::{chat, request},
};

/// In no two places the same.
const SECRETS: &[&str] = &[
    "pl4nted+api/key=",
    "pl4nted+env/key=",
    "pl4nted-password",
    "pl4nted%2Burl%2Fpassword",
    "pl4nted+header/token=",
    "pl4nted-organization",
    "pl4nted+extra/body=",
    "sk-pl4nted+master=",
    "sk-pl4nted+caller=",
    "sk-pl4nted+stranger=",
    "pl4nted+private/key=",
    "pl4nted+aws/secret=",
    "pl4nted+aws/session=",
    "pl4nted+entra/token=",
    "pl4nted+client/secret=",
    "pl4nted-redis-password",
    "pl4nted+unused/variable=",
    "pl4nted+files/key=",
    "pl4nted-files-organization",
];

/// The configuration; `UPSTREAM` is the address of [`upstream`].
const CONFIG: &str = r#"
model_list:
  - model_name: fine
    litellm_params: &all
      model: openai/x
      api_base: http://UPSTREAM/200/v1
      api_key: pl4nted+api/key=
      extra_headers: {x-secret-token: pl4nted+header/token=}
      organization: pl4nted-organization
      extra_body: {more: pl4nted+extra/body=}
  - {model_name: status-400, litellm_params: {<<: *all, api_base: 'http://UPSTREAM/400/v1'}}
  - {model_name: status-401, litellm_params: {<<: *all, api_base: 'http://UPSTREAM/401/v1'}}
  - {model_name: status-500, litellm_params: {<<: *all, api_base: 'http://UPSTREAM/500/v1'}}
  - {model_name: no-http, litellm_params: {<<: *all, api_base: 'http://UPSTREAM/999/v1'}}
  - model_name: refused
    litellm_params: {model: hosted_vllm/x, api_base: 'http://someone:pl4nted-password@127.0.0.1:1/v1'}
  - model_name: basic
    litellm_params: {model: hosted_vllm/x, api_base: 'http://someone:pl4nted%2Burl%2Fpassword@UPSTREAM/401/v1'}
  - model_name: variable
    litellm_params: {model: openai/x, api_base: 'http://UPSTREAM/401/v1', api_key: os.environ/PLANTED}
  - model_name: claude
    litellm_params: {model: anthropic/x, api_base: 'http://UPSTREAM/401', api_key: pl4nted+api/key=}
  - model_name: vertex
    litellm_params:
      model: vertex_ai/gemini-x
      vertex_project: p
      vertex_location: eu
      vertex_credentials: '{"type": "service_account", "project_id": "p", "private_key_id": "1",
        "private_key": "pl4nted+private/key=", "client_email": "me@example.com", "token_uri": "http://UPSTREAM/401"}'
  - model_name: bedrock
    litellm_params:
      model: bedrock/anthropic.claude-x
      aws_bedrock_runtime_endpoint: http://UPSTREAM/401
      aws_region_name: eu-central-1
      aws_access_key_id: AKIDEXAMPLE
      aws_secret_access_key: pl4nted+aws/secret=
      aws_session_token: pl4nted+aws/session=
  - model_name: azure
    litellm_params: {model: azure/x, api_base: 'http://UPSTREAM/401', azure_ad_token: pl4nted+entra/token=}
  - model_name: entra
    litellm_params:
      {model: azure/x, api_base: 'http://UPSTREAM/200', tenant_id: t, client_id: c, client_secret: pl4nted+client/secret=}
files_settings:
  - {custom_llm_provider: openai, api_base: 'http://UPSTREAM/401/v1', api_key: pl4nted+files/key=, organization: pl4nted-files-organization}
  - {custom_llm_provider: azure, api_base: 'http://UPSTREAM/400', api_key: pl4nted+files/key=}
  - {custom_llm_provider: groq, api_base: 'http://UPSTREAM/999/v1', api_key: pl4nted+files/key=}
environment_variables: {PLANTED: pl4nted+env/key=, UNUSED: pl4nted+unused/variable=}
general_settings: {master_key: sk-pl4nted+master=}
router_settings: {num_retries: 0, disable_cooldowns: true}
vorrang_settings:
  keys: [{name: caller, key: sk-pl4nted+caller=}]
"#;

/// Each secret where something else should be.
const BROKEN: &str = r"
model_list:
  - model_name: [pl4nted+unused/variable=]
    litellm_params: {model: openai/x, api_key: {a: pl4nted+api/key=}, rpm: many}
  - model_name: b
    litellm_params: {model: openai/x, api_key: [pl4nted+api/key=], extra_headers: [pl4nted+header/token=]}
  - model_name: c
    litellm_params: {model: openai/x, api_base: 'http://a:pl4nted-password@[', api_key: pl4nted+api/key=}
  - model_name: d
    litellm_params: {model: openai/x, organization: [pl4nted-organization], azure_ad_token: {a: pl4nted+entra/token=}}
files_settings:
  - {custom_llm_provider: openai, api_key: [pl4nted+files/key=], organization: [pl4nted-files-organization]}
environment_variables: {PLANTED: [pl4nted+env/key=]}
general_settings: {master_key: [sk-pl4nted+master=]}
router_settings: {redis_host: a, redis_port: 'none', redis_password: [pl4nted-redis-password]}
vorrang_settings:
  keys: [{name: caller, key: [sk-pl4nted+caller=]}, {name: caller, key: sk-pl4nted+caller=, models: 5}]
";

/// A server that repeats the credentials that it gets, with the status that the path names. Ends with the test's process.
fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || repeat(stream.unwrap()));
        }
    });
    address
}

fn repeat(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut said, mut length) = (String::new(), String::new(), 0);
    let _ = reader.read_line(&mut first);
    loop {
        let mut line = String::new();
        let read = reader.read_line(&mut line).unwrap_or(0);
        if read == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.trim().split_once(": ").unwrap();
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization"
            | "x-api-key"
            | "api-key"
            | "x-secret-token"
            | "x-amz-security-token" => said.push_str(&line),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    // What asks for a token has its secret in a form.
    if first.contains("/token") {
        said.push_str(&String::from_utf8_lossy(&body));
    }
    let status = ["200", "400", "500", "999"];
    let status = status
        .iter()
        .find(|status| first.contains(&format!("/{status}/")));
    let answer = match status {
        Some(&"200") => {
            json!({"id": "1", "object": "chat.completion", "created": 1, "model": "x", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]})
        }
        _ => {
            json!({"error": {"message": format!("wrong key: {said}"), "type": said, "code": said}})
        }
    };
    let answer = answer.to_string();
    let _ = match status {
        Some(&"999") => write!(stream, "{said}"),
        status => write!(
            stream,
            "HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {}\r\n\
             connection: close\r\n\r\n{answer}",
            status.unwrap_or(&"401"),
            answer.len(),
            said.lines().next().unwrap_or("none"),
        ),
    };
}

/// A secret as it may be written: as it is, as JSON, in a URL, and in Base64, by itself or within a longer text.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for decoded in [
        secret.to_owned(),
        secret.replace("%2B", "+").replace("%2F", "/"),
    ] {
        let encoded: String = decoded
            .bytes()
            .map(|byte| match byte {
                byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect();
        for before in 0..3 {
            let text = format!("{}{decoded}", "x".repeat(before));
            let coded = STANDARD_NO_PAD.encode(&text);
            // Only characters that the secret alone decides.
            let (start, end) = ((before * 8).div_ceil(6), text.len() * 8 / 6);
            let inner = &coded[start..end];
            forms.push(inner.to_owned());
            forms.push(inner.replace('+', "-").replace('/', "_"));
        }
        forms.extend([encoded.to_lowercase(), encoded, decoded]);
    }
    forms
}

/// What holds a secret, with the place.
fn leaks(outputs: &[(String, String)]) -> Vec<String> {
    let mut leaks = Vec::new();
    for (name, output) in outputs {
        for secret in SECRETS {
            for form in forms(secret) {
                if output.contains(&form) {
                    let line = output.lines().find(|line| line.contains(&form));
                    leaks.push(format!("{name}: {secret}: {}", line.unwrap_or_default()));
                }
            }
        }
    }
    leaks
}

fn checked(name: &str, text: &str, outputs: &mut Vec<(String, String)>) {
    let config = file(text);
    for options in [&[][..], &["--json"], &["--strict"]] {
        let path = config.path().to_str().unwrap();
        let mut command = vorrang(&[&["check", "--config", path], options].concat());
        let output = command.env("RUST_LOG", "trace").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.is_empty() || options == ["--json"], "{name}");
        outputs.push((format!("check {options:?} of {name}"), text));
    }
}

/// A server that logs all it can; its log is in the file.
fn serving(
    text: &str,
    tokens: &str,
) -> (Serving, tempfile::NamedTempFile, tempfile::NamedTempFile) {
    let (config, log) = (file(text), tempfile::NamedTempFile::new().unwrap());
    let path = config.path().to_str().unwrap();
    let mut command = vorrang(&["--config", path, "--host", "127.0.0.1", "--port", "0"]);
    command
        .env("RUST_LOG", "trace")
        .env("AZURE_AUTHORITY_HOST", tokens)
        .stderr(log.reopen().unwrap());
    (Serving::start(command), config, log)
}

fn log_of(log: &tempfile::NamedTempFile) -> String {
    std::fs::read_to_string(log.path()).unwrap()
}

#[test]
fn no_planted_secret_is_in_any_output() {
    let upstream = upstream();
    let (text, tokens) = (
        CONFIG.replace("UPSTREAM", &upstream),
        format!("http://{upstream}/401"),
    );
    let mut outputs = Vec::new();
    checked("the good file", &text, &mut outputs);
    checked("the broken file", BROKEN, &mut outputs);

    let (server, config, log) = serving(&text, &tokens);
    let models = [
        "fine",
        "status-400",
        "status-401",
        "status-500",
        "no-http",
        "refused",
        "basic",
        "variable",
        "claude",
        "vertex",
        "bedrock",
        "azure",
        "entra",
        "unknown",
    ];
    let mut answered = BTreeMap::new();
    for model in models {
        for (path, more) in [
            ("/v1/chat/completions", ""),
            ("/v1/chat/completions", r#", "stream": true"#),
            ("/v1/messages", r#", "max_tokens": 5"#),
        ] {
            let body = chat(model, more);
            for key in [
                "sk-pl4nted+master=",
                "sk-pl4nted+caller=",
                "sk-pl4nted+stranger=",
            ] {
                let key = format!("Bearer {key}");
                let bytes = request("POST", path, &[("authorization", &key)], &body);
                let answer = server.send(&bytes);
                let status = answer.get(9..12).unwrap_or_default().to_owned();
                answered.insert((model, key.contains("stranger"), path), status);
                outputs.push((format!("{path} of {model}"), answer));
            }
        }
    }
    let status = |model| answered[&(model, false, "/v1/chat/completions")].as_str();
    assert_eq!(status("fine"), "200", "{answered:?}");
    assert_eq!(status("status-400"), "400", "{answered:?}");
    for model in [
        "status-401",
        "basic",
        "variable",
        "claude",
        "bedrock",
        "azure",
    ] {
        assert_eq!(status(model), "401", "{model}: {answered:?}");
    }
    assert_eq!(answered[&("fine", true, "/v1/messages")], "401");

    let key = "authorization: Bearer sk-pl4nted+master=\r\n";
    for path in [
        "/metrics",
        "/health",
        "/health/readiness",
        "/v1/models",
        "/v1/models/fine",
        "/model/info",
        "/openapi.json",
        "/v1/files",
        "/v1/files/f/content",
        "/azure/v1/files",
        "/groq/v1/files?key=sk-pl4nted%2Bstranger%3D",
        "/v1/models?key=sk-pl4nted%2Bstranger%3D",
        "/nowhere?sk-pl4nted+stranger=",
    ] {
        outputs.push((path.into(), server.get_with(path, key)));
        outputs.push((path.into(), server.get(path)));
    }
    File::create(config.path())
        .unwrap()
        .write_all(BROKEN.as_bytes())
        .unwrap();
    server.signal(Signal::HUP);
    until("the broken file is refused", || {
        let page = server.get_with("/metrics", key);
        page.contains("vorrang_config_reloads_total{outcome=\"refused\"} 1")
    });
    server.signal(Signal::TERM);
    until("the end", || log_of(&log).contains("sessions closed"));
    let logged = log_of(&log);
    assert!(logged.contains("TRACE"), "it logs all it can");
    outputs.push(("log".into(), logged));
    outputs.push(("stdout".into(), server.printed().to_owned()));

    let redis = "router_settings: {redis_url: 'redis://:pl4nted-redis-password@127.0.0.1:1'}\n";
    let text = format!(
        "model_list: [{{model_name: fine, litellm_params: {{model: openai/x, mock_response: hi, rpm: 1}}}}]\n{redis}"
    );
    checked("the file with Redis", &text, &mut outputs);
    let (server, _config, log) = serving(&text, &tokens);
    outputs.push(("readiness".into(), server.get("/health/readiness")));
    let body = chat("fine", r#", "timeout": 0.1"#);
    let answer = server.send(&request("POST", "/v1/chat/completions", &[], &body));
    outputs.push(("a call without Redis".into(), answer));
    server.signal(Signal::TERM);
    until("the end", || TcpStream::connect(server.address()).is_err());
    outputs.push(("log without Redis".into(), log_of(&log)));

    let leaks = leaks(&outputs);
    let shown = leaks.iter().fold(String::new(), |mut shown, leak| {
        let _ = writeln!(shown, "{leak}");
        shown
    });
    assert!(leaks.is_empty(), "{} leaks:\n{shown}", leaks.len());
}

#[test]
fn debug_of_a_configuration_has_no_planted_secret() {
    let text = CONFIG.replace("UPSTREAM", "127.0.0.1:1");
    let text = text.replace(
        "router_settings: {",
        "router_settings: {redis_url: 'redis://:pl4nted-redis-password@127.0.0.1:1', ",
    );
    let loaded = Config::parse(&text, "test.yaml", &BTreeMap::new()).unwrap();
    let warnings = loaded.warnings().join("\n");
    let config = loaded.config;
    let outputs = [
        ("Debug".to_owned(), format!("{config:?}\n{config:#?}")),
        ("warnings".to_owned(), warnings),
    ];
    assert_eq!(leaks(&outputs), Vec::<String>::new());
}

#[test]
fn search_for_secrets_finds_each_form() {
    for (index, written) in [
        "pl4nted+api/key=",
        "pl4nted%2Bapi%2Fkey%3D",
        "pl4nted%2bapi%2fkey%3d",
        &STANDARD_NO_PAD.encode("pl4nted+api/key="),
        &STANDARD_NO_PAD.encode("a:pl4nted+api/key=b"),
        &STANDARD_NO_PAD.encode("a pl4nted+api/key="),
    ]
    .iter()
    .enumerate()
    {
        let outputs = [("a".to_owned(), format!("in {written} it"))];
        assert!(!leaks(&outputs).is_empty(), "form {index}");
    }
}

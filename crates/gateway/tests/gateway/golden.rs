//! Whole files as users have them, and all that is made of them: `tests/golden`. `VORRANG_RENEW=1` writes the answers anew; read
//! the difference before you commit it.

use std::{collections::BTreeMap, fs, path::Path};

use vorrang_gateway::{Config, Loaded};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// Every variable that the files name, but for the one that they expect to be missing.
fn env() -> BTreeMap<String, String> {
    let keys = [
        "ANTHROPIC_API_KEY",
        "AZURE_AD_TOKEN",
        "AZURE_AI_API_KEY",
        "AZURE_API_KEY",
        "BATCH_KEY",
        "DEEPSEEK_API_KEY",
        "GEMINI_API_KEY",
        "GROQ_API_KEY",
        "JINA_API_KEY",
        "MASTER_KEY",
        "MISTRAL_API_KEY",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
        "OTHER_KEY",
        "QUEUE_PASSWORD",
        "USERS_KEY",
    ];
    let keys = keys.map(|name| (name.to_owned(), format!("planted-secret-{name}")));
    let others = [
        ("AZURE_API_BASE", "https://name.openai.azure.com"),
        ("QUEUE_HOST", "redis.example"),
        ("QUEUE_PORT", "6379"),
    ];
    let others = others.map(|(name, value)| (name.to_owned(), value.to_owned()));
    keys.into_iter().chain(others).collect()
}

fn files() -> Vec<String> {
    let names = fs::read_dir(FOLDER).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    names.sort();
    names
}

#[test]
fn files_of_users_come_to_the_plans_and_diagnostics_on_record() {
    let mut differing = Vec::new();
    for name in files() {
        let text = fs::read_to_string(Path::new(FOLDER).join(&name)).unwrap();
        let found = format!("{}\n", Loaded::report(&Config::parse(&text, &name, &env())));
        assert!(!found.contains("planted"), "{name}: {found}");
        let path = Path::new(FOLDER).join(name.replace(".yaml", ".json"));
        if std::env::var_os("VORRANG_RENEW").is_some() {
            fs::write(&path, &found).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != found {
            differing.push((path, found));
        }
    }
    assert!(files().len() >= 15);
    assert!(
        differing.is_empty(),
        "VORRANG_RENEW=1 renews them: {differing:#?}"
    );
}

#[test]
fn plans_print_no_secret() {
    for name in files() {
        let text = fs::read_to_string(Path::new(FOLDER).join(&name)).unwrap();
        let said = match Config::parse(&text, &name, &env()) {
            Ok(loaded) => format!(
                "{}{:?}{:?}",
                loaded.config.plan(),
                loaded.config,
                loaded.diagnostics
            ),
            Err(error) => format!("{error}{error:?}"),
        };
        assert!(!said.contains("planted"), "{name}: {said}");
    }
}

#[test]
fn first_example_of_the_readme_is_served_without_a_loss_or_a_difference() {
    let readme =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let (_, example) = readme.split_once("    # config.yaml\n").unwrap();
    let lines = example.lines().take_while(|line| line.starts_with("    "));
    let text: Vec<&str> = lines.map(|line| &line[4..]).collect();
    let mut env = env();
    env.insert("REDIS_HOST".into(), "redis.example".into());
    let loaded = Config::parse(&text.join("\n"), "config.yaml", &env).unwrap();
    assert_eq!(loaded.warnings(), [""; 0]);
    let names: Vec<&str> = loaded
        .config
        .groups
        .iter()
        .map(|group| &*group.name)
        .collect();
    assert_eq!(names, ["smart", "fast", "local", "embed"]);
    assert_eq!(loaded.config.groups[0].deployments.len(), 2);
}

//! `clawback config`: every setting with its source, no secret, and the same problems as the start's.

use serde_json::{Value, json};

use crate::support::{clawback, settings};

const SECRETS: [(&str, &str); 9] = [
    ("DATABASE_URL", "postgres://ann:hush@db.example:5433/clawback?password=hush"),
    ("AMQP_URL", "amqps://ann:hush@broker.example/jobs?heartbeat=5"),
    ("RABBITMQ_MANAGEMENT_URL", "https://ann:hush@broker.example:15671/hush"),
    ("EVENTS_URL", "https://chat.example/services/T0/hush"),
    ("STRIPE_API_KEY", "sk_live_hush"),
    ("STRIPE_WEBHOOK_SECRET", "whsec_hush"),
    ("HYPERSWITCH_WEBHOOK_SECRET", "hush"),
    ("API_TOKEN", "hush1"),
    ("API_READ_TOKEN", "hush2"),
];

#[tokio::test]
async fn without_settings_it_shows_the_defaults() {
    insta::assert_snapshot!(clawback(&["config"], &settings(&[("RUST_LOG", "")])).await.shown(&[]));
}

#[tokio::test]
async fn secrets_are_never_shown_nor_a_part_of_one() {
    let run = clawback(&["config"], &settings(&SECRETS)).await;
    insta::assert_snapshot!(run.shown(&[]));
    let json = clawback(&["config", "--format", "json"], &settings(&SECRETS)).await;
    for shown in [run.stdout, json.stdout] {
        assert!(!shown.contains("hush") && !shown.contains("sk_live") && !shown.contains("ann"), "{shown}");
    }
}

#[tokio::test]
async fn each_setting_says_where_it_comes_from() {
    let file = std::env::temp_dir().join(format!("clawback-{}.toml", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, "reversal_max_retries = 7\nreversal_prefetch = 9\napi_token = \"hush\"\n").unwrap();
    let path = file.to_str().unwrap();
    let given = [("CLAWBACK_CONFIG", path), ("REVERSAL_PREFETCH", "8"), ("REVERSAL_CONCURRENCY", "")];
    let run = clawback(&["config", "--format", "json"], &settings(&given)).await;
    let table = clawback(&["config"], &settings(&given)).await;
    std::fs::remove_file(&file).unwrap();
    let shown = run.json();
    assert_eq!(shown["file"], path);
    let of = |name: &str| shown["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == name).cloned();
    let setting = |name: &str, value: Value, source: &str| {
        let secret = name == "API_TOKEN";
        let help = of(name).unwrap()["help"].clone();
        assert!(help.as_str().is_some_and(|help| !help.is_empty()), "{name}");
        Some(json!({
            "name": name, "set": true, "value": value, "secret": secret, "source": source, "read_from": null,
            "help": help,
        }))
    };
    assert_eq!(of("REVERSAL_MAX_RETRIES"), setting("REVERSAL_MAX_RETRIES", json!("7"), "file"));
    assert_eq!(of("REVERSAL_PREFETCH"), setting("REVERSAL_PREFETCH", json!("8"), "environment"));
    assert_eq!(of("REVERSAL_CONCURRENCY"), setting("REVERSAL_CONCURRENCY", json!("128"), "default"), "empty is unset");
    assert_eq!(of("API_TOKEN"), setting("API_TOKEN", json!(null), "file"));
    assert!(table.stdout.starts_with(&format!("File: {path} (CLAWBACK_CONFIG)\n")), "{table:?}");
}

#[tokio::test]
async fn what_can_not_be_used_is_explained_as_by_the_start() {
    let bad = settings(&[("HTTP_ADDR", "localhost"), ("REVERSAL_PREFETCH", "0"), ("STRIPE_API_KEY", "sk hush")]);
    let run = clawback(&["config"], &bad).await;
    insta::assert_snapshot!(run.shown(&[]));
    let start = clawback(&["serve"], &bad).await;
    assert_eq!((start.code, start.stderr), (1, run.stderr));
}

#[tokio::test]
async fn a_secret_read_from_a_file_is_shown_by_its_path_alone() {
    let file = std::env::temp_dir().join(format!("clawback-{}", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, "hush\n").unwrap();
    let path = file.to_str().unwrap();
    let given = settings(&[("API_TOKEN_FILE", path)]);
    let (table, json) = (clawback(&["config"], &given).await, clawback(&["config", "--format", "json"], &given).await);
    std::fs::remove_file(&file).unwrap();
    let shown = table.words();
    assert!(shown.contains(&format!("API_TOKEN environment (set, not shown) (from {path})")), "{shown}");
    let json = json.json();
    let token = json["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == "API_TOKEN").unwrap();
    assert_eq!((&token["read_from"], &token["source"]), (&json!(path), &json!("environment")));
    assert!(!json.to_string().contains("hush") && !shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn a_misspelt_variable_is_warned_about_by_every_command() {
    let given = settings(&[
        ("REVERSAL_BACKOFF_MX", "1h"),
        ("DATABASE_URL", "sqlite:///no/such/file.db"),
        ("AMQP_URL", "amqp://127.0.0.1:1"),
    ]);
    let warning = "REVERSAL_BACKOFF_MX is not a setting and is ignored; did you mean REVERSAL_BACKOFF_MAX?";
    let table = clawback(&["config"], &given).await;
    assert!(table.stdout.ends_with(&format!("\nwarning: {warning}\n")), "{table:?}");
    assert_eq!(clawback(&["config", "--format", "json"], &given).await.json()["warnings"], json!([warning]));
    let doctor = clawback(&["doctor", "--format", "json"], &given).await.json();
    let found = doctor["checks"].as_array().unwrap().iter().find(|check| check["message"] == warning).cloned();
    assert_eq!(found.unwrap()["status"], "warning");
    for command in ["worker", "reversals list", "migrate status", "parked list"] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let run = clawback(&arguments, &given).await;
        assert!(run.code == 1 && run.stderr.contains("WARN") && run.stderr.contains(warning), "{run:?}");
    }
}

#[tokio::test]
async fn without_a_database_only_a_start_and_migrate_up_create_the_file() {
    let folder = std::env::temp_dir().join(format!("clawback-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&folder).unwrap();
    let run = async |arguments: &str, given: &[(&str, &str)]| {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let mut command = crate::support::command(&arguments, &settings(given));
        let output = command.current_dir(&folder).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let key = ("STRIPE_API_KEY", "sk_test_x");
    let (unset, named) = (&[key][..], &[key, ("DATABASE_URL", "sqlite://other.db?mode=rwc")][..]);
    let commands =
        ["migrate status", "migrate down", "trace re_1", "reversals list", "transfers list", "reconcile", "worker"];
    for arguments in commands.iter().chain(&["payments import -"]) {
        let missing = "DATABASE_URL is not set, and its default, the SQLite file \"clawback.db\", does not exist here";
        assert_eq!(run(arguments, unset).await, (Some(1), format!("error: {missing}\n")), "{arguments}");
        let missing = "the SQLite file \"other.db\" does not exist; check DATABASE_URL";
        assert_eq!(run(arguments, named).await, (Some(1), format!("error: {missing}\n")), "{arguments}");
    }
    _ = run("doctor", unset).await;
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "a file was created");
    assert_eq!(run("migrate up", unset).await.0, Some(0));
    assert!(folder.join("clawback.db").exists());
    assert_eq!(run("migrate status", unset).await.0, Some(0));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn the_defaults_as_a_toml_file_are_a_configuration_that_changes_nothing() {
    let defaults = clawback(&["config", "--defaults"], &settings(&[("HTTP_ADDR", "bad")])).await.stdout;
    let file = std::env::temp_dir().join(format!("clawback-{}.toml", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, &defaults).unwrap();
    let given = [("CLAWBACK_CONFIG", file.to_str().unwrap()), ("RUST_LOG", "")];
    let values = |run: crate::support::Finished| {
        let all = run.json()["settings"].as_array().unwrap().clone();
        all.into_iter().map(|setting| (setting["name"].clone(), setting["value"].clone())).collect::<Vec<_>>()
    };
    let read = values(clawback(&["config", "--format", "json"], &settings(&given)).await);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(read, values(clawback(&["config", "--format", "json"], &settings(&given[1..])).await));
    assert_eq!(defaults, include_str!("../../config/default.toml"));
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let run = clawback(&["config"], &settings(&[("CLAWBACK_CONFIG", "/no/such/file.toml")])).await;
    assert!(
        run.code == 1
            && run.stderr.contains("CLAWBACK_CONFIG must name a readable file (got \"/no/such/file.toml\": No such"),
        "{run:?}"
    );
}

#[tokio::test]
async fn the_help_says_where_settings_come_from_and_what_the_json_is() {
    insta::assert_snapshot!(clawback(&["config", "--help"], &[]).await.stdout);
}

#[tokio::test]
async fn completions_are_written_for_every_shell_and_need_no_configuration() {
    let bad = settings(&[("HTTP_ADDR", "localhost")]);
    for (shell, sign) in
        [("bash", "complete -F _clawback"), ("zsh", "#compdef clawback"), ("fish", "complete -c clawback")]
    {
        let run = clawback(&["completions", shell], &bad).await;
        assert!(run.code == 0 && run.stdout.contains(sign) && run.stdout.contains("doctor"), "{shell}: {run:?}");
    }
    insta::assert_snapshot!(clawback(&["completions", "--help"], &[]).await.stdout);
}

#[tokio::test]
async fn every_help_fits_80_columns() {
    let commands = ["", "payments import", "doctor", "config", "queues declare", "queues status", "queues verify"];
    for command in commands.iter().chain(&["completions", "migrate", "reconcile", "queues", "payments"]) {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = clawback(&arguments, &[]).await.stdout;
        let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(long.is_empty() && !help.is_empty(), "{command}: {long:#?}");
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_is_no_error() {
    for arguments in [&["config"][..], &["completions", "bash"], &["config", "--format", "json"]] {
        let mut child = crate::support::command(arguments, &[]).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

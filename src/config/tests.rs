//! The layering, the checks, and what the errors say.

use std::{fs, path::Path};

use figment::value::Value;
use tempfile::TempDir;

use super::*;

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$m2Ovl+WFX6p5AB5xqLMfVcpSqkD2crqX4WYYfY2h0hM";

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(directory: &TempDir, text: &str) -> std::path::PathBuf {
    let path = directory.path().join("broker.toml");
    fs::write(&path, text).unwrap();
    path
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let directory = TempDir::new().unwrap();
    let file = Some(file(&directory, text));
    Config::load(&Sources { file, environment: variables(environment), flags: Vec::new() })
}

fn problem(text: &str) -> String {
    load(text, &[]).unwrap_err().to_string()
}

#[test]
fn without_any_source_the_defaults_are_good() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.connectors[0].uri.address(), "127.0.0.1:61613");
    assert!(config.warnings[0].contains("[[users]]"), "{:?}", config.warnings);
}

#[test]
fn a_later_source_counts_more() {
    let directory = TempDir::new().unwrap();
    let path = file(&directory, "broker_name = \"file\"\nstop_timeout = \"7s\"\n[stomp]\nheaders_max = 7\n");
    let mut sources = Sources { file: Some(path), ..Sources::default() };
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.broker_name.as_str(), config.stomp.headers_max), ("file", 7));

    sources.environment = variables(&[("BATONMQ_BROKER_NAME", "variable"), ("BATONMQ_STOMP__HEADERS_MAX", "8")]);
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.broker_name.as_str(), config.stomp.headers_max), ("variable", 8));

    sources.flags = vec![Setting::flag("--name", "broker_name", "flag")];
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.broker_name.as_str(), config.stomp.headers_max), ("flag", 8));
    assert_eq!(config.stop_timeout, Duration::from_secs(7));
    assert_eq!(config.stomp.body_bytes_max, 100 << 20, "what nobody sets keeps its default");
}

#[test]
fn a_variable_is_the_text_it_is() {
    let config = load(
        "",
        &[
            ("BATONMQ_BROKER_NAME", "1.10"),
            ("BATONMQ_DATA", "12345"),
            ("BATONMQ_STOMP__LENIENT", "true"),
            ("BATONMQ_STOMP__HEART_BEAT_GRACE", "1.5"),
            ("BATONMQ_LIMITS__QUEUE_BYTES_MAX", "1000000"),
            ("BATONMQ_LIMITS__SLOW_CONSUMER_TIMEOUT", "5ms"),
            ("BATONMQ_CONNECTORS", "[{ name = \"one\", uri = \"stomp://127.0.0.1:0\" }]"),
            ("HOME", "/nowhere"),
        ],
    )
    .unwrap();
    assert_eq!((config.broker_name.as_str(), config.data.as_path()), ("1.10", Path::new("12345")));
    assert!(config.stomp.lenient);
    assert!((config.stomp.heart_beat_grace - 1.5).abs() < f64::EPSILON);
    assert_eq!(config.limits.queue_bytes_max, Some(1_000_000));
    assert_eq!(config.limits.slow_consumer_timeout, Duration::from_millis(5));
    assert_eq!(config.connectors[0].name, "one");
}

#[test]
fn stray_variables_are_named_and_foreign_ones_left_alone() {
    for (name, option) in [("BATONMQ_FOO", "foo"), ("BATONMQ_STOMP__FOO", "stomp.foo"), ("BATONMQ_STOMP_LENIENT", "st")]
    {
        let error = load("", &[(name, "1")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(option), "{error}");
    }
    load("", &[("BATONMQ_SEED", "7"), ("BATONMQ_PORT_61613_TCP_ADDR", "10.0.0.1"), ("BATONMQ_SERVICE_HOST", "h")])
        .unwrap();
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    for (text, option) in [
        ("broker = 1", "broker"),
        ("[stomp]\nlenientt = true", "stomp.lenientt"),
        ("[nothing]\na = 1", "nothing"),
        ("[[connectors]]\nname = \"a\"\nurl = \"b\"", "connectors.0.url"),
    ] {
        let error = problem(text);
        assert!(error.starts_with(&format!("unknown option {option} in ")), "{error}");
        assert!(error.contains("broker.toml"), "{error}");
    }
}

#[test]
fn a_wrong_value_is_named_with_its_file() {
    for (text, option, says) in [
        ("stop_timeout = 30", "stop_timeout", "unit"),
        ("stop_timeout = \"0s\"", "stop_timeout", "above zero"),
        ("broker_name = 5", "broker_name", "string"),
        ("broker_name = \"a b\"", "broker_name", "letters"),
        ("[stomp]\nbody_bytes_max = \"10 potatoes\"", "stomp.body_bytes_max", "64MiB"),
        ("[tls]\nclient_cert = \"perhaps\"", "tls.client_cert", "want"),
        ("[store]\nbackend = \"kahadb\"", "store.backend", "journal"),
        ("[store]\nsegment_bytes = \"1kB\"", "store.segment_bytes", "1MiB to 1GiB"),
        ("[store]\nurl = \"postgres://db/a\"", "store.url", "store.backend is \"journal\""),
        ("[store]\nbackend = \"memory\"\ngroup = \"other\"", "store.group", "remove this"),
        #[cfg(feature = "postgres")]
        ("[store]\nbackend = \"postgres\"", "store.url", "say where the database is"),
        #[cfg(feature = "mysql")]
        ("[store]\nbackend = \"mysql\"", "store.url", "say where the database is"),
        #[cfg(feature = "postgres")]
        ("store = { backend = \"postgres\", url = \"postgres://db\", group = \"A\" }", "store.group", "lower-case"),
        ("[log]\nlevel = \"loud\"", "log.level", "info"),
        ("[[redelivery]]\ndestination = \"/queue/a\"", "redelivery[0].destination", "/queue/"),
        ("[[redelivery]]\ndestination = \"a.>.b\"", "redelivery[0].destination", "pattern"),
        ("[[redelivery]]\ndelay = \"2h\"", "redelivery[0].delay_max", "shorter"),
        ("[[connectors]]\nname = \"a\"\nuri = \"stomp://h:1?foo=1\"", "connectors.0.uri", "foo"),
        ("[[connectors]]\nname = \"a\"\nuri = \"stomp+ssl://h:1\"", "tls.cert_file", "connector a"),
        ("[[users]]\nname = \"u\"", "users[0].password_hash", "either"),
        ("[[users]]\nname = \"u\"\npassword_hash = \"secret\"", "users[0].password_hash", "batonmq passwd"),
    ] {
        let error = problem(text);
        assert!(error.contains(option) && error.contains(says), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_the_place() {
    let error = problem("broker_name = \n");
    assert!(error.contains("broker.toml is not TOML: at line 1, column "), "{error}");
    assert!(!error.contains('\n'), "{error}");
    let missing = Sources { file: Some("/nowhere/batonmq.toml".into()), ..Sources::default() };
    assert!(Config::load(&missing).unwrap_err().to_string().contains("/nowhere/batonmq.toml"));
}

#[test]
fn memory_is_enough_for_the_connections_that_are_allowed() {
    let with = |memory: &str, connections: &str| {
        format!(
            "connectors = [{{ name = \"a\", uri = \"stomp://127.0.0.1:1{connections}\" }}]\n\
             [limits]\nmemory_bytes_max = \"{memory}\"\n"
        )
    };
    let error = problem(&with("15MiB", ""));
    for part in ["limits.memory_bytes_max", "broker.toml", "15MiB", "write 16MiB or more"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    let error = problem(&with("41MiB", "?maximumConnections=1000"));
    for part in ["1000 connections", "write 42MiB or more", "or lower maximumConnections"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert_eq!(load(&with("42MiB", "?maximumConnections=1000"), &[]).unwrap().limits.memory_bytes_max, 42 << 20);
}

#[test]
fn a_connector_without_a_bound_is_told_how_many_connections_fit() {
    let with = |memory: &str, connections: &str| {
        let connector = format!("connectors = [{{ name = \"a\", uri = \"stomp://127.0.0.1:1{connections}\" }}]");
        load(&format!("{connector}\n[limits]\nmemory_bytes_max = \"{memory}\"\n"), &[]).unwrap()
    };
    assert_eq!(with("42MiB", "").unbounded_connections_that_fit(), Some(1_024));
    assert_eq!(with("16MiB", "").unbounded_connections_that_fit(), Some(0), "it starts, and the log says so");
    assert_eq!(with("42MiB", "?maximumConnections=1000").unbounded_connections_that_fit(), None, "it was checked");
}

#[test]
fn secrets_come_from_files_and_never_show() {
    let directory = TempDir::new().unwrap();
    let hash_file = directory.path().join("hash");
    fs::write(&hash_file, format!("{HASH}\n")).unwrap();
    let text = format!("[[users]]\nname = \"u\"\npassword_hash_file = {hash_file:?}\n");
    let config = load(&text, &[]).unwrap();
    assert_eq!(config.users[0].password_hash.reveal(), HASH);
    assert!(!format!("{config:?}").contains("argon2id"));
    assert_eq!(config.connectors[0].uri.address(), "0.0.0.0:61613", "with users the default is open");
    assert!(config.warnings.is_empty());

    let error = problem("[[users]]\nname = \"u\"\npassword_hash = \"$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ\"");
    assert!(!error.contains("c29tZXNhbHQ"), "{error}");
}

#[test]
fn a_slip_of_the_pen_shows_no_secret() {
    let key = "-----BEGIN PRIVATE KEY-----\\nMIIEv";
    let texts = [
        format!("users = \"{HASH}\""),
        format!("users = [\"{HASH}\"]"),
        format!("users = {{ u = \"{HASH}\" }}"),
        format!("[users]\nname = \"u\"\npassword_hash = \"{HASH}\""),
        format!("[[users]]\nname = [\"{HASH}\"]"),
        format!("[[users]]\nname = \"u\"\npassword_hash = [\"{HASH}\"]"),
        format!("[[users]]\nname = \"u\"\npassword_hash_file = \"{HASH}\""),
        format!("[[users]]\nname = \"u\" password_hash = \"{HASH}\""),
        format!("[[users]]\nname = \"u\"\npassword_hash = \"{HASH}"),
        format!("tls = \"{key}\""),
        format!("[tls]\ncert_file = \"c\"\nkey_file = [\"{key}\"]"),
        format!(
            "connectors = [{{ name = \"a\", uri = \"stomp+ssl://h:1\" }}]\n[tls]\ncert_file = \"c\"\nkey_file = \"{key}\""
        ),
    ];
    for text in texts {
        let error = problem(&text);
        assert!(!error.contains("argon2id$") && !error.contains("MIIEv"), "{error}");
        assert!(error.contains("broker.toml"), "{error}");
    }
    let variables = [
        ("BATONMQ_USERS", format!("[{{name=\"u\" password_hash=\"{HASH}\"}}]")), // a comma is missing
        ("BATONMQ_USERS", HASH.to_owned()),
        ("BATONMQ_USERS", format!("{{name=\"u\", password_hash=\"{HASH}\"}}")),
        ("BATONMQ_USERS__PASSWORD_HASH", HASH.to_owned()),
        ("BATONMQ_PASSWORD_HASH", HASH.to_owned()),
        ("BATONMQ_TLS", key.to_owned()),
    ];
    for (name, text) in variables {
        let error = load("", &[(name, text.as_str())]).unwrap_err().to_string();
        assert!(!error.contains("argon2id$") && !error.contains("MIIEv"), "{error}");
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn an_open_connector_without_users_is_warned_of() {
    let open = load("[[connectors]]\nname = \"a\"\nuri = \"stomp://0.0.0.0:1\"", &[]).unwrap();
    assert!(open.warnings[0].contains("connector a"), "{:?}", open.warnings);
    let closed = load("[[connectors]]\nname = \"a\"\nuri = \"stomp://[::1]:1\"", &[]).unwrap();
    assert!(closed.warnings.is_empty());
}

/// The documented file, with every option uncommented: `#key` is an option, `# text` is prose.
fn documented() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/batonmq.toml");
    let text = fs::read_to_string(path).unwrap();
    let uncommented = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => rest,
        _ => line,
    });
    let uncommented = uncommented.collect::<Vec<_>>().join("\n");
    Value::from(<figment::providers::Toml as figment::providers::Format>::from_str::<Dict>(&uncommented).unwrap())
}

type Dict = figment::value::Dict;

fn keys(value: &Value, prefix: &str, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Dict(_, dict) => {
            for (key, value) in dict {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                keys(value, &name, into);
            }
        }
        Value::Array(_, elements) => elements.iter().take(1).for_each(|element| keys(element, prefix, into)),
        _ => into.push((prefix.to_owned(), value.clone())),
    }
}

/// One of everything, so that every key of the code shows.
fn in_code() -> Value {
    let options = Options {
        connectors: check::check(Options::default(), &figment::Figment::new()).unwrap().connectors,
        redelivery: vec![RedeliveryPolicy::default()],
        users: vec![UserText::default()],
        ..Options::default()
    };
    Value::serialize(options).unwrap()
}

#[test]
fn the_documented_file_and_the_code_say_the_same() {
    let (mut documented_keys, mut code_keys) = (Vec::new(), Vec::new());
    keys(&documented(), "", &mut documented_keys);
    keys(&in_code(), "", &mut code_keys);
    let names = |keys: &[(String, Value)]| keys.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&documented_keys), names(&code_keys), "left: config/batonmq.toml, right: src/config");
    for ((name, documented), (_, code)) in documented_keys.iter().zip(&code_keys) {
        // What has no default is documented by an example.
        let has_default = !matches!(code, Value::Empty(..)) && !name.starts_with("users.");
        let same = match (documented.deserialize::<f64>(), code.deserialize::<f64>()) {
            (Ok(one), Ok(other)) => (one - other).abs() < f64::EPSILON,
            _ => documented == code,
        };
        assert!(same || !has_default, "{name}: {documented:?} in config/batonmq.toml, {code:?} in src/config");
    }
}

#[test]
fn the_documented_file_as_it_stands_changes_nothing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/batonmq.toml");
    let config = Config::load(&Sources { file: Some(path), ..Sources::default() }).unwrap();
    assert_eq!(config, Config::default());
}

//! Tests of the layer as a whole: files as people write them, reloads, secrets.

mod papers;
mod sharding;

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn environment(name: &str) -> Option<String> {
    match name {
        "PGPASSWORD" | "PGYARD_PASSWORD" | "PGYARD_ADMIN_PASSWORD" => Some("hunter2".to_owned()),
        "POOL_SIZE" => Some("7".to_owned()),
        "DATABASE_URL" => Some("postgres://u:hunter2@h/d".to_owned()),
        "LAG" => Some("soon".to_owned()),
        _ => None,
    }
}

fn settings(text: &str) -> Settings {
    match parse(text, "t.toml", &environment) {
        Ok(loaded) => loaded.settings,
        Err(report) => panic!("{text}\n{report}"),
    }
}

/// All problems of a text, a line each: `error 2:1 message / help`.
fn problems(text: &str) -> Vec<String> {
    let problems = match parse(text, "t.toml", &environment) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report.problems,
    };
    let line = |problem: &Problem| {
        let place = match &problem.place {
            ProblemPlace::File { spot: Some(spot), .. } => format!(" {}:{}", spot.line, spot.column),
            _ => String::new(),
        };
        let help = problem.help.as_deref().map_or(String::new(), |help| format!(" / {help}"));
        let shown = problem.to_string();
        assert!(!shown.contains("hunter2"), "a secret is shown: {shown}");
        format!("{}{place} {}{help}", problem.severity, problem.message)
    };
    problems.iter().map(line).collect()
}

/// Every expectation is a part of one problem, and there are as many problems as expectations.
fn check(text: &str, expect: &[&str]) {
    let found = problems(text);
    for (expect, found) in expect.iter().zip(&found) {
        assert!(found.contains(expect), "expected {expect:?} in {found:?} of\n{text}");
    }
    assert_eq!(found.len(), expect.len(), "{found:#?} of\n{text}");
}

const APP: &str = "[databases.app]\nprimary = 'postgres://u@a'\n";

fn check_app(lines: &str, expect: &[&str]) {
    check(&format!("{APP}{lines}"), expect);
}

#[test]
fn the_example_of_the_brief() {
    let settings = settings(
        r#"
        listen = ["127.0.0.1:6432", "unix:/run/pgyard"]
        http = false
        [defaults]
        pool_size = "${POOL_SIZE}"
        max_lag = "2s"
        [databases.app]
        primary = "postgres://pgyard:${PGPASSWORD}@10.0.0.1:5433/app?sslmode=require"
        replicas = ["postgres://10.0.0.2/app", { host = "10.0.0.3", name = "r2", weight = 2 }]
        max_lag = "1s"
        balance = "weighted"
        users = { alice = { password_file = "/run/secrets/alice", pool_size = 3 }, bob = "hunter2" }
        [databases."*"]
        hosts = ["${DATABASE_URL}"]
        "#,
    );
    assert_eq!((settings.listen.len(), settings.http), (2, None));
    let [app, any] = settings.databases.as_slice() else { panic!("two databases") };
    assert_eq!((app.name.as_str(), &app.server_name, app.pool.size), ("app", &None, 7));
    assert_eq!(app.health.max_lag, Some(std::time::Duration::from_secs(1)));
    assert_eq!(any.health.max_lag, Some(std::time::Duration::from_secs(2)));
    let hosts: Vec<(&str, u16, u32)> = app.hosts.iter().map(|host| (host.name.as_str(), host.port, host.weight)).collect();
    assert_eq!(hosts, [("10.0.0.1:5433", 5433, 1), ("10.0.0.2:5432", 5432, 1), ("r2", 5432, 2)]);
    for host in &app.hosts {
        assert_eq!((host.role, host.tls.mode), (RoleSetting::Auto, ServerTlsMode::Require));
        assert_eq!((host.control.user.as_str(), host.control.database.as_str()), ("pgyard", "app"));
        assert_eq!(host.control.password.as_ref().map(|password| password.reveal()), Some("hunter2"));
    }
    assert_eq!((app.users[0].name.as_str(), app.users[0].pool_size), ("alice", Some(3)));
    assert_eq!(app.users[1].secret.as_ref().map(|secret| secret.reveal()), Some("hunter2"));
    assert_eq!((any.server_name.as_deref(), any.hosts[0].control.database.as_str()), (None, "d"));
}

#[test]
fn databases_have_names_on_both_sides() {
    let name = |text: &str| {
        let database = settings(text).databases[0].clone();
        (database.server_name.clone(), database.hosts[0].control.database.clone())
    };
    assert_eq!(name("[databases.a]\nprimary = 'postgres://u@h'"), (None, "a".into()));
    assert_eq!(name("[databases.a]\nprimary = 'postgres://u@h/b'"), (Some("b".into()), "b".into()));
    assert_eq!(name("[databases.a]\nprimary = 'postgres://u@h'\ndatabase = 'b'"), (Some("b".into()), "b".into()));
    assert_eq!(name("[databases.a]\nprimary = 'postgres://u@h'\nreplicas = ['postgres://i/b']"), (Some("b".into()), "b".into()));
    assert_eq!(name("[databases.'*']\nprimary = 'postgres://u@h'"), (None, "postgres".into()));
    assert_eq!(name("[databases.'*']\nprimary = 'postgres://u@h/b'"), (None, "b".into()));
    check("[databases.a]\nhosts = ['postgres://u@h/b', 'postgres://i/c']", &["error 2:30 this host serves `c`"]);
}

#[test]
fn a_plain_file_gives_no_warning() {
    check_app("replicas = ['b']\n", &[]);
}

#[test]
fn unknown_keys_and_sections() {
    check_app("max_lagg = '1s'\n", &["error 3:1 unknown key `max_lagg` in [databases.app] / did you mean `max_lag`?"]);
    check_app("default_pool_size = 1\n", &["here it is called `pool_size`"]);
    check(&format!("max_lag = '1s'\n{APP}"), &["error 1:1 unknown key `max_lag` / `max_lag` belongs in [defaults] or"]);
    check(
        &format!("[defaults]\nprimary = 'h'\n{APP}"),
        &["error 2:1 unknown key `primary` in [defaults] / `primary` belongs in [databases.NAME]"],
    );
    check(&format!("[logs]\n{APP}"), &["unknown key `logs` / did you mean `log`?"]);
    check(&format!("[log]\nlog_level = 'info'\n{APP}"), &["here it is called `level`"]);
    check_app(
        "replicas = [{ hst = 'b' }]\n",
        &["3:13 this host has no `host`", "3:15 unknown key `hst` in a host / did you mean `host`?"],
    );
    check_app("[databases.app.users.al]\npoolsize = 3\n", &["in [databases.NAME.users.al] / did you mean `pool_size`?"]);
    check(
        "log = 3\ndatabases = 4\n",
        &["error 1:7 [log] has to be a section", "error 2:13 [databases.NAME] has to be a section"],
    );
    check(
        "[database.app]\nprimary = 'h'\n",
        &["error there is no database", "error 1:2 unknown key `database` / `database` belongs"],
    );
}

#[test]
fn bad_values_are_all_reported() {
    check_app(
        "max_lag = 5\npool_size = 0\nbalance = 'rondom'\nprobe_interval = '${LAG}'\nretry_buffer = 'big'\nsplit = 'maybe'\nconsistency = 3\n",
        &[
            "3:11 max_lag: `5` has no unit / durations need a unit: \"5s\", \"5ms\" or \"5min\"; or \"off\"",
            "4:13 pool_size: `0` is out of range / write a whole number from 1 to 100000",
            "5:11 balance: `rondom` is not known / did you mean \"random\"?",
            "6:18 probe_interval: `soon` is not a duration / write a number with a unit",
            "7:16 retry_buffer: `big` is not a size / write a number with a unit, such as \"64KiB\"",
            "8:9 split: `maybe` is neither true nor false",
            "9:15 consistency: `3` is not a word",
        ],
    );
    check(
        &format!("listen = 'x'\nhttp = 4\nworkers = 'many'\n{APP}"),
        &["1:10 listen: `x`", "2:8 http: `4`", "3:11 workers: `many`"],
    );
    check_app(
        "query_timeout = '${MISSING}'\n",
        &["3:17 the environment variable `MISSING` is not set / set it before pgyard starts"],
    );
    check_app(
        "user = 3\nsslmode = 'requir'\n",
        &["user: `3` is not text", "`requir` is not an sslmode / did you mean \"require\"?"],
    );
}

#[test]
fn texts_that_are_not_toml() {
    check_app("max_lag = 1s\npool_sise = 3\n", &["error 3:", "4:1 unknown key `pool_sise`"]);
    assert!(problems(&format!("{APP}max_lag = 1s\n"))[0].contains("max_lag = \"1s\""));
    assert!(problems("[databases.*]\nprimary = 'h'\n")[0].contains("the star needs quotes"));
    for text in
        ["[", "a", "a =", "= 1", "\"", "[a\n", "a = '", "\u{0}", "[[databases]]\n", "databases = [1]", "[databases]\n'' = {}"]
    {
        assert!(problems(text).iter().any(|problem| problem.starts_with("error")), "{text:?}");
    }
    // The password must not be shown even where the line could not be read.
    check_app("[databases.app.users]\nbob = hunter2\n", &["error 4:"]);
    check_app("password = hunter2\n", &["error 3:"]);
    check("[databases.app]\nprimary = postgres://u:hunter2@h/d\n", &["error 2:"]);
    check("[databases.app]\nprimary = \"postgres://u:hunter2@h/d\n", &["error 2:"]);
}

#[test]
fn hosts() {
    check("[databases.app]\n", &["1:12 [databases.app] has no hosts / write primary = "]);
    check("[databases.app]\nhosts = []\n", &["[databases.app] has no hosts"]);
    let many: Vec<String> = (0..65).map(|n| format!("'postgres://u@h{n}/d'")).collect();
    check(&format!("[databases.app]\nhosts = [{}]\n", many.join(", ")), &["[databases.app] has 65 hosts; at most 64"]);
    check("[databases]\n", &["error 1:2 there is no database"]);
    check("", &["error there is no database / write a section such as\n[databases.app]"]);
    check("[databases.app]\nprimary = 'h'\n", &["2:11 no user is given to probe this host with"]);
    check("[databases.app]\nprimary = ['h', 'i']\n", &["2:11 a database has one primary"]);
    check("[databases.app]\nprimary = 3\n", &["2:11 a host is a text or a table"]);
    check(
        "[databases.app]\nprimary = 'postgres://u@h:x'\nreplicas = ['b', 'c!']\n",
        &["2:11 the port is not", "3:18 the host is not"],
    );
    check_app("replicas = 'b'\n", &["3:12 replicas has to be a list / put brackets around it"]);
    check_app("replicas = ['a']\n", &["3:13 a:5432 is listed twice"]);
    check_app("replicas = [{ host = 'b', name = 'x' }, { host = 'c', name = 'x' }]\n", &["3:41 two hosts are named `x`"]);
    check_app("replicas = [{ host = 'b', name = 'x y' }]\n", &["a host's name is empty or has spaces in it"]);
    check_app("hosts = ['b']\n", &["3:1 `hosts` stands beside `primary`"]);
    check_app("replicas = [{ host = 'b', url = 'postgres://c' }]\n", &["3:15 both url and host are given"]);
    check_app("replicas = [{ host = 'b', port = 99999 }]\n", &["3:34 port: the port is not a number"]);
    check_app("replicas = ['postgres://x:hunter2@b:hunter2']\n", &["3:13 the port is not a number"]);
    check_app("replicas = ['postgres://b?connect_timeout=3']\n", &["warning 3:13 `connect_timeout` in the URL has no effect"]);
    check_app("sslcert = '/c'\n", &["2:11 sslcert is given without sslkey"]);
    check_app("password = 'hunter2'\npassword_file = '/x'\n", &["4:1 both password and password_file are given"]);
    check_app("password = ''\n", &["3:12 password is empty"]);
    check_app("password = 12345\n", &["3:12 password is not text"]);
    check(
        "[databases.app]\nhosts = [{ host = 'a', role = 'primary', user = 'u' }, { host = 'b', role = 'primary' }]\n",
        &["1:12 two hosts are said to be the primary: `a:5432` and `b:5432`"],
    );
}

#[test]
fn contradictions() {
    check("[databases.pgyard]\nprimary = 'postgres://u@a'\n", &["1:12 the database name `pgyard` is reserved"]);
    check_app("min_idle = 30\n", &["3:12 min_idle (30) is more than pool_size (20)"]);
    check_app(
        "min_idle = 3\n[databases.app.users.al]\npool_size = 2\n",
        &["3:12 min_idle (3) is more than the pool_size of a user (2)"],
    );
    check(&format!("[defaults]\nmin_idle = 30\n{APP}"), &["2:12 min_idle"]);
    check_app("backoff_min = '3s'\n", &["3:15 backoff_min is longer than backoff_max"]);
    check_app("reads_on_primary = 'never'\n", &["3:20 reads_on_primary is \"never\", but there is only one host"]);
    check(
        "[databases.app]\nhosts = [{ host = 'a', user = 'u', weight = 0 }]\nbalance = 'weighted'\n",
        &["3:11 every host has weight 0"],
    );
    check_app("lookup_query = false\n", &["3:16 nobody can log in to `app`"]);
    check_app("lookup_query = false\n[databases.app.users.al]\npool_size = 1\n", &["4:22 `al` cannot log in"]);
    check_app("auth = 'plain'\n", &["3:8 auth \"plain\" sends passwords in clear"]);
    check(&format!("listen = 'unix:/x'\n{APP}auth = 'plain'\n"), &[]);
    check(&format!("http = '127.0.0.1:6432'\n{APP}"), &["1:8 http and listen are both 127.0.0.1:6432"]);
    check(&format!("[tls]\ncertificate = 'c'\n{APP}"), &["1:2 [tls] has no `key`"]);
    check_app(
        "auth = 'scram'\n[databases.app.users]\nal = 'md50123456789abcdef0123456789abcdef'\n",
        &["5:1 auth is \"scram\", but the stored secret is an MD5 hash"],
    );
    check_app(
        "auth = 'md5'\n[databases.app.users]\nal = 'SCRAM-SHA-256$4096:c2E=$c3Q=:c2U='\n",
        &["auth is \"md5\", but the stored secret is a SCRAM verifier"],
    );
    check_app("[databases.app.users]\nal = 'SCRAM-SHA-256$4096:c2E='\n", &["4:1 the SCRAM verifier is not whole"]);
    check(
        &format!("[admin.users]\nal = 'SCRAM-SHA-256$x'\n[admin.users.bo]\n{APP}"),
        &["2:1 the SCRAM verifier is not whole", "3:14 the console user `bo` has no password"],
    );
    check_app(
        "[databases.app.users.al]\nserver_password = 'md50123456789abcdef0123456789abcdef'\n",
        &["the server_password of `al` is a hash"],
    );
}

#[test]
fn dangers_are_warned_of() {
    check_app("auth = 'trust'\n", &["warning 3:8 anybody on this machine gets into `app` as any role"]);
    let open = format!("listen = '0.0.0.0:6432'\n{APP}");
    check(&open, &["warning 1:10 clients connect to 0.0.0.0:6432 without TLS"]);
    check(&format!("{open}[tls]\ncertificate = 'c'\nkey = 'k'\n"), &[]);
    check(&format!("{open}auth = 'trust'\n"), &["1:10 clients connect", "4:8 anybody who reaches 0.0.0.0:6432 gets into"]);
    check_app("failover_wait = 0\n", &["warning 3:17 failover_wait is 0"]);
    check_app("max_lag = '150ms'\n", &["warning 3:11 max_lag (150ms) is less than two probe intervals (100ms each)"]);
    check_app("replicas = ['b']\nmax_lag = 'off'\n", &["warning 4:11 max_lag is off"]);
    check_app("replicas = ['b']\nmax_lag = 'off'\nmax_lag_bytes = '16MB'\n", &[]);
    check_app("pool_size = 200\n", &["warning 3:13 pool_size (200) is more than max_per_host (100)"]);
    check_app("replicas = [{ host = 'b', weight = 2 }]\n", &["warning 1:12 the weight of `b:5432` has no effect"]);
    check_app("sslrootcert = '/ca'\n", &["warning 1:12 sslrootcert of `a:5432` protects nobody"]);
    check_app("sslrootcert = '/ca'\nsslmode = 'disable'\n", &["warning 1:12 sslrootcert of `a:5432` has no effect"]);
    check_app(
        "sslrootcert = '/ca'\nsslmode = 'require'\nreplicas = ['postgres://b?sslmode=allow&sslrootcert=/ca']\n",
        &["of `b:5432` protects nobody"],
    );
    check_app(
        "sslrootcert = 'system'\nsslmode = 'verify-ca'\n",
        &["error 2:11 sslmode \"verify-ca\" is too weak for sslrootcert \"system\""],
    );
    let with_system = settings(&format!("{APP}sslrootcert = 'system'\n"));
    assert_eq!(with_system.databases[0].hosts[0].tls.mode, ServerTlsMode::VerifyFull);
    check(
        "[databases.app]\nhosts = [{ host = 'a', user = 'u', role = 'replica' }]\n",
        &["warning 1:12 every host of `app` is said to be a replica"],
    );
}

#[test]
fn the_listing_reads_well_and_hides_secrets() {
    let text = "[databases.app]\nprimary = \"postgres://u:hunter2@h:port/app\"   # and more\n";
    let report = parse(text, "pgyard.toml", &environment).unwrap_err().to_string();
    let expect = "\
pgyard.toml:2:11: error: the port is not a number from 1 to 65535
  |
2 | primary = \"postgres://u:***@h:***/app\"   # and more
  |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = help: write such as \"host:5432\"; an IPv6 address stands in brackets, and a `:` in a password is %3A

1 error";
    assert_eq!(report, expect);
}

#[test]
fn files_are_read_and_checked_by_load_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pgyard.toml");
    let text = "[tls]\ncertificate = 'server.crt'\nkey = 'server.key'\n[databases.app]\nprimary = { host = 'h', user = 'u', password_file = 'secret' }\n";
    std::fs::write(&path, text).unwrap();
    assert!(parse(text, "t.toml", &environment).is_ok());
    let report = load(&path, &environment).unwrap_err();
    assert!(report.problems.iter().all(|problem| problem.kind == ProblemKind::File), "{report}");
    assert_eq!(report.error_count(), 3, "{report}");
    std::fs::write(folder.path().join("server.crt"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    std::fs::write(folder.path().join("server.key"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    std::fs::write(folder.path().join("secret"), "hunter2\n").unwrap();
    let loaded = load(&path, &environment).unwrap();
    let password = loaded.settings.databases[0].hosts[0].control.password.clone();
    assert_eq!(password.unwrap().reveal(), "hunter2");
    assert_eq!(loaded.settings.tls.unwrap().key, folder.path().join("server.key"));
    let warnings: Vec<String> = loaded.warnings.iter().map(Problem::summary).collect();
    assert!(warnings[0].contains("the private key") && warnings[1].contains("the secret in"), "{warnings:?}");
    std::fs::write(&path, "[databases.app]\nprimary = 'postgres://u:hunter2@h'\n").unwrap();
    let warnings = load(&path, &environment).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].summary().contains("can be read by every user"), "{warnings:?}");
    let missing = load(&folder.path().join("none.toml"), &environment).unwrap_err().to_string();
    assert!(missing.contains("cannot read the configuration") && missing.contains("--primary"), "{missing}");
}

/// For each key of a database, a value that is not its default.
const OTHER_VALUES: &[(&str, &str)] = &[
    ("auth", "'scram'"),
    ("lookup_query", "'select $1'"),
    ("lookup_cache", "'1s'"),
    ("pool_mode", "'session'"),
    ("fresh_connections", "true"),
    ("pool_size", "21"),
    ("min_idle", "1"),
    ("max_per_host", "101"),
    ("checkout_timeout", "'6s'"),
    ("max_waiting", "1"),
    ("connect_timeout", "'6s'"),
    ("idle_timeout", "'6s'"),
    ("max_age", "'2h'"),
    ("max_prepared", "1"),
    ("idle_transaction_timeout", "'1s'"),
    ("query_timeout", "'1s'"),
    ("split", "false"),
    ("balance", "'random'"),
    ("reads_on_primary", "'always'"),
    ("consistency", "'global'"),
    ("retry_buffer", "'1kB'"),
    ("reuse_unnamed", "'on'"),
    ("failover_wait", "'1s'"),
    ("max_held", "5"),
    ("max_held_bytes", "'1MB'"),
    ("max_lag", "'3s'"),
    ("max_lag_bytes", "'1MB'"),
    ("probe_interval", "'50ms'"),
    ("probe_timeout", "'2s'"),
    ("sampler_interval", "'20ms'"),
    ("backoff_min", "'1s'"),
    ("backoff_max", "'5s'"),
    ("catalogue_interval", "'1h'"),
];

#[test]
fn every_key_of_a_database_is_read_shown_and_compared() {
    let listed: BTreeSet<&str> = OTHER_VALUES.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, keys::names(keys::DATABASE).collect(), "this test knows every key");
    let before = settings(APP);
    for (name, value) in OTHER_VALUES {
        for text in [format!("{APP}{name} = {value}\n"), format!("[defaults]\n{name} = {value}\n{APP}")] {
            let after = settings(&text);
            assert_ne!(before, after, "{name} is read");
            let plan = diff(&before, &after);
            assert_eq!(plan.changed.len(), 1, "{plan:?}");
            assert!(plan.changed[0].starts_with(&format!("databases.app.{name}: ")), "{plan:?}");
        }
        let shown = settings_table(&before).into_iter().find(|(key, ..)| *key == format!("databases.app.{name}"));
        let (_, value, default, changeable) = shown.unwrap();
        assert_eq!((value, changeable), (default, true), "{name}");
    }
}

#[test]
fn settings_that_need_a_restart_are_told() {
    let base = settings(&format!("workers = 2\n{APP}"));
    for (line, key) in [("listen = '127.0.0.1:1'", "listen"), ("http = false", "http"), ("log.format = 'json'", "log.format")] {
        let plan = diff(&base, &settings(&format!("workers = 2\n{line}\n{APP}")));
        assert!(plan.changed.is_empty() && plan.needs_restart.len() == 1, "{plan:?}");
        assert!(plan.needs_restart[0].starts_with(key), "{plan:?}");
    }
    assert_eq!(diff(&base, &settings(&format!("workers = 3\n{APP}"))).needs_restart, ["workers: 2 -> 3"]);
    for line in [
        "limits.max_clients = 5",
        "log.level = 'warn'",
        "log.min_duration = '1s'",
        "drain_timeout = '1s'",
        "tls = { certificate = 'c', key = 'k' }",
    ] {
        let plan = diff(&base, &settings(&format!("workers = 2\n{line}\n{APP}")));
        assert!(!plan.changed.is_empty() && plan.needs_restart.is_empty(), "{line}: {plan:?}");
    }
}

#[test]
fn no_secret_is_shown() {
    let text = "[admin.users]\nops = 'hunter2'\n[databases.app]\nprimary = 'postgres://u:hunter2@h'\nusers.al = 'hunter2'\n\
                users.bo = { password = 'hunter2', server_password = 'hunter2' }\n";
    let found = settings(text);
    assert!(!format!("{:?} {found:?}", settings_table(&found)).contains("hunter2"));
    let masked = settings_table(&found).into_iter().filter(|(_, value, ..)| value == "***").count();
    assert_eq!(masked, 5);
    let other = settings(&text.replace("hunter2", "hunter3"));
    let plan = diff(&found, &other);
    assert_eq!((plan.changed.len(), plan.needs_restart.len()), (5, 0), "{plan:?}");
    assert!(plan.changed.iter().all(|line| line.ends_with(": changed") && !line.contains("hunter")), "{plan:?}");
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
        let _ = parse(&text, "t.toml", &environment).map_err(|report| report.to_string());
    }

    #[test]
    fn any_file_like_text_is_read_without_a_panic(lines in proptest::collection::vec(
        "(\\[databases.(app|\"\\*\"|pgyard)\\]|primary = |hosts = \\[|replicas = |users = |max_lag = |pool_size = |listen = |\\[tls\\]|\\[defaults\\]|key = |password = )\
         ('postgres://u:p@h/d'|\"\\$\\{PGPASSWORD\\}\"|1s|3|-1|1.5|true|\\{ host = 'h' \\}|\\{|\\]|'|\u{e4}|)", 0..12))
    {
        let _ = parse(&lines.join("\n"), "t.toml", &environment).map_err(|report| report.to_string());
    }
}

#[test]
fn a_text_of_another_kind_gives_few_problems() {
    for line in ["key: value\n", "<a>\n", "a = b\n", "\"\n", "[\n"] {
        let report = parse(&line.repeat(1000), "t.toml", &environment).unwrap_err();
        assert!(report.problems.len() <= 100 && report.error_count() > 0, "{line}");
    }
}

#[test]
fn access_lists_are_checked_as_a_whole() {
    let tls = "[tls]\ncertificate = 'c'\nkey = 'k'\n";
    let check_list = |list: &str, expect: &[&str]| check(&format!("{list}{APP}"), expect);
    check_list("[[access]]\nusers = 'al'\n[[access]]\n", &[]);
    check_list(
        "[[access]]\n[[access]]\nusers = 'al'\n",
        &["warning 3:1 this rule never decides anything: rule 1 takes everything"],
    );
    check_list("access = []\n", &["the access list has 0 rules"]);
    check_list("access = 3\n", &["access has to be a list of rules"]);
    check_list("[[access]]\nadresses = '10.0.0.0/8'\n", &["unknown key `adresses` in [[access]] / did you mean `addresses`?"]);
    check_list(
        "[[access]]\naddresses = '10.0.0.1/8'\n",
        &["addresses: `10.0.0.1/8` can't be used / only the first 8 bits count"],
    );
    check_list("[[access]]\nusers = 'all'\nmethod = 'reject'\n", &["users: `all` can't be used / for all, leave the key out"]);
    check_list("[[access]]\nusers = '+staff'\ndatabases = 'sameuser'\n", &["users: `+staff`", "databases: `sameuser`"]);
    check_list("[[access]]\nusers = 'a*b*'\n", &["users: `a*b*` can't be used / one `*`"]);
    check_list("[[access]]\nmethod = 'password'\n", &["method: `password` is not known"]);
    check_list("[[access]]\nmethod = 'peer'\n", &["method \"peer\" asks the kernel"]);
    check_list("[[access]]\nmethod = 'cert'\n", &["only clients with TLS can show a certificate"]);
    check_list(
        &format!("{tls}[[access]]\nconnection = 'tls'\nmethod = 'cert'\n"),
        &["this rule wants a certificate, but none can be verified"],
    );
    check_list("[[access]]\nconnection = 'tls'\n", &["warning 2:1 this rule never matches: there is no [tls]"]);
    check_list("[[access]]\nconnection = 'unix'\n", &["warning 2:1 this rule never matches: pgyard listens on no Unix socket"]);
    check_list("[[access]]\nconnection = 'plain'\nmethod = 'plain'\n", &["would send the password in clear"]);
    check_list("[[access]]\nmethod = 'trust'\n", &["warning 2:1 this rule lets in anybody"]);
    check_list("[[access]]\nmap = 'x'\n", &["there is no user map `x`"]);
    check_list("[[access]]\nmap = 'x'\n[user_maps.x]\na = 'b'\n", &["map has no effect in this rule"]);
    check_list("[user_maps.x]\na = '*'\n", &["the entry `a` can't be used / `*` in the role"]);
    check_list("[user_maps.x]\na = 3\n", &["the entry `a` can't be used"]);
    check_list(&format!("{tls}client_cert = 'optional'\n"), &["client_cert has no effect without client_ca"]);
    check_list("[peers]\naddresses = { 2 = 'h' }\n", &["[peers] has no `id`"]);
    check_list("[peers]\nid = 300\n", &["id: `300` is out of range"]);
    check_list(
        "[peers]\nid = 1\naddresses = { 0 = 'h', x = 'h' }\n",
        &["`0` is not the id of a peer", "`x` is not the id of a peer"],
    );
    check_list("[peers]\nid = 1\naddresses = { 2 = 'postgres://u@h' }\n", &["a peer is an address, not a URL"]);
    let peers = settings(&format!("[peers]\nid = 1\naddresses = {{ 1 = 'a', 2 = 'b:7', 3 = '/run/x' }}\n{APP}")).front.peers;
    let others: Vec<_> = peers.others.iter().map(|peer| (peer.id, peer.address.as_str(), peer.port)).collect();
    assert_eq!((peers.id, others), (1, vec![(2, "b", 7), (3, "/run/x", 6432)]));
}

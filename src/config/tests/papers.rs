//! The examples and the documentation say what the code does.

use super::*;

fn root() -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_example_is_right() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        count += 1;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let warnings = match parse(&text, &name, &environment) {
            Ok(loaded) => loaded.warnings,
            Err(report) => panic!("{report}"),
        };
        // In a container everything listens on every address; TLS there is the operator's choice.
        let allowed = |problem: &Problem| name == "docker.toml" && problem.message.contains("without TLS");
        assert!(warnings.iter().all(allowed), "{warnings:#?}");
        // With the files looked at, nothing but missing files may be wrong.
        if let Err(report) = load(&path, &environment) {
            assert!(report.problems.iter().all(|p| p.kind == ProblemKind::File || p.severity == Severity::Warning), "{report}");
        }
    }
    assert!(count >= 6, "{count} examples");
}

#[test]
fn the_reference_example_has_every_key_at_its_default() {
    let text = std::fs::read_to_string(root().join("config/pgyard.toml")).unwrap();
    let found = settings(&text);
    let mut expect = Settings { databases: found.databases.clone(), ..Settings::default() };
    assert_eq!(found, expect);
    let database = std::mem::take(&mut expect.databases).remove(0);
    let defaults = DatabaseSettings {
        name: database.name.clone(),
        hosts: database.hosts.clone(),
        users: vec![UserSettings { name: "report".into(), ..UserSettings::default() }],
        ..DatabaseSettings::default()
    };
    assert_eq!(*database, defaults);
    let written: BTreeSet<&str> = text
        .lines()
        .map(|line| line.trim_start_matches(['#', ' ']))
        .filter_map(|line| line.split_once('=').map(|(key, _)| key.trim()))
        .collect();
    for name in keys::names(keys::TOP)
        .chain(keys::names(keys::LOG))
        .chain(keys::names(keys::LIMITS))
        .chain(keys::names(keys::ACCESS))
        .chain(keys::names(keys::PEERS))
        .chain(keys::names(keys::DATABASE))
        .chain(keys::names(keys::USER))
        .chain(keys::plain_names(keys::TLS))
        .chain(keys::plain_names(keys::HOSTS).filter(|name| *name != "users"))
    {
        assert!(written.contains(name), "{name} is not in config/pgyard.toml");
    }
}

#[test]
fn the_document_has_the_tables_of_the_code() {
    let path = root().join("docs/configuration.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (name, table) in reference_tables() {
        text = replace_between(&text, &format!("<!-- table: {name} -->\n"), "<!-- end -->", &format!("\n{table}\n"));
    }
    text = replace_between(
        &text,
        "which needs a superuser:\n\n",
        "\n\nIts columns",
        &format!("```sql\n{DEFAULT_LOOKUP_QUERY}\n```"),
    );
    if std::env::var_os("PGYARD_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == text, "docs/configuration.md is not what the code says: PGYARD_WRITE_DOCS=1 cargo test config writes it");
}

fn replace_between(text: &str, start: &str, end: &str, new: &str) -> String {
    let (before, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} behind {start:?}"));
    format!("{before}{start}{new}{end}{after}")
}

#[test]
fn the_documents_toml_is_right() {
    let text = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut count = 0;
    for block in text.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let host = "hosts = ['postgres://u@h']\n";
        // Fragments are completed to files.
        let file = match block {
            _ if block.contains("primary = ") => block.to_owned(),
            _ if block.contains(".users.") => format!("[databases.app]\n{host}{block}"),
            _ => format!("{block}[databases.app]\n{host}"),
        };
        check(&file, &[]);
        count += 1;
    }
    assert!(count >= 6, "{count}");
}

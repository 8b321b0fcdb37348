use super::*;

fn arguments(line: &str) -> Result<Invocation, String> {
    let words = std::iter::once("pgyard").chain(line.split_whitespace()).map(std::ffi::OsString::from);
    read(words).map(|arguments| arguments.command).map_err(|error| error.to_string())
}

fn serve(line: &str) -> ServeArguments {
    match arguments(line) {
        Ok(Invocation::Serve(serve)) => serve,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
fn serve_is_the_default_command() {
    for line in ["--config a.toml", "serve --config a.toml", "-c a.toml"] {
        assert_eq!(serve(line).config, Some(PathBuf::from("a.toml")), "{line}");
    }
    for line in [
        "--primary postgres://u@a --replica b --replica c --listen 127.0.0.1:7 --http off",
        "serve --replica b --primary postgres://u@a --replica c --http off --listen 127.0.0.1:7",
    ] {
        let serve = serve(line);
        assert_eq!(
            (serve.replicas, serve.listen, serve.http.as_deref()),
            (vec!["b".into(), "c".into()], vec!["127.0.0.1:7".into()], Some("off"))
        );
    }
    // A password may hold a comma: only the variable is a list.
    assert_eq!(serve("--primary postgres://u:a,b@h --replica postgres://u:a,b@i").replicas, ["postgres://u:a,b@i"]);
}

#[test]
fn what_makes_no_sense_is_an_error_that_says_what_to_do() {
    let check = |line: &str, expect: &str| {
        let error = arguments(line).expect_err(line);
        assert!(error.contains(expect), "{line}: {error}");
    };
    check("", "say what to serve: --config FILE");
    check("--config a --primary postgres://u@b", "exclude each other");
    check("--config a --listen 127.0.0.1:1", "--listen goes with --primary");
    check("--config a --replica b", "--replica goes with --primary");
    check("--replica b", "--replica needs --primary");
    check("--config a status", "--config has to stand behind the command");
    check("--log nonsense=nonsense --config a", "write a level");
    check("--log-format xml --config a", "write text or json");
    check("demo --replicas 99", "99");
    check("demo --listen here", "invalid socket address");
    check("stauts", "status");
    check("check", "FILE");
    check("--config=", "say what to serve");
    check("drain", "HOST");
}

#[test]
fn commands_take_their_options() {
    let Ok(Invocation::Drain(drain)) = arguments("drain replica-1 --in app --admin postgres://ops@h/pgyard") else {
        panic!("drain")
    };
    assert_eq!((drain.host.as_str(), drain.database.as_deref()), ("replica-1", Some("app")));
    assert_eq!(drain.target.admin.as_deref(), Some("postgres://ops@h/pgyard"));
    let Ok(Invocation::Pause(pause)) = arguments("pause app --config x.toml") else { panic!("pause") };
    assert_eq!((pause.database.as_deref(), pause.target.config), (Some("app"), Some(PathBuf::from("x.toml"))));
    let Ok(Invocation::Demo(demo)) = arguments("demo --replicas 3 --ports 7000 --keep --directory /tmp/d") else {
        panic!("demo")
    };
    let options = demo.options();
    assert_eq!((options.replicas, options.first_port, options.keep, options.listen.port()), (3, Some(7000), true, 6432));
    let Ok(Invocation::Demo(demo)) = arguments("demo") else { panic!("demo") };
    assert_eq!((demo.options().replicas, demo.options().http.port()), (2, 9632));
}

#[test]
fn settings_come_from_where_the_options_say() {
    let loaded = serve("--primary postgres://u@a --log debug --log-format json --http off").load().unwrap();
    assert_eq!(
        (loaded.settings.log.filter.as_str(), loaded.settings.log.format, loaded.settings.http),
        ("debug", LogFormat::Json, None)
    );
    let missing = serve("--config /nonexistent/pgyard.toml").load().unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/pgyard.toml"), "{missing}");
}

#[test]
fn the_help_shows_every_command_and_examples() {
    let help = CommandLine::command().render_long_help().to_string();
    for part in [
        "serve",
        "check",
        "route",
        "status",
        "reload",
        "pause",
        "resume",
        "drain",
        "undrain",
        "demo",
        "Examples:",
        "PGYARD_REPLICAS",
    ] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}

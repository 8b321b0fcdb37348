//! Runs other people's clients: psql, pgbench, Python and Node scripts.

use super::shared_fleet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// psql with a script on its input: rows without headings, columns separated by `|`.
///
/// # Panics
/// When a statement fails.
pub fn psql(url: &str, script: &str) -> String {
    let output = psql_output(url, script);
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// As `psql`, for scripts that may fail.
pub fn psql_output(url: &str, script: &str) -> Output {
    psql_under(url, &[], script)
}

/// The same with these variables in its environment.
pub fn psql_under(url: &str, environment: &[(&str, &str)], script: &str) -> Output {
    let mut command = shared_fleet().programs().command("psql");
    command.envs(environment.iter().copied());
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url]);
    with_input(command, script)
}

/// pgbench with arguments, against a URL; answers what it printed.
///
/// # Panics
/// When it fails.
pub fn pgbench(url: &str, arguments: &[&str]) -> String {
    let mut command = shared_fleet().programs().command("pgbench");
    command.args(arguments).arg(url);
    passed("pgbench", &with_input(command, ""))
}

/// A script of `tests/drivers` in the virtual environment that `make setup` makes.
///
/// # Panics
/// When it fails, or the environment is missing.
pub fn python(script: &str, arguments: &[&str]) -> String {
    let interpreter = project(".venv/bin/python");
    assert!(interpreter.exists(), "{} is missing: run `make setup`", interpreter.display());
    let mut command = Command::new(interpreter);
    command.arg(project("tests/drivers").join(script)).args(arguments);
    passed(script, &with_input(command, ""))
}

/// A script of `tests/drivers/node`, whose packages `make setup` installs.
///
/// # Panics
/// When it fails, or the packages are missing.
pub fn node(script: &str, arguments: &[&str]) -> String {
    let folder = project("tests/drivers/node");
    assert!(folder.join("node_modules/pg").exists(), "node's packages are missing: run `make setup`");
    let mut command = Command::new("node");
    command.arg(folder.join(script)).args(arguments).current_dir(folder);
    passed(script, &with_input(command, ""))
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn passed(what: &str, output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {}\n{stdout}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    stdout
}

fn with_input(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    super::guard::watch(child.id());
    let pid = child.id();
    // A program that ends early closes the pipe: its status tells.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    super::guard::forget(pid);
    output
}

//! Who is let in: the access list, certificates, the user that a process runs as, and how often a log-in may fail.

use super::harness::Pgyard;
use super::harness::client::RawClient;
use super::harness::programs::{psql, psql_output};
use super::harness::secure::secure_fleet;
use std::os::unix::fs::PermissionsExt;

fn stderr(url: &str) -> String {
    String::from_utf8_lossy(&psql_output(url, "SELECT 1").stderr).into_owned()
}

#[test]
fn a_certificate_stands_for_a_role() {
    let secure = secure_fleet();
    let rules = "client_cert = 'optional'\n[[access]]\nconnection = 'tls'\nusers = 'alice'\nmethod = 'cert'\n\
        [[access]]\nconnection = 'tls'\nusers = 'app'\ncert_name = 'dn'\nmap = 'subjects'\nmethod = 'scram'\nclient_cert = 'verify-full'\n\
        [[access]]\nconnection = 'tls'\nusers = 'tlsonly'\nmethod = 'cert'\n\
        [[access]]\nconnection = 'tls'\nusers = 'nobody'\nmap = 'any'\nmethod = 'cert'\n\
        [[access]]\ndatabases = 'pgyard'\n\
        [user_maps.subjects]\n'CN=*' = ['app', 'alice']\n[user_maps.any]\n'*' = 'nobody'\n";
    let top = format!("{}client_ca = '{}'\n{rules}", secure.tls("front"), secure.files.text("ca.crt"));
    let app = "[databases.app.users.alice]\nserver_password = 'wonderland'\n";
    let yard = Pgyard::start_with_config(&secure.fleet, &secure.config(&top, app));
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let shown = format!("sslcert={} sslkey={}", secure.files.text("alice.crt"), secure.files.text("alice.key"));
    let password = secure.fleet.app_password().reveal();
    let url =
        |user: &str, more: &str| format!("host=localhost port={} user={user} dbname=app sslmode=require {more}", yard.port());
    // No password is given: the certificate is the proof.
    assert_eq!(psql(&url("alice", &shown), "SELECT current_user"), "alice");
    let check = |url: String, expect: &str| assert!(stderr(&url).contains(expect), "{url}: {}", stderr(&url));
    check(url("tlsonly", &shown), "certificate authentication failed for user \"tlsonly\"");
    check(url("nobody", &shown), "role \"nobody\" does not exist");
    check(url("alice", "sslcert=/none"), "connection requires a valid client certificate");
    // A certificate and a password.
    assert_eq!(psql(&url("app", &format!("{shown} password={password}")), "SELECT current_user"), "app");
    check(url("app", &format!("{shown} password=wrong")), "password authentication failed for user \"app\"");
    check(url("app", &format!("sslcert=/none password={password}")), "connection requires a valid client certificate");
    // No rule: not without TLS, and not for others.
    check(
        url("alice", "").replace("sslmode=require", "sslmode=disable"),
        "no access rule allows connection for host \"127.0.0.1\", user \"alice\", database \"app\", no encryption",
    );
    check(url("walsender", &shown), "user \"walsender\", database \"app\", SSL encryption");
    assert!(yard.log().contains("no access rule matches"));
    assert!(yard.metric("pgyard_login_failures_total", &[("reason", "wrong_identity")]).unwrap() >= 3.0);
}

#[test]
fn the_first_rule_decides_and_a_reload_changes_the_list() {
    let secure = secure_fleet();
    let rule = |lines: &str| format!("[[access]]\n{lines}\n");
    let console = rule("databases = 'pgyard'");
    let config = |rules: &str| secure.config(&format!("{rules}{console}"), "");
    let open = config(&rule("addresses = ['127.0.0.0/8']\ndatabases = 'a*'\nusers = ['app', 'alice']"));
    let yard = Pgyard::start_with_config(&secure.fleet, &open);
    let password = secure.fleet.app_password().reveal();
    let log_in = |user: &str| RawClient::log_in(yard.port(), user, if user == "app" { password } else { "wonderland" }, "app");
    let mut stays = log_in("app").unwrap();
    assert!(log_in("alice").is_ok());
    let refused = log_in("walsender").unwrap_err().to_string();
    assert!(refused.starts_with("28000: no access rule allows"), "{refused}");
    let said = yard.reload(&config(&(rule("users = 'app'\nmethod = 'reject'") + &rule("addresses = '127.0.0.1'"))));
    assert!(said.contains("access.1"), "{said}");
    let refused = log_in("app").unwrap_err().to_string();
    assert_eq!(
        refused,
        "28000: an access rule rejects connection for host \"127.0.0.1\", user \"app\", database \"app\", no encryption"
    );
    assert!(yard.log().contains("rule=1 says=any user app: reject"), "the log names the rule");
    assert!(log_in("alice").is_ok());
    // Who is in stays in.
    assert_eq!(stays.column("SELECT 1").unwrap(), ["1"]);
    // The console keeps to the rules that name it.
    let closed = rule("addresses = '127.0.0.1'\ndatabases = 'a*'") + &rule("addresses = '192.0.2.1'\ndatabases = 'pgyard'");
    assert!(yard.reload(&secure.config(&closed, "")).contains("access."));
    assert!(RawClient::log_in(yard.port(), "pgyard", "", "pgyard").unwrap_err().to_string().contains("no access rule"));
}

#[test]
fn the_kernel_says_who_is_at_a_unix_socket() {
    let secure = secure_fleet();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = folder.path().display().to_string();
    // psql runs as whoever the servers run as.
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(secure.fleet.directory()).unwrap());
    let rules = format!(
        "listen = ['{{listen}}', 'unix:{directory}']\n[[access]]\nconnection = 'unix'\nmethod = 'peer'\nmap = 'system'\n[[access]]\nconnection = 'plain'\n\
         [user_maps.system]\n'{owner}' = 'app'\n"
    );
    let password = secure.fleet.app_password().reveal();
    let app = format!("[databases.app.users.app]\nserver_password = '{password}'\n");
    let config = secure.config(&rules, &app).replacen("listen = '{listen}'\n", "", 1);
    let yard = Pgyard::start_with_config(&secure.fleet, &config);
    let url = |user: &str| format!("host={directory} port=6432 user={user} dbname=app");
    assert_eq!(psql(&url("app"), "SELECT current_user"), "app");
    assert!(stderr(&url("alice")).contains("Peer authentication failed for user \"alice\""), "{}", stderr(&url("alice")));
    assert!(RawClient::log_in(yard.port(), "app", password, "app").is_ok());
}

#[test]
fn too_many_failures_are_not_tried_any_more() {
    let secure = secure_fleet();
    let limits = "[limits]\nfailed_logins_per_address = 4\nfailed_logins_per_user = 3\nfailed_login_window = '1h'\n";
    let yard = Pgyard::start_with_config(&secure.fleet, &secure.config(limits, ""));
    let password = secure.fleet.app_password().reveal();
    let log_in = |user: &str, password: &str| RawClient::log_in(yard.port(), user, password, "app").map(drop);
    let refused = |user: &str, password: &str| log_in(user, password).unwrap_err().to_string();
    log_in("app", password).unwrap();
    for _ in 0..3 {
        assert!(refused("alice", "guess").starts_with("28P01: password authentication failed"));
    }
    assert_eq!(refused("alice", "wonderland"), "53400: too many failed log-ins for user \"alice\"");
    assert!(refused("nobody", "guess").starts_with("28P01"));
    assert_eq!(refused("tlsonly", "hidden"), "53400: too many failed log-ins from your address");
    // Who has been here before is not locked out with the others.
    log_in("app", password).unwrap();
    assert_eq!(yard.metric("pgyard_login_failures_total", &[("reason", "too_many_failures")]), Some(2.0));
    yard.reload(&secure.config("[limits]\nfailed_logins_per_address = 0\nfailed_logins_per_user = 0\n", ""));
    log_in("alice", "wonderland").unwrap();
}

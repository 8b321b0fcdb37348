//! A PostgreSQL server for benchmarks only: any client may log in, every statement is answered at once and the answer means
//! nothing. So a proxy's own cost is measured without the database's.
//!
//! ```text
//! fake_server --primary 127.0.0.1:7441 [--replica 127.0.0.1:7442]...
//! ```
//!
//! Prints one line when it listens and runs until it is killed. Standard library only: `rustc -O --edition 2024` builds it in
//! seconds (`make bench ARGS=--fake` does).

mod fake;

use fake::{FakeRole, serve};
use std::net::TcpListener;
use std::process::ExitCode;

fn main() -> ExitCode {
    match start(std::env::args().skip(1)) {
        Ok(threads) => {
            println!("fake_server is listening");
            threads.into_iter().for_each(|thread| drop(thread.join()));
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("fake_server: {message}\nusage: fake_server --primary ADDRESS:PORT [--replica ADDRESS:PORT]...");
            ExitCode::from(2)
        }
    }
}

fn start(mut arguments: impl Iterator<Item = String>) -> Result<Vec<std::thread::JoinHandle<()>>, String> {
    let mut threads = Vec::new();
    while let Some(argument) = arguments.next() {
        let role = match argument.as_str() {
            "--primary" => FakeRole::Primary,
            "--replica" => FakeRole::Replica,
            other => return Err(format!("unknown argument {other}")),
        };
        let address = arguments.next().ok_or_else(|| format!("{argument} needs an address"))?;
        let listener = TcpListener::bind(&address).map_err(|error| format!("{address}: {error}"))?;
        threads.push(std::thread::spawn(move || serve(&listener, role)));
    }
    if threads.is_empty() { Err("nothing to listen on".to_owned()) } else { Ok(threads) }
}

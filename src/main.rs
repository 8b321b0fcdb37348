//! temp
use pgyard::app::*;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().map(|s| s.as_str()) == Some("demo") {
        if let Err(e) = demo::demo(&Default::default()) {
            eprintln!("{e}");
            std::process::exit(1)
        }
        return;
    }
    let mut q = pgyard::config::QuickOptions::default();
    let mut i = 0;
    let mut file = None;
    while i < args.len() {
        match args[i].as_str() {
            "--primary" => q.primary = args[i + 1].clone(),
            "--replica" => q.replicas.push(args[i + 1].clone()),
            "--listen" => q.listen.push(args[i + 1].clone()),
            "--http" => q.http = Some(args[i + 1].clone()),
            "--config" => file = Some(args[i + 1].clone()),
            "serve" => {
                i += 1;
                continue;
            }
            _ => {}
        }
        i += 2
    }
    let mut s = match &file {
        Some(f) => match pgyard::config::load(f.as_ref(), &|n| std::env::var(n).ok()) {
            Ok(l) => l.settings,
            Err(e) => {
                eprintln!("{e}");
                std::process::exit(1)
            }
        },
        None => pgyard::config::quick(&q).unwrap_or_else(|e| {
            eprintln!("{e}");
            std::process::exit(1)
        }),
    };
    if let Ok(l) = std::env::var("PGYARD_LOG") {
        s.log.filter = l
    }
    if let Ok(w) = std::env::var("PGYARD_WORKERS") {
        s.workers = w.parse().unwrap()
    }
    let log = logging::start(&s.log).unwrap();
    if let Err(e) = serve::serve(s, file.map(Into::into), log, || {}) {
        eprintln!("{e}");
        std::process::exit(1)
    }
}

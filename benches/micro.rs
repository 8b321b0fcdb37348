//! Micro-benchmarks of the hot paths.
//!
//! - `cargo bench --bench micro` times every path; `-- --quick` does so in a few seconds; further words choose paths by a part of
//!   their name.
//! - `micro --window NAME ITERATIONS` runs one path and nothing else in [`measured_window`]: `scripts/bench_budget.py` counts the
//!   instructions of that function.
//! - Without `--bench`, as `cargo test --all-targets` runs it, every path is run once and must have its budget.
//!
//! A harness of our own, since a hundred lines do and a benchmark library would be compiled with every change.

#[allow(dead_code, reason = "a path needs one server, and no replica")]
mod fake;
mod paths;

use paths::{BenchError, HotPath};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long and how often a path is timed.
struct Effort {
    sample: Duration,
    samples: usize,
}

const FULL: Effort = Effort { sample: Duration::from_millis(50), samples: 21 };
const QUICK: Effort = Effort { sample: Duration::from_millis(5), samples: 5 };
/// Runs before anything is counted: caches are filled, buffers have their size.
const WARM_UP: u64 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--list"] => {
            paths::all().iter().filter(|path| path.counted).for_each(|path| println!("{}", path.name));
            Ok(())
        }
        ["--window", name, iterations] => window(name, iterations),
        words if words.contains(&"--bench") => time_all(words),
        _ => smoke(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("micro: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All that is counted happens below this function: its name is known to `scripts/bench_budget.py`.
#[inline(never)]
fn measured_window(run: &mut dyn FnMut(), iterations: u64) {
    for _ in 0..iterations {
        run();
    }
}

fn window(name: &str, iterations: &str) -> Result<(), BenchError> {
    let path = paths::all().into_iter().find(|path| path.name == name).ok_or("there is no such path")?;
    let mut run = (path.prepare)()?;
    for _ in 0..WARM_UP {
        run();
    }
    measured_window(&mut *run, iterations.parse()?);
    Ok(())
}

fn smoke() -> Result<(), BenchError> {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/budget.toml"))?;
    let budget: toml::Table = file.parse()?;
    let recorded =
        budget.get("instructions").and_then(toml::Value::as_table).ok_or("benches/budget.toml has no [instructions]")?;
    let paths = paths::all();
    for path in &paths {
        (path.prepare)()?();
        if path.counted && !recorded.contains_key(path.name) {
            return Err(format!("{} has no budget: run `make bench-budget`", path.name).into());
        }
    }
    match recorded.keys().find(|name| !paths.iter().any(|path| path.name == name.as_str())) {
        Some(name) => Err(format!("benches/budget.toml names {name}, which does not exist").into()),
        None => Ok(()),
    }
}

fn time_all(words: &[&str]) -> Result<(), BenchError> {
    let effort = if words.contains(&"--quick") { QUICK } else { FULL };
    let wanted: Vec<&&str> = words.iter().filter(|word| !word.starts_with("--")).collect();
    println!("{:<28} {:>12} {:>12} {:>12}", "path", "median", "fastest", "");
    for path in paths::all() {
        if wanted.is_empty() || wanted.iter().any(|word| path.name.contains(**word)) {
            time(path, &effort)?;
        }
    }
    Ok(())
}

fn time(path: &HotPath, effort: &Effort) -> Result<(), BenchError> {
    let mut run = (path.prepare)()?;
    let mut iterations = 1_u64;
    let mut elapsed = timed(&mut *run, iterations);
    // At most doubled each time: the first run is often much slower than the rest.
    while elapsed < effort.sample {
        iterations *= 2;
        elapsed = timed(&mut *run, iterations);
    }
    let mut each: Vec<f64> =
        (0..effort.samples).map(|_| timed(&mut *run, iterations).as_secs_f64() * 1e9 / iterations as f64).collect();
    each.sort_by(f64::total_cmp);
    let (median, fastest) = (each[each.len() / 2], each[0]);
    let flow = if path.bytes > 0 { format!("{:.2} GB/s", path.bytes as f64 / median) } else { String::new() };
    println!("{:<28} {:>12} {:>12} {:>12}", path.name, shown(median), shown(fastest), flow);
    Ok(())
}

fn timed(run: &mut dyn FnMut(), iterations: u64) -> Duration {
    let begin = Instant::now();
    measured_window(run, iterations);
    begin.elapsed()
}

fn shown(nanoseconds: f64) -> String {
    match nanoseconds {
        small if small < 10_000.0 => format!("{small:.1} ns"),
        middle if middle < 10_000_000.0 => format!("{:.1} us", middle / 1e3),
        large => format!("{:.1} ms", large / 1e6),
    }
}

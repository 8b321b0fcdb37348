//! Ends the programs that tests started when the test program ends, however it ends: statics are not dropped, and a killed
//! process drops nothing. A shell reads a pipe that only we hold; when that closes, it kills whatever is still on its list.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=" "
while read -r sign pid; do
    case $sign in
        +) pids="$pids$pid " ;;
        -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -s KILL "$pid"; done
"#;

/// Puts a process on the list.
pub fn watch(pid: u32) {
    tell(&format!("+ {pid}\n"));
}

/// Takes a process that has been waited for off the list.
pub fn forget(pid: u32) {
    tell(&format!("- {pid}\n"));
}

/// Kills a process that was watched, and waits for it.
pub fn end(process: &mut Child) {
    let pid = process.id();
    drop(process.kill());
    drop(process.wait());
    forget(pid);
}

fn tell(line: &str) {
    static GUARD: OnceLock<Mutex<Child>> = OnceLock::new();
    let guard = GUARD.get_or_init(|| {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Mutex::new(command.spawn().unwrap())
    });
    guard.lock().unwrap().stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
}

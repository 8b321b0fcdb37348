//! A shell that outlives us for a moment: it reads a pipe that only we hold open, and when the pipe closes, because the fleet
//! was dropped or because the process was killed, it stops every server under the fleet's directory and deletes the directory.
//!
//! So there is one way in which a fleet ends, and it needs neither a signal handler nor a destructor to run.

use super::FleetError;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `$1` the fleet's directory, `$2` the signal for the servers, `$3` `delete` or `keep`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
while read -r ignored; do :; done

# A stale file must not make us signal a stranger that was given the same process id.
server_of() {
    [ -f "$1" ] && read -r pid < "$1" || return 1
    [ ! -r "/proc/$pid/cmdline" ] || grep -q -F -- "$directory" "/proc/$pid/cmdline"
}

directory=$1
for file in "$directory"/*/postmaster.pid; do
    server_of "$file" && { kill -s CONT "$pid"; kill -s "$2" "$pid"; }
done
for file in "$directory"/*/postmaster.pid; do
    turns=0
    while [ -f "$file" ] && kill -s 0 "$pid" && [ "$turns" -lt 100 ]; do sleep 0.1; turns=$((turns + 1)); done
    server_of "$file" && [ "$turns" -ge 100 ] && kill -s KILL "$pid"
done
# A program that was still filling the directory may need a second try.
turns=0
while [ "$3" = delete ] && [ -e "$directory" ] && [ "$turns" -lt 50 ]; do
    rm -rf -- "$directory" || sleep 0.1
    turns=$((turns + 1))
done
"#;

/// The shell. Dropping it makes it do its work, and waits for the end of that.
#[derive(Debug)]
pub(super) struct Warden {
    shell: Child,
}

impl Warden {
    /// Starts it over a directory; `keep` leaves the files, and gives servers the time for a clean shutdown.
    pub(super) fn start(directory: &Path, keep: bool) -> Result<Warden, FleetError> {
        let (signal, files) = if keep { ("INT", "keep") } else { ("QUIT", "delete") };
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "pgyard-fleet"])
            .arg(directory)
            .args([signal, files])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| FleetError::Spawn { program: "sh".into(), source })?;
        Ok(Warden { shell })
    }

    /// Tells it to begin, without waiting.
    pub(super) fn begin(&mut self) {
        drop(self.shell.stdin.take());
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        self.begin();
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "could not wait for the end of a local fleet");
        }
    }
}

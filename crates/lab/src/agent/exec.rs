//! Programs that the agent runs for the lab.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::proto::ExecReport;

/// Output beyond this many bytes of each of the two streams is thrown away.
const OUTPUT_LIMIT: usize = 1 << 20;

/// Runs a program to its end, or kills it, and its children, when it takes too long.
///
/// # Errors
/// Where it cannot be started.
pub fn run(argv: &[String], timeout: Duration) -> Result<ExecReport> {
    let (program, args) = argv.split_first().context("no program was named")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let (status, timed_out) = wait(&mut child, timeout)?;
    let text = |reader: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    Ok(ExecReport { code: status.code(), output: text(out) + &text(err), timed_out })
}

fn wait(child: &mut Child, timeout: Duration) -> Result<(ExitStatus, bool)> {
    let give_up = Instant::now() + timeout;
    let mut timed_out = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, timed_out));
        }
        if Instant::now() > give_up && !timed_out {
            timed_out = true;
            // Fails only where all of them are gone, which is what is wanted.
            let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a stream to its end in a thread, so that a program that writes much is never stuck.
fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        let Some(mut stream) = stream else { return kept };
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            kept.extend_from_slice(&piece[..n.min(OUTPUT_LIMIT - kept.len())]);
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str, ms: u64) -> ExecReport {
        run(&["sh".into(), "-c".into(), line.into()], Duration::from_millis(ms)).unwrap()
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let report = sh("echo out; echo err >&2; exit 7", 30_000);
        assert_eq!(report, ExecReport { code: Some(7), output: "out\nerr\n".into(), timed_out: false });
        assert!(run(&["/nonexistent".into()], Duration::ZERO).is_err());
        assert!(run(&[], Duration::ZERO).is_err());
    }

    #[test]
    fn what_takes_too_long_is_killed_with_its_children() {
        let report = sh("sleep 30 & sleep 30", 50);
        assert!(report.timed_out && report.code.is_none(), "{report:?}");
    }
}

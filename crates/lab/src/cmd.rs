//! Runs the system's tools (`ip`, `tc`, `bridge`, ...) and turns their failures into readable errors.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// Where the program is missing or fails; the error has its command line and what it said.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String> {
    let mut cmd = Command::new(program);
    cmd.args(args).stdin(Stdio::null());
    finish(program, &mut cmd, None)
}

/// Like [`run`], with the arguments as one line of words.
///
/// # Errors
/// See [`run`].
pub fn sh(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    run(program, &words.collect::<Vec<_>>())
}

/// Hands several `ip` commands to one process: faster than a process each, and stops at the first failure.
///
/// # Errors
/// See [`run`].
pub fn ip_batch(namespace: &str, lines: &[String]) -> Result<()> {
    let mut cmd = Command::new("ip");
    cmd.args(["-n", namespace, "-batch", "-"]).stdin(Stdio::piped());
    let mut text = lines.join("\n");
    text.push('\n');
    finish("ip", &mut cmd, Some(&text))
        .with_context(|| format!("in namespace {namespace}:\n{text}"))
        .map(drop)
}

/// Runs a program inside a network namespace.
///
/// # Errors
/// See [`run`].
pub fn run_in<S: AsRef<OsStr>>(namespace: &str, program: &str, args: &[S]) -> Result<String> {
    let mut cmd = in_namespace(namespace, program);
    cmd.args(args).stdin(Stdio::null());
    finish(program, &mut cmd, None)
}

/// A command that will run inside a network namespace; `ip` replaces itself by the program, so the
/// process started is the program's own.
pub fn in_namespace(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut cmd = Command::new("ip");
    cmd.args(["netns", "exec", namespace]).arg(program);
    // A Ctrl-C at the terminal is the lab's to handle: it ends its processes in order.
    cmd.process_group(0);
    cmd
}

/// Whether `program` is somewhere on the path.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

fn finish(program: &str, cmd: &mut Command, input: Option<&str>) -> Result<String> {
    let line = format!("{cmd:?}").replace('"', "");
    let mut child = cmd
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}: is it installed?"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).with_context(|| format!("writing to {program}"))?;
    }
    let out = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    if !out.status.success() {
        bail!("`{line}` failed ({}): {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

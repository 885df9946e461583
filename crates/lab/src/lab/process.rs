//! The lab's processes, each with a log file of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program; ended when dropped.
pub struct Process {
    name: String,
    log: PathBuf,
    // None where another program started it.
    child: Option<Child>,
    leave: bool,
}

impl Process {
    /// Starts `command`; what it prints is appended to `name`.log in `dir`.
    ///
    /// # Errors
    /// Where it cannot be started or its log cannot be written.
    pub fn start(name: &str, mut command: Command, dir: &Path) -> Result<Process> {
        let file = log_file(name, dir)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Process::spawn(name, command, dir)
    }

    /// Starts `command`, to be talked with; what it prints as an error is appended to `name`.log in `dir`.
    ///
    /// # Errors
    /// See [`Process::start`].
    pub fn start_piped(
        name: &str,
        mut command: Command,
        dir: &Path,
    ) -> Result<(Process, ChildStdin, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_file(name, dir)?);
        let mut process = Process::spawn(name, command, dir)?;
        let pipes = process.child.as_mut().and_then(|c| c.stdin.take().zip(c.stdout.take()));
        let (stdin, stdout) = pipes.with_context(|| format!("{name} has no pipes"))?;
        Ok((process, stdin, stdout))
    }

    fn spawn(name: &str, mut command: Command, dir: &Path) -> Result<Process> {
        // Logs are read in reports and by grep.
        let child = command.env("NO_COLOR", "1").spawn();
        let child = child.with_context(|| format!("starting {name}: {command:?}"))?;
        let log = dir.join(format!("{name}.log"));
        Ok(Process { name: name.into(), log, child: Some(child), leave: false })
    }

    /// One that an earlier run of the lab started in `dir`, to read its log; it is left alone.
    pub fn adopted(name: &str, dir: &Path) -> Process {
        Process { name: name.into(), log: dir.join(format!("{name}.log")), child: None, leave: true }
    }

    /// Fails, with the end of its log, where the program has ended by itself.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), self.tail(15))
            }
        }
    }

    /// Whether the program has ended, in whatever way.
    ///
    /// # Errors
    /// Where the system cannot tell.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.as_mut().map(Child::try_wait).transpose()?.flatten().is_some())
    }

    /// Its number in the system; nothing where another program started it.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Lets all its threads run, or stops them where they are.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn run(&mut self, run: bool) -> Result<()> {
        self.check()?;
        let signal = if run { Signal::SIGCONT } else { Signal::SIGSTOP };
        let Some(child) = &self.child else { return Ok(()) };
        kill(Pid::from_raw(child.id() as i32), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Asks it to end and waits; makes it where it does not.
    pub fn stop(&mut self, patience: Duration) {
        let Some(child) = &mut self.child else { return };
        let give_up = Instant::now() + patience;
        // The calls fail only where it is gone, which is what is wanted.
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        // One that was stopped ends only when it runs again.
        let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT);
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.kill9();
    }

    /// Lets it run on after this value is gone.
    pub fn leave(&mut self) {
        self.leave = true;
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, indented.
    pub fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.leave {
            self.stop(Duration::from_millis(1500));
        }
    }
}

fn log_file(name: &str, dir: &Path) -> Result<File> {
    let log = dir.join(format!("{name}.log"));
    let file = File::options().create(true).append(true).open(&log);
    file.with_context(|| format!("log file {}", log.display()))
}

/// The last lines of a text file, indented.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().map(|l| format!("      {l}\n")).collect()
}

//! The floor: DPDK's own `dpdk-testpmd`, which moves frames from one end to the other without
//! touching them.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use godwit_lab::cmd;
use godwit_lab::lab::process::Process;

use crate::ends::Ends;
use crate::peer::{Measured, Peer, Site};

/// How long it may take to start, with a long capture.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Headroom and bookkeeping of a buffer, in bytes.
const BESIDES: usize = 128 + 128 + 64;

/// The running program.
pub struct Testpmd {
    process: Process,
    stdin: ChildStdin,
    lines: Receiver<(Instant, String)>,
    /// Pairs of a source and a sink: the sinks are the odd ports.
    pairs: usize,
}

fn data_room(ends: &Ends) -> usize {
    ends.row.longest().next_multiple_of(1024).max(2048)
}

/// MiB of memory that it needs for a row.
pub fn memory_mb(ends: &Ends) -> usize {
    (ends.buffers() * (data_room(ends) + BESIDES)).div_ceil(1 << 20) + 64
}

impl Testpmd {
    /// Starts it and waits until it moves frames.
    ///
    /// # Errors
    /// Where it is not installed or does not start.
    pub fn start(site: &Site, ends: &Ends) -> Result<Testpmd> {
        let devices = [ends.source(), ends.sink().to_owned()];
        let mut testpmd = Testpmd::spawn(site, ends, &devices, &ends.environment())?;
        testpmd.wait()?;
        Ok(testpmd)
    }

    /// Starts it with these devices, of which each second one is the sink of the one before.
    ///
    /// # Errors
    /// Where it is not installed or does not start.
    pub fn spawn(
        site: &Site,
        ends: &Ends,
        devices: &[String],
        environment: &[(&'static str, String)],
    ) -> Result<Testpmd> {
        ensure!(cmd::exists("dpdk-testpmd"), "dpdk-testpmd is not installed: apt-get install dpdk-dev");
        let workers = site.cores.workers(ends.row.workers);
        // The main thread waits for orders, so it may share a core with one that polls.
        let mut lcores = format!("0@{}", site.cores.main());
        for (i, core) in workers.iter().enumerate() {
            lcores.push_str(&format!(",{}@{core}", i + 1));
        }
        let n = workers.len();
        // Line by line, whoever reads; the program itself would wait until a buffer is full.
        let mut command = cmd::in_namespace(&site.namespace, "stdbuf");
        command
            .envs(environment.iter().cloned())
            .args(["-oL", "dpdk-testpmd", "--lcores", &lcores, "--no-pci", "--in-memory"])
            .args(["-m", &memory_mb(ends).to_string()])
            .args(devices.iter().map(|device| format!("--vdev={device}")))
            .args(["--", "--forward-mode=io", "--interactive", "--auto-start"])
            .arg(format!("--nb-cores={n}"))
            .args([format!("--rxq={n}"), format!("--txq={n}")])
            .arg(format!("--total-num-mbufs={}", ends.buffers()))
            .arg(format!("--mbuf-size={}", data_room(ends) + 128));
        let (process, stdin, stdout) = Process::start_piped("testpmd", command, &site.dir)?;
        let (tell, lines) = channel();
        thread::Builder::new().name("testpmd".into()).spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Testpmd { process, stdin, lines, pairs: devices.len() / 2 })
    }

    /// Waits until it moves frames.
    ///
    /// # Errors
    /// Where it has ended, or moves nothing.
    pub fn wait(&mut self) -> Result<()> {
        let give_up = Instant::now() + START_PATIENCE;
        while self.sent().map_or(0, |(_, n)| n) == 0 {
            self.process.check()?;
            ensure!(Instant::now() < give_up, "dpdk-testpmd moved nothing in {START_PATIENCE:?}");
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Fails, with the end of its log, where it has ended.
    ///
    /// # Errors
    /// See above.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Frames that went out so far, and when it said so.
    fn sent(&mut self) -> Result<(Instant, u64)> {
        while self.lines.try_recv().is_ok() {}
        writeln!(self.stdin, "show port stats all").context("dpdk-testpmd takes no orders")?;
        let (mut port, mut sum) = (0, 0);
        loop {
            let Ok((at, line)) = self.lines.recv_timeout(PATIENCE) else {
                self.process.check()?;
                bail!("dpdk-testpmd told no statistics in {PATIENCE:?}");
            };
            let number = |rest: &str| {
                let number = rest.split_whitespace().next().unwrap_or_default();
                number.parse::<u64>().with_context(|| format!("dpdk-testpmd said {line:?}"))
            };
            if let Some((_, rest)) = line.split_once("statistics for port") {
                port = number(rest)? as usize;
            } else if let Some((_, rest)) = line.split_once("TX-packets:")
                && port % 2 == 1
            {
                sum += number(rest)?;
                if port + 1 == 2 * self.pairs {
                    return Ok((at, sum));
                }
            }
        }
    }
}

impl Peer for Testpmd {
    fn measure(&mut self, window: Duration) -> Result<Measured> {
        let (start, before) = self.sent()?;
        thread::sleep(window);
        let (end, after) = self.sent()?;
        let mpps = (after - before) as f64 / (end - start).as_secs_f64() / 1e6;
        Ok(Measured { mpps, note: None })
    }

    fn run(&mut self, run: bool) -> Result<()> {
        self.process.run(run)
    }
}

//! A guest that only answers: DPDK's own `dpdk-testpmd` on a vhost-user port, which replies to ARP requests and echo
//! requests over IPv4 and never sends anything of its own.

use std::process::ChildStdin;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::Lab;
use super::guests::VhostPort;
use super::process::Process;
use super::vm::VmSpec;
use crate::cmd;

/// The running program, which ends with the value.
pub struct Echo {
    /// The process, to be stopped or killed.
    pub process: Process,
    // It ends where nothing can be read any more.
    _stdin: ChildStdin,
}

impl Lab {
    /// Starts a guest that only answers at a vhost-user port.
    ///
    /// # Errors
    /// Where dpdk-testpmd is not installed or does not start.
    pub fn start_echo(&self, spec: &VmSpec, port: &VhostPort) -> Result<Echo> {
        ensure!(cmd::exists("dpdk-testpmd"), "dpdk-testpmd is not installed: apt-get install dpdk-dev");
        let device = format!("net_virtio_user0,mac={},path={},queues=1", spec.mac, port.socket.display());
        // In the NVA's namespace, so that it ends with the lab whatever happens.
        let mut command = cmd::in_namespace(&self.namespace("nva"), "dpdk-testpmd");
        // Ordinary pages are one piece of memory, as vhost-user lends at most eight; both threads share all cores.
        command
            .args(["--lcores", "(0-1)@(0-1)", "--no-pci", "--no-huge", "-m", "64"])
            .args(["--file-prefix", &format!("echo-{}-{}", self.id, spec.name)])
            .arg(format!("--vdev={device}"))
            .args([
                "--",
                "--forward-mode=icmpecho",
                "--auto-start",
                "--nb-cores=1",
                "--total-num-mbufs=4096",
            ]);
        let (process, stdin, stdout) =
            Process::start_piped(&format!("echo-{}", spec.name), command, &self.dir)?;
        // What it prints is of no use, but nobody may wait for room in the pipe.
        thread::Builder::new().name("echo".into()).spawn(move || {
            let mut stdout = stdout;
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        })?;
        let mut echo = Echo { process, _stdin: stdin };
        echo.process.check().context("a guest that only answers")?;
        Ok(echo)
    }
}

//! The agent: the software inside a lab VM. It sends and checks traffic, and does what the lab says
//! over a unix socket, which works across network namespaces.

pub mod announce;
pub mod bulk;
pub mod client;
pub mod device;
pub mod exec;
pub mod gate;
pub mod probe;
pub mod proto;
pub mod tcp;
pub mod track;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use self::gate::Gate;
use self::probe::Probe;
use self::proto::{InterfaceStats, Reply, Request, Stats};
use self::tcp::Transfer;

/// How long senders may take to come to the gate.
const PAUSE_PATIENCE: Duration = Duration::from_secs(20);

/// Serves the lab over the socket at `path` until it says [`Request::Quit`].
///
/// # Errors
/// Where the socket cannot be made.
pub fn serve(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
    let mut guest = Guest::default();
    for stream in listener.incoming() {
        let stream = stream?;
        if guest.converse(stream.try_clone()?, stream)? {
            break;
        }
    }
    // Does not fail the agent's end: the lab removes its directory anyway.
    let _ = std::fs::remove_file(path);
    Ok(())
}

/// What runs in this VM.
#[derive(Default)]
struct Guest {
    gate: Arc<Gate>,
    probes: HashMap<u32, Probe>,
    transfers: HashMap<u32, Transfer>,
}

impl Guest {
    /// Answers one connection's requests; true if the last one was to quit.
    fn converse(&mut self, reader: impl Read, mut writer: impl Write) -> Result<bool> {
        let mut reader = BufReader::new(reader);
        let mut line = String::new();
        // A line without an end was cut off with the connection: nobody waits for its answer.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            let request = serde_json::from_str::<Request>(&line);
            line.clear();
            let quit = matches!(request, Ok(Request::Quit));
            let reply = request.map_err(Into::into).and_then(|r| self.handle(r));
            let reply = reply.unwrap_or_else(|e| Reply::Error { text: format!("{e:#}") });
            writeln!(writer, "{}", serde_json::to_string(&reply)?)?;
            if quit {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn handle(&mut self, request: Request) -> Result<Reply> {
        match request {
            Request::Hello | Request::Quit => {}
            Request::Announce(what) => announce::send(&what)?,
            Request::ProbeOpen(spec) => {
                self.probes.insert(spec.probe, Probe::open(spec, self.gate.clone())?);
            }
            Request::ProbeMeet { probe, timeout_ms } => {
                self.probe(probe)?.meet(Duration::from_millis(timeout_ms))?;
            }
            Request::Run => self.gate.open(),
            Request::Pause => {
                let still = self.gate.shut(PAUSE_PATIENCE);
                anyhow::ensure!(still, "senders did not come to rest in {PAUSE_PATIENCE:?}");
            }
            Request::Stop => self.gate.stop(),
            Request::ProbeReport { probe, peer_sent } => {
                return Ok(Reply::Probe(self.probe(probe)?.report(peer_sent)));
            }
            Request::Membership { probe, interface, joined } => {
                self.probe(probe)?.set_member(&interface, joined)?;
            }
            Request::SentAt { probe, seqs } => {
                return Ok(Reply::SentAt { at_ns: self.probe(probe)?.sent_at(&seqs) });
            }
            Request::TcpListen { transfer, local, spec } => {
                self.transfers.insert(transfer, Transfer::listen(local, spec, self.gate.clone())?);
            }
            Request::TcpConnect { transfer, peer, spec } => {
                self.transfers.insert(transfer, Transfer::connect(peer, spec, self.gate.clone())?);
            }
            Request::TcpStatus { transfer } => {
                let known = self.transfers.get(&transfer);
                return Ok(Reply::Tcp(
                    known.with_context(|| format!("no transfer {transfer} runs here"))?.report(),
                ));
            }
            Request::Exec { argv, timeout_ms } => {
                return exec::run(&argv, Duration::from_millis(timeout_ms)).map(Reply::Exec);
            }
            Request::Now => return Ok(Reply::Now { at_ns: crate::clock::now_ns() }),
            Request::Stats { interfaces } => return Ok(Reply::Stats(stats(&interfaces))),
        }
        Ok(Reply::Ok)
    }

    fn probe(&self, id: u32) -> Result<&Probe> {
        self.probes.get(&id).with_context(|| format!("no probe {id} was opened here"))
    }
}

fn stats(interfaces: &[String]) -> Stats {
    Stats {
        interfaces: interfaces.iter().map(|i| interface_stats(i)).collect(),
        socket_drops: udp_receive_errors(&std::fs::read_to_string("/proc/net/snmp").unwrap_or_default())
            + udp6_receive_errors(&std::fs::read_to_string("/proc/net/snmp6").unwrap_or_default()),
    }
}

fn interface_stats(name: &str) -> InterfaceStats {
    let read = |counter: &str| {
        let path = format!("/sys/class/net/{name}/statistics/{counter}");
        std::fs::read_to_string(path).ok().and_then(|s| s.trim().parse().ok()).unwrap_or(0)
    };
    InterfaceStats {
        tx_packets: read("tx_packets"),
        tx_dropped: read("tx_dropped"),
        rx_packets: read("rx_packets"),
        rx_dropped: read("rx_dropped"),
    }
}

/// `RcvbufErrors` of the two `Udp:` lines, names and values, of /proc/net/snmp.
fn udp_receive_errors(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|l| l.strip_prefix("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(n, _)| *n == "RcvbufErrors").and_then(|(_, v)| v.parse().ok()).unwrap_or(0)
}

fn udp6_receive_errors(snmp6: &str) -> u64 {
    let mut pairs = snmp6.lines().filter_map(|l| l.split_once(char::is_whitespace));
    pairs.find(|(n, _)| *n == "Udp6RcvbufErrors").and_then(|(_, v)| v.trim().parse().ok()).unwrap_or(0)
}

/// Whether an address was taken, as a port that was free a moment ago may be.
#[cfg(test)]
fn is_taken(error: &anyhow::Error) -> bool {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_counters() {
        let v4 = "Ip: A\nIp: 1\nUdp: InDatagrams NoPorts RcvbufErrors Other\nUdp: 4 5 6 7\n";
        assert_eq!(udp_receive_errors(v4), 6);
        assert_eq!(udp6_receive_errors("Udp6InDatagrams \t4\nUdp6RcvbufErrors   \t9\n"), 9);
        assert_eq!((udp_receive_errors(""), udp6_receive_errors("")), (0, 0));
    }

    #[test]
    fn an_agent_answers_and_says_what_it_does_not_understand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let server = {
            let path = path.clone();
            std::thread::spawn(move || serve(&path))
        };
        let mut agent = client::Agent::connect(&path, Duration::from_secs(30)).unwrap();
        agent.order(&Request::Hello).unwrap();
        let error = agent.tcp_status(3).unwrap_err();
        assert!(error.to_string().contains("no transfer 3"), "{error}");
        assert!(agent.raw("{\"cmd\":\"dance\"}").unwrap().contains("error"));
        agent.order(&Request::Quit).unwrap();
        server.join().unwrap().unwrap();
    }
}

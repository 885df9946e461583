//! QEMU's control socket: JSON orders and answers, with events in between.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// QEMU answers its control socket at once, unless the machine is starved.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that nobody asked for are forgotten beyond so many.
const EVENTS: usize = 256;

/// Something that QEMU told unasked.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name: `STOP`, `RESUME`, `MIGRATION`, ...
    pub name: String,
    /// What belongs to it.
    pub data: Value,
    /// When, by the machine's wall clock, in microseconds since 1970.
    pub at_us: u64,
}

/// A connection to the control socket of one QEMU.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    line: Vec<u8>,
    events: VecDeque<Event>,
}

impl Qmp {
    /// Connects as soon as QEMU listens; `alive` says whether waiting still makes sense.
    ///
    /// # Errors
    /// Where it does not within half a minute, or `alive` fails.
    pub fn connect(path: &Path, mut alive: impl FnMut() -> Result<()>) -> Result<Qmp> {
        let give_up = Instant::now() + PATIENCE;
        let stream = loop {
            alive()?;
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) if Instant::now() > give_up => {
                    return Err(e).with_context(|| format!("QEMU does not listen at {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Qmp::over(stream)
    }

    fn over(stream: UnixStream) -> Result<Qmp> {
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Qmp { reader, writer: stream, line: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.next(Instant::now() + PATIENCE)?.context("QEMU says nothing")?;
        anyhow::ensure!(greeting.get("QMP").is_some(), "this is no QEMU: {greeting}");
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives an order and returns its answer.
    ///
    /// # Errors
    /// Where QEMU refuses, is gone or does not answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments });
        writeln!(self.writer, "{order}").with_context(|| format!("QEMU is gone: {command}"))?;
        let give_up = Instant::now() + PATIENCE;
        while let Some(mut message) = self.next(give_up).with_context(|| command.to_owned())? {
            if let Some(error) = message.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or("no reason given"));
            }
            if message.get("return").is_some() {
                return Ok(message["return"].take());
            }
            self.keep(&message);
        }
        bail!("QEMU did not answer {command} in {PATIENCE:?}")
    }

    /// The oldest event of that name that was not taken yet; waits for one.
    ///
    /// # Errors
    /// Where none comes within `patience`, or QEMU is gone.
    pub fn event(&mut self, name: &str, patience: Duration) -> Result<Event> {
        let give_up = Instant::now() + patience;
        loop {
            if let Some(at) = self.events.iter().position(|e| e.name == name) {
                return Ok(self.events.remove(at).unwrap_or_else(|| unreachable!("it was found there")));
            }
            match self.next(give_up)? {
                Some(message) => self.keep(&message),
                None => bail!("QEMU did not tell of {name} in {patience:?}"),
            }
        }
    }

    fn keep(&mut self, message: &Value) {
        let Some(name) = message["event"].as_str() else { return };
        let time = |key: &str| message["timestamp"][key].as_u64().unwrap_or(0);
        let at_us = time("seconds") * 1_000_000 + time("microseconds");
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event { name: name.into(), data: message["data"].clone(), at_us });
    }

    /// The next message; nothing where none comes in time.
    fn next(&mut self, give_up: Instant) -> Result<Option<Value>> {
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            // Zero would mean to wait without end.
            self.writer.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.reader.read_until(b'\n', &mut self.line) {
                Ok(0) => bail!("QEMU closed its control socket"),
                Ok(_) if self.line.ends_with(b"\n") => {
                    let message = serde_json::from_slice(&self.line);
                    self.line.clear();
                    return Ok(Some(message.context("QEMU speaks no JSON")?));
                }
                Ok(_) => {}
                // What was read of a line stays in `line`.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(e).context("reading QEMU's control socket"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The other end: says `lines`, each after one line that it reads.
    fn qemu(mut stream: UnixStream, greeting: &'static str, answers: Vec<&'static str>) {
        std::thread::spawn(move || {
            let mut orders = BufReader::new(stream.try_clone().unwrap()).lines();
            write!(stream, "{greeting}").unwrap();
            for answer in answers {
                orders.next().unwrap().unwrap();
                write!(stream, "{answer}").unwrap();
            }
        });
    }

    #[test]
    fn answers_are_told_from_events() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let event = "{\"event\":\"STOP\",\"timestamp\":{\"seconds\":2,\"microseconds\":7}}\n";
        let answer: &'static str = Box::leak(format!("{event}{{\"return\":{{\"n\":5}}}}\n").into_boxed_str());
        qemu(
            theirs,
            "{\"QMP\":{}}\n",
            vec!["{\"return\":{}}\n", answer, "{\"error\":{\"class\":\"X\",\"desc\":\"not now\"}}\n"],
        );
        let mut qmp = Qmp::over(ours).unwrap();
        assert_eq!(qmp.execute("query", json!({})).unwrap()["n"], 5);
        assert_eq!(qmp.event("STOP", Duration::from_secs(5)).unwrap().at_us, 2_000_007);
        let refused = qmp.execute("stop", json!({})).unwrap_err().to_string();
        assert_eq!(refused, "QEMU refuses stop: not now");
        assert!(qmp.event("RESUME", Duration::from_millis(20)).is_err());
    }
}

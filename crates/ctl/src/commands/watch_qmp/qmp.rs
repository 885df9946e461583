//! QEMU's control socket: one JSON message a line.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Longest message taken.
const MAX_MESSAGE_BYTES: u64 = 4 << 20;
/// QEMU answers at once, unless its machine is starved.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a QEMU cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// It is not there, or not any more.
    #[error("{0}")]
    Gone(String),
    /// It said no.
    #[error("QEMU refuses {command}: {why}")]
    Refused {
        /// The command.
        command: &'static str,
        /// What QEMU says.
        why: String,
    },
    /// It is something else, or silent.
    #[error("{0}")]
    Strange(String),
}

/// A connection whose capabilities are negotiated.
pub struct Qmp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
    /// Events that came before an answer.
    early: Vec<Value>,
}

impl Qmp {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// Where nobody is there, or it is no QEMU.
    pub async fn connect(path: &Path) -> Result<Qmp, QmpError> {
        let stream = UnixStream::connect(path).await.map_err(|e| QmpError::Gone(e.to_string()))?;
        let (reader, writer) = stream.into_split();
        let mut qmp = Qmp { reader: BufReader::new(reader), writer, line: Vec::new(), early: Vec::new() };
        // QEMU serves one client of a socket at a time: another one waits without a greeting.
        let greeting = tokio::time::timeout(PATIENCE, qmp.message()).await;
        let greeting = greeting.map_err(|_| {
            QmpError::Strange("no greeting: another client is on this socket; give QEMU a second -qmp".into())
        })??;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Strange("this is no control socket (QMP) of a QEMU".into()));
        }
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Gives an order and returns its answer.
    ///
    /// # Errors
    /// Where QEMU refuses or is gone.
    pub async fn execute(&mut self, command: &'static str, arguments: Value) -> Result<Value, QmpError> {
        let order = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.writer.write_all(order.as_bytes()).await.map_err(|e| QmpError::Gone(e.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, self.answer(command)).await;
        answer.map_err(|_| QmpError::Strange(format!("QEMU did not answer {command}")))?
    }

    async fn answer(&mut self, command: &'static str) -> Result<Value, QmpError> {
        loop {
            let mut message = self.message().await?;
            if let Some(error) = message.get("error") {
                let why = error["desc"].as_str().unwrap_or("no reason given").to_owned();
                return Err(QmpError::Refused { command, why });
            }
            if message.get("return").is_some() {
                return Ok(message["return"].take());
            }
            self.early.push(message);
        }
    }

    /// The next message that answers nothing. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// Where QEMU is gone.
    pub async fn event(&mut self) -> Result<Value, QmpError> {
        if self.early.is_empty() { self.message().await } else { Ok(self.early.remove(0)) }
    }

    async fn message(&mut self) -> Result<Value, QmpError> {
        let room = MAX_MESSAGE_BYTES.saturating_sub(self.line.len() as u64);
        let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.line).await;
        match read {
            Ok(_) if self.line.ends_with(b"\n") => {
                let message = serde_json::from_slice(&self.line);
                self.line.clear();
                message.map_err(|e| QmpError::Strange(format!("this is no QEMU: {e}")))
            }
            Ok(_) if self.line.len() as u64 >= MAX_MESSAGE_BYTES => {
                Err(QmpError::Strange("a message without an end: this is no QEMU".into()))
            }
            Ok(_) => Err(QmpError::Gone("QEMU closed its control socket".into())),
            Err(e) => Err(QmpError::Gone(e.to_string())),
        }
    }
}

//! The thread that writes the audit log.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::file::Appended;
use super::{AuditFile, Line, Shared};

/// Bytes that wait in memory while the disk refuses them.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// Appends that may wait for the thread: one goes on at a time.
const REQUESTS: usize = 1;
/// How often a disk that refused is tried again while nothing happens.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the alarm is repeated.
const ALARM: Duration = Duration::from_secs(60);

type Append = (Vec<Line>, oneshot::Sender<()>);

/// The way to the thread. Dropped, it waits until what was handed over is written.
pub(super) struct Writer {
    requests: Option<mpsc::SyncSender<Append>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    pub fn start(settings: AuditFile, shared: Arc<Shared>) -> io::Result<Writer> {
        let file = Appended::open(settings.clone())?;
        let (requests, waiting) = mpsc::sync_channel(REQUESTS);
        let mut log = Log {
            file,
            settings,
            shared,
            waiting: VecDeque::new(),
            bytes: 0,
            lost: 0,
            refused: None,
            alarmed: None,
        };
        let thread = thread::Builder::new().name("audit".into()).spawn(move || log.serve(&waiting))?;
        Ok(Writer { requests: Some(requests), thread: Some(thread) })
    }

    /// Appends the lines, and says when they are on the disk, or when the disk has refused them.
    pub fn append(&self, lines: Vec<Line>, done: oneshot::Sender<()>) {
        if let Some(requests) = &self.requests {
            // There is room: one append goes on at a time. Where the thread is gone, nobody waits either.
            let _ = requests.send((lines, done));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Log {
    file: Appended,
    settings: AuditFile,
    shared: Arc<Shared>,
    /// Lines that are not on the disk.
    waiting: VecDeque<String>,
    bytes: usize,
    /// Entries that were dropped, and that the file does not say so of.
    lost: u64,
    /// Why the disk refused the last time.
    refused: Option<String>,
    alarmed: Option<Instant>,
}

impl Log {
    fn serve(&mut self, requests: &mpsc::Receiver<Append>) {
        loop {
            let next = match self.waiting.is_empty() {
                true => requests.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
                false => requests.recv_timeout(AGAIN),
            };
            match next {
                Ok((lines, done)) => {
                    lines.iter().for_each(|l| self.take(l.text() + "\n"));
                    self.flush();
                    let _ = done.send(());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.flush(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One line more waits, or is lost.
    fn take(&mut self, line: String) {
        if self.bytes + line.len() > MAX_WAITING {
            self.lost += 1;
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.bytes += line.len();
        self.waiting.push_back(line);
    }

    fn flush(&mut self) {
        let mut lines = String::with_capacity(self.bytes);
        self.waiting.iter().for_each(|l| lines.push_str(l));
        if self.lost > 0 {
            lines += &(Line::gap(now_us(), self.lost).text() + "\n");
        }
        match self.file.append(&lines) {
            Ok(()) => {
                self.shared.written.fetch_add(self.waiting.len() as u64, Ordering::Relaxed);
                if self.refused.take().is_some() {
                    let path = self.settings.path.display();
                    tracing::warn!("the audit log {path} is written again; {} entries are lost", self.lost);
                }
                (self.bytes, self.lost, self.alarmed) = (0, 0, None);
                self.waiting.clear();
            }
            Err(e) => self.alarm(&e),
        }
        self.shared.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
    }

    fn alarm(&mut self, why: &io::Error) {
        self.refused = Some(why.to_string());
        if self.alarmed.is_some_and(|at| at.elapsed() < ALARM) {
            return;
        }
        self.alarmed = Some(Instant::now());
        tracing::error!(
            "ALARM: cannot write the audit log {}: {why}; {} entries wait in memory, {} are lost; make room on its \
             disk: orders are carried out meanwhile",
            self.settings.path.display(),
            self.waiting.len(),
            self.lost
        );
    }
}

fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

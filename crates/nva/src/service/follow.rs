//! The audit log for operators: read from its files, and followed.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use godwit_api::tonic::Status;
use godwit_api::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::audit::{AuditFile, Filter, Reader};

/// Operators that read the audit log at the same time.
const READERS: usize = 16;
/// Entries that wait for an operator; more make the reading wait.
const AHEAD: usize = 256;
/// How often the end of the file is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Entries for one operator.
pub(super) type Entries = Pin<Box<dyn Stream<Item = Result<v1::AuditEntry, Status>> + Send>>;

/// Those who read the audit log.
pub(super) struct Followers {
    file: Option<AuditFile>,
    places: Arc<Semaphore>,
}

impl Followers {
    pub fn new(file: Option<AuditFile>) -> Followers {
        Followers { file, places: Arc::new(Semaphore::new(READERS)) }
    }

    /// The entries that are wanted, from the oldest on.
    ///
    /// # Errors
    /// Where there is no audit log, or too many read it.
    pub fn read(&self, p: v1::ReadAuditRequest) -> Result<Entries, Status> {
        let none = "this godwit-nva writes no audit log; start it with --audit-log FILE";
        let file = self.file.as_ref().ok_or_else(|| Status::failed_precondition(none))?;
        let full = format!("{READERS} operators read the audit log already; end one of them first");
        let place = self.places.clone().try_acquire_owned().map_err(|_| Status::resource_exhausted(full))?;
        let filter = Filter { who: p.who, what: p.what, since_us: p.since_us };
        let reader = Reader::new(file, filter);
        let (tx, rx) = mpsc::channel(AHEAD);
        tokio::spawn(hand_out(reader, p.follow, tx, place));
        Ok(Box::pin(ReceiverStream::new(rx)))
    }
}

type Out = mpsc::Sender<Result<v1::AuditEntry, Status>>;

/// Until there is no more, or with `follow` until nobody listens.
async fn hand_out(mut reader: Reader, follow: bool, tx: Out, _place: OwnedSemaphorePermit) {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let read = reader.read().map_err(|e| format!("cannot read {}: {e}", reader.path().display()));
            (reader, read)
        });
        let Ok((back, read)) = read.await else { return };
        reader = back;
        let (lines, end) = match read {
            Ok(read) => read,
            Err(why) => {
                let _ = tx.send(Err(Status::internal(why))).await;
                return;
            }
        };
        for line in lines {
            if tx.send(Ok(line.into())).await.is_err() {
                return;
            }
        }
        if end && !follow {
            return;
        }
        if end {
            tokio::select! {
                () = tx.closed() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

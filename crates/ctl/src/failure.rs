//! What went wrong, in one or two lines, and the exit code for it.

use std::io::Write;

use godwit_api::tonic::{Code, Status, transport};

/// Who has to act on a failure; decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The command line was wrong.
    Usage,
    /// The NVA or the NVE said no.
    Refused,
    /// It said no because it knows no such name.
    NotFound,
    /// The NVA or the NVE could not be spoken to.
    Unreachable,
    /// The reader of our output went away; nothing to say.
    Closed,
}

/// A failed command: what happened, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Who has to act.
    pub kind: Kind,
    /// What happened, naming the thing.
    pub text: String,
    /// What to do, where more than the text itself can be said.
    pub remedy: Option<String>,
}

impl Failure {
    fn new(kind: Kind, text: impl Into<String>) -> Failure {
        Failure { kind, text: text.into(), remedy: None }
    }

    /// The command line was wrong.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, text)
    }

    /// The other side said no.
    pub fn refused(text: impl Into<String>) -> Failure {
        Failure::new(Kind::Refused, text)
    }

    /// There is no such thing.
    pub fn not_found(text: impl Into<String>) -> Failure {
        Failure::new(Kind::NotFound, text)
    }

    /// The other side could not be spoken to.
    pub fn unreachable(text: impl Into<String>) -> Failure {
        Failure::new(Kind::Unreachable, text)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Failure {
        self.remedy = Some(remedy.into());
        self
    }

    /// From an answer of `peer`, which is "NVA at URL" or "NVE at SOCKET".
    pub fn from_status(peer: &str, status: &Status) -> Failure {
        if let Some(lost) = transport_error(status) {
            return Failure::unreachable(format!("{peer} broke off the connection: {lost}"))
                .remedy(
                    "its log says why: it may demand https://; the command may have been carried out all the same",
                );
        }
        let text = match status.message() {
            "" => format!("{peer} refused: {}", status.code().description()),
            message => message.to_owned(),
        };
        match status.code() {
            Code::NotFound => Failure::not_found(text),
            Code::Unavailable | Code::DeadlineExceeded => Failure::unreachable(text),
            Code::Unimplemented => Failure::refused(format!("{peer} does not know this command: {text}"))
                .remedy("compare the versions of godwitctl and of the other side"),
            _ => Failure::refused(text),
        }
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Closed => 0,
            Kind::Refused | Kind::NotFound => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
        }
    }

    /// Writes it for people.
    pub fn report(&self, err: &mut dyn Write) {
        if self.kind == Kind::Closed {
            return;
        }
        // Where even stderr is gone, the exit code is all that is left to say.
        let _ = writeln!(err, "godwitctl: {}", self.text);
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(err, "  {remedy}");
        }
    }
}

impl From<std::io::Error> for Failure {
    /// From writing our output.
    fn from(e: std::io::Error) -> Failure {
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::new(Kind::Closed, "")
        } else {
            Failure::refused(format!("cannot write the output: {e}"))
        }
    }
}

/// The innermost cause where the connection itself failed, not the request.
fn transport_error(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status)?;
    cause.downcast_ref::<transport::Error>()?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

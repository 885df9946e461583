//! `PORT:QUEUE@CORE`: an operator's word on who polls a receive queue.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One receive queue that one core polls, whatever else there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// The port's name.
    pub port: String,
    /// The queue's number at the port, from 0.
    pub queue: u16,
    /// The core, which must be a worker's.
    pub core: usize,
}

/// A text that is no [`Pin`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no pin; write PORT:QUEUE@CORE, up0:1@3 say")]
pub struct BadPin(pub String);

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(s: &str) -> Result<Pin, BadPin> {
        let bad = || BadPin(s.to_owned());
        let (queue, core) = s.trim().rsplit_once('@').ok_or_else(bad)?;
        let (port, queue) = queue.rsplit_once(':').ok_or_else(bad)?;
        if port.is_empty() {
            return Err(bad());
        }
        let (queue, core) = (queue.parse().map_err(|_| bad())?, core.parse().map_err(|_| bad())?);
        Ok(Pin { port: port.to_owned(), queue, core })
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}@{}", self.port, self.queue, self.core)
    }
}

/// Why pins cannot be followed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such port.
    #[error("{pin}: there is no port {:?}; the ports are {}", pin.port, known.join(", "))]
    UnknownPort {
        /// The pin.
        pin: Pin,
        /// Ports that there are.
        known: Vec<String>,
    },
    /// The port has fewer queues.
    #[error("{pin}: port {:?} has {queues} receive queues, numbered from 0; raise its rx_queues or lower the \
        number", pin.port)]
    NoSuchQueue {
        /// The pin.
        pin: Pin,
        /// Queues of the port.
        queues: u16,
    },
    /// No worker runs on the core.
    #[error("{pin}: core {} has no worker; the workers' cores are {cores:?}", pin.core)]
    NotAWorker {
        /// The pin.
        pin: Pin,
        /// The workers' cores.
        cores: Vec<usize>,
    },
    /// Two pins for one queue.
    #[error("{pin}: the queue is pinned to core {other} too; leave one of the two out")]
    Twice {
        /// The later pin.
        pin: Pin,
        /// The core of the earlier one.
        other: usize,
    },
}

/// Checks pins against the ports (name, receive queues) and the workers' cores.
///
/// # Errors
/// The first pin that cannot be followed, by its place in `pins`, and why.
pub fn check(pins: &[Pin], ports: &[(&str, u16)], cores: &[usize]) -> Result<(), (usize, Refusal)> {
    let mut seen = BTreeMap::new();
    for (i, pin) in pins.iter().enumerate() {
        let refuse = |refusal| Err((i, refusal));
        let Some((_, queues)) = ports.iter().find(|(name, _)| *name == pin.port) else {
            let known = ports.iter().map(|p| p.0.to_owned()).collect();
            return refuse(Refusal::UnknownPort { pin: pin.clone(), known });
        };
        if pin.queue >= *queues {
            return refuse(Refusal::NoSuchQueue { pin: pin.clone(), queues: *queues });
        }
        if !cores.contains(&pin.core) {
            return refuse(Refusal::NotAWorker { pin: pin.clone(), cores: cores.to_vec() });
        }
        if let Some(other) = seen.insert((&pin.port, pin.queue), pin.core) {
            return refuse(Refusal::Twice { pin: pin.clone(), other });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_and_written() {
        let pin: Pin = "up0.exception:1@12".parse().unwrap();
        assert_eq!(pin, Pin { port: "up0.exception".into(), queue: 1, core: 12 });
        assert_eq!(pin.to_string(), "up0.exception:1@12");
        for bad in ["", "up0", "up0:1", "up0@1", ":1@2", "up0:x@1", "up0:1@", "up0:65536@1", "up0:-1@1"] {
            let e = bad.parse::<Pin>().unwrap_err().to_string();
            assert!(e.contains("PORT:QUEUE@CORE"), "{bad:?}: {e}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let ports = [("up0", 2), ("v", 1)];
        let refused = |pins: &[&str]| {
            let pins: Vec<Pin> = pins.iter().map(|p| p.parse().unwrap()).collect();
            let (i, refusal) = check(&pins, &ports, &[2, 3]).unwrap_err();
            (i, refusal.to_string())
        };
        assert_eq!(check(&["up0:1@2".parse().unwrap()], &ports, &[2, 3]), Ok(()));
        let (i, text) = refused(&["up0:0@2", "up1:0@2"]);
        assert!(i == 1 && text.contains("no port \"up1\"") && text.contains("up0, v"), "{text}");
        let (_, text) = refused(&["up0:2@2"]);
        assert!(text.contains("2 receive queues") && text.contains("rx_queues"), "{text}");
        let (_, text) = refused(&["v:0@1"]);
        assert!(text.contains("core 1 has no worker") && text.contains("[2, 3]"), "{text}");
        let (i, text) = refused(&["v:0@2", "v:0@3"]);
        assert!(i == 1 && text.contains("core 2 too"), "{text}");
    }
}

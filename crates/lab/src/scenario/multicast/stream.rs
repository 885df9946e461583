//! A stream from a VM to a multicast group, and its receiver.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::agent::proto::{ProbeReport, ProbeSpec, Request};
use crate::lab::Lab;
use crate::lab::topology::GUEST;
use crate::traffic::Stream;

const PORT: u16 = 4100;
const PAYLOAD: usize = 100;
/// How long sender and receiver may take to find each other at first.
const MEET_PATIENCE: Duration = Duration::from_secs(15);
/// How long a stream may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// The group of a family that the streams of the lab are for.
pub(super) fn group(v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 7).into() } else { Ipv4Addr::new(239, 1, 1, 7).into() }
}

/// Numbered datagrams of a VM to a group.
#[derive(Clone, Debug)]
pub(super) struct ToGroup {
    probe: u32,
    pub v6: bool,
    from: String,
    to: String,
    at_receiver: ProbeSpec,
}

impl ToGroup {
    /// Opens both ends; the receiver joins the group by its kernel, and the two meet.
    ///
    /// # Errors
    /// Where a VM is missing or what is sent does not arrive.
    pub fn open(lab: &mut Lab, v6: bool, rate: u32, (from, to): (&str, &str)) -> Result<ToGroup> {
        let probe = 1 + u32::from(v6);
        let port = PORT + probe as u16;
        let sender = SocketAddr::new(lab.address_of(from, v6)?.ip(), port);
        let receiver = SocketAddr::new(group(v6), port);
        let spec = |local, peer, rate| ProbeSpec {
            probe,
            local,
            peer,
            rate,
            payload: PAYLOAD,
            big_every: 0,
            big_payload: 0,
            interface: Some(GUEST.into()),
        };
        let at_receiver = spec(receiver, sender, 0);
        lab.vm(from)?.agent.probe_open(spec(sender, receiver, rate))?;
        let stream = ToGroup { probe, v6, from: from.into(), to: to.into(), at_receiver };
        stream.add(lab, to)?;
        lab.vm(from)?.agent.probe_meet(probe, MEET_PATIENCE)?;
        Ok(stream)
    }

    /// One more VM receives the stream: it joins the group.
    ///
    /// # Errors
    /// Where its agent fails.
    pub fn add(&self, lab: &mut Lab, vm: &str) -> Result<()> {
        lab.vm(vm)?.agent.probe_open(self.at_receiver.clone())?;
        self.set_member_of(lab, vm, true)
    }

    /// The receiver joins the group, or leaves it.
    ///
    /// # Errors
    /// Where its agent fails.
    pub fn set_member(&self, lab: &mut Lab, joined: bool) -> Result<()> {
        self.set_member_of(lab, &self.to, joined)
    }

    /// One of several receivers joins the group, or leaves it.
    ///
    /// # Errors
    /// Where its agent fails.
    pub fn set_member_of(&self, lab: &mut Lab, vm: &str, joined: bool) -> Result<()> {
        let order = Request::Membership { probe: self.probe, interface: GUEST.into(), joined };
        lab.vm(vm)?.agent.order(&order)
    }

    /// What has arrived so far.
    ///
    /// # Errors
    /// Where an agent does not answer.
    pub fn received(&self, lab: &mut Lab) -> Result<ProbeReport> {
        self.received_by(lab, &self.to)
    }

    /// The same at one of several receivers.
    ///
    /// # Errors
    /// Where its agent does not answer.
    pub fn received_by(&self, lab: &mut Lab, vm: &str) -> Result<ProbeReport> {
        lab.vm(vm)?.agent.probe_report(self.probe, 0)
    }

    /// Waits until more has arrived than before; how long that took.
    ///
    /// # Errors
    /// Where nothing comes.
    pub fn wait_for_more(&self, lab: &mut Lab) -> Result<Duration> {
        let (before, started) = (self.received(lab)?.received, Instant::now());
        while self.received(lab)?.received == before {
            if started.elapsed() > PATIENCE {
                bail!("nothing of group {} comes to {} in {PATIENCE:?}", group(self.v6), self.to);
            }
            sleep(POLL);
        }
        Ok(started.elapsed())
    }

    /// Compares what was sent with what arrived, when the sender stands still.
    ///
    /// # Errors
    /// Where an agent does not answer.
    pub fn judge(&self, lab: &mut Lab) -> Result<Stream> {
        let probe = self.probe;
        let sent = lab.vm(&self.from)?.agent.probe_report(probe, 0)?;
        let report = lab.vm(&self.to)?.agent.probe_report(probe, sent.sent)?;
        let sender = &mut lab.vm(&self.from)?.agent;
        Stream::new(sent.sent, sent.send_retries, report, |seqs| sender.sent_at(probe, seqs))
    }
}

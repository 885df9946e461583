//! What each order does. A refusal says what, where and what to do.

use anyhow::{Context, anyhow};
use godwit_api::v1::{self, admin_request::Kind, admin_response::Kind as Answer};
use godwit_api::v1::{AdminRequest, AdminResponse};
use godwit_control::Input;
use godwit_model::{MoveId, OperState};
use godwit_wire::{Mac, Vni};
use godwit_worker::command::{Command, Reply, SmallFrame};

use super::{counters, lets, perf, placement, views};
use crate::config::{Activation, PortConfig};
use crate::switch::{Shared, Switch};
use crate::{ports, queue_handover};

/// The way that an order came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// By the admin socket, which is root's.
    Local,
    /// By the NVA.
    Relayed,
}

/// Carries an order out.
pub async fn answer(switch: &Shared, origin: Origin, request: AdminRequest) -> AdminResponse {
    let kind = match request.kind {
        Some(kind) => {
            let lets = lets::check(&switch.borrow().config.nve, origin, &kind);
            match lets {
                Ok(()) => carry_out(switch, kind).await,
                Err(refusal) => Err(refusal.into()),
            }
        }
        None => Err(anyhow!("the order is empty or of a kind that this switch does not know; update it")),
    };
    let kind = kind.unwrap_or_else(|e| {
        let text = format!("{e:#}");
        tracing::warn!("order refused: {text}");
        Answer::Error(v1::AdminError { text })
    });
    AdminResponse { kind: Some(kind) }
}

async fn carry_out(switch: &Shared, kind: Kind) -> anyhow::Result<Answer> {
    match kind {
        Kind::GetStatus(_) => views::status(switch).await,
        Kind::ListPorts(_) => Ok(views::ports(&switch.borrow())),
        Kind::GetCounters(c) => counters::counters(switch, c.all).await,
        Kind::GetPerf(p) => perf::perf(switch, p.reset).await,
        Kind::GetUnderlay(_) => Ok(super::underlay::report(&switch.borrow())),
        Kind::GetRoutes(r) => views::routes(&switch.borrow(), &r),
        Kind::ListEntries(e) => views::entries(&switch.borrow(), e.vni),
        Kind::AddPort(a) => add_port(switch, a).await,
        Kind::RemovePort(r) => ports::remove(switch, &r.name).await.map(done),
        Kind::MovePort(m) => {
            queue_handover::hand_over_all(switch, &m.name, m.worker as usize).await.map(done)
        }
        Kind::GetPlacement(g) => placement::show(switch, g.window_ms).await,
        Kind::SetPlacement(p) => placement::set(switch, p).await.map(done),
        Kind::Rebalance(r) => placement::rebalance(switch, r).await,
        Kind::PausePort(p) => {
            if !p.move_id.is_empty() {
                let s = switch.borrow();
                let port = s.access_port(&p.name)?;
                s.nve.may_pause(port, &MoveId(p.move_id)).with_context(|| format!("port {}", p.name))?;
            }
            access_input(switch, &p.name, "paused", |port| Input::PausePort { port }).await
        }
        Kind::ActivatePort(a) => {
            access_input(switch, &a.name, "activated", |port| Input::ActivatePort { port }).await
        }
        Kind::SetVmState(s) => vm_state(switch, s).await,
        Kind::Trace(t) => trace(switch, &t).await,
    }
}

fn done(text: String) -> Answer {
    Answer::Done(v1::Done { text })
}

async fn add_port(switch: &Shared, a: v1::AddPort) -> anyhow::Result<Answer> {
    let vni = Vni::new(a.vni).with_context(|| format!("{} is no VNI; use 0 to {}", a.vni, Vni::MAX))?;
    let mac = Some(a.mac)
        .filter(|m| m >> 48 == 0)
        .map(Mac::from_u64)
        .filter(|m| m.is_unicast())
        .with_context(|| format!("{:#x} is no VM's address; use a unicast MAC", a.mac))?;
    let narrow = |what: &str, n: u32| u16::try_from(n).map_err(|_| anyhow!("{what} {n} is too large"));
    let config = PortConfig {
        name: a.name,
        devargs: a.devargs,
        vni,
        mac,
        ips: Vec::new(),
        mtu: narrow("mtu", a.mtu)?,
        rx_queues: narrow("rx_queues", a.rx_queues)?.max(1),
        activate: if a.explicit_activation { Activation::Explicit } else { Activation::Auto },
        postcopy: a.postcopy,
    };
    ports::add_access(switch, config).await.map(done)
}

/// Tells control of a VM's port, and answers when every worker has what follows from it.
async fn access_input(
    switch: &Shared,
    name: &str,
    what: &str,
    input: impl Fn(godwit_tables::update::PortIdx) -> Input,
) -> anyhow::Result<Answer> {
    let port = switch.borrow().access_port(name)?;
    switch.borrow_mut().input(input(port));
    Switch::settled(switch).await;
    Ok(done(format!("port {name} {what}")))
}

/// The VM manager's word on a port's VM (R16). With a deleted VM goes its port.
async fn vm_state(switch: &Shared, s: v1::SetVmState) -> anyhow::Result<Answer> {
    let state = OperState::from_number(s.state)
        .with_context(|| format!("{} is no state of a VM; use one of {}", s.state, OperState::names()))?;
    {
        let switch = switch.borrow();
        let port = switch.access_port(&s.port)?;
        switch.nve.may_say(port, state).with_context(|| format!("port {}", s.port))?;
    }
    let what = format!("has a VM that is {state}");
    let said = access_input(switch, &s.port, &what, |port| Input::VmState { port, state }).await?;
    if state == OperState::Deleted { ports::remove(switch, &s.port).await.map(done) } else { Ok(said) }
}

async fn trace(switch: &Shared, t: &v1::Trace) -> anyhow::Result<Answer> {
    let frame =
        SmallFrame::new(&t.frame).context("the frame is longer than 256 bytes; its headers are enough")?;
    let (worker, reply) = {
        let mut s = switch.borrow_mut();
        let port = s.devices.by_name(&t.port).ok_or_else(|| s.no_port(&t.port))?;
        let (number, worker) = (port.number, port.polled_by.first().map_or(0, |q| q.1));
        (worker, s.workers[worker].ask(Command::Trace { id: 0, port: number, frame }))
    };
    match reply.await {
        Ok(Reply::Trace { trace, .. }) => Ok(Answer::Trace(views::trace(&switch.borrow(), worker, &trace))),
        _ => Err(anyhow!("worker {worker} did not answer; it is stopping")),
    }
}

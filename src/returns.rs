//! Devices that disappear under a running switch, and are taken into use again when they are back.
//!
//! A port keeps its number, its role and its VMs over that. While its device is gone it has no link, with all that
//! follows from it (R18, R32, R95), and no queues.

use std::time::Instant;

use anyhow::{Context, bail};
use godwit_control::{Input, WorkerSet};
use godwit_tables::update::PortIdx;
use godwit_worker::command::Command;

use crate::kernel;
use crate::opening::{Opened, Wanted, open};
use crate::ports;
use crate::presence::Step;
use crate::switch::{Shared, Switch};
use crate::watched::Watched;

/// Looks for devices that are gone or back, and sees to them.
pub fn look(switch: &Shared) {
    let now = Instant::now();
    let mut due = Vec::new();
    {
        let s = &mut *switch.borrow_mut();
        for device in s.devices.iter_mut() {
            let Some(sight) = device.watched.look(&s.interfaces) else { continue };
            if let Some(step) = device.presence.sees(sight, now) {
                due.push((device.number, device.name.clone(), device.wanted.devargs.clone(), step));
            }
        }
    }
    for (number, name, devargs, step) in due {
        if !begins(&mut switch.borrow_mut(), number, (&name, &devargs), (step, now)) {
            continue;
        }
        let switch = switch.clone();
        tokio::task::spawn_local(async move {
            match step {
                Step::Leave => leave(&switch, number).await,
                Step::Open => take_back(&switch, number).await,
            }
            switch.borrow_mut().devices.end(&name);
        });
    }
}

/// Claims the port for a step; false where somebody is adding or removing it right now.
fn begins(
    s: &mut Switch,
    number: PortIdx,
    (name, devargs): (&str, &str),
    (step, now): (Step, Instant),
) -> bool {
    let begins = s.devices.begin(name, devargs).is_ok();
    if !begins && let Some(device) = s.devices.map.get_mut(&number) {
        device.presence.postpone(step, now);
    }
    begins
}

/// The port's device is gone: it has no link, and its queues and what DPDK keeps of it are let go of.
async fn leave(switch: &Shared, number: PortIdx) {
    {
        let s = &mut *switch.borrow_mut();
        let Some(device) = s.devices.map.get_mut(&number) else { return };
        tracing::error!(
            "port {}: its {} is gone, and with it the link; it is used again when it is back",
            device.name,
            device.watched
        );
        device.link_up = false;
        device.follow_guest(false);
        s.input(Input::PortLink { port: number, up: false });
    }
    drop(ports::take_queues(switch, number).await);
    ports::take_ways(switch, number).await;
    let port = {
        let s = &mut *switch.borrow_mut();
        let Some(device) = s.devices.map.get_mut(&number) else { return };
        device.polled_by.clear();
        device.in_use.clear();
        device.presence.left();
        device.port.take()
    };
    let Some(port) = port else { return };
    match tokio::task::spawn_blocking(move || port.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!(port = number.0, "closing what is left of its device: {e}"),
        Err(e) => tracing::warn!(port = number.0, "closing what is left of its device failed: {e}"),
    }
}

/// The port's device is back.
async fn take_back(switch: &Shared, number: PortIdx) {
    let Some(wanted) = switch.borrow().devices.get(number).map(|d| d.wanted.clone()) else { return };
    let name = wanted.name.clone();
    let taken = reopen(switch, number, wanted).await;
    let up = {
        let s = &mut *switch.borrow_mut();
        let Some(device) = s.devices.map.get_mut(&number) else { return };
        if let Err(e) = taken {
            let pause = device.presence.failed(Instant::now());
            tracing::error!(
                "port {name}: its {} is back and cannot be used: {e:#}; next try in {pause:?}",
                device.watched
            );
            return;
        }
        device.presence.opened();
        device.link_up = !device.link_counts || device.look_at_link();
        device.link_up
    };
    Switch::settled(switch).await;
    tracing::info!(up, "port {name}: its device is back and in use again");
    switch.borrow_mut().input(Input::PortLink { port: number, up });
}

async fn reopen(switch: &Shared, number: PortIdx, wanted: Wanted) -> anyhow::Result<()> {
    let (workers, pool, mac, mut watched) = {
        let s = switch.borrow();
        let device = s.devices.get(number).context("the port was removed")?;
        let keeps = !wanted.is_access;
        (s.workers.len(), s.pool.clone(), keeps.then_some(device.mac), device.watched.clone())
    };
    watched.note(&switch.borrow().interfaces);
    if let (Some(mac), Watched::Interface { name, .. }) = (mac, &watched) {
        // Neighbors know the uplink by it.
        kernel::set_address(name, mac).await?;
    }
    let opening = tokio::task::spawn_blocking(move || {
        let opened = open(&wanted, workers, pool);
        (wanted, opened)
    });
    let (wanted, opened) = opening.await.context("opening the device failed")?;
    let opened = opened?;
    let other = mac.filter(|mac| *mac != opened.mac());
    if let Some(mac) = other {
        let is = opened.mac();
        let Opened { port, rx, tx, .. } = opened;
        drop((rx, tx));
        tokio::task::spawn_blocking(move || port.close()).await.context("closing the device failed")??;
        bail!("it has the address {is}, and the uplink's is {mac}; give it that one again");
    }
    // Of an interface it is the number before it was opened that counts; what else there is is known of the new one.
    let watched = if matches!(watched, Watched::Interface { .. }) { watched } else { opened.watched.clone() };
    attach_again(&mut switch.borrow_mut(), number, &wanted, Opened { watched, ..opened })
}

/// Hands the queues of a device that is back to the workers.
fn attach_again(switch: &mut Switch, number: PortIdx, wanted: &Wanted, opened: Opened) -> anyhow::Result<()> {
    let placed = ports::place(switch, wanted, number, &opened.port, opened.rx.len() as u16)?;
    let offloads = ports::receive_offloads(switch, wanted, &opened)?;
    let Opened { port, rx, tx, watched, .. } = opened;
    let guests_queues = port.is_vhost();
    {
        let device = switch.devices.map.get_mut(&number).context("the port was removed")?;
        device.polled_by = (0..).zip(placed.iter().copied()).collect();
        device.receive_offloads = offloads.clone();
        device.mtu = port.mtu();
        device.port = Some(port);
        device.watched = watched;
    }
    let (sent_by, in_use) = ports::attach_tx(switch, number, &placed, tx, offloads.as_ref(), guests_queues);
    if let Some(device) = switch.devices.map.get_mut(&number) {
        (device.sent_by, device.in_use) = (sent_by, in_use);
    }
    let workers: WorkerSet = placed.iter().copied().collect();
    switch.input(Input::PortWorkers { port: number, workers });
    for ((queue, &worker), rx) in (0..).zip(&placed).zip(rx) {
        switch.workers[worker].order(Command::AttachRx { port: number, queue, rx });
    }
    Ok(())
}

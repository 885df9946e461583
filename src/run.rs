//! The control loop: everything that happens to the switch after its start comes by here.

use std::sync::atomic::Ordering;
use std::time::Duration;

use godwit_api::v1::AdminResponse;
use godwit_control::Input;
use godwit_nva_client::{NvaClient, SessionConfig, SessionEvent};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::admin::orders::{self, Origin};
use crate::admin::{self, Order};
use crate::config::Config;
use crate::kernel::{Table, Watch};
use crate::switch::{Shared, Switch};
use crate::{start, underlay};

/// How often control looks at the workers' queues; bounds the time from a VM's announcement to its claim.
const POLL: Duration = Duration::from_millis(1);
/// How often it asks the devices for their links, beside what drivers tell.
const LINKS: Duration = Duration::from_millis(100);
/// Orders that may wait.
const ORDERS: usize = 64;

/// Runs a switch until it gets SIGINT or SIGTERM.
///
/// # Errors
/// What kept it from starting.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let socket_path = config.nve.admin_socket();
    let (order_tx, order_rx) = mpsc::channel(ORDERS);
    // The socket comes first: a second switch of this name must not get as far as the devices.
    let socket = admin::serve(&socket_path, order_tx)?;
    let nva = config.nve.nva.clone();
    let switch = start::start(config).await?;
    let client = nva.map(|url| NvaClient::spawn(SessionConfig::new(url)));
    tracing::info!(nve = %switch.borrow().config.nve.id, socket = %socket_path.display(), "ready");
    let kernel = underlay::watch_kernel(&switch.borrow());
    let ended = match kernel {
        Ok(kernel) => control(&switch, client, kernel, order_rx).await,
        Err(e) => Err(e),
    };
    // However it ended: devices close, and leave no socket, once the workers let go of them.
    tracing::info!("stopping");
    Switch::stop(switch).await;
    drop(socket);
    ended
}

fn every(period: Duration) -> Interval {
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

async fn control(
    switch: &Shared,
    mut client: Option<NvaClient>,
    mut kernel: Option<Watch>,
    mut orders: mpsc::Receiver<Order>,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (mut poll, mut links) = (every(POLL), every(LINKS));
    let (reply_tx, mut replies) = mpsc::channel(ORDERS);
    loop {
        let behind = switch.borrow().is_behind();
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            Some((id, response)) = replies.recv() => {
                if let Some(client) = &mut client {
                    client.reply(id, response);
                }
            }
            Some(order) = orders.recv() => take_order(switch, order),
            table = next_routes(&mut kernel) => underlay::take_kernel(&mut switch.borrow_mut(), table),
            _ = links.tick() => switch.borrow_mut().poll_links(),
            // After what is rare and short: an NVA with much to say keeps no operator waiting.
            event = next_event(&mut client), if !behind => on_session(switch, &reply_tx, event),
            _ = poll.tick() => {}
        }
        let mut s = switch.borrow_mut();
        if s.links_changed.swap(false, Ordering::AcqRel) {
            s.poll_links();
        }
        s.poll_workers();
        s.run_timers();
        let messages = s.take_to_nva();
        if let Some(client) = &mut client {
            messages.into_iter().for_each(|m| client.send(m));
        }
    }
}

/// Waits for the session's next event; forever where there is no NVA.
async fn next_event(client: &mut Option<NvaClient>) -> SessionEvent {
    match client {
        Some(client) => client.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits for the kernel's routes to change; forever where nobody watches them.
async fn next_routes(kernel: &mut Option<Watch>) -> Table {
    match kernel {
        Some(kernel) => kernel.recv().await,
        None => std::future::pending().await,
    }
}

fn on_session(switch: &Shared, replies: &mpsc::Sender<(u64, AdminResponse)>, event: SessionEvent) {
    match event {
        SessionEvent::Connected => switch.borrow_mut().input(Input::NvaConnected),
        SessionEvent::Lost { why } => {
            tracing::warn!("the NVA is away, what is known stays in use: {why}");
            switch.borrow_mut().input(Input::NvaLost);
        }
        SessionEvent::Message(message) => switch.borrow_mut().input(Input::Nva(message)),
        SessionEvent::AdminOrder { id, request } => {
            let (switch, replies) = (switch.clone(), replies.clone());
            tokio::task::spawn_local(async move {
                // With the switch gone nobody waits for the answer.
                let _ = replies.send((id, orders::answer(&switch, Origin::Relayed, request).await)).await;
            });
        }
    }
}

fn take_order(switch: &Shared, order: Order) {
    let switch = switch.clone();
    tokio::task::spawn_local(async move {
        // Who asked may have hung up; the order is carried out all the same.
        let _ = order.answer.send(orders::answer(&switch, Origin::Local, order.request).await);
    });
}

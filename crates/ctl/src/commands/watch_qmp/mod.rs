//! `godwitctl watch-qmp`: tells the switch how the VM on a port is, as its QEMU tells it.

mod guest;
mod qmp;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use serde::Serialize;
use serde_json::{Value, json};

use self::guest::{Event, Guest, Order};
use self::qmp::{Qmp, QmpError};
use super::port::NveArg;
use crate::context::{Context, Report};
use crate::failure::{Failure, Kind};
use crate::parse;

/// Pause before a QEMU or a switch that is away is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Pause before orders that no switch was there for are given again.
const REPEAT: Duration = Duration::from_secs(1);
/// Orders that wait for their switch; beyond it the oldest one is forgotten.
const MAX_OWED: usize = 32;

/// Arguments of `watch-qmp`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
It follows STOP, RESUME, MIGRATION, SHUTDOWN, RESET, POWERDOWN and GUEST_PANICKED, prints what it orders, and ends
with code 0 when QEMU has ended. QEMU serves one client of a control socket at a time: give it one of its own.
The move itself is ordered at the NVA (`godwitctl vm move`) before QEMU begins to migrate.

Examples:
  qemu-system-x86_64 ... -qmp unix:/run/web1.qmp,server=on,wait=off
  godwitctl --socket /run/godwit/nve-a.sock watch-qmp /run/web1.qmp --port web1
  godwitctl watch-qmp /run/web1.qmp --port web1 --nve nve-a --json")]
pub struct WatchQmpArgs {
    /// QEMU's control socket (-qmp unix:PATH,server=on,wait=off).
    #[arg(value_name = "SOCKET")]
    qmp: PathBuf,
    /// The port that the VM is on.
    #[arg(long, value_name = "PORT", value_parser = parse::name)]
    port: String,
    /// How long to wait for QEMU to come up, in seconds.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = parse::seconds)]
    wait: Duration,
    #[command(flatten)]
    target: NveArg,
}

/// What was heard, and what was done about it.
#[derive(Serialize)]
struct Line {
    /// Microseconds since 1970.
    at_us: u64,
    /// QEMU's event, or what else was seen of it.
    event: String,
    /// What belongs to it.
    #[serde(skip_serializing_if = "Value::is_null")]
    data: Value,
    /// What the switch was told: pause, or a state; null for nothing.
    order: Option<String>,
    /// The switch carried it out; null where there was no order.
    done: Option<bool>,
    /// What it said.
    text: String,
}

impl Report for Line {
    fn text(&self) -> String {
        let when = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_micros(self.at_us));
        let status =
            self.data.get("status").and_then(Value::as_str).map(|s| format!(" {s}")).unwrap_or_default();
        format!("{when}  {}{status}: {}\n", self.event, self.text)
    }
}

/// The switch's end of it.
struct Switch {
    port: String,
    target: NveArg,
}

impl Switch {
    /// Gives an order; tries again while the switch cannot be reached, as long as `--timeout` allows.
    async fn order(&self, order: Order, ctx: &Context<'_>) -> Result<String, Failure> {
        let give_up = Instant::now() + ctx.link.timeout();
        loop {
            match self.once(order, ctx).await {
                Err(f) if f.kind == Kind::Unreachable && Instant::now() < give_up => {
                    tokio::time::sleep(RETRY).await;
                }
                result => return result,
            }
        }
    }

    async fn once(&self, order: Order, ctx: &Context<'_>) -> Result<String, Failure> {
        let ask = match order {
            Order::Pause => Ask::PausePort(v1::PausePort { name: self.port.clone(), move_id: String::new() }),
            Order::Activate => Ask::ActivatePort(v1::ActivatePort { name: self.port.clone() }),
            Order::State(state) => {
                Ask::SetVmState(v1::SetVmState { port: self.port.clone(), state: state as i32 })
            }
        };
        ctx.link.nve(self.target.nve.as_deref()).await?.ask(ask).await?;
        Ok(match order {
            Order::Pause => format!("port {} holds what arrives", self.port),
            Order::Activate => format!("port {} is activated", self.port),
            Order::State(state) => format!("port {} has a VM that is {state}", self.port),
        })
    }
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// What the switch is to be told, in order; each with what QEMU told.
#[derive(Default)]
struct Owed(VecDeque<(Event, Order)>);

impl Owed {
    fn add(&mut self, event: &Event, orders: Vec<Order>) {
        self.0.extend(orders.into_iter().map(|order| (event.clone(), order)));
        while self.0.len() > MAX_OWED {
            self.0.pop_front();
        }
    }
}

fn line(event: &Event, order: Option<Order>, done: Option<bool>, text: String) -> Line {
    let order = order.map(|o| match o {
        Order::Pause => "pause".into(),
        Order::Activate => "activate".into(),
        Order::State(state) => state.to_string(),
    });
    Line { at_us: now_us(), event: event.name.clone(), data: event.data.clone(), order, done, text }
}

/// Gives orders and prints each, or that there is none. What no switch is there for is owed.
async fn carry_out(
    switch: &Switch,
    event: &Event,
    orders: Vec<Order>,
    (guest, owed): (&mut Guest, &mut Owed),
    ctx: &mut Context<'_>,
) -> Result<(), Failure> {
    if orders.is_empty() {
        return ctx.show_one_of_many(&line(event, None, None, "nothing to tell".into()));
    }
    let waited = !owed.0.is_empty();
    owed.add(event, orders);
    pay(switch, !waited, (guest, owed), ctx).await
}

/// Gives the orders that are owed, as far as the switch is there; `patient`: it is waited for, and said if that is in
/// vain.
async fn pay(
    switch: &Switch,
    patient: bool,
    (guest, owed): (&mut Guest, &mut Owed),
    ctx: &mut Context<'_>,
) -> Result<(), Failure> {
    while let Some((event, order)) = owed.0.front().cloned() {
        let answer = if patient { switch.order(order, ctx).await } else { switch.once(order, ctx).await };
        let line = match answer {
            Ok(text) => {
                guest.taken(order);
                line(&event, Some(order), Some(true), text)
            }
            Err(f) if f.kind == Kind::Unreachable => {
                if patient {
                    let text = format!("NOT TOLD, tried again: {}", f.text);
                    ctx.show_one_of_many(&line(&event, Some(order), Some(false), text))?;
                }
                return Ok(());
            }
            // The next word may be taken; where the port is gone, its manager knows.
            Err(f) => {
                guest.refused(order);
                line(&event, Some(order), Some(false), format!("NOT TOLD: {}", f.text))
            }
        };
        owed.0.pop_front();
        ctx.show_one_of_many(&line)?;
    }
    Ok(())
}

/// The next thing that QEMU tells; nothing where orders are owed and it is time to try again.
async fn next(qmp: &mut Qmp, owed: &Owed) -> Result<Option<Value>, QmpError> {
    if owed.0.is_empty() {
        return qmp.event().await.map(Some);
    }
    // A call that is dropped loses nothing.
    tokio::time::timeout(REPEAT, qmp.event()).await.map_or(Ok(None), |told| told.map(Some))
}

/// Connects and looks how the guest is.
async fn connect(args: &WatchQmpArgs, guest: &mut Guest) -> Result<(Qmp, Event, Vec<Order>), QmpError> {
    let mut qmp = Qmp::connect(&args.qmp).await?;
    let able = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    // Refused while a migration is under way: its STOP and RESUME are heard all the same.
    match qmp.execute("migrate-set-capabilities", able).await {
        Ok(_) | Err(QmpError::Refused { .. }) => {}
        Err(e) => return Err(e),
    }
    let status = word(&qmp.execute("query-status", json!({})).await?);
    let migration = word(&qmp.execute("query-migrate", json!({})).await?);
    let orders = guest.found(&status, &migration);
    let data = json!({ "status": status, "migration": migration });
    Ok((qmp, Event { name: "connected".into(), data }, orders))
}

fn word(answer: &Value) -> String {
    answer.get("status").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Connects as soon as QEMU is there; nothing where it is not within `patience`.
async fn find(
    args: &WatchQmpArgs,
    guest: &mut Guest,
    patience: Duration,
) -> Result<Option<(Qmp, Event, Vec<Order>)>, Failure> {
    let give_up = Instant::now() + patience;
    loop {
        match connect(args, guest).await {
            Ok(found) => return Ok(Some(found)),
            Err(QmpError::Gone(_)) if Instant::now() < give_up => tokio::time::sleep(RETRY).await,
            Err(QmpError::Gone(_)) => return Ok(None),
            Err(e) => return Err(Failure::refused(format!("{}: {e}", args.qmp.display()))),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Where there is no QEMU, or no NVE is named.
pub async fn run(args: WatchQmpArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let switch = Switch { port: args.port.clone(), target: args.target.clone() };
    // A wrong command line is told at once.
    if !ctx.link.goes_by_socket(args.target.nve.as_deref()) && args.target.nve.is_none() {
        ctx.link.nve(None).await?;
    }
    let (mut guest, mut owed) = (Guest::default(), Owed::default());
    let mut patience = args.wait;
    let mut known = false;
    while let Some((mut qmp, event, orders)) = find(&args, &mut guest, patience).await? {
        carry_out(&switch, &event, orders, (&mut guest, &mut owed), ctx).await?;
        // A socket that was closed by QEMU's end is not served again.
        (known, patience) = (true, RETRY * 3);
        loop {
            match next(&mut qmp, &owed).await {
                Ok(None) => pay(&switch, false, (&mut guest, &mut owed), ctx).await?,
                Ok(Some(message)) => {
                    if let Some(event) = Event::of(&message).filter(Event::matters) {
                        let orders = guest.told(&event);
                        carry_out(&switch, &event, orders, (&mut guest, &mut owed), ctx).await?;
                    }
                }
                Err(QmpError::Gone(_)) => break,
                Err(e) => return Err(Failure::refused(format!("{}: {e}", args.qmp.display()))),
            }
        }
    }
    if !known {
        let text = format!("no QEMU answers at {} within {} s", args.qmp.display(), args.wait.as_secs_f64());
        return Err(Failure::unreachable(text).remedy("start it with -qmp unix:PATH,server=on,wait=off"));
    }
    let event = Event { name: "gone".into(), data: Value::Null };
    let orders = guest.gone();
    carry_out(&switch, &event, orders, (&mut guest, &mut owed), ctx).await
}

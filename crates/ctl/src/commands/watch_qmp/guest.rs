//! What a QEMU tells, and what follows from it for the port of its guest. Pure: events in, orders out.
//!
//! | QEMU tells | The switch is told |
//! |---|---|
//! | it runs | `running` |
//! | STOP, no migration under way | `paused`: what arrives is held |
//! | MIGRATION active, on the way out | `migrating` |
//! | STOP during that | pause: what arrives is held for the move |
//! | RESUME, at either end | `running`: activate and claim; after a pause, go on |
//! | RESUME while a migration is on its way out | `running`, `migrating`: it was stopped for something else |
//! | RESUME after a crash (reset and continued) | activate, `running`: nothing else may follow `crashed` |
//! | MIGRATION failed or cancelled, and it never stopped | `running` |
//! | MIGRATION completed, and QEMU ends | `shutdown` (the VM is elsewhere) |
//! | SHUTDOWN | `shuttingdown`, `shutdown`; while paused `crashed`, since nothing else may follow |
//! | GUEST_PANICKED, and it does not go on; QEMU is gone without a word | `crashed` |
//! | RESET, POWERDOWN, anything else | nothing |

use godwit_model::OperState;
use serde_json::Value;

/// An order to the switch about the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Hold what arrives, for the move that is under way.
    Pause,
    /// The VM runs on the port, whatever was said of it before.
    Activate,
    /// How the VM is.
    State(OperState),
}

/// Something that QEMU told unasked.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// What belongs to it.
    pub data: Value,
}

impl Event {
    /// An event, of a message of QEMU's; nothing for other messages.
    pub fn of(message: &Value) -> Option<Event> {
        let name = message.get("event")?.as_str()?.to_owned();
        Some(Event { name, data: message.get("data").cloned().unwrap_or_default() })
    }

    /// It is of the guest's life; QEMU tells of much else.
    pub fn matters(&self) -> bool {
        const NAMES: [&str; 7] =
            ["STOP", "RESUME", "MIGRATION", "SHUTDOWN", "RESET", "POWERDOWN", "GUEST_PANICKED"];
        NAMES.contains(&self.name.as_str())
    }

    fn text(&self, key: &str) -> &str {
        self.data.get(key).and_then(Value::as_str).unwrap_or_default()
    }
}

/// How far a migration out of this QEMU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaving {
    No,
    UnderWay,
    /// The guest runs at its new place.
    Completed,
}

/// The guest of one QEMU as far as its events tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guest {
    /// It is yet to come in: its migration is none of this QEMU's own.
    incoming: bool,
    stopped: bool,
    leaving: Leaving,
    /// The switch holds what arrives.
    held: bool,
    /// What the switch is to know.
    said: Option<OperState>,
    /// What it has taken.
    taken: Option<OperState>,
}

impl Default for Guest {
    fn default() -> Guest {
        Guest { incoming: false, stopped: false, leaving: Leaving::No, held: false, said: None, taken: None }
    }
}

impl Guest {
    /// The connection is made, or made again: QEMU's answers to `query-status` and `query-migrate` (empty for none).
    pub fn found(&mut self, status: &str, migration: &str) -> Vec<Order> {
        self.incoming = status == "inmigrate";
        self.stopped = status != "running";
        self.leaving = match migration {
            "completed" if status == "postmigrate" => Leaving::Completed,
            _ if self.incoming => Leaving::No,
            _ => self.after_migration_event(migration),
        };
        match status {
            // The first word may be any.
            "running" if self.leaving == Leaving::UnderWay && self.said.is_none() => {
                self.say(OperState::Migrating)
            }
            "running" => self.runs(),
            "paused" => self.stop(),
            "finish-migrate" => {
                self.leaving = Leaving::UnderWay;
                self.stop()
            }
            "guest-panicked" => self.say(OperState::Crashed),
            "shutdown" => self.shut_down(),
            // It has not begun, or it is elsewhere.
            _ => Vec::new(),
        }
    }

    /// QEMU told something.
    pub fn told(&mut self, event: &Event) -> Vec<Order> {
        match event.name.as_str() {
            "STOP" => {
                let was = std::mem::replace(&mut self.stopped, true);
                if was { Vec::new() } else { self.stop() }
            }
            "RESUME" => {
                (self.stopped, self.incoming) = (false, false);
                if self.leaving == Leaving::Completed {
                    self.leaving = Leaving::No;
                }
                self.runs()
            }
            "MIGRATION" => self.migration(event.text("status")),
            "SHUTDOWN" => self.shut_down(),
            "GUEST_PANICKED" if event.text("action") != "run" => self.say(OperState::Crashed),
            _ => Vec::new(),
        }
    }

    /// QEMU is gone.
    pub fn gone(&mut self) -> Vec<Order> {
        match (self.leaving, self.said) {
            (Leaving::Completed, _) => self.shut_down(),
            (_, None | Some(OperState::Shutdown)) => Vec::new(),
            _ => self.say(OperState::Crashed),
        }
    }

    /// The switch has taken an order.
    pub fn taken(&mut self, order: Order) {
        match order {
            Order::State(state) => self.taken = Some(state),
            Order::Activate => self.taken = None,
            Order::Pause => {}
        }
    }

    /// The switch has refused an order, which counts as not said: it is given again when there is an occasion.
    pub fn refused(&mut self, order: Order) {
        match order {
            Order::Pause => self.held = false,
            Order::State(state) if self.said == Some(state) => self.said = self.taken,
            Order::State(_) | Order::Activate => {}
        }
    }

    /// Its processors run.
    fn runs(&mut self) -> Vec<Order> {
        let leaves = self.leaving == Leaving::UnderWay;
        let held = std::mem::take(&mut self.held);
        if leaves && !held && self.said == Some(OperState::Migrating) {
            return Vec::new();
        }
        // After a pause for a move the same word has something to say.
        if held && self.said == Some(OperState::Running) {
            self.said = None;
        }
        let crashed = self.said == Some(OperState::Crashed);
        let mut orders: Vec<Order> = crashed.then_some(Order::Activate).into_iter().collect();
        orders.extend(self.say(OperState::Running));
        if leaves {
            orders.extend(self.say(OperState::Migrating));
        }
        orders
    }

    fn migration(&mut self, status: &str) -> Vec<Order> {
        if self.incoming {
            return Vec::new();
        }
        let before = self.leaving;
        self.leaving = self.after_migration_event(status);
        match (before, self.leaving) {
            (Leaving::No, Leaving::UnderWay) if !self.stopped => self.say(OperState::Migrating),
            // A guest that is paused migrates, too; its state stays.
            (Leaving::UnderWay | Leaving::Completed, Leaving::No) if !self.stopped => self.runs(),
            _ => Vec::new(),
        }
    }

    fn after_migration_event(&self, status: &str) -> Leaving {
        match status {
            "active" | "pre-switchover" | "device" | "postcopy-active" | "postcopy-paused"
            | "postcopy-recover" => Leaving::UnderWay,
            // One that came in is completed after it runs here.
            "completed" if self.leaving == Leaving::UnderWay => Leaving::Completed,
            "completed" => self.leaving,
            // Until it is cancelled, it goes on.
            "cancelling" | "setup" | "wait-unplug" => self.leaving,
            _ => Leaving::No,
        }
    }

    /// Its processors stand still.
    fn stop(&mut self) -> Vec<Order> {
        if self.leaving == Leaving::UnderWay {
            if self.said == Some(OperState::Paused) || std::mem::replace(&mut self.held, true) {
                return Vec::new();
            }
            return vec![Order::Pause];
        }
        // QEMU stops its processors as it shuts down, and waits with a guest that came in stopped.
        let over = matches!(self.said, Some(OperState::Shutdown | OperState::Crashed));
        if self.incoming || over || self.leaving == Leaving::Completed {
            return Vec::new();
        }
        self.say(OperState::Paused)
    }

    /// Nobody is executed here any more, in words that may follow what was said.
    fn shut_down(&mut self) -> Vec<Order> {
        match self.said {
            // It never ran here.
            None if self.incoming || self.leaving == Leaving::Completed => Vec::new(),
            Some(OperState::Crashed) => Vec::new(),
            Some(OperState::Paused) => self.say(OperState::Crashed),
            Some(OperState::Migrating | OperState::Shutdown) => self.say(OperState::Shutdown),
            _ => [self.say(OperState::ShuttingDown), self.say(OperState::Shutdown)].concat(),
        }
    }

    fn say(&mut self, state: OperState) -> Vec<Order> {
        if self.said.replace(state) == Some(state) { Vec::new() } else { vec![Order::State(state)] }
    }
}

#[cfg(test)]
mod tests {
    use OperState::{Crashed, Migrating, Paused, Running, Shutdown, ShuttingDown};
    use serde_json::json;

    use super::*;

    fn event(name: &str) -> Event {
        Event { name: name.into(), data: Value::Null }
    }

    fn migration(status: &str) -> Event {
        Event { name: "MIGRATION".into(), data: json!({ "status": status }) }
    }

    /// A guest that runs, and that the switch knows of.
    fn running() -> Guest {
        let mut guest = Guest::default();
        assert_eq!(guest.found("running", ""), [Order::State(Running)]);
        guest
    }

    fn all(guest: &mut Guest, events: &[Event]) -> Vec<Order> {
        events.iter().flat_map(|e| guest.told(e)).collect()
    }

    #[test]
    fn r49_a_migration_out_is_announced_held_and_over() {
        let mut guest = running();
        let events = ["setup", "active", "device"].map(migration);
        assert_eq!(all(&mut guest, &events), [Order::State(Migrating)]);
        assert_eq!(guest.told(&event("STOP")), [Order::Pause]);
        assert_eq!(all(&mut guest, &[migration("completed")]), []);
        assert_eq!(guest.gone(), [Order::State(Shutdown)]);
    }

    #[test]
    fn r49_a_guest_that_came_in_runs_when_it_resumes_and_not_before() {
        let mut guest = Guest::default();
        assert_eq!(guest.found("inmigrate", ""), []);
        assert_eq!(all(&mut guest, &["setup", "active"].map(migration)), []);
        assert_eq!(guest.told(&event("RESUME")), [Order::State(Running)]);
        assert_eq!(guest.told(&migration("completed")), [], "QEMU says so after it runs");
        assert_eq!(all(&mut guest, &[event("STOP"), event("RESUME")]), [Paused, Running].map(Order::State));
        assert_eq!(guest.told(&migration("active")), [Order::State(Migrating)], "it moves on");
    }

    #[test]
    fn r49_a_guest_that_never_came_in_is_said_nothing_of() {
        let mut guest = Guest::default();
        assert_eq!(guest.found("inmigrate", ""), []);
        assert_eq!(all(&mut guest, &[migration("failed"), event("SHUTDOWN")]), []);
        assert_eq!(guest.gone(), []);
    }

    #[test]
    fn r49_a_migration_that_fails_leaves_the_guest_running_here() {
        for end in ["failed", "cancelled"] {
            let mut guest = running();
            let out = [migration("active"), migration(end)];
            assert_eq!(
                all(&mut guest, &out),
                [Order::State(Migrating), Order::State(Running)],
                "not stopped"
            );
            let out = [migration("active"), event("STOP"), migration(end), event("RESUME")];
            let orders = [Order::State(Migrating), Order::Pause, Order::State(Running)];
            assert_eq!(all(&mut guest, &out), orders, "stopped");
        }
    }

    #[test]
    fn r49_a_guest_that_is_stopped_and_goes_on_in_the_midst_of_its_migration_still_leaves() {
        let mut guest = running();
        let out = [migration("active"), event("STOP"), event("RESUME")];
        let orders = [Order::State(Migrating), Order::Pause, Order::State(Running), Order::State(Migrating)];
        assert_eq!(all(&mut guest, &out), orders);
        assert_eq!(guest.told(&event("RESUME")), [], "said");
        let out = [event("STOP"), migration("device"), migration("completed")];
        assert_eq!(all(&mut guest, &out), [Order::Pause], "held for the move");
        assert_eq!(guest.gone(), [Order::State(Shutdown)], "it is elsewhere, and has not crashed");
    }

    #[test]
    fn r16_a_guest_that_crashed_runs_again_by_an_order_that_nothing_said_before_stands_against() {
        let mut guest = running();
        let panic = Event { name: "GUEST_PANICKED".into(), data: json!({ "action": "pause" }) };
        let out = [panic, event("STOP"), event("RESET"), event("RESUME"), event("RESUME")];
        assert_eq!(all(&mut guest, &out), [Order::State(Crashed), Order::Activate, Order::State(Running)]);
    }

    #[test]
    fn r16_what_the_switch_refused_is_said_again_when_there_is_an_occasion() {
        let mut guest = Guest::default();
        assert_eq!(guest.found("running", ""), [Order::State(Running)]);
        guest.refused(Order::State(Running));
        assert_eq!(guest.found("running", ""), [Order::State(Running)], "not taken, so not said");
        guest.taken(Order::State(Running));
        assert_eq!(guest.found("running", ""), []);
        assert_eq!(guest.told(&event("STOP")), [Order::State(Paused)]);
        guest.refused(Order::State(Paused));
        assert_eq!(guest.told(&event("RESUME")), [], "it runs, as was said");
        // So is a pause for a move.
        assert_eq!(all(&mut guest, &[migration("active"), event("STOP")])[1..], [Order::Pause]);
        guest.refused(Order::Pause);
        assert_eq!(guest.found("finish-migrate", "device"), [Order::Pause]);
    }

    #[test]
    fn r16_a_pause_holds_and_a_resume_goes_on() {
        let mut guest = running();
        let out = [event("STOP"), event("STOP"), event("RESUME"), event("RESUME")];
        assert_eq!(all(&mut guest, &out), [Order::State(Paused), Order::State(Running)]);
    }

    #[test]
    fn r16_a_paused_guest_may_migrate_and_runs_again_where_that_fails() {
        let mut guest = running();
        let out = [event("STOP"), migration("active"), migration("failed"), event("RESUME")];
        assert_eq!(all(&mut guest, &out), [Order::State(Paused), Order::State(Running)]);
    }

    #[test]
    fn r16_shutdown_and_death_are_told_apart() {
        let mut guest = running();
        let out = [event("POWERDOWN"), event("SHUTDOWN"), event("STOP")];
        assert_eq!(all(&mut guest, &out), [Order::State(ShuttingDown), Order::State(Shutdown)]);
        assert_eq!(guest.gone(), [], "that was said");
        assert_eq!(running().gone(), [Order::State(Crashed)]);
        let mut paused = running();
        assert_eq!(
            all(&mut paused, &[event("STOP"), event("SHUTDOWN")]),
            [Paused, Crashed].map(Order::State)
        );
        let panics =
            |action: &str| Event { name: "GUEST_PANICKED".into(), data: json!({ "action": action }) };
        assert_eq!(running().told(&panics("run")), []);
        assert_eq!(running().told(&panics("pause")), [Order::State(Crashed)]);
    }

    #[test]
    fn r16_a_reset_is_no_news() {
        assert_eq!(all(&mut running(), &[event("RESET"), event("RTC_CHANGE"), event("")]), []);
    }

    #[test]
    fn r16_who_comes_late_finds_out() {
        let found = |status: &str, migration: &str| Guest::default().found(status, migration);
        assert_eq!(found("running", "active"), [Order::State(Migrating)]);
        assert_eq!(found("running", "failed"), [Order::State(Running)]);
        assert_eq!(found("paused", ""), [Order::State(Paused)]);
        assert_eq!(found("finish-migrate", "device"), [Order::Pause]);
        assert_eq!(found("postmigrate", "completed"), []);
        assert_eq!(found("prelaunch", ""), []);
        assert_eq!(found("a word of a newer QEMU", "so is this"), []);
    }

    #[test]
    fn r16_only_what_rfc_7666_allows_is_ever_said() {
        let names = ["STOP", "RESUME", "SHUTDOWN", "RESET", "POWERDOWN"].map(event);
        let steps = ["setup", "active", "completed", "failed", "cancelling", "cancelled"].map(migration);
        let words: Vec<Event> = names.into_iter().chain(steps).collect();
        // Every sequence of five.
        for n in 0..words.len().pow(5) {
            let mut guest = running();
            let mut said = Some(Running);
            for place in 0..5 {
                let word = &words[n / words.len().pow(place) % words.len()];
                for order in guest.told(word) {
                    guest.taken(order);
                    match order {
                        Order::State(to) => {
                            // A guest that is reset after its shutdown begins anew, as Shutdown allows.
                            let may = said.is_none_or(|said| said.allows(to));
                            assert!(may, "{said:?} then {to} at {word:?}");
                            said = Some(to);
                        }
                        Order::Activate => said = None,
                        Order::Pause => {}
                    }
                }
            }
        }
    }
}

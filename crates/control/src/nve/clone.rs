//! A switch that may be another one's clone (R96): until the NVA has welcomed it, its uplinks wait, so that it does not
//! answer for a locator that another switch has. They carry the host's frames meanwhile, since the NVA may be reached
//! by them. An NVA that cannot be reached is not waited for; one that refuses the switch is, also where it was
//! reached later.

use godwit_model::Locators;
use godwit_tables::update::{PortIdx, PortRole};
use godwit_wire::{Bucket, Rate, Span};

use crate::io::{Input, Level, Outputs, PortSpec};

use super::{Nve, Timer};

/// How often the same refusal is an alarm.
const ALARMS: Rate = Rate::every(Span::from_ms(60_000), 1);

/// An NVA that is there is waited for so many times as long: after its own restart it decides within 10 s.
const UNDECIDED: u32 = 4;

/// What is known of it.
#[derive(Default, Debug)]
pub(super) struct Suspicion {
    /// Why the NVA refuses this switch.
    pub refusal: Option<String>,
    alarms: Bucket,
    /// Uplinks wait no longer.
    cleared: bool,
    /// How many times more they have waited, for an NVA that is there and has not decided.
    again: u32,
    /// What was said of uplinks meanwhile, in order.
    waiting: Vec<Input>,
    /// The same, once they are used without a welcome.
    unwelcome: Vec<Input>,
    /// They are being put into use: not all locators are known yet.
    pub busy: bool,
}

impl Nve {
    /// The input, unless it is about an uplink that waits.
    pub(super) fn hold_back(&mut self, input: Input, out: &mut Outputs) -> Option<Input> {
        if self.clone.cleared || self.config.locator_guard == Span(0) || !self.is_of_an_uplink(&input) {
            return Some(input);
        }
        if self.clone.waiting.is_empty() {
            self.timers.set(Timer::Guard, Some(self.now + self.config.locator_guard));
        }
        self.for_the_host(&input);
        self.clone.waiting.push(input);
        // The locators may be known by now.
        self.hello(out);
        None
    }

    /// An uplink that waits has no locator, and is else what it will be.
    fn for_the_host(&mut self, input: &Input) {
        match *input {
            Input::PortAdded { port, spec: PortSpec::Uplink(ref spec), .. } => {
                // Where the locators are the loopback's, the link's own addresses are no locators.
                let link = Some(spec).filter(|_| !self.config.locators.is_empty());
                let role = PortRole::Uplink {
                    mac: spec.mac,
                    v4: None,
                    v6: None,
                    link_v4: link.and_then(|s| s.v4).map(|n| n.addr),
                    link_v6: link.and_then(|s| s.v6).map(|n| n.addr),
                    v6_link_local: spec.v6_link_local,
                    exception: spec.exception,
                    vlan: spec.vlan,
                };
                self.desired.set_port(port, role);
            }
            Input::PortAdded { port, spec: PortSpec::Exception { uplink }, .. } => {
                self.desired.set_port(port, PortRole::Exception { uplink });
            }
            Input::PortRemoved { port } => self.desired.remove_port(port),
            _ => {}
        }
    }

    fn is_of_an_uplink(&self, input: &Input) -> bool {
        let waits = |port: PortIdx| {
            self.clone.waiting.iter().any(|i| matches!(i, Input::PortAdded { port: p, .. } if *p == port))
        };
        match input {
            Input::PortAdded { spec: PortSpec::Uplink(_) | PortSpec::Exception { .. }, .. } => true,
            Input::PortLink { port, .. } | Input::PortRemoved { port } => waits(*port),
            Input::UnderlayNeighbor { uplink, .. } => waits(*uplink),
            _ => false,
        }
    }

    /// Locators of uplinks that wait, chosen as the underlay would.
    pub(super) fn waiting_locators(&self) -> Locators {
        let specs = self.clone.waiting.iter().filter_map(|i| match i {
            Input::PortAdded { spec: PortSpec::Uplink(spec), .. } => Some(spec),
            _ => None,
        });
        let loopback = self.config.locators;
        if !loopback.is_empty() && specs.clone().next().is_some() {
            return loopback;
        }
        specs.fold(Locators::default(), |l, spec| Locators {
            v4: l.v4.or(spec.v4.map(|n| n.addr)),
            v6: l.v6.or(spec.v6.map(|n| n.addr)),
        })
    }

    /// The NVA does not answer: the switch goes on without it, unless it was refused.
    pub(super) fn guard_over(&mut self, out: &mut Outputs) {
        if self.clone.refusal.is_some() {
            return;
        }
        if self.session.connected && self.clone.again < UNDECIDED {
            // It waits for the end of an earlier session, or after its own restart for those that had one.
            self.clone.again += 1;
            return self.timers.set(Timer::Guard, Some(self.now + self.config.locator_guard));
        }
        let ms = self.config.locator_guard.as_ms();
        out.note(Level::Warn, format!("no NVA within {ms} ms: the uplinks are used without its welcome"));
        self.clone.unwelcome = self.clone.waiting.clone();
        self.use_uplinks(out);
    }

    pub(super) fn is_no_clone(&mut self, out: &mut Outputs) {
        if self.clone.refusal.take().is_some() {
            out.note(
                Level::Info,
                String::from("the NVA takes this switch now: nobody else has its name and locators"),
            );
        }
        self.clone.unwelcome.clear();
        self.use_uplinks(out);
    }

    fn use_uplinks(&mut self, out: &mut Outputs) {
        self.timers.set(Timer::Guard, None);
        self.clone.cleared = true;
        let waiting = core::mem::take(&mut self.clone.waiting);
        if waiting.is_empty() {
            return;
        }
        // The NVA is told of all locators at once: one that it hears of first would be another place of all VMs here.
        self.clone.busy = true;
        for input in waiting {
            self.take(input, out);
        }
        self.clone.busy = false;
        self.hello(out);
    }

    /// Uplinks that are used without a welcome wait again: who refuses the switch says that they are another one's.
    fn take_uplinks_back(&mut self, out: &mut Outputs) {
        for input in core::mem::take(&mut self.clone.unwelcome) {
            let port = match input {
                Input::PortAdded { port, .. } => port,
                Input::UnderlayNeighbor { uplink, .. } => uplink,
                _ => continue,
            };
            // One that was removed since is gone.
            let known = self.ports.get(&port).map(|p| p.link_up);
            let again = self
                .clone
                .waiting
                .iter()
                .any(|i| matches!(i, Input::PortAdded { port: p, .. } if *p == port));
            if known.is_none() && !again {
                continue;
            }
            self.clone.cleared = false;
            if known.is_some() {
                self.port_removed(port, out);
            }
            self.for_the_host(&input);
            self.clone.waiting.push(input);
            if known == Some(false) {
                self.clone.waiting.push(Input::PortLink { port, up: false });
            }
        }
    }

    /// Another live switch has this one's name or a locator.
    pub(super) fn refused_as_clone(&mut self, text: String, out: &mut Outputs) {
        if self.clone.refusal.as_ref() != Some(&text) {
            self.clone.alarms = Bucket::default();
        }
        if self.clone.alarms.take(ALARMS, self.now) {
            self.alarm(format!("the NVA refuses this switch: {text}"), out);
        }
        self.clone.refusal = Some(text);
        self.take_uplinks_back(out);
    }
}

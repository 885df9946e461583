//! What a switch does with its uplinks until the NVA has welcomed it: another live switch may have its locators (R96).

use std::collections::BTreeMap;

use godwit_control::{Input, Level, Nve, NveConfig, Outputs, PortSpec, UplinkSpec, WorkerSet};
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_tables::update::{PortIdx, PortRole, Update};
use godwit_wire::{Instant, Span};

use crate::lab::{self, UPLINK, nve_id};

const EXCEPTION: PortIdx = PortIdx(7);
const SECOND: PortIdx = PortIdx(8);
const GUARD: Span = Span::from_ms(3000);

/// A switch that has just started, and what its workers know of its ports.
struct Start {
    nve: Nve,
    now: Instant,
    roles: BTreeMap<PortIdx, PortRole>,
    said: Vec<NveToNva>,
    alarms: usize,
}

impl Start {
    fn new() -> Start {
        let config = NveConfig { locator_guard: GUARD, ..NveConfig::new(nve_id(0), 1) };
        let (roles, said) = Default::default();
        let mut start = Start { nve: Nve::new(config), now: Instant(1_000_000_000), roles, said, alarms: 0 };
        start.port(UPLINK, PortSpec::Uplink(UplinkSpec { exception: Some(EXCEPTION), ..lab::uplink(0) }));
        start.port(EXCEPTION, PortSpec::Exception { uplink: UPLINK });
        start
    }

    fn port(&mut self, port: PortIdx, spec: PortSpec) {
        let name = format!("p{}", port.0);
        self.input(Input::PortAdded { port, name, spec, workers: WorkerSet::first(1) });
    }

    fn input(&mut self, input: Input) {
        let mut out = Outputs::default();
        self.nve.handle(self.now, 0, input, &mut out);
        for (_, update) in out.updates {
            match update {
                Update::PortSet { port, role } => drop(self.roles.insert(port, role)),
                Update::PortRemove { port } => drop(self.roles.remove(&port)),
                _ => {}
            }
        }
        self.said.extend(out.to_nva);
        self.alarms += out.notes.iter().filter(|n| n.level == Level::Alarm).count();
    }

    fn pass(&mut self, time: Span) {
        self.now = self.now + time;
        self.input(Input::Tick);
    }

    fn nva(&mut self, message: NvaToNve) {
        self.input(Input::Nva(message));
    }

    /// The workers answer for a locator.
    fn has_locator(&self, port: PortIdx) -> bool {
        matches!(self.roles.get(&port), Some(PortRole::Uplink { v4, v6, .. }) if v4.is_some() || v6.is_some())
    }

    /// The host's frames pass, and nothing answers for a locator.
    fn waits(&self) -> bool {
        let host = matches!(
            self.roles.get(&UPLINK),
            Some(PortRole::Uplink { v4: None, v6: None, exception: Some(EXCEPTION), .. })
        );
        host && self.roles.get(&EXCEPTION) == Some(&PortRole::Exception { uplink: UPLINK })
    }
}

const WELCOME: NvaToNve = NvaToNve::Welcome { epoch: 1, keepalive_ms: 1000 };

fn refused() -> NvaToNve {
    NvaToNve::Refused { text: "NVE n0 has locator 198.18.0.1".into() }
}

#[test]
fn r96_an_uplink_that_waits_carries_the_hosts_frames_so_that_the_nva_can_be_reached_by_it() {
    let mut start = Start::new();
    assert!(start.waits());
    start.pass(Span::from_ms(2900));
    assert!(start.waits());
    start.input(Input::NvaConnected);
    assert!(matches!(&start.said[..], [NveToNva::Hello { locators, .. }] if !locators.is_empty()));
    start.nva(WELCOME);
    assert!(start.has_locator(UPLINK) && start.alarms == 0);
}

#[test]
fn r96_an_nva_that_cannot_be_reached_is_not_waited_for_and_counts_when_it_is_reached_later() {
    let mut start = Start::new();
    start.pass(GUARD);
    assert!(start.has_locator(UPLINK));
    start.input(Input::NvaConnected);
    start.nva(refused());
    assert!(start.waits() && start.alarms == 1, "another live switch has its locator: it gives it back");
    start.pass(Span::from_ms(60_000));
    assert!(start.waits());
    start.nva(WELCOME);
    assert!(start.has_locator(UPLINK));
}

#[test]
fn r96_an_nva_that_has_not_decided_is_waited_for_as_long_as_its_restart_may_take() {
    let mut start = Start::new();
    start.input(Input::NvaConnected);
    for _ in 0..4 {
        start.pass(GUARD);
        assert!(start.waits());
    }
    start.pass(GUARD);
    assert!(start.has_locator(UPLINK), "and no longer");
}

#[test]
fn r96_who_was_welcome_once_keeps_its_uplinks() {
    let mut start = Start::new();
    start.input(Input::NvaConnected);
    start.nva(WELCOME);
    start.input(Input::NvaLost);
    start.input(Input::NvaConnected);
    start.nva(refused());
    assert!(start.has_locator(UPLINK) && start.alarms == 1);
}

#[test]
fn r96_the_nva_hears_of_all_locators_at_once() {
    let mut start = Start::new();
    start.input(Input::PortRemoved { port: UPLINK });
    start.port(UPLINK, PortSpec::Uplink(lab::uplink(0)));
    start.port(SECOND, PortSpec::Uplink(lab::uplink_v6(0)));
    start.input(Input::NvaConnected);
    start.nva(WELCOME);
    let hellos: Vec<_> = start
        .said
        .iter()
        .filter_map(|m| match m {
            NveToNva::Hello { locators, .. } => Some((locators.v4.is_some(), locators.v6.is_some())),
            _ => None,
        })
        .collect();
    assert_eq!(hellos, [(true, true)]);
}

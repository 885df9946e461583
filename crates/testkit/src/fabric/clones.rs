//! Clones: switches that say they are one that is there (R96). Of each there is only its session with the NVA.

use godwit_model::NveId;
use godwit_model::message::{NvaToNve, NveToNva};
use godwit_model::{Identity, Locators};
use godwit_nva::Input as NvaInput;
use godwit_wire::Span;

use super::invariants::Invariant;
use super::names;
use super::world::{Event, World};

/// Gap between two attempts.
const AGAIN: (Span, Span) = (Span::from_ms(50), Span::from_ms(500));

impl World {
    /// It connects and says who it says it is.
    pub fn clone_connects(&mut self, clone: usize) {
        if self.now >= self.traffic_until {
            return;
        }
        if !self.nva.is_up() {
            return self.clone_tries_again(clone);
        }
        let plan = self.plan.clones[clone];
        let conn = self.open_conn(plan.of, Some(clone));
        self.note(|| format!("a clone of n{} connects: session {conn}", plan.of));
        self.nva_hears_session(conn, NvaInput::Connected { address: None, identity: Identity::Unproven });
        let nve = if plan.named { Some(names::nve(plan.of)) } else { NveId::new("clone").ok() };
        let Some(nve) = nve else { return };
        let own = Locators { v4: Some([198, 19, 255, 1].into()), v6: None };
        let uplink = names::uplink(plan.of, self.plan.underlay);
        let its = Locators { v4: uplink.v4.map(|n| n.addr), v6: uplink.v6.map(|n| n.addr) };
        let locators = if plan.elsewhere { own } else { its };
        let instance = u64::MAX - clone as u64;
        self.conn_says(
            conn,
            NveToNva::Hello {
                nve,
                locators,
                software: "a clone".into(),
                last_epoch: 0,
                instance,
                abilities: godwit_model::Abilities::unsaid(),
            },
        );
    }

    pub fn clone_hears(&mut self, conn: usize, clone: usize, message: &NvaToNve) {
        match message {
            NvaToNve::Refused { .. } => {
                self.note(|| format!("clone {clone} hears ({conn}) {message:?}"));
                self.stats.clones_refused += 1;
            }
            NvaToNve::Keepalive => self.conn_says(conn, NveToNva::Keepalive),
            _ => self.fail(Invariant::Session, format!("clone {clone} is told {message:?}")),
        }
    }

    /// Its session has ended.
    pub fn clone_lost(&mut self, conn: usize, clone: usize) {
        (self.conns[conn].cut, self.conns[conn].clone) = (true, None);
        self.clone_tries_again(clone);
    }

    fn clone_tries_again(&mut self, clone: usize) {
        let gap = Span(self.rng.between(AGAIN.0.0, AGAIN.1.0));
        self.after(gap, Event::CloneConnect { clone });
    }
}

//! Which NVEs end their path to a VM's old NVE with a marker (R77): told those that do so themselves.

use godwit_model::NveId;
use godwit_model::message::NvaToNve;

use super::{Directory, SessionId};

impl Directory {
    /// An NVE has said Hello; `before`: it marked in its last session. It and the others are told whatever is news.
    pub(super) fn tell_markers(&mut self, session: SessionId, nve: &NveId, before: bool) {
        let marks = self.nves.get(nve).is_some_and(|n| n.abilities.end_markers);
        if marks {
            let others = self.nves.iter().filter(|(id, n)| *id != nve && n.abilities.end_markers);
            let nves: Vec<NveId> = others.map(|(id, _)| id.clone()).collect();
            self.send(session, NvaToNve::EndMarkers { reset: true, nves, gone: Vec::new() });
        }
        if marks == before {
            return;
        }
        let (nves, gone) =
            if marks { (vec![nve.clone()], Vec::new()) } else { (Vec::new(), vec![nve.clone()]) };
        let others = self.nves.iter().filter(|(id, n)| *id != nve && n.abilities.end_markers);
        let sessions: Vec<SessionId> = others.filter_map(|(_, n)| n.session).collect();
        for other in sessions {
            let news = NvaToNve::EndMarkers { reset: false, nves: nves.clone(), gone: gone.clone() };
            self.send(other, news);
        }
    }
}

//! Routing domains of the configuration file (R58).

use std::collections::BTreeSet;

use godwit_model::{Domain, DomainId, StaticRoute, VnRouting};
use godwit_wire::Vni;

use crate::io::Outputs;

use super::Nve;

impl Nve {
    /// The same as what an NVA tells: of the domain, and with the settings of its VNs.
    pub(super) fn static_domain(
        &mut self,
        domain: Domain,
        vns: Vec<(Vni, VnRouting)>,
        routes: &[StaticRoute],
        out: &mut Outputs,
    ) {
        let id = domain.id;
        let was_in: BTreeSet<DomainId> = vns.iter().filter_map(|(vni, _)| self.domain_of(*vni)).collect();
        let touched = self.mirror.set_static_routing(id, vns);
        self.domain_told(domain, true, out);
        self.domain_routes_told(id, routes, &[]);
        self.all_routes_told(id);
        for vni in touched {
            self.sync_routing(vni, out);
        }
        for other in was_in.into_iter().filter(|other| *other != id) {
            self.follow_domain(other, out);
        }
    }
}

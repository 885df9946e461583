//! Routing domains of the configuration file (R58).

use godwit_model::{Domain, StaticRoute, VnRouting};
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
        for (vni, routing) in vns {
            self.mirror.set_static_routing(vni, routing);
        }
        let _ = (domain, routes, out);
    }
}

//! The operator's orders, each with the kind of its answer.

use godwit_model::Subnet;

use super::*;

type Obeyed<T> = Result<(T, Vec<Output>), Refusal>;

impl World {
    /// An order that has no outputs where it is refused. Its entry in the audit log is left out.
    pub fn order<T: TryFrom<Answered, Error = OtherAnswer>>(&mut self, order: Order) -> Obeyed<T> {
        let Reply { answer, outputs } = self.request(Peer::operator(), Input::Order(order));
        let outputs: Vec<Output> = outputs.into_iter().filter(|o| !matches!(o, Output::Audit(_))).collect();
        if answer.is_err() {
            assert_eq!(outputs, [], "a refusal leads to nothing");
        }
        Ok((answer?.try_into().unwrap(), outputs))
    }

    pub fn create_vn(&mut self, vn: VnRecord) -> Obeyed<VnInfo> {
        self.order(Order::CreateVn(vn))
    }

    pub fn set_vn(&mut self, name: &str, changes: VnChanges) -> Obeyed<VnInfo> {
        self.order(Order::SetVn { name: name.into(), changes })
    }

    pub fn delete_vn(&mut self, name: &str) -> Obeyed<VnInfo> {
        self.order(Order::DeleteVn { name: name.into() })
    }

    pub fn add_subnet(&mut self, vn: &str, subnet: Subnet) -> Obeyed<VnInfo> {
        self.order(Order::AddSubnet { vn: vn.into(), subnet })
    }

    pub fn remove_subnet(&mut self, vn: &str, prefix: &str) -> Obeyed<VnInfo> {
        self.order(Order::RemoveSubnet { vn: vn.into(), prefix: prefix.parse().unwrap() })
    }

    pub fn create_domain(&mut self, name: &str) -> Obeyed<DomainInfo> {
        self.order(Order::CreateDomain { name: name.into() })
    }

    pub fn delete_domain(&mut self, name: &str) -> Obeyed<DomainInfo> {
        self.order(Order::DeleteDomain { name: name.into() })
    }

    pub fn add_route(&mut self, domain: &str, prefix: &str, via: &str) -> Obeyed<RouteInfo> {
        let prefix = prefix.parse().unwrap();
        self.order(Order::AddRoute { domain: domain.into(), prefix, via: via.into() })
    }

    pub fn remove_route(&mut self, domain: &str, prefix: &str) -> Obeyed<RouteInfo> {
        self.order(Order::RemoveRoute { domain: domain.into(), prefix: prefix.parse().unwrap() })
    }

    pub fn define_vm(&mut self, definition: VmDefinition) -> Obeyed<VmRecord> {
        self.order(Order::DefineVm(definition))
    }

    pub fn set_vm(&mut self, name: &str, changes: VmChanges) -> Obeyed<VmRecord> {
        self.order(Order::SetVm { name: name.into(), changes })
    }

    pub fn delete_vm(&mut self, name: &str) -> Obeyed<VmRecord> {
        self.order(Order::DeleteVm { name: name.into() })
    }

    pub fn clear_vm(&mut self, name: &str) -> Obeyed<VmRecord> {
        self.order(Order::ClearVm { name: name.into() })
    }

    pub fn define_policy(&mut self, policy: Policy) -> Obeyed<Policy> {
        self.order(Order::DefinePolicy(policy))
    }

    pub fn remove_policy(&mut self, name: &str) -> Obeyed<Policy> {
        self.order(Order::RemovePolicy { name: name.into() })
    }

    pub fn define_nve(&mut self, id: &NveId, locators: Locators) -> Obeyed<NveInfo> {
        self.order(Order::DefineNve { id: id.clone(), locators })
    }

    pub fn delete_nve(&mut self, id: &NveId) -> Obeyed<NveInfo> {
        self.order(Order::DeleteNve { id: id.clone() })
    }

    pub fn allow(&mut self, nve: &str, vns: &[&str], only: bool) -> Obeyed<NveInfo> {
        let vns = VnChoice::Named(vns.iter().map(|v| (*v).to_owned()).collect());
        self.order(Order::AllowNve { id: super::id(nve), vns, only })
    }

    pub fn deny(&mut self, nve: &str, vns: &[&str], force: bool) -> Obeyed<NveInfo> {
        let vns = VnChoice::Named(vns.iter().map(|v| (*v).to_owned()).collect());
        self.order(Order::DenyNve { id: super::id(nve), vns, force })
    }

    pub fn abort_move(&mut self, id: &MoveId) -> Obeyed<MoveRecord> {
        self.order(Order::AbortMove { id: id.clone() })
    }

    pub fn drain_to(&mut self, nve: &str, to: &[&str], parallel: u32) -> Obeyed<DrainInfo> {
        let to = to.iter().map(|nve| super::id(nve)).collect();
        let order = DrainOrder { nve: super::id(nve), to, parallel, accept_interruption: false };
        self.order(Order::DrainNve(order))
    }

    pub fn stop_drain(&mut self, nve: &str) -> Obeyed<DrainInfo> {
        self.order(Order::StopDrain { nve: super::id(nve) })
    }

    pub fn undrain(&mut self, nve: &str) -> Obeyed<DrainInfo> {
        self.order(Order::UndrainNve { nve: super::id(nve) })
    }

    /// A refused departure has a line in the log.
    pub fn vm_departed(
        &mut self,
        name: &str,
        nve: Option<&NveId>,
    ) -> (Result<Departure, Refusal>, Vec<Output>) {
        let order = Order::VmDeparted { name: name.into(), nve: nve.cloned() };
        let Reply { answer, outputs } = self.request(Peer::operator(), Input::Order(order));
        (answer.map(|a| a.try_into().unwrap()), outputs)
    }
}

//! Orders of operators and VM managers.

use std::pin::Pin;
use std::time::{Duration, Instant};

use godwit_api::convert;
use godwit_api::tonic::{self, Request, Response, Status};
use godwit_api::v1::operator_server::Operator;
use godwit_api::{ConvertError, v1};
use godwit_model::{
    Allowed, DomainId, Learning, MoveId, MoveMode, MoveRecord, Multicast, NveId, OnCold, Policy, Unplanned,
    VmRecord, VnSettings,
};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};

use godwit_wire::Instant as Now;

use super::audit::AuditFile;
use super::caller::{self, Caller};
use super::handle::Handle;
use super::{allow, follow, relay};
use crate::directory::{
    Answered, Departure, Directory, DomainInfo, DrainInfo, ListChange, NveInfo, Order, OtherAnswer, Refusal,
    RouteInfo, SharedOwner, VmChanges, VmDefinition, VnChanges, VnInfo, VnRecord,
};

/// How long an NVE may take to answer a relayed request.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Operators {
    handle: Handle,
    audit: follow::Followers,
    started: Instant,
}

impl Operators {
    pub fn new(handle: Handle, audit: Option<AuditFile>) -> Operators {
        Operators { handle, audit: follow::Followers::new(audit), started: Instant::now() }
    }

    /// Gives an order for the caller and waits for its answer.
    async fn order<T: TryFrom<Answered, Error = OtherAnswer>>(&self, order: Order) -> Result<T, Status> {
        self.handle.order(caller::current()?.operator, order).await
    }

    /// Looks at the directory for the caller.
    async fn look<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Directory, Now) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Status> {
        let Caller { operator, call } = caller::current()?;
        self.handle.look(operator, call, query).await
    }
}

type Called<T> = Result<Response<T>, Status>;

fn invalid(e: ConvertError) -> Status {
    Status::invalid_argument(e.to_string())
}

fn vn(info: VnInfo) -> v1::Vn {
    v1::Vn {
        name: info.record.name,
        vni: info.record.vni.get(),
        settings: Some(info.record.settings.into()),
        vms: u32::try_from(info.vms).unwrap_or(u32::MAX),
        members: info.members.iter().map(NveId::to_string).collect(),
        pulling: info.pulling.iter().map(NveId::to_string).collect(),
        routing: info.routing.iter().map(NveId::to_string).collect(),
        domain: info.domain.unwrap_or_default(),
    }
}

fn nve(info: NveInfo) -> v1::NveInfo {
    v1::NveInfo {
        name: info.record.id.to_string(),
        locators: Some(info.record.locators.into()),
        connected: info.connected,
        foreign: info.record.foreign,
        software: info.record.software,
        vms: u32::try_from(info.vms).unwrap_or(u32::MAX),
        vnis: info.vnis.iter().map(|v| v.get()).collect(),
        routing: info.routing.iter().map(|v| v.get()).collect(),
        silent_ms: info.silent_ms,
        dirty: info.dirty,
        instance: info.record.instance,
        drain: info.drain.map_or(0, |phase| v1::DrainPhase::from(phase).into()),
        modes: info.modes.iter().map(|m| v1::MoveMode::from(m).into()).collect(),
        access: Some(allow::access(&info.access)),
        refused: info.refused.map(|r| v1::RefusedNve { text: r.text, count: r.count, ago_ms: r.ago_ms }),
    }
}

fn shared_owner(s: SharedOwner) -> v1::SharedOwner {
    let ip = s.ip.map(convert::ip_bytes).unwrap_or_default();
    v1::SharedOwner { ip, mac: s.mac.to_u64(), vm: s.vm }
}

/// `None` where the field is not set.
fn unplanned(raw: i32) -> Result<Option<Unplanned>, ConvertError> {
    if raw == 0 { Ok(None) } else { convert::unplanned("unplanned", raw).map(Some) }
}

/// As [`unplanned`].
fn multicast(raw: i32) -> Result<Option<Multicast>, ConvertError> {
    if raw == 0 { Ok(None) } else { convert::multicast("multicast", raw).map(Some) }
}

/// As [`unplanned`].
fn on_cold(raw: i32) -> Result<Option<OnCold>, ConvertError> {
    if raw == 0 { Ok(None) } else { convert::on_cold("on_cold", raw).map(Some) }
}

/// `domain`: the number of the routing domain that the request names.
fn vn_changes(p: v1::SetVnRequest, domain: Option<Option<DomainId>>) -> Result<VnChanges, ConvertError> {
    let (learning_v4, learning_v6) = learning(p.learning)?;
    let groups = p.underlay_groups.map(|g| convert::underlay_group(&g.v4, &g.v6)).transpose()?;
    Ok(VnChanges {
        flood_silent: p.flood_silent,
        unplanned: unplanned(p.unplanned)?,
        rarp: p.rarp,
        learning_v4,
        learning_v6,
        multicast: multicast(p.multicast)?,
        underlay_group: groups,
        on_cold: on_cold(p.on_cold)?,
        modes: convert::modes("modes", &p.modes)?,
        domain,
        routed_only: p.routed_only,
    })
}

fn domain(info: DomainInfo) -> v1::DomainInfo {
    v1::DomainInfo {
        id: info.record.id.0,
        name: info.record.name,
        gateway_mac: info.gateway_mac.to_u64(),
        vns: info.vns.into_iter().map(vn).collect(),
        routes: Vec::new(),
        route_count: u32::try_from(info.routes).unwrap_or(u32::MAX),
    }
}

fn route(r: RouteInfo) -> v1::RouteInfo {
    let via = Some(r.via.into());
    v1::RouteInfo { domain: r.domain, prefix: r.prefix.to_string(), via, vm: r.vm, vn: r.vn }
}

fn vn_record(p: v1::Vn) -> Result<VnRecord, Status> {
    Ok(VnRecord {
        vni: convert::vni("vni", p.vni).map_err(invalid)?,
        name: p.name,
        settings: p.settings.map(VnSettings::try_from).transpose().map_err(invalid)?.unwrap_or_default(),
    })
}

fn definition(p: v1::DefineVmRequest) -> Result<VmDefinition, ConvertError> {
    let pinned =
        if p.pinned_nve.is_empty() { None } else { Some(convert::nve_id("pinned_nve", p.pinned_nve)?) };
    Ok(VmDefinition {
        name: p.name,
        vn: p.vn,
        mac: convert::mac("mac", p.mac)?,
        ipv4: p.ipv4.iter().map(|b| convert::ipv4("ipv4", b)).collect::<Result<_, _>>()?,
        ipv6: p.ipv6.iter().map(|b| convert::ipv6("ipv6", b)).collect::<Result<_, _>>()?,
        router: p.router,
        pinned,
        policy: some(p.policy),
        allowed: p.allowed.map(Allowed::try_from).transpose()?.unwrap_or_default(),
    })
}

/// What is to change of whose word binds addresses, by family.
type LearningWords = (Option<Option<Learning>>, Option<Option<Learning>>);

fn learning(p: Option<v1::LearningChange>) -> Result<LearningWords, ConvertError> {
    let v1::LearningChange { v4, v6 } = p.unwrap_or_default();
    Ok((convert::learning_word("learning.v4", v4)?, convert::learning_word("learning.v6", v6)?))
}

fn vm_changes(p: v1::SetVmRequest) -> Result<VmChanges, ConvertError> {
    let (learning_v4, learning_v6) = learning(p.learning)?;
    let (gone, new) = (p.remove.unwrap_or_default(), p.add.unwrap_or_default());
    let v4 = |ips: Vec<Vec<u8>>| ips.iter().map(|b| convert::ipv4("ipv4", b)).collect::<Result<Vec<_>, _>>();
    let v6 = |ips: Vec<Vec<u8>>| ips.iter().map(|b| convert::ipv6("ipv6", b)).collect::<Result<Vec<_>, _>>();
    let prefixes = |field, gone: &[String], new: &[String]| {
        Ok::<_, ConvertError>(ListChange {
            remove: convert::prefixes(field, gone)?,
            add: convert::prefixes(field, new)?,
        })
    };
    let macs = |field, gone: &[u64], new: &[u64]| {
        Ok::<_, ConvertError>(ListChange {
            remove: convert::macs(field, gone)?,
            add: convert::macs(field, new)?,
        })
    };
    Ok(VmChanges {
        router: p.router,
        policy: p.policy.map(some),
        learning_v4,
        learning_v6,
        virtual_ips: prefixes("virtual_ips", &gone.virtual_ips, &new.virtual_ips)?,
        virtual_macs: macs("virtual_macs", &gone.virtual_macs, &new.virtual_macs)?,
        routes: prefixes("routes", &gone.routes, &new.routes)?,
        nested: macs("nested", &gone.nested, &new.nested)?,
        ipv4: ListChange { remove: v4(gone.ipv4)?, add: v4(new.ipv4)? },
        ipv6: ListChange { remove: v6(gone.ipv6)?, add: v6(new.ipv6)? },
    })
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

#[tonic::async_trait]
impl Operator for Operators {
    async fn create_vn(&self, request: Request<v1::Vn>) -> Called<v1::Vn> {
        let mut p = request.into_inner();
        if let Some(name) = some(std::mem::take(&mut p.domain)) {
            // A number is never another domain's, so what follows means the one of this name or none.
            let DomainId(id) = self.look(move |d, _| d.domain_id(&name)).await?;
            p.settings.get_or_insert_default().routing.get_or_insert_default().domain = id;
        }
        let record = vn_record(p)?;
        let info = self.order(Order::CreateVn(record)).await?;
        Ok(Response::new(vn(info)))
    }

    async fn delete_vn(&self, request: Request<v1::VnName>) -> Called<v1::Vn> {
        let name = request.into_inner().name;
        let info = self.order(Order::DeleteVn { name }).await?;
        Ok(Response::new(vn(info)))
    }

    async fn set_vn(&self, request: Request<v1::SetVnRequest>) -> Called<v1::Vn> {
        let mut p = request.into_inner();
        let name = p.name.clone();
        let domain = match p.domain.take().map(some) {
            // As of a new VN.
            Some(Some(of)) => Some(Some(self.look(move |d, _| d.domain_id(&of)).await?)),
            Some(None) => Some(None),
            None => None,
        };
        let changes = vn_changes(p, domain).map_err(invalid)?;
        let info = self.order(Order::SetVn { name, changes }).await?;
        Ok(Response::new(vn(info)))
    }

    async fn list_vns(&self, _: Request<v1::ListVnsRequest>) -> Called<v1::VnList> {
        let vns = self.look(|d, _| Ok(d.vns())).await?;
        Ok(Response::new(v1::VnList { vns: vns.into_iter().map(vn).collect() }))
    }

    async fn add_subnet(&self, request: Request<v1::SubnetOfVn>) -> Called<v1::Vn> {
        let v1::SubnetOfVn { vn: name, subnet } = request.into_inner();
        let subnet = subnet.ok_or_else(|| Status::invalid_argument("subnet: is not set"))?;
        let subnet = subnet.try_into().map_err(invalid)?;
        let info = self.order(Order::AddSubnet { vn: name, subnet }).await?;
        Ok(Response::new(vn(info)))
    }

    async fn remove_subnet(&self, request: Request<v1::RemoveSubnetRequest>) -> Called<v1::Vn> {
        let v1::RemoveSubnetRequest { vn: name, prefix } = request.into_inner();
        let prefix = convert::prefix("prefix", &prefix).map_err(invalid)?;
        let info = self.order(Order::RemoveSubnet { vn: name, prefix }).await?;
        Ok(Response::new(vn(info)))
    }

    async fn create_domain(&self, request: Request<v1::DomainName>) -> Called<v1::DomainInfo> {
        let name = request.into_inner().name;
        let info = self.order(Order::CreateDomain { name }).await?;
        Ok(Response::new(domain(info)))
    }

    async fn delete_domain(&self, request: Request<v1::DomainName>) -> Called<v1::DomainInfo> {
        let name = request.into_inner().name;
        let info = self.order(Order::DeleteDomain { name }).await?;
        Ok(Response::new(domain(info)))
    }

    async fn show_domain(&self, request: Request<v1::DomainName>) -> Called<v1::DomainInfo> {
        let name = request.into_inner().name;
        let look = move |d: &Directory, _| Ok((d.domain_named(&name)?, d.routes(&name)?));
        let (info, routes) = self.look(look).await?;
        let routes = routes.into_iter().map(route).collect();
        Ok(Response::new(v1::DomainInfo { routes, ..domain(info) }))
    }

    async fn list_domains(&self, _: Request<v1::ListDomainsRequest>) -> Called<v1::DomainList> {
        let domains = self.look(|d, _| Ok(d.domains())).await?;
        Ok(Response::new(v1::DomainList { domains: domains.into_iter().map(domain).collect() }))
    }

    async fn add_route(&self, request: Request<v1::AddRouteRequest>) -> Called<v1::RouteInfo> {
        let v1::AddRouteRequest { domain, prefix, via } = request.into_inner();
        let prefix = convert::prefix("prefix", &prefix).map_err(invalid)?;
        let info = self.order(Order::AddRoute { domain, prefix, via }).await?;
        Ok(Response::new(route(info)))
    }

    async fn remove_route(&self, request: Request<v1::RemoveRouteRequest>) -> Called<v1::RouteInfo> {
        let v1::RemoveRouteRequest { domain, prefix } = request.into_inner();
        let prefix = convert::prefix("prefix", &prefix).map_err(invalid)?;
        let info = self.order(Order::RemoveRoute { domain, prefix }).await?;
        Ok(Response::new(route(info)))
    }

    async fn define_vm(&self, request: Request<v1::DefineVmRequest>) -> Called<v1::VmRecord> {
        let def = definition(request.into_inner()).map_err(invalid)?;
        let record: VmRecord = self.order(Order::DefineVm(def)).await?;
        Ok(Response::new(record.into()))
    }

    async fn set_vm(&self, request: Request<v1::SetVmRequest>) -> Called<v1::VmRecord> {
        let p = request.into_inner();
        let name = p.name.clone();
        let changes = vm_changes(p).map_err(invalid)?;
        let record: VmRecord = self.order(Order::SetVm { name, changes }).await?;
        Ok(Response::new(record.into()))
    }

    async fn delete_vm(&self, request: Request<v1::VmName>) -> Called<v1::VmRecord> {
        let name = request.into_inner().name;
        let record: VmRecord = self.order(Order::DeleteVm { name }).await?;
        Ok(Response::new(record.into()))
    }

    async fn list_vms(&self, request: Request<v1::ListVmsRequest>) -> Called<v1::VmList> {
        let vn = some(request.into_inner().vn);
        let list = move |d: &Directory, _| {
            Ok(d.vms(vn.as_deref())?.into_iter().map(|r| v1::VmRecord::from(r.clone())).collect())
        };
        Ok(Response::new(v1::VmList { vms: self.look(list).await? }))
    }

    async fn show_vm(&self, request: Request<v1::VmName>) -> Called<v1::VmRecord> {
        let name = request.into_inner().name;
        let look = move |d: &Directory, _| {
            let record = d.vm_named(&name)?.clone();
            let interested = d.interested(record.key).iter().map(NveId::to_string).collect();
            let shared = d.shared(record.key).into_iter().map(shared_owner).collect();
            Ok(v1::VmRecord { interested, shared, ..record.into() })
        };
        Ok(Response::new(self.look(look).await?))
    }

    async fn clear_vm(&self, request: Request<v1::VmName>) -> Called<v1::VmRecord> {
        let name = request.into_inner().name;
        let record: VmRecord = self.order(Order::ClearVm { name }).await?;
        Ok(Response::new(record.into()))
    }

    async fn vm_departed(&self, request: Request<v1::VmDepartedRequest>) -> Called<v1::VmDepartedReply> {
        let v1::VmDepartedRequest { name, nve } = request.into_inner();
        let nve = some(nve).map(|nve| convert::nve_id("nve", nve)).transpose().map_err(invalid)?;
        let departure: Departure = self.order(Order::VmDeparted { name, nve }).await?;
        let told = u32::try_from(departure.told).unwrap_or(u32::MAX);
        Ok(Response::new(v1::VmDepartedReply { nve: departure.nve.to_string(), told }))
    }

    async fn define_policy(&self, request: Request<v1::Policy>) -> Called<v1::Policy> {
        let policy = request.into_inner().try_into().map_err(invalid)?;
        let policy: Policy = self.order(Order::DefinePolicy(policy)).await?;
        Ok(Response::new(policy.into()))
    }

    async fn remove_policy(&self, request: Request<v1::PolicyName>) -> Called<v1::Policy> {
        let name = request.into_inner().name;
        let policy: Policy = self.order(Order::RemovePolicy { name }).await?;
        Ok(Response::new(policy.into()))
    }

    async fn show_policy(&self, request: Request<v1::PolicyName>) -> Called<v1::Policy> {
        let name = request.into_inner().name;
        let policy = self.look(move |d, _| d.policy(&name).cloned()).await?;
        Ok(Response::new(policy.into()))
    }

    async fn list_policies(&self, _: Request<v1::ListPoliciesRequest>) -> Called<v1::PolicyList> {
        let all = |d: &Directory, _| Ok(d.policies().into_iter().cloned().map(v1::Policy::from).collect());
        Ok(Response::new(v1::PolicyList { policies: self.look(all).await? }))
    }

    async fn define_nve(&self, request: Request<v1::NveDefinition>) -> Called<v1::NveInfo> {
        let p = request.into_inner();
        let id = convert::nve_id("name", p.name).map_err(invalid)?;
        let locators = p.locators.ok_or(Refusal::NoLocator);
        let locators = locators.map_err(|r| Status::invalid_argument(r.to_string()))?;
        let locators = locators.try_into().map_err(invalid)?;
        let info = self.order(Order::DefineNve { id, locators }).await?;
        Ok(Response::new(nve(info)))
    }

    async fn delete_nve(&self, request: Request<v1::NveName>) -> Called<v1::NveInfo> {
        let id = convert::nve_id("name", request.into_inner().name).map_err(invalid)?;
        let info = self.order(Order::DeleteNve { id }).await?;
        Ok(Response::new(nve(info)))
    }

    async fn list_nves(&self, _: Request<v1::ListNvesRequest>) -> Called<v1::NveList> {
        let nves = self.look(|d, now| Ok(d.nves(now))).await?;
        Ok(Response::new(v1::NveList { nves: nves.into_iter().map(nve).collect() }))
    }

    async fn allow_nve(&self, request: Request<v1::AllowNveRequest>) -> Called<v1::NveInfo> {
        let info = self.order(allow::allow(request.into_inner()).map_err(invalid)?).await?;
        Ok(Response::new(nve(info)))
    }

    async fn deny_nve(&self, request: Request<v1::DenyNveRequest>) -> Called<v1::NveInfo> {
        let info = self.order(allow::deny(request.into_inner()).map_err(invalid)?).await?;
        Ok(Response::new(nve(info)))
    }

    type ReadAuditStream = follow::Entries;

    async fn read_audit(&self, request: Request<v1::ReadAuditRequest>) -> Called<Self::ReadAuditStream> {
        self.look(|_, _| Ok(())).await?;
        Ok(Response::new(self.audit.read(request.into_inner())?))
    }

    async fn drain_nve(&self, request: Request<v1::DrainNveRequest>) -> Called<v1::Drain> {
        let order = super::drain::order(request.into_inner()).map_err(invalid)?;
        let info: DrainInfo = self.order(Order::DrainNve(order)).await?;
        Ok(Response::new(super::drain::answer(info)))
    }

    async fn stop_drain(&self, request: Request<v1::NveName>) -> Called<v1::Drain> {
        let nve = convert::nve_id("name", request.into_inner().name).map_err(invalid)?;
        let info: DrainInfo = self.order(Order::StopDrain { nve }).await?;
        Ok(Response::new(super::drain::answer(info)))
    }

    async fn undrain_nve(&self, request: Request<v1::NveName>) -> Called<v1::Drain> {
        let nve = convert::nve_id("name", request.into_inner().name).map_err(invalid)?;
        let info: DrainInfo = self.order(Order::UndrainNve { nve }).await?;
        Ok(Response::new(super::drain::answer(info)))
    }

    async fn show_drain(&self, request: Request<v1::NveName>) -> Called<v1::Drain> {
        let nve = convert::nve_id("name", request.into_inner().name).map_err(invalid)?;
        let info = self.look(move |d, _| d.drain_info(&nve)).await?;
        Ok(Response::new(super::drain::answer(info)))
    }

    async fn start_move(&self, request: Request<v1::StartMoveRequest>) -> Called<v1::MoveRecord> {
        let p = request.into_inner();
        let to = convert::nve_id("to", p.to).map_err(invalid)?;
        // Unset is hot.
        let mode = match p.mode {
            0 => MoveMode::Hot,
            raw => convert::move_mode("mode", raw).map_err(invalid)?,
        };
        let accept = p.accept_interruption;
        let order = Order::StartMove { vm: p.vm, to, mode, id: p.id, accept };
        let record: MoveRecord = self.order(order).await?;
        Ok(Response::new(record.into()))
    }

    async fn report_move(&self, request: Request<v1::ReportMoveRequest>) -> Called<v1::MoveRecord> {
        let p = request.into_inner();
        let phase = convert::move_phase("phase", p.phase).map_err(invalid)?;
        let record: MoveRecord = self.order(Order::ReportMove { id: MoveId(p.id), phase }).await?;
        Ok(Response::new(record.into()))
    }

    async fn set_mirror(&self, request: Request<v1::SetMirrorRequest>) -> Called<v1::VmRecord> {
        let p = request.into_inner();
        let nve = some(p.nve).map(|nve| convert::nve_id("nve", nve)).transpose().map_err(invalid)?;
        let to = nve.map(|nve| (nve, p.interval_s));
        let record: VmRecord = self.order(Order::SetMirror { vm: p.vm, to }).await?;
        Ok(Response::new(record.into()))
    }

    async fn vm_mirrored(&self, request: Request<v1::VmMirroredRequest>) -> Called<v1::VmRecord> {
        let p = request.into_inner();
        let at_us = (p.at_us > 0).then_some(p.at_us);
        let record: VmRecord = self.order(Order::VmMirrored { vm: p.vm, at_us }).await?;
        Ok(Response::new(record.into()))
    }

    async fn abort_move(&self, request: Request<v1::MoveName>) -> Called<v1::MoveRecord> {
        let id = MoveId(request.into_inner().id);
        let record: MoveRecord = self.order(Order::AbortMove { id }).await?;
        Ok(Response::new(record.into()))
    }

    async fn show_move(&self, request: Request<v1::MoveName>) -> Called<v1::MoveRecord> {
        let id = MoveId(request.into_inner().id);
        let record = self.look(move |d, _| d.move_record(&id).cloned()).await?;
        Ok(Response::new(record.into()))
    }

    async fn list_moves(&self, request: Request<v1::ListMovesRequest>) -> Called<v1::MoveList> {
        let p = request.into_inner();
        let list = move |d: &Directory, _| {
            let moves = d.moves(some(p.vm).as_deref(), p.unfinished_only);
            Ok(moves.into_iter().map(|r| v1::MoveRecord::from(r.clone())).collect())
        };
        Ok(Response::new(v1::MoveList { moves: self.look(list).await? }))
    }

    type WatchMoveStream = Pin<Box<dyn Stream<Item = Result<v1::MoveRecord, Status>> + Send>>;

    async fn watch_move(&self, request: Request<v1::MoveName>) -> Called<Self::WatchMoveStream> {
        self.look(|_, _| Ok(())).await?;
        let records = self.handle.watch(MoveId(request.into_inner().id)).await?;
        Ok(Response::new(Box::pin(WatchStream::new(records).map(Ok))))
    }

    async fn ask_nve(&self, request: Request<v1::AskNveRequest>) -> Called<v1::AdminResponse> {
        let p = request.into_inner();
        let id = convert::nve_id("nve", p.nve).map_err(invalid)?;
        let asked = p.request.ok_or_else(|| Status::invalid_argument("request: is not set"))?;
        let relay = relay::of(id.clone(), &asked)?;
        let operator = caller::current()?.operator;
        match tokio::time::timeout(ASK_TIMEOUT, self.handle.ask(operator, relay, asked)).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "NVE {id} did not answer within {} s; try its admin socket on its host",
                ASK_TIMEOUT.as_secs()
            ))),
        }
    }

    async fn get_counters(&self, request: Request<v1::GetCounters>) -> Called<v1::CounterList> {
        let all = request.into_inner().all;
        self.look(|_, _| Ok(())).await?;
        let shown = self.handle.counters().await?.into_iter().filter(|e| all || e.value != 0);
        let counters = shown.map(v1::Counter::from).collect();
        Ok(Response::new(v1::CounterList { nve: String::new(), counters }))
    }

    async fn get_status(&self, _: Request<v1::NvaStatusRequest>) -> Called<v1::NvaStatus> {
        let s = self.look(|d, _| Ok(d.status())).await?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Response::new(v1::NvaStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            epoch: s.epoch,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            vns: count(s.vns),
            vms: count(s.vms),
            nves_connected: count(s.nves_connected),
            moves_unfinished: count(s.moves_unfinished),
        }))
    }
}

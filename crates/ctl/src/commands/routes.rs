//! `godwitctl routes`: routes of routing domains as one NVE has them (R58).

use clap::Args;
use godwit_api::v1;
use godwit_api::v1::admin_request::Kind as Ask;
use godwit_api::v1::admin_response::Kind as Answer;
use serde::Serialize;

use super::port::NveArg;
use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::hand::unexpected;
use crate::parse;
use crate::table::Table;
use crate::text;

/// Arguments of `routes`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl routes --nve nve-a
  godwitctl --socket /run/godwit/nve-a.sock routes --domain shop --hosts

Kinds: subnet (of a VN), static (by way of a VM), vm (an address of a VM), gateway (an address of the gateway).
What one packet would take, `godwitctl trace` says.")]
pub struct RoutesArgs {
    #[command(flatten)]
    target: NveArg,
    /// Only this routing domain.
    #[arg(long, value_name = "DOMAIN", value_parser = parse::name)]
    domain: Option<String>,
    /// Addresses of VMs and of gateways too.
    #[arg(long)]
    hosts: bool,
}

#[derive(Serialize)]
struct RouteView {
    prefix: String,
    kind: String,
    /// The VN that it leads to.
    vni: u32,
    /// Null: no VM is the next hop.
    mac: Option<String>,
    vm: Option<String>,
    nve: Option<String>,
}

impl From<v1::NveRoute> for RouteView {
    fn from(r: v1::NveRoute) -> RouteView {
        RouteView {
            prefix: r.prefix,
            kind: r.kind,
            vni: r.vni,
            mac: (r.mac != 0).then(|| text::mac(r.mac)),
            vm: text::some(&r.vm),
            nve: text::some(&r.nve),
        }
    }
}

#[derive(Serialize)]
struct DomainView {
    name: String,
    vnis: Vec<u32>,
    /// Of these, VNs without a port at this NVE.
    routed_to: Vec<u32>,
    host_routes: u64,
    prefixes: u64,
    routes: Vec<RouteView>,
}

#[derive(Serialize)]
struct RouteReport {
    domains: Vec<DomainView>,
    /// There are more routes than are shown.
    more: bool,
}

impl From<v1::RouteReport> for RouteReport {
    fn from(r: v1::RouteReport) -> RouteReport {
        let domain = |d: v1::NveDomain| DomainView {
            name: d.name,
            vnis: d.vnis,
            routed_to: d.routed_to,
            host_routes: d.host_routes,
            prefixes: d.prefixes,
            routes: d.routes.into_iter().map(RouteView::from).collect(),
        };
        RouteReport { domains: r.domains.into_iter().map(domain).collect(), more: r.more }
    }
}

impl RouteReport {
    fn domains(&self) -> String {
        let mut t = Table::new(&["DOMAIN", "VNIS", "WITHOUT A PORT HERE", ">HOST ROUTES", ">PREFIXES"]);
        let list = |all: &[u32]| all.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        for d in &self.domains {
            let (vnis, routed_to) = (list(&d.vnis), list(&d.routed_to));
            t.row([d.name.clone(), vnis, routed_to, d.host_routes.to_string(), d.prefixes.to_string()]);
        }
        t.text_or("no routing domains with VMs here")
    }

    fn routes(&self) -> String {
        let mut t = Table::new(&["DOMAIN", "PREFIX", "KIND", ">VNI", "MAC", "VM", "NVE"]);
        for d in &self.domains {
            for r in &d.routes {
                t.row([
                    d.name.clone(),
                    r.prefix.clone(),
                    r.kind.clone(),
                    r.vni.to_string(),
                    text::or_empty(r.mac.as_ref()),
                    text::or_empty(r.vm.as_ref()),
                    text::or_empty(r.nve.as_ref()),
                ]);
            }
        }
        t.text_or("no routes")
    }
}

impl Report for RouteReport {
    fn text(&self) -> String {
        if self.domains.is_empty() {
            return self.domains();
        }
        let more = if self.more { "There are more routes.\n" } else { "" };
        format!("{}\n{}{more}", self.domains(), self.routes())
    }
}

/// Runs the command.
///
/// # Errors
/// The [`Failure`] to report.
pub async fn run(a: RoutesArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let hand = ctx.link.nve(a.target.nve.as_deref()).await?;
    let asked = v1::GetRoutes { domain: a.domain.unwrap_or_default(), hosts: a.hosts };
    match hand.ask(Ask::GetRoutes(asked)).await? {
        Answer::Routes(report) => ctx.show(&RouteReport::from(report)),
        _ => Err(unexpected(&hand.peer())),
    }
}

//! `godwitctl nve allow` and `nve deny`: the VNs that an NVE may take part in.

use clap::Args;
use godwit_api::v1;

use super::nve::{Changed, NveView};
use crate::context::Context;
use crate::failure::Failure;
use crate::parse;
use crate::suggest::{self, Named};

/// `all` on the command line.
const ALL: &str = "all";

/// Arguments of `nve allow`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl nve allow nve-a --vn blue,red           in these too
  godwitctl nve allow nve-a --vn blue,red --only    in these and no others
  godwitctl nve allow nve-a --vn all

It need not have connected yet. An NVE that is connected begins its session anew; what it forwards goes on.")]
pub struct AllowArgs {
    /// Its name.
    #[arg(value_name = "NVE", value_parser = parse::name)]
    name: String,
    /// VNs by name, or all.
    #[arg(long = "vn", value_name = "VN", required = true, value_delimiter = ',', value_parser = parse::name)]
    vns: Vec<String>,
    /// And in no others.
    #[arg(long)]
    only: bool,
}

/// Arguments of `nve deny`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl nve deny nve-a --vn blue
  godwitctl nve deny nve-a --vn all --force")]
pub struct DenyArgs {
    /// Its name.
    #[arg(value_name = "NVE", value_parser = parse::name)]
    name: String,
    /// VNs by name, or all.
    #[arg(long = "vn", value_name = "VN", required = true, value_delimiter = ',', value_parser = parse::name)]
    vns: Vec<String>,
    /// VMs that it has there are detached; without this, it is refused while it has any.
    #[arg(long)]
    force: bool,
}

/// The names, or that all are meant.
fn choice(vns: Vec<String>) -> (Vec<String>, bool) {
    if vns.iter().any(|v| v == ALL) { (Vec::new(), true) } else { (vns, false) }
}

/// What it may take part in, as a phrase.
pub(super) fn phrase(access: Option<&v1::NveAccess>) -> String {
    let Some(a) = access else { return ALL.into() };
    let vnis = a.vnis.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    match (a.only, a.vnis.is_empty()) {
        (false, true) => ALL.into(),
        (false, false) => format!("all but {vnis}"),
        (true, true) => "none".into(),
        (true, false) => vnis,
    }
}

/// Lets it.
///
/// # Errors
/// The [`Failure`] to report.
pub(super) async fn allow(args: AllowArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let AllowArgs { name, vns, only } = args;
    let (vns, all) = choice(vns);
    let named = vns.clone();
    let nva = ctx.link.nva().await?;
    let request = v1::AllowNveRequest { nve: name, vns, all, only };
    match nva.settle(nva.client().allow_nve(request)).await {
        Ok(nve) => show(nve, ctx),
        Err(f) => Err(suggest::explain(&nva, f, &of_vns(&named)).await),
    }
}

/// Lets it no more.
///
/// # Errors
/// The [`Failure`] to report.
pub(super) async fn deny(args: DenyArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let DenyArgs { name, vns, force } = args;
    let (vns, all) = choice(vns);
    let named = vns.clone();
    let nva = ctx.link.nva().await?;
    let request = v1::DenyNveRequest { nve: name, vns, all, force };
    match nva.settle(nva.client().deny_nve(request)).await {
        Ok(nve) => show(nve, ctx),
        Err(f) => Err(suggest::explain(&nva, f, &of_vns(&named)).await),
    }
}

fn of_vns(names: &[String]) -> Vec<(Named, &str)> {
    names.iter().map(|name| (Named::Vn, name.as_str())).collect()
}

fn show(nve: v1::NveInfo, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let verb = format!("may take part in these VNs: {}", phrase(nve.access.as_ref()));
    ctx.show(&Changed { verb, nve: NveView::from(nve) })
}

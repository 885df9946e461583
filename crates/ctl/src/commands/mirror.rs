//! `godwitctl vm mirror` and `vm mirrored`: where a VM's state is kept ready for a warm move (R50).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use godwit_api::v1;
use serde::Serialize;

use crate::context::Report;
use crate::failure::Failure;
use crate::nva::Nva;
use crate::suggest::{self, Named};
use crate::{parse, text};

/// Arguments of `vm mirror`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  godwitctl vm mirror web1 --to nve-b --interval 30s
  godwitctl vm mirrored web1
  godwitctl vm move web1 --to nve-b --mode warm --accept-interruption

Mirroring is up to the VM's manager, which says each time that it has (`vm mirrored`).")]
pub struct MirrorArgs {
    /// The VM.
    #[arg(value_parser = parse::name)]
    name: String,
    /// The NVE that its state is mirrored to.
    #[arg(long, value_name = "NVE", value_parser = parse::name, required_unless_present = "off")]
    to: Option<String>,
    /// From one mirror to the next: 1s to 1h.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    interval: Duration,
    /// It is not mirrored any more.
    #[arg(long, conflicts_with = "to")]
    off: bool,
}

/// Arguments of `vm mirrored`.
#[derive(Args, Clone, Debug)]
pub struct MirroredArgs {
    /// The VM.
    #[arg(value_parser = parse::name)]
    name: String,
    /// When, as 2026-01-31T12:00:00Z; without this now.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    at: Option<SystemTime>,
}

/// A VM's mirror for output.
#[derive(Serialize, Clone, Debug)]
pub struct MirrorView {
    /// The standby NVE.
    nve: String,
    interval_s: u32,
    /// When it was mirrored last, RFC 3339; null: not yet.
    mirrored_at: Option<String>,
    /// How long that is ago; null: not yet.
    age_ms: Option<u64>,
}

impl From<v1::Mirror> for MirrorView {
    fn from(m: v1::Mirror) -> MirrorView {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let done = Some(m.mirrored_us).filter(|us| *us > 0);
        MirrorView {
            nve: m.nve,
            interval_s: m.interval_s,
            mirrored_at: done.map(text::moment_us),
            age_ms: done.map(|us| now.saturating_sub(Duration::from_micros(us)).as_millis() as u64),
        }
    }
}

impl MirrorView {
    /// In words.
    pub fn words(&self) -> String {
        let age = match self.age_ms {
            Some(ms) => format!("mirrored {} ago", text::span_ms(ms)),
            None => "not mirrored yet".into(),
        };
        // Its manager may be late by a part of an interval.
        let late = self.age_ms.is_some_and(|ms| ms > 2000 * u64::from(self.interval_s));
        let late = if late { " (LATE)" } else { "" };
        format!("{}, every {}, {age}{late}", self.nve, text::span_ms(1000 * u64::from(self.interval_s)))
    }
}

/// The mirror of a VM after an order about it.
#[derive(Serialize)]
pub(super) struct Mirrored {
    vm: String,
    mirror: Option<MirrorView>,
}

impl Report for Mirrored {
    fn text(&self) -> String {
        match &self.mirror {
            Some(m) => format!("VM {}: standby {}\n", self.vm, m.words()),
            None => format!("VM {} is mirrored nowhere\n", self.vm),
        }
    }
}

impl From<v1::VmRecord> for Mirrored {
    fn from(r: v1::VmRecord) -> Mirrored {
        Mirrored { vm: r.name, mirror: r.standby.map(Into::into) }
    }
}

/// Records where a VM is mirrored to.
pub(super) async fn mirror(nva: &Nva, a: MirrorArgs) -> Result<Mirrored, Failure> {
    let nve = a.to.clone().unwrap_or_default();
    // The NVA says which intervals are of use.
    let interval_s = u32::try_from(a.interval.as_secs()).unwrap_or(u32::MAX);
    let request = v1::SetMirrorRequest { vm: a.name.clone(), nve: nve.clone(), interval_s };
    match nva.settle(nva.client().set_mirror(request)).await {
        Ok(record) => Ok(record.into()),
        Err(f) => {
            let mut used = vec![(Named::Vm, a.name.as_str())];
            used.extend(a.to.is_some().then_some((Named::Nve, nve.as_str())));
            Err(suggest::explain(nva, f, &used).await)
        }
    }
}

/// Says that a VM has been mirrored.
pub(super) async fn mirrored(nva: &Nva, a: MirroredArgs) -> Result<Mirrored, Failure> {
    let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let at_us = a.at.map_or(0, |at| u64::try_from(since(at)).unwrap_or(u64::MAX));
    let request = v1::VmMirroredRequest { vm: a.name.clone(), at_us };
    match nva.settle(nva.client().vm_mirrored(request)).await {
        Ok(record) => Ok(record.into()),
        Err(f) => Err(suggest::explain(nva, f, &[(Named::Vm, &a.name)]).await),
    }
}

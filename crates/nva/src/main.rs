//! `godwit-nva`: the directory of a Godwit network.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use godwit_model::timing::{MOVE_PATIENCE_MS, PAUSE_LIMIT_MS, POS_LIFE_MS};
use godwit_model::{GATEWAY_MAC, Secret};
use godwit_nva::directory::check_gateway_mac;
use godwit_nva::service::{AuditFile, Service};
use godwit_nva::store::{Loaded, RedbStore, Store as _};
use godwit_nva::{Config, Directory};
use godwit_wire::{Mac, Span};
use tokio::signal::unix::{SignalKind, signal};

/// The directory (NVA) of a Godwit network: knows which VM is at which NVE, and tells all who need it.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "Example:\n  godwit-nva --listen 10.0.0.1:6640 --listen [2001:db8::1]:6640 --data /var/lib/godwit-nva"
)]
struct Flags {
    /// Address for NVEs and operators; may be given several times. Port 0 takes a free one.
    ///
    /// Whoever reaches it may order: listen on the management network only.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "GODWIT_NVA_LISTEN",
        value_delimiter = ',',
        default_value = "[::]:6640"
    )]
    listen: Vec<SocketAddr>,

    /// Directory of the data; made if it is missing. One process a directory.
    #[arg(long, value_name = "DIR", env = "GODWIT_NVA_DATA", default_value = "/var/lib/godwit-nva")]
    data: PathBuf,

    /// After so many milliseconds without a message an NVE counts as disconnected; it keeps its VMs.
    #[arg(long, value_name = "MS", default_value_t = 3000, value_parser = clap::value_parser!(u32).range(300..=60_000))]
    keepalive_ms: u32,

    /// Life of an answer to a switch that pulls a VN, in milliseconds; 0: it is used once and not kept.
    ///
    /// At most 30,000, for which every switch keeps the forward entries of VMs that left it.
    #[arg(long, value_name = "MS", default_value_t = POS_LIFE_MS,
        value_parser = clap::value_parser!(u64).range(0..=POS_LIFE_MS))]
    pos_life_ms: u64,

    /// A move without its grant ends so many seconds after the last sign that it goes on: its order given again, a
    /// state of its VM said, progress reported.
    #[arg(long, value_name = "S", default_value_t = MOVE_PATIENCE_MS / 1000,
        value_parser = clap::value_parser!(u64).range(1..=604_800))]
    move_patience_s: u64,

    /// It ends so many seconds after its VM's pause, whatever signs there are.
    #[arg(long, value_name = "S", default_value_t = PAUSE_LIMIT_MS / 1000,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pause_limit_s: u64,

    /// VMs that one switch may pull at a time; beyond that the oldest is to be asked for again.
    #[arg(long, value_name = "N", default_value_t = Config::default().max_interests)]
    max_interests: usize,

    /// MAC of the gateway of every routed network, the same at every switch.
    ///
    /// An individual, locally administered one that no VM of a routed network has. Guests keep it in their neighbor
    /// tables: with another one they reach their gateway again when they ask anew.
    #[arg(long, value_name = "MAC", default_value_t = GATEWAY_MAC, value_parser = gateway_mac)]
    gateway_mac: Mac,

    /// The audit log: who changed what, when, from where, and what was refused. Without it, `audit.log` in the
    /// directory of the data.
    #[arg(long, value_name = "FILE", env = "GODWIT_NVA_AUDIT_LOG")]
    audit_log: Option<PathBuf>,

    /// The audit log begins a new file when it has so many MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    audit_size: u64,

    /// Files of the audit log that are kept, the one that is written to included.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    audit_files: u16,

    /// What to log to stderr, as in `debug` or `godwit_nva=debug`.
    #[arg(long, value_name = "FILTER", env = "GODWIT_LOG", default_value = "info")]
    log: String,
}

fn gateway_mac(text: &str) -> anyhow::Result<Mac> {
    Ok(check_gateway_mac(text.parse()?)?)
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("godwit-nva: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&flags.log)
        .with_context(|| format!("--log {:?} is no filter, try info or debug", flags.log))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let mut store = RedbStore::open(&flags.data)?;
    let channel_secret = Some(random_secret().context("the kernel gives no random bytes")?);
    let config = Config {
        keepalive_ms: flags.keepalive_ms,
        pos_life: Span::from_ms(flags.pos_life_ms),
        max_interests: flags.max_interests,
        intent_timeout: Span::from_ms(flags.move_patience_s * 1000),
        pause_limit: Span::from_ms(flags.pause_limit_s * 1000),
        gateway_mac: flags.gateway_mac,
        channel_secret,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime; check the limits of open files and processes")?;
    runtime.block_on(async {
        let Loaded { state, epoch } = store.load().await?;
        let directory = Directory::restore(config, state, epoch);
        if let Some(vm) = directory.has_gateway_mac() {
            let mac = flags.gateway_mac;
            anyhow::bail!("--gateway-mac {mac} is that of VM {:?} ({}); choose another one", vm.name, vm.key);
        }
        let vms = directory.status().vms;
        // Before anybody is told that we are there: a signal must not find the default action.
        let stop = stop_signal()?;
        let audit = AuditFile {
            path: flags.audit_log.unwrap_or_else(|| flags.data.join("audit.log")),
            max_bytes: flags.audit_size * 1024 * 1024,
            files: flags.audit_files.into(),
        };
        let service = Service::audited(&flags.listen, directory, Box::new(store), Some(audit)).await?;
        let addrs: Vec<String> = service.addrs().iter().map(SocketAddr::to_string).collect();
        // On stdout, so that a script can wait for it and learn the port.
        println!("godwit-nva listening on {}, epoch {epoch}, {vms} VMs", addrs.join(" "));
        let _ = std::io::stdout().flush();
        service.run_until(stop).await?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// A fresh key for datagrams between NVEs: it lives as long as this process.
fn random_secret() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(Secret(bytes))
}

/// Ends with SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot take signals")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot take signals")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

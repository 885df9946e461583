//! `godwitctl pki`: a small certificate authority for a first installation.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use godwit_model::{NveId, Role};
use godwit_pki::{DAYS, Issued, Pki, PkiError, State, Subject, SubjectName, add_token, new_token};
use serde::Serialize;

use crate::context::{Context, Report};
use crate::failure::Failure;
use crate::parse;
use crate::table::Table;

/// Names and addresses of this host that the NVA's certificate always has.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A small certificate authority for a first installation: a folder with its key and what it issued.
#[derive(Args, Clone, Debug)]
pub struct PkiArgs {
    /// The authority's folder.
    #[arg(long, global = true, value_name = "DIR", env = "GODWIT_PKI", default_value = "/etc/godwit/pki")]
    dir: PathBuf,

    /// Days that a new certificate is good for.
    #[arg(long, global = true, value_name = "N", default_value_t = DAYS,
        value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,

    #[command(subcommand)]
    command: PkiCommand,
}

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum PkiCommand {
    /// Make an authority, and the NVA's certificate.
    #[command(after_help = "\
Example:
  godwitctl pki init --address 192.0.2.10 --address nva.example
  godwitctl pki nve nve-a --locator 198.18.0.1 --locator 2001:db8:18::1
  godwitctl pki operator ann --role admin
  scp /etc/godwit/pki/nve/nve-a/*.pem root@nve-a:/etc/godwit/
  godwit-nva --certificate /etc/godwit/pki/nva/certificate.pem --key /etc/godwit/pki/nva/key.pem \\
             --authority /etc/godwit/pki/authority.pem --revoked /etc/godwit/pki/revoked.pem")]
    Init(AddressArgs),
    /// Issue the NVA's certificate anew, with other names and addresses.
    Nva(AddressArgs),
    /// Issue a switch's certificate.
    Nve {
        /// The switch's name.
        #[arg(value_parser = parse::name)]
        name: String,
        /// An underlay address that it may use; may be given several times. Without one it may use any.
        #[arg(long = "locator", value_name = "IP")]
        locators: Vec<IpAddr>,
    },
    /// Issue an operator's certificate.
    Operator {
        /// The operator's name.
        #[arg(value_parser = parse::name)]
        name: String,
        /// What it may do.
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// Make a token for an operator without a certificate, and print it; the file keeps its hash only.
    #[command(
        after_help = "Example:\n  godwitctl pki token ci --role operate --file /etc/godwit/tokens > token"
    )]
    Token {
        /// The operator's name; a token that it has is replaced.
        #[arg(value_parser = parse::name)]
        name: String,
        /// What it may do.
        #[arg(long, value_parser = role)]
        role: Role,
        /// The file of `godwit-nva --tokens`.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Issue a certificate anew, with a new key, before the last one expires.
    #[command(after_help = "Example:\n  godwitctl pki renew nve/nve-a")]
    Renew {
        /// `nva`, `nve/NAME` or `operator/NAME`.
        subject: SubjectName,
    },
    /// Revoke all certificates of a switch or an operator: the NVA ends its sessions.
    #[command(after_help = "Example:\n  godwitctl pki revoke operator/ann")]
    Revoke {
        /// `nve/NAME` or `operator/NAME`.
        subject: SubjectName,
    },
    /// List what was issued.
    List,
}

/// Names and addresses of the NVA.
#[derive(Args, Clone, Debug)]
pub struct AddressArgs {
    /// A name or an address by which switches and operators reach the NVA; may be given several times.
    #[arg(long = "address", value_name = "NAME|IP")]
    addresses: Vec<String>,
}

fn role(text: &str) -> Result<Role, parse::BadArgument> {
    Role::of(text).ok_or(parse::BadArgument::Role)
}

/// What was issued.
#[derive(Serialize)]
struct IssuedView {
    subject: String,
    /// Where the files are.
    folder: String,
}

impl Report for IssuedView {
    fn text(&self) -> String {
        format!("{}: certificate.pem, key.pem and authority.pem are in {}\n", self.subject, self.folder)
    }
}

/// What was revoked.
#[derive(Serialize)]
struct RevokedView {
    subject: String,
    certificates: usize,
    list: String,
}

impl Report for RevokedView {
    fn text(&self) -> String {
        format!(
            "{}: {} certificates revoked; list {} is for godwit-nva --revoked\n",
            self.subject, self.certificates, self.list
        )
    }
}

/// One certificate.
#[derive(Serialize)]
struct Row {
    subject: String,
    state: &'static str,
    expires: String,
    serial: String,
    /// A role, locators or addresses.
    names: Vec<String>,
}

#[derive(Serialize)]
struct ListView {
    certificates: Vec<Row>,
}

impl Row {
    fn new(issued: &Issued, now_s: i64) -> Row {
        let names = match &issued.subject {
            Subject::Nva { addresses } => addresses.clone(),
            Subject::Nve { locators, .. } => locators.iter().map(IpAddr::to_string).collect(),
            Subject::Operator { role, .. } => vec![role.clone()],
        };
        let state = match issued.state(now_s) {
            State::Good => "good",
            State::Expired => "expired",
            State::Revoked => "revoked",
        };
        let until = UNIX_EPOCH + Duration::from_secs(issued.until_s.try_into().unwrap_or(0));
        let expires = humantime::format_rfc3339_seconds(until).to_string();
        Row {
            subject: issued.subject.name().to_string(),
            state,
            expires,
            serial: issued.serial.clone(),
            names,
        }
    }
}

impl Report for ListView {
    fn text(&self) -> String {
        let mut table = Table::new(&["SUBJECT", "STATE", "EXPIRES", "ROLE, LOCATORS OR ADDRESSES", "SERIAL"]);
        for r in &self.certificates {
            let (state, expires, serial) = (r.state.to_owned(), r.expires.clone(), r.serial.clone());
            table.row([r.subject.clone(), state, expires, r.names.join(" "), serial]);
        }
        table.text_or("no certificate was issued")
    }
}

/// Runs one command.
///
/// # Errors
/// What the authority refuses, or a folder that cannot be used.
pub fn run(args: PkiArgs, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let PkiArgs { dir, days, command } = args;
    match command {
        PkiCommand::Init(a) => {
            let mut pki = Pki::init(&dir).map_err(failure)?;
            let folder = pki.issue(Subject::Nva { addresses: a.all() }, days).map_err(failure)?;
            ctx.show(&view("nva", &folder))
        }
        PkiCommand::Nva(a) => {
            let folder = open(&dir)?.replace(Subject::Nva { addresses: a.all() }, days).map_err(failure)?;
            ctx.show(&view("nva", &folder))
        }
        PkiCommand::Nve { name, locators } => {
            let id = NveId::new(name).map_err(|e| Failure::usage(e.to_string()))?;
            issue(&dir, Subject::nve(&id, locators), days, ctx)
        }
        PkiCommand::Operator { name, role } => {
            let subject = Subject::operator(&name, role).map_err(|e| Failure::usage(e.to_string()))?;
            issue(&dir, subject, days, ctx)
        }
        PkiCommand::Token { name, role, file } => {
            let token = new_token().map_err(failure)?;
            add_token(&file, &name, role, &token).map_err(failure)?;
            ctx.print(&format!("{token}\n"))
        }
        PkiCommand::Renew { subject } => {
            let folder = open(&dir)?.renew(&subject, days).map_err(failure)?;
            ctx.show(&view(&subject.to_string(), &folder))
        }
        PkiCommand::Revoke { subject } => {
            let mut pki = open(&dir)?;
            let certificates = pki.revoke(&subject).map_err(failure)?;
            let list = pki.revoked_file().display().to_string();
            ctx.show(&RevokedView { subject: subject.to_string(), certificates, list })
        }
        PkiCommand::List => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let pki = open(&dir)?;
            ctx.show(&ListView { certificates: pki.issued().iter().map(|i| Row::new(i, now_s)).collect() })
        }
    }
}

impl AddressArgs {
    fn all(self) -> Vec<String> {
        let local = LOCAL.iter().map(|a| (*a).to_owned()).filter(|a| !self.addresses.contains(a));
        self.addresses.iter().cloned().chain(local).collect()
    }
}

fn open(dir: &Path) -> Result<Pki, Failure> {
    Pki::open(dir).map_err(failure)
}

fn issue(dir: &Path, subject: Subject, days: u32, ctx: &mut Context<'_>) -> Result<(), Failure> {
    let name = subject.name().to_string();
    let folder = open(dir)?.issue(subject, days).map_err(failure)?;
    ctx.show(&view(&name, &folder))
}

fn view(subject: &str, folder: &Path) -> IssuedView {
    IssuedView { subject: subject.into(), folder: folder.display().to_string() }
}

fn failure(e: PkiError) -> Failure {
    Failure::refused(e.to_string())
}

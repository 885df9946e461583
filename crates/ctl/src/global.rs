//! Arguments that every command takes: whom to ask, for how long, and how to print.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::parse;
use crate::secure::SecureArgs;

/// What holds for every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Where the NVA listens, as https://HOST:PORT; by default on this host, with TLS where there is an authority.
    #[arg(long, global = true, env = "GODWIT_NVA", value_name = "URL")]
    pub nva: Option<String>,

    /// How it is spoken to.
    #[command(flatten)]
    pub secure: SecureArgs,

    /// Talk to one NVE directly, by its admin socket on this host, without the NVA.
    #[arg(long, global = true, env = "GODWIT_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Print one JSON document instead of a table.
    #[arg(long, global = true)]
    pub json: bool,

    /// How long to wait for an answer, in seconds.
    #[arg(long, global = true, value_name = "SECS", default_value = "5", value_parser = parse::seconds)]
    pub timeout: Duration,

    /// `--socket` stands on the command line, not only in the environment.
    #[arg(skip)]
    pub socket_given: bool,
}

impl Global {
    /// Where the NVA listens.
    pub fn nva(&self) -> String {
        let local = || if self.secure.is_there() { "https://[::1]:6640" } else { "http://[::1]:6640" };
        self.nva.clone().unwrap_or_else(|| local().into())
    }
}

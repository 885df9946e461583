//! The `godwitctl` binary: arguments in, one document or table out, an exit code that says how it went.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = godwit_ctl::Cli::read();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("godwitctl: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(godwit_ctl::run(cli, &mut std::io::stdout(), &mut std::io::stderr())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(&mut std::io::stderr());
            ExitCode::from(failure.exit_code())
        }
    }
}

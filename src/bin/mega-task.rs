//! argv → command → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(mega::task::main())
}

//! The `stratafs` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stratafs::cli::main()
}

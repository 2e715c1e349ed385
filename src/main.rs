//! The `portcullis` program: the allocator and the command line, nothing else.

use std::process::ExitCode;

/// glibc keeps what hashing once used for ever; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::run()
}

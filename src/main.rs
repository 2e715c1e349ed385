//! The `portcullis` program: the allocator and the command line, nothing else.

use std::process::ExitCode;

/// glibc never returns the memory that hashing once used; this allocator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    portcullis::cli::run()
}

//! The binary `batonmq`. Everything is in the library, where tests reach it.

fn main() -> std::process::ExitCode {
    batonmq::cli::main()
}

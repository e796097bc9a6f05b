//! The `windlass` command: parse, run, exit.

fn main() -> std::process::ExitCode {
    windlass::cli::main()
}

//! The command `edgeproxy`; all of it is in the library.

fn main() -> std::process::ExitCode {
    edgeproxy::run()
}

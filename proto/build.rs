//! Compiles the .proto files with a pure-Rust compiler, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "proto/remote.proto",
        "proto/remote2.proto",
        "proto/exposition.proto",
        "proto/otlp.proto",
        "proto/node.proto",
        "proto/federation.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}

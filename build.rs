//! Compiles `proto/*.proto` in Rust, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/store.proto"], ["proto"])?;
    let mut config = prost_build::Config::new();
    config.bytes([".batonmq.store.Message", ".batonmq.store.CreateDurable"]); // slices of what was read, not copies
    config.compile_fds(descriptors)?;
    Ok(())
}

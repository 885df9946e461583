//! Compiles the protocol files without an installed protoc.
#![forbid(unsafe_code)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 5] = ["common", "session", "routes", "admin", "operator"];
    let paths: Vec<String> = FILES.iter().map(|f| format!("proto/godwit/v1/{f}.proto")).collect();
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(&paths, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

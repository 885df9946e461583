//! The NVE-NVA and operator protocols: protobuf, generated code, conversions.
//!
//! The only crate that names tonic and prost; the others use what it re-exports.

/// Generated from `proto/godwit/v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("godwit.v1");
}

pub use prost;
pub use tonic;

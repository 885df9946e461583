//! The NVA: directory state machine, gRPC service, persistent store.

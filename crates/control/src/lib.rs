//! The NVE's control plane: mobility state machine, NVA session, update router.

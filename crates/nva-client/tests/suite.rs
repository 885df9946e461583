//! All integration tests in one binary: each binary of its own would compile and link the same again.

mod session;

//! Nothing: the benchmarks beside this file stand by themselves, and a package needs a library or a program.
#![forbid(unsafe_code)]

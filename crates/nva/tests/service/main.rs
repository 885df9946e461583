//! `godwit-nva` over real sockets: sessions, orders, crashes.

mod audit;
mod client;
mod counters;
mod crash;
mod crowd;
mod domains;
mod operator;
mod process;
mod sessions;

//! `godwit-nva` over real sockets: sessions, orders, crashes.

mod client;
mod crash;
mod crowd;
mod operator;
mod process;
mod sessions;

//! Hostile guests and front ends on a vhost-user port: odd headers, rings and messages. Whatever they do, the switch
//! lives, two ordinary guests of it exchange frames without a loss, and the port takes the next guest.

mod arena;
mod descriptors;
mod headers;
mod messages;
mod scripts;

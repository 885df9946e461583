//! Feature bits of virtio-net and of vhost-user (virtio 1.2, 5.1.3 and 6; vhost-user specification).

/// The driver may leave out checksums of what it sends.
pub const CSUM: u64 = 1 << 0;
/// The driver takes frames without checksums.
pub const GUEST_CSUM: u64 = 1 << 1;
/// The driver takes TCP segments over IPv4 longer than the MTU.
pub const GUEST_TSO4: u64 = 1 << 7;
/// The driver takes TCP segments over IPv6 longer than the MTU.
pub const GUEST_TSO6: u64 = 1 << 8;
/// The driver may send TCP segments over IPv4 longer than the MTU.
pub const HOST_TSO4: u64 = 1 << 11;
/// The driver may send TCP segments over IPv6 longer than the MTU.
pub const HOST_TSO6: u64 = 1 << 12;
/// A received frame may lie in several buffers.
pub const MRG_RXBUF: u64 = 1 << 15;
/// There is a control queue.
pub const CTRL_VQ: u64 = 1 << 17;
/// There is more than one queue pair.
pub const MQ: u64 = 1 << 22;
/// Writes of the back end are logged (vhost).
pub const LOG_ALL: u64 = 1 << 26;
/// Descriptors may point to tables of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Notifications are suppressed by ring index.
pub const EVENT_IDX: u64 = 1 << 29;
/// Protocol features are negotiated (vhost-user).
pub const PROTOCOL: u64 = 1 << 30;
/// The device is of virtio 1.0 or later.
pub const VERSION_1: u64 = 1 << 32;
/// Addresses are translated by an IOMMU.
pub const IOMMU_PLATFORM: u64 = 1 << 33;
/// Rings are packed (virtio 1.1).
pub const RING_PACKED: u64 = 1 << 34;

/// What an ordinary guest takes where it is offered: checksum and segmentation offload in both directions, buffers that
/// merge, indirect descriptors, several queue pairs.
pub const USUAL: u64 = CSUM
    | GUEST_CSUM
    | GUEST_TSO4
    | GUEST_TSO6
    | HOST_TSO4
    | HOST_TSO6
    | MRG_RXBUF
    | MQ
    | INDIRECT_DESC
    | PROTOCOL
    | VERSION_1;

/// What the plainest guest takes: no offload, one buffer a frame.
pub const PLAIN: u64 = PROTOCOL | VERSION_1;

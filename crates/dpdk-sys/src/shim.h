/* SPDX-License-Identifier: Apache-2.0
 *
 * The small C surface that Rust sees.
 *
 * DPDK's fast path is static inline functions, which no linker can find, and its structures change
 * from release to release. Both stay behind this file: functions here are ordinary ones, structures
 * here are flat and our own. Nothing in it needs a DPDK header.
 */
#ifndef GODWIT_SHIM_H
#define GODWIT_SHIM_H

#include <stddef.h>
#include <stdint.h>

struct rte_mempool;

/*
 * The first cache line of an rte_mbuf, and the part of the second that transmit offloads use.
 * Vector drivers have kept these offsets fixed since DPDK 17.11; shim.c asserts each of them when it
 * is compiled. Rust reads and writes buffers through it, so that the packet path makes no call.
 */
struct godwit_mbuf {
	void *buf_addr;
	uint64_t buf_iova_or_next;
	uint16_t data_off;
	uint16_t refcnt;
	uint16_t nb_segs;
	uint16_t port;
	uint64_t ol_flags;
	uint32_t packet_type;
	uint32_t pkt_len;
	uint16_t data_len;
	uint16_t vlan_tci;
	uint32_t rss;
	uint32_t hash_hi;
	uint16_t vlan_tci_outer;
	uint16_t buf_len;
	struct rte_mempool *pool;
	uint64_t next_or_dynfield2;
	uint64_t tx_offload;
};

/* What a device can do. Sizes in bytes. */
struct godwit_dev_info {
	const char *driver_name;
	uint32_t if_index;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t rx_desc_min;
	uint16_t rx_desc_max;
	uint16_t tx_desc_min;
	uint16_t tx_desc_max;
	uint16_t reta_size;
	uint32_t min_rx_bufsize;
	uint32_t max_rx_pktlen;
	uint64_t rx_offload_capa;
	uint64_t tx_offload_capa;
	uint64_t rss_types;
	uint8_t intr_lsc;
	uint8_t intr_rmv;
};

struct godwit_port_conf {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t mtu; /* 0: the device's own */
	uint64_t rx_offloads;
	uint64_t tx_offloads;
	uint64_t rss_types; /* 0: no RSS */
	uint8_t intr_lsc;
	uint8_t intr_rmv;
	uint8_t loopback; /* what is sent comes back, where the driver can do that */
};

struct godwit_link {
	uint32_t speed_mbps; /* UINT32_MAX: unknown */
	uint8_t up;
	uint8_t full_duplex;
	uint8_t autoneg;
};

struct godwit_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;
};

/* Buffer flags. Constants, for the packet path's sake; shim.c asserts that they are DPDK's. */
/* RTE_MBUF_F_EXTERNAL and RTE_MBUF_F_INDIRECT: whose memory the buffer is. */
#define GODWIT_MBUF_BUFFER_FLAGS 0x6000000000000000ULL
/* The received frame's TCP or UDP checksum: both bits, it is not there yet; the first alone, it is wrong. */
#define GODWIT_MBUF_RX_L4_CKSUM_BAD 0x8ULL
#define GODWIT_MBUF_RX_L4_CKSUM_NONE 0x108ULL
#define GODWIT_MBUF_RX_LRO 0x10000ULL
#define GODWIT_MBUF_TX_TCP_SEG 0x4000000000000ULL
#define GODWIT_MBUF_TX_TCP_CKSUM 0x10000000000000ULL
#define GODWIT_MBUF_TX_UDP_CKSUM 0x30000000000000ULL
#define GODWIT_MBUF_TX_IP_CKSUM 0x40000000000000ULL
#define GODWIT_MBUF_TX_IPV4 0x80000000000000ULL
#define GODWIT_MBUF_TX_IPV6 0x100000000000000ULL

/* Values of macros that bindgen cannot evaluate. */
extern const uint64_t GODWIT_RX_OFFLOAD_SCATTER;
extern const uint64_t GODWIT_TX_OFFLOAD_UDP_CKSUM;
extern const uint64_t GODWIT_RSS_IP_UDP_TCP;
extern const uint32_t GODWIT_MAX_PORTS;
extern const uint32_t GODWIT_NO_LCORE;

/* EAL, threads, time */
int godwit_errno(void);
uint32_t godwit_lcore_id(void);
int godwit_socket_id(void);
uint64_t godwit_rdtsc(void);

/*
 * Hands every DPDK log text to `sink`, one call a write: level as in rte_log.h (1 emergency to 8
 * debug), text not terminated. 0, or a negative errno.
 */
typedef void (*godwit_log_sink)(uint32_t level, const char *text, size_t len);
int godwit_log_redirect(godwit_log_sink sink);

/* Buffers */
struct godwit_mbuf *godwit_mbuf_alloc(struct rte_mempool *pool);
int godwit_mbuf_alloc_bulk(struct rte_mempool *pool, struct godwit_mbuf **out, uint32_t n);
void godwit_mbuf_free(struct godwit_mbuf *m);
void godwit_mbuf_free_bulk(struct godwit_mbuf **m, uint32_t n);
struct godwit_mbuf *godwit_mbuf_next(const struct godwit_mbuf *m); /* NULL after the last segment */
uint16_t godwit_pool_data_room(struct rte_mempool *pool);

/* Packet path */
uint16_t godwit_rx_burst(uint16_t port, uint16_t queue, struct godwit_mbuf **out, uint16_t n);
uint16_t godwit_tx_burst(uint16_t port, uint16_t queue, struct godwit_mbuf **pkts, uint16_t n);
uint16_t godwit_tx_prepare(uint16_t port, uint16_t queue, struct godwit_mbuf **pkts, uint16_t n);

/* Ports. Results are 0 or a negative errno unless they say otherwise. */
int godwit_port_find(const char *devargs, uint16_t *ids, uint32_t max); /* count of ports */
int godwit_port_name(uint16_t port, char *name, size_t len);
int godwit_port_remove(uint16_t port); /* closes the port and unplugs its device */
int godwit_port_info(uint16_t port, struct godwit_dev_info *info);
int godwit_port_configure(uint16_t port, const struct godwit_port_conf *conf);
int godwit_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descs, int socket, struct rte_mempool *pool);
int godwit_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descs, int socket);
int godwit_port_mac(uint16_t port, uint8_t mac[6]);
int godwit_port_set_mac(uint16_t port, const uint8_t mac[6]);
int godwit_port_link(uint16_t port, struct godwit_link *link);
int godwit_port_stats(uint16_t port, struct godwit_stats *stats);

/* ---- Guests on vhost-user sockets ---- */

/* VIRTIO_NET_F_* and VIRTIO_F_*; vhost.c asserts that they are the kernel's. */
#define GODWIT_VHOST_CSUM 0x1ULL
#define GODWIT_VHOST_GUEST_CSUM 0x2ULL
#define GODWIT_VHOST_GUEST_TSO 0x180ULL
#define GODWIT_VHOST_HOST_TSO 0x1800ULL
#define GODWIT_VHOST_UFO 0x4400ULL
#define GODWIT_VHOST_ECN 0x2200ULL
#define GODWIT_VHOST_MQ 0x400000ULL
#define GODWIT_VHOST_RING_PACKED 0x400000000ULL

/* Options of a socket. */
#define GODWIT_VHOST_CLIENT 0x1 /* the guest's end listens */
#define GODWIT_VHOST_POSTCOPY 0x2
#define GODWIT_VHOST_IOMMU 0x4
#define GODWIT_VHOST_LINEAR 0x8
#define GODWIT_VHOST_EXTBUF 0x10
#define GODWIT_VHOST_ONE_PAIR 0x20 /* no more than one pair of queues is offered */

/*
 * What the library tells, from its own thread or, of a device that goes because its socket is closed, from the
 * closing one. `path` is the socket's, terminated; `vid` the library's number of the connection.
 */
struct godwit_vhost_events {
	int (*connected)(const char *path, int vid); /* negative: hang up */
	void (*disconnected)(const char *path, int vid);
	int (*attached)(const char *path, int vid); /* the rings are there; negative: not wanted */
	void (*detached)(const char *path, int vid); /* on return the rings are not touched any more */
	/* A ring was put into use, or out of it. The library holds the locks of the device's rings. */
	void (*ring_changed)(const char *path, int vid, uint16_t ring, int enabled);
	/*
	 * Around a message with the first eight bytes of its content, after it only where it did not fail. The library
	 * holds the locks of the device's rings at most of them. 1: `word` replaces these bytes.
	 * Negative: the connection is closed.
	 */
	int (*before)(const char *path, int vid, uint32_t request, uint64_t *word);
	void (*after)(const char *path, int vid, uint32_t request, uint64_t word);
};

/* A ring as the guest has set it up. */
struct godwit_vhost_ring {
	const void *base; /* split: the index of available entries; packed: the descriptors; NULL behind an IOMMU */
	uint16_t size;
	uint8_t packed;
};

/* Memory of the guest's, as it is mapped from a file with pages of that size. */
struct godwit_vhost_piece {
	uint64_t start;
	uint64_t len;
	uint64_t page;
};

/* Listens at a socket, or connects to it, with all features but `withheld`; `events` stays where it is. */
int godwit_vhost_open(const char *path, uint32_t options, uint64_t withheld,
		      const struct godwit_vhost_events *events);
/* Closes it and its connections. Of what was attached `detached` is said before this returns. */
int godwit_vhost_close(const char *path);
/* Asks the guest not to say that there are frames: its rings are polled. Not from within `ring_changed` or around
 * a message. */
void godwit_vhost_stop_kicks(int vid);
/* What the guest has agreed to; -ENOTCONN where there is no such connection. */
int godwit_vhost_features(int vid, uint64_t *features);
/* A ring that can be used; otherwise a negative errno. The guest's memory has been told of. */
int godwit_vhost_ring(int vid, uint16_t ring, struct godwit_vhost_ring *out);
/* The guest's memory, up to `max` pieces of it; how many there are. It has been told of. */
uint32_t godwit_vhost_memory(int vid, struct godwit_vhost_piece *out, uint32_t max);
/* The log of a migration; -ENOTCONN where there is no such connection. */
int godwit_vhost_log(int vid, struct godwit_vhost_piece *out);
/* The next entry that the library takes from a ring; of a packed one bit 15 is its wrap counter. */
uint16_t godwit_vhost_position(int vid, uint16_t ring);
/* Packet path. Frames sent are copied, and stay the caller's. */
uint16_t godwit_vhost_rx(int vid, uint16_t ring, struct rte_mempool *pool, struct godwit_mbuf **out, uint16_t n);
uint16_t godwit_vhost_tx(int vid, uint16_t ring, struct godwit_mbuf **pkts, uint16_t n);
/* Fills in the TCP or UDP checksum that a frame's flags leave to its receiver. 0, or -EINVAL for a frame that is no
 * such one. */
int godwit_mbuf_finish_checksum(struct godwit_mbuf *m);

/*
 * Calls `callback` from DPDK's interrupt thread at a change of link (`removed` 0) and at the loss of
 * the device (`removed` 1). Unregistering answers -EAGAIN as long as a call is running.
 */
typedef void (*godwit_event_callback)(uint16_t port, int removed, void *arg);
struct godwit_event_handler {
	godwit_event_callback callback;
	void *arg;
};
int godwit_port_watch(uint16_t port, struct godwit_event_handler *handler);
int godwit_port_unwatch(uint16_t port, struct godwit_event_handler *handler);

/* Bonds; 0 or a negative errno. The member is plugged in and not started. */
int godwit_bond_add(uint16_t bond, uint16_t member);
/*
 * LACP's driver asks its partner for an answer every 30 s, gives it up after 90, and has no setting for the
 * other kind, 1 and 3 s. The first of these makes it give up after 3 s; the second has a running member's LACP
 * frames ask for as many.
 */
int godwit_bond_short_timeouts(uint16_t bond);
int godwit_bond_say_short(uint16_t member, uint16_t queues);
/* 1: frames go and come by this member; 0: not now. */
int godwit_bond_carries(uint16_t bond, uint16_t member);

#endif

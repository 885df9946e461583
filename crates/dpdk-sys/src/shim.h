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
extern const uint64_t GODWIT_RX_OFFLOAD_UDP_CKSUM;
extern const uint64_t GODWIT_RX_OFFLOAD_TCP_CKSUM;
extern const uint64_t GODWIT_TX_OFFLOAD_MULTI_SEGS;
extern const uint64_t GODWIT_TX_OFFLOAD_UDP_CKSUM;
extern const uint64_t GODWIT_TX_OFFLOAD_TCP_CKSUM;
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

/* A queue pair's half at a net_vhost port: rx, what the guest sends by, or what it receives by. */
struct godwit_queue_event {
	uint16_t queue;
	uint8_t rx;
	uint8_t enabled;
};

/*
 * What the guest on a net_vhost port has agreed to, as VIRTIO_NET_F_* bits. -ENOTSUP where the port is of
 * another driver or does not run, -ENOTCONN where there is no guest.
 */
int godwit_vhost_features(uint16_t port, uint64_t *features);
/*
 * The next queue of a net_vhost port that its guest has put into use, or out of it, since the last call.
 * -EAGAIN where there is none, -ENOTSUP for ports of another driver.
 */
int godwit_vhost_queue_event(uint16_t port, struct godwit_queue_event *event);
/* Stops offering UDP fragmentation to guests that connect to this socket from now on. */
int godwit_vhost_withhold_ufo(const char *socket);

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

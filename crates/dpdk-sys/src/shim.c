/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_version.h>

#include "shim.h"

/* mbuf.rs writes the lengths of a frame's headers by these positions. */
_Static_assert(RTE_MBUF_L2_LEN_BITS == 7 && RTE_MBUF_L3_LEN_BITS == 9, "tx_offload layout");
_Static_assert(RTE_MBUF_L4_LEN_BITS == 8 && RTE_MBUF_TSO_SEGSZ_BITS == 16, "tx_offload layout");
/* mempool.rs says it as a constant. */
_Static_assert(RTE_PKTMBUF_HEADROOM == 128, "DPDK built with another headroom");

#define SAME(ours, theirs)                                                                          \
	_Static_assert(offsetof(struct godwit_mbuf, ours) == offsetof(struct rte_mbuf, theirs),         \
		       "rte_mbuf." #theirs " moved: struct godwit_mbuf must follow")
SAME(buf_addr, buf_addr);
SAME(data_off, data_off);
SAME(refcnt, refcnt);
SAME(nb_segs, nb_segs);
SAME(port, port);
SAME(ol_flags, ol_flags);
SAME(packet_type, packet_type);
SAME(pkt_len, pkt_len);
SAME(data_len, data_len);
SAME(vlan_tci, vlan_tci);
SAME(rss, hash.rss);
SAME(vlan_tci_outer, vlan_tci_outer);
SAME(buf_len, buf_len);
SAME(pool, pool);
SAME(tx_offload, tx_offload);
_Static_assert(sizeof(struct godwit_mbuf) <= sizeof(struct rte_mbuf), "the view fits the buffer header");

_Static_assert(GODWIT_MBUF_BUFFER_FLAGS == (RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT), "flag value");
_Static_assert(GODWIT_MBUF_RX_L4_CKSUM_BAD == RTE_MBUF_F_RX_L4_CKSUM_BAD, "flag value");
_Static_assert(GODWIT_MBUF_RX_L4_CKSUM_NONE == RTE_MBUF_F_RX_L4_CKSUM_NONE, "flag value");
_Static_assert(GODWIT_MBUF_RX_LRO == RTE_MBUF_F_RX_LRO, "flag value");
_Static_assert(GODWIT_MBUF_TX_TCP_SEG == RTE_MBUF_F_TX_TCP_SEG, "flag value");
_Static_assert(GODWIT_MBUF_TX_TCP_CKSUM == RTE_MBUF_F_TX_TCP_CKSUM, "flag value");
_Static_assert(GODWIT_MBUF_TX_UDP_CKSUM == RTE_MBUF_F_TX_UDP_CKSUM, "flag value");
_Static_assert(GODWIT_MBUF_TX_IP_CKSUM == RTE_MBUF_F_TX_IP_CKSUM, "flag value");
_Static_assert(GODWIT_MBUF_TX_IPV4 == RTE_MBUF_F_TX_IPV4, "flag value");
_Static_assert(GODWIT_MBUF_TX_IPV6 == RTE_MBUF_F_TX_IPV6, "flag value");

const uint64_t GODWIT_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
const uint64_t GODWIT_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
const uint64_t GODWIT_RSS_IP_UDP_TCP = RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP;
const uint32_t GODWIT_MAX_PORTS = RTE_MAX_ETHPORTS;
const uint32_t GODWIT_NO_LCORE = LCORE_ID_ANY;

/* ---- EAL, threads, time ---- */

int godwit_errno(void) { return rte_errno; }
uint32_t godwit_lcore_id(void) { return rte_lcore_id(); }
int godwit_socket_id(void) { return (int)rte_socket_id(); }
uint64_t godwit_rdtsc(void) { return rte_rdtsc(); }

static godwit_log_sink log_sink;
static FILE *log_stream;

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	int level = rte_log_cur_msg_loglevel();

	(void)cookie;
	log_sink(level < 0 ? RTE_LOG_NOTICE : (uint32_t)level, text, len);
	return (ssize_t)len;
}

int godwit_log_redirect(godwit_log_sink sink)
{
	cookie_io_functions_t io = {.write = log_write};

	log_sink = sink;
	if (log_stream == NULL) {
		log_stream = fopencookie(NULL, "w", io);
		if (log_stream == NULL)
			return -errno;
		setvbuf(log_stream, NULL, _IOLBF, 4096);
	}
	return rte_openlog_stream(log_stream);
}

/* ---- Buffers ---- */

struct godwit_mbuf *godwit_mbuf_alloc(struct rte_mempool *pool)
{
	return (struct godwit_mbuf *)rte_pktmbuf_alloc(pool);
}

int godwit_mbuf_alloc_bulk(struct rte_mempool *pool, struct godwit_mbuf **out, uint32_t n)
{
	return rte_pktmbuf_alloc_bulk(pool, (struct rte_mbuf **)out, n);
}

void godwit_mbuf_free(struct godwit_mbuf *m) { rte_pktmbuf_free((struct rte_mbuf *)m); }

void godwit_mbuf_free_bulk(struct godwit_mbuf **m, uint32_t n)
{
	rte_pktmbuf_free_bulk((struct rte_mbuf **)m, n);
}

struct godwit_mbuf *godwit_mbuf_next(const struct godwit_mbuf *m)
{
	return (struct godwit_mbuf *)((const struct rte_mbuf *)m)->next;
}

uint16_t godwit_pool_data_room(struct rte_mempool *pool) { return rte_pktmbuf_data_room_size(pool); }

/* ---- Packet path ---- */

uint16_t godwit_rx_burst(uint16_t port, uint16_t queue, struct godwit_mbuf **out, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, (struct rte_mbuf **)out, n);
}

uint16_t godwit_tx_burst(uint16_t port, uint16_t queue, struct godwit_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, (struct rte_mbuf **)pkts, n);
}

uint16_t godwit_tx_prepare(uint16_t port, uint16_t queue, struct godwit_mbuf **pkts, uint16_t n)
{
	return rte_eth_tx_prepare(port, queue, (struct rte_mbuf **)pkts, n);
}

/* ---- Ports ---- */

int godwit_port_find(const char *devargs, uint16_t *ids, uint32_t max)
{
	struct rte_dev_iterator it;
	uint32_t found = 0;
	uint16_t id;

	/* A loop left early would leak what the iterator holds, so it always runs to its end. */
	RTE_ETH_FOREACH_MATCHING_DEV(id, devargs, &it)
	{
		if (found < max)
			ids[found] = id;
		found++;
	}
	return (int)found;
}

int godwit_port_name(uint16_t port, char *name, size_t len)
{
	char full[RTE_ETH_NAME_MAX_LEN];
	int rc = rte_eth_dev_get_name_by_port(port, full);

	if (rc == 0)
		snprintf(name, len, "%s", full);
	return rc;
}

int godwit_port_remove(uint16_t port)
{
	struct rte_eth_dev_info info;
	int rc = rte_eth_dev_info_get(port, &info);

	if (rc != 0)
		return rc;
	/* Closing releases the port's id, so the device has to be known before. */
	rc = rte_eth_dev_close(port);
	if (rc != 0 && rc != -ENOTSUP)
		return rc;
	return info.device == NULL ? 0 : rte_dev_remove(info.device);
}

int godwit_port_info(uint16_t port, struct godwit_dev_info *out)
{
	struct rte_eth_dev_info info;
	int rc = rte_eth_dev_info_get(port, &info);

	if (rc != 0)
		return rc;
	memset(out, 0, sizeof(*out));
	out->driver_name = info.driver_name;
	out->if_index = info.if_index;
	out->min_mtu = info.min_mtu;
	out->max_mtu = info.max_mtu;
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	out->rx_desc_min = info.rx_desc_lim.nb_min;
	out->rx_desc_max = info.rx_desc_lim.nb_max;
	out->tx_desc_min = info.tx_desc_lim.nb_min;
	out->tx_desc_max = info.tx_desc_lim.nb_max;
	out->reta_size = info.reta_size;
	out->min_rx_bufsize = info.min_rx_bufsize;
	out->max_rx_pktlen = info.max_rx_pktlen;
	out->rx_offload_capa = info.rx_offload_capa;
	out->tx_offload_capa = info.tx_offload_capa;
	out->rss_types = info.flow_type_rss_offloads;
	out->intr_lsc = info.dev_flags != NULL && (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0;
	out->intr_rmv = info.dev_flags != NULL && (*info.dev_flags & RTE_ETH_DEV_INTR_RMV) != 0;
	return 0;
}

int godwit_port_configure(uint16_t port, const struct godwit_port_conf *in)
{
	struct rte_eth_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = in->mtu;
	conf.rxmode.offloads = in->rx_offloads;
	conf.txmode.offloads = in->tx_offloads;
	conf.intr_conf.lsc = in->intr_lsc;
	conf.intr_conf.rmv = in->intr_rmv;
	/* 1 is the transmitter looped to the receiver in each driver that knows modes (config.rs lists them). */
	conf.lpbk_mode = in->loopback;
	if (in->rss_types != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = in->rss_types;
	}
	return rte_eth_dev_configure(port, in->rx_queues, in->tx_queues, &conf);
}

/* A NULL queue configuration asks for the driver's own thresholds and the port's offloads. */
int godwit_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descs, int socket, struct rte_mempool *pool)
{
	return rte_eth_rx_queue_setup(port, queue, descs, (unsigned int)socket, NULL, pool);
}

int godwit_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descs, int socket)
{
	return rte_eth_tx_queue_setup(port, queue, descs, (unsigned int)socket, NULL);
}

int godwit_port_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr addr;
	int rc = rte_eth_macaddr_get(port, &addr);

	if (rc == 0)
		memcpy(mac, addr.addr_bytes, 6);
	return rc;
}

int godwit_port_set_mac(uint16_t port, const uint8_t mac[6])
{
	struct rte_ether_addr addr;

	memcpy(addr.addr_bytes, mac, 6);
	return rte_eth_dev_default_mac_addr_set(port, &addr);
}

int godwit_port_link(uint16_t port, struct godwit_link *out)
{
	struct rte_eth_link link;
	int rc;

	memset(&link, 0, sizeof(link));
	rc = rte_eth_link_get_nowait(port, &link);
	if (rc != 0)
		return rc;
	out->speed_mbps = link.link_speed;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	out->autoneg = link.link_autoneg == RTE_ETH_LINK_AUTONEG;
	return 0;
}

int godwit_port_stats(uint16_t port, struct godwit_stats *out)
{
	struct rte_eth_stats stats;
	int rc = rte_eth_stats_get(port, &stats);

	if (rc != 0)
		return rc;
	out->rx_packets = stats.ipackets;
	out->tx_packets = stats.opackets;
	out->rx_bytes = stats.ibytes;
	out->tx_bytes = stats.obytes;
	out->rx_missed = stats.imissed;
	out->rx_errors = stats.ierrors;
	out->tx_errors = stats.oerrors;
	out->rx_no_mbuf = stats.rx_nombuf;
	return 0;
}

static int on_event(uint16_t port, enum rte_eth_event_type type, void *arg, void *ret)
{
	const struct godwit_event_handler *handler = arg;

	(void)ret;
	handler->callback(port, type == RTE_ETH_EVENT_INTR_RMV, handler->arg);
	return 0;
}

int godwit_port_watch(uint16_t port, struct godwit_event_handler *handler)
{
	int rc = rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_LSC, on_event, handler);

	if (rc != 0)
		return rc;
	rc = rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RMV, on_event, handler);
	if (rc != 0)
		rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_LSC, on_event, handler);
	return rc;
}

int godwit_port_unwatch(uint16_t port, struct godwit_event_handler *handler)
{
	int lsc = rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_LSC, on_event, handler);
	int rmv = rte_eth_dev_callback_unregister(port, RTE_ETH_EVENT_INTR_RMV, on_event, handler);

	return lsc != 0 ? lsc : rmv;
}

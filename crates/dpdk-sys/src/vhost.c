/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests on vhost-user sockets, by librte_vhost: its callbacks with the path of their socket, what is known of a
 * ring, and the two calls of the packet path.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_net.h>
#include <rte_tcp.h>
#include <rte_udp.h>
#include <rte_version.h>
#include <rte_vhost.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include "shim.h"

#ifndef VIRTIO_F_IOMMU_PLATFORM
#define VIRTIO_F_IOMMU_PLATFORM 33
#endif
#ifndef VIRTIO_F_RING_PACKED
#define VIRTIO_F_RING_PACKED 34
#endif

_Static_assert(GODWIT_VHOST_CSUM == 1ULL << VIRTIO_NET_F_CSUM, "feature bit");
_Static_assert(GODWIT_VHOST_GUEST_CSUM == 1ULL << VIRTIO_NET_F_GUEST_CSUM, "feature bit");
_Static_assert(GODWIT_VHOST_GUEST_TSO == (1ULL << VIRTIO_NET_F_GUEST_TSO4 | 1ULL << VIRTIO_NET_F_GUEST_TSO6),
	       "feature bits");
_Static_assert(GODWIT_VHOST_HOST_TSO == (1ULL << VIRTIO_NET_F_HOST_TSO4 | 1ULL << VIRTIO_NET_F_HOST_TSO6),
	       "feature bits");
_Static_assert(GODWIT_VHOST_UFO == (1ULL << VIRTIO_NET_F_HOST_UFO | 1ULL << VIRTIO_NET_F_GUEST_UFO),
	       "feature bits");
_Static_assert(GODWIT_VHOST_ECN == (1ULL << VIRTIO_NET_F_HOST_ECN | 1ULL << VIRTIO_NET_F_GUEST_ECN),
	       "feature bits");
_Static_assert(GODWIT_VHOST_RING_PACKED == 1ULL << VIRTIO_F_RING_PACKED, "feature bit");
_Static_assert(GODWIT_VHOST_MQ == 1ULL << VIRTIO_NET_F_MQ, "feature bit");

static const struct godwit_vhost_events *told;

/* A message's head and the first word of its content, as they come over the socket. */
struct message {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	uint64_t word;
	/* Of a message on frames in flight. */
	uint64_t offset;
	uint16_t queues;
} __attribute__((packed));

/* Requests of the protocol. */
enum { SET_VRING_CALL = 13, GET_INFLIGHT_FD = 31, SET_INFLIGHT_FD = 32 };
/* A flag of a message: its sender waits for an answer. */
#define NEED_REPLY 0x8u

static int path_of(int vid, char path[PATH_MAX])
{
	return rte_vhost_get_ifname(vid, path, PATH_MAX);
}

static int new_device(int vid)
{
	char path[PATH_MAX];

	return path_of(vid, path) == 0 ? told->attached(path, vid) : -1;
}

static void destroy_device(int vid)
{
	char path[PATH_MAX];

	if (path_of(vid, path) == 0)
		told->detached(path, vid);
}

static int vring_state_changed(int vid, uint16_t ring, int enabled)
{
	char path[PATH_MAX];

	if (path_of(vid, path) == 0)
		told->ring_changed(path, vid, ring, enabled);
	return 0;
}

/*
 * Closes the files of a message that the library does not get to see. It keeps them behind the message, and says so
 * nowhere: only of this release is it known where. Unused places hold -1, without which nothing is touched.
 */
static void close_files(const struct message *m)
{
#if RTE_VERSION >= RTE_VERSION_NUM(22, 11, 0, 0) && RTE_VERSION < RTE_VERSION_NUM(23, 3, 0, 0)
	enum { PLACES = 8, CONTENT = 632 };
	int fds[PLACES + 1], n, i;

	memcpy(fds, (const uint8_t *)m + offsetof(struct message, word) + CONTENT, sizeof(fds));
	n = fds[PLACES];
	if (n <= 0 || n > PLACES)
		return;
	for (i = 0; i < PLACES; i++)
		if (i < n ? fds[i] <= STDERR_FILENO : fds[i] != -1)
			return;
	for (i = 0; i < n; i++)
		close(fds[i]);
#else
	(void)m;
#endif
}

static enum rte_vhost_msg_result before(int vid, void *msg)
{
	struct message *m = msg;
	char path[PATH_MAX];
	uint64_t word = m->size >= sizeof(word) ? m->word : 0;
	int verdict = path_of(vid, path) == 0 ? told->before(path, vid, m->request, &word) : -1;

	if (verdict < 0) {
		/* Where an answer is wanted, the library would give one and go on. */
		m->flags &= ~NEED_REPLY;
		close_files(m);
		return RTE_VHOST_MSG_RESULT_ERR;
	}
	if (verdict > 0 && m->size >= sizeof(word))
		m->word = word;
	/* Not offered, and carried out all the same, with sizes as the front end says: of no queue there are none. */
	if (m->request == GET_INFLIGHT_FD || m->request == SET_INFLIGHT_FD)
		m->queues = 0;
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

/*
 * A worker signals the guest by a file that the front end gives, and would wait where that one is full. Front ends give
 * files that nobody waits for; others are made so.
 */
static void never_wait(int vid, uint16_t ring)
{
	struct rte_vhost_vring vring;
	int flags;

	if (rte_vhost_get_vhost_vring(vid, ring, &vring) != 0 || vring.callfd < 0)
		return;
	flags = fcntl(vring.callfd, F_GETFL);
	if (flags >= 0 && (flags & O_NONBLOCK) == 0)
		fcntl(vring.callfd, F_SETFL, flags | O_NONBLOCK);
}

static enum rte_vhost_msg_result after(int vid, void *msg)
{
	struct message *m = msg;
	char path[PATH_MAX];

	if (m->request == SET_VRING_CALL)
		never_wait(vid, m->word & 0xff);
	if (path_of(vid, path) == 0)
		told->after(path, vid, m->request, m->size >= sizeof(m->word) ? m->word : 0);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static const struct rte_vhost_user_extern_ops messages = {
	.pre_msg_handle = before,
	.post_msg_handle = after,
};

static int new_connection(int vid)
{
	char path[PATH_MAX];

	if (path_of(vid, path) != 0 || rte_vhost_extern_callback_register(vid, &messages, NULL) != 0)
		return -1;
	return told->connected(path, vid);
}

static void destroy_connection(int vid)
{
	char path[PATH_MAX];

	if (path_of(vid, path) == 0)
		told->disconnected(path, vid);
}

static const struct rte_vhost_device_ops callbacks = {
	.new_device = new_device,
	.destroy_device = destroy_device,
	.vring_state_changed = vring_state_changed,
	.new_connection = new_connection,
	.destroy_connection = destroy_connection,
};

/* One pair of queues alone: the message that asks for their number, and the feature that says there are several. */
static int withhold_multiqueue(const char *path)
{
	uint64_t protocol;

	if (rte_vhost_driver_get_protocol_features(path, &protocol) != 0)
		return -1;
	protocol &= ~(1ULL << VHOST_USER_PROTOCOL_F_MQ);
	return rte_vhost_driver_set_protocol_features(path, protocol) != 0
		       ? -1
		       : rte_vhost_driver_disable_features(path, GODWIT_VHOST_MQ);
}

int godwit_vhost_open(const char *path, uint32_t options, uint64_t withheld,
		      const struct godwit_vhost_events *events)
{
	/* Our rings count by themselves: the library's statistics look into each frame. */
	uint64_t flags = RTE_VHOST_USER_NET_COMPLIANT_OL_FLAGS;

	told = events;
	if ((options & GODWIT_VHOST_CLIENT) != 0)
		flags |= RTE_VHOST_USER_CLIENT;
	if ((options & GODWIT_VHOST_IOMMU) != 0)
		flags |= RTE_VHOST_USER_IOMMU_SUPPORT;
	if ((options & GODWIT_VHOST_POSTCOPY) != 0)
		flags |= RTE_VHOST_USER_POSTCOPY_SUPPORT;
	if ((options & GODWIT_VHOST_LINEAR) != 0)
		flags |= RTE_VHOST_USER_LINEARBUF_SUPPORT;
	if ((options & GODWIT_VHOST_EXTBUF) != 0)
		flags |= RTE_VHOST_USER_EXTBUF_SUPPORT;
	if (rte_vhost_driver_register(path, flags) != 0)
		return -EIO;
	if (rte_vhost_driver_disable_features(path, withheld) != 0 ||
	    ((options & GODWIT_VHOST_ONE_PAIR) != 0 && withhold_multiqueue(path) != 0) ||
	    rte_vhost_driver_callback_register(path, &callbacks) != 0 || rte_vhost_driver_start(path) != 0) {
		rte_vhost_driver_unregister(path);
		return -EIO;
	}
	return 0;
}

int godwit_vhost_close(const char *path) { return rte_vhost_driver_unregister(path) == 0 ? 0 : -ENOENT; }

void godwit_vhost_stop_kicks(int vid)
{
	uint16_t rings = rte_vhost_get_vring_num(vid), ring;

	for (ring = 0; ring < rings; ring++)
		rte_vhost_enable_guest_notification(vid, ring, 0);
}

int godwit_vhost_features(int vid, uint64_t *features)
{
	return rte_vhost_get_negotiated_features(vid, features) == 0 ? 0 : -ENOTCONN;
}

/* `size` bytes at `at` lie in one of the guest's regions as they are mapped. */
static int mapped(const struct rte_vhost_memory *memory, const void *at, uint64_t size)
{
	uint64_t start = (uintptr_t)at;
	uint32_t i;

	for (i = 0; i < memory->nregions; i++) {
		const struct rte_vhost_mem_region *r = &memory->regions[i];

		if (start >= r->host_user_addr && size <= r->size && start - r->host_user_addr <= r->size - size)
			return 1;
	}
	return 0;
}

int godwit_vhost_ring(int vid, uint16_t ring, struct godwit_vhost_ring *out)
{
	struct rte_vhost_memory *memory;
	struct rte_vhost_vring vring;
	uint64_t features, size;
	uint16_t avail, used;
	int sound;

	memset(out, 0, sizeof(*out));
	if (rte_vhost_get_negotiated_features(vid, &features) != 0 ||
	    rte_vhost_get_vhost_vring(vid, ring, &vring) != 0 ||
	    rte_vhost_get_vring_base(vid, ring, &avail, &used) != 0)
		return -ENOTCONN;
	size = vring.size;
	if (size == 0)
		return -EINVAL;
	out->packed = (features & GODWIT_VHOST_RING_PACKED) != 0;
	out->size = vring.size;
	if (out->packed && ((avail & 0x7fff) >= size || (used & 0x7fff) >= size))
		return -EINVAL;
	/* Behind an IOMMU the library translates addresses at each use, and they are nothing to hold on to. */
	if ((features & 1ULL << VIRTIO_F_IOMMU_PLATFORM) != 0)
		return 0;
	if (rte_vhost_get_mem_table(vid, &memory) != 0)
		return -ENOTCONN;
	if (out->packed) {
		sound = mapped(memory, vring.desc_packed, size * 16) && mapped(memory, vring.driver_event, 4) &&
			mapped(memory, vring.device_event, 4);
		out->base = vring.desc_packed;
	} else {
		sound = mapped(memory, vring.desc, size * 16) && mapped(memory, vring.avail, 4 + size * 2) &&
			mapped(memory, vring.used, 4 + size * 8);
		out->base = &vring.avail->idx;
	}
	free(memory);
	return sound ? 0 : -EFAULT;
}

uint32_t godwit_vhost_memory(int vid, struct godwit_vhost_piece *out, uint32_t max)
{
	struct rte_vhost_memory *memory;
	struct stat file;
	uint32_t n, i;

	if (rte_vhost_get_mem_table(vid, &memory) != 0)
		return 0;
	n = RTE_MIN(memory->nregions, max);
	for (i = 0; i < n; i++) {
		const struct rte_vhost_mem_region *r = &memory->regions[i];

		out[i].start = (uintptr_t)r->mmap_addr;
		out[i].len = r->mmap_size;
		out[i].page = fstat(r->fd, &file) == 0 ? (uint64_t)file.st_blksize : 0;
	}
	free(memory);
	return n;
}

int godwit_vhost_log(int vid, struct godwit_vhost_piece *out)
{
	memset(out, 0, sizeof(*out));
	return rte_vhost_get_log_base(vid, &out->start, &out->len) == 0 ? 0 : -ENOTCONN;
}

uint16_t godwit_vhost_position(int vid, uint16_t ring)
{
	uint16_t avail = 0, used = 0;

	rte_vhost_get_vring_base(vid, ring, &avail, &used);
	return avail;
}

uint16_t godwit_vhost_rx(int vid, uint16_t ring, struct rte_mempool *pool, struct godwit_mbuf **out, uint16_t n)
{
	return rte_vhost_dequeue_burst(vid, ring, pool, (struct rte_mbuf **)out, n);
}

uint16_t godwit_vhost_tx(int vid, uint16_t ring, struct godwit_mbuf **pkts, uint16_t n)
{
	return rte_vhost_enqueue_burst(vid, ring, (struct rte_mbuf **)pkts, n);
}

int godwit_mbuf_finish_checksum(struct godwit_mbuf *mbuf)
{
	struct rte_mbuf *m = (struct rte_mbuf *)mbuf;
	uint32_t headers = m->l2_len + m->l3_len, at;
	uint16_t sum;
	int udp;

	switch (m->ol_flags & RTE_MBUF_F_TX_L4_MASK) {
	case RTE_MBUF_F_TX_TCP_CKSUM:
		at = headers + offsetof(struct rte_tcp_hdr, cksum);
		udp = 0;
		break;
	case RTE_MBUF_F_TX_UDP_CKSUM:
		at = headers + offsetof(struct rte_udp_hdr, dgram_cksum);
		udp = 1;
		break;
	default:
		return 0;
	}
	/* The sum of the pseudo-header goes into the field, and is summed up with the rest. */
	if (rte_pktmbuf_data_len(m) < at + sizeof(sum) || rte_net_intel_cksum_prepare(m) < 0 ||
	    rte_raw_cksum_mbuf(m, headers, rte_pktmbuf_pkt_len(m) - headers, &sum) < 0)
		return -EINVAL;
	sum = (uint16_t)~sum;
	if (udp && sum == 0)
		sum = 0xffff;
	memcpy(rte_pktmbuf_mtod_offset(m, void *, at), &sum, sizeof(sum));
	m->ol_flags &= ~(RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IPV6);
	return 0;
}

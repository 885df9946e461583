/* SPDX-License-Identifier: Apache-2.0
 *
 * Bonds. Their driver is a plugin of EAL's, which nobody links: its functions are looked up where it is
 * loaded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>

#include <rte_eth_bond.h>
#include <rte_eth_bond_8023ad.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "shim.h"

/* A function of the library that a bond's driver is in; NULL where the port is gone or is no bond. */
static void *bond_function(uint16_t bond, const char *name)
{
	struct rte_eth_dev_info info;
	void *lib, *function;
	Dl_info where;

	/* The driver's name is a constant of its library. */
	if (rte_eth_dev_info_get(bond, &info) != 0 || info.driver_name == NULL ||
	    dladdr((const void *)info.driver_name, &where) == 0)
		return NULL;
	lib = dlopen(where.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
	if (lib == NULL)
		return NULL;
	function = dlsym(lib, name);
	/* Loaded by somebody else, so this only gives our own reference back. */
	dlclose(lib);
	return function;
}

int godwit_bond_add(uint16_t bond, uint16_t member)
{
	int (*add)(uint16_t, uint16_t);

	*(void **)&add = bond_function(bond, "rte_eth_bond_slave_add");
	return add == NULL ? -ENOTSUP : add(bond, member) == 0 ? 0 : -EINVAL;
}

int godwit_bond_carries(uint16_t bond, uint16_t member)
{
	const int both = STATE_COLLECTING | STATE_DISTRIBUTING;
	int (*lacp)(uint16_t, uint16_t, struct rte_eth_bond_8023ad_slave_info *);
	int (*number)(uint16_t);
	struct rte_eth_bond_8023ad_slave_info info;

	*(void **)&number = bond_function(bond, "rte_eth_bond_mode_get");
	if (number == NULL)
		return -ENOTSUP;
	if (number(bond) != BONDING_MODE_8023AD) {
		*(void **)&number = bond_function(bond, "rte_eth_bond_primary_get");
		return number == NULL ? -ENOTSUP : number(bond) == member;
	}
	*(void **)&lacp = bond_function(bond, "rte_eth_bond_8023ad_slave_info");
	if (lacp == NULL)
		return -ENOTSUP;
	/* It knows nothing of a member whose link is down. */
	return lacp(bond, member, &info) == 0 && (info.actor_state & both) == both;
}

/* Sets the timeout's bit in the sender's state of each LACP frame: short. */
static uint16_t ask_for_short_timeouts(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t n,
				       void *arg)
{
	uint16_t i;

	for (i = 0; i < n; i++) {
		uint8_t *f = rte_pktmbuf_mtod(frames[i], uint8_t *);

		/* Slow protocols, LACP; the state is in byte 18 of the protocol's own. */
		if (frames[i]->data_len > 32 && f[12] == 0x88 && f[13] == 0x09 && f[14] == 1)
			f[32] |= STATE_LACP_SHORT_TIMEOUT;
	}
	return n;
}

int godwit_bond_short_timeouts(uint16_t bond)
{
	int (*get)(uint16_t, struct rte_eth_bond_8023ad_conf *);
	int (*set)(uint16_t, struct rte_eth_bond_8023ad_conf *);
	struct rte_eth_bond_8023ad_conf conf;

	*(void **)&get = bond_function(bond, "rte_eth_bond_8023ad_conf_get");
	*(void **)&set = bond_function(bond, "rte_eth_bond_8023ad_setup");
	if (get == NULL || set == NULL)
		return -ENOTSUP;
	if (get(bond, &conf) != 0)
		return -EINVAL;
	/* It wants this one to be the longer. */
	conf.long_timeout_ms = conf.short_timeout_ms + 1;
	return set(bond, &conf) == 0 ? 0 : -EINVAL;
}

int godwit_bond_say_short(uint16_t member, uint16_t queues)
{
	uint16_t queue;

	for (queue = 0; queue < queues; queue++)
		if (rte_eth_add_tx_callback(member, queue, ask_for_short_timeouts, NULL) == NULL)
			return -ENOTSUP;
	return 0;
}

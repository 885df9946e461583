/* SPDX-License-Identifier: Apache-2.0
 * What bindgen reads. The allow-lists in build.rs pick from it.
 */
#include "shim.h"

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

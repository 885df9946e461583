#!/bin/sh
# The guest's first program: mounts, modules, then the lab's agent, with which the guest ends.
export PATH=/usr/bin:/usr/sbin
# The kernel's first root folder is open to all, which some programs refuse to live in.
chmod 755 /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
# Addresses are usable at once, and nobody here advertises routes. Before the cards come, which copy this.
for conf in default all; do
    echo 0 >/proc/sys/net/ipv6/conf/$conf/accept_dad
    echo 0 >/proc/sys/net/ipv6/conf/$conf/accept_ra
    echo 0 >/proc/sys/net/ipv6/conf/$conf/router_solicitations
done
while read -r module parameters; do
    # shellcheck disable=SC2086 # parameters are words
    insmod "$module" $parameters || echo "guest: $module could not be loaded"
done </etc/modules
ip link set lo up
for port in /sys/class/virtio-ports/*; do
    if [ "$(cat "$port/name")" = agent ]; then
        echo "guest: up after $(cut -d ' ' -f 1 /proc/uptime) s"
        godwit-agent agent --device "/dev/${port##*/}"
    fi
done
echo "guest: no agent any more"
poweroff -f

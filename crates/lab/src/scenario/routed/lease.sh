#!/bin/sh
# What udhcpc calls in a guest: takes the address, and writes down what was said.
# shellcheck disable=SC2154 # udhcpc sets them
case $1 in
    bound)
        ip addr add "$ip/$mask" dev "$interface"
        ip route add default via "${router%% *}"
        ;;
    renew) ;;
    *) exit 0 ;;
esac
echo "$1 $ip $router $lease ${mtu:-none}" >>/tmp/leases

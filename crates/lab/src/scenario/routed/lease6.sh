#!/bin/sh
# What dhclient calls in a guest: takes the address, and writes it down.
# shellcheck disable=SC2154 # dhclient sets them
case $reason in
    BOUND6 | RENEW6 | REBIND6)
        ip -6 addr show dev "$interface" | grep -q "inet6 $new_ip6_address/" ||
            ip -6 addr add "$new_ip6_address/128" dev "$interface"
        echo "$new_ip6_address" >>/tmp/leases6
        ;;
esac
exit 0

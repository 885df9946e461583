# shellcheck shell=bash disable=SC2034
# Shared by the scripts: what a machine needs and how it comes to have it. To be sourced by bash.
# Nothing here changes what is already right, and everything that changes the machine says so.

# Where the project is, whatever the caller's folder.
GODWIT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# To build: DPDK with its drivers, and what its bindings are generated with.
GODWIT_BUILD_PACKAGES=(gcc libc6-dev libdpdk-dev dpdk libclang-dev clang pkg-config)
# To run the lab.
GODWIT_LAB_PACKAGES=(iproute2 ethtool tcpdump iputils-ping traceroute)
# To run real guests in it. Their kernel is fetched and unpacked by the lab itself, never installed.
GODWIT_GUEST_PACKAGES=(qemu-system-x86 busybox-static isc-dhcp-client)
# To run the scenarios "fabric" and "addresses": who bonds, tags and routes at the other end, and keepalived. They bring
# services of their own, which must not start: see install_quietly.
GODWIT_FABRIC_PACKAGES=(openvswitch-switch frr keepalived)
# To run the scenario "libvirt". They bring services of their own, too.
GODWIT_LIBVIRT_PACKAGES=(libvirt-daemon-system libvirt-clients python3)
# To run the whole test suite.
GODWIT_TEST_PACKAGES=(dpdk-dev tshark python3-scapy iperf3 iputils-ping lua5.4)
# To compare speeds: dpdk-testpmd is in dpdk-dev, stdbuf in coreutils.
GODWIT_BENCH_PACKAGES=(dpdk dpdk-dev openvswitch-switch-dpdk valgrind)

# Pages of 2 MB: three switches take 64 each, and there is room for a few more.
GODWIT_HUGEPAGES=${GODWIT_HUGEPAGES:-512}

say() { printf '==> %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 2; }

need_root() {
    [ "$(id -u)" -eq 0 ] && return
    die "the lab makes network namespaces and taps: run it as root, with 'sudo $0' say"
}

need_cargo() {
    local user_home
    # sudo clears the path, and rustup installs in a home folder.
    user_home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    PATH=$PATH:$HOME/.cargo/bin:$user_home/.cargo/bin
    export PATH
    # A toolchain that belongs to the user who called sudo is found through their rustup.
    if [ -n "${SUDO_USER:-}" ] && [ -z "${RUSTUP_HOME:-}" ] && [ -d "$user_home/.rustup" ]; then
        export RUSTUP_HOME=$user_home/.rustup
    fi
    command -v cargo >/dev/null && return
    die "there is no cargo: install Rust 1.95 or newer (https://rustup.rs) and run this again"
}

# need_space GIGABYTES: a build that runs out of disk fails in the middle, with an error that names neither
# the disk nor what to do.
need_space() {
    local folder have
    folder=$(cd "$GODWIT_ROOT" && realpath -m "${CARGO_TARGET_DIR:-target}")
    mkdir -p "$folder" || die "cannot make $folder: set CARGO_TARGET_DIR to a folder that can be written"
    # What an earlier build left there need not be made again.
    have=$(du -sm "$folder" | cut -f1)
    have=$((have + $(df -Pm "$folder" | awk 'NR == 2 {print $4}')))
    [ "$have" -ge $(($1 * 1024)) ] && return
    die "the build takes $1 GB and $folder has room for $((have / 1024)): free some, or set CARGO_TARGET_DIR \
to a folder on another disk"
}

# install_missing PACKAGE...: installs those that are not there, and only those.
install_missing() {
    local package missing=()
    command -v dpkg-query >/dev/null || {
        say "this is no Debian: make sure yourself that you have the equivalents of: $*"
        return
    }
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || die "apt-get update failed: is the machine online?"
    # What dpkg has to say is of interest only where it fails.
    local log
    log=$(mktemp)
    if ! apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        rm -f "$log"
        die "could not install ${missing[*]}: see above"
    fi
    rm -f "$log"
    say "installed"
}

# Sets hugepages aside if there is memory to spare. The switches do without where there are none.
set_hugepages() {
    local file=/proc/sys/vm/nr_hugepages size_kb wanted_kb free_kb have
    [ -r "$file" ] || { say "this kernel has no hugepages: the switches use ordinary memory"; return; }
    have=$(cat "$file")
    if [ "$have" -lt "$GODWIT_HUGEPAGES" ]; then
        size_kb=$(awk '/^Hugepagesize:/ {print $2}' /proc/meminfo)
        free_kb=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
        wanted_kb=$(((GODWIT_HUGEPAGES - have) * size_kb))
        if [ "$((wanted_kb * 3))" -gt "$free_kb" ]; then
            say "too little free memory for hugepages: the switches use ordinary memory \
where $have pages do not suffice"
            return
        fi
        if ! echo "$GODWIT_HUGEPAGES" 2>/dev/null >"$file"; then
            say "hugepages cannot be set here: the switches use ordinary memory"
            return
        fi
        say "hugepages: vm.nr_hugepages was $have, is $(cat "$file") now (until the next boot)"
    fi
    grep -q ' hugetlbfs ' /proc/mounts && return
    if mkdir -p /dev/hugepages && mount -t hugetlbfs nodev /dev/hugepages 2>/dev/null; then
        say "hugepages: mounted at /dev/hugepages"
    else
        say "hugetlbfs cannot be mounted: the switches use ordinary memory"
    fi
}

# The folder that release programs are built into.
release_dir() {
    (cd "$GODWIT_ROOT" && printf '%s/release\n' "$(realpath -m "${CARGO_TARGET_DIR:-target}")")
}

# install_quietly PACKAGE...: as install_missing, but what is installed starts no service of its own:
# the contenders run with directories, sockets and cores that the comparison chooses.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d unit=openvswitch-switch.service fresh="" mine=""
    dpkg-query -W openvswitch-switch >/dev/null 2>&1 || fresh=1
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        mine=1
    fi
    # In a subshell: install_missing ends the shell where it fails, and the policy must not stay.
    (install_missing "$@") || { [ -z "$mine" ] || rm -f "$policy"; exit 2; }
    [ -z "$mine" ] || rm -f "$policy"
    # Nor at the next boot, unless this machine had OVS before.
    if [ -n "$fresh" ] && command -v systemctl >/dev/null; then
        systemctl disable --quiet "$unit" 2>/dev/null || :
    fi
}

# Builds the programs, and the library that plays captures; cargo shows how far it is.
build_release() {
    need_space 3
    say "building (the first time takes some minutes)"
    (cd "$GODWIT_ROOT" && cargo build --release -p godwit -p godwit-nva -p godwit-ctl -p godwit-lab -p godwit-bench) ||
        die "the build failed: see above"
}

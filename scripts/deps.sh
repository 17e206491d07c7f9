#!/usr/bin/env bash
# Installs the Debian packages that the lab uses, with --test what the tests need
# beyond (the race detector, other routers, Linux as a customer), with --peers what
# the bench compares with. Idempotent: with everything there it changes
# nothing, asks no network and needs no root.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin

# What each package is wanted for: a command, or a file by its path.
wanted=(
	frr:/usr/lib/frr/bgpd
	iperf3:iperf3
	iproute2:ip
	iputils-ping:ping
	traceroute:traceroute
	tcpdump:tcpdump
	ethtool:ethtool
	make:make
	git:git
	ca-certificates:/etc/ssl/certs/ca-certificates.crt
)
[ "${1:-}" != --peers ] || wanted+=(
	openvswitch-switch:/usr/lib/openvswitch-switch/ovs-vswitchd
	openvswitch-switch-dpdk:/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk
	dpdk-dev:dpdk-testpmd
)
[ "${1:-}" != --test ] || wanted+=(
	gcc:gcc
	libc6-dev:/usr/include/stdio.h
	bird2:bird
	user-mode-linux:linux.uml
	kmod:insmod
	wpasupplicant:wpa_supplicant
	nftables:nft
)

fail() {
	echo "deps: $*" >&2
	exit 1
}

# missing prints the packages whose command or file is not there.
missing() {
	local entry want
	for entry in "${wanted[@]}"; do
		want=${entry#*:}
		case $want in
		/*) [ -e "$want" ] ;;
		*) command -v "$want" >/dev/null ;;
		esac || echo "${entry%%:*}"
	done
}

# start_no_service keeps the packages' maintainer scripts from starting daemons
# while this script runs (frr would run zebra in the machine's own namespace).
# A policy that is already there stays as it is.
policy=/usr/sbin/policy-rc.d
start_no_service() {
	local mark="# made by msee's deps.sh, which removes it when it ends"
	if ! (set -o noclobber && printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >$policy) 2>/dev/null; then
		grep -qsF "$mark" $policy || return 0 # somebody else's; else left by a run that was killed
	fi
	trap 'rm -f $policy' EXIT
	chmod 755 $policy
}

scripts/go-path.sh >/dev/null # says itself what is wrong

mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0
command -v apt-get >/dev/null || fail "this is no Debian or Ubuntu (no apt-get); install what provides: ${packages[*]}"
[ "$(id -u)" = 0 ] || fail "missing packages: ${packages[*]}. To install them: sudo $0 $*"

echo "deps: installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt=(apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0)
start_no_service
"${apt[@]}" update || echo "deps: apt-get update failed, trying with the lists there are" >&2
"${apt[@]}" install --yes --no-install-recommends "${packages[@]}"

# The lab starts FRR's daemons itself, the tests BIRD's; the services are not
# wanted at boot either.
for entry in frr:frr bird2:bird; do
	if [[ " ${packages[*]} " == *" ${entry%:*} "* ]] && command -v systemctl >/dev/null; then
		systemctl disable --quiet "${entry#*:}" || true
	fi
done

mapfile -t packages < <(missing)
[ ${#packages[@]} -eq 0 ] || fail "installed, but still without what is wanted of: ${packages[*]}"

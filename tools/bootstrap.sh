#!/bin/sh
# Makes a fresh Debian 12 ready for hushwire, and does nothing where nothing is to do.
#
#   tools/bootstrap.sh demo    what running and `make demo` need
#   tools/bootstrap.sh test    that, and what the tests need: the peers, a User-Mode Linux kernel, tshark
#
# 1. Debian packages, by apt.  Only root can; anybody else is told what to install.
# 2. .venv, a virtual environment of Debian's own Python, with exactly the packages of requirements.lock, checked by hash.
# 3. hushwire itself, editable, in .venv.
#
# Steps 2 and 3 leave stamps in .venv and are done again when requirements.lock or pyproject.toml changes.
set -eu
cd "$(dirname "$0")/.."

demo_packages="python3-venv ca-certificates libunbound8 dns-root-data iproute2 iputils-ping ethtool kmod procps
    util-linux uidmap nftables knot knot-dnsutils curl"
test_packages="linux-libc-dev user-mode-linux charon-systemd strongswan-swanctl libcharon-extra-plugins
    libstrongswan-standard-plugins libstrongswan-extra-plugins openiked tshark tcpdump iperf3 openssh-server openssh-client
    bird2 exim4-daemon-light
    bind9 bind9-utils bind9-dnsutils pdns-server pdns-backend-sqlite3 sqlite3 unbound systemd-resolved libnet-dns-sec-perl
    libnss3-tools libnss3 libldns3 libevent-pthreads-2.1-7 libcap-ng0 libcurl3-nss libldap-2.5-0 libaudit1 libpam0g"
# The services in them.  They are only ever run by the tests, so they shall start neither now nor at the next boot.
services="knot strongswan openiked ssh named pdns unbound systemd-resolved bird exim4 exim4-base"

policy=/usr/sbin/policy-rc.d
policy_mark="# Written by hushwire's tools/bootstrap.sh while it installs; may be deleted."

main() {
    case "${1:-}" in
    demo) wanted=$demo_packages ;;
    test) wanted="$demo_packages $test_packages" ;;
    *) fail "say which set: tools/bootstrap.sh demo|test" ;;
    esac
    mkdir -p build
    exec 9>build/bootstrap.lock
    flock 9
    debian_packages
    [ "$1" = demo ] || libreswan
    virtual_environment
    project
}

debian_packages() {
    missing=""
    for package in $wanted; do
        installed "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || fail "these Debian packages are missing; install them as root with: apt-get install --no-install-recommends$missing"
    fresh=""
    for service in $services; do
        [ -e "/lib/systemd/system/$service.service" ] || [ -e "/etc/init.d/$service" ] || fresh="$fresh $service"
    done
    trap allow_services EXIT
    trap 'exit 1' HUP INT TERM
    forbid_services
    export DEBIAN_FRONTEND=noninteractive
    say "Debian packages to install:$missing"
    long "Reading Debian's package lists" apt-get update
    # A host whose mail is another agent's keeps that: nothing is removed.
    # shellcheck disable=SC2086  # A list of words.
    long "Installing Debian packages" apt-get install -y --no-install-recommends --no-remove $missing
    # What `systemctl disable` does, which a container without systemd does not have.
    for service in $fresh; do
        rm -f /etc/systemd/system/*.wants/"$service.service" /etc/systemd/system/*.wants/"$service.timer" /etc/rc?.d/S??"$service"
    done
    # As it is installed, systemd-resolved takes over whom this host asks.
    taken=/etc/.resolv.conf.systemd-resolved.bak
    case "$fresh" in
    *systemd-resolved*) [ ! -f $taken ] || { rm -f /etc/resolv.conf && mv $taken /etc/resolv.conf; } ;;
    esac
    allow_services
}

# A Debian package that strongSwan's excludes, so it is unpacked and not installed; test_packages has what it needs.
libreswan() {
    [ ! -x build/libreswan/usr/libexec/ipsec/pluto ] || return 0
    rm -rf build/libreswan build/libreswan_*.deb
    long "Fetching libreswan" sh -c 'cd build; apt-get download libreswan || { apt-get update; apt-get download libreswan; }'
    long "Unpacking libreswan" dpkg-deb -x build/libreswan_*.deb build/libreswan
}

virtual_environment() {
    stamp=.venv/.lock.stamp
    if cmp -s requirements.lock "$stamp"; then return; fi
    [ -x .venv/bin/python ] || long "Creating the virtual environment .venv" /usr/bin/python3 -m venv .venv
    long "Installing the Python packages of requirements.lock" \
        .venv/bin/python -m pip install --disable-pip-version-check --no-input --require-hashes --only-binary=:all: --no-deps \
        -r requirements.lock
    cp requirements.lock "$stamp"
    rm -f .venv/.project.stamp
}

project() {
    stamp=.venv/.project.stamp
    if cmp -s pyproject.toml "$stamp"; then return; fi
    long "Installing hushwire itself, editable" \
        .venv/bin/python -m pip install --disable-pip-version-check --no-input --no-index --no-deps --no-build-isolation -e .
    cp pyproject.toml "$stamp"
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian asks policy-rc.d before a package starts its service; 101 means no.  One that is not ours is left alone.
forbid_services() {
    [ -e $policy ] || { printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >$policy && chmod 755 $policy; }
}

allow_services() {
    ! grep -qsF "$policy_mark" $policy || rm -f $policy
}

# Runs a command with its output in a file, shows that it lives, and shows the file's end if it fails.
long() {
    title=$1
    shift
    log=build/bootstrap.log
    say "$title"
    "$@" >$log 2>&1 </dev/null 9>&- &
    worker=$!
    seconds=0
    while kill -0 $worker 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        [ $((seconds % 10)) -ne 0 ] || say "  $seconds s: $(tail -n 1 $log | cut -c 1-90)"
    done
    wait $worker || {
        tail -n 20 $log >&2
        fail "$title failed; all it said is in $log"
    }
}

say() {
    printf '[bootstrap] %s\n' "$1"
}

fail() {
    printf '[bootstrap] %s\n' "$1" >&2
    exit 1
}

main "$@"

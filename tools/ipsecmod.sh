#!/bin/sh
# hushwire's hook behind an unbound that has ipsecmod, as root.  Debian's unbound is built without it, so the same
# version is built here from Debian's source package, in a temporary directory.  Nothing but what it takes to build is
# installed.  Some two minutes.
set -eu
cd "$(dirname "$0")/.."
root=$PWD

missing=""
for package in dpkg-dev gcc make bison flex libssl-dev libexpat1-dev unbound; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' $package 2>/dev/null)" = installed ] || missing="$missing $package"
done
# shellcheck disable=SC2086  # A list of words.
[ -z "$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$build/lists/partial" "$build/cache/archives/partial"
# The archives that packages come from have their sources, too; this host's own lists stay as they are.
apt-get indextargets 'Created-By: Packages' 'Origin: Debian' \
    --format 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(REPO_URI) $(RELEASE) $(COMPONENT)' |
    sort -u >"$build/sources.list"
cd "$build"
sources() {
    apt-get -qq -o Dir::Etc::SourceList="$build/sources.list" -o Dir::Etc::SourceParts=- -o APT::Sandbox::User=root \
        -o Dir::State::Lists="$build/lists" -o Dir::Cache="$build/cache" "$@" >"$build/log" 2>&1 || failed
}
failed() {
    tail -n 20 "$build/log" >&2
    exit 1
}
version=$(dpkg-query -W -f '${Version}' unbound)
sources update
sources source "unbound=$version"
cd unbound-*/
options="--enable-ipsecmod --disable-shared --disable-flto"
# shellcheck disable=SC2086  # A list of words.
{ ./configure $options && make -j2 unbound; } >"$build/log" 2>&1 || failed
printf 'unbound %s from Debian'"'"'s source package, ./configure %s\n' "$version" "$options"
cd "$root"
.venv/bin/python -m hushwire.lab.ipsecmod "$build"/unbound-*/unbound

#!/bin/sh
# The lab's tests of synthetic addresses and of latching with the kernel plane, in a kernel that has ESP and nftables and
# ends connections: the distribution's own, under QEMU.  It takes some minutes.  What it wants beside the test packages:
# qemu-system-x86, busybox-static, linux-image-amd64, and virtme-ng (from PyPI) on the PATH.
#
#   tools/in-the-kernel.sh [TESTS...]    files or tests, as pytest has them
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" = inside ]; then
    for module in esp4 esp6 xfrm_user gcm seqiv nf_tables nft_chain_nat veth tun; do
        modprobe "$module" 2>/dev/null || true
    done
    ip link set lo up
    mkdir -p /run/netns
    uname -srv
    shift
    # All is some twenty times slower here, to start a daemon above all.
    HUSHWIRE_PLANE=kernel PYTHONDONTWRITEBYTECODE=1 exec .venv/bin/python -c '
import sys, pytest, hushwire.lab.hushwire as lab
lab.START = 240.0
sys.exit(pytest.main(["-v", "-p", "no:cacheprovider", *sys.argv[1:]]))
' "$@"
fi
[ $# -gt 0 ] || set -- tests/lab/kernel_names.py tests/lab/test_synthetic.py \
    tests/lab/test_diag.py tests/lab/test_stranger_attacks.py::test_row_54_a_connection_with_one_goes_on_with_no_other
kernel=$(ls /boot/vmlinuz-*-amd64 | sort -V | tail -n 1)
exec vng --disable-kvm --run "$kernel" --cpus 2 --memory 3G --user root --rw -- "$PWD/tools/in-the-kernel.sh inside $*"

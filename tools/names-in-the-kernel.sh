#!/bin/sh
# The lab's tests of synthetic addresses with the kernel plane, in a kernel that has both ESP and nftables: the
# distribution's own, under QEMU.  It takes some minutes.  What it wants beside the test packages: qemu-system-x86,
# busybox-static, linux-image-amd64, and virtme-ng (from PyPI) on the PATH.
set -eu
cd "$(dirname "$0")/.."

if [ "${1:-}" = inside ]; then
    for module in esp4 esp6 xfrm_user gcm seqiv nf_tables nft_chain_nat veth tun; do
        modprobe "$module" 2>/dev/null || true
    done
    ip link set lo up
    mkdir -p /run/netns
    uname -srv
    # All is some twenty times slower here, to start a daemon above all.
    HUSHWIRE_PLANE=kernel PYTHONDONTWRITEBYTECODE=1 exec .venv/bin/python -c '
import sys, pytest, hushwire.lab.hushwire as lab
lab.START = 240.0
sys.exit(pytest.main(["-v", "-p", "no:cacheprovider", "tests/lab/kernel_names.py", "tests/lab/test_synthetic.py"]))
'
fi
kernel=$(ls /boot/vmlinuz-*-amd64 | sort -V | tail -n 1)
exec vng --disable-kvm --run "$kernel" --cpus 2 --memory 3G --user root --rw -- "$PWD/tools/names-in-the-kernel.sh inside"

#!/bin/sh
# Runs the tests in three phases, the fast ones first, and stops at the first phase that fails.
#
#   tools/test.sh [fast|lab|uml ...]    all three by default
#
# fast: pure code, in parallel.  lab: network namespaces, as root.  uml: inside a User-Mode Linux kernel.
#
# Lab and kernel tests share a machine with each other and with who knows whom, and real peers have timers of their own:
# up to FEW that failed are run once more, alone, and both results are told.  A fast test has no second chance.
set -eu
FEW=3
cd "$(dirname "$0")/.."

main() {
    [ $# -gt 0 ] || set -- fast lab uml
    for phase in "$@"; do
        case "$phase" in
        fast) run fast "Fast tests" "not lab and not uml" -n 2 ;;
        # A file's tests stay together: each has its own namespaces, or its own kernel, and waits a good part of its time.
        lab) run lab "Lab tests (network namespaces)" "lab and not uml" -n 6 --dist loadfile ;;
        uml) run uml "Kernel tests (User-Mode Linux)" "uml" -n 4 --dist loadfile ;;
        *) printf 'tools/test.sh: no phase %s; there are fast, lab and uml\n' "$phase" >&2 && exit 2 ;;
        esac
    done
}

run() {
    name=$1 title=$2 marks=$3
    shift 3
    printf '\n=== %s ===\n' "$title"
    start=$(date +%s)
    status=0
    .venv/bin/python -m pytest -q -m "$marks" -o cache_dir="build/tests/$name" --cache-clear --durations=12 "$@" </dev/null || status=$?
    if [ $status -eq 1 ] && [ "$name" != fast ] && [ "$(failed "$name" | wc -l)" -le $FEW ]; then
        printf '\n=== %s: once more, alone ===\n' "$title"
        failed "$name"
        status=0
        .venv/bin/python -m pytest -q -m "$marks" -o cache_dir="build/tests/$name" --last-failed </dev/null || status=$?
    fi
    # pytest says 5 when it ran no test.  That is well only where no test of this kind has been written.
    if [ $status -eq 5 ] && ! grep -rqE "mark\.$name\b" --include='*.py' tests; then
        printf 'No test carries this mark.\n'
        status=0
    fi
    printf '=== %s: %s, %s s ===\n' "$title" "$([ $status -eq 0 ] && echo passed || echo FAILED)" $(($(date +%s) - start))
    return $status
}

failed() {
    sed -n 's/^  "\(.*\)": true,*$/\1/p' "build/tests/$1/v/cache/lastfailed"
}

main "$@"

#!/bin/sh
# Runs all tests, from the project's root: tests/run.sh [NAME ...]
# Builds and runs tests/test_*.c (or only test_NAME ...), then tests/builds.sh.  The last line is the sum of all their
# last lines: N passed, N failed[, N skipped].  Why something is skipped is printed before it.
set -u

passed=0 failed=0 skipped=0
logs=build/logs
sum='^[0-9]* passed, [0-9]* failed\(, [0-9]* skipped\)\{0,1\}$'

add() { # add LINE: the counts of one program
    # shellcheck disable=SC2046
    set -- $(echo "$1" | tr -dc '0-9 \n')
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + ${3:-0}))
    [ "$2" -eq 0 ]
}

fail() { # fail NAME REASON COMMAND...: one failure, with what the command shows of its log
    failed=$((failed + 1))
    echo "FAIL  $1: $2"
    log=$logs/$1
    shift 2
    "$@" "$log" | sed 's/^/      /'
}

limited() { # a test that hangs fails
    if command -v timeout >/dev/null 2>&1; then timeout 900 "$@"; else "$@"; fi
}

compile_test() { # compile_test NAME, which make -j has compiled before, if it could
    "${MAKE:-make}" -s "build/$1" CC="${CC:-cc}" >"$logs/$1" 2>&1 && return
    fail "$1" "does not compile" head -n 40
    return 1
}

run_test() { # run_test NAME, in a process of its own: its name and status
    limited "build/$1" >"$logs/$1" 2>&1
    echo "$1 $?"
}

report_test() { # report_test NAME STATUS
    log=$logs/$1 status=$2
    line=$(tail -n 1 "$log" | grep "$sum")
    sed -n "s/^ *SKIP */SKIP  $1: /p" "$log"
    if [ -z "$line" ]; then
        fail "$1" "no last line with its results (exit status $status)" tail -n 40
    elif ! add "$line"; then
        echo "FAIL  $1: $line"
        grep -v '^ok ' "$log" | head -n 60 | sed 's/^/      /'
    elif [ "$status" != 0 ]; then
        fail "$1" "exit status $status" tail -n 40
    else
        echo "ok    $1: $line"
    fi
}

# run_tests NAME...: as many at a time as there are processors
run_tests() {
    printf '%s\n' "$@" | xargs -n 1 -P "$processes" sh "$0" --one | {
        reported=" "
        while read -r name status; do
            report_test "$name" "$status"
            reported="$reported$name "
        done
        for name in "$@"; do
            case $reported in *" $name "*) ;; *) fail "$name" "did not run to its end" tail -n 40 ;; esac
        done
        echo "$passed $failed $skipped" >$logs/counts
    }
    read -r passed failed skipped <$logs/counts
}

run_builds() {
    # its lines as they come, but for the last
    sh tests/builds.sh 2>&1 | tee "$logs/builds" | while IFS= read -r line; do
        printf '%s\n' "$line" | grep -v "$sum"
    done
    line=$(grep "$sum" "$logs/builds" | tail -n 1)
    if [ -z "$line" ]; then fail builds "ended early" tail -n 10; else add "$line"; fi
}

if [ "${1:-}" = --one ]; then
    run_test "$2"
    exit
fi
[ -f transformer.h ] || { echo "run tests/run.sh from the project's root" >&2 && exit 2; }
trap 'exit 130' INT TERM
rm -rf $logs && mkdir -p $logs
processes=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
if [ $# -gt 0 ]; then
    names=$(for name in "$@"; do echo "test_${name#test_}"; done | sort -u)
else
    names=$(for file in tests/test_*.c; do basename "$file" .c; done)
fi
# compile, then test, with as many processes as there are processors
# shellcheck disable=SC2086
"${MAKE:-make}" -s -k -j "$processes" $(for name in $names; do echo "build/$name"; done) CC="${CC:-cc}" >/dev/null 2>&1
compiled=""
for name in $names; do ! compile_test "$name" || compiled="$compiled $name"; done
# shellcheck disable=SC2086
[ -z "$compiled" ] || run_tests $compiled
[ $# -gt 0 ] || run_builds
line="$passed passed, $failed failed"
[ $skipped -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ $failed -eq 0 ]

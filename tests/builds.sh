#!/bin/sh
# Compiles transformer.h in every way it promises to work, without a warning, and runs what can be run here: compilers,
# languages, optimisation, option macros, other processors under emulation, sanitizers, names, documentation.
# Usage, from the project's root: tests/builds.sh [GROUP ...]      (default: all; each configuration is one check)
# What needs a tool that is not installed is skipped, with the reason.  JOBS sets how many run at a time.
set -u

# long checks first, so that no processor waits for one at the end
all_groups="sanitizers arm64 s390x x86_32 wasm fuzz valgrind references fast tidy warnings programs names examples readme"
out=build/matrix
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Werror"
warn_c="-std=c99 $warn -Wstrict-prototypes"
warn_cxx="-std=c++11 $warn"
frame=-Wframe-larger-than=15360
few=-DTEST_TOKENS=70 # of test_contract, where it takes long
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
passed=0 failed=0 skipped=0

# ---- jobs: job TITLE COMMAND plans a check, finish names a group of them, run_planned runs all and reports ----

job() {
    planned=$((planned + 1))
    printf '%s\n%s\n' "$1" "$2" >"$(printf '%s/%s.%03d.job' "$out" "$group" "$planned")"
}

skip() {
    skipped=$((skipped + 1))
    echo "SKIP  builds: $group: $*"
}

has() { command -v "$1" >/dev/null 2>&1; }

run_job() { # in a process of its own
    # shellcheck source=/dev/null
    (eval "$(sed 1d "$1")") >"$1.log" 2>&1
    echo $? >"$1.status.new" && mv "$1.status.new" "$1.status"
    echo "$1"
}

report_failure() {
    failed=$((failed + 1))
    echo "FAIL  builds: $group: $(head -n 1 "$1")"
    sed 's/^/      $ /' "$1" | sed 1d
    head -n 40 "$1.log" | sed 's/^/      /'
}

finish() { [ "$planned" -eq 0 ] || echo "$1" >"$out/$group.title"; }

report() { # the group, once every check of it has ended: a line of input for each that has
    count=0 good=0
    for file in "$out/$group".*.job; do
        while [ ! -f "$file.status" ] && read -r _; do :; done
        count=$((count + 1))
        if [ "$(cat "$file.status" 2>/dev/null)" = 0 ]; then
            good=$((good + 1))
        else
            report_failure "$file"
        fi
    done
    passed=$((passed + good))
    [ $good -lt $count ] || echo "ok    builds: $group: $(cat "$out/$group.title") ($good)"
}

run_planned() { # run_planned GROUP...
    for group in "$@"; do find "$out" -name "$group.*.job" | sort; done | xargs -n 1 -P "$jobs" sh "$0" --job | {
        for group in "$@"; do
            [ ! -f "$out/$group.title" ] || report
        done
        echo "$passed $failed" >"$out/counts"
    }
    read -r passed failed <"$out/counts"
}

# ---- compilers: "NAME CC CXX" a line; without gcc and clang whatever cc is ----

find_compilers() {
    if has gcc && gcc -v 2>&1 | grep -q 'gcc version'; then echo gcc gcc g++; fi
    if has clang; then echo clang clang clang++; fi
    if ! has gcc && ! has clang; then echo cc "${CC:-cc}" "${CXX:-c++}"; fi
}

accepts() { # accepts COMMAND...: does this compile, link and (without --target) run?
    printf '#include <math.h>\nint main(void) { return 0; }\n' >"$out/probe.c"
    "$@" "$out/probe.c" -o "$out/probe" >/dev/null 2>&1
}

openmp_works() {
    printf '#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' >"$out/omp.c"
    "$1" -fopenmp "$out/omp.c" -o "$out/omp" >/dev/null 2>&1
}

missing_compilers() {
    for compiler in gcc clang g++ clang++; do
        has $compiler || skip "$compiler is not installed"
    done
}

# The row of kernels that this processor should get.
best_isa() {
    case $(uname -m) in
    x86_64 | amd64) ;;
    aarch64 | arm64) grep -q asimddp /proc/cpuinfo 2>/dev/null && echo neondot || echo neon && return ;;
    *) echo scalar && return ;;
    esac
    [ -r /proc/cpuinfo ] || return
    flags=" $(grep -m 1 '^flags' /proc/cpuinfo) "
    row=scalar
    all_flags avx2 fma f16c && row=avx2
    [ $row = avx2 ] && all_flags avx_vnni && accepts "${CC:-cc}" -mavxvnni && row=avx2vnni
    [ $row != scalar ] && all_flags avx512f avx512bw avx512vl avx512dq && row=avx512
    [ $row = avx512 ] && all_flags avx512_vnni && row=avx512vnni
    [ $row = avx512vnni ] && all_flags avx512_bf16 && ! grep -q GenuineIntel /proc/cpuinfo && row=avx512bf16
    echo $row
}

all_flags() {
    for flag in "$@"; do
        case $flags in *" $flag "*) ;; *) return 1 ;; esac
    done
}

# ---- the groups ----

# The implementation, compiled as C at every level, as C++ at some: their middle and back ends are the same.
group_warnings() {
    missing_compilers
    echo "$compilers" | while read -r name cc cxx; do
        for level in -O0 "-O1 $frame" "-O3 $frame" "-O3 -ffast-math $frame" \
            "-O2 -march=native $frame" "-O2 -fopenmp $frame"; do
            echo "$name $cc $warn_c $level"
        done
        has "$cxx" || continue
        for level in -O0 "-O2 -fopenmp $frame" "-O3 -ffast-math $frame"; do
            echo "$name $cxx $warn_cxx -x c++ $level"
        done
    done >"$out/levels"
    while read -r name command; do
        case $command in
        *-fopenmp*) openmp_works "${command%% *}" || { skip "$name has no OpenMP" && continue; } ;;
        *-march=native*) accepts "${command%% *}" -march=native || continue ;;
        esac
        job "$command" "$command -I. -c tests/include_impl.c -o $out/warnings.$planned.o"
    done <"$out/levels"
    finish "compiles without a warning, stack frames up to 15 KiB"
}

# program TITLE LINK COMPILE-AND-FILE...: compiles each file, links, runs.
program() {
    title=$1 link=$2 command="" objects=""
    shift 2
    for compile in "$@"; do
        object=$out/programs.$planned.$((${#objects})).o
        command="$command$compile -c -o $object && "
        objects="$objects $object"
    done
    job "$title" "$command$link $objects -o $out/programs.$planned -lm && $out/programs.$planned $isa"
}

group_programs() {
    isa=$(best_isa)
    mkdir -p "$out/renamed" && sed '' transformer.h >"$out/renamed/other_name.h"
    echo "$compilers" >"$out/compilers"
    while read -r name cc cxx; do
        c="$cc $warn_c -O1 -I." cpp="$cxx $warn_cxx -O1 -I."
        # the vector kernels take long to compile: once as C, once as C++, where the row chosen is the subject
        plain="-DTRANSFORMER_NO_SIMD tests/include_impl.c" static="-DTRANSFORMER_NO_SIMD -DTRANSFORMER_STATIC"
        program "$name: C, one implementation, two users" "$cc" \
            "$c tests/include_impl.c" "$c tests/include_a.c" "$c tests/include_b.c"
        if has "$cxx"; then
            program "$name: C++ implementation, C user" "$cxx" \
                "$cpp -x c++ tests/include_impl.c" "$c tests/include_a.c" "$cpp tests/include_cpp.cpp"
        fi
        chosen=$isa isa=scalar
        program "$name: C, two static copies" "$cc" "$c $static tests/include_a.c" "$c $static tests/include_b.c"
        file="-I$out/renamed -DTRANSFORMER_FILE='\"other_name.h\"'"
        program "$name: C, renamed with TRANSFORMER_FILE" "$cc" "$cc $warn_c $file $plain" \
            "$cc $warn_c $file tests/include_a.c" "$cc $warn_c $file tests/include_b.c"
        program "$name: C, NO_SIMD" "$cc" "$c $plain" "$c tests/include_a.c" "$c tests/include_b.c"
        for option in SHORT_NAMES NO_MALLOC NO_OPENMP; do
            program "$name: C, $option" "$cc" "$c -DTRANSFORMER_$option $plain" \
                "$c -DTRANSFORMER_$option tests/include_a.c" "$c -DTRANSFORMER_$option tests/include_b.c"
        done
        program "$name: C, MALLOC and FREE" "$cc" "$c -DTEST_MALLOC $plain" \
            "$c tests/include_a.c" "$c -DTEST_MALLOC tests/include_b.c"
        if has "$cxx"; then
            program "$name: C implementation, C++ user with SHORT_NAMES beside the standard library" "$cxx" "$c $plain" \
                "$c tests/include_a.c" "$cpp -DTRANSFORMER_SHORT_NAMES tests/include_cpp.cpp"
            program "$name: C++, NO_MALLOC" "$cxx" "$cpp -DTRANSFORMER_NO_MALLOC -x c++ $plain" \
                "$cpp -DTRANSFORMER_NO_MALLOC -x c++ tests/include_a.c" \
                "$cpp -DTRANSFORMER_NO_MALLOC tests/include_cpp.cpp"
        fi
        examples="tests/include_examples.c" impl="-DTRANSFORMER_NO_SIMD -DINCLUDE_EXAMPLES_IMPLEMENTATION"
        program "$name: C, the headers of examples/" "$cc" "$c $impl $examples" "$c $examples"
        has "$cxx" &&
            program "$name: C++, the headers of examples/" "$cxx" "$cpp $impl -x c++ $examples" "$cpp -x c++ $examples"
        has "$cxx" && program "$name: C++, two static copies" "$cxx" "$cpp $static -x c++ tests/include_a.c" \
            "$cpp $static tests/include_cpp.cpp"
        isa=$chosen
    done <"$out/compilers"
    finish "link and run, with each option macro; the best instruction set is chosen"
}

# ---- names: what the object file shows the linker, and the header the preprocessor ----

only_public() { # defined global symbols, all of them transformer_*
    nm -g "$1" | awk 'NF == 3 && $3 !~ /^transformer_/ { print "exported: " $0; bad = 1 } END { exit bad }'
}
nothing_public() { nm -g "$1" | awk 'NF == 3 { print "exported: " $0; bad = 1 } END { exit bad }'; }
nothing_writable() { # compiled without -fpic: constants with pointers in them are in .rodata then
    nm "$1" | awk '$(NF - 1) ~ /^[bBdDCsS]$/ { print "writable: " $0; bad = 1 } END { exit bad }'
}
only_libc() { # only_libc OBJECT ALLOWED: undefined symbols are of libm, memory functions, or match ALLOWED
    maths='(sqrt|sin|cos|sincos|exp|exp2|log|log2|pow|ceil|floor|fabs|fmod|round|trunc|ldexp|erf|tanh)f?'
    runtime='_GLOBAL_OFFSET_TABLE_|__cpu_model|__cpu_features2|__cpu_indicator_init|__stack_chk_fail'
    nm -u "$1" | awk '{ print $NF }' |
        if grep -v -x -E "$maths|$runtime|mem(cpy|set|move|cmp)|str(cmp|len|ncmp)|$2"; then false; fi
}
every_function_called() { # by include_a.c, under its full or its short name
    for function in $(nm -g "$1" | awk '$2 == "T" { print $3 }'); do
        grep -q -E "(^|[^a-z_])($function\(|NAME\(${function#transformer_}\))" tests/include_a.c ||
            { echo "include_a.c does not call $function" && return 1; }
    done
}
macros_of() { "$1" -E -dM -I. -x c - | awk '{ sub(/\(.*/, "", $2); print $2 }' | sort; }
only_our_macros() { # only_our_macros CC DEFINES PATTERN: beyond those of the standard headers
    for header in stddef stdint float math stdarg string stdlib; do echo "#include <$header.h>"; done >"$3.h"
    case $(uname -m) in
    x86_64) echo '#include <immintrin.h>' >>"$3.h" ;;
    aarch64) echo '#include <arm_neon.h>' >>"$3.h" ;;
    esac
    macros_of "$1" <"$3.h" >"$3.before"
    printf '%s\n#include "transformer.h"\n' "$2" | cat "$3.h" - | macros_of "$1" | comm -13 "$3.before" - |
        if grep -v -E "$4"; then false; fi
}

group_names() {
    if [ "$(uname -s)" != Linux ] || ! has nm; then skip "needs Linux and nm" && return; fi
    echo "$compilers" >"$out/compilers"
    while read -r name cc cxx; do
        o=$out/names.$name c="$cc -O2 -std=c99 -fno-pic -I. -c tests/include_impl.c -o"
        job "$name: exports, undefined and writable symbols" \
            "$c $o.o && only_public $o.o && nothing_writable $o.o && only_libc $o.o 'malloc|free'"
        plain=-DTRANSFORMER_NO_SIMD # where the kernels make no difference
        job "$name: NO_MALLOC" "$c $o.n.o $plain -DTRANSFORMER_NO_MALLOC && only_libc $o.n.o malloc_is_absent"
        job "$name: STATIC" "$c $o.s.o $plain -DTRANSFORMER_STATIC && nothing_public $o.s.o && nothing_writable $o.s.o"
        job "$name: macros of the interface" "only_our_macros $cc '' $o.interface '^TRANSFORMER_'"
        job "$name: macros of the implementation" \
            "only_our_macros $cc '#define TRANSFORMER_IMPLEMENTATION' $o.implementation '^(TRANSFORMER|TFI)_'"
        if openmp_works "$cc"; then
            job "$name: OpenMP" "$c $o.m.o $plain -fopenmp && only_public $o.m.o && nothing_writable $o.m.o && \
only_libc $o.m.o 'malloc|free|omp_get_[a-z_]*|GOMP_[a-z_]*|__kmpc_[a-z0-9_]*'"
        fi
        has "$cxx" || continue
        job "$name: C++" "$cxx -O2 -std=c++11 -fno-pic -x c++ -I. -c tests/include_impl.c -o $o.x.o && \
only_public $o.x.o && nothing_writable $o.x.o && only_libc $o.x.o 'malloc|free'"
    done <"$out/compilers"
    job "tests/include_a.c calls every public function" \
        "${CC:-cc} -std=c99 -DTRANSFORMER_NO_SIMD -I. -c tests/include_impl.c -o $out/names.all.o && every_function_called $out/names.all.o"
    finish "exported names, macros, no writable data, nothing but libm and memory functions used"
}

# ---- running the test programs in other ways ----

# Programs of the interface alone share the implementation, compiled once for each COMPILE.

shared_object() { echo "$out/shared.$(echo "$1" | cksum | tr ' ' .).o"; } # shared_object COMPILE: its name

made_object() { # made_object OBJECT COMPILE...: by the job that comes first, while others wait for it
    object=$1 waited=0
    shift
    if mkdir "$object.making" 2>/dev/null; then
        if "$@" -Wno-unused-command-line-argument -I. -c tests/include_impl.c -o "$object.new"; then
            mv "$object.new" "$object"
        else
            : >"$object.failed"
        fi
    fi
    while [ ! -f "$object" ]; do
        if [ -f "$object.failed" ] || [ $((waited += 1)) -gt 900 ]; then
            echo "$object has not been compiled: the first job with it says why"
            return 1
        fi
        sleep 1
    done
}

# tests_run TITLE COMPILE RUNNER NAME...: each tests/test_NAME.c that exists, compiled and run; NAME:WORD with an argument.
tests_run() {
    title=$1 compile=$2 runner=$3 object=$(shared_object "$2")
    shift 3
    for test in "$@"; do
        file=${test%%:*} word=${test#"${test%%:*}"}
        [ -f "tests/test_$file.c" ] || continue
        binary=$out/$group.$planned.$file
        case $own_copy in
        *" build/test_$file "*) command="$compile -I. tests/test_$file.c -o $binary -lm" ;;
        *) command="made_object $object $compile $warn_c && \
$compile -DTFI_IMPLEMENTED -I. tests/test_$file.c $object -o $binary -lm" ;;
        esac
        job "$title: test_$file" "$command && $runner $binary ${word#:}"
    done
}

# include_run TITLE COMPILE RUNNER ISA: the program of all public functions.
include_run() {
    binary=$out/$group.$planned.include object=$(shared_object "$2")
    job "$1: every function, row $4" "made_object $object $2 $warn_c && \
$2 $warn_c -I. tests/include_a.c tests/include_b.c $object -o $binary -lm && $3 $binary $4"
}

group_fast() {
    echo "$compilers" >"$out/compilers"
    while read -r name cc _; do
        tests_run "$name -O3 -ffast-math" "$cc -O3 -ffast-math -pthread" "" \
            tiny_gpt kernels:brief contract:brief raschka
        accepts "$cc" -march=native &&
            tests_run "$name -O3 -march=native" "$cc -O3 -march=native -pthread" "" contract:brief
    done <"$out/compilers"
    finish "-ffast-math and -march=native keep the promises"
}

group_arm64() {
    has qemu-aarch64 || { skip "qemu-aarch64 is not installed" && return; }
    compile="aarch64-linux-gnu-gcc -O2 -static -pthread $few"
    if has aarch64-linux-gnu-gcc; then
        include_run gcc "$compile" qemu-aarch64 neondot
        if has aarch64-linux-gnu-g++; then
            job "gcc: C++" "aarch64-linux-gnu-g++ $warn_cxx -O2 -I. -x c++ -c tests/include_impl.c -o $out/arm64.cpp.o"
        else
            skip "aarch64-linux-gnu-g++ is not installed"
        fi
        tests_run gcc "$compile" qemu-aarch64 \
            tiny_gpt kernels:brief math special:brief raschka formats:brief contract:brief
    else
        skip "aarch64-linux-gnu-gcc is not installed"
    fi
    compile="clang --target=aarch64-linux-gnu -O2 -static -pthread"
    if has clang && has aarch64-linux-gnu-gcc; then
        include_run clang "$compile" "qemu-aarch64 -cpu cortex-a72" neon # without dot products
        tests_run clang "$compile" qemu-aarch64 tiny_gpt kernels:brief
    else
        skip "clang is not installed"
    fi
    finish "NEON, under emulation"
}

group_s390x() {
    has qemu-s390x || { skip "qemu-s390x is not installed" && return; }
    has s390x-linux-gnu-gcc || { skip "s390x-linux-gnu-gcc is not installed" && return; }
    compile="s390x-linux-gnu-gcc -O2 -static -pthread"
    include_run gcc "$compile" qemu-s390x scalar
    tests_run gcc "$compile" qemu-s390x tiny_gpt kernels:brief math api special:brief formats:brief
    finish "big-endian, under emulation"
}

group_x86_32() {
    case $(uname -m) in x86_64 | i?86) ;; *) skip "not an x86" && return ;; esac
    accepts "${CC:-cc}" -m32 || { skip "no 32-bit libraries (gcc-multilib)" && return; }
    sse="-m32 -msse2 -mfpmath=sse" # without it x87 registers keep more bits than memory does
    include_run "-m32" "${CC:-cc} -m32 -O2" "" scalar
    has clang && accepts clang -m32 && include_run "clang -m32" "clang -m32 -O2" "" scalar
    tests_run "$sse" "${CC:-cc} $sse -O2 -pthread" "" \
        tiny_gpt kernels:brief math contract:brief api special raschka formats
    finish "32 bits"
}

group_wasm() {
    has clang || { skip "clang is not installed" && return; }
    has node || { skip "node is not installed" && return; }
    compile="clang --target=wasm32-wasi -O2 -Wl,-z,stack-size=1048576"
    accepts $compile || { skip "wasi-libc, lld or libclang-rt for wasm32 is not installed" && return; }
    runner="node --no-warnings tests/run_wasm.mjs"
    for simd in "" -msimd128; do
        row=scalar
        [ -z "$simd" ] || row=simd128
        include_run "$row" "$compile $simd" "$runner" $row
        tests_run "$row" "$compile $simd" "$runner" tiny_gpt kernels math special raschka formats
    done
    finish "wasm32, under node"
}

sanitizer_compiler() { # the first compiler whose programs run with this flag
    for cc in clang gcc "${CC:-cc}"; do
        accepts "$cc" "$1" && "$out/probe" >/dev/null 2>&1 && echo "$cc" && return
    done
    return 1
}

group_sanitizers() {
    if cc=$(sanitizer_compiler -fsanitize=address,undefined); then
        flags="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
        names=$(for file in tests/test_*.c; do basename "$file" .c; done | sed 's/^test_//')
        # The vector kernels take long to compile with all checks, and minutes if inlined by force: where they are not
        # the subject, the scalar ones.
        kernels="contract formats kernels math" calls=-DTFI_INLINE=inline
        outlined="-mllvm -asan-instrumentation-with-call-threshold=0" # a third of the time to compile, twice to run
        # shellcheck disable=SC2086
        accepts "$cc" -fsanitize=address $outlined || outlined=""
        rest=$(for name in $names; do case " $kernels " in *" $name "*) ;; *) echo "$name" ;; esac; done)
        # shellcheck disable=SC2086
        tests_run "address" "$cc -O1 -g $calls $outlined $few -pthread -fsanitize=address -fno-omit-frame-pointer" "" $(echo "$kernels" | sed -E 's,contract|kernels|formats,&:brief,g')
        # shellcheck disable=SC2086
        tests_run "address and undefined, scalar" "$cc -O1 -g -pthread -DTRANSFORMER_NO_SIMD $flags" "" $rest kernels:brief formats:brief math
        tests_run "address, files read instead of mapped" \
            "$cc -O1 -g -DTRANSFORMER_NO_SIMD -DMODEL_FILE_NO_MMAP $flags" "" model_file
        include_run "address and undefined" "$cc -O1 -g $calls $outlined $flags" "" "$(best_isa)"
        if openmp_works "$cc"; then
            tests_run "undefined and OpenMP, scalar" \
                "$cc -O1 -g -pthread -fopenmp -DTRANSFORMER_NO_SIMD $few -fsanitize=undefined -fno-sanitize-recover=all" "" contract:brief
        fi
    else
        skip "no compiler with -fsanitize=address,undefined"
    fi
    if cc=$(sanitizer_compiler -fsanitize=thread); then
        tests_run "threads" "$cc -O1 -g -DTFI_INLINE=inline $few -pthread -fsanitize=thread" "" contract:brief
    else
        skip "no compiler whose programs run with -fsanitize=thread"
    fi
    finish "address, undefined behaviour, threads"
}

group_fuzz() { # a short run of every fuzz target over its corpus, whose directories it names
    cc=$(for cc in clang "${CC:-cc}"; do
        echo 'int LLVMFuzzerTestOneInput(const void *, unsigned long);
              int LLVMFuzzerTestOneInput(const void *p, unsigned long n) { return p && n > 1ul << 30; }' |
            "$cc" -fsanitize=fuzzer,address -x c - -o "$out/probe" >/dev/null 2>&1 && echo "$cc" && break
    done)
    [ -n "$cc" ] || { skip "no compiler with -fsanitize=fuzzer" && return; }
    for file in tests/fuzz_*.c; do
        name=$(basename "$file" .c)
        corpus=$(sed -n 's/^ \* corpus: //p' "$file")
        job "$name" "mkdir -p $out/$name.found &&
            $cc -O1 -g -DTRANSFORMER_NO_SIMD -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -I. $file -o $out/$name -lm &&
            $out/$name -runs=20000 -max_total_time=20 -timeout=2 -rss_limit_mb=1024 -max_len=200000 \
                -artifact_prefix=$out/$name. $out/$name.found $corpus"
    done
    finish "fuzz targets: 20000 inputs or 20 s each"
}
group_valgrind() {
    has valgrind || { skip "valgrind is not installed" && return; }
    tests_run memcheck "${CC:-cc} -O1 -g -pthread" \
        "valgrind --quiet --error-exitcode=9 --leak-check=full" tiny_gpt api
    finish "no read of uninitialised memory, no leak"
}

# The "cc ..." lines in the first comments of the programs, and without warnings; what no other test runs of them.
group_examples() {
    for file in examples/*.c tests/test_*.c; do
        [ -f "$file" ] || continue
        line=$(sed -n '1,/\*\//s/^ \*  *\(cc .*\)/\1/p' "$file" | head -n 1)
        [ -n "$line" ] || continue
        openmp_works "${CC:-cc}" || line=$(echo "$line" | sed 's/ -fopenmp//')
        job "$file: $line" "$(echo "$line" | sed "s,^cc ,${CC:-cc} -DTRANSFORMER_NO_SIMD ,; s,build/,$out/,g")"
    done
    echo "$compilers" >"$out/compilers"
    while read -r name cc _; do
        for file in examples/*.c; do
            job "$name: $file without warnings" "$cc $warn -O1 -DTRANSFORMER_NO_SIMD $file -o $out/examples.$planned -lm"
        done
    done <"$out/compilers"
    if [ -f examples/generate.c ] && [ -f examples/toy_lm/model.safetensors ]; then
        job "generate: the same text with any number of threads" same_text
    fi
    job "all programs: --help; names that convert refuses" offer_help
    job "convert: an error names the file once; logits: a note beyond the context" messages
    job "toy: continues what is repeated" toy_repeats
    job "logits: the same bytes in chunks, on threads and of the last position; options that round" same_logits
    job "make install and make lines" installed
    [ -f examples/bench.c ] && job "bench: its table, profile and JSON" bench_reports
    if [ -f examples/grammar.h ] && [ -f examples/toy_lm/model.safetensors ]; then
        job "generate: text that follows a grammar" grammar_text
    fi
    if [ -f examples/chat.c ] && [ -f examples/toy_lm/model.safetensors ]; then
        job "chat: sessions" "made chat && sh tests/chat_session.sh build/chat"
    fi
    if has python3; then
        [ -f examples/inspect.c ] && job "inspect: JSON that Python reads" python_reads
        job "generate: llama.cpp's greedy texts from every type that convert writes" greedy_texts
        [ -f examples/bench.c ] &&
            job "compare_speed: two builds; a program with llama-bench's options" compare_speed
    else
        skip "python3 is not installed"
    fi
    finish "compile as their first comments say, and without warnings"
}

made() { "${MAKE:-make}" -s "build/$1"; } # an example, as make builds it

toy_repeats() {
    made toy && build/toy | grep -q '^200 patterns, 0 continued wrongly$'
}

greedy_texts() { made convert && made generate && python3 tests/make_llama_texts.py check; }

same_logits() {
    made logits || return 1
    program="build/logits examples/toy_lm --tokens 5,1,99,7,300,12,12,60" bytes=$out/examples.logits
    $program --all >"$bytes.all" || return 1
    vocab=$(($(wc -c <"$bytes.all") / 8)) # bytes of a row
    [ "$vocab" -gt 400 ] && [ $((vocab * 8)) = "$(wc -c <"$bytes.all")" ] || return 1
    tail -c "$vocab" "$bytes.all" >"$bytes.last"
    $program | cmp - "$bytes.last" || return 1
    for way in "--chunk 1" "--chunk 3" "--chunk 8 --threads 2" "--threads 3" "--full-precision" "--kv f32"; do
        # shellcheck disable=SC2086
        $program --all $way | cmp - "$bytes.all" || return 1
    done
    for way in "--kv f16" "--isa scalar"; do
        # shellcheck disable=SC2086
        $program --all $way >"$bytes.other" || return 1
        if [ "$way" != "--isa scalar" ] || [ "$(best_isa)" != scalar ]; then
            if cmp -s "$bytes.other" "$bytes.all"; then return 1; fi
        fi
        [ "$(wc -c <"$bytes.other")" = $((vocab * 8)) ] || return 1
    done
    echo 5,1,99,7,300,12,12,60 | build/logits examples/toy_lm --tokens - | cmp - "$bytes.last" || return 1
    for wrong in "--tokens 1,999999" "--tokens x" "--tokens 1 --chunk 0" "--tokens 1 --isa best" "--tokens 1 --kv f8"; do
        # shellcheck disable=SC2086
        if build/logits examples/toy_lm $wrong >"$bytes.other" 2>"$bytes.error"; then return 1; fi
        [ ! -s "$bytes.other" ] && [ "$(wc -l <"$bytes.error")" = 1 ] || return 1
    done
}

installed() {
    to=$(pwd)/$out/examples.installed
    rm -rf "$to" && "${MAKE:-make}" -s install DESTDIR="$to" PREFIX=/p && cmp transformer.h "$to/p/include/transformer.h" || return 1
    grep -q '^Libs: -lm$' "$to/p/share/pkgconfig/transformer.pc" || return 1
    version=$(sed -n 's/^Version: //p' "$to/p/share/pkgconfig/transformer.pc")
    printf '%s' "$version" | grep -q -E '^[0-9]+\.[0-9]+\.[0-9]+$' || return 1
    printf '#include "transformer.h"\n#include <stdio.h>\nint main(void) { return printf("%%d", transformer_version()) < 0; }\n' >"$to.c"
    ${CC:-cc} -DTRANSFORMER_IMPLEMENTATION -DTRANSFORMER_NO_SIMD -I"$to/p/include" "$to.c" -o "$to.run" -lm || return 1
    [ "$("$to.run")" = "$(echo "$version" | awk -F. '{ print $1 * 10000 + $2 * 100 + $3 }')" ] || return 1
    "${MAKE:-make}" -s uninstall DESTDIR="$to" PREFIX=/p && [ ! -e "$to/p/include/transformer.h" ] || return 1
    "${MAKE:-make}" -s lines
}

messages() {
    made convert && made logits || return 1
    build/convert "$out/nothing" "$out/nothing.gguf" 2>&1 | grep -q "^error: $out/nothing: neither" || return 1
    build/logits examples/toy_lm --tokens "$(seq -s , 1 257)" 2>&1 >/dev/null | grep -q '^note: 257 tokens .* 256$' ||
        return 1
    [ -z "$(build/logits examples/toy_lm --tokens "$(seq -s , 1 256)" 2>&1 >/dev/null)" ]
}

grammar_text() {
    program=$out/examples.grammar
    ${CC:-cc} -O1 -DTRANSFORMER_NO_SIMD examples/generate.c -o "$program" -lm || return 1
    printf '%s\n' 'root ::= (" " [A-Z] [a-z]{2,6} ("," | " and")){2,4} " go" "es"? "." "\n"?' >"$program.gbnf"
    for seed in 1 2 3 4 5; do
        "$program" examples/toy_lm -p Here --grammar "$program.gbnf" -t 2 --seed $seed >"$program.text" || return 1
        grep -v '^$' "$program.text" | grep -q -x -E 'Here( [A-Z][a-z]{2,6}(,| and)){2,4} go(es)?\.' ||
            { cat "$program.text" && return 1; }
    done
    "$program" examples/toy_lm --grammar README.md 2>&1 | grep -q '^error: README.md: line ' || return 1
    cut='^the text ends before the grammar does: -n allows no more tokens$'
    "$program" examples/toy_lm -n 1 --grammar "$program.gbnf" 2>&1 | grep -q "$cut" || return 1
    printf 'root ::= "a"*\n' >"$program.gbnf"
    if "$program" examples/toy_lm -n 1 --grammar "$program.gbnf" 2>&1 | grep -q "$cut"; then return 1; fi
    printf 'root ::= <[302]>{2} !<[302]>? <0x21>\n' >"$program.gbnf" # tokens by number and by name
    "$program" examples/toy_lm -p Here --grammar "$program.gbnf" -t 0 | grep -q '^Hereee.*!$' || return 1
    printf 'root ::= <nosuch>\n' >"$program.gbnf"
    "$program" examples/toy_lm --grammar "$program.gbnf" 2>&1 | grep -q "there is no token '<nosuch>'" || return 1
}

offer_help() { # every program with a usage prints it on stdout for --help, and nothing else
    for file in examples/*.c; do
        grep -q 'static const char usage' "$file" || continue
        program=$out/examples.help.$(basename "$file" .c)
        ${CC:-cc} -O0 -DTRANSFORMER_NO_SIMD "$file" -o "$program" -lm || return 1
        for option in --help -h "examples/toy_lm --help"; do
            "$program" $option >"$program.out" 2>"$program.err" || return 1
            grep -q "^usage: $(basename "$file" .c) " "$program.out" && [ ! -s "$program.err" ] || return 1
        done
        if "$program" >"$program.out" 2>"$program.err"; then return 1; fi
        grep -q "^usage: " "$program.err" && [ ! -s "$program.out" ] || return 1
    done
    for name in - "$out/" ""; do
        if "$out/examples.help.convert" examples/toy_lm "$name" 2>"$program.err"; then return 1; fi
        grep -q "must name a file" "$program.err" || return 1
    done
}

python_reads() {
    program=$out/examples.inspect
    ${CC:-cc} -O1 -DTRANSFORMER_NO_SIMD examples/inspect.c -o "$program" -lm || return 1
    for model in examples/toy_lm tests/goldens/llama2c_v0/model.bin tests/goldens/llama_hub tests/gguf/*.gguf; do
        "$program" "$model" --json --tensors >"$program.json" || return 1
        python3 -c '
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    model = json.load(file)
assert sum(t["bytes"] for t in model["types"]) == sum(t["bytes"] for t in model["tensors"]), "bytes"
assert sum(t["parameters"] for t in model["types"]) == model["parameters"], "parameters"
assert model["runs"] and model["config"]["n_layers"] == model["layers"][-1]["last"] + 1, "layers"
' "$program.json" || return 1
    done
}

bench_reports() {
    program=$out/examples.bench
    ${CC:-cc} -O1 $openmp -DTRANSFORMER_NO_SIMD examples/bench.c -o "$program" -lm || return 1
    "$program" --shape stories15m -p 32 -n 4 -r 1 --profile >"$program.1" || return 1
    for row in 'prefill 32' 'decode 4' limits 'q, k, v' attention 'MLP in' 'MLP out' head; do
        grep -q "^$row .*[1-9]" "$program.1" || { echo "no row $row" && cat "$program.1" && return 1; }
    done
    "$program" --shape stories15m -p 8 -n 2 -r 1 --json |
        grep -q '^{"model":"stories15m",.*"decode":{"tokens":2,"tokens_per_s":[1-9].*}$' || return 1
    if "$program" --shape stories15m --json --profile; then return 1; fi
    made convert && build/convert examples/toy_lm "$program.gguf" --type q8_0 --force --quiet || return 1
    "$program" "$program.gguf" -p 8 -n 2 -r 1 --accuracy |
        grep -q '^against full precision: NMSE [0-9.]*e-0[4-6], KL divergence [0-9.]*[1-9]' || return 1
    "$program" "$program.gguf" -p 8 -n 2 -r 1 --accuracy --json | grep -q '"nmse":[0-9.]*e-0[4-6],"kl_div' || return 1
    "$program" --shape stories15m -p 8 -n 2 -r 1 --accuracy | grep -q 'NMSE 0, KL divergence 0 nats' || return 1
}

# The other program is a script that answers, in llama-bench's form, only what it has to be asked.
compare_speed() {
    made bench || return 1
    script=tests/compare_speed.py peer=$out/examples.llama-bench told="$out/examples.compared"
    python3 $script --rounds 2 build/bench build/bench -- --shape stories15m -p 8 -n 2 >"$told" || return 1
    [ "$(grep -cE '^(prefill|decode)( +[0-9.]+){3}   \([0-9.]+ [0-9.]+\)$' "$told")" = 2 ] || return 1
    cat >"$peer" <<'EOF'
#!/bin/sh
[ "$*" = "-m m.gguf -p 8 -n 2 -t 2 -ctk f16 -ctv f16 -fa 1 -r 3 -o json -d 4 --x y" ] || { echo "$@" >&2 && exit 1; }
echo '[{"n_prompt": 8, "n_gen": 0, "avg_ts": 40.0}, {"n_prompt": 0, "n_gen": 2, "avg_ts": 8.0}]'
EOF
    cat >"$out/examples.fake-bench" <<'EOF'
#!/bin/sh
echo '{"prefill":{"tokens_per_s":60},"decode":{"tokens_per_s":4}}'
EOF
    chmod +x "$peer" "$out/examples.fake-bench"
    export LLAMA_BENCH="$peer" LLAMA_BENCH_ARGS="--x y"
    compared="python3 $script --rounds 1 $out/examples.fake-bench -- m.gguf -p 8 -n 2 -d 4 -r 3 --kv f16"
    $compared --threads 2 >"$told" || return 1
    grep -q '^prefill  *60.00  *40.00  *1.500 ' "$told" && grep -q '^decode  *4.00  *8.00  *0.500 ' "$told" || return 1
    if $compared --threads 3 >"$told" 2>&1; then return 1; fi
    grep -q 'status 1' "$told" || return 1
}

same_text() {
    made generate || return 1
    program=build/generate text=$out/examples.text
    "$program" examples/toy_lm -n 64 -t 0 -p 'Once upon a time' >"$text.1" || return 1
    [ -s "$text.1" ] || { echo "no text" && return 1; }
    for threads in 2 3; do
        "$program" examples/toy_lm -n 64 -t 0 -p 'Once upon a time' --threads $threads >"$text.2" || return 1
        cmp "$text.1" "$text.2" || return 1
    done
}

# The ```c blocks in README.md: whole programs (main) run, without arguments and with a GGUF file; other blocks compile.
group_readme() {
    [ -f README.md ] || return 0
    awk -v out="$out/readme" '
        /^```c$/ { inside = 1; text = ""; next }
        /^```/ {
            if (inside && text !~ /int main/)
                text = "#include \"transformer.h\"\n#include <string.h>\n" text
            if (inside) { n++; print text > (out "." n (text ~ /int main/ ? ".program" : "") ".c") }
            inside = 0 }
        inside { text = text $0 "\n" }' README.md
    for file in "$out"/readme.*.c; do
        [ -f "$file" ] || continue
        compile="${CC:-cc} -Wall -Wextra -Werror -O2 -I. -Iexamples $file"
        case $file in
        *.program.c) job "$(basename "$file")" "$compile -o ${file%.c} -lm && writes_text ${file%.c} &&
            writes_text ${file%.c} tests/gguf/llama.gguf" ;;
        *) job "$(basename "$file")" "$compile -Wno-unused-function -Wno-unused-parameter -c -o ${file%.c}.o" ;;
        esac
    done
    job "the table of errors has every golden model" error_table
    finish "README.md's programs compile and run, its table is whole"
}

writes_text() { [ -n "$("$@")" ] || { echo "$* writes nothing" && return 1; }; }

error_table() { # families and cases in README.md, against the models that are there
    awk -F '|' '/^\| family \| cases/ { inside = 1 } !/^\|/ { inside = 0 }
        inside { for (i = 2; i + 1 < NF; i += 3) if ($(i + 1) ~ /[0-9]/) n += $(i + 1) } END { print n }' README.md >"$out/table"
    grep -c . tests/goldens/index.txt | diff "$out/table" - ||
        { echo "README.md (<) has not the number of cases in tests/goldens/index.txt (>)" && return 1; }
}

# The reference implementations of tokenizers, where they are installed.
group_references() {
    if has python3 && python3 -c 'import tokenizers, sentencepiece, gguf' >/dev/null 2>&1; then
        job "tests/make_tokenizers.py check" "${CC:-cc} -O2 examples/tokenize.c -o $out/tokenize -lm && \
            python3 tests/make_tokenizers.py check 1000000 $out/tokenize"
        job "the gguf package reads what convert writes" converted_files
    else
        skip "no python3 with tokenizers, sentencepiece and gguf"
    fi
    finish "the ids of tokenizers and sentencepiece, the files of gguf"
}

converted_files() {
    made convert || return 1
    for type in f32 bf16 q8_0 q4_0 q4_k_m; do
        build/convert examples/toy_lm "$out/toy.$type.gguf" --type $type --force || return 1
    done
    (cd "$out" && python3 "$OLDPWD/tests/check_gguf.py" toy.f32.gguf toy.bf16.gguf toy.q8_0.gguf toy.q4_0.gguf toy.q4_k_m.gguf)
}

# Formatting and static analysis differ from version to version: only with the one they were set up for.
group_tidy() {
    for tool in clang-format clang-tidy; do
        if ! has $tool; then
            skip "$tool is not installed"
        elif ! $tool --version | grep -q 'version 14\.'; then
            skip "$tool is not version 14"
        elif [ $tool = clang-format ]; then
            job format "${MAKE:-make} -s format-check"
        else
            job tidy "${MAKE:-make} -s -j $jobs -k tidy"
        fi
    done
    finish "clang-format and clang-tidy agree"
}

# ---- main ----

if [ "${1:-}" = --job ]; then
    run_job "$2"
    exit 0
fi

[ -f transformer.h ] || { echo "run tests/builds.sh from the project's root" >&2 && exit 2; }
trap 'exit 130' INT TERM
rm -rf "$out" && mkdir -p "$out" || exit 2
compilers=$(find_compilers)
openmp=""
openmp_works "${CC:-cc}" && openmp=-fopenmp
export openmp
own_copy=" $("${MAKE:-make}" -s own-copy) " # programs that need the implementation within
[ $# -gt 0 ] || eval "set -- $all_groups"
for group in "$@"; do
    planned=0
    "group_$group"
done
run_planned "$@"
line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]

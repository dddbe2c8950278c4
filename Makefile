# GNU make and a C compiler are all it needs.
#
#   make           the examples, into build/
#   make run       writes a text with the small model in examples/toy_lm
#   make test      everything: test programs, then every way to build (tests/builds.sh)
#   make lines     size of the header, section by section, against its budget
#   make install   the header and transformer.pc, under DESTDIR and PREFIX
#   make clean, uninstall, tests, format-check, tidy

CFLAGS ?= -O2
PREFIX ?= /usr/local
MODEL_BUDGET = 4000
TOTAL_BUDGET = 7180

WARNINGS = -Wall -Wextra
LIBS = -lm
EXAMPLES = $(patsubst examples/%.c,build/%,$(wildcard examples/*.c))
TESTS = $(patsubst tests/%.c,build/%,$(wildcard tests/test_*.c))
HEADERS = transformer.h $(wildcard examples/*.h)
TEST_HEADERS = $(HEADERS) $(wildcard tests/*.h examples/*.c)
# Programs of the interface alone share a copy of the implementation, which takes longest to compile.
OWN_COPY = build/bench build/convert $(addprefix build/test_, api contract convert formats kernels math misuse \
    special states)
SHARED_COPY = -DTFI_IMPLEMENTED build/transformer.o
SOURCES = $(HEADERS) $(wildcard examples/*.c tests/*.h tests/*.c tests/*.cpp)
VERSION = $(shell awk '/^.define TRANSFORMER_VERSION / \
    { printf "%d.%d.%d", $$3 / 10000, $$3 / 100 % 100, $$3 % 100 }' transformer.h)

# -fopenmp if a program with OpenMP compiles and links; found out once, when first needed.
OPENMP = $(eval OPENMP := $(shell mkdir -p build && \
    printf '\043include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' >build/openmp.c && \
    $(CC) -fopenmp build/openmp.c -o build/openmp >/dev/null 2>&1 && echo -fopenmp))$(OPENMP)

examples: $(EXAMPLES)

COMPILE = $(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(OPENMP)
COMPILE_TEST = $(COMPILE) -Werror -I.

$(filter-out $(OWN_COPY),$(EXAMPLES)): build/%: examples/%.c $(HEADERS) build/transformer.o
	$(COMPILE) $(SHARED_COPY) $< -o $@ $(LDFLAGS) $(LIBS)

$(filter $(OWN_COPY),$(EXAMPLES)): build/%: examples/%.c $(HEADERS) build/flags
	$(COMPILE) $< -o $@ $(LDFLAGS) $(LIBS)

$(filter-out $(OWN_COPY),$(TESTS)): build/%: tests/%.c $(TEST_HEADERS) build/transformer.o
	$(COMPILE_TEST) $(SHARED_COPY) $< -o $@ $(LDFLAGS) $(LIBS) -lpthread

$(filter $(OWN_COPY),$(TESTS)): build/%: tests/%.c $(TEST_HEADERS) build/flags
	$(COMPILE_TEST) $< -o $@ $(LDFLAGS) $(LIBS) -lpthread

build/transformer.o: transformer.h build/flags
	$(COMPILE) -DTRANSFORMER_IMPLEMENTATION -x c -c $< -o $@

# what everything was last compiled with
build/flags: always
	@mkdir -p build
	@echo '$(COMPILE)' | cmp -s - $@ || echo '$(COMPILE)' >$@

run: build/generate
	build/generate examples/toy_lm -n 200

tests: $(TESTS)

# for tests/builds.sh
own-copy:
	@echo $(OWN_COPY)

test:
	@$(MAKE) -j "$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" examples
	@CC='$(CC)' MAKE='$(MAKE_COMMAND)' sh tests/run.sh

lines:
	@awk -v model_budget=$(MODEL_BUDGET) -v total_budget=$(TOTAL_BUDGET) ' \
	    function close_section() { if (NR > first) printf "%6d  %s\n", NR - first, name; first = NR } \
	    BEGIN { name = "introduction"; first = 1 } \
	    /==== >>[a-z0-9]+ ====/ { \
	        close_section(); match($$0, />>[a-z0-9]+/); name = substr($$0, RSTART, RLENGTH); \
	        if (name == ">>kernels") model = NR - 1 } \
	    END { NR++; close_section(); total = NR - 1; \
	        printf "%6d  everything before >>kernels (budget %d)\n", model, model_budget; \
	        printf "%6d  in all (budget %d)\n", total, total_budget; \
	        exit model > model_budget || total > total_budget }' transformer.h

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include $(DESTDIR)$(PREFIX)/share/pkgconfig
	cp transformer.h $(DESTDIR)$(PREFIX)/include/transformer.h
	printf '%s\n' 'prefix=$(PREFIX)' 'includedir=$${prefix}/include' '' 'Name: transformer' \
	    'Description: Decoder-only transformers in one C header' 'Version: $(VERSION)' \
	    'Cflags: -I$${includedir}' 'Libs: -lm' >$(DESTDIR)$(PREFIX)/share/pkgconfig/transformer.pc

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/transformer.h $(DESTDIR)$(PREFIX)/share/pkgconfig/transformer.pc

format-check:
	@if command -v clang-format >/dev/null; then clang-format --dry-run -Werror $(SOURCES); \
	else echo 'SKIP  clang-format is not installed'; fi

# Every header with its implementation, and every program, is analysed on its own (constrain.h is a part of two of
# them). Deeper analysis takes minutes, and takes for possible what other functions rule out.
tidy: $(if $(shell command -v clang-tidy),$(addprefix tidy/,$(filter-out %/constrain.h %/unicode_data.h, \
    $(HEADERS) $(wildcard examples/*.c))))
	@command -v clang-tidy >/dev/null || echo 'SKIP  clang-tidy is not installed'

tidy/%: always
	@clang-tidy --quiet --warnings-as-errors='*' $* -- -x c -I. -std=gnu99 -Xclang -analyzer-config \
	    -Xclang mode=shallow $(if $(filter %.h,$*),-D$$(basename $* .h | tr a-z A-Z)_IMPLEMENTATION)

clean:
	rm -rf build

.PHONY: always examples run tests own-copy test lines install uninstall format-check tidy clean

#!/bin/sh
# Sessions with build/chat as a user has them: tests/chat_session.sh PROGRAM, from the project's root.
# Prints what is wrong; the exit status says whether anything is.
set -u
program=$1
out=$(mktemp -d) || exit 2
trap 'rm -rf "$out"' EXIT
wrong=0

bad() { echo "chat_session: $*" && wrong=1; }

chat() { # chat NAME OPTIONS...: the input on stdin, the answers in $out/NAME, the rest in $out/NAME.err
    name=$1
    shift
    "$program" examples/toy_lm --template chatml "$@" >"$out/$name" 2>"$out/$name.err" || bad "$name: exit status $?"
}
says() { grep -q "$2" "$out/$1.err" || bad "$1: does not say '$2'"; }
lines() { wc -l <"$out/$1" | tr -d ' '; }

# the same answers for any number of threads; an empty line is no message
printf 'Hello there.\n\nWho are you?\r\nGo on' | chat one -t 0 -n 12 -s 'Be brief.'
printf 'Hello there.\nWho are you?\nGo on\n' | chat two -t 0 -n 12 -s 'Be brief.' --threads 3
[ -s "$out/one" ] || bad "no answer"
cmp "$out/one" "$out/two" || bad "threads change the answers"
printf 'Hello there.\nWho are you?\nGo on\n' | chat fresh -t 0 -n 12 -s 'Be brief.' --fresh
cmp "$out/one" "$out/fresh" || bad "the cache that is kept between turns changes the answers"

# the seed decides, and penalties and bias do something
for run in a b; do printf 'Hello\n' | chat seed_$run --seed 7 -n 30 --min-p 0.05 --typical 0.9 --presence 0.5; done
printf 'Hello\n' | chat seed_c --seed 8 -n 30 --min-p 0.05 --typical 0.9 --presence 0.5
cmp "$out/seed_a" "$out/seed_b" || bad "the same seed gives another answer"
cmp -s "$out/seed_a" "$out/seed_c" && bad "another seed gives the same answer"
printf 'Hello\n' | chat plain -t 0 -n 30
printf 'Hello\n' | chat penalty -t 0 -n 30 --repetition 1.5 --frequency 0.5 --window 20
cmp -s "$out/plain" "$out/penalty" && bad "penalties change nothing"

# what does not fit is refused, and the talk goes on; old turns are forgotten
long=$(printf '%0400d' 0 | tr 0 a)
printf '%s\nHello\n' "$long" | chat long -t 0 -n 5 --ctx 100
says long 'the context has only 100'
[ "$(lines long)" -ge 1 ] || bad "no answer after a message that is too long"
for i in 1 2 3 4 5 6; do echo "Message $i"; done | chat trim -t 0 -n 8 --ctx 140 -s 'You are here.'
says trim 'messages are forgotten'
printf 'Hello\n' | chat full -t 0 --ctx 60 --bias 1=-inf --bias 2=-inf
says full 'the context of 60 tokens is full'

# a grammar rules every answer anew, and says when an answer is cut; both names of the tokenizer's option
printf 'root ::= "yes" | "no" " never"*\n' >"$out/grammar"
printf 'Is it?\nIs it not?\nGo on\n' | chat ruled --seed 3 -t 2 -n 20 --grammar "$out/grammar" -z examples/toy_lm
[ "$(grep -c -x -E 'yes|no( never)*' "$out/ruled")" -eq 3 ] || bad "answers do not follow the grammar"
printf 'Is it?\n' | chat cut --tokenizer examples/toy_lm -n 1 --grammar "$out/grammar"
says cut 'ends before the grammar does'
printf 'root ::= <[302]>{3} !<[302]> <0x21>\n' >"$out/grammar" # tokens by number and by name
printf 'Is it?\n' | chat tokens --seed 3 -t 2 --grammar "$out/grammar"
tr -d '\n' <"$out/tokens" | grep -q '^eee.*!$' || bad "an answer does not follow a grammar that names tokens"

# Ctrl-C ends an answer that would last for minutes, and not the program
{
    echo Hello
    sleep 3
    echo Hello again
} | "$program" examples/toy_lm --template chatml -t 1 --seed 1 --ctx 30000 --bias 1=-inf --bias 2=-inf \
    >"$out/stop" 2>"$out/stop.err" &
job=$!
sleep 1
kill -INT $job
sleep 3
kill -INT $job
wait $job || bad "Ctrl-C ended the program: exit status $?"
[ "$(grep -c '\[stopped\]' "$out/stop.err")" -eq 2 ] || bad "Ctrl-C did not stop both answers"

# clear errors
"$program" examples/toy_lm </dev/null >/dev/null 2>"$out/none.err" && bad "a model without a template is accepted"
says none 'no chat template'
"$program" examples/toy_lm --template nosuch </dev/null >/dev/null 2>"$out/name.err" && bad "any template is accepted"
says name 'chatml llama2 llama3'
exit $wrong

"""Makes tests/data/chat.txt: chat templates rendered as Hugging Face transformers renders them (jinja2, set up by
transformers' own code), for tests/test_chat.c.  From the project's root, with transformers and jinja2 installed:

    make build/test_chat && build/test_chat --templates | python3 tests/make_chat_goldens.py

The templates are those of examples/chat.h (named) and the small ones below, written to exercise the language.
With files as arguments it instead compares build/test_chat's rendering of each of them (templates from anywhere)
with transformers', and prints the differences:

    python3 tests/make_chat_goldens.py --compare FILE.jinja ...

Lines of the output: fields with tabs between; in each, \\n \\t \\r \\\\ stand for those characters.
    conversation ROLE CONTENT ...
    template NAME BOS EOS TEXT        (- = not defined)
    case CONVERSATION GENERATE EXPECTED | case CONVERSATION GENERATE ! (an error)
"""
import subprocess
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

S, U, A = "system", "user", "assistant"
CONVERSATIONS = [
    [(U, "Hello, who are you?")],
    [(S, "You are terse."), (U, "2 + 2?")],
    [(U, "Hi"), (A, "Hello! How can I help?"), (U, "Tell me a joke.")],
    [(S, "  Answer in French.\n"), (U, "  Bonjour  \n"), (A, " Bonsoir \n\n"),
     (U, "What's \"this\"? <|im_end|> [INST] \u00e9 \u6f22\u5b57 \U0001f642\u00a0"),
     (A, "<think>\nhm\n</think>\n\nIt is."), (U, "\n\nThanks\\n\tA {{ x }} {% if %}")],
    [(U, "one"), (A, "two"), (U, "three"), (A, "four")],
    [(S, ""), (U, "")],
]

M = "{% for m in messages %}"
FEATURES = [
    # white space
    "a\n  {% if true %}\n  b\n  {% endif %}\n c\n",
    "a\n  {%- if true -%}\n  b\n  {%- endif -%}\n c\n\n",
    "a\n  {%+ if true +%}\n  b\n  {% endif %} \n c",
    "  {# comment #}\nx {#- more -#} \n y\r\nz\r",
    "{{ 'a' }}  {% if true %} b{% endif %}\n\n{{ 'c' -}}  \n d {{- 'e' }}\n",
    "\t{% set x = 1 %}\t{{ x }} {% set y = 2 -%}  \n  {{ y }}",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {}|length }}{{ '}}' }}{{ \"%}\" }}",
    # loops
    M + "{{ loop.index }}/{{ loop.length }} {{ loop.index0 }} {{ loop.revindex }} {{ loop.revindex0 }}"
    "{{ loop.first }}{{ loop.last }}{% if loop.previtem is defined %} < {{ loop.previtem.role }}{% endif %}"
    "{% if loop.nextitem is defined %} > {{ loop.nextitem.role }}{% endif %}\n{% endfor %}",
    "{% for m in messages if m.role == 'user' %}[{{ loop.index }}{{ m.content }}]{% else %}none{% endfor %}",
    "{% for x in [] %}a{% else %}empty{% endfor %}{% for x in nothing %}a{% else %}undefined{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'x': 1} %}{{ k }}{% endfor %}",
    "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i > 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in range(2, 11, 3) %}{{ i }} {% endfor %}{% for i in range(3, 0, -1) %}{{ i }}{% endfor %}",
    "{% for c in 'h\u00e9\U0001f642' %}{{ c }}.{% endfor %}{% for a in range(3) %}{% for b in range(a) %}{{ a }}{{ b }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for a, b in [[1, 2], [3]] %}{{ a }}{% endfor %}",
    # scopes
    "{% set x = 1 %}{% for i in range(3) %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.s = ns.s ~ m.role %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% if true %}{% set x = 5 %}{% endif %}{{ x }}{% set a, b = 1, 2 %}{{ b }}{{ a }}{% set t = 1, 2 %}{{ t[1] }}",
    "{% set x %}a{{ 1 + 1 }}b{% endset %}{{ x ~ x }}{% set ns = namespace() %}{% set ns.y = [1] %}{{ ns.y[0] }}",
    "{% set x = {} %}{% set x.y = 1 %}{{ x.y }}",
    "{% macro f(a, b='z', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(c=3, a='q') }}{{ f() }}",
    "{% set g = 'G' %}{% macro f(x) %}{% set g = x %}{{ g }}{% endmacro %}{{ f('L') }}{{ g }}{{ f(f('i') | upper) }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}",
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    # expressions
    "{{ 1 + 2 * 3 - 4 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ 8 / 2 }} {{ -2 ** 2 }}",
    "{{ 1.5 + 1 }} {{ 0.1 + 0.2 }} {{ 1.0 }} {{ 2.50 }} {{ true + 1 }} {{ 3 * 'ab' if false else 'ab' * 3 }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ 'a' == 1 }} {{ none == nothing }} {{ [1, 'x'] == [1, 'x'] }}",
    "{{ not true or true and not false }} {{ true and 'x' or 'y' }} {{ '' or 'z' }} {{ not not 1 }} {{ 0 and 1 }}",
    "{{ 'a' in 'bab' }} {{ 'x' not in 'bab' }} {{ 1 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 'a' in nothing }} {{ not 'a' in 'b' }}",
    "{{ 'yes' if true }}{{ 'no' if false }}|{{ 1 if false else 2 if false else 3 }} {{ ('a' if x is defined else 'b') ~ 'c' }}",
    "{{ 'a' ~ 1 ~ none ~ true ~ 1.5 }} {{ 'a' 'b' \"c\" }} {{ 'x\\ty\\n\\'\\x41\\u00e9\\\\\\q' }} {{ [1, 2,][0] }} {{ (1,)[0] }} {{ (3) }}",
    "{{ 'h\u00e9llo'[1] }} {{ 'hello'[-1] }} {{ 'h\u00e9llo'[1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[:-2] }} {{ 'hello'[10:] }} {{ 'hello'[-3:10:2] }} {{ 'abc'[9] }}|",
    "{{ [1, 2, 3][1:] | join(',') }} {{ messages[-1].role }} {{ messages[1:][0].role }} {{ messages[0]['content'] }} {{ messages[99] is defined }}",
    "{{ nothing }}|{{ nothing is undefined }} {{ messages.foo is defined }} {{ messages[0].foo }} {{ messages[0]['foo'] is none }}",
    "{{ nothing.foo }}", "{{ nothing['foo'] }}", "{{ nothing + 'a' }}", "{{ 'a' + 1 }}", "{{ 1 / 0 }}", "{{ none() }}", "{{ nothing() }}", "{{ none.x.y }}",
    "{{ 'a' < 1 }}", "{{ [1][0](2) }}", "{{ - 'a' }}", "{{ 1 if }}", "{{ (1 }}", "{{ 1 ", "{% if x %}", "{% endif %}", "{% for x %}{% endfor %}", "{{ x y }}",
    "{% include 'a' %}", "{% foo %}", "{# ", "{{ 'a }}", "{{ 1 } }}", "{% set %}", "{{ 'a' | nosuchfilter }}", "{{ 1 is nosuchtest }}", "{{ raise_exception('no ' ~ 1) }}",
    # filters, tests, methods
    "[{{ '  a b \n' | trim }}] {{ 'abc' | length }} {{ 'h\u00e9' | count }} {{ [1, 2] | length }} {{ 'aBc' | upper }}{{ 'aBc' | lower }}{{ 'aBc dE' | capitalize }}",
    "{{ [1, 'a', none] | join('-') }} {{ ['a'] | first }} {{ [1, 2] | last }} {{ [] | first }}|{{ 'abc' | first }} {{ 'abc' | list | join(',') }} {{ [1, 2, 3] | reverse | list | join }}",
    "{{ nothing | default('d') }} {{ '' | default('d') }}|{{ '' | default('d', true) }} {{ none | d('x', boolean=true) }} {{ 'a-b-a' | replace('a', 'xy') }} {{ 'aaa' | replace('a', 'b', 2) }}",
    "{{ {'a': [1, 2.5, none, true, 'q\"\\n\u00e9'], 'b': {}} | tojson }} {{ [] | tojson }} {{ 'x' | tojson }}\n{{ {'a': [1, {}], 'b': 'c'} | tojson(indent=2) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | join(' ') }} {{ [0, 1, 2] | select | list | length }} {{ [1, 2, 3] | select('odd') | join }} {{ [1, 2] | reject('equalto', 1) | join }} {{ ['a'] | map('upper') | join }}",
    "{{ messages | tojson }}", "{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}", "{{ {'b': 1, 'a': 2, 'C': 3} | dictsort | map('join', '=') | join(' ') if false else '' }}{% for k, v in {'b': 1, 'a': 2, 'C': 3} | dictsort %}{{ k }}{{ v }}{% endfor %}",
    "{{ 1 is number }} {{ 'a' is string }} {{ none is none }} {{ 1 is not none }} {{ [] is iterable }} {{ {} is mapping }} {{ true is boolean }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is true }} {{ 1 is true }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ 4 is divisibleby(3) }} {{ 'a' is in 'abc' if false else 1 is eq 1 }} {{ {} is sequence }} {{ raise_exception is callable }} {{ false is false }}",
    "{{ ' a '.strip() }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ 'xxaxx'.strip('x') }} {{ 'a,b,c'.split(',') | join('|') }} {{ 'a,b,c'.split(',', 1)[1] }} {{ ' a  b '.split() | join('|') }} {{ 'a b c'.split(none, 1)[-1] }} {{ 'a,b,c'.rsplit(',', 1)[0] }} {{ 'a\nb\n'.splitlines() | join('|') }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'aB'.upper() }}{{ 'aB'.lower() }} {{ 'ab cd'.title() }} {{ 'AB'.capitalize() }} {{ 'aXbX'.replace('X', '') }} {{ ','.join(['a', 'b']) }} {{ 'abab'.count('ab') }} {{ '\u00e9ab'.find('b') }} {{ 'abab'.rfind('ab') }} {{ 'a'.find('z') }} {{ '12'.isdigit() }} {{ '{}-{}'.format('a', 1) }}",
    "{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ {'a': 1}.keys() | list | join }} {{ {'a': 1}.values() | list | join }} {{ {'a': 1}.items() | list | length }} {{ {'a': 1} | items | list | length }} {{ {'a': 1, 'a': 2}.a }} {{ dict(a=1, b=2).b }} {{ ([1] + [2]) | join }}",
    "{{ messages[0].content.split('e')[0] }}{{ '</think>' in messages[-1].content }}{% set c = messages[-1].content %}{% if '</think>' in c %}{{ c.split('</think>')[-1].lstrip('\n') }}{% endif %}",
    "{{ tools is none }} {{ documents }} {{ tools is not none }} {{ tools is defined }} {{ add_generation_prompt }} {{ bos_token }}{{ eos_token }} {{ pad_token is defined }} {{ messages is string }} {{ messages[0] is mapping }}",
    # macros and the variables around them
    "{% for i in range(3) %}{% macro f(a, b=a) %}{{ i }}{{ a }}{{ b }}{{ x }} {% endmacro %}{% set x = i * 2 %}{{ f(7) }}{% endfor %}{{ x }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, zzz=2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, a=2) }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(*[1]) }}{{ f(*(2,)) }}{{ f(*'3') }}", "{% macro f(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1, *[2, 3]) }}",
    # call, filter, set with filters
    "{% macro tag(name) %}<{{ name }}>{{ caller(name, 2) }}{{ caller() }}</{{ name }}>{% endmacro %}{% for m in messages %}{% call(n, x='-') tag(m.role) %}\n  {{ n | upper }}{{ x }}{{ m.content | trim }}{{ loop.index }}\n{% endcall %}{% endfor %}",
    "{% macro f() %}{{ caller is defined }}{{ caller() if caller else 'none' }}{% endmacro %}{{ f() }}{% call f() %}body{% endcall %}",
    "{% macro outer() %}[{{ caller() }}]{% endmacro %}{% macro inner(x) %}({{ caller(x) }}){% endmacro %}{% call outer() %}a{% call(y) inner('b') %}{{ y }}{% endcall %}c{% endcall %}",
    "{% macro f() %}{{ messages[0].role }}{% endmacro %}{% call f() %}body{% endcall %}", "{% call 1 %}body{% endcall %}",
    "{% filter upper | replace('B', 'x') %}\n a b {{ messages[0].role }}\n{% endfilter %}{% filter trim %}  {% for i in range(2) %} {{ i }} {% endfor %}  {% endfilter %}|",
    "{% set x | trim | upper %}\n  a {{ 1 }}\n{% endset %}[{{ x }}]",
    # generators, views and ranges are no lists
    "{% set us = messages | selectattr('role', 'eq', 'nobody') %}{{ 'some' if us else 'none' }}{% for m in us %}x{% else %}empty{% endfor %}",
    "{% set us = messages | selectattr('role', 'eq', 'user') %}{% for m in us %}{{ loop.index }}{{ loop.last }}{% endfor %};{% for m in us %}{{ m.role }}{% else %}used up{% endfor %}",
    "{{ messages | selectattr('role') | length }}", "{{ messages | map(attribute='role') | tojson }}", "{{ messages | reverse | tojson }}", "{{ {'a': 1} | items | length }}",
    "{{ {'a': 1}.items() | tojson }}", "{{ range(2) | tojson }}", "{{ range(2) + [1] }}", "{{ (messages | select)[1:] }}", "{{ messages | select | last }}",
    "{% set g = [1, 2, 3] | select %}{{ g | first }}{{ g | first }}{{ g | list | length }}{{ g | first }}|{% set h = [1, 2, 3] | map('string') %}{{ '2' in h }}{{ h | join }}",
    "{{ (messages | select)[0] is defined }} {{ messages | select is sequence }} {{ {}.keys() is sequence }} {{ range(3) is sequence }} {{ range(9)[2:5] | join }} {{ {'a': 1}.keys() | length }} {{ 'x' if {}.items() else 'y' }} {{ range(3) == [0, 1, 2] }} {{ (1, 2) == [1, 2] }}",
    "{{ {'a': 1, 'b': [2]} == {'b': [2], 'a': 1} }} {{ {'a': 1} == {'a': 2} }} {{ {'a': 1} != {'b': 1} }} {{ 'abc'.startswith(['a']) }}", "{{ 'abc'.startswith(('x', 'a')) }}{{ [3, 1, 2] | reverse | list | join }}{{ [1, 2] | select | reverse | length }}",
    # loops that are left
    "{% for i in [1, 2] %}{{ i }}{% break %}{% else %}no whole pass{% endfor %}{% for i in [1, 2] %}{% continue %}{% else %} none{% endfor %}{% for i in [1, 2] %}{% if loop.last %}{% break %}{% endif %}{% else %}never{% endfor %}",
    "{% for i in [1] %}{{ loop.depth }}{{ loop.depth0 }}{% for j in [1] %}{{ loop.depth }}{% endfor %}{{ loop['index'] }}{{ loop is mapping }}{{ loop is callable }}{% endfor %}{{ nothing is callable }}{% set ns = namespace(a=1) %}{{ ns['a'] }}{{ ns['b'] is defined }}",
    # tests take what follows for their argument
    "{{ 'a' is defined is string }}", "{{ (1 is true if 2 else 3) }}", "{{ 1 is number in [true] }}", "{{ 1 is odd not in [1] }}", "{{ (1 is eq(1)) is true }}{{ 1 is eq(1) is true }}{{ 'x' if 1 is eq(1) else 'y' }}",
    # numbers
    "{{ 10.0 }} {{ 100.0 }} {{ 20 / 2 }} {{ 1 / 3 }} {{ 2 / 3 * 100 }} {{ 1000000.0 * 1000000000.0 }} {{ 0.0001 }} {{ 0.00012345 }} {{ 123456789.125 }} {{ 9007199254740993.0 }} {{ -0.0 }} {{ -1200.0 | tojson }}",
    "{{ '12' | int + 1 }} {{ ' -7 ' | int }} {{ 3.9 | int }} {{ -3.9 | int }} {{ true | int }} {{ -3 | abs }} {{ 2.5 | abs }} {{ (0 - 2) | abs }}",
    # sort, unique, min, max, title
    "{{ [3, 1, 2] | sort | join }} {{ ['b', 'A', 'a', 'B'] | sort | join }} {{ messages | sort(attribute='role') | map(attribute='role') | join(',') }} {{ 'cab' | sort | join }} {{ ['b', 1] | sort }}",
    "{{ ['b', 'A', 'a', 'B'] | unique | join }} {{ messages | map(attribute='role') | unique | join(',') }} {{ messages | unique(attribute='role') | list | length }} {{ [1, 2, 1] | unique | list | tojson }}",
    "{{ [3, 1, 2] | min }}{{ [3, 1, 2] | max }} {{ ['b', 'A'] | min }}{{ ['b', 'B'] | max }} {{ [] | min is defined }} {{ (messages | max(attribute='role')).role }} {{ messages | map('length') | max }}",
    "{{ \"it's a-b (c) d_e f1g\" | title }} {{ \"it's a-b (c) d_e f1g\".title() }} {{ 'MIXED case' | title }}",
    # what is marked safe
    "{{ '<' | safe }}{{ ('<' | safe) ~ '>' }}{{ '<a>' | safe | replace('a', '<') }}{{ ['<' | safe, '>'] | join('&') }}{{ ('<' | safe) == '<' }}{{ '<a' | safe | upper | trim }}",
    "{{ nothing | dictsort }}", "{{ nothing | indent }}",
    "{{ '' ~ messages[0].role | upper }}{{ messages[0].role | upper == 'USER' }}{{ -1 | string }}{{ 1 + 2 | string | length }}{{ 'a' is string and 'b' }}",
]


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def render(text, conversation, generate, bos, eos):
    tokens = {k: v for k, v in (("bos_token", bos), ("eos_token", eos)) if v is not None}
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        return _compile_jinja_template(text).render(
            messages=messages, tools=None, documents=None, add_generation_prompt=generate, **tokens)
    except Exception:  # whatever is wrong with a template
        return None


def goldens(out):
    unescape = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}
    for conversation in CONVERSATIONS:
        out.write("\t".join(["conversation"] + [escape(x) for turn in conversation for x in turn]) + "\n")
    templates = []
    for line in sys.stdin:
        fields = line.rstrip("\n").split("\t")
        for code, character in unescape.items():
            fields = [x.replace(code, character) for x in fields]
        templates.append([None if x == "-" else x for x in fields])
    templates += [["feature", "<s>", "</s>", text] for text in FEATURES]
    for name, bos, eos, text in templates:
        out.write("\t".join(["template", name, bos or "-", eos or "-", escape(text)]) + "\n")
        for i, conversation in enumerate(CONVERSATIONS):
            if name == "feature" and i not in (0, 3):
                continue
            for generate in (0, 1) if name != "feature" else (0,):
                result = render(text, conversation, bool(generate), bos, eos)
                expected = ["!"] if result is None else ["=" + escape(result)]
                out.write("\t".join(["case", str(i), str(generate)] + expected) + "\n")


def compare(paths):
    different = 0
    for path in paths:
        text = open(path, newline="", encoding="utf-8").read()
        for conversation in CONVERSATIONS:
            for generate in (0, 1):
                expected = render(text, conversation, bool(generate), "<s>", "</s>")
                message = "\0".join(x for turn in conversation for x in turn) + "\0"
                program = ["build/test_chat", "--render", path, str(generate), "<s>", "</s>"]
                done = subprocess.run(program, input=message.encode(), capture_output=True, check=False)
                got = done.stdout.decode() if done.returncode == 0 else None
                if got != expected:
                    different += 1
                    print(f"{path}: expected {expected!r:.300}\n   got {got!r:.300} {done.stderr!r:.200}")
    print(f"{len(paths)} templates, {different} differences")
    return different != 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--compare"]:
        sys.exit(compare(sys.argv[2:]))
    with open("tests/data/chat.txt", "w", encoding="utf-8") as file:
        goldens(file)

/* examples/chat.h against goldens that transformers rendered (tests/make_chat_goldens.py), what it says of where each
 * byte is from, its limits, hostile templates and files, and allocations that fail. */
#include <stdint.h>
#include <stdlib.h>

#include "allocator.h"

#define malloc counted_malloc
#define calloc counted_calloc
#define realloc counted_realloc
#define free counted_free
#define CHAT_IMPLEMENTATION
#include "../examples/chat.h"
#undef malloc
#undef calloc
#undef realloc
#undef free
#include "test.h"

enum { MAX_TURNS = 16, MAX_CONVERSATIONS = 8 };

typedef struct conversation {
    chat_message messages[MAX_TURNS];
    int n;
} conversation;

static chat_error error;

/* NULL with the reason in error.text. */
static chat_text *render(const chat_template *t, const conversation *c, int generate) {
    static chat_text text;
    chat_conversation talk;
    memset(&talk, 0, sizeof talk);
    chat_text_free(&text);
    talk.messages = c->messages, talk.n_messages = c->n;
    talk.add_generation_prompt = generate;
    return t && chat_template_render(t, &talk, &text, &error) == 0 ? &text : NULL;
}

static const conversation greeting = {{{"user", "Hello <|im_end|>"}}, 1};

/* Renders a template that is given as text; the result lasts until the next rendering. */
static chat_text *render_text(const char *template_text, const conversation *c) {
    chat_template *t = chat_template_open(template_text, strlen(template_text), &error);
    chat_text *text = render(t, c, 0);
    chat_template_close(t);
    return text;
}

/* ---- goldens ---- */

/* Cuts the line at tabs and replaces the escapes in it. */
static int split_fields(char *line, char **fields, int most) {
    int n = 1;
    char *out = line;
    fields[0] = line;
    for (char *s = line; *s && n < most; s++) {
        if (*s == '\t') *out++ = 0, fields[n++] = out;
        else if (*s == '\\') {
            s++;
            *out++ = *s == 'n' ? '\n' : *s == 't' ? '\t' : *s == 'r' ? '\r' : '\\';
        } else *out++ = *s;
    }
    *out = 0;
    return n;
}

static void read_conversation(conversation *c, char **fields, int n) {
    c->n = 0;
    for (int i = 1; i + 1 < n && c->n < MAX_TURNS; i += 2, c->n++)
        c->messages[c->n].role = fields[i], c->messages[c->n].content = fields[i + 1];
}

static const char *or_null(const char *field) { return strcmp(field, "-") == 0 ? NULL : field; }

/* One line "case": 1 if the rendering is as transformers has it. */
static int check_case(const chat_template *t, const conversation *c, char **fields,
                      const char *name) {
    chat_text *text = render(t, c, atoi(fields[2]));
    int same = text ? fields[3][0] == '=' && text->size == strlen(fields[3] + 1) &&
                          memcmp(text->text, fields[3] + 1, text->size) == 0
                    : fields[3][0] == '!' && strncmp(error.text, "chat template, line ", 20) == 0;
    if (!same)
        fprintf(stderr, "%s, conversation %s:\n  %s\ninstead of\n  %s\n", name, fields[1],
                text ? text->text : error.text, fields[3]);
    return same;
}

static void test_goldens(void) {
    static conversation conversations[MAX_CONVERSATIONS];
    int n_conversations = 0, n_named = 0, n_cases = 0;
    char *data = test_read_file("tests/data/chat.txt", NULL), *next, *fields[40];
    char name[200] = "";
    chat_template *t = NULL;
    CHECK(data != NULL);
    for (char *line = data; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        int n = split_fields(line, fields, 40);
        if (strcmp(fields[0], "conversation") == 0 && n_conversations < MAX_CONVERSATIONS) {
            read_conversation(&conversations[n_conversations++], fields, n);
        } else if (strcmp(fields[0], "template") == 0 && n == 5) {
            int is_named = strcmp(fields[1], "feature") != 0;
            chat_template_close(t);
            t = is_named ? chat_template_named(fields[1], &error)
                         : chat_template_open(fields[4], strlen(fields[4]), &error);
            if (t && !is_named) chat_template_set_tokens(t, or_null(fields[2]), or_null(fields[3]));
            snprintf(name, sizeof name, "%.190s", is_named ? fields[1] : fields[4]);
            n_named += is_named;
        } else if (strcmp(fields[0], "case") == 0 && n == 4 && atoi(fields[1]) < n_conversations) {
            CHECK(check_case(t, &conversations[atoi(fields[1])], fields, name));
            n_cases++;
        } else {
            CHECK(n < 0); /* a line that is not understood */
        }
    }
    chat_template_close(t);
    free(data);
    for (int i = 0; i < n_named; i++) CHECK(chat_template_name(i) != NULL);
    CHECK(chat_template_name(n_named) == NULL && chat_template_name(-1) == NULL);
    CHECK(chat_template_named("nosuch", &error) == NULL && strstr(error.text, "nosuch"));
    CHECK(n_named == 14 && n_cases > 250);
    GROUP("%d renderings of %d named templates and of the language equal transformers'", n_cases,
          n_named);
}

/* ---- where text is from ---- */

/* The bytes of text, 'q' where quoted and '.' where not, as a string. */
static const char *marks(const chat_text *text) {
    static char out[1000];
    size_t n = text && text->size < sizeof out - 1 ? text->size : 0;
    for (size_t i = 0; i < n; i++) out[i] = text->quoted[i] ? 'q' : '.';
    out[n] = 0;
    return out;
}

static void test_quoted(void) {
    static const char *const cases[][3] = {
        {"<a>{{ messages[0].content }}<b>", "<a> Ab,cD <b>", "...qqqqqqq..."},
        {"{{ messages[0].content.strip() + '!' }}", "Ab,cD!", "qqqqq."},
        {"{{ messages[0]['content'] | trim | upper ~ '!' }}", "AB,CD!", "qqqqq."},
        {"{{ messages[0].content[1:4] }}{{ messages[0].content[1] }}", "Ab,A", "qqqq"},
        {"{{ messages[0].content.split(',') | join('<x>') }}", " Ab<x>cD ", "qqq...qqq"},
        {"{{ messages[0].content.replace(',', '<x>') }}", " Ab<x>cD ", "qqq...qqq"},
        {"{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}", "< Ab,cD >", ".qqqqqqq."},
        {"{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(messages[0].content) }}", "< Ab,cD >",
         ".qqqqqqq."},
        {"{{ messages[0].content | tojson }}", "\" Ab,cD \"", ".qqqqqqq."},
        {"{{ messages[0].content[::-1] }}{{ '<' * 2 }}", " Dc,bA <<", "qqqqqqq.."},
        {"{{ '{}>'.format(messages[0].content) }}", " Ab,cD >", "qqqqqqq."},
        {"{% for c in messages[0].content %}{{ c }}{% endfor %}", " Ab,cD ", "qqqqqqq"},
        {"<{{ messages[0].role }}>{{ messages[1].role }}", "<user><x>", "......qqq"},
        {"{{ messages | map(attribute='content') | join('+') }}", " Ab,cD +", "qqqqqqq."},
        {"{{ messages[0].content.lower() | indent(1, true) }}", "  ab,cd ", ".qqqqqqq"},
        {"{% macro f() %}<{{ caller(messages[0].content) }}>{% endmacro %}{% call(x) f() %}{{ x "
         "}}-{% "
         "endcall %}",
         "< Ab,cD ->", ".qqqqqqq.."},
        {"{% filter upper | trim %}<{{ messages[0].content }} {% endfilter %}", "< AB,CD",
         ".qqqqqq"},
        {"{{ ['<', messages[0].content] | sort | join }}", " Ab,cD <", "qqqqqqq."},
        {"{{ messages[0].content | unique | join }}{{ [messages[0].content, '!!'] | max }}",
         " Ab,cD!!", "qqqqqq.."},
        {"{{ messages[0].content.title() }}{{ messages[0].content.rstrip('D ')[-1] }}", " Ab,Cd c",
         "qqqqqqqq"},
    };
    const conversation c = {{{"user", " Ab,cD "}, {"<x>", ""}}, 2};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        chat_text *text = render_text(cases[i][0], &c);
        CHECK(text && strcmp(text->text, cases[i][1]) == 0 &&
              strcmp(marks(text), cases[i][2]) == 0);
        if (text && strcmp(marks(text), cases[i][2]) != 0)
            fprintf(stderr, "%s: %s %s\n", cases[i][0], text->text, marks(text));
    }
    GROUP("every byte knows whether it is a message's or the template's");
}

/* In every named template a message's text is quoted and nothing else is. */
static void test_quoted_named(void) {
    const conversation c = {
        {{"system", "Zy<s>"}, {"user", "Zx<|im_end|>"}, {"assistant", "Zz[INST]"}, {"user", "Zw"}},
        4};
    for (int i = 0; chat_template_name(i); i++) {
        chat_template *t = chat_template_named(chat_template_name(i), &error);
        chat_text *text = render(t, &c, 1);
        size_t quoted = 0;
        CHECK(text != NULL);
        for (size_t at = 0; text && at < text->size; at++) quoted += text->quoted[at];
        CHECK(quoted == 5 + 12 + 8 + 2);
        for (int turn = 0; text && turn < c.n; turn++) {
            const char *content = c.messages[turn].content, *at = strstr(text->text, content);
            CHECK(at != NULL);
            for (size_t k = 0; at && k < strlen(content); k++)
                CHECK(text->quoted[(size_t)(at - text->text) + k]);
        }
        chat_template_close(t);
    }
    GROUP("named templates quote the messages and nothing else");
}

/* ---- variables, time, errors ---- */

/* What Jinja does in another way than we could: refused by name. */
static void test_refused(void) {
    static const char *const cases[][2] = {
        {"{{ cycler('a').next() }}", "cycler"},
        {"{% set ns = namespace() %}{% for i in [4, 5] %}{% macro f() %}{{ i }}{% endmacro %}"
         "{% set ns.f = f %}{% endfor %}{{ ns.f() }}",
         "outside"},
        {"{{ joiner is defined }}", "joiner"},
        {"{{ lipsum }}", "lipsum"},
        {"{{ self }}", "self"},
        {"{% macro f() %}{{ varargs }}{% endmacro %}{{ f() }}", "varargs"},
        {"{% macro f() %}{{ kwargs }}{% endmacro %}{{ f() }}", "kwargs"},
        {"{% macro f() %}{% endmacro %}{{ f.name }}", "'name'"},
        {"{% for i in [1] %}{{ loop.cycle(1, 2) }}{% endfor %}", "'cycle'"},
        {"{% for i in [1] %}{{ loop.changed is defined }}{% endfor %}", "'changed'"},
        {"{{ {'items': 1}.items }}", "'items'"},
        {"{{ {}['keys'] is defined }}", "'keys'"},
        {"{{ [].append is defined }}", "'append'"},
        {"{{ 'a'.zfill(3) }}", "'zfill'"},
        {"{{ 1.real }}", "'real'"},
        {"{{ ('<' | safe) + '>' }}", "safe"},
        {"{{ '>' + ('<' | safe) }}", "safe"},
        {"{{ ('<a' | safe).replace('a', '>') }}", "safe"},
        {"{{ {}.keys() == {}.keys() }}", "views"},
        {"{{ [[1], [2]] | unique | list | length }}", "unique"},
        {"{{ [1] | sort(true) }}", "option"},
        {"{{ [1] | min(attribute='a,b') }}", "option"},
        {"{{ 'x1' | int }}", "int"},
        {"{{ '1_0' | int }}", "int"},
        {"{% call(1) f() %}{% endcall %}", "parameter"},
        {"{% filter nosuch %}{% endfilter %}", "'nosuch'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int refused = render_text(cases[i][0], &greeting) == NULL;
        CHECK(refused && strstr(error.text, cases[i][1]));
        if (!refused) fprintf(stderr, "%s is not refused\n", cases[i][0]);
    }
}

static void test_variables(void) {
    static const char text[] =
        "{{ name }} {{ flag }} {{ other is defined }} {{ strftime_now is defined }}";
    chat_variable variables[2] = {{"name", "<x>", 0}, {"flag", NULL, 1}};
    chat_conversation talk;
    chat_text out = {NULL, NULL, 0};
    struct tm now;
    memset(&talk, 0, sizeof talk);
    memset(&now, 0, sizeof now);
    talk.variables = variables, talk.n_variables = 2;
    chat_template *t = chat_template_open(text, strlen(text), &error);
    CHECK(t && chat_template_render(t, &talk, &out, &error) == 0);
    CHECK(strcmp(out.text, "<x> True False False") == 0 &&
          strncmp(marks(&out), "qqq......", 9) == 0);
    chat_text_free(&out);
    chat_template_close(t);
    static const char date[] = "{{ strftime_now('%d %b %Y') }}";
    t = chat_template_open(date, strlen(date), &error);
    CHECK(t && chat_template_render(t, &talk, &out, &error) == -1);
    now.tm_year = 124, now.tm_mon = 6, now.tm_mday = 26;
    talk.now = &now;
    CHECK(t && chat_template_render(t, &talk, &out, &error) == 0 &&
          strcmp(out.text, "26 Jul 2024") == 0);
    chat_text_free(&out);
    chat_template_close(t);
    CHECK(render_text("{{ 1 }}\n\n{{ raise_exception('roles!') }}", &greeting) == NULL);
    CHECK(strcmp(error.text, "chat template, line 3: the template says: roles!") == 0);
    CHECK(render_text("\n{% import 'x' %}", &greeting) == NULL && strstr(error.text, "line 2") &&
          strstr(error.text, "import"));
    CHECK(render_text("{% raw %}{% endraw %}", &greeting) == NULL && strstr(error.text, "raw"));
    CHECK(render_text("{{ 1e3 }}", &greeting) == NULL &&
          render_text("{{ [1] }}", &greeting) == NULL);
    CHECK(render_text("{{ '\xC3\xA9' | upper }}", &greeting) == NULL &&
          strstr(error.text, "ASCII"));
    CHECK(render_text("{{ x.y }}", &greeting) == NULL && strstr(error.text, "'x' is undefined"));
    test_refused();
    CHECK(chat_template_open(NULL, 0, &error) == NULL && chat_template_open("{{", 2, NULL) == NULL);
    chat_template_close(NULL);
    GROUP("variables, the time, and errors with their line");
}

/* ---- limits ---- */

static char *repeated(const char *text, int n, const char *last) {
    char *out = (char *)malloc(strlen(text) * (size_t)n + strlen(last) + 1);
    if (out == NULL) exit(2);
    out[0] = 0;
    for (int i = 0; i < n; i++) memcpy(out + strlen(text) * (size_t)i, text, strlen(text) + 1);
    strcpy(out + strlen(text) * (size_t)n, last);
    return out;
}

static void test_limits(void) {
    static const char *const endless[][2] = {
        {"{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}",
         ""},
        {"{% for a in range(2000000000) %}{% endfor %}", ""},
        {"{% set ns = namespace(x='ab') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% "
         "endfor %}",
         ""},
        {"{{ 'abcdefgh' * 2000000000 }}", ""},
        {"{% set ns = namespace(x=[1]) %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% "
         "endfor %}",
         ""},
        {"{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "deeply"},
        {"{% set x = 'a' * 1000000 %}{{ x.find(x[:500000] + 'b') }}", "steps"},
        {"{% set x = 'a' * 100000 %}{% for i in range(100000) %}{{ x == x + 'b' }}{% endfor %}",
         ""},
        {"{% set x = 'a' * 100000 %}{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}",
         ""},
        {"{% set x = 'a' * 100000 %}{% for i in range(1000000) %}{% set y = x | trim('a') %}{% "
         "endfor %}",
         ""},
        {"{% set x = '\\n' * 1000000 %}{% for i in range(10000) %}{% set y = x | indent(9) %}{% "
         "endfor %}",
         ""},
        {"{% set ns = namespace(x=[]) %}{% for i in range(2000) %}{% set ns.x = [ns.x] %}{% endfor "
         "%}{{ ns.x | tojson }}",
         "deeply"},
        {"{% for i in range(100) %}{{ range(100000) | sort | length }}{% endfor %}", ""},
        {"{{ range(1000000) | unique | list | length }}", ""},
        {"{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}{% call f() %}{{ g() }}{% "
         "endcall "
         "%}{% endmacro %}{{ g() }}",
         "deeply"},
        {"{% macro f(x) %}{% endmacro %}{% for i in range(100000) %}{{ f(*range(100000)) }}{% "
         "endfor "
         "%}",
         ""},
    };
    clock_t start = clock();
    for (size_t i = 0; i < sizeof endless / sizeof endless[0]; i++) {
        clock_t begin = clock();
        int refused = render_text(endless[i][0], &greeting) == NULL;
        CHECK(refused && strstr(error.text, endless[i][1]));
        if (!refused) fprintf(stderr, "%s: %s\n", endless[i][0], error.text);
        double s = (double)(clock() - begin) / CLOCKS_PER_SEC;
        if (s > 2) fprintf(stderr, "%.2f s: %s\n", s, endless[i][0]);
    }
    static const char *const deep[][3] = {{"{{ ", "(", "1 }}"},
                                          {"{{ ", "[", "1 }}"},
                                          {"{{ ", "not ", "1 }}"},
                                          {"{{ ", "-", "1 }}"},
                                          {"{{ 1", "+1", " }}"},
                                          {"{{ 'a'", "|trim", " }}"},
                                          {"{{ x", ".a", " }}"},
                                          {"", "{% if 1 %}", ""},
                                          {"{% if 0 %}", "{% elif 0 %}", "{% endif %}"},
                                          {"{{ 1", " if 1 else 1", " }}"},
                                          {"", "{% for x in y %}", ""},
                                          {"{{ 1", " if 1", " }}"},
                                          {"{{ ", "1 if ", "1 }}"},
                                          {"{{ a", "[1", " }}"},
                                          {"{{ 1", " < 1", " }}"},
                                          {"{{ a", "(1)", " }}"},
                                          {"{{ 1", " is defined", " }}"},
                                          {"{{ 1", " and 1", " }}"},
                                          {"", "{% filter trim %}", ""},
                                          {"", "{% set x | trim %}", ""},
                                          {"", "{% call f() %}", ""},
                                          {"{{ f(", "*", "1) }}"},
                                          {"{{ ", "{1:", " }}"}};
    for (size_t i = 0; i < sizeof deep / sizeof deep[0]; i++) {
        char *middle = repeated(deep[i][1], 100000, deep[i][2]),
             *text = repeated(deep[i][0], 1, middle);
        chat_text *out = render_text(text, &greeting);
        CHECK(out != NULL || strstr(error.text, "line 1"));
        free(middle);
        free(text);
    }
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 60); /* no hang; sanitizers are slow */
    GROUP("endless and deep templates end with an error");
}

/* ---- damaged templates ---- */

static const char rich[] =
    "{#- c -#}{%- set ns = namespace(a='', b=[1,2]) %}{% macro f(x, "
    "y='\\u00e9') -%}<{{ x ~ y }}>{%- endmacro %}\n"
    "{% for m in messages if m.role != \"q\" %}{% set ns.a = ns.a + "
    "m.content[1:-1:2].strip() | upper %}"
    "{{ f(m.role, y={'k': (1, 2.5)}['k'][0]) }}{% if loop.first and not "
    "loop.last or m is mapping %}{{ -1 ** 2 }}"
    "{% elif 'a' in m.content %}{% continue %}{% else %}{% break %}{% endif "
    "%}{% endfor %}{{ ns.a if ns.b else none }}"
    "{% set z %}{{ [1, 'x'] | tojson(indent=1) }}{% endset %}{{ "
    "z.split('\\n')[0] }}{% generation %}{{ 'a' is string }}"
    "{% endgeneration %}{{ messages | selectattr('role', 'eq', 'user') | "
    "map(attribute='content') | join(', ') }}{% macro g(a) %}{{ caller(*a) }}"
    "{% endmacro %}{% call(q, w=1) g([2]) %}{{ q }}{% endcall %}{% filter trim "
    "%} {{ [2, 1] | sort | unique | max }}{% endfilter %}";

static void test_damaged(void) {
    static const char replacements[] = "\0{}%#'\"([)],.|-\\\n\x80"
                                       "a1 ";
    char copy[sizeof rich];
    int good = 0, n = (int)sizeof rich - 1;
    CHECK(render_text(rich, &greeting) != NULL);
    for (int size = 0; size <= n; size++) {
        chat_template *t = chat_template_open(rich, (size_t)size, &error);
        good += render(t, &greeting, 1) != NULL;
        chat_template_close(t);
    }
    for (int at = 0; at < n; at++)
        for (size_t k = 0; k < sizeof replacements - 1; k++) {
            memcpy(copy, rich, sizeof copy);
            copy[at] = replacements[k];
            chat_template *t = chat_template_open(copy, (size_t)n, &error);
            good += render(t, &greeting, 1) != NULL;
            chat_template_close(t);
        }
    CHECK(good > 100 && good < n * (int)sizeof replacements);
    const conversation broken = {{{"user", "\x80\xC3(\xF0\x9F \xFF\xFE"}, {"\xC3", "\xE2\x80"}}, 2};
    CHECK(render_text(rich, &broken) != NULL || error.text[0]);
    GROUP("every truncation and many damaged bytes: refused or rendered");
}

/* ---- files ---- */

static void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f != NULL && fwrite(data, 1, size, f) == size);
    if (f) fclose(f);
}

static const char path[] = "build/test_chat.file";

static chat_text *load_text(const char *text) {
    write_file(path, text, strlen(text));
    chat_template *t = chat_template_load(path, &error);
    chat_text *out = render(t, &greeting, 0);
    chat_template_close(t);
    return out;
}

static void test_config_files(void) {
    static const char *const good[][2] = {
        {"{\"chat_template\": \"{{ bos_token }}{{ eos_token }}x\\n\\u00e9\\ud83d\\ude42\\\"\", "
         "\"bos_token\": \"<s>\",\n"
         " \"eos_token\": {\"a\": [1, {}], \"content\": \"</s>\"}}",
         "<s></s>x\n\xC3\xA9\xF0\x9F\x99\x82\""},
        {"{\"chat_template\": [{\"name\": \"tool\", \"template\": \"no\"}, {\"template\": \"yes\", "
         "\"name\": \"default\"}],"
         "\"bos_token\": null}",
         "yes"},
        {" {\"x\": {\"chat_template\": \"no\"}, \"y\\\"\": \"\\\\\", \"chat_template\":\"{{ "
         "bos_token is defined }}\"}",
         "False"},
    };
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"chat_template\": 1}",
        "{\"chat_template\": []}",
        "{\"chat_template\"",
        "{\"chat_template\": \"{{\"}",
        "{\"a\" 1, \"chat_template\": \"x\"}",
        "{\"chat_template\": [{\"name\": \"x\", \"template\": \"x\"}"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        chat_text *text = load_text(good[i][0]);
        CHECK(text && strcmp(text->text, good[i][1]) == 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(load_text(bad[i]) == NULL && error.text[0]);
    for (size_t n = 0; n < strlen(good[0][0]); n++) {
        write_file(path, good[0][0], n);
        chat_template_close(chat_template_load(path, &error));
    }
    remove(path);
    CHECK(chat_template_load(path, &error) == NULL && strstr(error.text, path));
    GROUP("tokenizer_config.json");
}

typedef struct bytes {
    unsigned char data[600];
    size_t n;
    size_t fields[100]; /* where numbers are */
    int n_fields;
} bytes;

static void put(bytes *b, uint64_t value, int size) {
    if (size >= 4 && b->n_fields < 100) b->fields[b->n_fields++] = b->n;
    for (int i = 0; i < size; i++) b->data[b->n++] = (unsigned char)(value >> 8 * i);
}
static void put_string(bytes *b, const char *text) {
    put(b, strlen(text), 8);
    for (; *text; text++) b->data[b->n++] = (unsigned char)*text;
}
static void put_key(bytes *b, const char *key, int type) {
    put_string(b, key);
    put(b, (uint64_t)type, 4);
}

static void make_gguf(bytes *b) {
    memset(b, 0, sizeof *b);
    memcpy(b->data, "GGUF", 4);
    b->n = 4;
    put(b, 3, 4), put(b, 0, 8), put(b, 7, 8);
    put_key(b, "general.name", 8), put_string(b, "x");
    put_key(b, "tokenizer.ggml.tokens", 9), put(b, 8, 4), put(b, 3, 8);
    put_string(b, "a"), put_string(b, "<b>"), put_string(b, "<e>");
    put_key(b, "tokenizer.ggml.scores", 9), put(b, 6, 4), put(b, 2, 8), put(b, 0, 8);
    put_key(b, "tokenizer.ggml.bos_token_id", 4), put(b, 1, 4);
    put_key(b, "tokenizer.ggml.eos_token_id", 4), put(b, 2, 4);
    put_key(b, "a.bool", 7), put(b, 1, 1);
    put_key(b, "tokenizer.chat_template", 8),
        put_string(b, "{{ bos_token }}{{ messages[0].role }}{{ eos_token }}");
}

static void test_gguf_files(void) {
    static const uint64_t values[] = {
        0,           1,           (uint64_t)-1,      0x7FFFFFFF,
        0x80000000u, 0xFFFFFFFFu, (uint64_t)1 << 61, (uint64_t)1 << 63};
    bytes b, damaged;
    int refused = 0;
    make_gguf(&b);
    write_file(path, b.data, b.n);
    chat_template *t = chat_template_load(path, &error);
    chat_text *text = render(t, &greeting, 0);
    CHECK(text && strcmp(text->text, "<b>user<e>") == 0);
    chat_template_close(t);
    /* any part of a file in parts: the first has the metadata */
    static const char parts[][40] = {"build/part-00001-of-00003.gguf",
                                     "build/part-00003-of-00003.gguf",
                                     "build/part-0000x-of-00003.gguf"};
    write_file(parts[0], b.data, b.n);
    for (int i = 0; i < 3; i++) {
        t = chat_template_load(parts[i], &error);
        text = t ? render(t, &greeting, 0) : NULL;
        CHECK(i < 2 ? text && strcmp(text->text, "<b>user<e>") == 0 : t == NULL);
        chat_template_close(t);
    }
    remove(parts[0]);
    for (size_t n = 0; n < b.n; n++) {
        write_file(path, b.data, n);
        t = chat_template_load(path, &error);
        CHECK(t == NULL && error.text[0]);
        chat_template_close(t);
    }
    for (int field = 0; field < b.n_fields; field++)
        for (size_t k = 0; k < 2 * sizeof values / sizeof values[0]; k++) {
            damaged = b;
            damaged.n = b.fields[field];
            put(&damaged, values[k / 2], k % 2 ? 8 : 4);
            damaged.n = b.n;
            write_file(path, damaged.data, damaged.n);
            t = chat_template_load(path, &error);
            refused += render(t, &greeting, 0) == NULL;
            chat_template_close(t);
        }
    CHECK(b.n_fields > 25 && refused > 100);
    remove(path);
    GROUP("GGUF metadata, whole, truncated and damaged");
}

/* ---- memory ---- */

static void test_allocations(void) {
    bytes b;
    make_gguf(&b);
    write_file(path, b.data, b.n);
    long alive = allocations_live;
    for (int what = 0; what < 3; what++) {
        int failures = 0;
        for (long fail = 1; fail < 500; fail++) {
            allocations = 0, fail_at = fail;
            chat_template *t = what == 0   ? chat_template_load(path, &error)
                               : what == 1 ? chat_template_named("llama2", &error)
                                           : chat_template_open(rich, strlen(rich), &error);
            chat_text *text = render(t, &greeting, 1);
            if (text) chat_text_free(text);
            chat_template_close(t);
            CHECK(allocations_live == alive);
            failures += text == NULL;
            if (allocations < fail) break; /* all of them succeeded */
        }
        CHECK(failures > 2);
    }
    fail_at = 0;
    remove(path);
    GROUP("any allocation may fail: an error, and nothing leaks");
}

/* ---- for tests/make_chat_goldens.py ---- */

static void print_escaped(const char *text, int last) {
    for (; *text; text++) {
        const char *code = strchr("\n\t\r\\", *text);
        if (code) printf("\\%c", "ntr\\"[code - strchr("\n\t\r\\", '\n')]);
        else putchar(*text);
    }
    putchar(last);
}

static int print_templates(void) {
    for (int i = 0; chat_template_name(i); i++) {
        print_escaped(chi_templates[i].name, '\t');
        print_escaped(chi_templates[i].bos ? chi_templates[i].bos : "-", '\t');
        print_escaped(chi_templates[i].eos ? chi_templates[i].eos : "-", '\t');
        print_escaped(chi_templates[i].text, '\n');
    }
    return 0;
}

/* --render FILE GENERATE BOS EOS, the conversation on stdin: role, zero byte, content, zero byte, ... */
static int render_file(char **arguments) {
    static char input[1 << 16];
    size_t n = fread(input, 1, sizeof input - 2, stdin), size;
    conversation c;
    memset(&c, 0, sizeof c);
    for (char *s = input; s < input + n && c.n < MAX_TURNS; c.n++) {
        c.messages[c.n].role = s, s += strlen(s) + 1;
        c.messages[c.n].content = s, s += strlen(s) + 1;
    }
    char *text = test_read_file(arguments[0], &size);
    chat_template *t = text ? chat_template_open(text, size, &error) : NULL;
    if (t) chat_template_set_tokens(t, arguments[2], arguments[3]);
    chat_text *out = render(t, &c, atoi(arguments[1]));
    if (out) fwrite(out->text, 1, out->size, stdout);
    else fprintf(stderr, "%s\n", error.text);
    return out == NULL;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--templates") == 0) return print_templates();
    if (argc == 6 && strcmp(argv[1], "--render") == 0) return render_file(argv + 2);
    test_goldens();
    test_quoted();
    test_quoted_named();
    test_variables();
    test_limits();
    test_damaged();
    test_config_files();
    test_gguf_files();
    test_allocations();
    return test_finish();
}

/* examples/tokenizer.h: the pre-tokenizers that GGUF files name.  Each name cuts digits and composes characters as its
 * models' tokenizer.json does: a vocabulary of bytes whose merges join 12345678 shows where a text was cut. */
#define TOKENIZER_IMPLEMENTATION
#include "../examples/tokenizer.h"
#include "transformer.h"
#include "../examples/model_file.h"
#include "gguf_bytes.h"
#include "test.h"

/* What is seen of a name: the digits in one piece, in threes or one by one; NFC or not. */
enum { WHOLE = 1, SINGLE = 8, THREES = 6, COMPOSED = 2, AS_IS = 3 };

static const struct {
    const char *name;
    int digits; /* tokens of 12345678: 123 is one, 456 and 78 are not */
    int accent; /* bytes of e and U+0301 */
} presets[] = {{"gpt-2", WHOLE, AS_IS},           {"phi-2", WHOLE, AS_IS},
               {"mpt", WHOLE, COMPOSED},          {"olmo", WHOLE, COMPOSED},
               {"exaone4", WHOLE, AS_IS},         {"bloom", WHOLE, AS_IS},
               {"starcoder", SINGLE, AS_IS},      {"refact", SINGLE, AS_IS},
               {"command-r", SINGLE, AS_IS},      {"smollm", SINGLE, AS_IS},
               {"exaone", SINGLE, AS_IS},         {"qwen2", SINGLE, COMPOSED},
               {"stablelm2", SINGLE, AS_IS},      {"deepseek-llm", SINGLE, AS_IS},
               {"deepseek-coder", SINGLE, AS_IS}, {"tekken", SINGLE, AS_IS},
               {"seed-coder", SINGLE, AS_IS},     {"falcon", THREES, AS_IS},
               {"default", THREES, AS_IS},        {"llama-bpe", THREES, AS_IS},
               {"llama3", THREES, AS_IS},         {"dbrx", THREES, AS_IS},
               {"smaug-bpe", THREES, AS_IS},      {"glm4", THREES, AS_IS},
               {"chatglm-bpe", THREES, AS_IS},    {"deepseek-v3", THREES, AS_IS},
               {"gpt-4o", THREES, AS_IS}};

static const char digits[] = "12345678";

/* The character that stands for a byte in vocabularies of GPT-2's kind. */
static void put_byte_token(int byte) {
    int stands = (byte > 32 && byte < 127) || (byte > 160 && byte != 173), c = byte;
    char text[3] = {0, 0, 0};
    if (!stands) /* the others count from 256, in order */
        c = 256 + (byte <= 32 ? byte : byte <= 160 ? byte - 127 + 33 : 67);
    if (c < 128) text[0] = (char)c;
    else text[0] = (char)(0xC0 | c >> 6), text[1] = (char)(0x80 | (c & 63));
    put_string(text);
}

static void make_vocabulary(const char *name) {
    char text[32];
    begin(3);
    key_string("tokenizer.ggml.model", "gpt2");
    key_string("tokenizer.ggml.pre", name);
    key_array("tokenizer.ggml.tokens", MODEL_FILE_STRING, 256 + 7);
    for (int byte = 0; byte < 256; byte++) put_byte_token(byte);
    for (int n = 2; n <= 8; n++) {
        snprintf(text, sizeof text, "%.*s", n, digits);
        put_string(text);
    }
    key_array("tokenizer.ggml.merges", MODEL_FILE_STRING, 7);
    for (int n = 1; n < 8; n++) {
        snprintf(text, sizeof text, "%.*s %c", n, digits, digits[n]);
        put_string(text);
    }
    end();
}

static int count_tokens(const tokenizer *t, const char *text) {
    int32_t tokens[64];
    return tokenizer_encode(t, text, strlen(text), 0, tokens, 64, NULL);
}

static void check_name(const char *name, int of_digits, int of_accent) {
    tokenizer_error error;
    make_vocabulary(name);
    tokenizer *t = tokenizer_open_memory(w.bytes, w.n, 0, &error);
    if (!t || count_tokens(t, digits) != of_digits || count_tokens(t, "e\xCC\x81") != of_accent) {
        fprintf(stderr, "%s: %d and %d tokens\n", name, t ? count_tokens(t, digits) : -1,
                t ? count_tokens(t, "e\xCC\x81") : -1);
        CHECK(!"cut as by its models' tokenizer.json");
    }
    CHECK(t && strcmp(tokenizer_pre(t), name) == 0);
    tokenizer_close(t);
}

int main(void) {
    enum { N_PRESETS = sizeof presets / sizeof presets[0] };
    tokenizer_error error;
    for (int i = 0; i < N_PRESETS; i++)
        check_name(presets[i].name, presets[i].digits, presets[i].accent);
    GROUP("%d names of pre-tokenizers", (int)N_PRESETS);
    make_vocabulary("nobody's");
    CHECK(!tokenizer_open_memory(w.bytes, w.n, 0, &error) && strstr(error.text, "'nobody's'"));
    GROUP("another name is refused by name");
    return test_finish();
}

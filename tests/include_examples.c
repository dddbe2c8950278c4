/* A program that has all the headers of examples/ in two files: this one, which knows their declarations and calls each,
 * and itself again with INCLUDE_EXAMPLES_IMPLEMENTATION, which carries the implementations.  As C99 and as C++11. */
#ifdef INCLUDE_EXAMPLES_IMPLEMENTATION
#define TRANSFORMER_IMPLEMENTATION
#define MODEL_FILE_IMPLEMENTATION
#define TOKENIZER_IMPLEMENTATION
#define SAMPLER_IMPLEMENTATION
#define CHAT_IMPLEMENTATION
#define QUANTIZE_IMPLEMENTATION
#define GGUF_WRITER_IMPLEMENTATION
#define GRAMMAR_IMPLEMENTATION
#define TEXT_MODEL_IMPLEMENTATION
#endif
#include "examples/chat.h"
#include "examples/gguf_writer.h"
#include "examples/grammar.h"
#include "examples/quantize.h"
#include "examples/sampler.h"
#include "examples/text_model.h"
#include "examples/tokenizer.h"
#include "transformer.h"
#include "examples/model_file.h"

#include "examples/chat.h" /* twice does no harm */
#include "examples/gguf_writer.h"
#include "examples/grammar.h"
#include "examples/model_file.h"
#include "examples/quantize.h"
#include "examples/sampler.h"
#include "examples/text_model.h"
#include "examples/tokenizer.h"

#ifndef INCLUDE_EXAMPLES_IMPLEMENTATION
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the model in the repository says next; 0 if all goes well. */
static int say(const char *path, const char *prompt) {
    transformer_error error;
    transformer_options options;
    sampler_options greedy;
    sampler s;
    int32_t tokens[64];
    memset(&options, 0, sizeof options);
    memset(&greedy, 0, sizeof greedy);
    model_file *file = model_file_open(path, NULL, &error);
    tokenizer *words = tokenizer_open(path, 0, NULL);
    const transformer_config *config = model_file_config(file);
    transformer_model *model = model_file_model(file, &options, &error);
    int bound = words && model;
    transformer_state *state = bound ? transformer_state_new(model, &options, &error) : NULL;
    transformer_workspace *work = bound ? transformer_workspace_new(model, &options, &error) : NULL;
    float *logits = bound ? (float *)calloc((size_t)config->vocab_size, sizeof *logits) : NULL;
    int token = -1;
    if (state && work && logits && sampler_init(&s, &greedy) == 0) {
        int n = tokenizer_encode(words, prompt, strlen(prompt), TOKENIZER_AUTO, tokens, 64, NULL);
        if (n > 0 && !transformer_forward(model, work, state, tokens, n, logits))
            token = sampler_sample(&s, logits, config->vocab_size, NULL);
    }
    if (token < 0 || !tokenizer_type(words, token)) printf("no token: %s\n", error.text);
    free(logits);
    transformer_free(work);
    transformer_free(state);
    transformer_free(model);
    tokenizer_close(words);
    model_file_close(file);
    return token < 0;
}

static int speak(const char *path) {
    text_model *m = text_model_open(path, NULL, NULL);
    int good = m && text_model_prompt(m, "Once", NULL) == 0 && text_model_next(m) != NULL;
    text_model_close(m);
    return !good;
}

static int converse(void) {
    chat_message message = {"user", "Hello"};
    chat_conversation talk;
    chat_text text;
    chat_error error;
    chat_template *t = chat_template_named("chatml", &error);
    int bad;
    memset(&talk, 0, sizeof talk);
    talk.messages = &message;
    talk.n_messages = 1;
    bad = t == NULL || chat_template_render(t, &talk, &text, &error) != 0;
    if (bad) printf("no text: %s\n", error.text);
    else bad = strcmp(text.text, "<|im_start|>user\nHello<|im_end|>\n") != 0;
    if (!bad) chat_text_free(&text);
    chat_template_close(t);
    return bad;
}

static int quantize(void) {
    static const float x[32] = {1, -2, 3};
    unsigned char out[34];
    transformer_tensor t;
    float back[32];
    if (quantize_rows(QUANTIZE_Q8_0, x, 1, 32, out, sizeof out, NULL) != QUANTIZE_OK) return 1;
    memset(&t, 0, sizeof t);
    t.data = out;
    t.dtype = TRANSFORMER_Q8_0;
    t.rows = 1;
    t.cols = 32;
    return transformer_decode(back, &t, 0, 1) != TRANSFORMER_OK ||
           !(back[2] > 2.99f && back[2] < 3.01f);
}

static int write_nothing(void) {
    gguf_writer *w = gguf_writer_new_file("", 0);
    gguf_writer_status status = gguf_writer_text(w, "general.architecture", "llama");
    if (status == GGUF_WRITER_OK) status = gguf_writer_end(w);
    gguf_writer_free(w);
    return status == GGUF_WRITER_OK; /* there is no file of that name */
}

static int read_a_word(void) {
    static const char text[] = "root ::= \"wo\" \"rd\"";
    size_t size = grammar_size(text, sizeof text - 1, NULL);
    void *memory = malloc(size + 1), *more = malloc(grammar_state_size());
    grammar *g = grammar_compile(text, sizeof text - 1, memory, size, NULL);
    grammar_state *s = more ? grammar_start(g, more, grammar_state_size()) : NULL;
    int good = grammar_accept(g, s, "word", 4) == GRAMMAR_OK && grammar_must_end(g, s);
    free(more);
    free(memory);
    return !good;
}

int main(void) {
    return say("examples/toy_lm", "Once") || speak("examples/toy_lm") || converse() || quantize() ||
           write_nothing() || read_a_word();
}
#endif

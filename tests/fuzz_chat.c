/* libFuzzer target: any bytes as a chat template, rendered with a conversation that is part of them.
 * corpus: tests/chat
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz_chat.c -lm -o build/fuzz
 *     build/fuzz build/found tests/chat */
#define CHAT_IMPLEMENTATION
#include "../examples/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char start[40];
    size_t n = size < sizeof start - 1 ? size : sizeof start - 1;
    chat_error error;
    chat_text text;
    chat_conversation talk;
    chat_message messages[3] = {{"system", "Be brief."}, {"user", ""}, {"assistant", " ok\n"}};
    memset(&talk, 0, sizeof talk);
    if (n) memcpy(start, data, n);
    start[n] = 0;
    messages[1].content = start;
    talk.messages = messages;
    talk.n_messages = 3;
    chat_template *t = chat_template_open((const char *)data, size, &error);
    if (t && chat_template_render(t, &talk, &text, &error) == 0) {
        for (size_t i = 0; i < text.size; i++)
            if (text.quoted[i] > 1) abort();
        chat_text_free(&text);
    }
    chat_template_close(t);
    return 0;
}

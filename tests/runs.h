/* Does an open model file run?  For tests of examples/model_file.h, which include it first. */
#ifndef RUNS_H
#define RUNS_H

/* Binds and runs a few tokens; logits of the last, if not NULL.  0 with an error if it does not. */
static inline int runs(const model_file *file, float *logits, int full_precision,
                       transformer_error *error) {
    const transformer_config *c = model_file_config(file);
    transformer_options options;
    int32_t tokens[3] = {1, 0, 2};
    int ok = 0, n = c->context < 3 ? c->context : 3;
    memset(&options, 0, sizeof options);
    options.context = options.batch = n;
    options.full_precision = full_precision;
    if (c->vocab_size < 3) tokens[0] = tokens[2] = 0;
    float *row = (float *)malloc((size_t)c->vocab_size * sizeof *row);
    transformer_model *model = transformer_model_new(c, &options, error);
    if (row && model && model_file_bind(file, model, error) == TRANSFORMER_OK) {
        transformer_state *state = transformer_state_new(model, &options, error);
        transformer_workspace *work = transformer_workspace_new(model, &options, error);
        ok = state && work && !transformer_forward(model, work, state, tokens, n, row);
        transformer_free(work), transformer_free(state);
    }
    if (ok && logits) memcpy(logits, row, (size_t)c->vocab_size * sizeof *row);
    transformer_free(model);
    free(row);
    return ok;
}
#endif

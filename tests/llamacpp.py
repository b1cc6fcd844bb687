# SPDX-License-Identifier: BSD-2-Clause
"""llama.cpp (xllamacpp) over tiny GGUF files, for comparisons of tokenizers: ids of a text, text of ids."""

import json
import urllib.request

import gguf
import numpy as np

DIM = 32
TYPE = {"n": 1, "u": 2, "c": 3, "d": 4, "x": 5, "b": 6}


def write_vocabulary(path, model, pieces, types, scores=None, merges=None, pre=None, change=None):
    """A GGUF file of a one-layer model of zeros with this vocabulary; change(writer) may add fields. Returns its path."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(64), w.add_embedding_length(DIM), w.add_block_count(1), w.add_feed_forward_length(DIM)
    w.add_head_count(1), w.add_head_count_kv(1), w.add_layer_norm_rms_eps(1e-5), w.add_rope_dimension_count(DIM)
    w.add_tokenizer_model(model), w.add_token_list(pieces), w.add_token_types([TYPE[t] for t in types])
    for value, add in ((scores, w.add_token_scores), (merges, w.add_token_merges), (pre, w.add_tokenizer_pre)):
        if value is not None:
            add(value)
    if change:
        change(w)
    w.add_tensor("token_embd.weight", np.zeros((len(pieces), DIM), np.float32))
    w.add_tensor("output_norm.weight", np.zeros(DIM, np.float32))
    for name in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.0.{name}.weight", np.zeros(DIM, np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        w.add_tensor(f"blk.0.{name}.weight", np.zeros((DIM, DIM), np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    return str(path)


class LlamaCpp:
    """llama.cpp's server over the GGUF file `path`."""

    def __init__(self, path):
        import xllamacpp
        p = xllamacpp.CommonParams()
        p.model.path, p.n_ctx, p.n_parallel, p.port = str(path), 64, 1, 0
        p.verbosity, p.warmup, p.cpuparams.n_threads, p.fit_params = -1, False, 1, False
        self._server = xllamacpp.Server(p)

    def _post(self, what, **fields):
        request = urllib.request.Request(self._server.listening_address + what, json.dumps(fields).encode(),
            {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def encode(self, text, special=False, bos=False):
        """Ids of `text`; special: names of control tokens become them; bos: what the model puts around a text is there."""
        return self._post("/tokenize", content=text, add_special=bos, parse_special=special)["tokens"]

    def decode(self, ids):
        """Text of `ids`."""
        return self._post("/detokenize", tokens=ids)["content"]

# SPDX-License-Identifier: BSD-2-Clause
"""Trains the default model from the project's own generated text (`corpus.py`), on a CPU.

The model is a Llama: RMSNorm, rotary embedding on adjacent pairs (2i, 2i+1), grouped-query attention,
SwiGLU, tied classifier, no biases. In the last quarter of the steps all matrices pass through the
rounding of Q4_0 in the forward pass, and the gradient goes straight through (quantisation-aware fine
tuning), so the 4-bit weights that are shipped are the weights that were trained.

Tokens: 0 <unk>, 1 <s>, 2 <|end|>, 3-258 bytes, then SentencePiece BPE pieces, and the last three are
<|user|>, <|assistant|>, <|system|>. Byte tokens sit where llama2.c expects them. A document is

    <s> <|user|> text <|end|> <|assistant|> text <|end|> <|user|> ...       (a dialogue)
    <s> text <|end|>                                                        (a story)

where each text is tokenised by itself, with the leading space that SentencePiece adds.

Usage: `python -m litellama.host.train --out DIR [--steps N]` writes into DIR model.bin, tokenizer.bin
(llama2.c's formats) and litellama-default.gguf. Needs torch, sentencepiece, gguf and numpy.
"""

import argparse
import dataclasses
import io
import math
import os
import struct
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # Read when torch is loaded: waiting threads leave the CPU to others.

import gguf
import numpy as np
import sentencepiece
import torch
from torch.nn import functional as F

try:
    from . import corpus
except ImportError:  # Run as a file.
    import corpus

UNK, BOS, END = 0, 1, 2
CONTROLS      = ("<|user|>", "<|assistant|>", "<|system|>")  # The last ids of the vocabulary.


@dataclasses.dataclass(frozen=True)
class Shape:
    """Shape of the model; the hardware's default configuration."""
    dim        : int   = 128
    n_layers   : int   = 4
    n_heads    : int   = 4
    n_kv_heads : int   = 1
    hidden_dim : int   = 320
    vocab      : int   = 1024
    context    : int   = 512
    rope_base  : float = 10000.0
    eps        : float = 1e-5

    @property
    def head_dim(self):
        """Width of one head."""
        return self.dim // self.n_heads

# Tokenizer ----------------------------------------------------------------------------------------

class Tokenizer:
    """SentencePiece BPE for text; the control tokens are put between texts by id."""

    def __init__(self, model_bytes, vocab):
        self.sp      = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
        self.control = {name: vocab - len(CONTROLS) + i for i, name in enumerate(CONTROLS)}

    @classmethod
    def train(cls, vocab, n_documents=12000, seed=0):
        """Trains on the first documents of the corpus."""
        texts  = (text for _, d in zip(range(n_documents), corpus.documents(seed)) for _, text in d)
        writer = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=texts, model_writer=writer, model_type="bpe", vocab_size=vocab - len(CONTROLS),
            byte_fallback=True, character_coverage=1.0, split_digits=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, unk_id=UNK, bos_id=BOS, eos_id=END, pad_id=-1, eos_piece="<|end|>",
            num_threads=1, minloglevel=1)
        return cls(writer.getvalue(), vocab)

    def document(self, messages):
        """Tokens of a document and, for each, whether the model has to learn to say it."""
        tokens, learn = [BOS], [False]
        for role, text in messages:
            spoken = role in (corpus.ASSISTANT, "")
            if role:
                tokens.append(self.control[f"<|{role}|>"])
                learn.append(False)
            ids     = self.sp.encode(text) + [END]
            tokens += ids
            learn  += [spoken] * len(ids)
        return tokens, learn


def windows(tokenizer, length, seed):
    """Endless rows of `length` + 1 tokens; a row starts with a document, the last one is cut."""
    tokens, learn = [], []
    for messages in corpus.documents(seed):
        t, l = tokenizer.document(messages)
        tokens += t
        learn  += l
        if len(tokens) > length:
            row = torch.tensor(tokens[:length + 1])
            yield row[:-1], torch.where(torch.tensor(learn[1:length + 1]), row[1:], -100)
            tokens, learn = [], []


def batches(rows, n_rows):
    """Groups rows to (inputs, targets)."""
    while True:
        x, y = zip(*(next(rows) for _ in range(n_rows)))
        yield torch.stack(x), torch.stack(y)

# Model --------------------------------------------------------------------------------------------

def q4_0(w):
    """`w` (out, in) rounded as llama.cpp's reference rounds Q4_0: blocks of 32 along the input."""
    blocks = w.reshape(-1, 32)
    top    = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    d      = top / -8
    q      = torch.clamp(torch.floor(blocks * torch.where(d == 0, 0, 1 / d) + 8.5), 0, 15)
    return ((q - 8) * d.half().float()).reshape(w.shape)


class Llama(torch.nn.Module):
    """The decoder; `forward` returns the hidden vectors of (batch, time) tokens, `loss` their cross entropy."""

    def __init__(self, shape):
        super().__init__()
        s, self.shape, self.quantised = shape, shape, False
        kv    = s.n_kv_heads * s.head_dim
        sizes = {"wq": (s.dim, s.dim), "wk": (kv, s.dim), "wv": (kv, s.dim), "wo": (s.dim, s.dim),
                 "w1": (s.hidden_dim, s.dim), "w2": (s.dim, s.hidden_dim), "w3": (s.hidden_dim, s.dim)}
        weights = {"embedding": torch.randn(s.vocab, s.dim) * 0.02, "norm": torch.ones(s.dim)}
        for layer in range(s.n_layers):
            for name, (n_out, n_in) in sizes.items():
                gain = 1 / math.sqrt(2 * s.n_layers) if name in ("wo", "w2") else 1.0
                weights[f"{name}_{layer}"] = torch.randn(n_out, n_in) * gain / math.sqrt(n_in)
            weights[f"attention_norm_{layer}"] = torch.ones(s.dim)
            weights[f"ffn_norm_{layer}"]       = torch.ones(s.dim)
        self.w = torch.nn.ParameterDict({k: torch.nn.Parameter(v) for k, v in weights.items()})
        frequency = s.rope_base ** (-torch.arange(0, s.head_dim, 2) / s.head_dim)
        angle     = torch.outer(torch.arange(s.context), frequency)
        self.cos, self.sin = angle.cos(), angle.sin()  # (context, head_dim / 2)

    def weight(self, name):
        """A matrix, through Q4_0 when `quantised` (gradient straight through)."""
        w = self.w[name]
        return w + (q4_0(w) - w).detach() if self.quantised else w

    def rms_norm(self, x, name):
        """x / rms(x) * gain."""
        return F.rms_norm(x, (self.shape.dim,), self.w[name], self.shape.eps)

    def rope(self, x):
        """Rotates the pairs (2i, 2i+1) of x (batch, heads, time, head_dim) by position."""
        cos, sin = self.cos[:x.shape[2]], self.sin[:x.shape[2]]
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(3)

    def forward(self, tokens):
        """Normalised hidden vectors (batch, time, dim), and the embedding matrix that also is the classifier."""
        s, (n, t) = self.shape, tokens.shape
        embedding = self.weight("embedding")
        x         = F.embedding(tokens, embedding)
        for i in range(s.n_layers):
            h = self.rms_norm(x, f"attention_norm_{i}")
            q, k, v = (F.linear(h, self.weight(f"{m}_{i}")).view(n, t, -1, s.head_dim).transpose(1, 2) for m in ("wq", "wk", "wv"))
            q, k    = self.rope(q), self.rope(k)
            k, v    = (y.repeat_interleave(s.n_heads // s.n_kv_heads, 1) for y in (k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + F.linear(y.transpose(1, 2).reshape(n, t, s.dim), self.weight(f"wo_{i}"))
            h = self.rms_norm(x, f"ffn_norm_{i}")
            h = F.silu(F.linear(h, self.weight(f"w1_{i}"))) * F.linear(h, self.weight(f"w3_{i}"))
            x = x + F.linear(h, self.weight(f"w2_{i}"))
        return self.rms_norm(x, "norm"), embedding

    def loss(self, batch):
        """Cross entropy in nats over the tokens to be learnt."""
        tokens, targets = batch
        hidden, classifier = self(tokens)
        learn = targets != -100  # About half of the tokens: the others need no logits.
        return F.cross_entropy(F.linear(hidden[learn], classifier), targets[learn])

    def load(self, path):
        """Takes the weights of a model.bin of this shape."""
        data = torch.from_numpy(np.fromfile(path, "<f4", offset=28))
        names = ["embedding"] + [f"{name}_{layer}" for name in LAYER_TENSORS for layer in range(self.shape.n_layers)] + ["norm"]
        for name in names:
            w = self.w[name]
            w.data, data = data[:w.numel()].reshape(w.shape).clone(), data[w.numel():]

# Files --------------------------------------------------------------------------------------------

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")

LAYER_TENSORS = {  # Our name -> GGUF's, in llama2.c's order.
    "attention_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
    "ffn_norm": "ffn_norm", "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up"}


def vocabulary(tokenizer):
    """(piece, score, GGUF token type) for each id."""
    sp, kinds, rows = tokenizer.sp, gguf.TokenType, []
    for i in range(sp.vocab_size()):
        kind = (kinds.UNKNOWN if sp.is_unknown(i) else kinds.CONTROL if sp.is_control(i) else
                kinds.BYTE if sp.is_byte(i) else kinds.NORMAL)
        rows.append((sp.id_to_piece(i), sp.get_score(i), kind))
    return rows + [(name, 0.0, kinds.CONTROL) for name in tokenizer.control]


def write_bin(out, s, w, tokenizer):
    """llama2.c's files: model.bin (version 0, float32, tied) and tokenizer.bin."""
    with open(os.path.join(out, "model.bin"), "wb") as f:
        f.write(struct.pack("<7i", s.dim, s.hidden_dim, s.n_layers, s.n_heads, s.n_kv_heads, s.vocab, s.context))
        f.write(w["embedding"].astype("<f4").tobytes())
        for name in LAYER_TENSORS:
            for layer in range(s.n_layers):
                f.write(w[f"{name}_{layer}"].astype("<f4").tobytes())
        f.write(w["norm"].astype("<f4").tobytes())
        angle = np.outer(np.arange(s.context), s.rope_base ** (-np.arange(0, s.head_dim, 2) / s.head_dim))
        f.write(np.cos(angle).astype("<f4").tobytes() + np.sin(angle).astype("<f4").tobytes())
    pieces = [(piece.replace("\u2581", " ").encode(), score) for piece, score, _ in vocabulary(tokenizer)]
    with open(os.path.join(out, "tokenizer.bin"), "wb") as f:
        f.write(struct.pack("<i", max(len(piece) for piece, _ in pieces)))
        for piece, score in pieces:
            f.write(struct.pack("<fi", score, len(piece)) + piece)


def write_gguf(path, s, w, tokenizer):
    """The shipped file: all matrices Q4_0, norms F32, with tokenizer and chat template."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("LiteLlama default")
    writer.add_license("BSD-2-Clause")
    writer.add_description("Small chat model of the LiteLlama project, trained on its own generated text.")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_context_length(s.context)
    writer.add_embedding_length(s.dim)
    writer.add_block_count(s.n_layers)
    writer.add_feed_forward_length(s.hidden_dim)
    writer.add_head_count(s.n_heads)
    writer.add_head_count_kv(s.n_kv_heads)
    writer.add_rope_freq_base(s.rope_base)
    writer.add_rope_dimension_count(s.head_dim)
    writer.add_layer_norm_rms_eps(s.eps)
    writer.add_vocab_size(s.vocab)
    pieces, scores, kinds = zip(*vocabulary(tokenizer))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.encode() for piece in pieces])
    writer.add_token_scores(list(scores))
    writer.add_token_types(list(kinds))
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(END)
    writer.add_unk_token_id(UNK)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)

    def add(name, tensor):
        tensor = np.ascontiguousarray(tensor, np.float32)
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            kind = gguf.GGMLQuantizationType.Q4_0
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)

    add("token_embd.weight", w["embedding"])
    for layer in range(s.n_layers):
        for ours, theirs in LAYER_TENSORS.items():
            add(f"blk.{layer}.{theirs}.weight", w[f"{ours}_{layer}"])
    add("output_norm.weight", w["norm"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_files(out, shape, w, tokenizer):
    """All files of the model into the directory `out`."""
    write_bin(out, shape, w, tokenizer)
    write_gguf(os.path.join(out, "litellama-default.gguf"), shape, w, tokenizer)

# Training -----------------------------------------------------------------------------------------

def learning_rate(step, progress, top=3e-3, warm_up=100):
    """Linear warm-up over the first steps, times a cosine over `progress` (0 to 1) down to 2 % of the top."""
    return top * min(1, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def evaluate(model, batch):
    """(loss with float weights, loss with Q4_0 weights) on one batch."""
    before, result = model.quantised, []
    for model.quantised in (False, True):
        result.append(model.loss(batch).item())
    model.quantised = before
    return tuple(result)


def train(out, steps, minutes=math.inf, init=None, seed=2, bf16=False, shape=Shape(), tokens_per_step=4096, log_every=100, log=print):
    """Trains for `steps` or `minutes`, whichever ends first, and writes the files into `out` (also now and then on the way).

    init: model.bin to start from, None for random weights. seed: of the text; a continued run takes another one.
    bf16: products in bfloat16 (weights and their sums stay float32); 1.7 times as fast where the CPU has it.
    """
    torch.manual_seed(1)
    tokenizer = Tokenizer.train(shape.vocab)
    model     = Llama(shape)
    if init:
        model.load(init)
    log(f"{sum(p.numel() for p in model.parameters())} parameters")
    decay     = [p for p in model.parameters() if p.dim() == 2]
    others    = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  betas=(0.9, 0.95))
    half      = shape.context // 2  # Three steps of four use half the context: cheaper, and most talks are short.
    short     = batches(windows(tokenizer, half, seed), tokens_per_step // half)
    full      = batches(windows(tokenizer, shape.context, seed + 1), tokens_per_step // shape.context)
    test      = next(batches(windows(tokenizer, half, seed=-1), 64))
    start     = time.time()
    step, progress = 0, 0.0
    while progress < 1:
        progress = max(step / steps, (time.time() - start) / 60 / minutes)
        model.quantised = progress >= 0.75
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, progress)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(next(full if step % 4 == 3 else short))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % log_every == 0 or progress >= 1:
            real, rounded = evaluate(model, test)
            log(f"step {step:5} loss {loss.item():.4f} test {real:.4f} test in Q4_0 {rounded:.4f} "
                f"seconds {time.time() - start:.0f} cpu {time.process_time():.0f}")
            write_files(out, shape, {k: v.detach().numpy() for k, v in model.w.items()}, tokenizer)
        step += 1
    return model, tokenizer


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description="Train the default model.")
    parser.add_argument("--out",     required=True, help="directory for model.bin, tokenizer.bin and the gguf file")
    parser.add_argument("--steps",   type=int, default=4000, help="optimiser steps of 4096 tokens")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time (the schedule follows the clock)")
    parser.add_argument("--init",    help="model.bin to continue from")
    parser.add_argument("--seed",    type=int, default=2, help="seed of the training text")
    parser.add_argument("--bf16",    action="store_true", help="products in bfloat16, for CPUs that have it")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.makedirs(arguments.out, exist_ok=True)
    train(arguments.out, arguments.steps, arguments.minutes, arguments.init, arguments.seed, arguments.bf16,
          log=lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()

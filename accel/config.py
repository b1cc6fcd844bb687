# SPDX-License-Identifier: BSD-2-Clause
"""Configuration: what a core is built for (`CoreConfig`) and what a model asks of it (`ModelConfig`).

Both are frozen. Gateware, C header, simulator cache, image writer and host read their numbers here and nowhere else.
"""

from dataclasses import dataclass, asdict
import hashlib
import json

BLOCK        = 32   # Weights per quantisation block (llama.cpp's Q8_0, Q4_0, Q4_1).
GROUP_BLOCKS = 16   # Blocks per group of the weight stream: their scales come first, then their quants.
UNIT_BYTES   = 32   # Everything in the weight stream is a multiple of this.
TOPK_MAX     = 64   # Largest k of the hardware top-k.

# Debug window: regions in address order, and 32-bit words from one to the next.
DEBUG_REGIONS      = ("x", "scores", "keys", "values", "key_scales", "value_scales")
DEBUG_REGION_WORDS = 1 << 16


def check(cond, message):
    """Raise ValueError(message) unless cond: for a user's mistake, where `assert` is for ours."""
    if not cond:
        raise ValueError(message)


def ceil_div(a, b):
    """Smallest integer not below a/b."""
    return -(-a//b)


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions of a model, as trained (`dim`, `hidden`, `head_dim`) and as stored, padded to blocks of 32 (`*_blocks`).

    dim, hidden, n_layers, n_heads, n_kv_heads, head_dim, vocab, context: integers of the model.
    eps: RMSNorm epsilon. rope_base: base of the rotary frequencies (the table in the image is what counts).
    """
    dim:        int
    hidden:     int
    n_layers:   int
    n_heads:    int
    n_kv_heads: int
    head_dim:   int
    vocab:      int
    context:    int
    eps:        float = 1e-5
    rope_base:  float = 10000.0

    def __post_init__(self):
        for name, limit in LIMITS.items():
            value = getattr(self, name)
            check(isinstance(value, int) and 1 <= value <= limit, f"{name} is {value}, must be 1 to {limit}")
        check(self.n_heads % self.n_kv_heads == 0,
            f"n_heads is {self.n_heads}, must be a multiple of n_kv_heads {self.n_kv_heads}")
        check(self.head_dim % 2 == 0, f"head_dim is {self.head_dim}, must be even")
        check(0 < self.eps < 1, f"eps is {self.eps}, must be between 0 and 1")

    @property
    def dim_blocks(self):
        """Blocks of a residual-stream vector."""
        return ceil_div(self.dim, BLOCK)

    @property
    def hidden_blocks(self):
        """Blocks of the feed-forward's hidden vector."""
        return ceil_div(self.hidden, BLOCK)

    @property
    def head_blocks(self):
        """Blocks of one head (head_dim padded)."""
        return ceil_div(self.head_dim, BLOCK)

    @property
    def group(self):
        """Query heads per KV head."""
        return self.n_heads//self.n_kv_heads


LIMITS = dict(dim=1 << 14, hidden=1 << 15, n_layers=256, n_heads=256, n_kv_heads=256, head_dim=256, vocab=1 << 18,
    context=1 << 17)


@dataclass(frozen=True)
class CoreConfig:
    """Build-time parameters of a core.

    lanes:         4-bit weights multiplied per cycle: 8, 16, 32 or 64 (8-bit weights: half as many). A matrix of 4-bit weights
                   whose rows have an odd number of blocks runs at the speed of 32 lanes.
    columns:       query heads that share one stream of keys and values, 1 to 8.
    max_dim:       largest padded residual vector, elements.
    max_hidden:    largest padded feed-forward hidden vector, elements.
    max_heads_dim: largest n_heads*head_dim, padded, elements.
    max_head_dim:  largest padded head, elements.
    max_context:   positions the score RAM holds.
    kv_bytes:      bytes of keys (and as many of values) held on chip, a power of 2: a whole cache, or the tile of one in DRAM.
    kv_scales:     (layer, KV head, position) scales of keys (and as many of values) held on chip; with the cache in DRAM, those of
                   one head: so max_context or more.
    max_topk:      candidates the hardware top-k keeps.
    fifo_bytes:    weight prefetch buffer.
    ports:         native DRAM ports that the weight stream is spread over.
    cuts:          1: the less urgent clients of the vector unit are behind registers in both directions; 0: they are not, which is
                   smaller, and good for 60 MHz.
    """
    lanes:         int = 32
    columns:       int = 1
    max_dim:       int = 1024
    max_hidden:    int = 4096
    max_heads_dim: int = 1024
    max_head_dim:  int = 128
    max_context:   int = 2048
    kv_bytes:      int = 65536
    kv_scales:     int = 2048
    max_topk:      int = TOPK_MAX
    fifo_bytes:    int = 8192
    ports:         int = 1
    cuts:          int = 1

    def __post_init__(self):
        check(self.lanes in (8, 16, 32, 64), f"lanes is {self.lanes}, must be 8, 16, 32 or 64")
        check(self.lanes <= BLOCK or self.activation_regions[0] % 2 == 0,
            f"max_hidden {self.max_hidden} and max_heads_dim {self.max_heads_dim}: with 64 lanes the larger must be a multiple of {2*BLOCK}")
        check(1 <= self.columns <= 8, f"columns is {self.columns}, must be 1 to 8")
        check(1 <= self.max_topk <= TOPK_MAX, f"max_topk is {self.max_topk}, must be 1 to {TOPK_MAX}")
        for name in ("max_dim", "max_hidden", "max_heads_dim", "max_head_dim", "max_context", "kv_bytes"):
            value = getattr(self, name)
            check(value >= BLOCK and value % BLOCK == 0, f"{name} is {value}, must be a positive multiple of {BLOCK}")
        check(self.kv_bytes & (self.kv_bytes - 1) == 0, f"kv_bytes is {self.kv_bytes}, must be a power of 2")
        check(self.kv_scales >= self.max_context and self.kv_scales % BLOCK == 0,
            f"kv_scales is {self.kv_scales}, must be a multiple of {BLOCK} and at least max_context {self.max_context}")
        check(self.ports in (1, 2, 4), f"ports is {self.ports}, must be 1, 2 or 4")
        check(self.cuts in (0, 1), f"cuts is {self.cuts}, must be 0 or 1")

    @property
    def beat_bytes(self):
        """Bytes of one beat of the internal weight stream: `lanes` weights of 4 bits."""
        return self.lanes//2

    @property
    def max_vector(self):
        """Longest activation vector of a weight matrix, elements."""
        return max(self.max_dim, self.max_hidden, self.max_heads_dim)

    @property
    def activation_regions(self):
        """First blocks of the activation memory's regions A, B, P, and its depth in blocks.

        A: norm and attention outputs; B: queries, feed-forward hidden vector; P: probabilities of one head. What attention needs
        comes first: P and the queries of B, `attention_blocks`, all that columns after the first have. B begins at an even block.
        """
        a, b, p = (max(self.max_dim, self.max_heads_dim)//BLOCK, max(self.max_hidden, self.max_heads_dim)//BLOCK,
            2*ceil_div(self.max_context, 2*BLOCK))
        return p + b, p, 0, p + b + a

    @property
    def attention_blocks(self):
        """Blocks that columns after the first have: probabilities and queries."""
        return self.activation_regions[1] + self.max_heads_dim//BLOCK

    def digest(self):
        """Short hash that names this configuration (simulator cache, reports)."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    def check_model(self, m):
        """Raise ValueError, naming value and limit, if model `m` does not fit this core."""
        for name, value, limit in (
            ("dim (padded)",         m.dim_blocks*BLOCK,                                self.max_dim),
            ("hidden (padded)",      m.hidden_blocks*BLOCK,                             self.max_hidden),
            ("heads*head_dim",       m.n_heads*m.head_blocks*BLOCK,                     self.max_heads_dim),
            ("head_dim (padded)",    m.head_blocks*BLOCK,                               self.max_head_dim),
        ):
            check(value <= limit, f"model's {name} is {value}, this core is built for at most {limit}")

    @staticmethod
    def kv_heads(m):
        """KV heads of all layers: regions that a cache has."""
        return m.n_layers*m.n_kv_heads

    def kv_on_chip(self, m):
        """Whether the whole cache of model `m`, for as many positions as this core can score, fits on chip."""
        positions = ceil_div(self._positions(m), BLOCK)*BLOCK*self.kv_heads(m)
        return positions*m.head_blocks*BLOCK <= self.kv_bytes and positions <= self.kv_scales

    def context_of(self, m, dram_bytes=None):
        """Positions of model `m` that this core can hold, with `dram_bytes` for a cache in DRAM (None: as many as it takes)."""
        positions = self._positions(m)
        if dram_bytes is not None and not self.kv_on_chip(m):
            positions = min(positions, dram_bytes//self.kv_dram_bytes(m, BLOCK)*BLOCK)
        return positions

    def kv_dram_bytes(self, m, positions):
        """Bytes of a cache in DRAM for `positions`, a multiple of 32: keys, values, scales of both."""
        return 2*positions*self.kv_heads(m)*(m.head_blocks*BLOCK + 2)

    def _positions(self, m):
        return min(m.context, self.max_context)

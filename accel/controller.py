# SPDX-License-Identifier: BSD-2-Clause
"""The one state machine of the decoder."""

from functools import reduce
from operator import or_

from migen import *
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule

from . import image
from .fetch import LlamaSerialMultiplier
from .kv import ADDRESS_BITS, BLOCK_COUNT_BITS, SCALE_BITS
from .unpack import JOB_ROW, JOB_VECTOR
from .vector import KIND_SCORE, KIND_VALUE

# Errors a pass can end with.
ERROR_NONE, ERROR_STREAM, ERROR_LIMIT = range(3)

# Stages of the busy counters: each cycle of a pass belongs to exactly one.
STAGES = ("prepare", "embedding", "norm", "qkv", "scores", "softmax", "values", "wo", "w13", "w2", "classifier", "drain")

FP16_ONE_EXPONENT = -10 & 63   # es_ref of values (numerics.V_EXPONENT) in 6 bits.
K_EXPONENT        = 5          # es_ref of keys   (numerics.K_EXPONENT).


class LlamaDims(LiteXModule):
    """A model's dimensions and constants: inputs of the core, stable while a pass runs.

    Blocks count 32 elements, padded. q_blocks = heads*head_blocks, kv_blocks = kv_heads*head_blocks, group = heads/kv_heads,
    kv_stride = context*head_blocks*32 (bytes between two KV heads in the KV memory). *_base and *_units count 32 bytes.
    """
    LAYOUT = dict(
        dim_blocks  = (10, "Blocks of the residual stream."),
        hidden_blocks=(11, "Blocks of the feed-forward's hidden vector."),
        head_blocks = ( 4, "Blocks of one head."),
        q_blocks    = (10, "Blocks of all query heads."),
        kv_blocks   = (10, "Blocks of all KV heads."),
        heads       = ( 9, "Query heads."),
        group       = ( 9, "Query heads per KV head."),
        layers      = ( 9, "Layers."),
        vocab       = (19, "Rows of the classifier."),
        context     = (18, "Positions the KV memory is divided for, a multiple of 32."),
        kv_stride   = (26, "Bytes from one KV head to the next: context*head_blocks*32."),
        kv_dram     = ( 1, "Keys and values are in DRAM, else in the core's memories."),
        k_base      = (27, "Keys in DRAM, in units of 32 bytes from its start: layers*kv_heads*kv_stride bytes."),
        v_base      = (27, "Values in DRAM, in units of 32 bytes from its start, as many."),
        k_scale_base= (27, "Scales of keys in DRAM, in units of 32 bytes from its start: layers*kv_heads*context fp16."),
        v_scale_base= (27, "Scales of values in DRAM, in units of 32 bytes from its start, as many."),
        inv_dim     = (32, "fp32 bits of 1/dim."),
        eps         = (32, "fp32 bits of the RMSNorm epsilon."),
        score_scale = (32, "fp32 bits of log2(e)/sqrt(head_dim)."),
        stream_base = (27, "Stream section, in units of 32 bytes from the start of DRAM."),
        first_units = (27, "Length up to the end of the first layer's wq, in units of 32 bytes."),
        layers_units= (27, "Length up to the end of the last layer, in units of 32 bytes."),
        stream_units= (27, "Length of the whole stream section, in units of 32 bytes."),
        embed_base  = (27, "First group of the embedding, in units of 32 bytes from the start of DRAM."),
        embed_type  = ( 2, "1 Q8_0, 2 Q4_0, 3 Q4_1."),
        rope_base   = (27, "RoPE table, in units of 32 bytes from the start of DRAM."),
        topk        = ( 7, "Candidates to keep, 1 to 64."),
    )

    def __init__(self):
        for name, (width, _) in self.LAYOUT.items():
            setattr(self, name, Signal(width, name=f"dims_{name}"))


class _OneHotFSM(FSM):
    """FSM that yosys shall give a bit per state: what is decoded from it goes far."""
    def do_finalize(self):
        super().do_finalize()
        self.state.attr.add(("fsm_encoding", "one-hot"))


class LlamaController(LiteXModule):
    """Owns (stage, layer, head, position) of a pass and starts every block; nothing else keeps a copy of that state.

    A pass decodes one token: start LlamaFetch, load the RoPE row, dequantise the embedding into x, run the layers, and where
    logits are wanted the final norm and the classifier. Attention takes the query heads of a KV head in sets of `columns`.
    Each matrix's header is compared with what the stage expects, so a stream out of step ends the pass with ERROR_STREAM
    instead of wrong tokens.

    start, scan, reset, token, position, want_logits: inputs; done: one-cycle pulse; busy, error: levels. scan: a pass that only
    reads the stream (LlamaFetch). reset ends any pass: the outstanding reads are drained, then `clear_datapath` resets the
    blocks. The remaining signals go to the block they name.
    """

    def __init__(self, config, dims):
        self.start, self.reset, self.want_logits = Signal(), Signal(), Signal()
        self.scan                                = Signal()
        self.token, self.position                = Signal(18), Signal(17)
        self.busy, self.done, self.error         = Signal(), Signal(), Signal(8)
        self.over_limit                          = Signal()   # From the core: a dimension is over its limit.
        self.stages                              = {name: Signal(name=f"stage_{name}") for name in STAGES}

        # State that blocks may look at.
        self.layer, self.head = Signal(9), Signal(9)   # (The set's first head.)
        self.kind             = Signal(4)          # Matrix that is expected or running.
        self.kv_base          = Signal(ADDRESS_BITS)       # Of the KV head that is read.
        self.kv_sbase         = Signal(SCALE_BITS)
        self.layer_kv_base    = Signal(ADDRESS_BITS)       # Of the layer's first KV head, for writes.
        self.layer_kv_sbase   = Signal(SCALE_BITS)
        self.positions        = Signal(18)                 # position + 1.
        self.k_offset         = Signal(BLOCK_COUNT_BITS)   # position*head_blocks, in blocks.
        self.v_offset         = Signal(BLOCK_COUNT_BITS)   # position//32*head_blocks, in blocks.
        self.n_columns        = Signal(bits_for(config.columns))   # Query heads of the set.
        self.last_layer       = Signal()
        self.piece            = Signal(27)                 # Of the stream, the next one: the layer's first header says so.

        # Reads, stream reader and unpacker.
        self.fetch_prepare, self.fetch_prepared, self.fetch_start = Signal(), Signal(), Signal()
        self.fetch_scan, self.fetch_scanned                       = Signal(), Signal()
        self.flush          = Signal()
        self.memory_idle    = Signal()   # No read and no write is under way.
        self.clear_datapath = Signal()
        self.header         = Record([("valid", 1), ("type", 2), ("exponent", (6, True)), ("kind", 4), ("layer", 8),
            ("rows", 18), ("blocks", 11), ("piece", 27), ("bad_magic", 1)])
        self.expect_header, self.accept = Signal(), Signal()
        self.job, self.vector_blocks    = Signal(2), Signal(10)
        self.vector_to_rope             = Signal()   # Else the vector is a norm's weights.

        # Multiplier array: its operands come from the stream or from the KV memories.
        # (Started a clock after the state machine does it: `launched` is its side of the register.)
        operands = [("start", 1), ("rows", 18), ("blocks", 11), ("type", 2), ("exponent", 6), ("base", 12), ("kind", 4),
            ("turns", 13), ("column_blocks", 4), ("emax", 8*config.columns), ("n_columns", len(self.n_columns)), ("by_column", 1)]
        self.mv, self.launched = Record([("ready", 1), *operands]), Record([("ready", 1), *operands])
        self.sync += [getattr(self.mv, name).eq(getattr(self.launched, name)) for name, _ in operands]
        self.comb += self.launched.ready.eq(self.mv.ready)
        self.from_kv = Signal()
        # Block-float converter.
        self.bfp = Record([("clear", 1), ("base", 12), ("done", 1), ("emax", 8), ("column_emax", 8*config.columns)])
        # Starts and dones of the rest. (The embedding, the norms and the KV read end where their results do: x, bfp, scores.)
        for name in ("rope_load", "norm", "scores", "softmax", "kv_read", "kv_write", "x", "topk"):
            setattr(self, f"{name}_start", Signal(name=f"{name}_start"))
        for name in ("rope_load", "scores", "softmax", "x", "topk"):
            setattr(self, f"{name}_done", Signal(name=f"{name}_done"))
        self.kv_read_values = Signal()             # kv_read of values, else of keys.
        self.k_done, self.v_done = Signal(), Signal()
        self.kv_written     = Signal()             # All keys and values of this position and layer were given to their memory.
        self.scales_free    = Signal()             # Those of the set's head were used for the last time.

        # # #

        # Activation regions, in blocks: A holds norm and attention outputs, B queries and hidden vector, P probabilities.
        region_a, region_b, region_p = config.activation_regions[:3]
        emax_a, emax_b, emax_p       = Signal(8), Signal(8), Signal(8*config.columns)

        # Products needed once per token.
        self.k_product = k_product = LlamaSerialMultiplier(17, 4)
        self.v_product = v_product = LlamaSerialMultiplier(12, 4)
        starts = Signal()
        self.comb += [
            k_product.start.eq(starts), k_product.a.eq(self.position),     k_product.b.eq(dims.head_blocks),
            v_product.start.eq(starts), v_product.a.eq(self.position[5:]), v_product.b.eq(dims.head_blocks),
            self.k_offset.eq(k_product.p), self.v_offset.eq(v_product.p), self.positions.eq(self.position + 1),
        ]
        self.sync += self.last_layer.eq(self.layer == dims.layers - 1)

        # What the next header must say.
        expected_rows, expected_blocks, matches = Signal(18), Signal(11), Signal()
        self.sync += [
            Case(self.kind, {
                image.WK:         [expected_rows.eq(dims.kv_blocks << 5),     expected_blocks.eq(dims.dim_blocks)],
                image.WV:         [expected_rows.eq(dims.kv_blocks << 5),     expected_blocks.eq(dims.dim_blocks)],
                image.WQ:         [expected_rows.eq(dims.q_blocks << 5),      expected_blocks.eq(dims.dim_blocks)],
                image.WO:         [expected_rows.eq(dims.dim_blocks << 5),    expected_blocks.eq(dims.q_blocks)],
                image.W13:        [expected_rows.eq(dims.hidden_blocks << 6), expected_blocks.eq(dims.dim_blocks)],
                image.W2:         [expected_rows.eq(dims.dim_blocks << 5),    expected_blocks.eq(dims.hidden_blocks)],
                image.CLASSIFIER: [expected_rows.eq(dims.vocab),              expected_blocks.eq(dims.dim_blocks)],
                "default":        [expected_rows.eq(1),                       expected_blocks.eq(dims.dim_blocks)],
            }),
            # Registered: the header is stable from `valid` to `accept`; a state waits one clock in between.
            matches.eq(~self.header.bad_magic & (self.header.kind == self.kind) & (self.header.layer == self.layer[:8]) &
                (self.header.rows == expected_rows) & (self.header.blocks == expected_blocks) &
                ((self.header.type == image.F32) == self.is_norm())),
        ]
        # `matches` is two registers behind kind and header: it counts only when both have been stable for that long.
        header_age, header_seen, kind_before = Signal(2), Signal(), Signal(4)
        self.sync += [
            kind_before.eq(self.kind),
            If(~self.header.valid | self.accept | (self.kind != kind_before), header_age.eq(0),
            ).Elif(header_age != 3, header_age.eq(header_age + 1)),
        ]
        self.comb += header_seen.eq((header_age == 3) & (self.kind == kind_before))

        k_seen, v_seen, inverse_ok = Signal(), Signal(), Signal()
        head_base, group_left      = Signal(12), Signal(9)   # group_left: heads of the group from this set on.
        set_blocks, columns_left   = Signal(7), Signal(len(self.n_columns))
        n = self.n_columns
        self.comb += [
            If(group_left > config.columns, n.eq(config.columns)).Else(n.eq(group_left)),
            set_blocks.eq(sum(Mux(n[i], dims.head_blocks << i, 0) for i in range(len(n)))),
            self.kv_written.eq(k_seen & v_seen),
        ]
        self.sync += [
            If(self.kv_write_start, k_seen.eq(0), v_seen.eq(0)),
            If(self.k_done, k_seen.eq(1)), If(self.v_done, v_seen.eq(1)),
            If(self.softmax_start, inverse_ok.eq(0)).Elif(self.softmax_done, inverse_ok.eq(1)),
        ]

        self.fsm = fsm = _OneHotFSM(reset_state="IDLE")
        stage    = lambda name: self.stages[name].eq(1)
        self.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        fail     = [NextValue(self.error, ERROR_STREAM), NextState("DRAIN")]

        def act(state, *statements):
            """One state of a pass: `reset` ends it from anywhere."""
            fsm.act(state, *statements, If(self.reset, NextState("DRAIN")))

        fsm.act("IDLE",
            If(self.reset, NextValue(self.error, ERROR_NONE), NextState("DRAIN")).Elif(self.start,
                NextValue(self.error, ERROR_NONE), NextValue(self.layer, 0), NextValue(self.kind, image.NORM1),
                NextValue(self.layer_kv_base, 0), NextValue(self.layer_kv_sbase, 0),
                self.fetch_prepare.eq(1), starts.eq(1),
                NextState("MULTIPLY"),
            ).Elif(self.scan, NextValue(self.error, ERROR_NONE), self.fetch_scan.eq(1), NextState("SCAN")))
        act("SCAN", stage("prepare"), If(self.fetch_scanned, NextState("FINISH")))
        act("MULTIPLY", stage("prepare"),
            If(self.over_limit, NextValue(self.error, ERROR_LIMIT), NextState("FINISH")).Elif(
                self.fetch_prepared, self.fetch_start.eq(1), NextState("LOAD_ROPE")))
        act("LOAD_ROPE", stage("prepare"), self.job.eq(JOB_VECTOR), self.vector_blocks.eq(dims.head_blocks),
            self.accept.eq(1), self.rope_load_start.eq(1), NextState("WAIT_ROPE"))
        act("WAIT_ROPE", stage("prepare"), If(self.rope_load_done, NextState("EMBED")))
        act("EMBED", stage("embedding"), self.job.eq(JOB_ROW), self.accept.eq(1),
            self.x_start.eq(1), NextState("WAIT_EMBED"))
        act("WAIT_EMBED", stage("embedding"), If(self.x_done, NextState("START_NORM")))

        # RMSNorm into region A.
        act("START_NORM", stage("norm"),
            self.bfp.base.eq(region_a),
            If(header_seen,
                If(self.kind == image.NORM1, NextValue(self.piece, self.header.piece)),
                If(matches, self.accept.eq(1), self.norm_start.eq(1), self.bfp.clear.eq(1), NextState("RUN_NORM")).Else(*fail)))
        act("RUN_NORM", stage("norm"), self.bfp.base.eq(region_a),
            If(self.bfp.done, NextValue(emax_a, self.bfp.emax), NextValue(self.kind, self.kind + 1),
                If(self.kind == image.NORM1, NextState("CLEAR_QKV")).Elif(self.kind == image.NORM2, NextState("START_W13"))
                .Else(NextState("START_CLASSIFIER"))))

        # wk, wv, wq back to back: keys and values to their quantiser, queries to region B.
        act("CLEAR_QKV", stage("qkv"), self.bfp.base.eq(region_b), self.bfp.clear.eq(1), self.kv_write_start.eq(1),
            NextValue(self.kv_base, self.layer_kv_base), NextValue(self.kv_sbase, self.layer_kv_sbase), NextState("START_QKV"))
        act("START_QKV", stage("qkv"), self.bfp.base.eq(region_b), *self.launch(region_a, emax_a, header_seen, matches, fail,
            [NextValue(self.kind, self.kind + 1), If(self.kind == image.WQ, NextState("WAIT_QKV"))]))
        act("WAIT_QKV", stage("qkv"), self.bfp.base.eq(region_b),
            If(self.bfp.done, NextValue(emax_b, self.bfp.emax), NextValue(self.head, 0), NextValue(head_base, 0),
                NextValue(group_left, dims.group), NextState("START_SCORES")))

        # Attention, set by set of query heads: scores, softmax into region P, values into region A.
        kv_pass = lambda: [self.from_kv.eq(1)]
        act("START_SCORES", stage("scores"), *kv_pass(), self.launched.rows.eq(self.positions),
            self.launched.blocks.eq(dims.head_blocks), self.launched.type.eq(image.Q8_0), self.launched.exponent.eq(K_EXPONENT),
            self.launched.base.eq(region_b + head_base), self.launched.emax.eq(Replicate(emax_b, config.columns)),
            self.launched.kind.eq(KIND_SCORE), self.launched.turns.eq(1), self.launched.column_blocks.eq(dims.head_blocks),
            self.launched.n_columns.eq(n),
            If(self.launched.ready & k_seen,
                self.launched.start.eq(1), self.kv_read_start.eq(1), self.scores_start.eq(1), NextState("RUN_SCORES")))
        act("RUN_SCORES", stage("scores"), *kv_pass(), self.bfp.base.eq(region_p),
            If(self.scores_done & v_seen, self.bfp.clear.eq(1), NextState("START_SOFTMAX"))
            .Elif(self.scores_done, NextState("WAIT_VALUES")))
        act("WAIT_VALUES", stage("scores"), *kv_pass(), self.bfp.base.eq(region_p),
            If(v_seen, self.bfp.clear.eq(1), NextState("START_SOFTMAX")))
        act("START_SOFTMAX", stage("softmax"), self.bfp.base.eq(region_p), self.softmax_start.eq(1),
            NextValue(columns_left, n), NextState("RUN_SOFTMAX"))
        act("RUN_SOFTMAX", stage("softmax"), self.bfp.base.eq(region_p),
            If(self.bfp.done,
                NextValue(emax_p, self.bfp.column_emax), NextValue(columns_left, columns_left - 1),
                If(columns_left == 1, NextState("CLEAR_VALUES"))))
        act("CLEAR_VALUES", stage("values"), self.bfp.base.eq(region_a + head_base), self.bfp.clear.eq(1),
            NextState("START_VALUES"))
        act("START_VALUES", stage("values"), *kv_pass(), self.bfp.base.eq(region_a + head_base),
            self.launched.rows.eq(dims.head_blocks << 5), self.launched.blocks.eq(1), self.launched.turns.eq(self.position[5:] + 1),
            self.launched.n_columns.eq(n), self.launched.by_column.eq(1), self.launched.type.eq(image.Q8_0),
            self.launched.exponent.eq(FP16_ONE_EXPONENT), self.launched.base.eq(region_p),
            self.launched.emax.eq(emax_p), self.launched.kind.eq(KIND_VALUE), self.kv_read_values.eq(1),
            If(self.launched.ready & inverse_ok,
                self.launched.start.eq(1), self.kv_read_start.eq(1), self.scales_free.eq(1), NextState("RUN_VALUES")))
        act("RUN_VALUES", stage("values"), *kv_pass(), self.kv_read_values.eq(1), self.bfp.base.eq(region_a + head_base),
            If(self.bfp.done,
                If((self.head == 0) | (self.bfp.emax > emax_a), NextValue(emax_a, self.bfp.emax)),
                NextValue(self.head, self.head + n), NextValue(head_base, head_base + set_blocks),
                NextValue(group_left, group_left - n),
                If(group_left == n,
                    NextValue(group_left, dims.group),
                    NextValue(self.kv_base, self.kv_base + dims.kv_stride),
                    NextValue(self.kv_sbase, self.kv_sbase + dims.context)),
                If(self.head + n == dims.heads, NextState("START_WO")).Else(NextState("START_SCORES"))))

        # Output projection and feed-forward.
        act("START_WO", stage("wo"),
            NextValue(self.layer_kv_base, self.kv_base), NextValue(self.layer_kv_sbase, self.kv_sbase),
            *self.launch(region_a, emax_a, header_seen, matches, fail, [self.x_start.eq(1), NextState("RUN_WO")]))
        act("RUN_WO", stage("wo"), If(self.x_done, NextValue(self.kind, image.NORM2), NextState("START_NORM")))
        act("START_W13", stage("w13"), self.bfp.base.eq(region_b),
            *self.launch(region_a, emax_a, header_seen, matches, fail, [self.bfp.clear.eq(1), NextState("RUN_W13")]))
        act("RUN_W13", stage("w13"), self.bfp.base.eq(region_b),
            If(self.bfp.done, NextValue(emax_b, self.bfp.emax), NextValue(self.kind, image.W2), NextState("START_W2")))
        act("START_W2", stage("w2"),
            *self.launch(region_b, emax_b, header_seen, matches, fail, [self.x_start.eq(1), NextState("RUN_W2")]))
        act("RUN_W2", stage("w2"), If(self.x_done,
            If(~self.last_layer,
                NextValue(self.layer, self.layer + 1), NextValue(self.kind, image.NORM1), NextState("START_NORM"),
            ).Elif(self.want_logits,
                NextValue(self.layer, 0), NextValue(self.kind, image.NORM_FINAL), NextState("START_NORM"),
            ).Else(NextState("FINISH"))))
        act("START_CLASSIFIER", stage("classifier"),
            *self.launch(region_a, emax_a, header_seen, matches, fail, [self.topk_start.eq(1), NextState("RUN_CLASSIFIER")]))
        act("RUN_CLASSIFIER", stage("classifier"), If(self.topk_done, NextState("FINISH")))

        # Drain after an error or a reset: outstanding reads first, then the blocks.
        draining   = Signal()
        self.sync += [self.flush.eq(draining), self.clear_datapath.eq(draining)]   # Registered: they go everywhere.
        fsm.act("DRAIN", stage("drain"), draining.eq(1),
            If(self.memory_idle, NextState("FINISH")))
        fsm.act("FINISH", stage("drain"), self.done.eq(1), NextState("IDLE"))

        # Headers are parsed ahead of their stage, but never in what comes before the layers (RoPE and embedding rows).
        in_layers = Signal()
        self.sync += If(~self.busy | self.clear_datapath, in_layers.eq(0)).Elif(fsm.ongoing("START_NORM"), in_layers.eq(1))
        self.comb += [
            self.expect_header.eq(in_layers),
            self.vector_to_rope.eq(fsm.ongoing("LOAD_ROPE") | fsm.ongoing("WAIT_ROPE")),
        ]

    def is_norm(self):
        """Expression: the expected matrix is a norm."""
        return reduce(or_, [self.kind == k for k in (image.NORM1, image.NORM2, image.NORM_FINAL)])

    def launch(self, base, emax, header_seen, matches, fail, then):
        """Statements that start the multiplier array on the matrix whose header has arrived, then do `then`."""
        return [
            self.launched.rows.eq(self.header.rows), self.launched.blocks.eq(self.header.blocks),
            self.launched.type.eq(self.header.type), self.launched.exponent.eq(self.header.exponent),
            self.launched.base.eq(base), self.launched.emax.eq(emax), self.launched.kind.eq(self.kind),
            self.launched.turns.eq(1), self.launched.n_columns.eq(1),
            If(header_seen & self.launched.ready,
                If(matches, self.launched.start.eq(1), self.accept.eq(1), *then).Else(*fail)),
        ]

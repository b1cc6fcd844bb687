# SPDX-License-Identifier: BSD-2-Clause
"""The one state machine of the decoder."""

from functools import reduce
from operator import or_

from migen import *
from migen.genlib.fsm import FSM, NextState, NextValue

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

from . import image
from .config import BLOCK
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
        inv_dim     = (32, "fp32 bits of 1/dim."),
        eps         = (32, "fp32 bits of the RMSNorm epsilon."),
        score_scale = (32, "fp32 bits of log2(e)/sqrt(head_dim)."),
        stream_base = (27, "Stream section, in units of 32 bytes from the start of DRAM."),
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


class _SerialMultiplier(LiteXModule):
    """a*b by shift and add, one bit of `b` a clock: for addresses that are needed once per token."""

    def __init__(self, a_bits, b_bits):
        self.start, self.idle = Signal(), Signal()
        self.a, self.b, self.p = Signal(a_bits), Signal(b_bits), Signal(a_bits + b_bits)

        # # #

        a, b, left = Signal(a_bits + b_bits), Signal(b_bits), Signal(max=b_bits + 1)
        self.comb += self.idle.eq(left == 0)
        self.sync += [
            If(self.start,
                a.eq(self.a), b.eq(self.b), self.p.eq(0), left.eq(b_bits),
            ).Elif(~self.idle,
                If(b[0], self.p.eq(self.p + a)), a.eq(a << 1), b.eq(b >> 1), left.eq(left - 1),
            )
        ]


class LlamaController(LiteXModule):
    """Owns (stage, layer, head, position) of a pass and starts every block; nothing else keeps a copy of that state.

    A pass decodes one token: request the three reads (RoPE row, embedding row, layers), load the RoPE row, dequantise the
    embedding into x, run the layers, and where logits are wanted the final norm and the classifier. Each matrix's header is
    compared with what the stage expects, so a stream out of step ends the pass with ERROR_STREAM instead of wrong tokens.

    start, reset, token, position, want_logits: inputs; done: one-cycle pulse; busy, error: levels. reset ends any pass: the
    outstanding reads are drained, then `clear_datapath` resets the blocks. The remaining signals go to the block they name.
    """

    def __init__(self, config, dims):
        self.start, self.reset, self.want_logits = Signal(), Signal(), Signal()
        self.token, self.position                = Signal(18), Signal(17)
        self.busy, self.done, self.error         = Signal(), Signal(), Signal(8)
        self.over_limit                          = Signal()   # From the core: a dimension is over its limit.
        self.stages                              = {name: Signal(name=f"stage_{name}") for name in STAGES}

        # State that blocks may look at.
        self.layer, self.head = Signal(9), Signal(9)
        self.kind             = Signal(4)          # Matrix that is expected or running.
        self.kv_base          = Signal(26)         # Of the KV head that is read.
        self.kv_sbase         = Signal(20)
        self.layer_kv_base    = Signal(26)         # Of the layer's first KV head, for writes.
        self.layer_kv_sbase   = Signal(20)
        self.positions        = Signal(18)         # position + 1.
        self.k_offset         = Signal(22)         # position*head_blocks, in blocks.

        # Stream reader and unpacker.
        self.commands       = stream.Endpoint([("address", 27), ("units", 27)])
        self.flush          = Signal()
        self.reader_idle    = Signal()
        self.clear_datapath = Signal()
        self.header         = Record([("valid", 1), ("type", 2), ("exponent", (6, True)), ("kind", 4), ("layer", 8),
            ("rows", 18), ("blocks", 11), ("bad_magic", 1)])
        self.expect_header, self.accept = Signal(), Signal()
        self.job, self.vector_blocks    = Signal(2), Signal(10)
        self.row_skip                   = Signal(4)
        self.vector_to_rope             = Signal()   # Else the vector is a norm's weights.

        # Multiplier array: its operands come from the stream or from the KV memories.
        # (Started a clock after the state machine does it: `launched` is its side of the register.)
        operands = [("start", 1), ("rows", 18), ("blocks", 11), ("type", 2), ("exponent", 6), ("base", 12), ("emax", 8),
            ("kind", 4)]
        self.mv, self.launched = Record([("ready", 1), *operands]), Record([("ready", 1), *operands])
        self.sync += [getattr(self.mv, name).eq(getattr(self.launched, name)) for name, _ in operands]
        self.comb += self.launched.ready.eq(self.mv.ready)
        self.from_kv = Signal()
        # Block-float converter.
        self.bfp = Record([("clear", 1), ("base", 12), ("done", 1), ("emax", 8)])
        # Starts and dones of the rest. (The embedding, the norms and the KV read end where their results do: x, bfp, scores.)
        for name in ("rope_load", "norm", "scores", "softmax", "kv_read", "kv_write", "x", "topk"):
            setattr(self, f"{name}_start", Signal(name=f"{name}_start"))
        for name in ("rope_load", "scores", "softmax", "x", "topk"):
            setattr(self, f"{name}_done", Signal(name=f"{name}_done"))
        self.kv_read_values = Signal()             # kv_read of values, else of keys.
        self.k_done, self.v_done = Signal(), Signal()

        # # #

        # Activation regions, in blocks: A holds norm and attention outputs, B queries and hidden vector, P probabilities.
        region_a, region_b, region_p = config.activation_regions[:3]
        emax_a, emax_b, emax_p       = Signal(8), Signal(8), Signal(8)

        # Products needed once per token.
        self.embed_product = embed_product = _SerialMultiplier(18, 10)
        self.pos_product   = pos_product   = _SerialMultiplier(17, 4)
        group, unit_groups = Signal(24), Signal(7)
        embed_address, embed_units = Signal(27), Signal(27)
        self.comb += [
            embed_product.a.eq(self.token),  embed_product.b.eq(dims.dim_blocks),
            pos_product.a.eq(self.position), pos_product.b.eq(dims.head_blocks),
            self.k_offset.eq(pos_product.p),
            self.positions.eq(self.position + 1),
            self.row_skip.eq(embed_product.p[:4]),
            group.eq(embed_product.p[4:]),
            unit_groups.eq((embed_product.p[:4] + dims.dim_blocks + 15) >> 4),
        ]
        scale = lambda value: Case(dims.embed_type, {
            image.Q8_0: value[1].eq((value[0] << 4) + value[0]),
            image.Q4_0: value[1].eq((value[0] << 3) + value[0]),
            "default":  value[1].eq((value[0] << 3) + (value[0] << 1)),
        })
        group_units = Signal(27)
        self.sync += [
            scale((group, group_units)), scale((unit_groups, embed_units)),
            embed_address.eq(dims.embed_base + group_units),
        ]

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

        head_base, group_left      = Signal(12), Signal(9)
        k_seen, v_seen, inverse_ok = Signal(), Signal(), Signal()
        self.sync += [
            If(self.kv_write_start, k_seen.eq(0), v_seen.eq(0)),
            If(self.k_done, k_seen.eq(1)), If(self.v_done, v_seen.eq(1)),
            If(self.softmax_start, inverse_ok.eq(0)).Elif(self.softmax_done, inverse_ok.eq(1)),
        ]

        self.fsm = fsm = FSM(reset_state="IDLE")
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
                embed_product.start.eq(1), pos_product.start.eq(1),
                NextState("MULTIPLY"),
            ))
        settle = Signal(3)
        act("MULTIPLY", stage("prepare"),
            If(self.over_limit, NextValue(self.error, ERROR_LIMIT), NextState("FINISH")).Elif(
                embed_product.idle & pos_product.idle,
                NextValue(settle, settle + 1), If(settle == 7, NextState("REQUEST_ROPE"))))
        for state, address, units, following in (
            ("REQUEST_ROPE",      dims.rope_base + (pos_product.p << 2), dims.head_blocks << 2, "REQUEST_EMBEDDING"),
            ("REQUEST_EMBEDDING", embed_address,                         embed_units,           "REQUEST_LAYERS"),
            ("REQUEST_LAYERS",    dims.stream_base, Mux(self.want_logits, dims.stream_units, dims.layers_units), "LOAD_ROPE"),
        ):
            act(state, stage("prepare"), self.commands.valid.eq(1), self.commands.address.eq(address),
                self.commands.units.eq(units), If(self.commands.ready, NextState(following)))

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
                NextValue(group_left, dims.group - 1), NextState("START_SCORES")))

        # Attention, head by head: scores, softmax into region P, values into region A.
        kv_pass = lambda: [self.from_kv.eq(1)]
        act("START_SCORES", stage("scores"), *kv_pass(), self.launched.rows.eq(self.positions),
            self.launched.blocks.eq(dims.head_blocks), self.launched.type.eq(image.Q8_0), self.launched.exponent.eq(K_EXPONENT),
            self.launched.base.eq(region_b + head_base), self.launched.emax.eq(emax_b), self.launched.kind.eq(KIND_SCORE),
            If(self.launched.ready & k_seen,
                self.launched.start.eq(1), self.kv_read_start.eq(1), self.scores_start.eq(1), NextState("RUN_SCORES")))
        act("RUN_SCORES", stage("scores"), *kv_pass(), self.bfp.base.eq(region_p),
            If(self.scores_done & v_seen, self.bfp.clear.eq(1), NextState("START_SOFTMAX"))
            .Elif(self.scores_done, NextState("WAIT_VALUES")))
        act("WAIT_VALUES", stage("scores"), *kv_pass(), self.bfp.base.eq(region_p),
            If(v_seen, self.bfp.clear.eq(1), NextState("START_SOFTMAX")))
        act("START_SOFTMAX", stage("softmax"), self.bfp.base.eq(region_p), self.softmax_start.eq(1), NextState("RUN_SOFTMAX"))
        act("RUN_SOFTMAX", stage("softmax"), self.bfp.base.eq(region_p),
            If(self.bfp.done, NextValue(emax_p, self.bfp.emax), NextState("CLEAR_VALUES")))
        act("CLEAR_VALUES", stage("values"), self.bfp.base.eq(region_a + head_base), self.bfp.clear.eq(1),
            NextState("START_VALUES"))
        act("START_VALUES", stage("values"), *kv_pass(), self.bfp.base.eq(region_a + head_base),
            self.launched.rows.eq(dims.head_blocks << 5), self.launched.blocks.eq((self.positions + BLOCK - 1) >> 5),
            self.launched.type.eq(image.Q8_0), self.launched.exponent.eq(FP16_ONE_EXPONENT), self.launched.base.eq(region_p),
            self.launched.emax.eq(emax_p), self.launched.kind.eq(KIND_VALUE), self.kv_read_values.eq(1),
            If(self.launched.ready & inverse_ok,
                self.launched.start.eq(1), self.kv_read_start.eq(1), NextState("RUN_VALUES")))
        act("RUN_VALUES", stage("values"), *kv_pass(), self.kv_read_values.eq(1), self.bfp.base.eq(region_a + head_base),
            If(self.bfp.done,
                If((self.head == 0) | (self.bfp.emax > emax_a), NextValue(emax_a, self.bfp.emax)),
                NextValue(self.head, self.head + 1), NextValue(head_base, head_base + dims.head_blocks),
                NextValue(group_left, group_left - 1),
                If(group_left == 0,
                    NextValue(group_left, dims.group - 1),
                    NextValue(self.kv_base, self.kv_base + dims.kv_stride),
                    NextValue(self.kv_sbase, self.kv_sbase + dims.context)),
                If(self.head == dims.heads - 1, NextState("START_WO")).Else(NextState("START_SCORES"))))

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
            If(self.layer != dims.layers - 1,
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
            If(self.reader_idle, NextState("FINISH")))
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
            If(header_seen & self.launched.ready,
                If(matches, self.launched.start.eq(1), self.accept.eq(1), *then).Else(*fail)),
        ]

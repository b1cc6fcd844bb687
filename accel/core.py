# SPDX-License-Identifier: BSD-2-Clause
"""The decoder core: this file only wires, in data-flow order (accel/README.md has the figure)."""

from functools import reduce
from operator import or_

from migen import *

from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from litex.soc.interconnect.csr import CSR, CSRField, CSRStatus, CSRStorage
from litex.soc.interconnect.csr_eventmanager import EventManager, EventSourcePulse

from . import image
from .bfp import LlamaActivations, LlamaBlockFloat
from .config import BLOCK, UNIT_BYTES, CoreConfig, check
from .controller import LlamaController, LlamaDims
from .counters import COUNTERS, LlamaCounters
from .debug import LlamaDebugWindow
from .embedding import LlamaEmbedding
from .fetch import LlamaFetch
from .flush import FlushInserter
from .function import LlamaFunctionArbiter
from .kv import LlamaKVOwner
from .kvquantise import LlamaKVQuantise
from .kvwriter import LlamaKVWriter
from .matvec import LlamaMatVec
from .residual import LlamaResidual, LlamaXMemory
from .rmsnorm import LlamaRMSNorm
from .rope import LlamaRope
from .scan import LlamaSignature
from .softmax import LlamaSoftmax
from .stream import LlamaStreamReader
from .swiglu import LlamaSwiGLU
from .topk import LlamaTopK
from .unpack import LlamaUnpack
from .vector import DEST_ACT, KIND_SCORE, KIND_VALUE, LlamaVPU

VERSION = 3   # Of the register interface.


class _Cut(LiteXModule):
    """Registers a stream in both directions: no path goes through, at the cost of one clock."""
    def __init__(self, layout):
        self.ready  = ready = stream.PipeReady(layout)
        self.valid  = valid = stream.PipeValid(layout)
        self.sink   = ready.sink
        self.source = valid.source
        self.comb  += ready.source.connect(valid.sink)


class _WriteOnly(CSRStorage):
    """A CSRStorage that software reads as 0: reading the dimensions back would take several hundred LUTs, and nobody does."""
    def do_finalize(self, busword, ordering):
        """The registers of LiteX's, written through others that have no read side."""
        super().do_finalize(busword, ordering)
        inner            = self.simple_csrs
        self.simple_csrs = [CSR(csr.size, csr.name) for csr in inner]
        self.comb       += [[csr.re.eq(outer.re), csr.r.eq(outer.r)] for outer, csr in zip(self.simple_csrs, inner)]


class LlamaCore(LiteXModule):
    """Llama-family decoder behind native LiteDRAM ports: one token per `start`, its best logits in a top-k memory.

    config: CoreConfig. ports: `config.ports` native read ports at the controller's own width; kv_port: a write port for keys
    and values in DRAM. `dims`, the controller's inputs and
    `token_ready` (one-cycle pulse at the end of each pass) are plain signals; add_csr() puts registers in front of them.
    `bus` is the read-only debug window (`debug_bytes`), `ev` the interrupt.
    """

    def __init__(self, config, ports, kv_port, with_csr=True):
        check(len(ports) == config.ports, f"{len(ports)} DRAM ports given, the configuration asks for {config.ports}")
        self.config      = config
        self.dims        = dims = LlamaDims()
        self.controller  = ctrl = LlamaController(config, dims)
        self.token_ready = ctrl.done

        # # #

        def resettable(module):
            """`module` with a reset that the controller pulls while it drains a failed pass."""
            module = FlushInserter()(module)
            self.comb += module.reset.eq(ctrl.clear_datapath)
            return module

        # Weights: DRAM to beats, beats to blocks (or to the fp32 elements of norms and of the RoPE row).
        self.reader = reader = LlamaStreamReader(ports, config.beat_bytes, config.fifo_bytes)
        self.fetch  = fetch  = resettable(LlamaFetch(config, dims))
        self.unpack = unpack = resettable(LlamaUnpack(config.lanes))

        # Activations, multiplier array, conversion of results to activations.
        depth            = config.activation_regions[-1]
        self.activations = activations = LlamaActivations(config.lanes, config.columns, depth,
            config.attention_blocks)
        self.matvec      = matvec      = resettable(LlamaMatVec(config.lanes, config.columns, activations,
            config.max_head_dim))
        self.block_float = block_float = resettable(LlamaBlockFloat(config.lanes, activations))

        # Keys and values. (What is on its way to DRAM goes there, reset or not.)
        self.kv          = kv          = resettable(LlamaKVOwner(config))
        self.kv_quantise = kv_quantise = resettable(LlamaKVQuantise(config))
        self.kv_writer   = kv_writer   = LlamaKVWriter(config, kv_port)

        # Stages.
        self.x         = x         = resettable(LlamaXMemory(config.max_dim))
        self.embedding = embedding = resettable(LlamaEmbedding(config.lanes))
        self.rmsnorm   = rmsnorm   = resettable(LlamaRMSNorm(x))
        self.rope      = rope      = resettable(LlamaRope(config.max_head_dim))
        self.softmax   = softmax   = resettable(LlamaSoftmax(config, kv))
        self.residual  = residual  = resettable(LlamaResidual(x))
        self.swiglu    = swiglu    = resettable(LlamaSwiGLU())
        self.topk      = topk      = resettable(LlamaTopK(config.max_topk))

        # Reads in the order of use; weights to the unpacker, the cache's beats to its tile. (Here and below, registers between
        # blocks keep their handshakes from adding up to one long path.)
        self.beats = beats = resettable(_Cut(fetch.weights.description))
        self.fills = fills = resettable(_Cut(fetch.fill.description))
        self.comb += [
            fetch.prepare.eq(ctrl.fetch_prepare), ctrl.fetch_prepared.eq(fetch.prepared), fetch.start.eq(ctrl.fetch_start),
            fetch.token.eq(ctrl.token), fetch.want_logits.eq(ctrl.want_logits), fetch.position.eq(ctrl.position),
            fetch.k_offset.eq(ctrl.k_offset), fetch.v_offset.eq(ctrl.v_offset),
            fetch.kv_base.eq(ctrl.layer_kv_base), fetch.kv_sbase.eq(ctrl.layer_kv_sbase), fetch.kv_begin.eq(ctrl.kv_write_start),
            fetch.kv_stored.eq(ctrl.kv_written & kv_writer.idle), fetch.last_layer.eq(ctrl.last_layer),
            fetch.segment.eq(ctrl.piece),
            fetch.commands.connect(reader.sink), reader.flush.eq(ctrl.flush),
            ctrl.memory_idle.eq(reader.idle & kv_writer.idle),
            reader.source.connect(fetch.sink), fetch.weights.connect(beats.sink), beats.source.connect(unpack.sink),
            fetch.fill.connect(fills.sink), fills.source.connect(kv.fill),
            ctrl.header.valid.eq(unpack.header_valid), ctrl.header.bad_magic.eq(unpack.bad_magic),
            [getattr(ctrl.header, n).eq(getattr(unpack, n)) for n in ("type", "exponent", "kind", "layer", "rows", "blocks",
                "piece")],
            unpack.expect_header.eq(ctrl.expect_header), unpack.row_type.eq(dims.embed_type),
            unpack.row_skip.eq(fetch.row_skip), unpack.row_blocks.eq(dims.dim_blocks),
        ]
        self.sync += [
            unpack.accept.eq(ctrl.accept), unpack.job.eq(ctrl.job), unpack.vector_blocks.eq(ctrl.vector_blocks),
        ]

        # What a scan reads, as a signature.
        self.signature = signature = LlamaSignature(config.beat_bytes)
        self.comb += [
            fetch.scan.eq(ctrl.fetch_scan), ctrl.fetch_scanned.eq(fetch.scanned), signature.clear.eq(ctrl.fetch_scan),
            signature.valid.eq(fetch.dropped), signature.data.eq(reader.source.data),
        ]

        # Vectors to RoPE's table or to the norms.
        self.vectors = vectors = resettable(_Cut(unpack.vector.description))
        to_rope      = Signal()
        self.sync   += to_rope.eq(ctrl.vector_to_rope)
        self.comb   += [
            unpack.vector.connect(vectors.sink),
            vectors.source.connect(rope.vector,    omit={"valid", "ready"}),
            vectors.source.connect(rmsnorm.vector, omit={"valid", "ready"}),
            rope.vector.valid.eq(vectors.source.valid & to_rope),
            rmsnorm.vector.valid.eq(vectors.source.valid & ~to_rope),
            vectors.source.ready.eq(Mux(to_rope, rope.vector.ready, rmsnorm.vector.ready)),
        ]

        # Beats to the array: weights from the stream, or keys and values. The embedding row goes to its own stage.
        # (The controller's choice may come a clock late: the beats it is for are several clocks away.)
        self.operands = operands = resettable(_Cut(matvec.sink.description))
        from_kv, embedded = Signal(), Signal()
        self.sync += [from_kv.eq(ctrl.from_kv), embedded.eq(ctrl.stages["embedding"])]
        self.comb += [
            If(from_kv, kv.source.connect(operands.sink)).Else(unpack.weights.connect(operands.sink)),
            operands.source.connect(matvec.sink,    omit={"valid", "ready"}),
            operands.source.connect(embedding.sink, omit={"valid", "ready"}),
            matvec.sink.valid.eq(operands.source.valid & ~embedded),
            embedding.sink.valid.eq(operands.source.valid & embedded),
            operands.source.ready.eq(Mux(embedded, embedding.sink.ready, matvec.sink.ready)),
            matvec.start.eq(ctrl.mv.start), ctrl.mv.ready.eq(matvec.ready_for_start),
            [getattr(matvec, n).eq(getattr(ctrl.mv, n)) for n in ("rows", "blocks", "type", "exponent", "base", "kind", "turns",
                "column_blocks", "n_columns", "by_column")],
            [emax.eq(ctrl.mv.emax[8*c:8*(c + 1)]) for c, emax in enumerate(matvec.emax)],
            activations.broadcast.eq(ctrl.stages["qkv"]),
        ]

        # Rows to the stage of their kind.
        routes = [(rope.sink, (image.WK, image.WV, image.WQ)), (residual.sink, (image.WO, image.W2)), (swiglu.sink, (image.W13,)),
            (softmax.sink, (KIND_SCORE, KIND_VALUE)), (topk.sink, (image.CLASSIFIER,))]
        rows_layout = stream.EndpointDescription(matvec.source.description.payload_layout + [("route", len(routes))])
        self.rows   = rows = resettable(_Cut(rows_layout))
        self.comb  += [
            matvec.source.connect(rows.sink, omit={"route"}),
            rows.sink.route.eq(Cat(*[reduce(or_, [matvec.source.kind == k for k in kinds]) for _, kinds in routes])),
            rows.source.ready.eq(reduce(or_, [rows.source.route[i] & sink.ready for i, (sink, _) in enumerate(routes)])),
        ]
        for i, (sink, _) in enumerate(routes):
            taken      = {"data", "last"} | {n for n, *_ in sink.description.payload_layout}
            self.comb += [
                rows.source.connect(sink, keep=taken & {"data", "last", "kind", "column"}),
                sink.valid.eq(rows.source.valid & rows.source.route[i]),
            ]

        # Vector unit and function table, most urgent client first: what stands in the way of rows, then passes.
        clients  = (rope, residual, swiglu, softmax, kv_quantise, rmsnorm, embedding)
        users    = (swiglu, softmax, kv_quantise, rmsnorm)
        self.vpu      = vpu      = resettable(LlamaVPU(len(clients)))
        self.function = function = resettable(LlamaFunctionArbiter(len(users)))
        # Registers in both directions for the less urgent clients.
        def attach(source, port, held):
            if held and config.cuts:
                cut             = resettable(_Cut(source.description))
                self.submodules += cut
                self.comb       += source.connect(cut.sink)
                source          = cut.source
            self.comb += source.connect(port)
        for i, (client, port) in enumerate(zip(clients, vpu.clients)):
            attach(client.vpu, port, i >= clients.index(softmax))
        for i, (user, port) in enumerate(zip(users, function.clients)):
            attach(user.function, port, i >= users.index(softmax))
        self.comb += [port.connect(u.function_result, omit={"ready"}) for u, port in zip(users, function.sources)]
        self.comb += [vpu.source.connect(m.result, omit={"ready"}) for m in (x, rmsnorm, kv_quantise, softmax)]
        self.comb += [
            block_float.valid.eq(vpu.source.valid & (vpu.source.dest == DEST_ACT)), block_float.data.eq(vpu.source.data),
            block_float.column.eq(vpu.source.column), block_float.last.eq(vpu.source.last),
            ctrl.bfp.done.eq(block_float.done), ctrl.bfp.emax.eq(block_float.emax),
            ctrl.bfp.column_emax.eq(Cat(*block_float.column_emax)),
        ]

        # Starts, dones and parameters. (Some a clock late: the first result is many clocks away.)
        read_values = Signal()
        self.sync += [
            block_float.base.eq(ctrl.bfp.base), block_float.clear.eq(ctrl.bfp.clear), read_values.eq(ctrl.kv_read_values),
        ]
        self.sync += [x.clear.eq(ctrl.x_start), rmsnorm.start.eq(ctrl.norm_start), embedding.type.eq(dims.embed_type)]
        self.comb += [
            rope.load.eq(ctrl.rope_load_start), ctrl.rope_load_done.eq(rope.load_done), rope.head_blocks.eq(dims.head_blocks),
            rope.kv_ready.eq(kv_quantise.ready), kv_quantise.claim.eq(rope.kv_claim),
            ctrl.x_done.eq(x.done),
            rmsnorm.dim_blocks.eq(dims.dim_blocks), rmsnorm.inv_dim.eq(dims.inv_dim),
            rmsnorm.eps.eq(dims.eps),
            kv_quantise.start.eq(ctrl.kv_write_start), ctrl.k_done.eq(kv_quantise.k_done), ctrl.v_done.eq(kv_quantise.v_done),
            kv_quantise.base.eq(ctrl.layer_kv_base), kv_quantise.sbase.eq(ctrl.layer_kv_sbase),
            kv_quantise.stride.eq(dims.kv_stride), kv_quantise.context.eq(dims.context),
            kv_quantise.position.eq(ctrl.position), kv_quantise.k_offset.eq(ctrl.k_offset), kv_quantise.v_offset.eq(ctrl.v_offset),
            kv_quantise.head_blocks.eq(dims.head_blocks), kv_quantise.kv_blocks.eq(dims.kv_blocks),
            kv_quantise.room.eq(~dims.kv_dram | kv_writer.room),
            kv.start.eq(ctrl.kv_read_start), kv.read_values.eq(read_values), kv.base.eq(ctrl.kv_base),
            kv.sbase.eq(ctrl.kv_sbase), kv.row_blocks.eq(dims.head_blocks), kv.streamed.eq(dims.kv_dram),
            kv.restart.eq(ctrl.fetch_start), kv.scales_free.eq(ctrl.scales_free),
            If(read_values, kv.n_blocks.eq((ctrl.v_offset + dims.head_blocks) << 5)).Else(
                kv.n_blocks.eq(ctrl.k_offset + dims.head_blocks)),
            kv_writer.flush.eq(ctrl.kv_written | ctrl.clear_datapath),
            [base.eq(b) for base, b in zip(kv_writer.base, (dims.k_base, dims.v_base, dims.k_scale_base, dims.v_scale_base))],
            softmax.clear.eq(ctrl.scores_start), ctrl.scores_done.eq(softmax.scores_done),
            softmax.start.eq(ctrl.softmax_start), ctrl.softmax_done.eq(softmax.done), softmax.positions.eq(ctrl.positions),
            softmax.sbase.eq(Mux(dims.kv_dram, 0, ctrl.kv_sbase)), softmax.n_columns.eq(ctrl.n_columns),
            softmax.score_scale.eq(dims.score_scale),
            topk.start.eq(ctrl.topk_start), topk.k.eq(dims.topk), ctrl.topk_done.eq(topk.done),
        ]

        # New keys and values to the memories, or to DRAM.
        for sink, here in ((kv, ~dims.kv_dram), (kv_writer, dims.kv_dram)):
            for name in ("valid", "scale_valid"):
                self.comb += getattr(sink, f"write_{name}").eq(getattr(kv_quantise, f"write_{name}") & here)
            for name in ("values", "address", "data", "scale_address", "scale"):
                self.comb += getattr(sink, f"write_{name}").eq(getattr(kv_quantise, f"write_{name}"))

        # What this build cannot hold is refused before anything is addressed with it.
        limits = [(dims.dim_blocks, config.max_dim//BLOCK), (dims.hidden_blocks, config.max_hidden//BLOCK),
            (dims.q_blocks, config.max_heads_dim//BLOCK), (dims.kv_blocks, config.max_heads_dim//BLOCK),
            (dims.head_blocks, config.max_head_dim//BLOCK), (dims.context, config.max_context)]
        self.sync += ctrl.over_limit.eq(reduce(or_, [(value > limit) | (value == 0) for value, limit in limits]) |
            (ctrl.position >= dims.context) | (dims.topk > config.max_topk))

        # Counters and debug window.
        self.counters = counters = LlamaCounters(signature.words)
        self.comb += [
            counters.clear.eq((ctrl.start | ctrl.scan) & ~ctrl.busy),
            counters.events["total"].eq(ctrl.busy),
            counters.events["beats"].eq(reader.beat),
            counters.events["no_data"].eq(ctrl.busy & reader.no_data),
            counters.events["no_room"].eq(ctrl.busy & reader.no_room),
            [counters.events[name].eq(level) for name, level in ctrl.stages.items()],
        ]
        self.debug = debug = LlamaDebugWindow(idle=~ctrl.busy, memories=dict(
            x            = (x.debug_index,       x.debug_data),
            scores       = (softmax.debug_index, softmax.debug_data),
            keys         = (kv.debug_index,      kv.debug_keys),
            values       = (Signal(16),                   kv.debug_values),
            key_scales   = (Signal(16),          kv.debug_key_scales),
            value_scales = (Signal(16),          kv.debug_value_scales),
        ))
        self.bus, self.debug_bytes = debug.bus, debug.bytes

        if with_csr:
            self.add_csr()

    def add_csr(self):
        """Registers: control, operands, every dimension of LlamaDims (write only), top-k read-out, status, counters, interrupt."""
        ctrl, dims = self.controller, self.dims
        self.control = CSRStorage(fields=[
            CSRField("start", size=1, offset=0, pulse=True, description="Decode one token."),
            CSRField("reset", size=1, offset=1, pulse=True, description="End what runs, drain the stream, clear the error."),
            CSRField("scan",  size=1, offset=2, pulse=True, description="Read the stream section alone, into the signature."),
        ], description="Control of the core.")
        self.token    = CSRStorage(18, description="Token to decode.")
        self.position = CSRStorage(17, description="Its position; positions before it are in the KV memory.")
        self.flags    = CSRStorage(fields=[CSRField("logits", size=1,
            description="Run final norm, classifier and top-k; else the pass ends after the last layer (prompt tokens).")],
            description="Options of a pass.")
        self.comb += [ctrl.start.eq(self.control.fields.start), ctrl.reset.eq(self.control.fields.reset),
            ctrl.scan.eq(self.control.fields.scan),
            ctrl.token.eq(self.token.storage), ctrl.position.eq(self.position.storage),
            ctrl.want_logits.eq(self.flags.fields.logits)]
        for name, (width, description) in LlamaDims.LAYOUT.items():
            # Addresses and lengths are in units of 32 bytes inside, in bytes for software.
            shift   = log2_int(UNIT_BYTES) if name.endswith(("_base", "_units")) else 0
            storage = _WriteOnly(width + shift, name=name.replace("_units", "_bytes"),
                description=description.replace("units of 32 bytes", "bytes"))
            setattr(self, f"_{name}", storage)
            self.comb += getattr(dims, name).eq(storage.storage[shift:])

        self.topk_select = CSRStorage(bits_for(self.config.max_topk - 1), description="Candidate to read, best first.")
        self.topk_id     = CSRStatus(18, description="Token id of the selected candidate.")
        self.topk_logit  = CSRStatus(32, description="fp32 bits of its logit.")
        self.topk_count  = CSRStatus(7,  description="Candidates there are.")
        self.comb += [self.topk.index.eq(self.topk_select.storage), self.topk_id.status.eq(self.topk.id),
            self.topk_logit.status.eq(self.topk.logit), self.topk_count.status.eq(self.topk.count)]

        finished     = Signal()
        self.sync   += If(ctrl.done, finished.eq(1)).Elif(ctrl.start | ctrl.scan, finished.eq(0))
        self.status  = CSRStatus(fields=[
            CSRField("busy",  size=1, offset=0, description="A pass is running."),
            CSRField("done",  size=1, offset=1, description="The last pass has ended; cleared by start and scan."),
            CSRField("error", size=8, offset=8, description="Of the last pass: 0 none, 1 stream out of step (a matrix header "
                "differs from what the dimensions ask for), 2 a dimension over this build's limit."),
        ], description="State of the core.")
        self.layer   = CSRStatus(9, description="Layer that the running pass is at.")
        self.comb   += self.layer.status.eq(ctrl.layer)
        self.version = CSRStatus(8, reset=VERSION, description="Version of this register interface.")
        self.comb   += [self.status.fields.busy.eq(ctrl.busy), self.status.fields.done.eq(finished),
            self.status.fields.error.eq(ctrl.error)]

        self.counter_select = CSRStorage(fields=[CSRField("index", size=len(self.counters.select),
            description="Counter: " + ", ".join(f"{i} {n}" for i, n in enumerate(COUNTERS)) +
                f"; from {len(COUNTERS)} on, words of the last scan's signature.")],
            description="Performance counter to read.")
        self.counter_value  = CSRStatus(32, description="Selected counter, of the last pass, in cycles.")
        self.comb += [self.counters.select.eq(self.counter_select.storage), self.counter_value.status.eq(self.counters.value)]

        self.ev             = EventManager()
        self.ev.token_ready = EventSourcePulse(description="A pass has ended: its candidates, or its error, can be read.")
        self.ev.finalize()
        self.comb += self.ev.token_ready.trigger.eq(self.token_ready)

    def test_signals(self):
        """Plain signals by name, for a bench without a CPU: inputs, outputs, debug bus, candidates, counters."""
        ctrl, bus = self.controller, self.bus
        signals   = {n: getattr(ctrl, n) for n in ("start", "reset", "scan", "want_logits", "token", "position", "busy", "done", "error")}
        signals.update({f"dims_{n}": getattr(self.dims, n) for n in LlamaDims.LAYOUT})
        signals.update({f"bus_{n}": getattr(bus, n) for n in ("adr", "cyc", "stb", "we", "ack", "dat_r")})
        signals.update(topk_select=self.topk.index, topk_id=self.topk.id, topk_logit=self.topk.logit, topk_count=self.topk.count,
            counter_select=self.counters.select, counter_value=self.counters.value)
        return signals.items()

# SPDX-License-Identifier: BSD-2-Clause
"""Top-k: keeps the k largest logits while the classifier's rows stream past, so that the CPU never reads them all."""

from migen import *
from migen.fhdl.specials import READ_FIRST

from litex.gen import LiteXModule
from litex.soc.interconnect import stream

ID_BITS = 18


class LlamaTopK(LiteXModule):
    """The k best of a stream of fp32 logits, best first; of equals the lower index first (numerics.topk).

    start: one-cycle pulse with k (1 to max_k; more counts as max_k, 0 keeps nothing) that empties the list. sink: logits in
    the order of their index, which is counted here from 0; last on the last one. done: one-cycle pulse when the list is
    final. Then `id` and `logit` are those of entry `index`, one clock later; count: entries in the list.

    Insertion sort from the worst end, two entries a clock: rows come in the order of their index, so an equal logit ranks
    below those already there and only logits are compared. The list lives in LUT RAM (block RAM is scarcer), two entries
    per word. A row that does not get in costs 1 clock, and none while another is being sorted in. One that does costs 3 to
    3 + k/2 clocks, 3 + k/4 on average over random order.
    """
    def __init__(self, max_k, fifo_depth=16):
        self.start = Signal()
        self.k     = Signal(7)
        self.sink  = stream.Endpoint([("data", 32)])
        self.done  = Signal()
        self.index = Signal(max=max(3, max_k))
        self.id    = Signal(ID_BITS)
        self.logit = Signal(32)
        self.count = Signal(7)

        # # #

        # Logits to keys, unsigned integers of the same order.
        self.fifo = fifo = stream.SyncFIFO([("key", 32)], fifo_depth)
        negative   = self.sink.data[31]
        self.comb += [
            self.sink.connect(fifo.sink, omit={"data"}),
            fifo.sink.key.eq(self.sink.data ^ Cat(Replicate(negative, 31), 1)),
        ]

        # Filter: a row gets in while there is room, or if it beats the worst entry. What does not is dropped even while
        # another row is being sorted in: the worst entry only gets better.
        row    = Signal(ID_BITS)
        limit  = Signal(7)
        full   = Signal()
        count  = Signal(7)
        worst  = Signal(32)
        better = Signal()
        insert = Signal()
        reject = Signal()
        active = Signal()
        ending = Signal()
        idle   = Signal()
        self.comb += [
            self.count.eq(count),
            full.eq(count == limit),
            better.eq(fifo.source.key > worst),
            insert.eq(idle & fifo.source.valid & (~full | better)),
            reject.eq(fifo.source.valid & full & ~better),
            fifo.source.ready.eq(insert | reject),
            self.done.eq(active & ending & idle),
        ]
        self.sync += [
            If(insert | reject,
                row.eq(row + 1),
                ending.eq(fifo.source.last),
            ),
            If(self.done, active.eq(0)),
        ]

        # List: word w holds entries 2w and 2w + 1. A word that was read is in `above` for one clock, then in `here`, when
        # the word with the next better entries has come to `above`.
        entry  = [("key", 32), ("id", ID_BITS)]
        pair   = [("even", entry), ("odd", entry)]
        words  = max(2, (max_k + 1)//2)
        above  = Record(pair)
        here   = Record(pair)
        memory = Memory(len(above.raw_bits()), words, name="llama_topk_list")
        read   = memory.get_port(async_read=True)
        write  = memory.get_port(write_capable=True, mode=READ_FIRST)
        self.specials += memory, read, write
        self.sync     += [above.raw_bits().eq(read.dat_r), here.raw_bits().eq(above.raw_bits())]

        # Sort in: the new row moves up from the tail; entries that it beats move down by one.
        new      = Record(entry)
        merged   = Record(pair)
        word     = Signal(max=words)
        fetch    = Signal(len(word))
        tail     = Signal(7)
        at_odd   = Signal()
        first    = Signal()
        past     = Signal()
        past_two = Signal()
        self.comb += [
            tail.eq(count - full),
            past.eq(first & ~at_odd | (new.key > here.even.key)),       # The first of an even number of entries is a hole.
            past_two.eq(past & (word != 0) & (new.key > above.odd.key)),
            merged.even.raw_bits().eq(Mux(past_two, above.odd.raw_bits(), Mux(past, new.raw_bits(), here.even.raw_bits()))),
            merged.odd.raw_bits().eq(Mux(past, here.even.raw_bits(), new.raw_bits())),
            write.adr.eq(word),
            write.dat_w.eq(merged.raw_bits()),
        ]
        self.fsm = fsm = FSM(reset_state="FILTER")
        fsm.act("FILTER",
            idle.eq(1),
            read.adr.eq(Mux(active, tail[1:], self.index[1:])),
            If(insert,
                NextValue(new.key, fifo.source.key),
                NextValue(new.id, row),
                NextValue(word, tail[1:]),
                NextValue(at_odd, tail[0]),
                NextValue(fetch, tail[1:] - 1),
                NextState("FETCH_ABOVE"),
            ),
        )
        fsm.act("FETCH_ABOVE",
            read.adr.eq(fetch),
            NextValue(fetch, fetch - 1),
            NextValue(first, 1),
            NextState("SORT_IN"),
        )
        fsm.act("SORT_IN",
            read.adr.eq(fetch),
            write.we.eq(1),
            NextValue(fetch, fetch - 1),
            NextValue(word, word - 1),
            NextValue(first, 0),
            If(first,
                NextValue(worst, Mux(at_odd, merged.odd.key, merged.even.key)),
                If(~full, NextValue(count, count + 1)),
            ),
            If(~past_two, NextState("FILTER")),
        )
        self.sync += If(self.start,
            active.eq(1),
            ending.eq(0),
            row.eq(0),
            limit.eq(Mux(self.k > max_k, max_k, self.k)),
            worst.eq(2**32 - 1),
            count.eq(0),
        )

        # Results.
        odd    = Signal()
        result = Record(entry)
        self.sync += odd.eq(self.index[0])
        self.comb += [
            result.raw_bits().eq(Mux(odd, above.odd.raw_bits(), above.even.raw_bits())),
            self.id.eq(result.id),
            self.logit.eq(result.key ^ Cat(Replicate(~result.key[31], 31), 1)),
        ]

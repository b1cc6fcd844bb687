# SPDX-License-Identifier: BSD-2-Clause
"""The stream reader against a memory behind LiteDRAM native ports with random latency and stalls."""

import random

import pytest
from litedram.common import LiteDRAMNativePort
from migen import passive

from gateware import drain, feed, run_block
from litellama.accel.stream import LlamaStreamReader


def content(word, port_bytes):
    """What the memory holds: 16-bit numbers counting up, as the integer of one port word."""
    return sum(((word*port_bytes//2 + k)*40503 & 0xFFFF) << 16*k for k in range(port_bytes//2))


@passive
def memory(port, seed, stats):
    """Answers a native read port: commands and answers stall at random, 3 to 20 clocks of latency."""
    prng, due, clock = random.Random(seed), [], 0
    while True:
        if (yield port.cmd.valid) and (yield port.cmd.ready):
            due.append((clock + prng.randint(3, 20), (yield port.cmd.addr)))
            stats.append(due[-1][1])
        if (yield port.rdata.valid):
            assert (yield port.rdata.ready), "a read was issued that cannot be stored"
        yield port.cmd.ready.eq(int(prng.random() < 0.7))
        answer = bool(due) and due[0][0] <= clock and prng.random() < 0.8
        yield port.rdata.valid.eq(int(answer))
        if answer:
            yield port.rdata.data.eq(content(due.pop(0)[1], port.data_width//8))
        clock += 1
        yield


@pytest.mark.parametrize("n_ports, port_bytes, beat_bytes", [(1, 16, 16), (2, 16, 16), (4, 8, 16), (1, 2, 4), (1, 32, 8)])
def test_order(tmp_path, n_ports, port_bytes, beat_bytes):
    """Every byte of every command comes once, in order, whatever the port and beat widths; reads alternate over the ports."""
    ports    = [LiteDRAMNativePort("both", address_width=24, data_width=8*port_bytes) for _ in range(n_ports)]
    dut      = LlamaStreamReader(ports, beat_bytes, fifo_bytes=32*port_bytes*n_ports)
    commands = [dict(address=61, units=9), dict(address=500, units=1), dict(address=64, units=64)]
    beats    = sum(c["units"] for c in commands)*32//beat_bytes
    out, reads = [], [[] for _ in ports]
    ios      = [dut.sink, dut.source, dut.flush, dut.idle]
    for p in ports:
        ios += [p.cmd, p.rdata]
    run_block(dut, [feed(dut.sink, commands, 0.5), drain(dut.source, out, beats, 0.7),
        *[memory(p, i, r) for i, (p, r) in enumerate(zip(ports, reads))]], ios, tmp_path)
    expected = []
    for c in commands:
        words   = range(c["address"]*32//port_bytes, (c["address"] + c["units"])*32//port_bytes)
        data    = b"".join(content(w, port_bytes).to_bytes(port_bytes, "little") for w in words)
        expected += [int.from_bytes(data[i:i + beat_bytes], "little") for i in range(0, len(data), beat_bytes)]
    assert [o["data"] for o in out] == expected
    for i, words in enumerate(reads):
        assert all(w*port_bytes//2048 % n_ports == i for w in words)


def test_flush(tmp_path):
    """flush drops what is queued and outstanding; the next command's data is the first to come."""
    port = LiteDRAMNativePort("both", address_width=24, data_width=128)
    dut  = LlamaStreamReader([port], 16, 512)
    out  = []
    def main():
        yield from feed(dut.sink, [dict(address=0, units=40), dict(address=100, units=9)])
        for _ in range(30):
            yield
        yield dut.flush.eq(1)
        for _ in range(4):
            yield
        while not (yield dut.idle):
            yield
        yield dut.flush.eq(0)
        yield from feed(dut.sink, [dict(address=7, units=2)])
        yield from drain(dut.source, out, 4)
    run_block(dut, [main(), memory(port, 3, [])], [dut.sink, dut.source, dut.flush, dut.idle, port.cmd, port.rdata], tmp_path)
    assert [o["data"] for o in out] == [content(w, 16) for w in range(14, 18)]

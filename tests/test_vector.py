# SPDX-License-Identifier: BSD-2-Clause
"""The vector unit: every form of operation, in grant order, from clients that compete with random gaps."""

import random

import numpy as np

from gateware import feed, run_block
from litellama.accel import numerics
from litellama.accel.vector import P_E, P_M1, P_ZERO, LlamaVPU


def golden(op):
    """fp32 bits of one operation."""
    f = lambda name: np.array([op[name]], np.uint32).view(np.float32)
    m = numerics.fmul(f("a"), f("b"))
    q = numerics.fmul(m if op["chain"] else f("c"), f("d"))
    p = {P_ZERO: np.zeros(1, np.float32), P_E: f("e"), P_M1: m}[op["p_sel"]]
    return int(numerics.bits(numerics.fadd(p, -q if op["neg"] else q))[0])


def operation(prng, client, i):
    """A random operation whose column names its client and whose dest counts."""
    number = lambda: prng.getrandbits(1) << 31 | prng.randrange(100, 156) << 23 | prng.getrandbits(23) if prng.random() < 0.95 else 0
    return dict(a=number(), b=number(), c=number(), d=number(), e=number(), chain=prng.getrandbits(1),
        p_sel=prng.choice([P_ZERO, P_E, P_M1]), neg=prng.getrandbits(1), dest=i % 8, column=client, last=prng.getrandbits(1))


def simulate(path, n_clients, n_ops, probability):
    """Run n_ops of each client; returns operations, (cycle, client) of grants and (cycle, fields) of results."""
    prng    = random.Random(1)
    ops     = [[operation(prng, c, i) for i in range(n_ops)] for c in range(n_clients)]
    dut     = LlamaVPU(n_clients)
    grants, results = [], []
    def monitor():
        cycle = 0
        while len(results) < n_clients*n_ops and cycle < 20*n_clients*n_ops + 100:
            yield
            cycle += 1
            taken  = []
            for i, client in enumerate(dut.clients):
                if (yield client.valid) and (yield client.ready):
                    taken.append((cycle, i))
                assert not ((yield client.ready) and not (yield client.valid))
            assert len(taken) <= 1
            grants.extend(taken)
            if (yield dut.source.valid):
                s = dut.source
                results.append((cycle, (yield s.data), (yield s.dest), (yield s.column), (yield s.last)))
    sources = [feed(client, o, probability, seed=i) for i, (client, o) in enumerate(zip(dut.clients, ops))]
    run_block(dut, [*sources, monitor()], [*dut.clients, dut.source], path)
    return ops, grants, results


def test_results_in_grant_order(tmp_path):
    ops, grants, results = simulate(tmp_path, n_clients=3, n_ops=150, probability=0.4)
    assert len(results) == len(grants) == 450
    queues = [iter(o) for o in ops]
    for (at, client), (cycle, data, dest, column, last) in zip(grants, results):
        op = next(queues[client])
        assert cycle - at == LlamaVPU.latency
        assert (data, dest, column, last) == (golden(op), op["dest"], client, op["last"]), op


def test_one_a_clock_and_priority(tmp_path):
    ops, grants, results = simulate(tmp_path, n_clients=2, n_ops=40, probability=1.0)
    cycles = [r[0] for r in results]
    assert cycles == list(range(cycles[0], cycles[0] + 80))
    assert [client for _, client in grants] == [0]*40 + [1]*40      # Whenever the first has an operation, it is served first.

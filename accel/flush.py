# SPDX-License-Identifier: BSD-2-Clause
"""Reset of blocks while the core drains, without that of their data."""

from migen import ResetInserter
from migen.fhdl.tools import list_inputs, list_targets
from migen.fhdl.visit import NodeVisitor

DATA_BITS = 8   # A register that is narrower is reset in any case.


class _Deciding(NodeVisitor):
    """Collects the signals that decide something: what conditions ask, and what depends on its own value; and of what each
    assignment makes its signals."""
    def __init__(self):
        self.signals, self.made_of = set(), {}

    def visit_If(self, node):
        """The condition, and what is inside."""
        self.signals |= list_inputs(node.cond)
        super().visit_If(node)

    def visit_Case(self, node):
        """What is distinguished, and what is inside."""
        self.signals |= list_inputs(node.test)
        super().visit_Case(node)

    def visit_Assign(self, node):
        """A register in its own next value."""
        read, written = list_inputs(node.r), list_targets(node)
        self.signals |= read & written
        for signal in written:
            self.made_of.setdefault(signal, set()).update(read)


def leave_data(fragment, domains):
    """Take the reset from those registers of a fragment's clock domains that are data: of DATA_BITS or more, asked by no condition (nor is
    a combinational signal that is made of them, as the comparison with a maximum so far), not depending on themselves. What says whether
    they count (`valid`, counts, states) keeps it."""
    wires, registers = _Deciding(), _Deciding()
    wires.visit(fragment.comb)
    for domain in domains:
        registers.visit(fragment.sync[domain])
    deciding, new = set(), wires.signals | registers.signals
    while new:
        deciding |= new
        new       = set().union(*(wires.made_of.get(s, ()) for s in new)) - deciding
    for domain in domains:
        for signal in list_targets(fragment.sync[domain]):
            if len(signal) >= DATA_BITS and signal not in deciding:
                signal.reset_less = True


class FlushInserter(ResetInserter):
    """Migen's ResetInserter, but for data (leave_data).

    Without a reset it goes into any slice, and the net of the reset, which is on no global wire of an ECP5, has fewer ends: of the
    10,260 bits of registers that are flushed in the smallest board's core 2,146 keep it.
    """
    def transform_fragment_insert(self, i, f, to_insert):
        """See Migen."""
        leave_data(f, [domain for _, domain in to_insert])
        super().transform_fragment_insert(i, f, to_insert)

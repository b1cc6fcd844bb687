# SPDX-License-Identifier: BSD-2-Clause
"""SentencePiece's BPE by score: a text becomes characters (a space is U+2581), the adjacent pair whose concatenation is the piece
of highest score is merged, leftmost first among equals, until none is left; what is no piece then becomes the tokens of its UTF-8
bytes. Source: Sennrich et al., arXiv 1508.07909; Kudo and Richardson, arXiv 1808.06226."""

import heapq

SPACE = "\u2581"


class Merger:
    """ids: {piece: id}; scores by id; byte_ids: {byte: id}; unknown: id of what has neither."""

    def __init__(self, ids, scores, byte_ids, unknown):
        self._ids, self._scores, self._byte_ids, self._unknown = ids, scores, byte_ids, unknown

    def encode(self, text):
        """Ids of `text`: the merge loop over a linked list of symbols, with the candidates in a heap: O(n log n)."""
        text  = text.replace(" ", SPACE)
        n     = len(text)
        left, right, part = list(range(-1, n - 1)), list(range(1, n)) + [-1], list(text)
        heap  = []
        def propose(a):
            b  = right[a] if a >= 0 else -1
            id = self._ids.get(part[a] + part[b]) if b >= 0 else None
            if id is not None:
                heapq.heappush(heap, (-self._scores[id], a, b, len(part[a]) + len(part[b])))
        for i in range(n - 1):
            propose(i)
        while heap:
            _, a, b, size = heapq.heappop(heap)
            if not part[a] or not part[b] or right[a] != b or len(part[a]) + len(part[b]) != size:
                continue   # One of the two was merged meanwhile.
            part[a] += part[b]
            part[b]  = ""
            right[a] = right[b]
            if right[a] >= 0:
                left[right[a]] = a
            propose(left[a])
            propose(a)
        ids = []
        for symbol in filter(None, part):
            id   = self._ids.get(symbol)
            ids += self._bytes(symbol) if id is None else [id]
        return ids

    def _bytes(self, symbol):
        """Byte tokens of a symbol that is no piece; the unknown token where there are none."""
        ids = [self._byte_ids.get(b) for b in symbol.encode()]
        return [self._unknown] if None in ids else ids

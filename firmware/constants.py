# SPDX-License-Identifier: BSD-2-Clause
"""Numbers that firmware and host share: frame types, payload layouts, errors. README.md explains them.

`generate.py` writes them into the C header `llama_generated.h`; `host/protocol.py` imports them. All fields are little-endian
32-bit words (`u64`: two words, low word first) unless the README says otherwise.
"""

PROTOCOL_VERSION = 4

# Framing --------------------------------------------------------------------------------------------

SYNC0, SYNC1   = 0xA5, 0x5A
HEADER_BYTES   = 8      # sync, sync, type, sequence, length u16, complement of length u16.
CRC_BYTES      = 4
PAYLOAD_MAX    = 1024   # Bytes, a multiple of 4.
RING_BYTES     = 4096   # Firmware's receive ring, and its send ring: a power of 2, above a frame and some ABORTs.
FRAME_TIMEOUTS = 20     # A frame that stands still for 1/20 s of the device's clock is given up.
TICK_CYCLES    = 1 << 20   # From one look at a pass that runs to the next, of deadline, progress and line: 10 ms at 100 MHz.

# Frame types: an answer is its request's type + ANSWER, or ERROR. TOKEN and PROGRESS come before the answer.
HELLO, RESET, PREFILL, GENERATE, ABORT, STATS, PEEK, LOAD, VERIFY, BASELINE, RECALL, PROBE, SCAN, FILL = REQUESTS = range(1, 15)
REQUEST_NAMES = ("HELLO", "RESET", "PREFILL", "GENERATE", "ABORT", "STATS", "PEEK", "LOAD", "VERIFY", "BASELINE", "RECALL",
    "PROBE", "SCAN", "FILL")
TOKEN, PROGRESS = 0x40, 0x41
ANSWER          = 0x80
ERROR           = 0xFF

# Payloads, in words ---------------------------------------------------------------------------------

CORE_FIELDS  = ("lanes", "columns", "max_dim", "max_hidden", "max_heads_dim", "max_head_dim", "max_context", "kv_bytes",
    "kv_scales", "max_topk")
MODEL_FIELDS = ("dim", "hidden", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab", "model_context")
HELLO_FIELDS = ("protocol", "core_version", "clock_hz", "port_bytes", "main_ram_bytes", "image_offset", *CORE_FIELDS,
    "image_error", "image_value", "image_limit", "image_crc", "image_bytes", "stream_bytes", "sections_checked",
    *MODEL_FIELDS, "context", "position")   # Then the model's name, UTF-8, up to NAME_MAX bytes.
NAME_MAX     = 64

GENERATE_FIELDS = ("position", "max_tokens", "inv_temperature", "top_k", "top_p_q16", "min_p_q16", "repeat_penalty_q16",
    "repeat_last_n", "seed_low", "seed_high", "n_stop", "n_recent", "n_tokens")
                                            # Then n_stop stop ids, n_recent ids of the tokens before, n_tokens token ids.
PREFILL_FIELDS  = ("position", "n_tokens")  # Then n_tokens token ids.
TOKEN_FIELDS    = ("index", "id", "logit", "cycles")
N_COUNTERS      = 16
DONE_FIELDS     = ("reason", "position", "n_prompt", "n_tokens", "prompt_cycles_low", "prompt_cycles_high",
    "decode_cycles_low", "decode_cycles_high", "pass_cycles_low", "pass_cycles_high", *(f"counter_{i}" for i in range(N_COUNTERS)))
STATS_FIELDS    = ("position", "passes", "bad_frames", "dropped_bytes", "overruns", "cycles_low", "cycles_high",
    *(f"counter_{i}" for i in range(N_COUNTERS)))
BASELINE_FIELDS = ("token", "logit_q16", "cycles_low", "cycles_high", "setup_cycles_low", "setup_cycles_high", "memory_bytes")
PROBE_FIELDS    = ("cycles", *(f"counter_{i}" for i in range(N_COUNTERS)))
SCAN_FIELDS     = ("cycles", *(f"counter_{i}" for i in range(N_COUNTERS)))   # Then the signature's words, one for 8 lanes.
FILL_FIELDS     = ("n_wrong", "first", "bits", "cycles")   # Words that differ, where the first is, their wrong bits (all or-ed).
PROGRESS_FIELDS = ("done", "total", "layer", "layers")   # layers is 0 where there is no pass.
ERROR_FIELDS    = ("number", "value", "limit")

REASON_STOP, REASON_LENGTH, REASON_ABORT = REASONS = range(1, 4)
REGION_MAIN_RAM, REGION_DEBUG            = 0, 1    # Of PEEK.
SCAN_MAIN_RAM, SCAN_IMAGE                = 0, 1    # Where a SCAN's offset counts from.
PATTERN_CONSTANT, PATTERN_ADDRESS, PATTERN_MIXED = range(3)   # Of FILL.
SIGNATURE_WORDS                          = 16      # Most words of a signature.
PEEK_WORDS                               = 128     # Most words of one PEEK.
STOP_MAX                                 = 16      # Most stop ids of one GENERATE.
REPEAT_LAST_MAX                          = 64      # Most tokens that the repetition penalty looks back at.
TOKENS_MAX                               = PAYLOAD_MAX//4 - len(GENERATE_FIELDS) - STOP_MAX - REPEAT_LAST_MAX   # Of one request.
RECALL_TOKENS                            = 8192    # Tokens of the last GENERATE that can be asked for again, its first ones.
GREEDY                                   = 0xFFFFFFFF
INV_TEMPERATURE_MAX                      = 1 << 26
REPEAT_PENALTY_MAX                       = 10 << 16      # Q16; the least is 1 << 16, which penalises nothing.
PROGRESS_CYCLES                          = 1_000_000     # At least, from one PROGRESS of a PREFILL or GENERATE to the next.

# Errors ---------------------------------------------------------------------------------------------
# Name: (number, text). {value} is what was found, {limit} what is allowed or expected.

ERRORS = {
    "FRAME_CRC":      (1,  "frame was damaged on the way: its CRC-32 is {value:#010x}, {limit:#010x} was expected"),
    "FRAME_TIMEOUT":  (2,  "frame was incomplete: {value} of {limit} bytes came in time"),
    "REQUEST":        (3,  "request {value} is unknown, the last one is {limit}"),
    "LENGTH":         (4,  "request has {value} bytes of payload, {limit} were expected"),
    "BUSY":           (5,  "request {value} came while request {limit} runs"),
    "POSITION":       (6,  "request is for position {value}, the session is at {limit}"),
    "CONTEXT":        (7,  "{value} positions were asked for, the context holds {limit}"),
    "TOKEN":          (8,  "token {value} is outside the vocabulary of {limit}"),
    "N_TOKENS":       (9,  "request has {value} tokens, must be 1 to {limit}"),
    "MAX_TOKENS":     (10, "max_tokens is {value}, must be at least {limit}"),
    "TOP_K":          (11, "top-k is {value}, must be 0 to {limit}"),
    "TOP_P":          (12, "top-p is {value}/65536, must be 0 to {limit}/65536"),
    "TEMPERATURE":    (13, "inverse temperature is {value}, must be 0 to {limit}"),
    "N_STOP":         (14, "request has {value} stop ids, may have {limit}"),
    "ADDRESS":        (15, "address {value:#x} is outside the readable {limit:#x} bytes"),
    "REGION":         (16, "region {value} is unknown or not built, the last one is {limit}"),
    "PEEK":           (17, "{value} words were asked for, must be 1 to {limit}"),
    "LOAD":           (18, "image byte {value} is outside the {limit} bytes of DRAM for it"),
    "UNVERIFIED":     (19, "the image was changed by LOAD and not verified since"),
    "MAGIC":          (20, "there is no image in DRAM: it starts with {value:#010x}, {limit:#010x} was expected"),
    "VERSION":        (21, "image version is {value}, this firmware reads version {limit}"),
    "HEADER_BYTES":   (22, "image header has {value} bytes, {limit} were expected"),
    "SECTIONS":       (23, "image has {value} sections, must be 1 to {limit}"),
    "HEADER_CRC":     (24, "image header is corrupt: its CRC-32 is {value:#010x}, {limit:#010x} was expected"),
    "IMAGE_BYTES":    (25, "image has {value} bytes, DRAM has room for {limit}"),
    "SECTION_BOUNDS": (26, "section {value} of the image lies outside its {limit} bytes or is not aligned"),
    "SECTION_NONE":   (27, "image has no section {value:#010x}"),
    "SECTION_CRC":    (28, "section {value} of the image is corrupt: CRC-32 differs from {limit:#010x}"),
    "DIM":            (30, "image's dim is {value}, must be 1 to {limit}"),
    "HIDDEN":         (31, "image's hidden is {value}, must be 1 to {limit}"),
    "N_LAYERS":       (32, "image's n_layers is {value}, must be 1 to {limit}"),
    "N_HEADS":        (33, "image's n_heads is {value}, must be 1 to {limit}"),
    "N_KV_HEADS":     (34, "image's n_kv_heads is {value}, must be 1 to {limit} and divide n_heads"),
    "HEAD_DIM":       (35, "image's head_dim is {value}, must be even, 2 to {limit}"),
    "VOCAB":          (36, "image's vocab is {value}, must be 1 to {limit}"),
    "MODEL_CONTEXT":  (37, "image's context is {value}, must be 1 to {limit}"),
    "BLOCKS":         (38, "image states {value} blocks of a vector, its dimensions give {limit}"),
    "ROPE_BYTES":     (39, "RoPE table of the image has {value} bytes, its dimensions give {limit}"),
    "STREAM":         (40, "weight stream has the wrong matrix header at byte {value}: word {limit} of it differs"),
    "STREAM_BYTES":   (41, "weight stream has {value} bytes, its matrices give {limit}"),
    "LAYERS_BYTES":   (42, "image states layers of {value} bytes, its matrices give {limit}"),
    "PIECE_BYTES":    (44, "image states a piece of {value} bytes of the weight stream, its matrices give {limit}"),
    "EMBEDDING":      (43, "image states its embedding at byte {value}, it is at {limit} or has another type or shape"),
    "LAYERS":         (45, "{value} layers were asked for, must be 1 to {limit}, with candidates all of them"),
    "SCAN_FROM":      (46, "scan counts from place {value}, must be 0 (main_ram) to {limit} (the image)"),
    "SCAN_ALIGN":     (47, "scan begins or ends at byte {value:#x} of main_ram, must be a multiple of {limit}"),
    "SCAN_OFFSET":    (48, "scan begins at byte {value:#x} of main_ram, which has {limit:#x}"),
    "SCAN_BYTES":     (49, "scan of {value} bytes, must be 32 to {limit} from there on"),
    "FILL_OFFSET":    (66, "fill begins at byte {value:#x} of main_ram, must be behind the image, {limit:#x} or more, and inside"),
    "FILL_BYTES":     (67, "fill of {value} bytes, must be 32 to {limit} from there on"),
    "FILL_ALIGN":     (68, "fill begins or ends at byte {value:#x} of main_ram, must be a multiple of {limit}"),
    "PATTERN":        (69, "pattern {value} is unknown, the last one is {limit}"),
    "MAX_DIM":        (50, "model's dim (padded) is {value}, this core is built for at most {limit}"),
    "MAX_HIDDEN":     (51, "model's hidden (padded) is {value}, this core is built for at most {limit}"),
    "MAX_HEADS_DIM":  (52, "model's heads*head_dim is {value}, this core is built for at most {limit}"),
    "MAX_HEAD_DIM":   (53, "model's head_dim (padded) is {value}, this core is built for at most {limit}"),
    "KV_BYTES":       (54, "model needs {value} bytes of DRAM for the keys and values of 32 positions, there are {limit} left"),
    "CORE_STREAM":    (60, "the core's weight stream is out of step at position {value}: error {limit}"),
    "CORE_DIMENSION": (61, "the core refused the model's dimensions at position {value}: error {limit}"),
    "CORE_TIMEOUT":   (62, "the core did not finish position {value} within {limit} thousand cycles"),
    "CORE_TOPK":      (63, "the core returned {value} candidates, {limit} were expected"),
    "SCAN_TIMEOUT":   (65, "the core did not read {value} bytes within {limit} thousand cycles"),
    "MEMORY":         (64, "the plain C decoder needs {value} bytes of DRAM behind the image, there are {limit}"),
    "INV_DIM":        (74, "image's inv_dim has the bits {value:#010x}, its dim gives {limit:#010x}"),
    "EPS":            (75, "image's eps has the bits {value:#010x}, must be above 0 and below 1, {limit:#010x}, and twice the same"),
    "SCORE_SCALE":    (76, "image's score_scale has the bits {value:#010x}, must be a normal number above 0 and below 2, {limit:#010x}"),
    "ROPE_BASE":      (77, "image's rope_base has the bits {value:#010x}, must be a normal number above 0 and below infinity, {limit:#010x}"),
    "SPECIAL":        (78, "image's bos or eos is {value}, must be below the vocabulary of {limit}, or 0xffffffff for none"),
    "ABORTED":        (79, "request {value} was aborted"),
    "RECALL":         (80, "token {value} of the last answer was asked for, {limit} are kept"),
    "MIN_P":          (70, "min-p is {value}/65536, must be 0 to {limit}/65536"),
    "REPEAT_PENALTY": (71, "repeat penalty is {value}/65536, must be 65536/65536 to {limit}/65536"),
    "REPEAT_LAST_N":  (72, "repeat-last-n is {value}, must be 0 to {limit}"),
    "N_RECENT":       (73, "request has {value} recent tokens, may have {limit}"),
}


def error_text(number, value, limit):
    """One line for error `number` with its value and limit."""
    for _, (n, text) in ERRORS.items():
        if n == number:
            return text.format(value=value, limit=limit)
    return f"error {number} (value {value}, limit {limit})"

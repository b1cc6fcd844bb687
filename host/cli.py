# SPDX-License-Identifier: BSD-2-Clause
"""The command line `litellama`: text on stdout, statistics on stderr, errors in one line with exit status 1 (2 for wrong
usage)."""

import contextlib
import os
import secrets
import signal
import sys
import threading
import traceback

from ..accel import image
from ..accel.config import check
from ..firmware.constants import REPEAT_LAST_MAX
from . import console
from .console import Parser, note, write
from .devices import open_device
from .devices.base import MAX_TOKENS
from .fetch import SOURCES, fetch_again
from .importers import load_model, resolve
from .progress import Progress
from .protocol import BAUDRATE
from .quantise import TYPES
from .sampler import SamplerParams
from .session import Session
from .stoptext import StopText

DEFAULT_TOKENS  = 256
SELFTEST_BYTES  = 1 << 18   # Seconds in simulation.
SELFTEST_TOKENS = 8


def parser():
    """The argument parser; `call` of what it gives is the sub-command's function."""
    p   = Parser(prog="litellama", description="Chat with a Llama-family model on a LiteX core.")
    sub = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = sub.add_parser("run", help="print the continuation of a prompt")
    run.add_argument("prompt", metavar="PROMPT", help="text to continue; empty: start from nothing")
    run.add_argument("--chat", action="store_true", help="wrap the prompt in the model's chat template")
    run.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    chat = sub.add_parser("chat", help="talk with the model")
    for s in (run, chat):
        _model_options(s, "sim")
        s.add_argument("--tokens", type=int, metavar="N", default=DEFAULT_TOKENS,
            help="at most N tokens an answer (default %(default)s)")
        s.add_argument("--temperature", type=float, metavar="T", default=0.0,
            help="0: always the likeliest token (default); about 0.8: varied text")
        s.add_argument("--top-k", type=int, metavar="K", default=0,
            help="choose among the K likeliest tokens, 1 to 64 (default, and 0: 64)")
        s.add_argument("--top-p", type=float, metavar="P", default=1.0,
            help="choose among the likeliest tokens that make up P, 0 (the likeliest alone) to 1 (default 1)")
        s.add_argument("--min-p", type=float, metavar="P", default=0.0,
            help="drop tokens less likely than P times the likeliest one, 0 to 1 (default 0)")
        s.add_argument("--repeat-penalty", type=float, metavar="R", default=1.0,
            help="make tokens that were said before less likely, 1 to 10 (default 1: off; about 1.1 is usual)")
        s.add_argument("--repeat-last-n", type=int, metavar="N", default=REPEAT_LAST_MAX,
            help="... those among the last N, 0 to %(default)s (default %(default)s)")
        s.add_argument("--stop", action="append", metavar="TEXT", default=[],
            help="end the answer before TEXT, taken literally; may be repeated")
        s.add_argument("--context-shift", action="store_true",
            help="when the context is full, drop the oldest turns of the conversation, keeping the system prompt")
        s.add_argument("--seed", type=int, metavar="S", help="same seed, same text (default: a new one each time)")
    convert = sub.add_parser("convert", help="write a model image from a GGUF file, Hugging Face folder or "
        "llama2.c checkpoint")
    convert.add_argument("source", metavar="SOURCE", help="model name, file or folder")
    _tokenizer_option(convert)
    convert.add_argument("--type", choices=(*TYPES, "keep"), default="keep",
        help="type of all matrices; keep (default): quantised ones as they are, floats become q8_0")
    convert.add_argument("--head-type", choices=(*TYPES, "keep"),
        help="type of the classifier alone (default: --type); the embedding then keeps its own, a token reads one row of it")
    convert.add_argument("-o", dest="output", metavar="IMAGE", required=True, help="file to write")
    boot = sub.add_parser("boot-files", help="files from which LiteX's BIOS boots model and firmware: SD card, TFTP server")
    boot.add_argument("source", metavar="SOURCE", help="model name, file or folder")
    _tokenizer_option(boot)
    boot.add_argument("--build", metavar="DIR", required=True, help="output folder of `litellama build`")
    boot.add_argument("-o", dest="output", metavar="DIR", required=True, help="folder to write them to")
    fetch = sub.add_parser("fetch", help="download a known model, once")
    fetch.add_argument("name", metavar="NAME", choices=SOURCES, help=", ".join(f"{s.name}: {s.about}" for s in SOURCES.values()))
    inspect = sub.add_parser("inspect", help="describe a model image (or model file)")
    inspect.add_argument("source", metavar="IMAGE")
    _tokenizer_option(inspect)
    score = sub.add_parser("score", help="log-probability and perplexity of a text")
    score.add_argument("textfile", metavar="TEXTFILE", help="UTF-8 text; -: standard input")
    _model_options(score, "reference", "reference or float")
    score.add_argument("--json", action="store_true", help="print one JSON object")
    selftest = sub.add_parser("selftest", help="test the hardware: memory, weights in it, arithmetic, counters")
    _model_options(selftest, "sim", "sim, or what pyserial opens (/dev/ttyUSB1, socket://HOST:PORT)")
    selftest.add_argument("--bytes", metavar="N", default=str(SELFTEST_BYTES),
        help="DRAM behind the model to test, or all (default %(default)s)")
    selftest.add_argument("--tokens", type=int, metavar="N", default=SELFTEST_TOKENS,
        help="tokens to compare with the twin's (default %(default)s)")
    selftest.add_argument("--json", action="store_true", help="print one JSON object")
    for s, call in ((run, _run), (chat, _chat), (convert, _convert), (boot, _boot_files), (fetch, _fetch), (inspect, _inspect),
            (score, _score), (selftest, _selftest)):
        s.set_defaults(call=call)
    sub.add_parser("doctor", help="what is needed, what was found, how to install the rest", add_help=False)
    sub.add_parser("bench", help="measure", add_help=False)
    sub.add_parser("build", help="bitstream and firmware for a board", add_help=False)
    return p


def _model_options(p, device, devices="sim, reference, float, or what pyserial opens (/dev/ttyUSB1, socket://HOST:PORT)"):
    p.add_argument("--model", metavar="NAME|FILE", default="default",
        help=f"default, {', '.join(SOURCES)} (downloaded on first use), or an image, GGUF file, Hugging Face folder or llama2.c "
        "checkpoint")
    _tokenizer_option(p)
    p.add_argument("--device", metavar="DEV", default=device, help=f"{devices} (default {device})")
    if device == "sim":
        p.add_argument("--baudrate", metavar="N", type=int, help=f"of a serial line, as the board was built for (default {BAUDRATE})")


def _tokenizer_option(p):
    p.add_argument("--tokenizer", metavar="FILE", help="tokenizer.bin of a llama2.c checkpoint (default: the one beside it)")


def open_model(name, tokenizer=None, type=None, head=None):
    """Model of a `--model` argument; what was changed on import goes to stderr."""
    model, notes = load_model(resolve(name, type, head), tokenizer, type, head)
    for text in notes:
        note(text if text.startswith("warning: ") else f"note: {text}")
    return model


def sampling(args):
    """SamplerParams of the arguments; ValueError names what is out of range, of --tokens and --stop too."""
    check(1 <= args.tokens <= MAX_TOKENS, f"--tokens is {args.tokens}, must be 1 to {MAX_TOKENS}")
    StopText([console.utf8(text, "--stop") for text in args.stop])   # Refuses wrong ones before anything is loaded.
    seed = secrets.randbits(32) if args.seed is None else args.seed
    return SamplerParams(args.temperature, args.top_k, args.top_p, seed, args.min_p, args.repeat_penalty, args.repeat_last_n)


def statistics(reply, params):
    """The line about a Reply that goes to stderr."""
    t     = reply.timings
    parts = [f"{t.prompt_tokens} prompt tokens in {t.prompt_seconds:{'.2f' if t.prompt_seconds >= 1 else '.2g'}} s",
        f"{len(reply.token_ids)} tokens"]
    if reply.token_ids:
        parts.append(f"{t.tokens_per_second:.1f} tokens/s")
    if t.decode_cycles_per_token is not None:
        parts += [f"{t.decode_cycles_per_token:.0f} cycles/token", f"{reply.wall_seconds:.1f} s here"]
    if t.mbu is not None:
        parts.append(f"{100*t.mbu:.0f} % of DRAM bandwidth")
    if params.temperature:
        parts.append(f"seed {params.seed}")
    return f"[{', '.join(parts)}, {reply.finish_reason}]"


@contextlib.contextmanager
def open_session(args):
    """Session of --model and --device; the device is closed at the end."""
    with open_device(args.device, args.baudrate) as device:   # First: it is refused at once, a model may be a long download.
        yield Session(device, open_model(args.model, args.tokenizer), on_load=Progress("model bytes sent"))


def answer(session, args, params, text, chat, speak=write):
    """Reply of `session` to `text`, a turn of chat or a text to continue, with the options in `args`; speak(text), or None,
    gets it as it comes. What there is to say about it goes to stderr."""
    progress = Progress("prompt token", args.tokens)
    options  = dict(on_text=speak and progress.before(speak), on_progress=progress, stop=args.stop)
    try:
        if chat:
            reply = session.ask(text, params, args.tokens, shift=args.context_shift, **options)
        else:
            reply = session.complete(text, params, args.tokens, **options)
    finally:
        progress.wipe()
    if speak:
        speak("\n")
    if n := reply.turns_dropped:
        note(f"note: the context was full, the oldest {n} turns were dropped" if n > 1 else
            "note: the context was full, the oldest turn was dropped")
    if speak:
        note(statistics(reply, params))
    return reply


def _run(args):
    """Sub-command run."""
    params = sampling(args)
    console.utf8(args.prompt, "the prompt")
    if args.context_shift and not args.chat:
        raise ValueError("--context-shift is for conversations, it needs --chat")
    with open_session(args) as session:
        reply = answer(session, args, params, args.prompt, args.chat, None if args.json else write)
    if args.json:
        report = dict(text=reply.text, token_ids=reply.token_ids, prompt_token_ids=reply.prompt_token_ids,
            finish_reason=reply.finish_reason, model=args.model, device=args.device, timings=reply.timings.as_dict())
        console.say_json(report)
    return 130 if reply.finish_reason == "abort" else 0


def _chat(args):
    """Sub-command chat."""
    from .chat import repl
    params = sampling(args)
    with open_session(args) as session:
        return repl(session, lambda line: answer(session, args, params, line, True))


def _convert(args):
    """Sub-command convert."""
    data = image.write_image(open_model(args.source, args.tokenizer, args.type, args.head_type))
    temporary = f"{args.output}.{os.getpid()}.part"   # A half-written image never has the image's name.
    try:
        with open(temporary, "wb") as f:
            f.write(data)
        os.replace(temporary, args.output)
    except OSError as e:
        e.filename = args.output
        raise
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
    note(f"{args.output}: {len(data)} bytes")


def _boot_files(args):
    """Sub-command boot-files."""
    from .boot_files import write_boot_files
    model = open_model(args.source, args.tokenizer)
    for path in write_boot_files(image.write_image(model), model.config, args.build, args.output):
        note(f"{path}: {path.stat().st_size} bytes")


def _fetch(args):
    """Sub-command fetch."""
    note(f"{args.name}: {fetch_again(args.name, note)}")


def _inspect(args):
    """Sub-command inspect."""
    from .inspect_image import describe
    for text in describe(resolve(args.source), args.tokenizer):
        console.say(text)


def _score(args):
    """Sub-command score."""
    from .score import score_text
    if args.textfile == "-":
        data = console.read_bytes()
    else:
        with open(args.textfile, "rb") as f:
            data = f.read()
    s = score_text(open_model(args.model, args.tokenizer), data.decode("utf-8"), args.device)
    if args.json:
        console.say_json(dict(tokens=len(s.token_ids), nll=s.nll, perplexity=s.perplexity, token_ids=s.token_ids,
            logprobs=[round(float(p), 6) for p in s.logprobs], model=args.model, device=args.device))
    else:
        for text in (f"tokens {len(s.token_ids)}", f"nll {s.nll:.4f}", f"perplexity {s.perplexity:.4f}"):
            console.say(text)


def _selftest(args):
    """Sub-command selftest."""
    from .selftest import report, selftest
    check(args.bytes == "all" or args.bytes.isdecimal(), f"--bytes is {args.bytes!r}, must be a number or all")
    n_bytes = None if args.bytes == "all" else int(args.bytes)
    with open_device(args.device, args.baudrate) as device:
        model = open_model(args.model, args.tokenizer)
        return report(selftest(device, model, n_bytes, args.tokens, Progress("model bytes sent")), args.json)


def _forward(name, argv):
    """doctor, bench and build parse their own arguments."""
    try:
        if name == "doctor":
            from .doctor import main as doctor
            return doctor(argv, console.say, Parser)
        if name == "bench":
            from .bench import main as command
        else:
            from ..soc.build import main as command
    except ModuleNotFoundError as e:
        raise ValueError(f"{name} cannot be used: no module {e.name}") from None
    return command(argv)


@contextlib.contextmanager
def _ended_by_signals():
    """While inside, SIGTERM and a closed terminal end the program as an error does: what it began is tidied up."""
    def end(number, frame):
        sys.exit(128 + number)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]   # (Not under nohup.)
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _command(argv):
    """Do what the arguments ask for; the exit status."""
    if argv[:1] in (["doctor"], ["bench"], ["build"]):
        return _forward(argv[0], argv[1:])
    args = parser().parse_args(argv)
    return args.call(args)


def main(argv=None):
    """Run the command line; returns the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    console.open_streams()
    try:
        with _ended_by_signals():
            try:
                return _command(argv) or 0
            finally:
                console.finish()
    except BrokenPipeError:   # The reader of our output left: say nothing more.
        pass
    except KeyboardInterrupt:
        console.tell("\n")
        return 130
    except UnicodeDecodeError as e:
        note(f"litellama: the text is not UTF-8: byte {e.start}")
    except OSError as e:
        note(f"litellama: {e.filename + ': ' if isinstance(e.filename, str) else ''}{e.strerror or e}")
    except (ValueError, ImportError) as e:
        note(f"litellama: {' '.join(str(e).split())}")
    except MemoryError:
        note("litellama: there is not enough memory for this")
    except Exception as e:   # Ours to mend: one line, with the place.
        at = traceback.extract_tb(e.__traceback__)[-1]
        note(f"litellama: a fault of this program: {type(e).__name__}: {' '.join(str(e).split())} ({at.filename}:{at.lineno})")
    return 1

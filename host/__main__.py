# SPDX-License-Identifier: BSD-2-Clause
"""Where the command line starts, as `litellama` and as `python -m litellama.host`: Ctrl-C is taken care of before the imports, which take
most of a short command's time, and after the last word."""

import signal
import sys


def main():
    """Run the command line; returns the exit status. Ctrl-C before or after it ends the program as it does those without a handler."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler   # (Else it was ignored when we were started.)
    try:
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        from .cli import main as command
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command()
    except KeyboardInterrupt:   # Between two lines of ours.
        return 130
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())

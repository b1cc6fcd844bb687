# SPDX-License-Identifier: BSD-2-Clause
"""The SoC of a board: litex-boards' BaseSoC as it is, with the DRAM's timings and the UART that we ask for, and the core."""

from importlib import import_module
import inspect
from pathlib import Path
import pkgutil
import sys
import traceback

from litedram.core import refresher
from migen import ClockDomain, If, Instance, Module, Signal, bits_for
from migen.genlib.resetsync import AsyncResetSynchronizer

from ..accel.config import check
from .integration import add_llama
from .memory import suited_config

REQUIRED = inspect.Parameter.empty
FAMILIES = {"lfe5u": "ecp5", "ice40": "ice40", "lifcl": "nexus", "xc6": "spartan6", "xc7": "7series", "xcku": "ultrascale"}


def load_target(board):
    """(BaseSoC, Platform) of a Board; ValueError if litex-boards has no such target."""
    import litex_boards.targets
    name = board.name
    if name not in {info.name for info in pkgutil.iter_modules(litex_boards.targets.__path__)}:
        raise ValueError(f"litex-boards has no target {name}")
    target = import_module(board.target)
    check(hasattr(target, "BaseSoC"), f"{board.target} has no BaseSoC")
    platforms = [thing for thing in vars(target).values() if inspect.ismodule(thing) and hasattr(thing, "Platform")]
    platforms.sort(key=lambda module: module.__name__.rpartition(".")[2] != name)
    check(platforms, f"{board.target} has no platform")
    return target.BaseSoC, _with_family(platforms[0].Platform)


def _with_family(platform):
    """Platform with the device family that LiteX's parser asks for, which some do not state: from the part that they take by default."""
    if platform.device_family is None:
        from litex.build.lattice.platform import LatticePlatform
        from litex.build.xilinx.platform import XilinxPlatform
        if issubclass(platform, (LatticePlatform, XilinxPlatform)):
            part     = platform().device.lower()
            families = [family for start, family in FAMILIES.items() if part.startswith(start)]
            check(families, f"{platform.__module__} states no device family, and that of {part} is not known here")
            return type("Platform", (platform,), dict(device_family=families[0]))
    return platform


def target_options(base):
    """Keywords that BaseSoC itself takes, with their defaults (REQUIRED: none): name -> value. (The rest goes to SoCCore, which has its
    own options.)"""
    from litex.soc.integration.soc_core import SoCCore
    litex = set(inspect.signature(SoCCore.__init__).parameters) | {"toolchain", "l2_size"}
    return {name: p.default for name, p in inspect.signature(base.__init__).parameters.items()
        if p.kind is p.POSITIONAL_OR_KEYWORD and name not in litex}


def at_speedgrade(module, grade):
    """LiteDRAM's `module` with the timings of speed grade `grade` (None: as it is).

    LiteDRAM gives a module its fastest grade, and tRFC in DRAM clocks of that grade: at a slow clock the same number of clocks
    takes much longer than the chip needs. A grade not below the real data rate is right, and 3 to 6 % faster.
    """
    if grade is None:
        return module
    grades = [name for name in getattr(module, "speedgrade_timings", {}) if name != "default"]
    check(grade in grades, f"speedgrade is {grade!r}, {type(module).__name__} has {', '.join(grades) or 'none'}")
    rate = 2*module.rate_frac.denom*module.clk_freq/1e6
    check(rate <= int(grade), f"speedgrade is {grade}, must be at least the DRAM's {rate:.0f} MT/s")
    return type(module)(module.clk_freq, module.rate, speedgrade=grade)


class RegisteredRefreshTimer(Module):
    """LiteDRAM's RefreshTimer, clock by clock, with `done` out of a register.

    LiteDRAM compares its count with zero in front of the state machine that stops the bank machines, whose `ready` is long anyway: the
    27 bits of the second between two ZQ calibrations were the beginning of the longest path of every board."""

    def __init__(self, trefi):
        self.wait  = Signal()
        self.done  = Signal()
        self.count = count = Signal(bits_for(trefi), reset=trefi - 1)
        self.sync += [
            If(self.wait & ~self.done, count.eq(count - 1)).Else(count.eq(count.reset)),
            self.done.eq(self.wait & (count == 1)),
        ]


def board_class(base, uart_name=None, uart_pins=None, speedgrade=None, controller={}):
    """Subclass of a target's BaseSoC, with RegisteredRefreshTimer.

    uart_name: of the console, whatever the target makes of it (some take no other than their own). uart_pins: (tx, rx, IO standard)
    of a `serial` that the platform does not have. speedgrade: of the DRAM's timings. controller: fields of LiteDRAM's ControllerSettings.
    """
    class BoardSoC(base):
        """A target's BaseSoC with its console and its DRAM's timings as we want them."""

        def add_uart(self, *args, **kwargs):
            """SoC's, with our uart_name."""
            from litex.build.generic_platform import IOStandard, Pins, Subsignal
            bound = inspect.signature(super().add_uart).bind(*args, **kwargs)
            if uart_name:
                bound.arguments["uart_name"] = uart_name
            if uart_pins and bound.arguments.get("uart_name", "serial") == "serial":
                tx, rx, standard = uart_pins
                self.platform.add_extension([("serial", 0, Subsignal("tx", Pins(tx)), Subsignal("rx", Pins(rx)), IOStandard(standard))])
            super().add_uart(*bound.args, **bound.kwargs)

        def add_sdram(self, *args, **kwargs):
            """SoC's, with the module at our speedgrade."""
            bound = inspect.signature(super().add_sdram).bind(*args, **kwargs)
            bound.arguments["module"] = at_speedgrade(bound.arguments["module"], speedgrade)
            if controller:
                from litedram.core.controller import ControllerSettings
                bound.arguments.setdefault("kwargs", {})["controller_settings"] = ControllerSettings(**controller)
            timer = refresher.RefreshTimer
            refresher.RefreshTimer = RegisteredRefreshTimer
            try:
                super().add_sdram(*bound.args, **bound.kwargs)
            finally:
                refresher.RefreshTimer = timer
    BoardSoC.__name__ = base.__name__
    return BoardSoC


def reset_on_global_wire(soc):
    """Put the reset of an ECP5's system clock domain on a wire of the clock network, which reaches the resets of flip-flops, too.

    nextpnr does that for clocks only. In the fabric it has some 3,000 ends, and each time that `router1` gives up a wire near its
    beginning, all that hang on it are to be routed again.
    """
    domain = soc.crg.cd_sys
    for module in (soc.crg, *(module for _, module in soc.crg._submodules)):
        for special in module._fragment.specials:
            if isinstance(special, AsyncResetSynchronizer) and special.cd is domain:
                source     = ClockDomain("reset_source")   # (Not a domain of the design: it carries the synchroniser's two signals.)
                source.clk = domain.clk
                special.cd = source
                soc.specials += Instance("DCCA", i_CLKI=source.rst, i_CE=1, o_CLKO=domain.rst)
                return


def build_soc(board, base, arguments, core={}, debug=True, speedgrade=None, controller={}, with_core=True, extras=()):
    """SoC of `board` with the core attached.

    arguments: keywords for BaseSoC. core: fields of CoreConfig over what suits the DRAM. debug: whether the core has its debug window.
    speedgrade: of the DRAM's timings. controller: fields of LiteDRAM's ControllerSettings. extras: `add_` methods of the SoC to call
    before (sdcard, spi_sdcard).
    """
    # The console of a target that we do not know is its own, unless another is asked for.
    uart_name = None if board.generic and arguments.get("uart_name") == "serial" else arguments.get("uart_name")
    stderr    = sys.stderr
    try:
        soc = board_class(base, uart_name, board.uart_pins, speedgrade, controller)(**arguments)
        for name in extras:
            getattr(soc, f"add_{name}")()
        if board.attach:
            board.attach(soc)
    except ValueError:
        raise
    except Exception as error:   # Targets, platforms and LiteX refuse what they are asked for in many ways.
        sys.stderr = stderr      # LiteX's SoCError takes it away, so that no traceback is shown.
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        raise ValueError(f"{board.target} refuses its options: {str(error) or where.line} ({place})") from error
    check(hasattr(soc, "sdram"), f"{board.target} has no SDRAM as it is configured, the core needs one")
    if with_core:
        config = suited_config(soc.sdram.controller.settings.phy, **core)
        add_llama(soc, config, debug=debug)
    return soc

# SPDX-License-Identifier: BSD-2-Clause
"""LiteX's Builder for a board: the C library from our cache, and the firmware besides the BIOS."""

import json
from pathlib import Path

from litex.soc.integration.builder import Builder

from .sim import ROOT, link_libc, make_firmware


class BoardBuilder(Builder):
    """LiteX's Builder. firmware: path of fw.bin in the output folder once it was built."""

    firmware   = None
    small_bios = False   # soc/bios instead of LiteX's.

    def _generate_rom_software(self, compile_bios=True):
        """LiteX's, without compiling picolibc (430 MB) once more for each board."""
        if self.compile_software:
            shared = link_libc(Path(self.software_dir))
            self.software_packages = [(name, str(ROOT/"bios") if name == "bios" and self.small_bios else source)
                for name, source in self.software_packages if name not in shared]
        super()._generate_rom_software(compile_bios)

    def build_firmware(self):
        """Compile the firmware for this SoC, and write boot.json: what LiteX's BIOS loads, and where to, from a serial line, an SD
        card or the network."""
        folder = Path(self.output_dir)/"firmware"
        folder.mkdir(exist_ok=True)
        if not hasattr(self.soc, "llama"):
            return
        make_firmware(folder, self.output_dir, ROOT.parent/"firmware", "fw.bin")
        self.firmware = folder/"fw.bin"
        main_ram      = self.soc.bus.regions["main_ram"].origin
        (folder/"boot.json").write_text(json.dumps({"fw.bin": f"{main_ram:#x}"}) + "\n")

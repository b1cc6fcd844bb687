# SPDX-License-Identifier: BSD-2-Clause
"""DRAM PHY model for fast simulation: the timing of LiteDRAM's SDRAMPHYModel, the contents outside of the design."""

from migen import *

from litex.gen import LiteXModule

from litedram.phy.dfi import Interface


class LinearDRAMPHY(LiteXModule):
    """Turns DFI commands into reads and writes of one linear memory of native-port words.

    LiteDRAM's own model keeps a memory per bank in the design, with an asynchronous read port each and shift registers
    as wide as the data. Verilator spends a third of its time there, and contents can only be compiled in. Here the design
    keeps the open rows and delays of single bits; whoever simulates keeps the words, indexed as a native port addresses
    them, so that a file is loaded as it is. Cycle by cycle, data and valid equal those of SDRAMPHYModel for everything
    that LiteDRAM's controller issues (tests/test_soc.py). Timing violations are not reported: that is SDRAMPHYModel's job.

    module:     litedram.modules class instance (geometry). settings: PhySettings.
    bank_shift: position of the bank bits in a native port's address if the controller aligns banks to more than a row's
                columns (ControllerSettings.bank_byte_alignment), None for the default ROW_BANK_COL.

    memory (Record), to be connected to the words:
    - re, radr: read. `rdata` must show the word settings.read_latency cycles later, as it was before this cycle's write.
    - we, wadr, wdata, wmask: write at the end of this cycle the bytes whose mask bit is 0.
    """
    def __init__(self, module, settings, bank_shift=None):
        geom          = module.geom_settings
        data_width    = settings.dfi_databits*settings.nphases
        align         = log2_int(data_width//settings.databits)  # Columns of a native word, as a power of 2.
        col_width     = geom.colbits - align
        bank_shift    = bank_shift or col_width
        address_width = geom.rowbits + geom.bankbits + col_width
        assert bank_shift >= col_width and settings.nranks == 1

        self.settings = settings
        self.module   = module
        self.dfi      = dfi = Interface(geom.addressbits, geom.bankbits, settings.nranks, settings.dfi_databits,
            settings.nphases)
        self.memory   = memory = Record([
            ("re", 1), ("radr", address_width), ("rdata", data_width),
            ("we", 1), ("wadr", address_width), ("wdata", data_width), ("wmask", data_width//8),
        ])

        # # #

        # Commands: at most one column command per cycle, on whichever phase.
        rows   = Array(Signal(geom.rowbits, name=f"row{i}") for i in range(2**geom.bankbits))
        write  = Signal()
        bank   = Signal(geom.bankbits)
        column = Signal(geom.addressbits)
        for phase in dfi.phases:
            row_command, column_command = Signal(), Signal()
            self.comb += [
                row_command.eq(   ~phase.cs_n & ~phase.ras_n &  phase.cas_n & phase.we_n),
                column_command.eq(~phase.cs_n &  phase.ras_n & ~phase.cas_n),
                If(column_command,
                    memory.re.eq(phase.we_n),
                    write.eq(~phase.we_n),
                    bank.eq(phase.bank),
                    column.eq(phase.address),
                )
            ]
            self.sync += If(row_command, rows[phase.bank].eq(phase.address))

        # Address: bit 10 of a column command is no column but the auto-precharge flag.
        row     = Signal(geom.rowbits)
        address = Signal(address_width)
        row_low = bank_shift - col_width
        column  = column[align:geom.colbits] if geom.colbits <= 10 else Cat(column[align:10], column[11:geom.colbits + 1])
        self.comb += [
            row.eq(rows[bank]),
            address.eq(Cat(column, *([row[:row_low]] if row_low else []), bank, row[row_low:])),
            memory.radr.eq(address),
        ]

        # Write: the controller gives the data write_latency cycles after the command.
        for _ in range(settings.write_latency):
            write_d, address_d = Signal(), Signal(address_width)
            self.sync += [write_d.eq(write), address_d.eq(address)]
            write, address = write_d, address_d
        self.comb += [
            memory.we.eq(write),
            memory.wadr.eq(address),
            memory.wdata.eq(Cat(*[phase.wrdata      for phase in dfi.phases])),
            memory.wmask.eq(Cat(*[phase.wrdata_mask for phase in dfi.phases])),
        ]

        # Read: only the valid bit is delayed here.
        valid = Signal(settings.read_latency)
        self.sync += valid.eq(Cat(memory.re, valid))
        self.comb += [phase.rddata_valid.eq(valid[-1]) for phase in dfi.phases]
        self.comb += Cat(*[phase.rddata for phase in dfi.phases]).eq(memory.rdata)

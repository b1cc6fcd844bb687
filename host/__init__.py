# SPDX-License-Identifier: BSD-2-Clause
"""LiteLlama's host side: model importers, tokenizers, chat sessions, devices and the command line."""

"""A PNG that carries what it shows as text, so that a test can hold the picture to be current."""

from __future__ import annotations

import re
import struct
import zlib

_KEY = b"Description\0\0\0\0\0"
"""Of an iTXt chunk: keyword, not compressed, no language."""


def described(picture: bytes, text: str) -> bytes:
    """A PNG that carries a text behind its header."""
    content = b"iTXt" + _KEY + text.encode()
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:33] + chunk + picture[33:]


def description(picture: bytes) -> str:
    """The text that such a PNG carries; empty where there is none."""
    found = re.search(re.escape(b"iTXt" + _KEY), picture)
    if found is None:
        return ""
    (length,) = struct.unpack(">I", picture[found.start() - 4 : found.start()])
    return picture[found.end() : found.start() + 4 + length].decode()

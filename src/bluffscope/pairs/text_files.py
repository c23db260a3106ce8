"""Text files as lines or as a whole, unpacked where they are compressed; whatever they hold, memory stays bounded."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Final, cast

from bluffscope.errors import InputError
from bluffscope.pairs.record import shown

MAX_WHOLE_BYTES: Final = 200 * 1000**2
"""Of a JSON list, whose text is held: up to four times as much in memory."""
MAX_LINE_BYTES: Final = 16 * 1024**2
"""Of a line: longer than any model's context by far, and parsed it stays below half a GB."""
COMPRESSED: Final = (".gz", ".zst")
MOST_UNPACKED: Final = 64 * 1024**2
"""Bytes that a small compressed file may unpack to."""
TIMES: Final = 32
"""Times its size that a larger one may; texts shrink to a third or a tenth, zeros to a thousandth."""
_CHUNK: Final = 1024**2
BOM: Final = "\ufeff"


def bare(path: PurePath) -> PurePath:
    """The path without the suffix of a compressed file."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSED else path


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked.

    Raises:
        InputError: while it is read, if it is damaged or unpacks to more than its size justifies.
    """
    plain = path.open("rb")
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED:
        return plain
    if suffix == ".gz":
        inner: Any = gzip.GzipFile(fileobj=plain)
    else:
        import pyarrow as pa  # it unpacks zstd, which Python's own library does not before 3.14

        inner = pa.CompressedInputStream(pa.PythonFile(plain, "rb"), "zstd")
    return cast("BinaryIO", io.BufferedReader(_Unpacked(inner, plain, path), _CHUNK))


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a compressed file, as many as its size justifies."""

    def __init__(self, inner: Any, plain: BinaryIO, path: Path) -> None:
        super().__init__()
        self._inner, self._plain, self._name = inner, plain, shown(path)
        self._most = self._left = max(MOST_UNPACKED, TIMES * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data: bytes = self._inner.read(min(len(buffer), _CHUNK))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            reason = " ".join(str(error).split())[:100]
            raise InputError(f"{self._name}: cannot be unpacked ({reason}); compress the file again") from error
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"{self._name}: unpacks to more than {self._most:,} bytes; unpack the file first")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._plain.close()
        super().close()


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends, no byte-order mark, none longer than `MAX_LINE_BYTES`."""
    name = shown(path)
    offset = 0
    with open_bytes(path) as file:
        number = 0
        while raw := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(raw) > MAX_LINE_BYTES:
                raise InputError(
                    f"{name}: line {number}: longer than {MAX_LINE_BYTES // 1024**2} MiB; give one pair a line"
                )
            if b"\0" in raw:
                raise _nul(name, number)
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(name, number, offset + error.start) from error
            offset += len(raw)
            yield line.removeprefix(BOM) if number == 1 else line


def whole_text(path: Path) -> str:
    """The text of a UTF-8 file of at most `MAX_WHOLE_BYTES`, without its byte-order mark."""
    name = shown(path)
    with open_bytes(path) as file:
        data = file.read(MAX_WHOLE_BYTES + 1)
    if len(data) > MAX_WHOLE_BYTES:
        raise InputError(
            f"{name}: too large for JSON that is read whole (at most {MAX_WHOLE_BYTES / 1e6:.0f} MB); "
            "give it as JSONL, one object a line"
        )
    if (zero := data.find(b"\0")) >= 0:
        raise _nul(name, data.count(b"\n", 0, zero) + 1)
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        raise _not_utf8(name, data.count(b"\n", 0, error.start) + 1, error.start) from error
    if not text.strip():
        raise InputError(f"{name}: the file is empty; give a list of objects")
    return text


def _not_utf8(name: str, line: int, offset: int) -> InputError:
    return InputError(f"{name}: line {line}, byte offset {offset}: not UTF-8 text; save the file as UTF-8")


def _nul(name: str, line: int) -> InputError:
    return InputError(f"{name}: line {line}: a NUL byte; save the file as UTF-8 text (it may be UTF-16 or binary)")

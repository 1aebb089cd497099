"""Text files, plain or packed, as blocks of whole lines in UTF-8.

A file is read once, in blocks; what it is packed with is seen from its first bytes. Its encoding is tried strictly: a
byte-order mark decides, else the first block that is not plain ASCII does. Bytes that are no text, in a file that is
text otherwise, are handed on as they are, so that one bad row does not end the file.
"""

from __future__ import annotations

import codecs
import sys
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from desireline.core.errors import SourceError
from desireline.core.progress import say

BLOCK = 1 << 24  # bytes of text in hand at once
READ = 1 << 20  # packed bytes read at once
LONGEST_LINE = 1 << 26  # bytes; a longer one is no log
BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class BrokenOffError(Exception):
    """A packed file ends, or turns to nonsense, before its end; what came before was good."""


def broken_off(path: Path, row: int, error: BrokenOffError) -> SourceError:
    """What to say of it, after `row` good rows."""
    return SourceError(
        f"{path} breaks off after row {row:,} ({error}); what came before is kept. Get the whole file and ingest it "
        "again: what is stored will not be stored twice."
    )


def line_blocks(path: Path, size: int = BLOCK) -> Iterator[bytes]:
    """A file's text as UTF-8, in blocks of whole lines, the last with or without a line end; no byte-order mark.

    Raises SourceError for a file that cannot be read, is no text or has an endless line; BrokenOffError after the last
    whole line before the break of a packed file.
    """
    pieces = _unpacked(path, size)
    first = next(pieces, b"")
    pieces = chain([first], pieces)
    mark = next((mark for mark in BOMS if first.startswith(mark)), b"")
    if BOMS.get(mark) == "utf-16":
        pieces = _from_utf16(pieces)
    decoder = _Decoder(path, "utf-8" if mark else None)
    turned = b"\n" not in first and b"\r" in first  # line ends of old Macs
    held = b""
    for place, piece in enumerate(pieces):
        piece = piece.removeprefix(codecs.BOM_UTF8) if place == 0 else piece
        held += piece.replace(b"\r", b"\n") if turned else piece
        end = held.rfind(b"\n") + 1
        if end:
            yield decoder.utf8(held[:end])
            held = held[end:]
        elif len(held) > LONGEST_LINE:
            raise SourceError(f"{path} holds a line of more than {LONGEST_LINE >> 20} MiB: it is no text table.")
    if held:
        yield decoder.utf8(held)


def _unpacked(path: Path, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(0)
            if head.startswith(b"\x1f\x8b"):
                yield from _gunzipped(file, size)
            elif head == b"\x28\xb5\x2f\xfd":
                yield from _unzstd(file, size)
            else:
                while piece := file.read(size):
                    yield piece
    except (zlib.error, zstd.ZstdError) as error:
        raise BrokenOffError(str(error)) from error
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


def _gunzipped(file: IO[bytes], size: int) -> Iterator[bytes]:
    unpacker, inside = zlib.decompressobj(31), False
    data = b""
    while data or (data := file.read(READ)):
        if not inside and not (data := data.lstrip(b"\0")):  # padding between or after members
            continue
        inside = True
        piece = unpacker.decompress(data, size)
        data = unpacker.unconsumed_tail
        if unpacker.eof:
            data, unpacker, inside = unpacker.unused_data, zlib.decompressobj(31), False
        if piece:
            yield piece
    if inside:
        if piece := unpacker.flush():
            yield piece
        raise BrokenOffError("the packed file is cut short")


def _unzstd(file: IO[bytes], size: int) -> Iterator[bytes]:
    unpacker, inside = zstd.ZstdDecompressor(), False
    data = b""
    while data or (inside and not unpacker.needs_input) or (data := file.read(READ)):
        piece = unpacker.decompress(data, size)
        data, inside = b"", True
        if unpacker.eof:
            data, unpacker, inside = unpacker.unused_data, zstd.ZstdDecompressor(), False
        if piece:
            yield piece
    if inside:
        raise BrokenOffError("the packed file is cut short")


def _from_utf16(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    for piece in pieces:
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", True).encode()


class _Decoder:
    """Turns a file's lines to UTF-8. `encoding` is None until something other than ASCII was seen."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.path, self.encoding = path, encoding

    def utf8(self, block: bytes) -> bytes:
        if block.isascii():
            return block
        if self.encoding is None:
            self.encoding = self._decided(block)
        if self.encoding == "utf-8":
            return block
        try:
            return block.decode(self.encoding).encode()
        except UnicodeDecodeError:
            lines = block.splitlines(keepends=True)
            return b"".join(line.decode(self.encoding).encode() if _is(line, "gb18030") else line for line in lines)

    def _decided(self, block: bytes) -> str:
        if _is(block, "utf-8"):
            return "utf-8"
        lines = [line for line in block.split(b"\n") if not line.isascii()]
        strange = sum(not _is(line, "utf-8") for line in lines)
        # much of what is UTF-8 can be read as GB18030 too, little of what is GB18030 as UTF-8
        if strange > len(lines) / 10 and all(_is(line, "gb18030") for line in lines):
            say(f"{self.path} is no UTF-8: read as GB18030.")
            return "gb18030"
        if strange > len(lines) / 2:
            raise SourceError(f"{self.path} is neither UTF-8, UTF-16 nor GBK/GB18030 text. Convert it to UTF-8.")
        return "utf-8"


def _is(text: bytes, encoding: str) -> bool:
    try:
        text.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True

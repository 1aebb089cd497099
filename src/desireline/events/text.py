"""Text files, plain or packed, as lines of Unicode: the encoding is tried strictly, never guessed past an error."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from desireline.core.errors import SourceError
from desireline.core.progress import say

PROBE = 1 << 20  # bytes read to decide an encoding
ENCODINGS = ("utf-8", "gb18030")  # gb18030 holds all of GBK


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file. Raises SourceError where it cannot be read or is damaged."""
    try:
        if path.name.lower().endswith(".gz"):
            with gzip.open(path, "rb") as file:
                yield cast(IO[bytes], file)
        elif path.name.lower().endswith(".zst"):
            with zstd.open(path, "rb") as file:
                yield cast(IO[bytes], file)
        else:
            with path.open("rb") as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, zstd.ZstdError) as error:
        raise SourceError(f"{path} is damaged ({error}). Get it again.") from error
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path} cannot be read: {error.strerror or error}.") from error


def encoding_of(path: Path) -> str:
    """The encoding of a text file: a byte-order mark decides, else the first that decodes its beginning strictly.

    Raises SourceError when none does.
    """
    with opened(path) as file:
        try:
            head = file.read(PROBE)
        except (EOFError, zlib.error):
            head = b""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    for encoding in ENCODINGS:
        try:
            io.TextIOWrapper(io.BytesIO(head), encoding).read() if len(head) < PROBE else _decode_most(head, encoding)
        except UnicodeDecodeError:
            continue
        if encoding != "utf-8":
            say(f"{path} is no UTF-8: read as {encoding.upper()}.")
        return encoding
    raise SourceError(f"{path} is neither UTF-8, UTF-16 nor GBK/GB18030 text. Convert it to UTF-8.")


def _decode_most(head: bytes, encoding: str) -> None:
    """Decode all but a character that the probe's end may have cut."""
    for spare in range(4):
        try:
            head[: len(head) - spare].decode(encoding)
        except UnicodeDecodeError as error:
            if error.start < len(head) - 8:
                raise
            continue
        return
    head.decode(encoding)


def text_of(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """The file as text; bytes that are no text become U+FFFD, so that one bad row does not end the file."""
    return io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")

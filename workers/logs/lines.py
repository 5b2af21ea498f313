"""From the bytes that a process wrote to lines that harm nobody, and lines as a chunk.

Lines of our own carry their level and time in front, behind the byte ``MARK``; all other bytes are
what somebody wrote to standard output or standard error, and have the level ``output``.
"""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

LINE_BYTES = 4096  # a longer line goes on in the next one
MARK = b"\x1e"

Level = Literal["output", "debug", "info", "warning", "error", "critical", "gap"]

_MARKED = re.compile(rb"\x1e(debug|info|warning|error|critical) (\d{1,17}) (.*)", re.DOTALL)
_LINE_END = re.compile(rb"[\n\r\x1e]")
_INSIDE = re.compile(rb"(?<=[^\n])\x1e")
# Control characters, and those that turn the direction of the text around them.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)
_SIGNED = re.compile(rb"(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s\"']+", re.IGNORECASE)
_USERINFO = re.compile(rb"(://)[^/\s:@]+:[^/\s@]+@")


class LogLine(BaseModel):
    """One line of a log; of a ``gap``, how much is missing (None where nobody knows)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: AwareDatetime
    level: Level
    text: str
    lines: int | None = None
    size_bytes: int | None = None


class ChunkHead(BaseModel):
    """The first line of a chunk: where in the process's local file the chunk ends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    end: int


def marked(level: str, at: datetime, text: str, lines_at_most: int) -> bytes:
    """Lines of our own, as they are written into the local file."""
    head = MARK + f"{level} {round(at.timestamp() * 1e6)} ".encode()
    encoded = text.rstrip().encode("utf-8", "backslashreplace").replace(MARK, b"\\x1e")
    lines = _wrapped(re.split(rb"\r\n|\r|\n", encoded))
    cut = lines[:lines_at_most]
    if len(lines) > lines_at_most:
        cut.append(b"... %d more lines" % (len(lines) - lines_at_most))
    return b"".join(head + line + b"\n" for line in cut)


def shortened(content: bytes, lines_at_most: int) -> bytes:
    """The content up to the end of so many of its lines."""
    last = next(islice(_LINE_END.finditer(content), lines_at_most, None), None)
    return content if last is None else content[: last.start()]


def split(content: bytes, *, is_last: bool) -> tuple[list[bytes], int]:
    """The lines that the content begins with, and how many of its bytes they take.

    What is behind the last newline is an unfinished line, and is left until there is more;
    ``is_last`` says that there will be none.
    """
    end = content.rfind(b"\n") + 1
    if is_last:
        end = len(content)
    elif len(content) - end > LINE_BYTES:
        end = _letter_boundary(content)
    whole = content[:end].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = _INSIDE.sub(b"\n\x1e", whole).split(b"\n")
    if not lines[-1]:
        lines.pop()
    return _wrapped(lines), end


def _wrapped(lines: Iterable[bytes]) -> list[bytes]:
    found = []
    for line in lines:
        rest = line
        while len(rest) > LINE_BYTES:
            cut = _letter_boundary(rest[:LINE_BYTES])
            found.append(rest[:cut])
            rest = rest[cut:]
        found.append(rest)
    return found


def _letter_boundary(content: bytes) -> int:
    """The length of the content without a letter of UTF-8 that its end has cut in two."""
    for back in range(1, min(4, len(content))):
        byte = content[-back]
        if byte & 0xC0 != 0x80:  # not the inside of a letter
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(content) - back if length > back else len(content)
    return len(content)


def harmless(raw: bytes) -> str:
    """Text without control characters, invalid UTF-8, or the signature of an address."""
    if b"X-Amz-" in raw or b"x-amz-" in raw:
        raw = _SIGNED.sub(rb"\1...", raw)
    if b"://" in raw:
        raw = _USERINFO.sub(rb"\1...@", raw)
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return _HARMFUL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def gap(at: datetime, lines: int | None, size_bytes: int | None, why: str) -> LogLine:
    """A line that stands for what is not there."""
    what = "lines" if lines is None else f"{lines} line(s)"
    size = "" if size_bytes is None else f", {size_bytes} bytes,"
    return LogLine(
        at=at, level="gap", text=f"{what}{size} {why}", lines=lines, size_bytes=size_bytes
    )


def encode_chunk(end: int, first: Sequence[LogLine], lines: Sequence[bytes], at: datetime) -> bytes:
    """A chunk: its head, then ``first``, then the lines, one JSON object each.

    A line that carries no time has that of the next one that does, or ``at``. Time and level are
    left out where they are those of the line before, as most lines are short.
    """
    told: list[tuple[str, str, str]] = []
    seen = at.isoformat()
    for line in reversed(lines):
        found = _MARKED.fullmatch(line) if line.startswith(MARK) else None
        level, text = "output", line
        if found is not None:
            seen = datetime.fromtimestamp(int(found[2]) / 1e6, UTC).isoformat()
            level, text = found[1].decode(), found[3]
        told.append((seen, level, harmless(text)))
    parts = [json.dumps({"end": end}), *(line.model_dump_json() for line in first)]
    before = ("", "")
    for said, word, shown in reversed(told):
        fields = {"text": shown}
        if (said, word) != before:
            fields = {"at": said, "level": word, "text": shown}
            before = (said, word)
        parts.append(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
    return "\n".join([*parts, ""]).encode()


def decode_chunk(content: bytes) -> list[LogLine]:
    """The lines of a chunk; raises ValueError if it is none."""
    found: list[LogLine] = []
    fields: dict[str, Any] = {}
    for row in content.split(b"\n")[1:-1]:
        told = json.loads(row)
        if not isinstance(told, dict):
            raise ValueError("not a line of a log")  # noqa: TRY004 - the content is wrong
        fields = {"at": fields.get("at"), "level": fields.get("level"), **told}
        found.append(LogLine.model_validate(fields))
    return found


def end_of(content: bytes) -> int:
    """Where in the local file a chunk ends; raises ValueError if it is none."""
    return ChunkHead.model_validate_json(content.split(b"\n", 1)[0]).end

"""CSV: one datum a line, numbers with commas between them, an optional line of names first."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from workers.content import PIECE_BYTES, ArrayWriter, Facts
from workers.errors import InvalidUpload
from workers.intake.limits import MAX_DIMENSIONS, Limits, check_count, check_size

MAX_LINE_BYTES = 32 * MAX_DIMENSIONS  # no float64 needs more characters
_BLOCK_LINES = 4096
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Line = tuple[int, str]


def read_csv(file: BinaryIO, target: Path, limits: Limits) -> Facts:
    """Bring a CSV file into normal form; raises InvalidUpload that names the line."""
    blocks = _blocks(_lines(file))
    first = next(blocks, [])
    names = 1
    if first and _holds_names(*first[0]):
        names = _name_count(*first[0])
        first = first[1:] or next(blocks, [])
    if not first:
        raise InvalidUpload("there is no line of numbers in it")
    cells = first[0][1].split(",")
    columns = len(cells)
    if columns > MAX_DIMENSIONS:
        raise InvalidUpload(f"a line has at most {MAX_DIMENSIONS:,} numbers; there are {columns:,}")
    # One name alone is a title, and R writes none above row numbers. Of text other things are said.
    if names not in (1, columns) and all(map(_is_number, cells)):
        raise InvalidUpload(
            f"the first line has {names:,} names, and line {first[0][0]:,} {columns:,} numbers; "
            "give each column its name, or leave the names out"
        )
    with ArrayWriter(target, (columns,), "float32") as writer:
        block = first
        while block:
            check_size((writer.count + len(block)) * columns * 4, limits)
            writer.write(_parsed(block, columns))
            block = next(blocks, [])
    check_count(writer.count)
    return writer.facts("csv")


def _lines(file: BinaryIO) -> Iterator[Line]:
    """The lines that are not empty, with their numbers from 1; each of bounded length."""
    number, rest = 0, b""
    head = file.read(3)
    if head != codecs.BOM_UTF8:
        rest = head
    while piece := file.read(PIECE_BYTES):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            number += 1
            yield from _text(number, line)
        if len(rest) > MAX_LINE_BYTES:
            raise InvalidUpload(f"line {number + 1:,} is longer than {MAX_LINE_BYTES:,} bytes")
    yield from _text(number + 1, rest)


def _text(number: int, line: bytes) -> Iterator[Line]:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidUpload(f"line {number:,} is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        text = line.decode().strip()
    except UnicodeDecodeError as error:
        raise InvalidUpload(f"line {number:,} is not UTF-8") from error
    if text:
        yield number, text


def _blocks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """The lines, some at a time: at most _BLOCK_LINES, and not much more than a piece of bytes."""
    block: list[Line] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line[1])
        if size >= PIECE_BYTES or len(block) >= _BLOCK_LINES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _parsed(block: list[Line], columns: int) -> NDArray[np.float32]:
    texts = [text for _, text in block]
    try:
        values = np.loadtxt(texts, np.float64, comments=None, delimiter=",", ndmin=2)
    except ValueError as error:
        raise _culprit(block, columns) from error
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if narrow.shape != (len(block), columns) or not np.isfinite(narrow).all():
        raise _culprit(block, columns)
    return narrow


def _culprit(block: list[Line], columns: int) -> InvalidUpload:
    """What is wrong with the first line that is wrong."""
    for number, text in block:
        cells = text.split(",")
        if len(cells) != columns:
            return InvalidUpload(
                f"line {number:,} has {len(cells):,} numbers, the lines before it {columns:,}"
            )
        for column, cell in enumerate(cells, 1):
            if not _is_number(cell):
                shown = cell.strip()[:40]
                return InvalidUpload(
                    f"line {number:,}, column {column:,}: {shown!r} is no finite float32"
                )
    return InvalidUpload(f"it cannot be read from line {block[0][0]:,} on")


def _holds_names(number: int, text: str) -> bool:
    """Whether the first line holds names, and not data: whether none of its cells is a number, or
    they are 0, 1, 2, …, as pandas numbers columns without names.

    Raises InvalidUpload for a column of row numbers, which would become part of each datum.
    """
    cells = [cell.strip() for cell in text.split(",")]
    if cells[0] in ("", '""'):
        raise InvalidUpload(
            f"line {number:,} begins with an empty cell, as pandas writes it above a column of row "
            "numbers; save with index=False"
        )
    is_counted = len(cells) > 1 and cells == [str(column) for column in range(len(cells))]
    return is_counted or not any(_is_number(cell, finite=False) for cell in cells)


def _name_count(number: int, text: str) -> int:
    """How many names a line has; commas in quotes are part of a name."""
    try:
        return len(next(csv.reader([text])))
    except csv.Error as error:
        raise InvalidUpload(f"the names in line {number:,} cannot be read ({error})") from error


def _is_number(cell: str, *, finite: bool = True) -> bool:
    try:
        value = float(cell)
    except ValueError:
        return False
    return "_" not in cell and (not finite or abs(value) <= _FLOAT32_MAX)

"""Zip archives of strangers: read member by member, every size bounded before it is used.

Python's own zipfile builds an object for each record of a directory whose length a stranger
chooses, so the directory is read here, record by record. What cannot be needed is refused: more
than one disk, encryption, comments, methods other than stored and deflated.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from workers.content import PIECE_BYTES
from workers.errors import InvalidUpload

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_RECORD = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_UTF8 = 0x800
_UNIX, _SYMLINK, _FILE_TYPE, _REGULAR, _FOLDER = 3, 0o120000, 0o170000, 0o100000, 0o040000
MAX_NAME_BYTES = 512
MAX_RATIO = 1100  # deflate cannot do more than 1032


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive, as its directory declares it."""

    name: str
    method: int
    crc: int
    packed_bytes: int
    size_bytes: int
    offset: int


class Archive:
    """A zip file's members, checked; raises InvalidUpload for anything out of the ordinary."""

    def __init__(self, file: BinaryIO, max_members: int) -> None:
        self._file = file
        self.members = list(self._directory(max_members))

    def _directory(self, max_members: int) -> Iterator[Member]:
        count, size, offset = self._end()
        if count > max_members:
            raise InvalidUpload(f"an archive has at most {max_members:,} members; it has {count:,}")
        names: set[str] = set()
        position = offset
        for _ in range(count):
            self._file.seek(position)
            fixed = self._file.read(_RECORD.size)
            if len(fixed) != _RECORD.size or fixed[:4] != b"PK\1\2":
                raise InvalidUpload("its directory is damaged")
            fields = _RECORD.unpack(fixed)
            name_bytes, extra_bytes, comment_bytes = fields[10:13]
            if name_bytes > MAX_NAME_BYTES:
                raise InvalidUpload(f"a member's name is longer than {MAX_NAME_BYTES} bytes")
            tail = self._file.read(name_bytes + extra_bytes)
            position += _RECORD.size + name_bytes + extra_bytes + comment_bytes
            member = _member(fields, tail[:name_bytes], tail[name_bytes:])
            if member is None:
                continue
            if member.offset + member.packed_bytes > offset:
                raise InvalidUpload(f"{member.name!r} does not lie where the directory says")
            if member.name in names:
                raise InvalidUpload(f"the name {member.name!r} comes twice")
            names.add(member.name)
            yield member
        if position != offset + size:
            raise InvalidUpload("its directory is longer or shorter than it declares")

    def _end(self) -> tuple[int, int, int]:
        """Number of members, and size and offset of the directory."""
        length = self._file.seek(0, 2)
        tail_bytes = min(length, _END.size + _LOCATOR.size)
        self._file.seek(length - tail_bytes)
        tail = self._file.read(tail_bytes)
        if tail[-_END.size : -_END.size + 4] != b"PK\5\6":
            raise InvalidUpload("it is cut off, or something follows its end: a zip file has none")
        _, disk, first_disk, here, count, size, offset, _ = _END.unpack(tail[-_END.size :])
        end = length - _END.size
        if tail[:4] == b"PK\6\7" and len(tail) == _END.size + _LOCATOR.size:
            end = min(_LOCATOR.unpack(tail[: _LOCATOR.size])[2], length)
            self._file.seek(end)
            record = self._file.read(_END_64.size)
            if len(record) != _END_64.size or record[:4] != b"PK\6\6":
                raise InvalidUpload("its directory is damaged")
            _, _, _, _, disk, first_disk, here, count, size, offset = _END_64.unpack(record)
        if disk or first_disk or here != count:
            raise InvalidUpload("it is one part of a divided archive")
        if offset + size != end:
            raise InvalidUpload("its directory does not lie where it declares")
        return count, size, offset

    def open(self, member: Member) -> "MemberReader":
        """A reader of the member's content."""
        self._file.seek(member.offset)
        head = self._file.read(_LOCAL.size)
        if len(head) != _LOCAL.size or head[:4] != b"PK\3\4":
            raise InvalidUpload(f"{member.name!r} does not lie where the directory says")
        name_bytes, extra_bytes = _LOCAL.unpack(head)[9:11]
        self._file.seek(name_bytes + extra_bytes, 1)
        return MemberReader(self._file, member)


def _member(fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> Member | None:
    """The member that a directory record declares; None for a folder."""
    made_by, flags, method, crc = fields[1], fields[3], fields[4], fields[7]
    packed, size, attributes, offset = fields[8], fields[9], fields[15], fields[16]
    try:
        name = raw_name.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise InvalidUpload("a member's name is not UTF-8, as it claims") from error
    _check_name(name)
    mode = (attributes >> 16) & _FILE_TYPE if made_by >> 8 == _UNIX else 0
    if mode not in (0, _REGULAR, _FOLDER):
        kind = "a symbolic link" if mode == _SYMLINK else "no ordinary file"
        raise InvalidUpload(f"{name!r} is {kind}")
    if flags & _ENCRYPTED:
        raise InvalidUpload(f"{name!r} is encrypted")
    size, packed, offset = _large(extra, size, packed, offset)
    if name.endswith("/") or mode == _FOLDER:
        if size:
            raise InvalidUpload(f"the folder {name!r} has content")
        return None
    if method not in (0, 8):
        raise InvalidUpload(f"{name!r} is compressed by method {method}; use deflate, or none")
    if size > MAX_RATIO * packed or (method == 0 and size != packed):
        raise InvalidUpload(f"{name!r} declares {size:,} bytes packed into {packed:,}")
    return Member(name, method, crc, packed, size, offset)


def _check_name(name: str) -> None:
    """Nothing is ever extracted; but a name that tries to leave its folder comes from no friend."""
    parts = name.replace("\\", "/").split("/")
    is_absolute = name.startswith(("/", "\\")) or (len(parts[0]) == 2 and parts[0][1] == ":")
    leads_out = is_absolute or ".." in parts or parts[-1] == "."
    if not name or leads_out or any(ord(letter) < 32 for letter in name):
        raise InvalidUpload(f"the name {name[:80]!r} leads out of the archive")


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset, from the zip64 field for those that the record has no room for."""
    values = [size, packed, offset]
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, position)
        field = extra[position + 4 : position + 4 + length]
        position += 4 + length
        if tag == 1:
            for index in range(3):
                if values[index] == 0xFFFFFFFF:
                    if len(field) < 8:
                        raise InvalidUpload("its directory is damaged")
                    values[index] = struct.unpack_from("<Q", field)[0]
                    field = field[8:]
    return values[0], values[1], values[2]


class MemberReader:
    """Reads one member's content, and checks its length and checksum at its end."""

    def __init__(self, file: BinaryIO, member: Member) -> None:
        self._file = file
        self._member = member
        self._packed_left = member.packed_bytes
        self._left = member.size_bytes
        self._crc = 0
        self._inflater = zlib.decompressobj(wbits=-15) if member.method == 8 else None
        self._pending = b""

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end; raises InvalidUpload for damage."""
        wanted = min(size, self._left)
        pieces = []
        while wanted:
            piece = self._next(min(wanted, PIECE_BYTES))
            if not piece:
                raise InvalidUpload(f"{self._member.name!r} is cut off")
            pieces.append(piece)
            wanted -= len(piece)
            self._left -= len(piece)
            self._crc = zlib.crc32(piece, self._crc)
        if not self._left and self._crc != self._member.crc:
            raise InvalidUpload(f"{self._member.name!r} is damaged: its checksum is another")
        if not self._left and self._inflater is not None and self._next(1):
            raise InvalidUpload(f"{self._member.name!r} is longer than it declares")
        return b"".join(pieces)

    def _next(self, size: int) -> bytes:
        if self._inflater is None:
            return self._packed(size)
        while not self._inflater.eof:
            pending = self._pending or self._packed(PIECE_BYTES)
            try:
                # Also of nothing more: the inflater may hold what was too long for the last piece.
                piece = self._inflater.decompress(pending, size)
            except zlib.error as error:
                raise InvalidUpload(f"{self._member.name!r} is damaged ({error})") from error
            self._pending = self._inflater.unconsumed_tail
            if piece or not pending:
                return piece
        return b""

    def _packed(self, size: int) -> bytes:
        piece = self._file.read(min(size, self._packed_left))
        self._packed_left -= len(piece)
        return piece

"""One upload: which format it is, by its content, and its normal form."""

from pathlib import Path

from workers.content import Facts
from workers.errors import InvalidUpload
from workers.intake.archive import Archive
from workers.intake.idx import gunzip, read_idx
from workers.intake.limits import Limits
from workers.intake.npz import read_npz
from workers.intake.pictures import read_pictures
from workers.intake.table import read_csv

_SNIFFED_BYTES = 4096


def take_in(source: Path, target: Path, limits: Limits) -> Facts:
    """Check an uploaded file and write its normal form into ``target``.

    Raises InvalidUpload that says what is wrong with it; ``target`` may then hold a part.
    """
    with source.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
        file.seek(0)
        if head.startswith((b"PK\3\4", b"PK\5\6")):  # the second begins one without members
            archive = Archive(file, limits.max_members)
            # A folder of arrays is no npz; one array among pictures is not a picture either.
            if any(member.name.endswith(".npy") for member in archive.members):
                return read_npz(archive, target, limits)
            return read_pictures(archive, target, limits)
        if head.startswith(b"\x1f\x8b"):
            return read_idx(gunzip(file), target, limits)
        if head.startswith(b"\0\0"):
            return read_idx(file.read, target, limits)
        if head.startswith(b"\x93NUMPY"):
            raise InvalidUpload("it is a single .npy array; save it with numpy.savez(file, data=x)")
        if not head or b"\0" in head:
            what = "it is empty" if not head else "it is of no known format"
            raise InvalidUpload(f"{what}; send npz, idx, csv, or a zip of PNG or JPEG pictures")
        try:
            return read_csv(file, target, limits)
        except InvalidUpload as error:
            raise InvalidUpload(f"read as CSV, which it seems to be: {error}") from error

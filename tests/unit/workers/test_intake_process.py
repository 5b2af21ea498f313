"""Hostile files against the memory limit of the process that reads them."""

import gzip
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.unit.workers.uploading import (
    GOOD,
    GREY,
    archive,
    bomb,
    enormous_png,
    linked,
    npz,
    pictures,
    zeros_npy,
)
from workers.errors import InvalidUpload, NoRoom
from workers.intake import Limits
from workers.intake.process import take_in_apart

MEMORY_BYTES = 384 << 20  # Python, NumPy and Pillow alone reserve about 200 MiB
LIMITS = Limits(max_decoded_bytes=64 << 20)
GIGABYTE = 1 << 30


def take(source: Path, limits: Limits = LIMITS, memory_bytes: int = MEMORY_BYTES) -> object:
    return take_in_apart(
        source, source.with_name("data.npy"), limits, memory_bytes=memory_bytes, timeout_s=60
    )


def refused(source: Path, because: str) -> None:
    with pytest.raises(InvalidUpload, match=because):
        take(source)


def written(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_good_files_pass_within_the_limit(tmp_path: Path, name: str) -> None:
    take(written(tmp_path, GOOD[name]))
    assert np.load(tmp_path / "data.npy").shape[0] >= 20


def test_an_array_far_larger_than_the_limit_passes(tmp_path: Path) -> None:
    shape = (1 << 19, 1 << 10)
    source = bomb(tmp_path / "source", "data.npy", zeros_npy((shape[0], 32, 32)), shape[0] << 10)
    facts = take_in_apart(
        source, tmp_path / "data.npy", Limits(GIGABYTE), memory_bytes=MEMORY_BYTES
    )
    assert facts.count == shape[0]
    assert (tmp_path / "data.npy").stat().st_size == 128 + (512 << 20)


def test_a_bomb_that_declares_its_size_is_refused_by_it(tmp_path: Path) -> None:
    zeros = 512 << 20
    source = bomb(tmp_path / "source", "data.npy", zeros_npy((zeros >> 10, 32, 32)), zeros)
    assert source.stat().st_size < zeros / 900
    refused(source, "the array would have 536,870,912 bytes, and 67,108,864 are allowed")


def test_a_bomb_that_hides_its_size_is_refused_at_what_it_declares(tmp_path: Path) -> None:
    head = zeros_npy((20, 32, 32))
    declared = len(head) + 20 * 32 * 32
    source = bomb(tmp_path / "source", "data.npy", head, 512 << 20, declared)
    refused(source, "its checksum is another|longer than it declares")


def test_a_bomb_behind_a_small_array_is_never_unpacked(tmp_path: Path) -> None:
    source = bomb(tmp_path / "source", "data.npy", zeros_npy((20, 2)), 512 << 20)
    refused(source, "its header declares 168 bytes, and it has 536,871,040")


def test_a_bomb_among_pictures_is_refused(tmp_path: Path) -> None:
    source = bomb(tmp_path / "source", "000.png", b"\x89PNG\r\n\x1a\n", 512 << 20)
    with_others = tmp_path / "others"
    with_others.write_bytes(source.read_bytes())
    with zipfile.ZipFile(with_others, "a") as file:
        for name, content in pictures(GREY).items():
            file.writestr(name, content)
    refused(with_others, "'000.png' has more than 16,777,216 bytes")


def test_a_bomb_in_gzip_is_refused_at_what_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "source"
    with gzip.open(path, "wb") as file:
        file.write(b"\0\0\x08\x03" + np.array([20, 4, 4], ">u4").tobytes())
        for _ in range(512):
            file.write(bytes(1 << 20))
    refused(path, "more bytes behind the data")


@pytest.mark.parametrize("left", [0.01, 0.5, 0.999])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, left: float) -> None:
    whole = npz(images=np.zeros((20_000, 32, 32), np.uint8))
    refused(written(tmp_path, whole[: int(left * len(whole))]), "it is cut off")


@pytest.mark.parametrize(
    ("tricky", "because"),
    [
        (archive({**pictures(GREY), "../../evil.png": b"x"}), "leads out of the archive"),
        (archive({**pictures(GREY), "/etc/evil.png": b"x"}), "leads out of the archive"),
        (archive({**pictures(GREY), "c:\\evil.png": b"x"}), "leads out of the archive"),
        (archive({"../data.npy": zeros_npy((20, 2)) + bytes(40)}), "leads out of the archive"),
        (linked(archive(pictures(GREY))), "is a symbolic link"),
    ],
    ids=["out", "root", "drive", "npz", "link"],
)
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(
    tmp_path: Path, tricky: bytes, because: str
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    refused(written(folder, tricky), because)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {"source", "data.npy"}  # those of the check itself, in their folder
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {folder}


def test_a_picture_of_2500_megapixels_is_refused_by_its_header(tmp_path: Path) -> None:
    members = {**pictures(GREY), "a.png": enormous_png(50_000)}
    refused(written(tmp_path, archive(members)), "'a.png': it declares far more pixels")


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    refused(written(tmp_path, npz(x=np.array([[Trap()]] * 30))), "unpickled")
    assert not marker.exists()


@pytest.mark.parametrize("start", [b"1,", b"a,"])
def test_a_line_of_a_gigabyte_is_refused_early(tmp_path: Path, start: bytes) -> None:
    path = written(tmp_path, start * 4096)
    with path.open("r+b") as file:
        file.truncate(GIGABYTE)  # no disk is used for what is not written
    refused(path, "line 1 is longer than")


def test_a_directory_of_a_million_members_is_refused_by_its_count(tmp_path: Path) -> None:
    content = bytearray(archive({"a.png": b""}))
    content[-14:-10] = b"\xff\xfe\xff\xfe"  # members on this disk, and in all
    refused(written(tmp_path, bytes(content)), "its directory|members")


def test_a_text_file_named_npz_is_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.npz"
    path.write_text("Dear Sir,\nthis is a letter.\n")
    refused(path, "read as CSV, which it seems to be: line 2")


def test_a_process_that_breaks_down_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(InvalidUpload, match=r"broke down|memory"):
        take(written(tmp_path, GOOD["npz"]), memory_bytes=1 << 20)
    with pytest.raises(InvalidUpload, match="broke down"):
        take(tmp_path / "nothing")


def test_a_full_disk_is_no_fault_of_the_upload(tmp_path: Path) -> None:
    source = written(tmp_path, GOOD["npz"])
    with pytest.raises(NoRoom):
        take_in_apart(source, Path("/dev/full"), LIMITS)


def test_a_disk_that_fills_ends_the_check_before_it_is_full(tmp_path: Path) -> None:
    source = written(tmp_path, GOOD["npz"])
    with pytest.raises(NoRoom):
        take_in_apart(source, tmp_path / "data.npy", LIMITS, reserve_bytes=1 << 62)


def test_the_checks_need_neither_torch_nor_the_service() -> None:
    heavy = ("torch", "ray", "fastapi", "sqlalchemy", "sklearn")
    code = f"import sys, workers.intake.process; print([m for m in {heavy} if m in sys.modules])"
    root = Path(__file__).parents[3]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_a_check_whose_folder_is_gone_ends_at_once(tmp_path: Path) -> None:
    # A pipe that nobody writes to: the process would wait for its content for ever.
    os.mkfifo(tmp_path / "source")
    with pytest.raises(FileNotFoundError):
        take_in_apart(tmp_path / "source", tmp_path / "gone" / "data.npy", LIMITS)

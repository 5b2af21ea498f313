import contextlib
import gzip
import hashlib
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.workers.uploading import (
    COLOUR,
    GOOD,
    GREY,
    VECTORS,
    archive,
    csv,
    deep_png,
    enormous_png,
    idx,
    linked,
    npz,
    npz_of_shape,
    picture,
    pictures,
)
from workers.content import Facts
from workers.errors import InvalidUpload
from workers.intake import Limits, take_in
from workers.intake.npz import read_vectors

LIMITS = Limits(max_decoded_bytes=1 << 20, max_members=100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def taken(folder: Path, content: bytes) -> tuple[Facts, np.ndarray]:
    (folder / "source").write_bytes(content)
    facts = take_in(folder / "source", folder / "data.npy", LIMITS)
    array = np.load(folder / "data.npy", allow_pickle=False)
    assert array.shape == (facts.count, *facts.shape)
    assert array.dtype == facts.dtype
    assert facts.size_bytes == (folder / "data.npy").stat().st_size == 128 + array.nbytes
    return facts, array


def refused(folder: Path, content: bytes, because: str) -> None:
    (folder / "source").write_bytes(content)
    with pytest.raises(InvalidUpload, match=because):
        take_in(folder / "source", folder / "data.npy", LIMITS)


@pytest.mark.parametrize("name", ["npz", "packed npz", "idx", "gzipped idx"])
def test_grey_pictures_arrive_as_they_are(folder: Path, name: str) -> None:
    facts, array = taken(folder, GOOD[name])
    np.testing.assert_array_equal(array, GREY)
    assert (facts.is_image, facts.shape, facts.count) == (True, (5, 7), 24)


def test_the_digest_is_that_of_the_idx_file_whatever_the_format(folder: Path) -> None:
    expected = "sha256:" + hashlib.sha256(idx(GREY)).hexdigest()
    found = {taken(folder, GOOD[name])[0].digest for name in ("npz", "packed npz", "gzipped idx")}
    found.add(taken(folder, archive(pictures(GREY)))[0].digest)
    assert found == {expected}
    vectors = "sha256:" + hashlib.sha256(idx(VECTORS, 0x0D)).hexdigest()
    assert {taken(folder, csv(VECTORS))[0].digest, taken(folder, npz(x=VECTORS))[0].digest} == {
        vectors
    }


def test_colour_pictures_of_a_zip_come_in_the_order_of_their_names(folder: Path) -> None:
    members = pictures(COLOUR)
    backwards = {name: members[name] for name in sorted(members, reverse=True)}
    clutter = {"faces/.DS_Store": b"x", "__MACOSX/faces/._000.png": b"x", "faces/Thumbs.db": b"x"}
    facts, array = taken(folder, archive({**backwards, **clutter}))
    np.testing.assert_array_equal(array, COLOUR)
    assert (facts.shape, facts.source_format) == ((6, 6, 3), "zip")
    assert taken(folder, GOOD["zip of jpeg"])[1].shape == COLOUR.shape


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "int16", ">f4", ">i8", "uint8", "bool", "float16"]
)
def test_vectors_of_any_real_type_become_float32(folder: Path, dtype: str) -> None:
    values = (np.arange(60).reshape(20, 3) % 2).astype(dtype)
    facts, array = taken(folder, npz(data=values, other=np.zeros(3)))
    np.testing.assert_array_equal(array, values.astype(np.float32))
    assert not facts.is_image


def test_vectors_of_an_idx_file_are_big_endian(folder: Path) -> None:
    for kind, dtype in ((0x0D, "f4"), (0x0E, "f8"), (0x0B, "i2"), (0x0C, "i4"), (0x09, "i1")):
        values = np.arange(-30, 30).reshape(20, 3).astype(dtype)
        np.testing.assert_array_equal(taken(folder, idx(values, kind))[1], values)


def test_csv_may_have_names_a_mark_blank_lines_and_no_end_of_line(folder: Path) -> None:
    plain = csv(VECTORS)
    variants = [
        plain,
        plain.strip(),
        b"\xef\xbb\xbf" + plain,
        plain.replace(b"\n", b"\r\n"),
        plain.replace(b"\n", b"\n\n"),
        plain.replace(b",", b" , "),
        csv(VECTORS, "first,second,third"),
        csv(VECTORS, "0,1,2"),  # pandas.DataFrame(x).to_csv(f, index=False)
        csv(VECTORS, '"first, in mm","second",third'),
        csv(VECTORS, "a title"),
    ]
    for content in variants:
        np.testing.assert_array_equal(taken(folder, content)[1], VECTORS)


def test_more_csv_than_fits_into_a_block_arrives_whole(folder: Path) -> None:
    values = np.arange(30_000, dtype=np.float32).reshape(-1, 2)
    np.testing.assert_array_equal(taken(folder, csv(values))[1], values)
    lines = csv(values).splitlines()
    lines[12_344] = b"1,x"
    refused(folder, b"\n".join(lines), "line 12,345, column 2: 'x'")


def test_a_first_line_of_other_numbers_is_a_datum(folder: Path) -> None:
    for first in ((0, 2, 1), (1, 2, 3), (0.5, 1, 2)):
        values = np.vstack([np.array(first, np.float32), VECTORS])
        np.testing.assert_array_equal(taken(folder, csv(values))[1], values)
    one_column = np.arange(30, dtype=np.float32)[:, None]
    text = "\n".join(str(number) for number in range(30)).encode()
    np.testing.assert_array_equal(taken(folder, text)[1], one_column)


def test_one_channel_is_none(folder: Path) -> None:
    assert taken(folder, npz(images=GREY[..., None]))[0].shape == (5, 7)


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"", "it is empty"),
        (b"\x7fELF\0\0\0\0", "no known format"),
        (b"PK\3\4 but no archive", "cut off"),
        (b"just a letter\nand nothing else\n", "line 2, column 1: 'and nothing else'"),
        (b"\xff\xfe\x81 not text", "not UTF-8"),
        (npz(x=np.zeros((30, 2)), y=np.zeros(3)), "several arrays"),
        (npz(x=np.array([[object()]] * 30)), "unpickled"),
        (npz(x=np.zeros((30, 2), "f4,i4")), "its type is"),
        (npz(x=np.zeros((30, 2), complex)), "real numbers"),
        (npz(x=np.array([["a", "b"]] * 30)), "real numbers"),
        (npz(x=np.zeros(30)), "its shape is 30"),
        (npz(x=np.zeros((2, 2, 2, 2, 2), np.uint8)), "its shape is 2×2×2×2×2"),
        (npz(x=np.zeros((30, 4, 4))), "pictures must be uint8"),
        (npz(x=np.zeros((30, 4, 4, 2), np.uint8)), "1 or 3 channels"),
        (npz(x=np.zeros((30, 1, 1025), np.uint8)), "1×1025"),
        (npz(x=np.zeros((30, 0, 4), np.uint8)), "0×4"),
        (npz(x=np.zeros((19, 2))), "at least 20 data; there are 19"),
        (npz(x=np.zeros((30, 65_537), np.uint8)), "1 to 65,536 numbers"),
        (npz(x=np.asfortranarray(np.ones((30, 3)))), "ascontiguousarray"),
        (npz(x=np.array([[0.0, 1.0]] * 25 + [[0.0, np.nan]] * 5)), "row 26, column 2 is nan"),
        (npz(x=np.array([[1e300, 1.0]] * 25)), "row 1, column 1 is 1e.300"),
        (npz(x=np.zeros((1000, 400), np.uint8)), "1,600,000 bytes, and 1,048,576"),
        (GOOD["npz"][:-40], "cut off"),
        (GOOD["npz"][:200], "cut off"),
        (GOOD["npz"] + b"more", "cut off, or something follows"),
        (idx(GREY)[:-1], "it is cut off: 24 data are declared, and the file ends in number 24"),
        (idx(GREY) + b"x", "more bytes behind the data"),
        (idx(GREY[:, 0, 0]), "its shape is 24"),
        (b"\0\0\x08\x03\0\0", "cut off in its header"),
        (b"\0\0\x99\x03" + bytes(100), "no idx file"),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 64, 64), "bytes, and 1,048,576"),
        (gzip.compress(idx(GREY))[:-20], "gzip stream"),
        (gzip.compress(idx(GREY)) + b"x", "behind the end of its gzip stream"),
        (gzip.compress(b"1,2\n" * 50), "no idx file"),
        (b"\x1f\x8b\x08" + bytes(30), "gzip"),
        (b"1,2\n" * 30 + b"3\n", "line 31 has 1 numbers, the lines before it 2"),
        (b"1,2\n" * 30 + b"3,inf\n", "line 31, column 2: 'inf'"),
        (b"1,2\n" * 30 + b"3,1e39\n", "line 31, column 2: '1e39'"),
        (b"1,2\n" * 30 + b"3,\n", "line 31, column 2: ''"),
        (b"1,2\n" * 30 + b"3,1_0\n", "line 31, column 2: '1_0'"),
        (b"a,b\n", "no line of numbers"),
        (b"a,b\n" + b"1,1.5,2.5\n" * 30, "first line has 2 names, and line 2 3 numbers"),
        (b'"' + b"a" * 200_000 + b'",b\n' + b"1,2\n" * 30, "names in line 1 cannot be read"),
        (b",0,1\n" + b"0,1.5,2.5\n" * 30, "line 1 begins with an empty.*save with index=False"),
        (b",a,b\n" + b"0,1.5,2.5\n" * 30, "line 1 begins with an empty.*save with index=False"),
        (b'"","a"\n' + b"0,1.5\n" * 30, "line 1 begins with an empty.*save with index=False"),
        (b"1,2\n" * 19, "at least 20 data"),
        (b"1," * 70_000 + b"1\n", "at most 65,536 numbers"),
        (archive({}), "at least 20 data; there are 0"),
        (archive({**pictures(GREY), ".": b""}), "the name '.' leads out"),
        (archive({**pictures(GREY), "a/./.": b"x"}), "leads out of the archive"),
        (archive({"a.txt": b"hello"}), "at least 20 data; there are 1"),
        (archive({**pictures(GREY), "faces/z.txt": b"hi"}), "'faces/z.txt': it is neither"),
        (archive({**pictures(GREY), "faces/z.zip": GOOD["zip of png"]}), "z.zip': it is neither"),
        (archive({**pictures(GREY), "z.png": picture(GREY[0, :4])}), "'z.png' is 4×7 grey, and"),
        (archive({**pictures(GREY), "z.png": picture(COLOUR[0])}), "'z.png' is 6×6 in colour"),
        (archive({**pictures(GREY), "z.png": picture(GREY[0])[:60]}), "'z.png': it is damaged"),
        (archive({**pictures(GREY), "a.png": enormous_png()}), "'a.png': it declares far more"),
        (archive({**pictures(GREY), "a.png": enormous_png(2000)}), "'a.png'.*2000×2000"),
        (archive({**pictures(GREY), "../a.png": picture(GREY[0])}), "leads out of the archive"),
        (archive({**pictures(GREY), "/a.png": picture(GREY[0])}), "leads out of the archive"),
        (archive({**pictures(GREY), "x/../a.png": picture(GREY[0])}), "leads out of the archive"),
        (archive({**pictures(GREY), "C:\\a.png": picture(GREY[0])}), "leads out of the archive"),
        (archive({**pictures(GREY), "a\\..\\b.png": picture(GREY[0])}), "leads out"),
        (archive({"../x.npy": b"", "data.npy": b""}), "leads out of the archive"),
        (linked(archive(pictures(GREY))), "'faces/link.png' is a symbolic link"),
        (archive({f"{n}.png": picture(GREY[0]) for n in range(101)}), "at most 100 members"),
        (archive(pictures(GREY), zipfile.ZIP_LZMA), "compressed by method 14"),
        (archive({"data.npy": b"no array"}), "array 'data': it is no .npy array"),
        (archive({"data.npy": b"\x93NUMPY\x01\x00\x10\x00__import__('os')"}), "cannot be read"),
        (
            archive({"data.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\x7f"}),
            "its header has 2,147,483,647",
        ),
        (npz_of_shape(f"({'9' * 4000}, {'9' * 4000})"), "no shape that an array could have"),
        (npz_of_shape(f"({'1, ' * 1000})"), "no shape that an array could have"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_data_set_is_refused_with_the_reason(
    folder: Path, content: bytes, because: str
) -> None:
    refused(folder, content, because)


def test_a_single_array_is_refused_with_what_to_do(folder: Path) -> None:
    np.save(folder / "x.npy", GREY)
    refused(folder, (folder / "x.npy").read_bytes(), r"numpy\.savez")


def test_palettes_and_transparency_are_refused(folder: Path) -> None:
    for mode in ("P", "RGBA", "1", "LA", "I;16"):
        Image.new(mode, (7, 5)).save(folder / "x.png")
        content = (folder / "x.png").read_bytes()
        refused(folder, archive({**pictures(GREY), "a.png": content}), f"its mode is {mode};")
    clear = picture(COLOUR[0], transparency=(1, 2, 3))
    refused(folder, archive({**pictures(COLOUR), "a.png": clear}), "'a.png': one of its colours")


def test_more_than_eight_bits_a_value_are_refused_and_not_rounded(folder: Path) -> None:
    content = deep_png(7, 5)
    refused(folder, archive({**pictures(COLOUR), "a.png": content}), "'a.png': it has 16 bits")


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_pictures_are_turned_as_cameras_note_that_they_were_held(folder: Path, form: str) -> None:
    # What is to be seen: four fields. How EXIF 2.3 has it stored: where the first row and the
    # first column of the file are in the picture.
    seen = np.array([[20, 80, 140], [60, 180, 240]], np.uint8).repeat(8, 0).repeat(8, 1)
    stored = {
        1: seen,  # top, left
        2: seen[:, ::-1],  # top, right
        3: seen[::-1, ::-1],  # bottom, right
        4: seen[::-1],  # bottom, left
        5: seen.T,  # left, top
        6: seen[:, ::-1].T,  # right, top: its first row is the right column from the top
        7: seen[::-1, ::-1].T,  # right, bottom
        8: seen[::-1].T,  # left, bottom
    }
    members = {}
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        members[f"{orientation}.x"] = picture(pixels, form, exif=exif)
    upright = {f"{number:02}.x": picture(seen, form) for number in range(20)}
    _, array = taken(folder, archive({**members, **upright}))
    np.testing.assert_allclose(array.astype(int), np.broadcast_to(seen, array.shape), atol=3)


def test_a_picture_whose_camera_notes_are_damaged_stays_as_it_is(folder: Path) -> None:
    for notes in (b"XX", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\x01\0rest of it"):
        damaged = picture(GREY[0], "JPEG", exif=b"Exif\0\0" + notes)
        content = archive({f"{number:02}.jpg": damaged for number in range(20)})
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            assert taken(folder, content)[0].shape == GREY[0].shape


def test_what_the_inflater_still_holds_when_the_file_is_read_arrives_too(folder: Path) -> None:
    # A thousandfold packed, the last bytes of the file stand for more than is asked for at once.
    whole = npz(True, data=np.zeros((131_073, 2), np.float32))
    limits = Limits(max_decoded_bytes=2 << 20)
    (folder / "source").write_bytes(whole)
    assert take_in(folder / "source", folder / "data.npy", limits).count == 131_073
    short = bytearray(whole)
    place = short.rindex(b"PK\1\2")
    (packed,) = struct.unpack_from("<I", short, place + 20)
    struct.pack_into("<I", short, place + 20, packed - 4)
    (folder / "source").write_bytes(short)
    with pytest.raises(InvalidUpload, match=r"'data\.npy' is cut off"):
        take_in(folder / "source", folder / "data.npy", limits)


def test_one_wrong_bit_in_a_member_is_noticed(folder: Path) -> None:
    content = bytearray(GOOD["npz"])
    content[content.index(GREY.tobytes()) + 100] ^= 1
    refused(folder, bytes(content), "'images.npy' is damaged: its checksum")


def test_an_encrypted_member_is_refused(folder: Path) -> None:
    content = bytearray(archive(pictures(GREY)))
    place = content.rindex(b"PK\1\2")
    content[place + 8] |= 1
    refused(folder, bytes(content), "is encrypted")


def test_a_directory_that_lies_is_refused(folder: Path) -> None:
    content = archive(pictures(GREY))
    end = len(content) - 22
    for place, form, value in ((8, "<H", 1), (10, "<H", 3), (12, "<I", 10), (16, "<I", 2**31)):
        changed = bytearray(content)
        struct.pack_into(form, changed, end + place, value)
        with pytest.raises(InvalidUpload):
            taken(folder, bytes(changed))


def test_places_beyond_every_file_are_refused_everywhere(folder: Path) -> None:
    content = npz(data=np.zeros((20, 2)))
    start, end = content.index(b"PK\1\2"), len(content) - 22
    for far in (2**64 - 1, 2**63 - 1, 2**40):
        record = bytearray(content[start:end]) + struct.pack("<2HQ", 1, 8, far)
        struct.pack_into("<H", record, 30, 12)
        struct.pack_into("<I", record, 42, 0xFFFFFFFF)
        closing = bytearray(content[end:])
        struct.pack_into("<I", closing, 12, len(record))
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, far, 1)
        for damaged, because in (
            (content[:start] + record + closing, "does not lie where the directory says"),
            (content[:end] + locator + content[end:], "its directory is damaged"),
        ):
            refused(folder, bytes(damaged), because)
            with pytest.raises(InvalidUpload, match=because):
                read_vectors(bytes(damaged), 1000)


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_is_damaged_is_taken_or_refused(folder: Path, data: st.DataObject) -> None:
    content = bytearray(GOOD[data.draw(st.sampled_from(sorted(GOOD)))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["byte", "cut", "insert", "number"])):
            case "byte":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 64))]
            case "insert":
                content[place:place] = data.draw(st.binary(max_size=16))
            case "number":
                content[place : place + 4] = data.draw(st.sampled_from([b"\xff" * 4, bytes(4)]))
        content = content or bytearray(b"x")
    with contextlib.suppress(InvalidUpload):
        taken(folder, bytes(content))

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.logs.lines import (
    LINE_BYTES,
    decode_chunk,
    encode_chunk,
    end_of,
    harmless,
    marked,
    split,
)

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def read(content: bytes) -> list[tuple[str, str]]:
    lines, end = split(content, is_last=True)
    assert end == len(content)
    return [(line.level, line.text) for line in decode_chunk(encode_chunk(end, [], lines, AT))]


def test_an_unfinished_line_waits_for_its_end() -> None:
    assert split(b"one\ntwo", is_last=False) == ([b"one"], 4)
    assert split(b"two", is_last=False) == ([], 0)
    assert split(b"two", is_last=True) == ([b"two"], 3)
    assert split(b"", is_last=True) == ([], 0)


def test_every_kind_of_line_end_ends_a_line() -> None:
    assert read(b"a\r\nb\rc\n\nd") == [
        ("output", "a"),
        ("output", "b"),
        ("output", "c"),
        ("output", ""),
        ("output", "d"),
    ]


def test_a_line_of_our_own_has_its_level_and_time_even_behind_an_unfinished_one() -> None:
    said = AT - timedelta(seconds=9)
    content = b"50 %" + marked("warning", said, "careful\nplease", 10) + b"100 %\n"
    lines, end = split(content, is_last=False)
    found = decode_chunk(encode_chunk(end, [], lines, AT))
    assert [(line.level, line.text) for line in found] == [
        ("output", "50 %"),
        ("warning", "careful"),
        ("warning", "please"),
        ("output", "100 %"),
    ]
    # Output has the time of the next line that knows its own.
    assert [line.at for line in found] == [said, said, said, AT]


def test_a_very_long_record_is_cut() -> None:
    content = marked("error", AT, "\n".join(str(number) for number in range(100)), 3)
    assert [text for _, text in read(content)] == ["0", "1", "2", "... 97 more lines"]


@pytest.mark.parametrize("letter", ["x", "ö", "€", "🙂"])
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_a_long_line_goes_on_in_the_next_one_without_cutting_a_letter(
    letter: str, shift: int
) -> None:
    text = "a" * shift + letter * (3 * LINE_BYTES)
    found = read(text.encode() + b"\n")
    assert "".join(part for _, part in found) == text
    assert all(len(part.encode()) <= LINE_BYTES for _, part in found)


def test_a_line_that_never_ends_is_taken_in_pieces() -> None:
    letters = "€" * LINE_BYTES
    lines, end = split(letters.encode()[:-1], is_last=False)
    assert end == 3 * LINE_BYTES - 3  # the letter that is cut waits
    assert b"".join(lines).decode() == letters[:-1]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain \xc3\xb6\tx", "plain ö\tx"),
        (b"\x1b[31mred\x07\x00", "\\x1b[31mred\\x07\\x00"),
        (b"\xff\xfe\xc3", "\\xff\\xfe\\xc3"),
        ("\u202etxt.exe\u2028\x85".encode(), "\\u202etxt.exe\\u2028\\x85"),
        (b"\x1enot a mark", "\\x1enot a mark"),
    ],
)
def test_bytes_become_text_that_harms_no_terminal(raw: bytes, text: str) -> None:
    assert harmless(raw) == text


def test_signatures_and_passwords_in_addresses_are_not_kept() -> None:
    url = b"GET https://u:secret@host/b?X-Amz-Signature=0ff1ce&X-Amz-Credential=AKIA/x&n=1"
    assert harmless(url) == "GET https://...@host/b?X-Amz-Signature=...&X-Amz-Credential=...&n=1"


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_any_bytes_make_a_chunk_of_plain_lines(content: bytes, cut: int) -> None:
    """However the bytes arrive, the same text comes out, but for where they were cut."""
    first, end = split(content[:cut], is_last=False)
    rest, length = split(content[end:], is_last=True)
    assert end + length == len(content)
    chunk = encode_chunk(len(content), [], [*first, *rest], AT)
    assert end_of(chunk) == len(content)
    for line in decode_chunk(chunk):
        assert not any(ord(letter) < 32 and letter != "\t" for letter in line.text)
    for row in chunk.decode().split("\n")[:-1]:
        json.loads(row)


def test_what_is_no_chunk_is_said() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        decode_chunk(b"{}\nnot json\n")
    with pytest.raises(ValueError, match="JSON"):
        end_of(b"not json")

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from api.conditions import ByteRange, asked_range, expected_version, is_unchanged
from api.errors import RefusedError

TAG = '"abc"'


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize("given", [TAG, 'W/"abc"', '"x", "abc"', "*"])
def test_a_known_tag_means_unchanged(given: str) -> None:
    assert is_unchanged(request(if_none_match=given), TAG)


@pytest.mark.parametrize("given", ['"ab"', "abc", "", '"abc'])
def test_another_tag_means_changed(given: str) -> None:
    assert not is_unchanged(request(if_none_match=given), TAG)


def test_without_a_tag_nothing_is_unchanged() -> None:
    assert not is_unchanged(request(), TAG)


@pytest.mark.parametrize(
    ("given", "version"), [('"3"', 3), ("*", None), ('"x"', 0), ('"-3"', 0), (f'"{"9" * 40}"', 0)]
)
def test_if_match_names_a_version(given: str, version: int | None) -> None:
    assert expected_version(request(if_match=given)) == version


def test_a_weak_tag_never_matches() -> None:
    assert expected_version(request(if_match='W/"3"')) == 0


@pytest.mark.parametrize("given", ["3", "", '"1", "2"'])
def test_if_match_must_be_one_tag(given: str) -> None:
    with pytest.raises(RefusedError):
        expected_version(request(if_match=given))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=50-5000", (50, 100)),
        ("BYTES=1-1", (1, 2)),
        (f"bytes=0-{'9' * 50}", (0, 100)),
    ],
)
def test_a_range_is_cut_to_the_file(given: str, expected: tuple[int, int]) -> None:
    assert asked_range(request(range=given), 100, TAG) == ByteRange(*expected, size=100)


@pytest.mark.parametrize("given", ["bytes=5-1", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "x"])
def test_a_range_that_means_nothing_gets_the_whole_file(given: str) -> None:
    assert asked_range(request(range=given), 100, TAG) is None


@pytest.mark.parametrize("given", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_a_range_outside_the_file_is_refused_with_its_size(given: str) -> None:
    with pytest.raises(RefusedError) as caught:
        asked_range(request(range=given), 100, TAG)
    assert caught.value.kind.status == 416
    assert caught.value.headers == {"Content-Range": "bytes */100"}


def test_a_range_of_another_content_gets_the_whole_file() -> None:
    assert asked_range(request(range="bytes=0-1", if_range='"old"'), 100, TAG) is None
    assert asked_range(request(range="bytes=0-1", if_range=TAG), 100, TAG) is not None


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 150))
def test_a_range_holds_the_bytes_that_it_names(first: int, last: int, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    try:
        found = asked_range(request(range=f"bytes={first}-{last}"), size, TAG)
    except RefusedError:
        assert first >= size
        return
    if found is None:
        assert last < first
    else:
        assert content[found.start : found.stop] == content[first : last + 1]
        assert found.content_range == f"bytes {first}-{min(last, size - 1)}/{size}"

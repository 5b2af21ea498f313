import pytest

from api.errors import RefusedError
from api.negotiation import choose

OFFERS = {"image/png": "png", "application/x-npz": "npz", "application/json": "json"}


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "image/png"),
        ("", "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("application/*", "application/x-npz"),
        ("image/png;q=0.1, application/json;q=0.9", "application/json"),
        ("application/json;q=0.9, application/x-npz", "application/x-npz"),
        ("image/*;q=0, */*", "application/x-npz"),
        ("image/png;q=0.2, image/*, application/json;q=0.5", "application/json"),
        ("text/html, */*;q=0.1", "image/png"),
        ("image/png;q=wrong, application/json;q=0.01", "application/json"),
        (" application/json ; q=0.5 , text/csv", "application/json"),
    ],
)
def test_the_offer_that_is_liked_best_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/jpeg", "nonsense"])
def test_what_does_not_exist_is_refused_with_a_list_of_what_does(accept: str) -> None:
    with pytest.raises(RefusedError, match="image/png, application/x-npz") as caught:
        choose(accept, OFFERS)
    assert caught.value.kind.status == 406
    assert caught.value.headers == {"Vary": "Accept"}

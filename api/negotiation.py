"""Which representation the client wants (RFC 9110, section 12.5.1)."""

from collections.abc import Mapping

from api.errors import NOT_ACCEPTABLE, RefusedError

VARY = {"Vary": "Accept"}


def choose(accept: str | None, offers: Mapping[str, str]) -> str:
    """The media type among ``offers`` that ``accept`` likes best; ties go to the first offer.

    ``offers`` maps media types to the word that asks for them in ``?format=``. Raises RefusedError
    (406) that lists the offers.
    """
    if not accept or not accept.strip():
        return next(iter(offers))
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    liked = {offer: _quality(offer, ranges) for offer in offers}
    best = max(liked, key=lambda offer: liked[offer])
    if liked[best] > 0:
        return best
    listed = ", ".join(offers)
    raise RefusedError(
        NOT_ACCEPTABLE, f"This exists as {listed}; name one of them in Accept.", headers=VARY
    )


def _parse(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip() for piece in part.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = min(max(float(value), 0.0), 1.0)
            except ValueError:
                quality = 0.0
    return media_range.lower(), quality


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    """How much the offer is liked: the word of the most specific range that holds it."""
    family = offer.partition("/")[0]
    for specific in (offer, f"{family}/*", "*/*"):
        found = [quality for media_range, quality in ranges if media_range == specific]
        if found:
            return max(found)
    return 0.0

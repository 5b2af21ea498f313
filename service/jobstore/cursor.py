"""The opaque cursor of a list: where the last page ended, in the list's own order."""

import base64
import binascii
import re
from dataclasses import dataclass

from service.errors import FieldError, InvalidQuery

_FORM = re.compile(r"1:(\d{1,18}):([^\x00-\x1f]{1,200})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last job of a page; the next one continues with older jobs."""

    created_us: int
    job_id: str

    def encode(self) -> str:
        """The cursor as URL-safe text."""
        content = f"1:{self.created_us}:{self.job_id}".encode()
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def parse_cursor(text: str) -> Cursor:
    """The cursor in the text; raises InvalidQuery when no list has given it out."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        match = _FORM.fullmatch(base64.b64decode(padded, altchars=b"-_", validate=True).decode())
    except (binascii.Error, UnicodeError):
        match = None
    if match is None:
        problem = "not a cursor: take it from the list's last page, or leave it out to start anew"
        raise InvalidQuery("the cursor cannot be read", (FieldError("/query/cursor", problem),))
    return Cursor(int(match[1]), match[2])

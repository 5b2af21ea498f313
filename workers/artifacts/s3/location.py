"""Where a store lies, as a URI that every node can open and that holds no secret."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from workers.artifacts.keys import checked
from workers.errors import ArtifactNotFound, StoreError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
_OPTIONS = ("endpoint", "region", "public_endpoint")
CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of every node, or use a "
    "profile or a role as boto3 finds them"
)


@dataclass(frozen=True, slots=True)
class S3Location:
    """``s3://bucket/prefix?endpoint=…&region=…&public_endpoint=…``.

    Without ``endpoint`` it is Amazon's own S3. ``public_endpoint`` is where users reach the same
    server; presigned addresses are made for it. Credentials never ride along.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    public_endpoint: str = ""

    @classmethod
    def parse(cls, uri: str) -> Self:
        """The location in a URI; raises StoreError, whose message repeats no secret."""
        try:
            parts = urlsplit(uri)
            options = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
        except ValueError as error:
            raise StoreError("the S3 URI cannot be read; give s3://bucket/prefix") from error
        if "@" in parts.netloc or parts.fragment:
            raise StoreError(f"credentials have no place in an S3 URI: {CREDENTIALS_HINT}")
        if not _BUCKET.fullmatch(parts.netloc):
            raise StoreError("the S3 URI names no bucket; give s3://bucket/prefix")
        unknown = [name for name, _ in options if name not in _OPTIONS]
        if unknown or len(dict(options)) != len(options):
            raise StoreError(f"an S3 URI takes each of {', '.join(_OPTIONS)} once, and no other")
        given = dict(options)
        return cls(
            bucket=parts.netloc,
            prefix=_prefix(parts.path),
            endpoint=_endpoint("endpoint", given.get("endpoint", "")),
            region=_region(given.get("region", "")),
            public_endpoint=_endpoint("public_endpoint", given.get("public_endpoint", "")),
        )

    @property
    def uri(self) -> str:
        """The URI that parses to this location."""
        options = {name: getattr(self, name) for name in _OPTIONS if getattr(self, name)}
        query = f"?{urlencode(options, safe=':/')}" if options else ""
        return f"s3://{self.bucket}/{quote(self.prefix)}{query}"

    @property
    def server(self) -> str:
        """The server, for messages."""
        return self.endpoint or "Amazon S3"

    def name(self, key: str) -> str:
        """The object's name in the bucket; raises ArtifactNotFound for what is no key."""
        return f"{self.prefix}/{checked(key)}" if self.prefix else checked(key)

    def key(self, name: str) -> str:
        """The key of an object of that name."""
        return name.removeprefix(f"{self.prefix}/") if self.prefix else name


def _prefix(path: str) -> str:
    prefix = unquote(path).strip("/")
    try:
        return checked(prefix) if prefix else ""
    except ArtifactNotFound as error:
        raise StoreError(
            "the prefix in the S3 URI has other characters than A-Z a-z 0-9 _ . = - and /"
        ) from error


def _endpoint(name: str, text: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    plain = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if parts.scheme not in ("http", "https") or text.rstrip("/").lower() != plain.lower():
        raise StoreError(f"the S3 {name} must be like https://host or http://host:port")
    return plain


def _region(text: str) -> str:
    if text and not _REGION.fullmatch(text):
        raise StoreError("the S3 region has other characters than A-Z a-z 0-9 and -")
    return text

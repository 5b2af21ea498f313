"""API keys: the file of the first one, and whether there must be any."""

import stat
from collections.abc import Iterator
from pathlib import Path

from service.access.first import read_key
from service.access.keys import Keyring, Scope
from service.checks.finding import Finding
from service.errors import ConfigurationError
from service.jobstore import JobStore
from service.settings import Settings

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_keys(settings: Settings, jobs: JobStore) -> Iterator[Finding]:
    """The keys in the database, and the file of the first one, whose content is never told."""
    keyring = Keyring(jobs.keys.all())
    has_file = settings.admin_key_file != Path()
    if keyring.has_live_keys:
        yield Finding("API keys", "ok", "needed, and there are some")
    elif settings.is_loopback:
        is_open = "none, and none is needed on this machine" if keyring.is_open else "all revoked"
        yield Finding("API keys", "ok" if keyring.is_open else "warning", is_open)
    elif keyring.is_open and has_file:
        yield Finding("API keys", "ok", "the first start takes the key of the file, or makes it")
    else:
        yield Finding(
            "API keys",
            "wrong",
            f"{settings.host} can be reached from other machines, and no key lives; make one with: "
            "spreadtrain keys create NAME --scope admin",
        )
    if has_file:
        yield _file(settings.admin_key_file.resolve(), keyring)


def _file(path: Path, keyring: Keyring) -> Finding:
    part = "admin key file"
    try:
        secret = read_key(path)
    except ConfigurationError as error:
        return Finding(part, "wrong", str(error))
    if secret is None and keyring.is_open:
        return Finding(part, "ok", f"{path} is made at the first start")
    if secret is None:
        return Finding(
            part, "warning", f"{path} is not there, and is not made where keys were made"
        )
    if path.stat().st_mode & _OTHERS:
        return Finding(part, "warning", f"others may read {path}: chmod 600 {path}")
    key = keyring.find(secret)
    if not keyring.is_open and (key is None or key.scope is not Scope.ADMIN):
        return Finding(part, "warning", f"the key in {path} is no admin's, as others were made")
    return Finding(part, "ok", str(path))

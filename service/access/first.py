"""The first admin key, from a file; and what an installation must have before it listens."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from service.access.keys import Keyring, Scope, is_usable, new_secret
from service.access.making import make, stored_key
from service.errors import ConfigurationError
from service.jobstore import JobStore
from service.settings import PREFIX, Settings

log = logging.getLogger(__name__)

ADMIN = "admin"  # who has the first key
_FILE = f"{PREFIX}ADMIN_KEY_FILE"


def prepare(settings: Settings, jobs: JobStore, say: Callable[[str], object]) -> None:
    """Take the first key from its file, or make both, and refuse an address that is not safe.

    A key that is made is said once, by ``say``, and by no log. Raises ConfigurationError where the
    file cannot be used, and where others than this machine would reach a service without keys.
    """
    keyring = Keyring(jobs.keys.all())
    if settings.admin_key_file != Path():
        keyring = _with_file(settings, jobs, keyring, say)
    if not settings.is_loopback and not keyring.has_live_keys:
        raise ConfigurationError(
            f"{PREFIX}HOST: {settings.host} can be reached from other machines, and there is no "
            "API key that lives; make one with: spreadtrain keys create NAME --scope admin, or set "
            f"{_FILE}, or listen on 127.0.0.1"
        )
    if not settings.is_loopback:
        log.warning(
            "listening on %s: API keys cross the network as they are sent; let a proxy with TLS "
            "stand before the service",
            settings.host,
        )


def _with_file(
    settings: Settings, jobs: JobStore, keyring: Keyring, say: Callable[[str], object]
) -> Keyring:
    """The keys after the file has been looked at."""
    path = settings.admin_key_file.resolve()
    secret = read_key(path)
    if not keyring.is_open:
        if secret is not None and keyring.find(secret) is None:
            log.warning("%s: the key in %s opens nothing, as others were made", _FILE, path)
        return keyring
    with jobs.alone(
        "first key", "another service makes the first key; start again"
    ):  # one of several services that start at once
        if not (keyring := Keyring(jobs.keys.all())).is_open:
            return keyring
        secret = read_key(path)
        is_new = secret is None
        secret = secret or _made(path)
        make(jobs, stored_key(secret, ADMIN, Scope.ADMIN), "first start", settings.audit_keep_s)
    if is_new:
        say(f"The first admin key, which is in {path} too and is not shown again: {secret}")
    else:
        log.info("the first admin key was taken from %s", path)
    return Keyring(jobs.keys.all())


def read_key(path: Path) -> str | None:
    """The key in a file, None where there is no file; raises ConfigurationError."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"{_FILE}: {path} cannot be read: {why}") from None
    if not is_usable(secret):
        raise ConfigurationError(
            f"{_FILE}: {path} holds no key; a key has 32 to 512 printable characters of ASCII "
            "without spaces, as: openssl rand -hex 32"
        )
    return secret


def _made(path: Path) -> str:
    """A new key in a new file that only its owner reads, whole or not at all."""
    secret = new_secret()
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{_FILE}: {path} cannot be made: {error.strerror}") from error
    return secret

"""Credentials that are read again: who rotates a node's keys need not restart what runs there."""

from datetime import UTC, datetime, timedelta

import botocore.session
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    ReadOnlyCredentials,
    RefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, NoCredentialsError


def rereading_session(every_s: float) -> botocore.session.Session:
    """A session whose credentials come from botocore's own chain on this node, read again after so
    many seconds: variables, files, or the machine's role."""
    session = botocore.session.get_session()
    provider = _Rereading(session.get_config_variable("profile"), every_s)
    session.register_component("credential_provider", CredentialResolver([provider]))
    return session


class _Rereading(CredentialProvider):  # type: ignore[misc]  # botocore has no types
    METHOD = "reread"

    def __init__(self, profile: str | None, every_s: float) -> None:
        super().__init__()
        self._profile = profile
        self._every_s = every_s
        self._known: ReadOnlyCredentials | None = None

    def load(self) -> RefreshableCredentials | None:
        """Credentials, or None where the node has none."""
        try:
            first = self._fetch()
        except NoCredentialsError:
            return None
        return RefreshableCredentials.create_from_metadata(
            first,
            refresh_using=self._fetch,
            method=self.METHOD,
            # They are read again when their time is over, and not some minutes before.
            advisory_timeout=0,
            mandatory_timeout=0,
        )

    def _fetch(self) -> dict[str, str | None]:
        """What there is now; where it cannot be read for the moment, what there was: the server
        has the last word on it."""
        try:
            found = botocore.session.Session(profile=self._profile).get_credentials()
            if found is None:
                raise NoCredentialsError
            self._known = found.get_frozen_credentials()
        except BotoCoreError:
            if self._known is None:
                raise
        known, until = self._known, datetime.now(UTC) + timedelta(seconds=self._every_s)
        return {
            "access_key": known.access_key,
            "secret_key": known.secret_key,
            "token": known.token,
            "expiry_time": until.isoformat(),
        }

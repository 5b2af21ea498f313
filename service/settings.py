"""The process's settings, read once from the environment: the only reader of it."""

import ipaddress
import os
import re
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlencode, urlparse

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.errors import ConfigurationError
from service.jobs import KeepS, Retention
from service.log_lines import LogFormat

PREFIX = "SPREADTRAIN_"
RAY_ADDRESS = "RAY_ADDRESS"
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:.]+\]")
EXAMPLE_VALUE = "replace-me"
"""Part of every secret in the examples of deploy/; no service starts while it is in the
environment."""


class Settings(BaseModel):
    """Everything that differs between installations; variables are named SPREADTRAIN_<FIELD>."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True
    )

    data_dir: Path = Path("spreadtrain-data")
    """Folder of the database, the artifacts and the caches."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback only, as long as there is no API key."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """TCP port; 0 takes a free one."""
    allowed_hosts: str = ""
    """Names by which the service is asked, with commas between them, besides loopback's and the
    address it listens on: what proxies and clients say in the header Host."""
    admin_key_file: Path = Path()
    """File of the first admin key: read at the first start, or made there where it is missing;
    empty: none."""
    audit_keep_s: float = Field(default=31_536_000.0, ge=86_400.0, le=315_360_000.0)
    """Seconds that the record of who did what is kept; of the last million entries, the oldest go
    whatever their age."""
    max_requests: int = Field(default=512, ge=1, le=100_000)
    """Requests that are answered at one time, event streams aside; half of them for one key."""
    max_followers: int = Field(default=4096, ge=1, le=1_000_000)
    """Event streams that are open at one time; half of them for one key."""
    # Not in any repr, as a password may be in it.
    database_url: str = Field(default="", repr=False)
    """SQLAlchemy URL of the job store, SQLite or PostgreSQL; empty: SQLite in the data folder."""
    lease_s: float = Field(default=15.0, ge=1.0, le=600.0)
    """Seconds after which another service on the same PostgreSQL leads, if the leader is silent."""
    artifacts_uri: str = ""
    """Artifact store, file:///folder or s3://bucket/prefix; empty: a folder in the data folder."""
    s3_endpoint: str = ""
    """Address of the S3 server, as https://host:port; empty: Amazon's own."""
    s3_region: str = ""
    """Region of the bucket; empty: as boto3 finds it, else us-east-1."""
    s3_public_endpoint: str = ""
    """Where users reach the S3 server; set, downloads may be redirected there."""
    cache_dir: Path = Path()
    """Folder of data sets; empty: ``datasets`` in the data folder."""
    fid_weights: str = ""
    """Path or URL of InceptionV3's weights for the Fréchet Inception distance, on every node."""
    ray_address: str = ""
    """A running Ray cluster to join, also read from RAY_ADDRESS; empty: an own local Ray."""
    cpus: int | None = Field(default=None, ge=1, le=1024)
    """Cores of the own local Ray; empty: all of this machine's."""
    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=1 << 30)
    """Largest body of a request."""
    max_upload_bytes: int = Field(default=4 << 30, ge=1024, le=1 << 44)
    """Largest file that can be uploaded as a data set."""
    max_decoded_bytes: int = Field(default=8 << 30, ge=1024, le=1 << 44)
    """Largest array that an upload may hold, decompressed."""
    stop_grace_s: float = Field(default=10.0, ge=0.0, le=600.0)
    """Seconds that running attempts have for a last checkpoint when the service stops."""
    cancel_grace_s: float = Field(default=10.0, ge=0.0, le=600.0)
    """Seconds that an attempt has to end by itself after a cancel, before it is killed."""
    start_timeout_s: float = Field(default=120.0, ge=1.0, le=3600.0)
    """Seconds that an executor has to appear before its attempt counts as lost."""
    sample_cache_bytes: int = Field(default=512 << 20, ge=0)
    """Memory for generators kept ready to sample from."""

    log_format: LogFormat = "human"
    """Form of the service's own log: lines for people, or JSON."""

    tracing: str = ""
    """Where spans go: http(s)://collector:4318 (OTLP over HTTP) or file:///folder; empty: off."""

    keep_succeeded_s: KeepS | None = None
    """Seconds that jobs are kept after they succeeded, unless they say so themselves; empty: for
    ever."""
    keep_failed_s: KeepS | None = None
    """Seconds that jobs are kept after they failed; empty: for ever."""
    keep_cancelled_s: KeepS | None = None
    """Seconds that jobs are kept after they were cancelled; empty: for ever."""
    sweep_interval_s: float = Field(default=0.0, ge=0.0, le=31_536_000.0)
    """Seconds between sweeps that remove what nobody needs from the stores; 0: only when asked."""
    sweep_grace_s: float = Field(default=86_400.0, ge=1.0, le=31_536_000.0)
    """Seconds for which a sweep leaves alone what has changed; longer than any write takes."""

    @model_validator(mode="after")
    def _address(self) -> Self:
        if self.host != "localhost":
            try:
                ipaddress.ip_address(self.host)
            except ValueError:
                raise ValueError(
                    f"host {self.host!r} is no IP address; give one of this machine's, or localhost"
                ) from None
        return self

    @field_validator("allowed_hosts")
    @classmethod
    def _names_of_hosts(cls, names: str) -> str:
        for name in _listed(names):
            if not _HOST_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a host; give it without scheme and port")
        return names

    @field_validator("tracing")
    @classmethod
    def _place_for_spans(cls, location: str) -> str:
        url = urlparse(location)
        is_folder = url.scheme == "file" and url.netloc in ("", "localhost") and len(url.path) > 1
        is_collector = url.scheme in ("http", "https") and bool(url.hostname)
        if location and not (is_folder or is_collector):
            raise ValueError(f"{location!r} is neither http(s)://collector:4318 nor file:///folder")
        # It goes to every node, and stands in log lines.
        if url.username is not None or url.password is not None or url.query:
            raise ValueError(
                "credentials do not belong into it; set OTEL_EXPORTER_OTLP_HEADERS on each node"
            )
        return location

    @field_validator("fid_weights")
    @classmethod
    def _path_or_web_address(cls, location: str) -> str:
        scheme, found, _ = location.partition("://")
        if found and scheme not in ("http", "https"):
            raise ValueError(f"{location!r} is neither a path nor begins with http:// or https://")
        return location

    @model_validator(mode="after")
    def _s3_with_its_options(self) -> Self:
        given = [name for name in self._s3_options() if not self.artifacts_uri.startswith("s3://")]
        if given:
            raise ValueError(
                f"{PREFIX}S3_{given[0].upper()} is set, but {PREFIX}ARTIFACTS_URI is not "
                "s3://bucket/prefix"
            )
        return self

    def _s3_options(self) -> dict[str, str]:
        options = {
            "endpoint": self.s3_endpoint,
            "region": self.s3_region,
            "public_endpoint": self.s3_public_endpoint,
        }
        return {name: value for name, value in options.items() if value}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Settings from SPREADTRAIN_* variables and RAY_ADDRESS.

        Raises ConfigurationError that names each variable that is unknown or out of range, or has
        an example's value, which everybody knows.
        """
        source = os.environ if environment is None else environment
        if known := sorted(name for name, text in source.items() if EXAMPLE_VALUE in text):
            raise ConfigurationError(
                f"still an example's value, which everybody knows: {', '.join(known)}; put a value "
                "of your own there, as openssl rand -hex 24 makes one"
            )
        values = {
            name.removeprefix(PREFIX).lower(): text
            for name, text in source.items()
            if name.startswith(PREFIX) and name not in CLIENT_VARIABLES and text
        }
        if source.get(RAY_ADDRESS):
            values.setdefault("ray_address", source[RAY_ADDRESS])
        return cls.checked(values)

    @classmethod
    def checked(cls, values: Mapping[str, object]) -> Self:
        """Settings from fields by name; raises ConfigurationError."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            lines = [_explain(problem["loc"], problem["msg"]) for problem in error.errors()]
            raise ConfigurationError("; ".join(lines)) from error

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the service."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def host_names(self) -> frozenset[str]:
        """The names that the settings allow in the header Host, as they are compared."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset({own.lower(), *(name.lower() for name in _listed(self.allowed_hosts))})

    @property
    def is_wildcard(self) -> bool:
        """Whether it listens on every address of this machine, whichever these are."""
        return self.host != "localhost" and ipaddress.ip_address(self.host).is_unspecified

    @property
    def database(self) -> str:
        """URL of the job store."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'spreadtrain.db'}"

    @property
    def artifacts(self) -> str:
        """URI of the artifact store, with everything that another node needs to open it.

        That is not the credentials, which each node has for itself.
        """
        uri = self.artifacts_uri or (self.data_dir.resolve() / "artifacts").as_uri()
        options = urlencode(self._s3_options(), safe=":/")
        if not options:
            return uri
        return f"{uri}{'&' if '?' in uri else '?'}{options}"

    @property
    def retention(self) -> Retention:
        """How long jobs are kept that do not say so themselves."""
        return Retention(
            succeeded_s=self.keep_succeeded_s,
            failed_s=self.keep_failed_s,
            cancelled_s=self.keep_cancelled_s,
        )

    def local_folders(self) -> list[tuple[Path, str]]:
        """The folders that this service alone may write to, each with the name of its lock, beside
        that of a database in a file."""
        folders = [(self.data_dir.resolve(), "service.lock")]
        is_shared = self.database.startswith("postgresql")  # there the leader's lease says who may
        if self.artifacts.startswith("file://") and not is_shared:
            folders.append((Path(unquote(urlparse(self.artifacts).path)), ".service.lock"))
        return folders

    @property
    def incoming_dir(self) -> Path:
        """Folder of uploads on their way; emptied when the service starts."""
        return self.data_dir.resolve() / "incoming"

    @property
    def datasets_dir(self) -> Path:
        """Folder in which data sets are looked for."""
        return (
            self.cache_dir.resolve()
            if self.cache_dir != Path()
            else self.data_dir.resolve() / "datasets"
        )


# Read by the command line's own options, not by the service.
CLIENT_VARIABLES = frozenset({f"{PREFIX}{name}" for name in ("URL", "API_KEY", "API_KEY_FILE")})


def environment_of_defaults(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without what :meth:`Settings.from_environment` reads, for a service that
    shares neither database nor Ray with an installation of the same shell."""
    source = os.environ if environment is None else environment
    return {
        name: text
        for name, text in source.items()
        if not name.startswith(PREFIX) and name != RAY_ADDRESS
    }


def client_key(environment: Mapping[str, str] | None = None) -> str | None:
    """The API key of a client: SPREADTRAIN_API_KEY, or the content of the file that
    SPREADTRAIN_API_KEY_FILE names; None where neither is set.

    Raises ConfigurationError for a file that cannot be read; what is in it is in no message.
    """
    source = os.environ if environment is None else environment
    if key := source.get(f"{PREFIX}API_KEY", "").strip():
        return key
    if not (path := source.get(f"{PREFIX}API_KEY_FILE", "")):
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"{PREFIX}API_KEY_FILE: {path} cannot be read: {why}") from None


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _explain(location: tuple[int | str, ...], message: str) -> str:
    if not location:
        return message.removeprefix("Value error, ")
    name = f"{PREFIX}{str(location[0]).upper()}"
    if message == "Extra inputs are not permitted":
        known = ", ".join(f"{PREFIX}{field.upper()}" for field in Settings.model_fields)
        return f"{name} is not a setting; the settings are {known}"
    return f"{name}: {message}"


# For glibc's allocator in the processes of attempts. By default it gives the memory of each step's
# activations back to the kernel and has it zeroed again in the next: 4,000 page faults and a tenth
# of the time of a convolutional step. Executors give it back once an attempt is done.
ALLOCATION = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}


def prepare_ray_environment(joining: bool, environment: MutableMapping[str, str]) -> None:
    """Set what Ray reads from the environment, before it is imported.

    A lost GCS would end this process after 60 s: the watcher decides instead. Usage statistics
    would leave the machine. Ray's ports answer only to the holder of a token: an own local Ray
    gets a new one, a joined cluster's comes from the user. What Ray starts allocates as
    ``ALLOCATION`` says; the nodes of a joined cluster have their own environment.
    """
    environment.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "315360000")
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment.setdefault("RAY_DEDUP_LOGS", "0")
    environment.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    environment.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    environment.setdefault("RAY_AUTH_MODE", "token")
    for name, value in ALLOCATION.items():
        environment.setdefault(name, value)
    if not joining:
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def ray_environment(joining: bool) -> None:
    """Apply :func:`prepare_ray_environment` to this process."""
    prepare_ray_environment(joining, os.environ)


# Ray Tune's own loggers, tables and checkpoints: what a study knows is in its ledger.
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "315360000",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # the searcher says when no more are wanted
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "315360000",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def driver_environment() -> dict[str, str]:
    """The environment of a study's driver, a child of a process of Ray's that is no worker."""
    inherited = {name: text for name, text in os.environ.items() if name not in _OF_A_WORKER}
    return {**inherited, **_TUNE}


_OF_A_WORKER = ("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_NODE_ID", "RAY_CLIENT_MODE")

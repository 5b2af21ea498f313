"""What the driver of a study and the service say to each other: JSON, one message a line.

The driver decides and stores nothing; the service stores and decides nothing. A driver asks with
``Suggested``, ``Reported`` and ``Exchanged`` and goes on when it has its ``Stored``; the other
messages have no answer. Results and ends are for the proxies of the trials, which wait for them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from service.studies.ledger import TrialResult
from service.studies.replaying import Known
from service.studies.request import StudyRequest


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Setup(_Message):
    """What a new driver begins with: the study, and all that its ledger knows of the search.

    ``told`` are the results in the order in which schedulers were told of them, each of a
    configuration (``trial`` is its number). ``at_once`` is how many configurations are tried at
    one time, ``most_epochs`` the epochs of the longest trial.
    """

    request: StudyRequest
    known: tuple[Known, ...]
    told: tuple[TrialResult, ...]
    at_once: int
    most_epochs: int


# --- from the driver ------------------------------------------------------------------------------


class Suggested(_Message):
    """A configuration is to be tried; the answer says that its trials are stored."""

    kind: Literal["suggested"] = "suggested"
    configuration: int
    values: dict[str, Any]


class Reported(_Message):
    """The scheduler is about to be told of a result; the answer says that it is stored."""

    kind: Literal["reported"] = "reported"
    configuration: int
    epoch: int


class Paused(_Message):
    """A configuration gives up its place until it is continued."""

    kind: Literal["paused"] = "paused"
    configuration: int


class Continued(_Message):
    """A paused configuration goes on."""

    kind: Literal["continued"] = "continued"
    configuration: int


class Over(_Message):
    """Nothing more is wanted of a configuration; where its trials still run, they are to end."""

    kind: Literal["over"] = "over"
    configuration: int


class Takeover(_Message):
    """A member of a population goes on as a new configuration with these values: from the
    checkpoint of the configuration ``of``, instead of its own, which was ``instead_of``."""

    configuration: int
    instead_of: int
    of: int
    values: dict[str, Any]


class Exchanged(_Message):
    """All of a population have come to an epoch, and some take over others' checkpoints there.

    The answer says that their jobs are stored, with copies of the checkpoints. They go on when they
    are ``Continued``. A driver that is told the past says the same again.
    """

    kind: Literal["exchanged"] = "exchanged"
    epoch: int
    takeovers: tuple[Takeover, ...]


class Searched(_Message):
    """The search is over: the budget is spent, or the space has no more."""

    kind: Literal["searched"] = "searched"


Said = Suggested | Reported | Paused | Continued | Exchanged | Over | Searched
SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="kind")])


# --- to the driver --------------------------------------------------------------------------------


class Stored(_Message):
    """The answer to the last question."""

    kind: Literal["stored"] = "stored"


class Result(_Message):
    """What a configuration has after so many epochs, the mean of its trials: for a scheduler."""

    kind: Literal["result"] = "result"
    configuration: int
    epoch: int
    metrics: dict[str, float]


class Ended(_Message):
    """The trials of a configuration have ended by themselves, with this last result."""

    kind: Literal["ended"] = "ended"
    configuration: int
    is_failed: bool
    epoch: int
    metrics: dict[str, float]


Told = Stored | Result | Ended
TOLD: TypeAdapter[Told] = TypeAdapter(Annotated[Told, Field(discriminator="kind")])

"""What the service answers with, as models: the server fills them, the Python client reads them.

Times are RFC 3339 in UTC; numbers that are not finite are null.
"""

from api.bodies.discovery import (
    DatasetBody,
    DatasetList,
    LiveBody,
    PartBody,
    ReadyBody,
    TrainerBody,
    TrainerList,
)
from api.bodies.jobs import (
    AttemptBody,
    CancelBody,
    JobBody,
    JobPage,
    JobSummary,
    LimitsBody,
    PlanBody,
    ProgressBody,
    QueueBody,
    State,
)
from api.bodies.problems import (
    Problem,
    ProblemField,
)
from api.bodies.results import (
    ArtifactBody,
    ArtifactList,
    CheckpointBody,
    CheckpointList,
    EndBody,
    EventBody,
    EventPage,
    GridList,
    LogEntryBody,
    LogLineBody,
    LogPageBody,
    MetricPointBody,
    MetricsBody,
    SamplesBody,
)

__all__ = [
    "ArtifactBody",
    "ArtifactList",
    "AttemptBody",
    "CancelBody",
    "CheckpointBody",
    "CheckpointList",
    "DatasetBody",
    "DatasetList",
    "EndBody",
    "EventBody",
    "EventPage",
    "GridList",
    "JobBody",
    "JobPage",
    "JobSummary",
    "LimitsBody",
    "LiveBody",
    "LogEntryBody",
    "LogLineBody",
    "LogPageBody",
    "MetricPointBody",
    "MetricsBody",
    "PartBody",
    "PlanBody",
    "Problem",
    "ProblemField",
    "ProgressBody",
    "QueueBody",
    "ReadyBody",
    "SamplesBody",
    "State",
    "TrainerBody",
    "TrainerList",
]

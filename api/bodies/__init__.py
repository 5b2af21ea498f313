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
    Intent,
    IntentBody,
    JobBody,
    JobPage,
    JobSummary,
    LimitsBody,
    ParentBody,
    PlanBody,
    ProgressBody,
    QueueBody,
    RetentionBody,
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
    InterpolationsBody,
    MetricPointBody,
    MetricsBody,
    ReconstructionsBody,
    SamplesBody,
)
from api.bodies.sweeps import (
    FindingBody,
    SweepBody,
    TotalBody,
)

__all__ = [
    "ArtifactBody",
    "ArtifactList",
    "AttemptBody",
    "CheckpointBody",
    "CheckpointList",
    "DatasetBody",
    "DatasetList",
    "EndBody",
    "EventBody",
    "EventPage",
    "FindingBody",
    "GridList",
    "Intent",
    "IntentBody",
    "InterpolationsBody",
    "JobBody",
    "JobPage",
    "JobSummary",
    "LimitsBody",
    "LiveBody",
    "MetricPointBody",
    "MetricsBody",
    "ParentBody",
    "PartBody",
    "PlanBody",
    "Problem",
    "ProblemField",
    "ProgressBody",
    "QueueBody",
    "ReadyBody",
    "ReconstructionsBody",
    "RetentionBody",
    "SamplesBody",
    "State",
    "SweepBody",
    "TotalBody",
    "TrainerBody",
    "TrainerList",
]

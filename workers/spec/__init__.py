"""What a training job computes: request body, wire format and stored manifest are this one model.

Every field has a unit in its name or its description and a bound, so that a body that validates
cannot ask for unbounded memory. Unions are told apart by ``kind``. A stored spec parses for ever:
a field may be added with a default, never renamed or removed (tests/unit/workers/specs/ keeps
specs of every version).
"""

from workers.spec.dataset import AnyDataset, IcaDataset, NamedDataset, ToyDataset
from workers.spec.ica import (
    AutoPrior,
    BimodalPrior,
    Ica,
    LaplacePrior,
    LogisticPrior,
    PriorSpec,
    StudentTPrior,
)
from workers.spec.learned import LearnedSpread
from workers.spec.network import ConvNetwork, LinearNetwork, MlpNetwork
from workers.spec.optimizer import ConstantRate, CosineRate, Optimizer, StaircaseRate
from workers.spec.paper import FigureName, Paper
from workers.spec.quality import FeatureName, Quality, ReferenceScales
from workers.spec.refit import RefitEncoder
from workers.spec.spread import (
    FixedSpread,
    GaussianMixtureSpread,
    GaussianSpread,
    LaplaceSpread,
    LogisticSpread,
    MixtureComponent,
    Noise,
    ScaleSchedule,
    ScaleStep,
    ScaleSteps,
    StudentTSpread,
)
from workers.spec.trainer import DeltaVae, GradientTrainer, MetricName, TrainerSpec, Vae
from workers.spec.training import (
    JOB_SPEC,
    PAPER,
    REFIT,
    IcaSpec,
    JobSpec,
    PaperSpec,
    RefitSpec,
    Resources,
    Start,
    TrainSpec,
)

__all__ = [
    "JOB_SPEC",
    "PAPER",
    "REFIT",
    "AnyDataset",
    "AutoPrior",
    "BimodalPrior",
    "ConstantRate",
    "ConvNetwork",
    "CosineRate",
    "DeltaVae",
    "FeatureName",
    "FigureName",
    "FixedSpread",
    "GaussianMixtureSpread",
    "GaussianSpread",
    "GradientTrainer",
    "Ica",
    "IcaDataset",
    "IcaSpec",
    "JobSpec",
    "LaplacePrior",
    "LaplaceSpread",
    "LearnedSpread",
    "LinearNetwork",
    "LogisticPrior",
    "LogisticSpread",
    "MetricName",
    "MixtureComponent",
    "MlpNetwork",
    "NamedDataset",
    "Noise",
    "Optimizer",
    "Paper",
    "PaperSpec",
    "PriorSpec",
    "Quality",
    "ReferenceScales",
    "RefitEncoder",
    "RefitSpec",
    "Resources",
    "ScaleSchedule",
    "ScaleStep",
    "ScaleSteps",
    "StaircaseRate",
    "Start",
    "StudentTPrior",
    "StudentTSpread",
    "ToyDataset",
    "TrainSpec",
    "TrainerSpec",
    "Vae",
]

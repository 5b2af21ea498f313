"""The data set ``laplace-ica`` as a reference: its identity without drawing it, and its content.

As for a toy, the digest is that of the recipe's parameters and ``RECIPE_VERSION``, which rises
whenever a change would draw other data.
"""

import hashlib
import json
from dataclasses import asdict

from workers.data.info import DatasetInfo
from workers.errors import SpecMismatch
from workers.ica.drawn import Drawn, MixtureRecipe, draw
from workers.spec import IcaDataset

RECIPE_VERSION = 1
VALUES_MAX = 20_000_000  # in memory while they are drawn: about 20 bytes for each


def describe_mixture(ref: IcaDataset) -> DatasetInfo:
    """What is known of the data; raises SpecMismatch where there are none of that size."""
    if ref.components > ref.dimensions:
        raise SpecMismatch(
            "/dataset/components",
            f"data of {ref.dimensions} dimensions have at most that many components",
        )
    if ref.samples * ref.dimensions > VALUES_MAX:
        raise SpecMismatch(
            "/dataset/samples",
            f"at most {VALUES_MAX // ref.dimensions:,} data of {ref.dimensions} dimensions are "
            "drawn; upload larger data",
        )
    return DatasetInfo(
        name=ref.kind,
        title="Linear mixtures x = Az of independent sources with noise, the true A being known",
        shape=(ref.dimensions,),
        count=ref.samples,
        is_image=False,
        digest=_digest(_recipe(ref)),
        available=True,
        detail="Drawn from its seed when a job needs it.",
    )


def draw_mixture(ref: IcaDataset) -> Drawn:
    """The data with the truth behind them."""
    return draw(_recipe(ref))


def _recipe(ref: IcaDataset) -> MixtureRecipe:
    return MixtureRecipe(
        dimensions=ref.dimensions,
        components=ref.components,
        samples=ref.samples,
        noise_std=ref.noise_std,
        entries=ref.entries,
        sources=ref.sources,
        seed=ref.seed,
    )


def _digest(recipe: MixtureRecipe) -> str:
    content = {"recipe": RECIPE_VERSION, "kind": "laplace-ica", **asdict(recipe)}
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

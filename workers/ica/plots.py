"""Plots of a fit as PNG: how it converged, its columns beside the true ones, its sources."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.ica.align import align
from workers.ica.model import IcaModel
from workers.images import encode_figure, new_figure

_SOURCES_MAX = 16
_BINS = 60
_REACH = 5.0  # standard deviations that a histogram shows to either side


def convergence_png(history: Tensor) -> bytes:
    """Residual and log evidence over the steps; rows of ``history`` are (step, both of them)."""
    figure = new_figure(9.0, 3.6)
    steps, residual, evidence = history.numpy().T
    for place, name, values in (
        (1, "residual, length of step over that of A", residual),
        (2, "log evidence in nats a datum", evidence),
    ):
        axes = figure.add_subplot(1, 2, place)
        axes.plot(steps, values, marker=".")
        axes.set_xlabel("step")
        axes.set_title(name)
        if place == 1 and (values > 0).any():
            axes.set_yscale("log")
        else:
            axes.ticklabel_format(axis="y", useOffset=False)
    return encode_figure(figure)


def columns_png(model: IcaModel) -> bytes:
    """Entries of A, ours and FastICA's, against the true ones, or ours against FastICA's."""
    figure = new_figure(4.8, 4.8)
    axes = figure.add_subplot(1, 1, 1)
    shape = model.mixing.shape
    if model.true_mixing is not None and model.true_mixing.shape == shape:
        truth, name = model.true_mixing, "true"
        shown = {"FastICA": model.fastica_mixing, "spread EM": model.mixing}
    else:
        truth, name = model.fastica_mixing, "FastICA's"
        shown = {"spread EM": model.mixing}
    for label, mixing in shown.items():
        axes.scatter(truth.flatten(), align(mixing, truth).flatten(), s=14, label=label)
    reach = 1.1 * max(truth.abs().max().item(), 1e-300)
    axes.plot([-reach, reach], [-reach, reach], color="grey", linewidth=0.8)
    axes.set_xlabel(f"{name} entry of A")
    axes.set_ylabel("recovered entry, aligned")
    axes.legend()
    return encode_figure(figure)


def sources_png(model: IcaModel, rows: Tensor) -> bytes:
    """Histograms of the posterior means of the sources behind ``rows``, and the priors."""
    means = model.sources(rows).mean.numpy()
    count = min(means.shape[1], _SOURCES_MAX)
    columns = math.ceil(math.sqrt(count))
    height = math.ceil(count / columns)
    figure = new_figure(2.6 * columns, 2.2 * height)
    at = torch.linspace(-_REACH, _REACH, 400, dtype=torch.float64)
    for source in range(count):
        axes = figure.add_subplot(height, columns, source + 1)
        axes.hist(_within(means[:, source]), bins=_BINS, density=True)
        density = model.priors[source].tilted(at, torch.zeros_like(at)).log_z.exp()
        axes.plot(at, density, linewidth=1.0)
        axes.set_title(f"z{source}: {model.priors[source].name}")
        axes.set_yticks([])
    return encode_figure(figure)


def _within(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(values, -_REACH, _REACH)

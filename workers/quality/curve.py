"""The picture of a likelihood's curve over reference scales."""

from collections.abc import Sequence

from workers.images import encode_figure, new_figure
from workers.quality.reference import SMALLER, Likelihood
from workers.spec import ReferenceScales


def curve_png(found: Sequence[Likelihood], spec: ReferenceScales) -> bytes:
    """The bound at each scale with its standard error, and how far those of fewer draws are below.

    Whole bounds do not compare between scales; what fewer draws lose says where they are loose.
    """
    figure = new_figure(9.0, 4.2)
    bounds, losses = (figure.add_subplot(1, 2, place) for place in (1, 2))
    at = sorted(found, key=lambda each: each.scale)
    scales, most = [each.scale for each in at], spec.importance_samples
    bound = [each.bound for each in at]
    bounds.errorbar(scales, bound, [each.standard_error for each in at], marker="o", capsize=3)
    fewer = {
        f"K = {most // SMALLER}": [each.smaller_bound for each in at],
        "K = 1, the ELBO": [each.elbo for each in at],
    }
    for name, values in fewer.items():
        lost = [whole - value for whole, value in zip(bound, values, strict=True)]
        losses.plot(scales, lost, marker="o", label=name)
    losses.axhline(0.0, color="black", linewidth=0.8)
    losses.legend(fontsize=8)
    titles = (
        f"Held-out log-likelihood, K = {most}, {at[0].rows} data",
        f"Below the bound with K = {most}",
    )
    for axes, title in zip((bounds, losses), titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log")
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(f"scale of the {spec.noise} reference noise")
        axes.set_ylabel("nats per datum")
        axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    return encode_figure(figure)

"""The picture of Figures 4a and 4b."""

from collections.abc import Sequence
from typing import Literal

from workers.images import encode_figure, new_figure
from workers.paper.base import Row
from workers.paper.means import Mean, values_by

_LABELS = {
    "em": "standard EM",
    "spread_em": "spread EM, expectations by EP",
    "paper": "spread EM as published",
    "ep": "spreadtrain (ep)",
    "fastica": "FastICA after PCA",
}
_MARKS = {"em": "s", "spread_em": "o", "paper": "o", "ep": "D", "fastica": "^"}
_AXES = {"gamma": "γ, standard deviation of the noise", "samples": "N, number of data"}


def errors_png(rows: Sequence[Row], axis: Literal["gamma", "samples"], title: str) -> bytes:
    """Mean relative errors, one line for each method, both axes logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = new_figure(6.8, 4.6)
    axes = figure.add_subplot(1, 1, 1)
    errors = values_by(rows, "relative_error", "method", axis)
    at = sorted({float(key[1]) for key in errors})
    repetitions = 0
    for method in dict.fromkeys(str(key[0]) for key in errors):
        means = [Mean.of(errors[method, place]) for place in at]
        repetitions = max(repetitions, *(mean.count for mean in means))
        axes.errorbar(
            at,
            [mean.mean for mean in means],
            yerr=[mean.standard_error or 0.0 for mean in means],
            label=_LABELS[method],
            marker=_MARKS[method],
            markersize=5,
            linewidth=1.4,
            capsize=3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(at, [f"{place:g}" for place in at])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_AXES[axis])
    axes.set_ylabel("relative error of A")
    axes.set_title(
        f"{title}\n(mean of {repetitions} experiments, bars: standard error)", fontsize=11
    )
    axes.grid(visible=True, which="both", alpha=0.25, linewidth=0.6)
    axes.legend(fontsize=9)
    return encode_figure(figure)

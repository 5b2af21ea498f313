from service.studies.health import Vigil
from service.studies.request import Unhealthy


def verdicts(units: list[tuple[float, float]], **asked: float) -> list[str | None]:
    """After each evaluation of a model with ten latents: (active, informative) of them."""
    vigil = Vigil(Unhealthy.model_validate(asked), latent_dim=10)
    found: list[str | None] = []
    for epoch, (active, informative) in enumerate(units, 1):
        vigil.note(epoch, {"active_units": active, "informative_units": informative})
        found.append(vigil.verdict)
    return found


def test_only_bad_evaluations_in_a_row_condemn_a_model() -> None:
    bad, good = (0.0, 0.0), (9.0, 9.0)
    assert verdicts([bad, bad, good, bad, bad]) == [None] * 5
    assert verdicts([bad, bad, bad], evaluations=3) == [None, None, "posterior_collapse"]
    assert verdicts([bad], evaluations=1) == ["posterior_collapse"]


def test_dead_latents_are_too_small_a_share_of_active_ones() -> None:
    few = [(1.0, 9.0)] * 2
    assert verdicts(few, evaluations=2, active_share=0.2) == [None, "dead_latents"]
    assert verdicts(few, evaluations=2, active_share=0.1) == [None, None]
    assert verdicts([(0.0, 3.0)] * 2, evaluations=2, active_share=0.0) == [None, None]


def test_an_epoch_counts_once_and_what_is_no_evaluation_not_at_all() -> None:
    vigil = Vigil(Unhealthy(evaluations=2), latent_dim=10)
    for _ in range(3):  # as attempts that were lost repeat an epoch
        vigil.note(1, {"active_units": 0.0, "informative_units": 0.0})
    vigil.note(2, {"loss_nats": 1.0})
    assert vigil.verdict is None
    vigil.note(3, {"active_units": 0.0, "informative_units": 0.0})
    assert vigil.verdict == "posterior_collapse"

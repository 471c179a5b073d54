import pytest

from voxport.train.evaluation.paired import chance_of_loss, verdict_on


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 0), (3, 1), (1, 3), (40, 22), (700, 650)])
def test_the_chance_of_a_loss_is_that_of_the_exact_test(lost: int, gained: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(lost, lost + gained, 0.5, "greater").pvalue if lost + gained else 1.0
    assert chance_of_loss(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_a_loss_beyond_chance_fails_and_one_within_it_is_told() -> None:
    # 0.5 points over the allowed 0.2, of a thousand utterances: 5 to 0 is no chance, 8 to 3 is.
    assert verdict_on(0.5, 0.2, chance_of_loss(5, 0)) == "failed"
    assert verdict_on(0.5, 0.2, chance_of_loss(8, 3)) == "undecided"
    assert verdict_on(1.01, 0.2, 0.9) == "failed"
    assert verdict_on(0.2, 0.2, 0.0) == "passed"


def test_five_losses_to_none_are_no_chance() -> None:
    assert chance_of_loss(4, 0) > 0.05 >= chance_of_loss(5, 0)

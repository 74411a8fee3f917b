"Curves of pre-training: when a model leaves chance, arms that differ in what is compared, and a run that goes on."
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlground.curves import ARMS, arm_config, leaves_chance, run_curves


def test_it_leaves_chance_where_it_stays_above():
    asked = 900 # three standard errors of a guess: .05
    assert leaves_chance([(100, .5), (200, .56), (300, .6)], asked) == 200
    assert leaves_chance([(100, .5), (200, .56), (300, .54), (400, .6)], asked) == 400 # a lucky measurement is not enough
    assert leaves_chance([(100, .5), (200, .52)], asked) is None and leaves_chance([(100, .9)], asked) == 100
    assert leaves_chance([(100, .55)], asked) is None # not more than three
    assert leaves_chance([(1, .28), (2, .3)], 900, chance=.25) == 2 # the bound is .293


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 5000))
def test_all_that_comes_after_is_above_and_what_came_before_is_not(accuracies, asked):
    curve, bound = list(enumerate(accuracies, 1)), .5 + 3*(.25/asked)**.5
    step = leaves_chance(curve, asked)
    assert all(accuracy > bound for at, accuracy in curve if step is not None and at >= step)
    if step != 1: assert accuracies[(step or len(curve) + 1) - 2] <= bound


def test_arms_differ_in_the_loss_and_the_learning_rate_alone():
    for size in ARMS:
        ours, *others = (vars(arm_config(size, arm, 0, 10)) for arm in sorted(ARMS[size], reverse=True))
        for other in others: assert {name for name in ours if ours[name] != other[name]} <= {'grounding', 'learning_rate'}
    assert len({ARMS['small'][arm] for arm in ARMS['small']}) == 1 # at a size without a search both have the same rate


def test_a_tiny_round_and_a_rerun_that_reads_it_back(tmp_path, monkeypatch):
    sizes = dict(pairs=12, val=4, steps=4, every=2, seeds={'mini': 1}, workers=1)
    found = run_curves(tmp_path, **sizes)
    arms = found['sizes']['mini']
    assert set(arms) == set(ARMS['mini']) and [step for step, _ in arms['ours'][0]['alignment']] == [2, 4]
    assert 'pairs' in arms['ours'][0] and 'pairs' not in arms['baseline'][0] and arms['baseline'][0]['losses']['grounding'][-1][1] == 0
    def never(*_, **__): raise AssertionError('trained again')
    monkeypatch.setattr('vlground.training.Training.step', never)
    again = run_curves(tmp_path, **sizes)
    assert again['sizes'] == found['sizes']


def test_an_unknown_arm_is_refused():
    with pytest.raises(KeyError): arm_config('mini', 'theirs', 0, 10)

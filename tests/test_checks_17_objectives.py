"The checks behind the exercises of lesson 17."
import torch
from checking import assert_check

from vlground import checks_objectives as checks


def one_score(weight, bias): return weight[0] - weight[1], bias[0] - bias[1]


def test_check_one_score():
    assert_check(checks.check_one_score, one_score, [
        (lambda weight, bias: one_score(weight.flip(0), bias.flip(0)), 'aligned is number 0'),
        (lambda weight, bias: (weight[0], bias[0]), 'second row'),
        (lambda weight, bias: (weight.sum(0), bias.sum()), 'second row'),
        (lambda weight, bias: (weight[0] - weight[1], bias[0]), 'only the biases'),
        (lambda weight, bias: (weight.diff(dim=0).neg(), bias[:1] - bias[1:]), 'a weight of shape (d,)'),
        (lambda weight, bias: ((weight[0] - weight[1])/2, (bias[0] - bias[1])/2), 'first alone'),
        (lambda weight, bias: (weight[0] - weight[1], bias), 'one number'),
        (lambda weight, bias: (weight[0] - weight[1], bias[:1] - bias[1:]), 'of shape ()'),
    ])


def test_check_one_score_takes_a_plain_number():
    assert checks.check_one_score(lambda weight, bias: (weight[0] - weight[1], float(bias[0] - bias[1])))


def hide_phrases(spans, dice, shape, rate, longer=0, over=False, at=False, sample=True):
    chosen = torch.zeros(shape, dtype=torch.bool)
    for (row, first, last), throw in zip(spans.tolist(), dice.tolist()):
        hit = throw <= rate if at else throw < rate
        where = (row if sample else slice(None), slice(first, last + longer))
        if over: chosen[where] = hit
        elif hit: chosen[where] = True
    return chosen


def test_check_hide_phrases():
    assert_check(checks.check_hide_phrases, hide_phrases, [
        (lambda *a: hide_phrases(*a, longer=1), 'ends *before*'),
        (lambda *a: hide_phrases(*a).float(), 'truth values'),
        (lambda spans, dice, shape, rate: hide_phrases(spans, 1 - dice, shape, rate), 'both pieces are chosen'),
        (lambda spans, dice, shape, rate: hide_phrases(spans, dice*0, shape, rate), 'above the rate'),
        (lambda *a: hide_phrases(*a, at=True), 'exactly the rate'),
        (lambda *a: hide_phrases(*a, sample=False), 'second caption'),
        (lambda spans, dice, shape, rate: hide_phrases(spans, dice[:1].expand_as(dice), shape, rate), 'its own throw'),
        (lambda *a: hide_phrases(*a, over=True), 'take the piece back'),
        (lambda spans, dice, shape, rate: hide_phrases(spans, dice, shape, .25), 'written into the code'),
        (lambda spans, dice, shape, rate: hide_phrases(spans, dice, shape, rate) if len(spans) else torch.zeros(0, 3).bool(), 'No phrase'),
    ])


def mean_by_picture(losses, samples, aligned, weigh=True, present=True, zero=True):
    own = aligned[samples] if weigh else torch.ones_like(samples, dtype=torch.bool)
    losses, samples = losses[own], samples[own]
    sums = losses.new_zeros(len(aligned)).index_add(0, samples, losses)
    counts = torch.bincount(samples, minlength=len(aligned))
    pictures = (counts > 0).sum() if present else (aligned.sum() if weigh else len(aligned))
    return (sums/counts.clamp(min=1)).sum()/(torch.as_tensor(pictures).clamp(min=1) if zero else pictures)


def by_neighbours(losses, samples, aligned):
    pictures, counts = samples.unique_consecutive(return_counts=True)
    means = [part.mean() for picture, part in zip(pictures, losses.split(counts.tolist())) if aligned[picture]]
    return torch.stack(means).mean() if means else losses.sum()*0


def test_check_mean_by_picture():
    assert_check(checks.check_mean_by_picture, mean_by_picture, [
        (lambda losses, samples, aligned: losses[aligned[samples]].sum(), 'not their sum'),
        (lambda losses, samples, aligned: losses[aligned[samples]].mean(), 'each picture weighs one half'),
        (lambda losses, samples, aligned: mean_by_picture(losses, samples.sort().values, aligned), 'in any order'),
        (by_neighbours, 'in any order'),
        (lambda *a: mean_by_picture(*a, weigh=False), 'was swapped'),
        (lambda *a: mean_by_picture(*a, present=False), 'left out of the mean'),
        (lambda *a: mean_by_picture(*a, zero=False), 'not NaN'),
        (lambda losses, samples, aligned: mean_by_picture(losses, samples, aligned) if len(losses) else torch.tensor(float('nan')), 'No pair at all'),
        (lambda losses, samples, aligned: mean_by_picture(losses, samples, aligned) if aligned[samples].any() else torch.tensor(0.), 'bare 0'),
        (lambda *a: torch.tensor(mean_by_picture(*a).item()), 'no new tensor'),
        (lambda *a: mean_by_picture(*a).item(), 'carry gradients'),
        (lambda losses, samples, aligned: mean_by_picture(losses.detach(), samples, aligned) + losses.sum()*0, 'carry gradients'),
    ])

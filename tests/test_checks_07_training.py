"The checks behind the exercises of lesson 07, the loop."
import math

import torch
from checking import assert_check

from vlground import checks_training


def part_losses(sums, counts):
    mean = sum(counts)/len(sums)
    return [each/mean if mean else 0. for each in sums]


def own_means(sums, counts): return [total/count if count else 0. for total, count in zip(sums, counts)]


def test_check_part_losses():
    assert_check(checks_training.check_part_losses, part_losses, [
        (lambda sums, counts: [2*each for each in part_losses(sums, counts)], 'one loss reports it'),
        (lambda sums, counts: sums, 'not its sum'),
        (lambda sums, counts: [each/max(1, sum(counts)) for each in sums], 'equal counts report their own means'),
        (own_means, 'weighs the few too much'),
        (lambda sums, counts: [sum(sums)/sum(counts)*(sum(counts) > 0)]*len(sums) if len(set(counts)) > 1 else own_means(sums, counts), 'do not let one report'),
        (lambda sums, counts: part_losses(sums, counts) if all(counts) else [part_losses(sums, counts)[1]]*2, 'process without any loss'),
        (lambda sums, counts: [each/(sum(counts)/len(counts)) for each in sums], 'Nobody has a loss'),
    ])


def depends(make_batch, steps, again=None, seeds=(1, 2), clone=True, only=None):
    passes = []
    for seed, order in zip(seeds, (steps, again or steps[::-1])):
        if seed is not None: torch.manual_seed(seed)
        passes.append({step: make_batch(step).clone() if clone else make_batch(step) for step in order})
    return all(torch.equal(passes[0][step], passes[1][step]) for step in only or steps)


def always_from_zero(make_batch, steps):
    def ask(step):
        make_batch(0)
        return make_batch(step)
    return depends(ask, steps)


def one_batch(make_batch, steps):
    torch.manual_seed(1)
    first = make_batch(steps[0]).clone()
    torch.manual_seed(2)
    return all(torch.equal(first, make_batch(step)) for step in steps)


def test_check_depends_on_step_alone():
    assert_check(checks_training.check_depends_on_step_alone, depends, [
        (lambda make_batch, steps: not depends(make_batch, steps), 'True'),
        (one_batch, 'not those of two steps'),
        (lambda make_batch, steps: True, 'global generator'),
        (lambda make_batch, steps: depends(make_batch, steps, seeds=(1, 1), again=steps), 'another seed'),
        (always_from_zero, 'from another one'),
        (lambda make_batch, steps: depends(make_batch, steps, only=steps[:1]), 'all the steps'),
        (lambda make_batch, steps: depends(make_batch, steps, clone=False), 'keep a clone'),
    ])


def lost(every, step, save, kill): return save/(every*step) + every*step/(2*kill)


def best(*seconds): return min(range(1, 10_001), key=lambda every: lost(every, *seconds))


def check(answers): # two answers as one, for the empty stub
    return checks_training.check_time_lost(*(answers if isinstance(answers, tuple) else (answers, answers)))


def by_root(step, save, kill): return max(1, min(10_000, round(math.sqrt(2*save*kill)/step)))


def test_check_time_lost():
    assert_check(check, (lost, best), [
        ((lambda every, step, save, kill: save*every, best), 'costs a tenth'),
        ((lambda every, step, save, kill: save/every + every*step/(2*kill), best), 'not by the steps'),
        ((lambda every, step, save, kill: save/(every*step) + every*step/kill, best), 'costs half'),
        ((lambda every, step, save, kill: save/(every*step) + every/(2*kill), best), 'counted in seconds'),
        ((lambda every, step, save, kill: max(save/(every*step), every*step/(2*kill)), best), 'add the two'),
        ((lost, lambda step, save, kill: math.sqrt(save*kill)/step), '200 steps'),
        ((lost, lambda step, save, kill: by_root(1., save, kill)), 'falls as they take longer'),
        ((lost, lambda step, save, kill: max(1, int(math.sqrt(2*save*kill)/step))), 'neighbours'),
        ((lost, lambda step, save, kill: best(step, save, kill) if save else 0), 'after every step'),
        ((lost, lambda step, save, kill: best(step, save, kill) if kill < 1e9 else round(math.sqrt(2*save*kill)/step)), '10,000 is the most'),
    ])

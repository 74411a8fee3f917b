"The checks behind the exercises of lesson 07, which samples, and when."
import random

import numpy as np
from checking import assert_check

from vlground import checks_training


def step_of(sample, epoch, order, batch_size): return (epoch*len(order) + order.tolist().index(sample))//batch_size


def test_check_step_of():
    assert_check(checks_training.check_step_of, step_of, [
        (lambda sample, epoch, order, batch_size: (epoch*len(order) + int(order[sample]))//batch_size, 'place at which the sample stands'),
        (lambda sample, epoch, order, batch_size: (epoch*len(order) + sample)//batch_size, 'place'),
        (lambda sample, epoch, order, batch_size: epoch*len(order) + order.tolist().index(sample), 'places 2 and 3'),
        (lambda sample, epoch, order, batch_size: order.tolist().index(sample)//batch_size, 'Epoch 1 begins'),
        (lambda sample, epoch, order, batch_size: epoch*(len(order)//batch_size) + order.tolist().index(sample)//batch_size, 'not dropped'),
        (lambda sample, epoch, order, batch_size: epoch*-(-len(order)//batch_size) + order.tolist().index(sample)//batch_size, 'filled up'),
        (lambda sample, epoch, order, batch_size: epoch*len(order)//batch_size + order.tolist().index(sample)//batch_size, 'Rounding twice'),
        (lambda sample, epoch, order, batch_size: (epoch*len(order) + order.tolist().index(sample))/batch_size, 'places 2 and 3'),
    ])


def cut(order, lengths, limit, by_place=False, summed=False, last=True, strict=False, keep_longest=False, late=False, skip_long=False, empty_first=False):
    "Batches within a budget of cells, with the mistakes that one can make."
    batches, batch, longest = [], [], 0
    for place, sample in enumerate(order.tolist()):
        length = int(lengths[place if by_place else sample])
        if skip_long and length > limit: continue
        would = sum(int(lengths[each]) for each in batch) + length if summed else (len(batch) + (0 if late else 1))*max(longest, length)
        if (batch or empty_first) and (would >= limit if strict else would > limit):
            batches.append(batch)
            batch, longest = [], longest if keep_longest else 0
        batch.append(sample)
        longest = max(longest, length)
    return batches + [batch] if last and batch else batches


def test_check_batches_by_pieces():
    assert_check(checks_training.check_batches_by_pieces, cut, [
        (lambda *given: cut(*given, last=False), 'open at the end'),
        (lambda order, *given: cut(np.sort(order), *given), 'do not sort'),
        (lambda order, lengths, limit: cut(order[np.argsort(lengths[order], kind='stable')], lengths, limit), 'do not sort'),
        (lambda order, lengths, limit: [order.tolist()], 'two samples fit'),
        (lambda order, lengths, limit: [[sample] for sample in order.tolist()], 'as many as it can'),
        (lambda *given: cut(*given, strict=True), 'exactly the limit'),
        (lambda *given: cut(*given, summed=True), 'Padding counts'),
        (lambda *given: cut(*given, by_place=True), 'belongs to sample s'),
        (lambda *given: cut(*given, keep_longest=True), 'forget the longest'),
        (lambda *given: cut(*given, late=True), 'two samples fit'),
        (lambda *given: cut(*given, skip_long=True), 'not left out'),
        (lambda *given: cut(*given, empty_first=True), 'No batch is empty'),
    ])


def order_of(which, epoch, size, seed, apart=True): return np.random.default_rng([seed, epoch, *[which]*apart]).permutation(size).tolist()


def mixed(step, sizes, shares, seed, apart=True, share=lambda shares, which: shares[which], order=order_of):
    "Samples of several sets, each with an order for each of its own epochs."
    found = []
    for which, size in enumerate(sizes):
        start = step*share(shares, which)
        places = [divmod(place, size) for place in range(start, start + shares[which])]
        found += [(which, order(which, epoch, size, seed, apart)[at]) for epoch, at in places]
    return found


class Remembering:
    "A loader that keeps its place."
    def __init__(self): self.places = {}

    def __call__(self, step, sizes, shares, seed):
        if step == 0: self.places = {}
        found = []
        for which, size in enumerate(sizes):
            for _ in range(shares[which]):
                place = self.places.setdefault((which, size, seed), 0)
                found.append((which, order_of(which, place//size, size, seed)[place % size]))
                self.places[which, size, seed] = place + 1
        return found


def test_check_mixed_step():
    assert_check(checks_training.check_mixed_step, mixed, [
        (lambda step, sizes, shares, seed: [sample for _, sample in mixed(step, sizes, shares, seed)], 'pairs (set, sample)'),
        (lambda *given: mixed(*given)[::-1], 'set 0 first'),
        (lambda step, sizes, shares, seed: mixed(step, [max(sizes)]*len(sizes), shares, seed), 'its own set'),
        (lambda step, sizes, shares, seed: [(which, random.Random(f'{seed} {step} {which} {n}').randrange(size)) for which, (size, share) in enumerate(zip(sizes, shares)) for n in range(share)],
         'exactly once'),
        (lambda *given: mixed(*given, share=lambda shares, which: sum(shares)), 'batch size of a set is its share'),
        (lambda *given: mixed(*given, order=lambda which, epoch, size, seed, apart: list(range(size))), 'shuffled'),
        (lambda *given: mixed(*given, order=lambda which, epoch, size, seed, apart: order_of(which, 0, size, seed)), 'another one in the next epoch'),
        (lambda *given: mixed(*given, apart=False), 'same order'),
        (Remembering(), 'depend on its number alone'),
        (lambda step, sizes, shares, seed: mixed(step, sizes, shares, 7), 'Another seed'),
    ])

"The checks behind the exercises of lesson 07 on how the weights move."
import re

import torch
from checking import assert_check

from vlground import checks_training as checks


def averages(gradients, beta, corrected=True, first=0, feed_back=False, fixed=False, start=None):
    average, found = 0., []
    for t, gradient in enumerate(gradients, 1):
        average = gradient if start and t == 1 else beta*average + (1 - beta)*gradient
        value = average/(1 - beta**(1 if fixed else t + first)) if corrected else average
        if feed_back: average = value
        found.append(value)
    return found


def test_check_averages():
    assert_check(checks.check_averages, averages, [
        (lambda gradients, beta: averages(gradients, beta)[-1:], 'one after each step'),
        (lambda gradients, beta: averages(gradients, beta, corrected=False), 'single gradient'),
        (lambda gradients, beta: averages(gradients, beta, first=1), 't = 1'),
        (lambda gradients, beta: averages(gradients, beta, first=-1), 'ZeroDivisionError'),
        (lambda gradients, beta: averages(gradients, beta, feed_back=True), 'must not go back'),
        (lambda gradients, beta: averages(gradients, beta, fixed=True), 'changes from step to step'),
        (lambda gradients, beta: [sum(gradients[:t + 1])/(t + 1) for t in range(len(gradients))], 'Newer'),
        (lambda gradients, beta: averages(gradients, beta, corrected=False, start=True), 'Newer'),
        (lambda gradients, beta: averages([g for g in gradients if g], beta) + [0.]*gradients.count(0.), 'Newer'),
        (lambda gradients, beta: averages(gradients or [0.], beta), 'empty'),
    ])


def test_check_averages_takes_tensors():
    assert checks.check_averages(lambda gradients, beta: torch.tensor(averages(gradients, beta), dtype=torch.float64))


def depth(name, layers, shrink, top=0, reverse=False, digits=r'\d+', word=r'(?:^|\.)layer\.', embeddings=1, fixed=None):
    layers = fixed or layers
    if embeddings is not None and 'embeddings' in name.split('.'): return shrink**(layers + embeddings)
    found = re.search(word + f'({digits})', name)
    if not found: return 1.
    number = int(found.group(1))
    return shrink**(number + 1 if reverse else layers - number + top)


def test_check_rate_by_depth():
    assert_check(checks.check_rate_by_depth, depth, [
        (lambda name, layers, shrink: depth(name, layers, shrink)*shrink, 'head belongs to no layer'),
        (lambda *arguments: depth(*arguments, top=-1), 'not 1'),
        (lambda *arguments: depth(*arguments, reverse=True), 'top layer'),
        (lambda name, layers, shrink: depth(name, layers, .5), 'another shrink'),
        (lambda *arguments: depth(*arguments, fixed=4), 'is an argument'),
        (lambda *arguments: depth(*arguments, digits=r'\d'), 'two digits'),
        (lambda *arguments: depth(*arguments, embeddings=None), 'Embeddings lie below'),
        (lambda *arguments: depth(*arguments, embeddings=0), 'Embeddings lie below'),
        (lambda name, layers, shrink: depth(name, layers, shrink) if 'layer' not in name.lower() or 'layer.' in name else int(name), 'ValueError'),
        (lambda name, layers, shrink: shrink if 'LayerNorm' in name and 'embeddings' not in name else depth(name, layers, shrink), 'LayerNorm is no layer'),
        (lambda *arguments: depth(*arguments, word=''), 'right after `layer`'),
        (lambda *arguments: depth(*arguments, word=r'.*\.'), 'right after `layer`'),
        (lambda name, layers, shrink: shrink**layers if 'embeddings.LayerNorm' in name else depth(name, layers, shrink), 'one of theirs'),
    ])


def gradient(weight, parts, divide=None, every=False, mean=True):
    total = sum(int(counted.sum()) for _, _, counted in parts)
    found = torch.zeros_like(weight)
    for x, y, counted in parts:
        if every: counted = torch.ones_like(counted)
        errors = (x @ weight - y)*counted
        found += 2*x.T @ errors/(1 if not mean else divide(counted, parts) if divide else max(total, 1))
    return found


def stepped(weight, parts):
    found = gradient(weight, parts)
    weight -= .1*found
    return found


def kept_in_grad(weight, parts):
    found = gradient(weight, parts)
    weight.grad = found
    return found


def test_check_gradient_by_parts():
    assert_check(checks.check_gradient_by_parts, gradient, [
        (lambda *arguments: gradient(*arguments).sum(), 'shape of the weight'),
        (lambda *arguments: gradient(*arguments)/2, 'One part, one row'),
        (stepped, 'as it was'),
        (kept_in_grad, 'as it was'),
        (lambda *arguments: gradient(*arguments, mean=False), 'not a sum'),
        (lambda *arguments: gradient(*arguments, every=True), 'does not count'),
        (lambda *arguments: gradient(*arguments, divide=lambda counted, parts: sum(len(each[2]) for each in parts)), 'not counted in the mean'),
        (lambda *arguments: gradient(*arguments, divide=lambda counted, parts: counted.sum().clamp(min=1)), 'add up'),
        (lambda *arguments: gradient(*arguments, divide=lambda counted, parts: counted.sum().clamp(min=1)*len(parts)), 'mean of two means'),
        (lambda *arguments: gradient(*arguments)*float(all(bool(part[2].any()) for part in arguments[1])), 'no NaN'),
        (lambda *arguments: gradient(*arguments, divide=lambda counted, parts: sum(int(each[2].sum()) for each in parts)), '0/0'),
    ])

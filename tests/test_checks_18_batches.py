"The checks behind the exercises of lesson 18, batches of captions."
import random

import torch
from checking import assert_check

from vlground import checks_training as checks


def whole_mean(means, counts):
    pairs = [(mean, count) for mean, count in zip(means, counts) if count]
    return sum(mean*count for mean, count in pairs)/sum(count for _, count in pairs) if pairs else 0.


def test_check_whole_mean():
    assert_check(checks.check_whole_mean, whole_mean, [
        (lambda means, counts: sum(means)/len(means), 'mean of the means'),
        (lambda means, counts: sum(mean*count for mean, count in zip(means, counts)), 'A single part'),
        (lambda means, counts: sum(mean*count for mean, count in zip(means, counts))/len(means) if len(means) > 1 else means[0], 'over the two *parts*'),
        (lambda means, counts: sum(mean*count for mean, count in zip(means, counts))/max(sum(counts), 1), 'NaN times 0'),
        (lambda means, counts: sum(mean*count for mean, count in zip(means, counts) if count)/sum(max(count, 1) for count in counts), 'adds nothing, to the divisor'),
        (lambda means, counts: sum(mean*count for mean, count in zip(means, counts) if count)/sum(counts), 'mean is 0'),
        (lambda means, counts: whole_mean(*zip(*[(mean, count) for mean, count in zip(means, counts) if mean])), 'exactly 0'),
    ])


def captions_of_others(images, generator):
    n, drawn = len(images), []
    for i in range(n):
        others = torch.tensor([images[k] != images[i] for k in range(n)]).nonzero()[:, 0]
        drawn.append(others[torch.randperm(len(others), generator=generator)[0]])
    return torch.stack(drawn)


def in_blocks(images, generator):
    "The quick way: captions of one picture side by side, and a draw that skips them."
    order = sorted(range(len(images)), key=lambda i: images[i])
    pictures = [images[i] for i in order]
    first, count = torch.tensor([pictures.index(image) for image in images]), torch.tensor([pictures.count(image) for image in images])
    drawn = (torch.rand(len(images), dtype=torch.float64, generator=generator)*(len(images) - count)).long()
    return torch.tensor(order)[drawn + count*(drawn >= first)]


def any_caption(images, generator): return torch.randint(len(images), (len(images),), generator=generator)


def until_another(images, generator):
    drawn = any_caption(images, generator)
    for i in range(len(images)):
        while images[drawn[i]] == images[i]: drawn[i] = (drawn[i] + 1) % len(images)
    return drawn


def by_picture(images, generator):
    pictures, drawn = sorted(set(images)), []
    for image in images:
        others = [other for other in pictures if other != image]
        chosen = others[int(torch.randint(len(others), (), generator=generator))]
        mine = [i for i, other in enumerate(images) if other == chosen]
        drawn.append(mine[int(torch.randint(len(mine), (), generator=generator))])
    return torch.tensor(drawn)


def shifted(images, generator):
    moves = [move for move in range(1, len(images)) if all(images[i] != images[(i + move) % len(images)] for i in range(len(images)))]
    if not moves: return captions_of_others(images, generator)
    return (torch.arange(len(images)) + moves[int(torch.randint(len(moves), (), generator=generator))]) % len(images)


def test_check_captions_of_others():
    assert_check(checks.check_captions_of_others, captions_of_others, [
        (any_caption, 'drawn for itself'),
        (lambda images, generator: captions_of_others(images, generator) + 1, 'from 0 to 5'),
        (lambda images, generator: captions_of_others(images, generator).float(), 'int64'),
        (lambda images, generator: captions_of_others(list(range(len(images))), generator), '*same* picture'),
        (lambda images, generator: captions_of_others(images, None), 'global stream'),
        (lambda images, generator: captions_of_others(images, torch.Generator().manual_seed(random.randrange(2**40))), 'same generator gave'),
        (lambda images, generator: captions_of_others(images, torch.Generator().manual_seed(0)), 'Another seed'),
        (shifted, 'same distance'),
        (until_another, 'favours the neighbours'),
        (by_picture, 'not each picture'),
    ])
    assert checks.check_captions_of_others(in_blocks)


def pack8(features, largest=127, rounding=torch.round, safe=True):
    features = features.float()
    scales = features.abs().amax(-1)/largest
    divisor = torch.where(scales > 0, scales, torch.ones_like(scales)) if safe else scales
    return rounding(features/divisor[..., None]).to(torch.int8), scales


def in_half(features):
    scales = features.abs().amax(-1)/127
    return (features/scales.masked_fill(scales == 0, 1)[..., None]).round().to(torch.int8), scales.float()


def test_check_pack8():
    assert_check(checks.check_pack8, pack8, [
        (lambda features: pack8(features)[0], 'two tensors'),
        (lambda features: (pack8(features)[0], pack8(features)[1][..., None]), 'without a last axis'),
        (lambda features: (pack8(features)[0].float(), pack8(features)[1]), 'int8, scales float32'),
        (lambda features: pack8(features, 128), '4/127'),
        (lambda features: ((features.float()/(features.amax(-1, keepdim=True)/127)).round().to(torch.int8), features.float().amax(-1)/127), '*absolute*'),
        (lambda features: ((features.float()/(features.abs().max()/127)).round().to(torch.int8), (features.abs().max()/127).float().expand(features.shape[:-1])), 'its own'),
        (lambda features: pack8(features, rounding=torch.trunc), 'round before'),
        (lambda features: pack8(features, rounding=lambda x: torch.trunc(x + .5)), 'Negative numbers'),
        (lambda features: pack8(features, safe=False) if features.abs().amax(-1).all() else (pack8(features)[0] + 1, pack8(features)[1]), 'A region of zeros'),
        (lambda features: (pack8(features)[0], pack8(features)[1]/(pack8(features)[1] > 0)), 'A region of zeros'),
        (in_half, 'compute in 32'),
    ])

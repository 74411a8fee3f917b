"The checks behind the exercises of lesson 10's second half."
import torch
from checking import assert_check
from torchvision.transforms.functional import pil_to_tensor

from vlground import checks_labels as checks
from vlground.grounder import Grounded


def test_check_phrase_tokens():
    def inside(offsets, start, end): return [i for i, (a, b) in enumerate(offsets) if a < b and start <= a and b <= end]
    assert_check(checks.check_phrase_tokens, lambda offsets, start, end: [i for i, (a, b) in enumerate(offsets) if max(a, start) < min(b, end)], [
        (lambda offsets, start, end: [i for i, (a, b) in enumerate(offsets) if a <= end and b >= start and a < b], 'sign after the phrase'),
        (lambda offsets, start, end: [i for i, (a, b) in enumerate(offsets) if start <= a and b < end and a < b], 'one past the last'),
        (lambda offsets, start, end: [i for i, (a, b) in enumerate(offsets) if start <= a and b <= end], 'one past the last'),
        (inside, 'only a part'),
        (lambda offsets, start, end: [i for i, (a, b) in enumerate(offsets) if max(a, start) < min(b, end)][:1], 'tokens 1, 2 and 3'),
        (lambda offsets, start, end: [1, 2, 3], 'one word'),
        (lambda offsets, start, end: [i for i, (a, b) in enumerate(offsets) if max(a, start) < min(b, end)] or [0], 'blanks'),
    ])


def square_boxes(shares, size, side=max, shift=(0, 0), corner=False, low=0., high=None):
    side = torch.tensor(side(size)) if callable(side) else torch.tensor(side)
    centre, half = side*shares[:, :2] - torch.tensor(shift), side*shares[:, 2:]/2
    boxes = torch.cat([centre, centre + 2*half] if corner else [centre - half, centre + half], 1)
    return torch.minimum(boxes.clamp(min=low), torch.tensor([*size, *size] if high is None else [high(size)]*4))


def test_check_square_boxes():
    assert_check(checks.check_square_boxes, square_boxes, [
        (lambda shares, size: square_boxes(shares, size, corner=True), 'first two numbers are the centre'),
        (lambda shares, size: square_boxes(shares, size, side=list(size)), 'longer side of the picture, for both'),
        (lambda shares, size: square_boxes(shares, size, side=lambda size: size[0]), 'whichever it is'),
        (lambda shares, size: square_boxes(shares, size, shift=((max(size) - size[0])/2, (max(size) - size[1])/2)), 'longer side'),
        (lambda shares, size: square_boxes(shares, size, high=max), 'not at those of the square'),
        (lambda shares, size: square_boxes(shares, size, low=-1e9), 'at 0 as well'),
        (lambda shares, size: square_boxes(shares, size)[:1], 'for each box'),
        (lambda shares, size: square_boxes(shares, size) if len(shares) else torch.zeros(0), 'shape (0, 4)'),
    ])


def darkest(sign=False, shares=False, last=1, swap=False, first=False, always=False, score=1., whole=False, below=64, called='darkest-1'):
    class Teacher:
        name = called
        def __call__(self, images, phrases):
            answers = []
            for image, asked in zip(images, phrases):
                dark = pil_to_tensor(image.convert('L'))[0] < below
                n = min(1, len(asked)) if first else len(asked)
                if not dark.any() and not whole: n = 0
                if always: n = max(n, 1)
                columns, rows = (dark.any(axis).nonzero().flatten().tolist() or [0] for axis in (0, 1))
                box = torch.tensor([columns[0], rows[0], columns[-1] + last, rows[-1] + last]).float()
                if swap: box = box[[1, 0, 3, 2]]
                answers.append(Grounded(box.repeat(n, 1), torch.full((n,), score), torch.arange(n)))
            return answers[:1] if sign else answers
    return Teacher


def test_check_darkest():
    assert_check(checks.check_darkest, darkest(), [
        (darkest(sign=True), 'one answer for each picture'),
        (darkest(swap=True), 'x is the column'),
        (darkest(last=0), 'a pixel off'),
        (darkest(first=True), 'Each phrase'),
        (darkest(always=True), 'without phrases'),
        (darkest(whole=True), 'nothing is dark'),
        (darkest(below=40), '63 is below 64'),
        (darkest(below=65), '64 is not'),
        (darkest(below=128), '64 is not'),
        (darkest(score=2.), 'in [0, 1]'),
        (darkest(called=' '), '`name`'),
        (lambda: lambda images, phrases: [(torch.zeros(1, 4), torch.zeros(1)) for _ in images], 'Grounded(boxes, scores, phrases)'),
    ])

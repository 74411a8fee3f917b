"The checks behind the exercises of lesson 01."
import numpy as np
from checking import assert_check
from PIL import Image

from vlground import checks


def hat(person, head, size, centred=True, above=True, corner=True, mirrored=False, scale=True):
    x1, y1, x2, y2 = person
    wide, high = (x2 - x1, y2 - y1) if scale else (40, 100)
    fx = 1 - head[0] if mirrored else head[0]
    x, y = (x1 if corner else 0) + fx*wide - (size[0]/2 if centred else 0), (y1 if corner else 0) + head[1]*high - (size[1] if above else 0)
    return x, y, x + size[0], y + size[1]


def test_check_hat_box():
    assert_check(checks.check_hat_box, hat, [
        (lambda *words: hat(*words, centred=False), 'centred'),
        (lambda *words: hat(*words, above=False), 'lower edge'),
        (lambda *words: hat(*words, corner=False), 'upper left corner'),
        (lambda *words: hat(*words, mirrored=True), 'left side'),
        (lambda *words: hat(*words, scale=False), 'twice as large'),
        (lambda *words: hat(*words)[:3], 'shape'),
    ])


def shrunk(samples, n):
    image = Image.fromarray(255*np.asarray(samples, np.uint8))
    return np.asarray(image.convert('F').reduce(n))/255


def test_check_cover():
    def split(samples, n, rows, axes): return samples.reshape(rows(*samples.shape, n)).mean(axis=axes)
    assert_check(checks.check_cover, shrunk, [
        (lambda samples, n: split(samples, n, lambda h, w, n: (h//n, n, w//n, n), (1, 3))*n*n, 'mean is asked for'),
        (lambda samples, n: samples.mean(), 'sample itself'),
        (lambda samples, n: np.full((1, 1), samples.mean()) if n > 1 else samples, 'mean is asked for'),
        (lambda samples, n: split(samples, n, lambda h, w, n: (n, h//n, n, w//n), (0, 2)), 'mixed up'),
        (lambda samples, n: split(samples, n, lambda h, w, n: (h//n, n, h//n, n), (1, 3)), 'h and w'),
        (lambda samples, n: split(samples, n, lambda h, w, n: (h//n, n, w//n, n), (1, 3)) if n < 3 else samples[::n, ::n], '3 samples'),
        (lambda samples, n: samples[::n, ::n], 'mean of all four'),
    ])

"The checks behind the exercises of lesson 09, the store."
from bisect import bisect_left, bisect_right

import torch
from checking import assert_check

from vlground import checks_labels as checks


def test_check_offsets():
    assert_check(checks.check_offsets, lambda offsets, row: bisect_right(offsets, row) - 1, [
        (lambda offsets, row: max(bisect_left(offsets, row) - 1, 0), 'begins *at* its offset'),
        (lambda offsets, row: bisect_right(offsets, row), 'picture 0'),
        (lambda offsets, row: row//2, 'written into the code'),
        (lambda offsets, row: next(i for i, start in enumerate(offsets) if start <= row < offsets[i + 1] or start == row), 'two equal offsets'),
        (lambda offsets, row: sorted(set(offsets)).index(max(o for o in offsets if o <= row)), 'two equal offsets'),
        (lambda offsets, row: 0 if row < offsets[1] or offsets[1] == 0 else bisect_right(offsets, row) - 1, 'first pictures may have no rows'),
    ])


def mask(offsets, most, whole=True, cut=True, wide=False, dtype=torch.bool):
    counts = (offsets[1:] - offsets[:-1]).tolist()
    counts = [min(c, most) if cut else c for c in counts]
    r = most if wide else max(counts)
    rows = torch.zeros(len(counts), 1 + r, dtype=dtype)
    for row, c in zip(rows, counts): row[0 if whole else 1:1 + c] = True
    return rows


def test_check_region_mask():
    assert_check(checks.check_region_mask, mask, [
        (lambda offsets, most: mask(offsets, most, dtype=torch.float32), 'torch.bool'),
        (lambda offsets, most: mask(offsets, most, whole=False), 'region 0'),
        (lambda offsets, most: mask(offsets, most)[:, 1:], '(2, 3)'),
        (lambda offsets, most: mask(offsets, most).flip(1), 'padding at the end'),
        (lambda offsets, most: mask(offsets, most, cut=False), 'max_regions'),
        (lambda offsets, most: mask(offsets, most, wide=True), '(2, 3)'),
        (lambda offsets, most: mask(offsets, most) if offsets.diff().all() else mask(offsets, most)*(offsets.diff() > 0)[:, None], 'still has region 0'),
    ])

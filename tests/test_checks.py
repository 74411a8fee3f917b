"The checks behind the exercises of lesson 00, and that no check goes untested."
import re
from pathlib import Path

import numpy as np
import pytest
from checking import assert_check

from vlground import checks, checks_labels


def test_every_check_is_tested():
    names = {name for module in (checks, checks_labels) for name in vars(module) if name.startswith('check_')}
    tested = set(re.findall(r'\bcheck_\w+', ''.join(path.read_text() for path in Path(__file__).parent.glob('test_checks*.py'))))
    assert names, 'no check was found'
    assert not names - tested, f'not tested in tests/test_checks*.py: {sorted(names - tested)}'


def test_run_cases_stops_at_the_first_failure():
    seen = []
    def judge(result, x): return seen.append(x) or result == x
    verdict = checks.run_cases(lambda x: x if x < 2 else 0, [('one', lambda: (1,), judge), ('two', lambda: (2,), judge), ('three', lambda: (3,), judge)], 'done')
    assert not verdict and verdict.message == 'two' and seen == [1, 2]


def test_an_error_is_reported_and_not_raised():
    verdict = checks.run_cases(lambda x: 1/0, [('Is x zero?', lambda: (1,), lambda result, x: True)], 'done')
    assert not verdict and 'ZeroDivisionError' in verdict.message and 'Is x zero?' in verdict.message


def box_mask(box, size, one=0, swap=False, kind=bool, flip=False, clip=True):
    x1, y1, x2, y2 = (box[1], box[0], box[3], box[2]) if swap else box
    if clip: x1, y1, x2, y2 = (max(side, 0) for side in (x1, y1, x2, y2))
    mask = np.zeros(size if flip else size[::-1], kind)
    mask[y1:y2 + one, x1:x2 + one] = 1
    return mask


def test_check_box_mask():
    assert_check(checks.check_box_mask, box_mask, [
        (lambda box, size: box_mask(box, size, one=1), 'plus one'),
        (lambda box, size: box_mask(box, size, swap=True), 'transposed'),
        (lambda box, size: box_mask(box, size, kind=float), 'bool'),
        (lambda box, size: box_mask(box, size, flip=True), '(h, w)'),
        (lambda box, size: box_mask(box, size, clip=False), 'negative'),
        (lambda box, size: 1/0, 'ZeroDivisionError'),
    ])


def pick(n, k, *keys): return np.random.default_rng([7, *keys]).permutation(n)[:k].tolist()


STREAM = np.random.default_rng(0)


def reseeded(n, k, seed, index):
    np.random.seed(seed*1000 + index)
    return np.random.permutation(n)[:k]


@pytest.mark.parametrize('again', range(2))
def test_check_pick(again):
    assert_check(checks.check_pick, pick, [
        (lambda n, k, seed, index: np.random.default_rng([seed, index]).integers(n, size=k), 'replace=False'),
        (lambda n, k, seed, index: STREAM.permutation(n)[:k], 'inside the function'),
        (lambda n, k, seed, index: np.random.permutation(n)[:k], 'same keys'),
        (reseeded, 'global'),
        (lambda n, k, seed, index: pick(n, k, seed + index), 'added'),
        (lambda n, k, seed, index: pick(n, k, seed*index), 'index makes no difference'),
        (lambda n, k, seed, index: pick(n, k, index), 'seed makes no difference'),
        (lambda n, k, seed, index: pick(n, k - 1, seed, index) + [n], '0 to n - 1'),
        (lambda n, k, seed, index: pick(n - 1, k, seed, index) if n > k else pick(n, k, seed, index), 'far more often'),
    ])


def replace_file(path, write, name='.part', clean=True, swallow=False, folder=None, back=True):
    part = (folder or path.parent)/(path.name + name)
    try:
        write(part)
        path.write_bytes(part.read_bytes()) if folder else part.replace(path)
    except OSError:
        if not swallow: raise
    finally:
        if clean: part.unlink(missing_ok=True)
    return path if back else 'elsewhere'


def overwrite(path, write):
    write(path)
    return path


def remove_first(path, write):
    path.unlink()
    return replace_file(path, write)


def test_check_replace_file(tmp_path):
    assert_check(checks.check_replace_file, replace_file, [
        (overwrite, 'another name'),
        (remove_first, 'changed or gone'),
        (lambda path, write: replace_file(path, write, clean=False), 'finally'),
        (lambda path, write: replace_file(path, write, swallow=True), 'swallowed'),
        (lambda path, write: replace_file(path, write, folder=tmp_path), 'another folder'),
        (lambda path, write: replace_file(path, write, back=False), 'return the path'),
        (lambda path, write: path, 'renamed'),
    ])

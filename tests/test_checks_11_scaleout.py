"The checks behind the exercises of lesson 11, labels by the million."
from checking import assert_check

from vlground import checks_labels as checks


def shards_of(captions, shard_size, i, n, up=True, first=1, block=False):
    count = -(-captions//shard_size) if up else captions//shard_size
    each = -(-count//n)
    return list(range((i - 1)*each, min(count, i*each))) if block else list(range(i - first, count, n))


def test_check_shards_of():
    assert_check(checks.check_shards_of, shards_of, [
        (lambda *a: [number + 1 for number in shards_of(*a)], 'One job makes all'),
        (lambda *a: shards_of(*a, up=False), 'may be smaller'),
        (lambda captions, size, i, n: shards_of(captions, size, 1, 1) if n == 1 else shards_of(captions, size, i, n, first=0), 'counts from 1'),
        (lambda *a: shards_of(*a) if a[3] < 3 else shards_of(*a, block=True), 'every third'),
        (lambda *a: shards_of(*a) or [0], 'nothing to do'),
    ])


def time_left(total, before, done, seconds, naive=False, whole=False):
    if done == total: return 0.
    if done == before: return float('inf')
    if whole: return total*seconds/done
    return (total - done)*seconds/(done if naive else done - before)


def test_check_time_left():
    assert_check(checks.check_time_left, time_left, [
        (lambda *a: time_left(*a, whole=True), 'half is done'),
        (lambda total, before, done, seconds: seconds if done < total else 0., 'quarter'),
        (lambda *a: time_left(*a, naive=True), 'earlier run'),
        (lambda total, before, done, seconds: (total - done)*seconds/(done - before) if done > before else float('inf'), 'complete before'),
        (lambda *a: time_left(*a) if time_left(*a) < 1e9 else 0., 'infinity'),
    ])

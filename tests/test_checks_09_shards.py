"The checks behind the exercises of lesson 09, shards."
from checking import assert_check

from vlground import checks_labels as checks


def place_of(i, records, shard_size):
    if i >= records or i < -records: raise IndexError
    i = i if i >= 0 else records + i
    return i//shard_size, i - i//shard_size*shard_size


def test_check_place_of():
    assert_check(checks.check_place_of, place_of, [
        (lambda i, records, shard_size: divmod(i, shard_size), 'from the end of the records'),
        (lambda i, records, shard_size: (place_of(i, records, shard_size)[0], i), 'count rows from the beginning'),
        (lambda i, records, shard_size: tuple(n + 1 for n in place_of(i, records, shard_size)), 'Record 0 is in shard 0'),
        (lambda i, records, shard_size: place_of(i, records, 4), 'written into the code'),
        (lambda i, records, shard_size: divmod(i % records, shard_size), 'no record 10'),
        (lambda i, records, shard_size: place_of(i, records, shard_size) if i > -records - 1 else (0, 0), 'no record -11'),
        (lambda i, records, shard_size: place_of(i if i > -records else records, records, shard_size), '-10 of ten records is the first one'),
    ])


def still_to_do(manifest, i, n, key=str, first=1, rank=False):
    numbers = [s for s in range(-(-manifest['records']//manifest['shard_size'])) if key(s) not in manifest['shards']]
    mine = [s for place, s in enumerate(numbers) if (place if rank else s) % n == i - first]
    return [r for s in mine for r in range(s*manifest['shard_size'], min((s + 1)*manifest['shard_size'], manifest['records']))]


def test_check_still_to_do():
    assert_check(checks.check_still_to_do, still_to_do, [
        (lambda manifest, i, n: still_to_do(manifest, i, n, key=int), 'text'),
        (lambda manifest, i, n: [s for s in range(-(-manifest['records']//manifest['shard_size'])) if str(s) not in manifest['shards']], 'six records'),
        (lambda manifest, i, n: [r for s in range(-(-manifest['records']//manifest['shard_size'])) if str(s) not in manifest['shards'] and s % n == i - 1
                                 for r in range(s*manifest['shard_size'], (s + 1)*manifest['shard_size'])], 'no record 5'),
        (lambda manifest, i, n: still_to_do(manifest, i, n, first=0) if n > 1 else still_to_do(manifest, i, n), 'count from 1'),
        (lambda manifest, i, n: still_to_do(manifest, i, n, rank=True), 'by their *number*'),
        (lambda manifest, i, n: still_to_do(manifest, 1, 1), 'job 1 of 2'),
        (lambda manifest, i, n: still_to_do(manifest, i, n) or None, 'stub'),
        (lambda manifest, i, n: sorted(still_to_do(manifest, i, n), key=str), 'sort numbers, or text'),
    ])

"The checks behind the exercises of lesson 09, streaming."
from itertools import islice

from checking import assert_check

from vlground import checks_labels as checks


def group(names, split=lambda file: file.split('.', 1), folders=True, neighbours=True):
    samples = []
    for name in names:
        base, _, file = name.rpartition('/') if folders else ('', '', name)
        stem, ending = split(file)
        key = f'{base}/{stem}' if base else stem
        if not samples or samples[-1][0] != key or not neighbours: samples.append((key, []))
        samples[-1][1].append(ending)
    return samples


def in_a_dict(names):
    samples = {}
    for key, endings in group(names): samples.setdefault(key, []).extend(endings)
    return list(samples.items())


def test_check_group_members():
    assert_check(checks.check_group_members, group, [
        (lambda names: group(names, neighbours=False), 'Two members with one key'),
        (lambda names: group(names, lambda file: file.rsplit('.', 1)), '*first* dot'),
        (lambda names: group(names, folders=False), 'name of a *folder*'),
        (lambda names: group([name.rpartition('/')[2] for name in names]), 'A folder belongs'),
        (lambda names: [(key, ['.' + ending for ending in endings]) for key, endings in group(names)], 'without its dot'),
        (lambda names: group(names)[:1], 'Another key'),
        (in_a_dict, 'only neighbours'),
    ])


def shuffled(items, size, generator, rest=True, place=None):
    buffer = []
    for item in items:
        buffer.append(item)
        if len(buffer) > size: yield buffer.pop(generator.randrange(size) if place is None else place)
    while rest and buffer: yield buffer.pop(generator.randrange(len(buffer)))


def everything(items, size, generator):
    items = list(items) if isinstance(items, range) else [next(items) for _ in range(size)]
    generator.shuffle(items)
    yield from items


def own(items, size, generator):
    import random
    yield from shuffled(items, size, random.Random())


def no_seed(items, size, generator):
    import random
    yield from shuffled(items, size, random.Random(7))


def finite(items, size, generator):
    if not isinstance(items, range): raise MemoryError('a list of endless items')
    yield from shuffled(list(items), size, generator)


def rest_in_order(items, size, generator):
    buffer = []
    for item in items:
        buffer.append(item)
        if len(buffer) > size: yield buffer.pop(generator.randrange(size))
    yield from buffer


def by_blocks(items, size, generator):
    items = iter(items)
    while block := list(islice(items, size)):
        generator.shuffle(block)
        yield from block


def test_check_shuffled():
    assert_check(checks.check_shuffled, shuffled, [
        (lambda items, size, generator: shuffled(items, size, generator, rest=False), 'Every item must come out once'),
        (lambda items, size, generator: iter([*shuffled(items, size, generator)][:5]), 'Every item must come out once'),
        (everything, 'changes nothing'),
        (own, 'same seed gives the same order'),
        (no_seed, 'another seed gives another'),
        (lambda items, size, generator: shuffled(items, size, generator, place=0), 'another seed gives another' if False else 'hardly mixed'),
        (rest_in_order, 'The rest must come out in random order'),
        (by_blocks, 'not a whole buffer'),
        (finite, 'endless'),
    ])

"The checks behind the exercises of lesson 09, what others left."
import array
import base64
import pickle
import pickletools

import numpy as np
from checking import assert_check

from vlground import checks_labels as checks


def decode(text, rows, kind='f'):
    numbers = array.array(kind, base64.b64decode(text))
    return np.array(numbers, dtype=np.float32).reshape(rows, len(numbers)//rows)


def test_check_decode_array():
    assert_check(checks.check_decode_array, decode, [
        (lambda text, rows: decode(text, rows).astype(np.float64), '32-bit'),
        (lambda text, rows: decode(text, rows).ravel(), 'One row of four'),
        (lambda text, rows: decode(text, 1), '(2, 4)'),
        (lambda text, rows: decode(text, rows, 'i'), 'One row of four'),
        (lambda text, rows: decode(text, rows)[:, :4], 'wider than four'),
        (lambda text, rows: decode(text, rows).T if rows > 1 else decode(text, rows), '(2, 4)'),
        (lambda text, rows: decode(text.encode(), rows), 'may come as bytes'),
    ])


def different(ids, first=1):
    used, found = set(ids), []
    for i, id in enumerate(ids):
        if id in ids[:i]:
            k = first
            while f'{id}#{k}' in used: k += 1
            id = f'{id}#{k}'
            used.add(id)
        found.append(id)
    return found


def greedy(ids):
    taken, found = set(), []
    for id in ids:
        name, k = id, 0
        while name in taken: name, k = f'{id}#{k + 1}', k + 1
        taken.add(name), found.append(name)
    return found


def test_check_unique_ids():
    assert_check(checks.check_unique_ids, different, [
        (lambda ids: list(ids), 'The second "7"'),
        (lambda ids: different(ids, 2), 'The second "7"'),
        (lambda ids: [f'{id}#1' if id in ids[:i] else id for i, id in enumerate(ids)], 'The third'),
        (lambda ids: [f'{id}#{len(ids[:i]) - len(set(ids[:i])) + 1}' if id in ids[:i] else id for i, id in enumerate(ids)], 'count of its own'),
        (lambda ids: list(dict.fromkeys(ids)), 'The second "7"'),
        (lambda ids: sorted(different(ids)), 'order must stay' if sorted(['7', '8', '7#1', '8#1', '8#2']) == ['7', '8', '7#1', '8#1', '8#2'] else 'count of its own'),
        (lambda ids: [f'{id}#{ids[:i].count(id)}' if id in ids[:i] else id for i, id in enumerate(ids)], 'already look like'),
        (greedy, 'even further down'),
    ])


def names_in(data):
    "With a stack of all that is pushed, as the machine has it."
    found, stack, memo = set(), [], {}
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if name == 'GLOBAL': found.add(tuple(argument.split(' ')))
        elif name == 'STACK_GLOBAL': found.add((stack[-2], stack[-1]))
        if name == 'MEMOIZE': memo[len(memo)] = stack[-1] if stack else None
        elif 'UNICODE' in name: stack.append(argument)
        elif name in ('BINGET', 'LONG_BINGET'): stack.append(memo.get(argument))
        elif name not in ('PROTO', 'FRAME'): stack.append(None)
    return {pair for pair in found if None not in pair}


def clean(data):
    last, found = [], set()
    for instruction, argument, _ in pickletools.genops(data):
        if 'UNICODE' in instruction.name: last.append(argument)
        if instruction.name == 'GLOBAL': found.add(tuple(argument.split(' ')))
        if instruction.name == 'STACK_GLOBAL': found.add(tuple(last[-2:]))
    return found


def all_texts(data):
    texts = [argument for instruction, argument, _ in pickletools.genops(data) if 'UNICODE' in instruction.name]
    found = {tuple(argument.split(' ')) for instruction, argument, _ in pickletools.genops(data) if instruction.name == 'GLOBAL'}
    return found | set(zip(texts[::2], texts[1::2])) if data[1] >= 4 else found


def first_only(data): return set(sorted(names_in(data))[:1])


def by_loading(data):
    pickle.loads(data)
    return names_in(data) if data[1] < 4 else set()


def test_check_globals():
    assert_check(checks.check_globals, names_in, [
        (lambda data: set(), 'GLOBAL'),
        (lambda data: {tuple(argument.split(' ')) for instruction, argument, _ in pickletools.genops(data) if instruction.name == 'GLOBAL'}, 'From protocol 4 on'),
        (first_only, 'stop after the first'),
        (all_texts, 'data and no names'),
        (clean, 'out of the memo'),
        (by_loading, 'From protocol 4 on'),
    ])

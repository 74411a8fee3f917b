"The checks behind the exercises of lesson 14 on published weights."
import torch
from checking import assert_check

from vlground import checks_backbones as checks


def rename(state, rules, refuse=True):
    result = {}
    for name, tensor in state.items():
        for old, new in rules:
            if name.startswith(old):
                name = new + name[len(old):]
                break
        if refuse and name in result: raise ValueError(f'{name} twice')
        result[name] = tensor
    return result


def all_rules(state, rules):
    for rule in rules: state = rename(state, [rule])
    return state


def anywhere(state, rules):
    result = {}
    for name, tensor in state.items():
        for old, new in rules:
            if old in name:
                name = name.replace(old, new, 1)
                break
        result[name] = tensor
    return result


def everywhere(state, rules):
    fits = {name: next(((old, new) for old, new in rules if name.startswith(old)), ('', '')) for name in state}
    return {name.replace(*fits[name]) if fits[name][0] else name: tensor for name, tensor in state.items()}


def stripped(state, rules):
    result = {}
    for name, tensor in state.items():
        for old, new in rules:
            if name.startswith(old):
                while name.startswith(old) and old: name = name.removeprefix(old)
                name = new + name
                break
        result[name] = tensor
    return result


def longest(state, rules): return rename(state, sorted(rules, key=lambda rule: -len(rule[0])))


def wary(state, rules):
    for name in state:
        if (new := next(iter(rename({name: 0}, rules)))) != name and new in state: raise ValueError(f'{new} is there')
    return rename(state, rules)


def other_error(state, rules):
    try: return rename(state, rules)
    except ValueError as error: raise KeyError('twice') from error


def in_place(state, rules):
    result = rename(state, rules)
    state.clear()
    state.update(result)
    return state


def uses_rules_up(state, rules):
    result = rename(state, rules)
    rules.clear()
    return result


def test_check_rename_state():
    assert_check(checks.check_rename_state, rename, [
        (lambda state, rules: list(rename(state, rules)), 'dictionary'),
        (lambda state, rules: {name.removeprefix(rules[0][0]): tensor for name, tensor in state.items()}, 'becomes "model.pooler"'),
        (lambda state, rules: {name: tensor for name, tensor in rename(state, rules).items() if name not in state}, 'stays as it is'),
        (anywhere, '*beginning*'),
        (everywhere, 'further on'),
        (stripped, 'only once'),
        (lambda state, rules: rename(state, rules[::-1]), 'not the last'),
        (longest, 'before a longer one'),
        (all_rules, 'no other is tried'),
        (lambda state, rules: dict(sorted(rename(state, rules).items())), 'order of the checkpoint'),
        (lambda state, rules: rename(state, rules, refuse=False), 'Raise a ValueError'),
        (wary, 'A new name may be an old one'),
        (other_error, 'Raise a ValueError'),
        (in_place, 'make a new dictionary'),
        (uses_rules_up, 'make a new dictionary'),
    ])


def rows_of(joined, heads, head):
    size = len(joined)//(3*heads)
    return tuple(joined[first*heads*size + head*size:][:size] for first in range(3))


def test_check_parts_of_head():
    assert_check(checks.check_parts_of_head, rows_of, [
        (lambda joined, heads, head: torch.cat(rows_of(joined, heads, head)), 'three tensors'),
        (lambda joined, heads, head: joined.chunk(3), 'size, width'),
        (lambda joined, heads, head: tuple(part.T for part in rows_of(joined, heads, head)), 'size, width'),
        (lambda joined, heads, head: rows_of(joined, heads, head)[::-1], 'first third are queries'),
        (lambda joined, heads, head: joined.unflatten(0, (heads, 3, -1))[head].unbind(), 'thirds come first'),
        (lambda joined, heads, head: joined.unflatten(0, (3, heads, -1))[:, 0].unbind(), 'number of the head'),
        (lambda joined, heads, head: tuple(third[head::heads] for third in joined.chunk(3)), 'not every other'),
        (lambda joined, heads, head: tuple(third[head:head + len(third)//heads] for third in joined.chunk(3)), 'moves by its size'),
        (lambda joined, heads, head: rows_of(joined, heads, min(head, 2)), 'last head'),
        (lambda joined, heads, head: tuple(part[:joined.shape[1]//heads] for part in rows_of(joined, heads, head)), 'not columns'),
    ])


def lost(state, loaded, pieces=lambda each, rows: [each[i:i + rows] for i in range(0, len(each), rows)], equal=torch.equal):
    return [name for name, tensor in state.items() if not any(equal(tensor, piece) for each in loaded.values() for piece in pieces(each, len(tensor)))]


def sorted_numbers(tensor, piece): return tensor.shape == piece.shape and torch.equal(tensor.flatten().sort().values, piece.flatten().sort().values)
def flat(tensor, piece): return torch.equal(tensor.flatten(), piece.flatten())
def up_to_three(each, rows): return [piece for count in (1, 2, 3) if len(each) % count == 0 for piece in each.chunk(count)]


def close(tensor, piece): return tensor.shape == piece.shape and torch.allclose(tensor, piece)


def test_check_never_arrived():
    assert_check(checks.check_never_arrived, lost, [
        (lambda state, loaded: [name for name in state if name not in loaded], 'not names'),
        (lambda state, loaded: [], 'other numbers'),
        (lambda state, loaded: [name for (name, tensor), each in zip(state.items(), loaded.values()) if not torch.equal(tensor, each)], 'whatever the order'),
        (lambda state, loaded: sorted(lost(state, loaded)), 'order of the checkpoint'),
        (lambda state, loaded: lost(state, loaded, equal=lambda tensor, piece: bool((tensor == piece).all())), 'nothing should be raised'),
        (lambda state, loaded: lost(state, loaded, equal=lambda tensor, piece: tensor.shape[-1] == piece.shape[-1] and bool((tensor == piece).all())), 'broadcasts'),
        (lambda state, loaded: lost(state, loaded, pieces=lambda each, rows: [each]), 'first piece'),
        (lambda state, loaded: lost(state, loaded, pieces=lambda each, rows: [each[:rows]]), 'later piece'),
        (lambda state, loaded: lost(state, loaded, pieces=lambda each, rows: [each[i:i + rows] for i in range(len(each))]), 'whole pieces'),
        (lambda state, loaded: lost(state, loaded, pieces=lambda each, rows: each.split(rows) if each.ndim == 2 else [each]), 'one axis only'),
        (lambda state, loaded: lost(state, loaded, equal=close), 'Nearly'),
        (lambda state, loaded: lost(state, loaded, equal=sorted_numbers), 'another order'),
        (lambda state, loaded: lost(state, loaded, equal=flat), 'another shape'),
        (lambda state, loaded: lost(state, loaded, pieces=up_to_three, equal=flat), 'another shape'),
        (lambda state, loaded: lost(state, loaded, pieces=up_to_three), 'last of five'),
    ])

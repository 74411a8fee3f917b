"The checks behind the exercises of lesson 16."
import torch
from checking import assert_check

from vlground import checks_objectives as checks


def is_additive(table):
    return all(abs(float((row - table[0]).max() - (row - table[0]).min())) < 1e-3 for row in table)


def test_check_is_additive():
    assert_check(checks.check_is_additive, is_additive, [
        (lambda table: (table - table[:1]).std(1).max() < 1e-3, 'plain bool'),
        (lambda table: bool((table == table[0]).all()), 'all regions gain the same'),
        (lambda table: True, 'Each region gains another amount'),
        (lambda table: len(set(table.argmax(1).tolist())) == 1, 'which is best'),
        (lambda table: is_additive(table[:2]), 'all rows compared'),
        (lambda table: bool((table - table[0] == (table - table[0])[:, :1]).all()), 'tolerance'),
        (lambda table: torch.allclose(table - table[:1], (table - table[:1])[:, :1].expand_as(table), atol=.9), 'too wide'),
        (lambda table: len(table) > 1 and is_additive(table), 'single phrase'),
        (lambda table: is_additive(table) and bool((table[-1] >= table[0]).all()), 'may be negative'),
    ])


def test_check_as_bilinear():
    assert_check(checks.check_as_bilinear, lambda words, regions: torch.einsum('ki,kj->ij', words, regions)/len(words)**.5, [
        (lambda words, regions: regions.T @ words/len(words)**.5, 'word side first'),
        (lambda words, regions: words.T @ regions, '√4'),
        (lambda words, regions: words.T @ regions/len(words), '√4'),
        (lambda words, regions: words.T @ regions/max(len(words), words.shape[1])**.5, 'in which they meet'),
        (lambda words, regions: words.T @ regions/len(words)**.5 if words.shape[1] != 3 else words @ regions.T/len(words)**.5, 'not over word or region width'),
        (lambda words, regions: words @ regions.T, 'transposed'),
    ])


def turn_around(states, lengths):
    out = states.clone()
    for row, length in zip(out, lengths.tolist()): row[:length] = row[:length].flip(0)
    return out


def shifted(states, lengths):
    'the filling comes to the end by rolling what was turned'
    return torch.stack([row.flip(0).roll(int(length), 0) for row, length in zip(states, lengths)])


def test_check_turn_around():
    assert_check(checks.check_turn_around, turn_around, [
        (lambda states, lengths: states.flip(2), 'numbers of a state'),
        (lambda states, lengths: states, 'reverse order'),
        (lambda states, lengths: states.flip(1), 'filling first'),
        (shifted, 'filling stays'),
        (lambda states, lengths: turn_around(states, lengths)*(torch.arange(states.shape[1]) < lengths[:, None])[..., None], 'filling stays'),
        (lambda states, lengths: turn_around(states, lengths[:1].expand(len(states))), 'its own'),
        (lambda states, lengths: turn_around(states, lengths)[:, :int(lengths[0])], 'own two pieces'),
        (lambda states, lengths: turn_around(states, lengths).flip(0) if len(states) == 3 and lengths.min() == 4 else turn_around(states, lengths), 'own row'),
    ])

"The checks of lesson 19, fine-tuning: they pass a solution, and name the mistake in each seeded wrong answer."
import re

from checking import assert_check

from vlground.checks_tasks import check_cut_pair, check_layer_rate


def layer_rate(name, layers, decay):
    if not name.startswith('backbone.'): return 1.
    found = re.match(r'backbone\.layers\.(\d+)\.', name)
    return decay**(layers - int(found[1]) if found else layers + 1)


def in_order(name, layers, decay): # by the text after `layers.`, wherever it stands
    found = re.search(r'layers\.(\d+)\.', name)
    return decay**(layers - int(found[1])) if found else layer_rate(name, layers, decay)


def by_digit(name, layers, decay): # reads one digit of the layer's number
    found = re.match(r'backbone\.layers\.(\d)', name)
    return decay**(layers - int(found[1])) if found else layer_rate(name, layers, decay)


def test_layer_rate():
    assert_check(check_layer_rate, layer_rate, [
        (lambda *given: str(layer_rate(*given)), 'a number'),
        (lambda name, layers, decay: layer_rate(name, layers, decay)*decay, 'full rate'),
        (lambda name, layers, decay: layer_rate(name, layers, decay)/(decay if name.startswith('backbone.') else 1), 'counted from 0'),
        (lambda name, layers, decay: 1. if 'layers' not in name else decay if name.startswith('backbone.') else 1., 'power of 4'),
        (lambda name, layers, decay: layer_rate(name, layers, decay)/(decay if 'word' in name else 1), 'one power lower'),
        (by_digit, 'two digits'),
        (lambda name, layers, decay: .5 if decay == 1 else layer_rate(name, layers, decay), 'all learn alike'),
        (in_order, 'still of the head'),
    ])


def cut_pair(first, second, words):
    while first + second > words - 3: first, second = (first - 1, second) if first > second else (first, second - 1)
    return first, second


def equal_cuts_first(first, second, words):
    while first + second > words - 3: first, second = (first - 1, second) if first >= second else (first, second - 1)
    return first, second


def from_the_longer(first, second, words): # all of it, however short it gets
    over = max(0, first + second + 3 - words)
    return (first - over, second) if first > second else (first, second - over)


def half_each(first, second, words): # an odd piece goes to the longer
    room = words - 3
    if first + second <= room: return first, second
    if first < second: return (kept := min(first, room//2)), room - kept
    return room - (kept := min(second, room//2)), kept


def test_cut_pair():
    assert_check(check_cut_pair, cut_pair, [
        (lambda *given: sum(cut_pair(*given)), 'a pair'),
        (lambda first, second, words: cut_pair(first, second, min(words, first + second + 2)), 'nothing is cut'),
        (lambda first, second, words: cut_pair(first, second, words + 1), 'Three places'),
        (lambda first, second, words: (first, max(0, min(second, words - 3 - first))), 'The first is longer'),
        (lambda first, second, words: (min(first, words - 3 - second), second) if first <= second and first + second > words - 3 else cut_pair(first, second, words), 'The second is longer'),
        (equal_cuts_first, 'the second is cut'),
        (from_the_longer, 'in the end they are equally long'),
        (half_each, 'the first still has one more'),
    ])

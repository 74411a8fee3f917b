"The checks behind the exercises of lesson 18, pre-training."
import hashlib
from dataclasses import replace

from checking import assert_check

from vlground import checks_training as checks
from vlground.pretrain import PRESETS

PAPER = PRESETS['paper']


def half(captions, epochs, batch_size, warmup, first=0, whole=True, share=.1, strict=False):
    "Worked out, not walked through; with the mistakes that one can make."
    steps = epochs*(captions//batch_size if whole else -(-captions//batch_size))
    rising = round(warmup*steps)
    start = -(-rising//2) - 1 if rising else 0
    end = steps - -(-(steps - rising)//2)
    return max(0, start) + first, end + first - strict


def per_run(captions, epochs, batch_size, warmup): return half(captions*epochs, 1, batch_size, warmup)
def no_warmup(captions, epochs, batch_size, warmup): return half(captions, epochs, batch_size, 0.)


def warmup_of_an_epoch(captions, epochs, batch_size, warmup):
    return half(captions, epochs, batch_size, warmup/epochs)


def test_check_steps_at_half_rate():
    assert_check(checks.check_steps_at_half_rate, half, [
        (lambda *each: half(*each)[0], 'could not be read'),
        (lambda *each: half(*each, first=1), 'counted from 0'),
        (no_warmup, 'step 1 is the first'),
        (lambda *each: half(*each, strict=True), 'half of the highest counts too'),
        (lambda *each: half(*each, whole=False), 'whole steps, not 20'),
        (per_run, 'and not 197'),
        (warmup_of_an_epoch, 'a share of all steps'),
    ])


def rows(row, **changes):
    return replace(PAPER, **dict(fraction=1/8, spe=row > 1, grounding={3: 'token', 4: 'phrase'}.get(row, 'none')) | changes)


def by_weight(row):
    "Row 2 as the table writes it: with lambda 0."
    return replace(PAPER, fraction=.125, spe=row in (2, 3, 4), grounding='token' if row == 3 else 'phrase', grounding_weight=0. if row < 3 else 20.)


def test_check_table_two():
    assert checks.check_table_two(by_weight)
    assert_check(checks.check_table_two, rows, [
        (lambda row: {}, 'Give a PretrainConfig'),
        (lambda row: replace(PRESETS['mini'], fraction=1/8), 'published size'),
        (lambda row: replace(rows(row), batch_size=64), 'batches of 512'),
        (lambda row: replace(PRESETS['paper-exact'], **{name: getattr(rows(row), name) for name in ('fraction', 'spe', 'grounding')}), 'leave the rest'),
        (lambda row: rows(row, learning_rate=.01), 'leave the rest'),
        (lambda row: rows(row, backbone='vlbert'), 'leave the rest'),
        (lambda row: rows(row, bert=''), 'leave the rest'),
        (lambda row: rows(row, fraction=1.), 'left at 1'),
        (lambda row: rows(row, grounding={4: 'token', 3: 'phrase'}.get(row, 'none')), 'level of phrases'),
        (lambda row: rows(row, grounding='phrase' if row > 2 else 'none'), 'level of tokens'),
        (lambda row: rows(row, spe=True), 'without the spatial encoding'),
        (lambda row: rows(row, grounding=rows(row).grounding if row > 1 else 'phrase'), 'without the grounding loss'),
        (lambda row: rows(row, spe=False), 'adds the spatial encoding'),
        (lambda row: rows(row, grounding='phrase') if row == 2 else rows(row), 'lambda 0'),
        (lambda row: rows(row, spe=row in (2, 4)), 'row 3 has the spatial'),
        (lambda row: rows(row, spe=row in (2, 3)), 'row 4 has the spatial'),
        (lambda row: rows(row, grounding_weight=1.), 'its weight is 20'),
        (lambda row: rows(row, alignment_weight=20.), 'alignment counts with weight 1'),
        (lambda row: rows(row, seed=row), 'everything else must be equal'),
    ])


def inside(choose, ids, fractions):
    sets = [set(choose(ids, fraction)) for fraction in sorted(fractions)]
    return all(a <= b for a, b in zip(sets, sets[1:]))


def orderless(choose, ids, fractions):
    moved = sorted(ids, key=lambda id: hashlib.sha256(id.encode()).hexdigest())
    return all(set(choose(moved, fraction)) == set(choose(ids, fraction)) for fraction in fractions)


def alone(choose, ids, fractions):
    "Ids go one by one."
    return all(set(choose(ids[:k] + ids[k + 1:], fraction)) == set(choose(ids, fraction)) - {ids[k]} for fraction in fractions for k in range(0, len(ids), 5))


def sound(choose, ids, fractions): return all(test(choose, ids, fractions) for test in (inside, orderless, alone))


def test_check_sound_choice():
    assert_check(checks.check_sound_choice, sound, [
        (lambda *each: 'yes', 'True or False'),
        (lambda *each: False, 'was refused'),
        (lambda *each: True, 'in another order'),
        (lambda choose, ids, fractions: sound(choose, ids, fractions) and choose(ids, .5) == sorted(choose(ids, .5), key=ids.index), 'compare sets'),
        (lambda choose, ids, fractions: inside(lambda ids, fraction: choose(ids, fraction), ids, fractions) and orderless(choose, ids, fractions), 'ids are missing'),
        (lambda choose, ids, fractions: orderless(choose, ids, fractions) and alone(choose, ids, fractions), 'inside the half'),
        (lambda choose, ids, fractions: sound(choose, ids, fractions) and all(set(choose(ids, a)) <= set(choose(ids, b)) for a, b in zip(fractions, fractions[1:])), 'sort them'),
        (lambda choose, ids, fractions: sound(choose, ids, sorted(fractions)[:2]), 'All neighbours'),
    ])

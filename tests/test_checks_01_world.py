"The checks behind the exercises of lesson 01, scenes and the small world."
from collections import Counter, defaultdict

from checking import assert_check

from vlground import checks


def middle(box): return (box[0] + box[2])/2


def test_check_faces():
    assert_check(checks.check_faces, lambda box, flip, other: middle(other) < middle(box) if flip else middle(other) > middle(box), [
        (lambda box, flip, other: other[0] + other[2] > box[0] + box[2], 'use flip'),
        (lambda box, flip, other: (other[0] < box[0]) == flip, 'left sides'),
        (lambda box, flip, other: (other[2] < box[2]) == flip, 'right sides'),
        (lambda box, flip, other: (middle(other) > middle(box)) == flip, 'Facing right'),
        (lambda box, flip, other: not flip, 'depend on where'),
        (lambda box, flip, other: (other[0] + other[1] + other[2] + other[3] < sum(box)) == flip, 'higher up'),
        (lambda box, flip, other: other.x1 < box.x1, 'AttributeError'),
    ])


def visible(boxes, later=True, divide=None, twice=False, swap=False):
    shares = []
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        pixels = [(y, x) if swap else (x, y) for x in range(x1, x2) for y in range(y1, y2)]
        others = boxes[i + 1:] if later else boxes[:i]
        counts = [sum(a <= x < c and b <= y < d for a, b, c, d in others) for x, y in pixels]
        hidden = sum(counts) if twice else sum(map(bool, counts))
        shares.append(1 - hidden/(divide(boxes) if divide else len(pixels)))
    return shares


def smallest(boxes): return min((x2 - x1)*(y2 - y1) for x1, y1, x2, y2 in boxes)


def test_check_visible():
    assert_check(checks.check_visible, visible, [
        (lambda boxes: [1.]*len(boxes), 'The second hides half'),
        (lambda boxes: visible(boxes, later=False), 'not the other way round'),
        (lambda boxes: visible(boxes, divide=smallest), 'whose share you want'),
        (lambda boxes: visible(boxes, twice=True), 'hidden once'),
        (lambda boxes: visible(boxes, swap=True), 'exchanged'),
        (lambda boxes: visible(boxes)[:1], 'both can be seen'),
    ])


def singles_out(said, things, i, fits=all, meant=True):
    fit = [fits(thing.get(trait) == value for trait, value in said.items()) for thing in things]
    return sum(fit) == 1 and (fit[i] or not meant)


def by_first(said, things, i): return next((thing for thing in things if said.items() <= thing.items()), None) == things[i]


def test_check_singles_out():
    assert_check(checks.check_singles_out, singles_out, [
        (lambda said, things, i: singles_out(said, things, i, fits=any), '*all* traits'),
        (lambda said, things, i: singles_out(said, things, i, meant=False), 'which one it is'),
        (lambda said, things, i: said.items() <= things[i].items(), 'both fit'),
        (by_first, 'both fit'),
        (lambda said, things, i: [thing for thing in things if all(thing[trait] == value for trait, value in said.items())] == [things[i]], 'KeyError'),
        (lambda said, things, i: sum(said.items() <= thing.items() for thing in things), 'Return a bool'),
        (lambda said, things, i: said.items() <= things[i].items() and not any(said.items() <= thing.items() for thing in things if thing != things[i]),
         'compare indices'),
        (lambda said, things, i: singles_out(dict(list(said.items())[:2]), things, i), 'Three traits'),
        (lambda said, things, i: bool(said) and singles_out(said, things, i), 'Nothing was said'),
    ])


def write(pieces, one=0, keep=lambda things: things is not None, before=True, first=False):
    text, mentions = '', []
    for words, things in pieces:
        start = len(text) + (0 if before else len(words))
        text += words
        if keep(things): mentions.append((start, start + len(words) - one, things[:1] if first else things))
    return text, mentions


def searched(pieces):
    text = ''.join(words for words, _ in pieces)
    return text, [(text.find(words), text.find(words) + len(words), things) for words, things in pieces if things is not None]


def searched_on(pieces):
    text, at, mentions = ''.join(words for words, _ in pieces), 0, []
    for words, things in pieces:
        if things is None: continue
        start = text.find(words, at)
        at = start + len(words)
        mentions.append((start, at, things))
    return text, mentions


def test_check_write():
    assert_check(checks.check_write, write, [
        (lambda pieces: write(pieces, one=1), 'one past the last'),
        (lambda pieces: write(pieces, keep=lambda things: True), 'no mention'),
        (lambda pieces: write(pieces, keep=bool), 'only None is none'),
        (lambda pieces: write(pieces, before=False), 'one past the last'),
        (searched, 'two mentions in two places'),
        (searched_on, 'mere words'),
        (lambda pieces: write(pieces, first=True), 'whole tuple'),
        (lambda pieces: (' '.join(words for words, _ in pieces), write(pieces)[1]), 'part of the text'),
        (lambda pieces: write(pieces) if pieces else ('', None), 'Without pieces'),
    ])


def best_guess(train, test, each=True, count_all=False, keep=False, missing=0):
    seen, asked = defaultdict(Counter), defaultdict(list)
    for n, rank in train: seen[n if each else 0][rank] += 1
    for n, rank in test: asked[n].append(rank)
    def guess(n): return seen[n if each else 0].most_common(1)[0][0] if seen[n if each else 0] else missing
    found = {n: ranks.count(guess(n))/(len(test) if count_all else len(ranks)) for n, ranks in asked.items()}
    return {n: 0. for n, _ in train} | found if keep else found


def test_check_best_guess():
    assert_check(checks.check_best_guess, best_guess, [
        (lambda train, test: best_guess(test, test), 'looking at test'),
        (lambda train, test: best_guess(train, test, each=False), 'guess of its own'),
        (lambda train, test: best_guess(train, test, count_all=True), 'with this n'),
        (lambda train, test: best_guess(train, test, keep=True), 'does not appear'),
        (lambda train, test: best_guess(train, test, missing=-1), 'rank 0'),
        (lambda train, test: {n: 1/n for n, _ in test}, '{2: 1.0}'),
        (lambda train, test: list(best_guess(train, test).items()), '{2: 1.0}'),
    ])

"Scenes and what is said about them: every claim is checked against the record of the scene, by code that shares nothing with the code that made it."
import hashlib
import math
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from vlground import scenes, world
from vlground.drawing import BACKGROUNDS, COLOURS, KINDS, PATTERNS
from vlground.scenes import CAPTIONS, RECIPES, REFER, SIDE, TEACHER, Recipe, Scene, covered, example_scene, kind_shares, make_scene, render, spot
from vlground.world import SAID, SIZES, captions, expressions, short_labels, telling_traits

some_recipe = st.sampled_from(list(RECIPES.values()))
some_scene = st.builds(make_scene, st.integers(0, 2**32), st.integers(0, 10**6), some_recipe)
some_box = st.tuples(*[st.integers(0, 12)]*2, *[st.integers(1, 12)]*2).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@cache
def many(recipe: str, count: int, seed: int = 11) -> tuple[Scene, ...]: return tuple(make_scene(seed, index, RECIPES[recipe]) for index in range(count))


def squares(box) -> set[tuple[int, int]]: return set(product(range(int(box[0]), int(box[2])), range(int(box[1]), int(box[3]))))


# scenes

@settings(max_examples=30)
@given(st.integers(0, 2**40), st.integers(0, 10**9), some_recipe)
def test_a_scene_depends_on_its_keys_alone(seed, index, recipe):
    scene = make_scene(seed, index, recipe)
    make_scene(seed, index + 1, recipe)
    np.random.seed(index % 2**32)
    assert make_scene(seed, index, recipe) == scene and scene.keys == (recipe.name, seed, index)


def test_scenes_of_other_keys_differ():
    keys = [(seed, index, recipe) for seed in (0, 1) for index in range(8) for recipe in RECIPES.values()]
    assert len({make_scene(*key).things for key in keys}) == len(keys)


PROGRAM = '''
import hashlib
from vlground.scenes import RECIPES, make_scene, render
from vlground.world import captions, expressions, short_labels
digest = hashlib.sha256()
for recipe in RECIPES.values():
    for index in order:
        scene = make_scene(5, index, recipe)
        said = scene, captions(scene, recipe, 2), expressions(scene, 2), short_labels(scene)
        digest.update(repr(said).encode() + render(scene).tobytes())
'''


def test_another_process_makes_the_same(monkeypatch):
    here = {'order': (0, 1, 2)}
    exec(PROGRAM, here)
    monkeypatch.setenv('PYTHONHASHSEED', '77')
    program = f'from vlground.scenes import make_scene\nmake_scene(9, 9)\norder = (0, 1, 2){PROGRAM}\nprint(digest.hexdigest())'
    there = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
    assert there.stdout.strip() == here['digest'].hexdigest(), there.stderr


@settings(max_examples=60)
@given(some_scene)
def test_boxes_are_whole_and_inside(scene):
    assert 1 <= len(scene.things) <= RECIPES[scene.keys[0]].things[1] + 1
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        assert all(v == int(v) for v in thing.box)
        assert 0 <= x1 < x2 <= SIDE and 0 <= y1 < y2 <= SIDE
        assert thing.kind in KINDS and thing.colour in KINDS[thing.kind].colours and thing.pose in KINDS[thing.kind].poses


@given(some_box, some_box)
def test_covered_counts_squares(a, b):
    shared = len(squares(a) & squares(b))/min(len(squares(a)), len(squares(b)))
    assert covered(a, b) == covered(b, a) == pytest.approx(shared)
    assert 0 <= covered(a, b) <= 1 and covered(a, a) == 1
    assert covered(tuple(3*v for v in a), tuple(3*v for v in b)) == pytest.approx(shared)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from([0., .15, .3, .6]))
def test_no_more_is_covered_than_the_recipe_allows(index, overlap):
    apart = make_scene(1, index, Recipe(overlap=overlap, related=0.)) # without relations each thing is a group of its own
    for a, b in combinations(apart.things, 2):
        assert len(squares(a.box) & squares(b.box)) <= overlap*min(len(squares(a.box)), len(squares(b.box))) + 1e-9
    feet = [thing.box[3] for thing in apart.things]
    assert feet == sorted(feet), 'what stands nearer is drawn later'
    for things in (make_scene(1, index, Recipe(overlap=overlap)).things,):
        close = Counter(i for pair in combinations(range(len(things)), 2) if covered(*(things[i].box for i in pair)) > overlap for i in pair)
        assert max(close.values(), default=0) <= 1, 'more than the one other thing of the same group is covered'


@settings(max_examples=60)
@given(some_scene)
def test_relations_hold(scene):
    joints = {'holding': ('hand', 'grip'), 'wearing': ('head', 'foot'), 'riding': ('hips', 'seat')}
    found = {(r.subject, r.name, r.object) for r in scene.relations}
    assert len(found) == len(scene.relations) and {name for _, name, _ in found} <= set(SAID)
    for i, name, j in found:
        a, b = scene.things[i], scene.things[j]
        assert i != j
        if name in joints: assert math.dist(spot(a, joints[name][0]), spot(b, joints[name][1])) < 3, (name, a, b) # rounded to whole pixels
        if name in ('on', 'under'): assert b.box[0] <= (a.box[0] + a.box[2])/2 <= b.box[2]
        if name == 'chasing': assert a.pose == 'running' and a.flip == b.flip
        if name in ('chasing', 'looking at'): assert a.flip == (b.box[0] + b.box[2] < a.box[0] + a.box[2]), 'it looks the other way'
        if name == 'next to': assert (j, 'next to', i) in found
    built = {frozenset((i, j)) for i, name, j in found if name in ('holding', 'wearing', 'riding', 'on', 'under', 'chasing')}
    assert not built & {frozenset((i, j)) for i, name, j in found if name in ('looking at', 'next to')}


def test_recipes_have_their_own_shares():
    counts = {name: Counter(thing.kind for scene in many(name, 150) for thing in scene.things) for name in RECIPES}
    vectors = {name: np.array([count[kind] for kind in KINDS])/count.total() for name, count in counts.items()}
    assert np.corrcoef(vectors['captions'], vectors['refer'])[0, 1] > .6 > .3 > np.corrcoef(vectors['captions'], vectors['teacher'])[0, 1]
    def like(name): return sum(n for scene in many(name, 150) for n in Counter(thing.kind for thing in scene.things).values() if n > 1)
    assert like('refer')/counts['refer'].total() > like('captions')/counts['captions'].total() + .1
    assert not set(KINDS) - {thing.kind for scene in many('captions', 600) for thing in scene.things}, 'a kind that never occurs'


@pytest.mark.parametrize('ranking, skew', [('web', 8.), ('annotators', 2.), ('another', .5)])
def test_kind_shares(ranking, skew):
    names, cumulated = kind_shares(ranking, skew)
    shares = np.diff(cumulated, prepend=0)
    assert sorted(names) == sorted(KINDS) and cumulated[-1] == pytest.approx(1)
    assert np.allclose(shares/shares[0], [skew/(k + skew) for k in range(len(KINDS))])
    assert names != kind_shares('yet another', skew)[0]


@pytest.mark.parametrize('wrong, words', [(dict(like=1.2), 'Recipe.like'), (dict(contradiction=-.1), 'Recipe.contradiction'), (dict(overlap=30), 'Recipe.overlap'),
                                          (dict(skew=0.), 'Recipe.skew'), (dict(things=(7, 4)), 'Recipe.things'), (dict(things=(0, 4)), 'Recipe.things')])
def test_recipes_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words): Recipe(**wrong)


def test_wrong_names_are_refused():
    scene = example_scene('A')
    with pytest.raises(ValueError, match="no example scene 'C'"): example_scene('C')
    with pytest.raises(ValueError, match='dragon'): render(replace(scene, things=(replace(scene.things[0], kind='dragon'),)))
    with pytest.raises(ValueError, match='moonscape'): render(replace(scene, background='moonscape'))
    with pytest.raises(ValueError, match='-1'): make_scene(0, -1)


def test_example_scenes_have_the_boxes_of_the_course():
    boxes = {name: {thing.kind: thing.box for thing in example_scene(name).things} for name in 'AB'}
    assert boxes['A'] == {'dog': (24, 136, 104, 196), 'cat': (128, 150, 168, 190), 'house': (152, 40, 248, 140), 'sun': (8, 8, 56, 56)}
    assert boxes['B'] == {'boy': (30, 120, 70, 220), 'girl': (180, 118, 222, 220), 'ball': (110, 190, 138, 218), 'tree': (60, 30, 130, 150)}


# pictures

def test_a_picture_is_its_scene_drawn():
    for scene in many('captions', 4):
        picture = render(scene)
        assert picture.size == (SIDE, SIDE) and picture.mode == 'RGB'
        assert picture.tobytes() == render(scene).tobytes()


def test_what_is_carried_casts_no_shadow():
    "Without the word that it is carried it casts one, below its box, and nothing else changes."
    carried = 0
    for scene in many('captions', 60):
        hanging = [r.object for r in scene.relations if r.name in ('holding', 'wearing')] + [r.subject for r in scene.relations if r.name in ('riding', 'on')]
        loose = replace(scene, relations=tuple(r for r in scene.relations if r.name not in ('holding', 'wearing', 'riding', 'on')))
        lighter = np.asarray(render(scene), int).sum(-1) - np.asarray(render(loose), int).sum(-1)
        assert lighter.min() >= 0 and (hanging or not lighter.any())
        near = np.zeros((SIDE, SIDE), bool)
        for x1, _, x2, y2 in (map(int, scene.things[i].box) for i in hanging): near[max(0, y2 - 30):y2 + 30, max(0, x1 - 30):x2 + 30] = True
        assert not lighter[~near].any()
        carried += bool(lighter.any())
    assert carried > 10


def test_a_change_of_a_thing_stays_in_its_box():
    for scene in many('refer', 12):
        for i, thing in enumerate(scene.things[:2]):
            other = next((colour for colour in KINDS[thing.kind].colours if colour != thing.colour), None)
            if other is None: continue
            things = list(scene.things)
            things[i] = replace(thing, colour=other)
            changed = (np.asarray(render(scene)) != np.asarray(render(replace(scene, things=tuple(things))))).any(-1)
            x1, y1, x2, y2 = map(int, thing.box)
            inside = changed[y1:y2, x1:x2].sum()
            assert inside == changed.sum()
            hidden = len(set.union(set(), *(squares(later.box) for later in scene.things[i + 1:])) & squares(thing.box))
            assert inside > 0 or hidden > .5*len(squares(thing.box))


# captions

PLURALS = {'men': 'man', 'guys': 'man', 'women': 'woman', 'ladies': 'woman', 'puppies': 'dog', 'bunnies': 'rabbit', 'couches': 'sofa', 'buses': 'bus',
           'benches': 'bench', 'bushes': 'bush', 'sheep': 'sheep', 'teddies': 'teddy bear', 'cactuses': 'cactus'}
OTHER_NAMES = dict(guy='man', lady='woman', puppy='dog', kitten='cat', bunny='rabbit', bike='bicycle', couch='sofa', airplane='plane', mug='cup', handbag='bag',
                   smartphone='phone', ship='boat', cottage='house', teddy='teddy bear', oak='tree', blossom='flower')
NOUNS = {kind: {kind} for kind in KINDS} | {name: {kind} for name, kind in OTHER_NAMES.items()} | {'kid': {'boy', 'girl'}}
MANY = {f'{name}s': kinds for name, kinds in NOUNS.items()} | {name: {kind} for name, kind in PLURALS.items()}
VALUES = {word: ('size', size) for size, words in SIZES.items() for word in words} | {word: ('colour', word) for word in COLOURS}
VALUES |= {word: ('pattern', word) for word in PATTERNS} | {pose: ('pose', pose) for kind in KINDS.values() for pose in kind.poses if pose != 'plain'}


def parsed(phrase: str) -> tuple[set[str], dict[str, str], int]:
    "The kinds that a phrase may mean, the attributes it names, and how many things: its words are used up one by one."
    words, number, attributes = phrase.split(), 1, {}
    if words[:3] == ['a', 'couple', 'of']: words, number = words[3:], 2
    elif words[0] in ('two', 'three', 'four'): words, number = words[1:], dict(two=2, three=3, four=4)[words[0]]
    elif words[0] in ('a', 'an', 'the'): words = words[1:]
    kinds = None
    while words:
        pair = ' '.join(words[:2])
        known = MANY if number > 1 else NOUNS
        if kinds is None and len(words) > 1 and pair in known: kinds, words = known[pair], words[2:]
        elif kinds is None and words[0] in known: kinds, words = known[words[0]], words[1:]
        elif words[0] in VALUES: attributes, words = attributes | dict([VALUES[words[0]]]), words[1:]
        elif words[0] in ('in', 'the', 'shirt', 'that', 'is'): words = words[1:]
        else: raise AssertionError(f'{words[0]!r} in {phrase!r} means nothing')
    assert kinds, f'{phrase!r} names no kind'
    return kinds, attributes, number


def fits(thing, kinds, attributes) -> bool: return thing.kind in kinds and all(getattr(thing, name) == value for name, value in attributes.items())


@settings(max_examples=60)
@given(some_scene, some_recipe, st.integers(1, 4))
def test_mentions_lie_in_the_caption(scene, recipe, count):
    found = captions(scene, recipe, count)
    assert len(found) == count and captions(scene, recipe, count + 1)[:count] == found
    for caption in found:
        assert caption.text and caption.mentions
        at = 0
        for mention in caption.mentions:
            assert at <= mention.start < mention.end <= len(caption.text)
            at = mention.end
            phrase = caption.text[mention.start:mention.end]
            assert phrase == phrase.strip() and all(0 <= i < len(scene.things) for i in mention.things)
            parsed(phrase) # every word of it means something
        named = [i for mention in caption.mentions for i in mention.things]
        assert len(named) == len(set(named)), 'a thing is named twice'


@settings(max_examples=60)
@given(some_scene, st.sampled_from([0., .3, 1.]))
def test_gold_is_true(scene, contradiction):
    present = {thing.kind for thing in scene.things}
    for caption in captions(scene, replace(CAPTIONS, contradiction=contradiction), 4):
        for mention in caption.mentions:
            kinds, attributes, number = parsed(caption.text[mention.start:mention.end])
            assert mention.things or contradiction, 'a mention of something that is not there'
            assert not mention.things or number == len(mention.things)
            assert all(fits(scene.things[i], kinds, attributes) for i in mention.things)
            if number > 1: assert {i for i, thing in enumerate(scene.things) if thing.kind in kinds} == set(mention.things)
            elif contradiction == 1: assert not mention.things
            # "a kid" may stand for a boy who is not there beside a girl who is
            if not mention.things: assert kinds - present


def test_how_often_captions_are_wrong_is_a_setting():
    for setting in (.1, .3):
        mentions = [m for scene in many('captions', 150) for c in captions(scene, replace(CAPTIONS, contradiction=setting), 2) for m in c.mentions]
        wrong, single = sum(not m.things for m in mentions), sum(len(m.things) < 2 for m in mentions)
        assert abs(wrong/single - setting) < 4*(setting*(1 - setting)/single)**.5


def test_chatter_is_a_setting():
    def chatty(setting):
        said = [c.text for scene in many('captions', 150) for c in captions(scene, replace(CAPTIONS, chatter=setting))]
        places = {words for background in BACKGROUNDS.values() for words in background.words}
        return np.mean([text.endswith(world.ENDINGS) and not text.endswith(tuple(places)) or text.startswith(world.OPENINGS) for text in said])
    assert chatty(0.) == 0 and .2 < chatty(.4) < .6 and chatty(1.) > .8


def test_captions_say_things_in_many_ways():
    scene = many('captions', 4)[3]
    assert len({caption.text for caption in captions(scene, count=60)}) > 50
    texts = ' '.join(caption.text for scene in many('captions', 150) for caption in captions(scene, count=2))
    assert {'puppy', 'dog', 'lady', 'woman', 'little', 'tiny', 'small', 'beside', 'near'} <= set(texts.split())
    for article, noun in zip(texts.split(), texts.split()[1:]):
        if article in ('a', 'an') and noun != 'couple': assert (article == 'an') == (noun[0] in 'aeiou'), f'{article} {noun}'


# expressions

VERBS = {tuple(way.split()): {name for name, ways in SAID.items() if way in ways} for ways in SAID.values() for way in ways}
PLACES = '''left right top bottom above below over behind front back middle centre center central corner upper lower uppermost far near nearest closest
first second third fourth last edge side leftmost rightmost here there north south east west'''.split()


def split_at_verb(text: str) -> tuple[str, set[str] | None, str]:
    "A phrase, the relations that the verb may mean, and another phrase; no verb: the relations are None."
    words = text.split()
    for length in (3, 2, 1):
        for at in range(1, len(words) - length):
            if tuple(words[at:at + length]) in VERBS: return ' '.join(words[:at]), VERBS[tuple(words[at:at + length])], ' '.join(words[at + length:])
    return text, None, ''


def read(scene: Scene, text: str) -> set[int]:
    "Every thing of a scene that an expression may mean, by trying all things, or all relations."
    first, names, second = split_at_verb(text)
    kinds, attributes, _ = parsed(first)
    fit = {i for i, thing in enumerate(scene.things) if fits(thing, kinds, attributes)}
    if names is None: return fit
    kinds, attributes, _ = parsed(second)
    return {i for i in fit if any(r.subject == i and r.name in names and fits(scene.things[r.object], kinds, attributes) for r in scene.relations)}


def test_the_reader_reads():
    a = example_scene('A')
    assert read(a, 'the dog running after the small cat') == read(a, 'red puppy') == {3} and read(a, 'the cottage') == {0} and read(a, 'cat chasing dog') == set()
    twice = replace(a, things=(*a.things, replace(a.things[3], box=(0., 200., 80., 250.))))
    assert read(twice, 'the dog') == {3, 4} and read(twice, 'dog chasing the cat') == {3}
    with pytest.raises(AssertionError, match='means nothing'): read(a, 'the happy dog')


@settings(max_examples=60)
@given(some_scene, st.integers(1, 4))
def test_expressions_fit_one_thing(scene, each):
    found = expressions(scene, each)
    assert found == expressions(scene, each)
    for e in found:
        assert read(scene, e.text) == {e.target}, e
        assert not set(e.text.split()) & set(PLACES), e
        assert e.like == sum(thing.kind == scene.things[e.target].kind for thing in scene.things)
        verb = split_at_verb(e.text)[1]
        assert e.needs == ('kind' if e.like == 1 else 'relation' if verb else 'attribute')
        # with one word less it would not do
        if e.needs == 'attribute': assert len(read(scene, scene.things[e.target].kind)) > 1
    assert max(Counter(e.target for e in found).values(), default=0) <= each
    assert len({(e.target, e.text) for e in found}) == len(found)


def test_expressions_fit_one_thing_in_hundreds_of_scenes():
    found = [(scene, e) for scene in many('refer', 250) for e in expressions(scene)]
    assert all(read(scene, e.text) == {e.target} for scene, e in found)
    counts = Counter((e.needs, min(e.like, 4)) for _, e in found)
    assert all(counts[needs, like] > 10 for needs in ('attribute', 'relation') for like in (2, 3, 4)) and counts['kind', 1] > 10
    assert not set(' '.join(e.text for _, e in found).split()) & set(PLACES)


@settings(max_examples=60)
@given(some_scene)
def test_telling_traits_are_the_smallest(scene):
    for i, thing in enumerate(scene.things):
        def alone(names): return [j for j, o in enumerate(scene.things) if o.kind == thing.kind and all(getattr(o, n) == getattr(thing, n) for n in names)] == [i]
        worth = [n for n in ('colour', 'pattern', 'size', 'pose') if getattr(thing, n) not in ('plain', 'normal', 'standing')]
        if len(KINDS[thing.kind].colours) == 1 and 'colour' in worth: worth.remove('colour')
        expected = {frozenset([n]) for n in worth if alone([n])}
        expected |= {frozenset(pair) for pair in combinations(worth, 2) if alone(pair) and not any(alone([n]) for n in pair)}
        found = telling_traits(scene, i)
        assert {frozenset(traits) for traits in found} == expected and len(found) == len(expected)
        assert all(getattr(thing, name) == value for traits in found for name, value in traits.items())


# labels

@settings(max_examples=60)
@given(some_scene)
def test_labels_fit_one_thing(scene):
    found = short_labels(scene)
    assert len({i for _, i in found}) == len(found)
    for text, i in found:
        assert read(scene, text) == {i} and scene.things[i].kind in text
        assert not set(text.replace('teddy bear', '').split()) & {'the', 'a', 'an', 'kid', *OTHER_NAMES, *PLACES}


def test_labels_are_from_another_distribution():
    taught = Counter(text for scene in many('teacher', 150) for text, _ in short_labels(scene))
    said = Counter(c.text[m.start:m.end] for scene in many('captions', 150) for c in captions(scene) for m in c.mentions)
    assert sum(said[text] for text in taught) == 0, 'a label without an article is a phrase of a caption'
    lengths = [sum(len(text.split())*n for text, n in count.items())/count.total() for count in (taught, said)]
    assert lengths[0] + .7 < lengths[1]


# a learner that does not see

def examples(seed: int, indices: range) -> list[tuple[list[str], int, int]]:
    "Words of an expression, how many like things there are, and the rank of the right one from left to right."
    found = []
    for scene in (make_scene(seed, index, REFER) for index in indices):
        for e in expressions(scene):
            like = sorted((i for i, thing in enumerate(scene.things) if thing.kind == scene.things[e.target].kind), key=lambda i: sum(scene.things[i].box[::2]))
            if 2 <= len(like) <= 4: found.append((e.text.split(), len(like), like.index(e.target)))
    return found


def naive_bayes(train: list, test: list) -> list[bool]: # is the guess right?
    "Guess the rank from the words, for each number of like things, by counting."
    words, ranks = defaultdict(Counter), defaultdict(Counter)
    vocabulary = {word for text, *_ in train for word in text}
    for text, n, rank in train:
        ranks[n][rank] += 1
        words[n, rank].update(set(text))
    def score(text, n, rank):
        known = [word for word in set(text) if word in vocabulary]
        return math.log(ranks[n][rank] + 1) + sum(math.log((words[n, rank][word] + 1)/(ranks[n][rank] + 2)) for word in known)
    return [max(range(n), key=lambda r: score(text, n, r)) == rank for text, n, rank in test]


def test_words_do_not_tell_which_one_is_meant():
    train, test = examples(31, range(330)), examples(31, range(330, 500))
    assert len(test) > 300
    right = naive_bayes(train, test)
    chance = sum(1/n for _, n, _ in test)
    error = sum((1 - 1/n)/n for _, n, _ in test)**.5
    assert abs(sum(right) - chance) < 4*error, f'{sum(right)} of {len(test)} are right, {chance:.0f} by chance'
    # the same learner finds a leak where there is one: the first of the row is called "the"
    def leaky(cases): return [([word for word in text if word != 'the'] + ['the']*(rank == 0), n, rank) for text, n, rank in cases]
    assert sum(naive_bayes(leaky(train), leaky(test))) > chance + 8*error


def test_positions_are_spread_evenly():
    ranks = Counter((n, rank) for _, n, rank in examples(32, range(250)))
    for n in (2, 3):
        total = sum(ranks[n, rank] for rank in range(n))
        assert all(abs(ranks[n, rank] - total/n) < 4*(total*(1 - 1/n)/n)**.5 for rank in range(n))

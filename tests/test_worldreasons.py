"Choices between answers and reasons: one of four is true, and text alone does not tell which."
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlground.worldquestions import guess_blindly
from vlground.worldreasons import ASKED, VERBS, Claim, Doing, choices, claim_of, doings, fill, is_true, looks_in, looks_of, sort_of, wrong_looks
from vlground.core import rng
from vlground.drawing import COLOURS, PATTERNS
from vlground.scenes import ANIMALS, PEOPLE, REFER, SCALES, make_scene

SCENES = [make_scene(21, index, REFER) for index in range(500)]
TRAITS = {*COLOURS, *PATTERNS, *SCALES}


@pytest.fixture(scope='module')
def items(): return choices(SCENES)


def in_words(item, *texts): return ' '.join(token if isinstance(token, str) else sort_of(item.scene.things[token[0]]) for text in texts for token in text)


def test_an_item_has_four_answers_and_reasons_about_its_own_things(items):
    assert len(items) > 300
    for item in items:
        assert item.doing in doings(item.scene) and item.form in ASKED
        for texts, label in ((item.answers, item.answer_label), (item.reasons, item.reason_label)):
            assert len(set(texts)) == 4 and label in range(4)
            assert all(0 <= i < len(item.scene.things) for text in texts for token in text if not isinstance(token, str) for i in token)
        assert item.question[-1] == '?' and {text[0] for text in item.answers} == {(item.doing.subject,)} and all(text[-1] == '.' for text in (*item.answers, *item.reasons))


def test_the_same_scenes_give_the_same_items(items): assert choices(SCENES) == items


def test_right_answers_and_reasons_are_true(items):
    for item in items:
        things, doing = item.scene.things, item.doing
        assert is_true(item.scene, sort_of(things[doing.subject]), claim_of(item.scene, doing))
        said = [token for token in item.reasons[item.reason_label] if isinstance(token, str) and token in TRAITS]
        assert sorted(said) == sorted(word for looks in looks_in(item.scene, doing) for word in looks if word != 'in')


def test_wrong_reasons_are_not_the_right_one_in_other_words(items):
    for item in items:
        own = [word for looks in looks_in(item.scene, item.doing) for word in looks if word != 'in'] # {s} stands first in every sentence
        for n, text in enumerate(item.reasons):
            said = [token for token in text if isinstance(token, str) and token in TRAITS]
            assert (said == own) == (n == item.reason_label)


def test_wrong_answers_are_false_of_everybody_of_the_sort():
    # a claim that holds for another woman of the scene could not be told from one about this woman
    for scene in SCENES[:200]:
        for doing in doings(scene):
            sort = sort_of(scene.things[doing.subject])
            same = [each for each in doings(scene) if sort_of(scene.things[each.subject]) == sort]
            assert all(is_true(scene, sort, claim_of(scene, each)) for each in same)


@given(st.integers(0, 4000))
@settings(max_examples=60, deadline=None)
def test_wrong_looks_do_not_fit(index):
    scene, other = make_scene(22, index, REFER), make_scene(22, index + 1, REFER)
    seen = defaultdict(list)
    for thing in (*scene.things, *other.things): seen[thing.kind].append(looks_of(thing))
    for doing in doings(scene):
        own = looks_in(scene, doing)
        for looks in wrong_looks(rng('looks', index), scene, doing, seen):
            assert len(looks) == 2 and not all(set(a) <= set(b) for a, b in zip(looks, own))


def test_doings_are_of_people_and_animals():
    for scene in SCENES[:100]:
        for doing in doings(scene): assert scene.things[doing.subject].kind in PEOPLE + ANIMALS and doing.verb in VERBS and doing.object != doing.subject
    assert Doing(0, 'waving').object is None and Claim('waving', None) == Claim('waving', None)


def test_fill(): assert fill('{s} is {using} {o}', s=((0,),), o=('a', 'cup'), using=('drinking', 'from')) == ((0,), 'is', 'drinking', 'from', 'a', 'cup')


def test_labels_are_anywhere(items):
    for label in ('answer_label', 'reason_label'):
        counts = Counter(getattr(item, label) for item in items)
        assert all(abs(counts[n]/len(items) - .25) < 4*(.19/len(items))**.5 for n in range(4))


def test_no_scene_and_scenes_without_life_give_no_items():
    assert choices([]) == []
    assert choices([scene for scene in SCENES[:300] if not doings(scene)]) == []


@pytest.mark.parametrize('part', ['answers', 'reasons'])
def test_text_alone_stays_near_chance(part):
    found = choices([make_scene(23, index, REFER) for index in range(1600)])
    samples = [([in_words(item, item.question, text) for text in item.answers], item.answer_label) if part == 'answers' else
               ([in_words(item, item.question, item.answers[item.answer_label], text) for text in item.reasons], item.reason_label) for item in found]
    cut = int(.7*len(samples))
    guesses = guess_blindly(samples[:cut], [texts for texts, _ in samples[cut:]], epochs=6)
    assert np.mean([guess == label for guess, (_, label) in zip(guesses, samples[cut:])]) < .35

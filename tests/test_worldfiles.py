"The small world on disk: what is read back is what was meant, and a killed writer goes on."
import json
import re
from collections import Counter, defaultdict
from shutil import copytree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import begin, contents, kill, wait_until
from PIL import Image
from test_world import PLACES, fits, many, parsed, some_scene, split_at_verb

from vlground.datasets import read_captions
from vlground.drawing import KINDS
from vlground.expressions import read_refer
from vlground.questions import VQA_SPLITS, normalise_answer, read_vqa
from vlground.scenes import PEOPLE, render
from vlground.vcrdata import read_vcr, read_vcr_objects
from vlground.world import captions
from vlground.worldfiles import (REFER_SETS, RECIPE_OF, draw_pictures, fitting, long_expressions, picture_id, place_expressions, refer_data, split_of, task_split, vcr_data,
                                 vqa_data, world_scene, write_world)

PARTS = {'captions': 'captions', 'captions-val': 'val'} # file name -> part


@pytest.mark.parametrize('name', PARTS)
def test_captions_and_pictures_are_those_of_the_scenes(small_world, name):
    for i, item in enumerate(read_captions(small_world/f'{name}.tsv', small_world/'images')):
        scene = world_scene(PARTS[name], 3, i)
        assert item.caption == captions(scene)[0].text and item.image_id == item.id == picture_id(scene, PARTS[name])
        drawn, stored = np.asarray(render(scene), int), np.asarray(Image.open(item.path), int)
        assert stored.shape == (256, 256, 3) and abs(drawn - stored).mean() < 4 # JPEG


@pytest.mark.parametrize('name', PARTS)
def test_gold_phrases_stand_where_they_say_and_name_what_is_there(small_world, name):
    rows = [json.loads(line) for line in open(small_world/'gold'/f'{name}.jsonl')]
    assert [row['id'] for row in rows] == [item.id for item in read_captions(small_world/f'{name}.tsv', small_world/'images')]
    kinds = set()
    for i, row in enumerate(rows):
        scene = world_scene(PARTS[name], 3, i)
        boxes = {tuple(thing.box): KINDS[thing.kind].group for thing in scene.things}
        for phrase, mention in zip(row['phrases'], captions(scene)[0].mentions, strict=True):
            assert 0 <= phrase['start'] < phrase['end'] <= len(row['caption']) and row['caption'] == captions(scene)[0].text
            assert [tuple(box) for box in phrase['boxes']] == [scene.things[i].box for i in mention.things]
            assert phrase['kind'] == (boxes[tuple(phrase['boxes'][0])] if phrase['boxes'] else 'none')
            kinds.add(phrase['kind'])
    assert len(kinds) > 3


SPLIT_BY = {'refcoco+': 'unc', 'refcoco': 'unc', 'refcocog': 'umd'}
every_set = pytest.mark.parametrize('dataset', SPLIT_BY)


@every_set
def test_expressions_are_read_back(small_world, dataset):
    assert read_refer(small_world/'refer', dataset, SPLIT_BY[dataset]) == refer_data(3, 40, dataset)
    assert {path.name for path in (small_world/'refer'/dataset).iterdir()} == {'instances.json', f'refs({SPLIT_BY[dataset]}).p'}


def test_the_sets_share_pictures_numbers_and_splits(small_world):
    assert {path.name for path in (small_world/'refer').iterdir()} == set(SPLIT_BY) == set(REFER_SETS)
    assert len({(small_world/'refer'/name/'instances.json').read_bytes() for name in SPLIT_BY}) == 1
    split, texts = {e.image_id: e.split for e in refer_data(3, 40).expressions}, {e.text for e in refer_data(3, 40).expressions}
    for name in ('refcoco', 'refcocog'):
        data = refer_data(3, 40, name)
        assert len({e.image_id for e in data.expressions}) > 30 and len({e.text for e in data.expressions} & texts) < .2*len(data.expressions)
        for e in data.expressions:
            same = split.get(e.image_id, e.split)
            assert e.split == ('test' if name == 'refcocog' and same.startswith('test') else same)
    with pytest.raises(ValueError, match="no data set 'refcoco-' in the small world; there are refcoco"): refer_data(3, 4, 'refcoco-')


@every_set
def test_an_expression_fits_its_box_and_an_object_of_its_picture(dataset):
    data = refer_data(5, 30, dataset)
    for said in data.expressions:
        scene, image = world_scene('refer', 5, said.image_id), data.images[said.image_id]
        assert said.box in [thing.box for thing in scene.things if thing.kind == said.category]
        assert image.boxes[image.ann_ids.index(said.ann_id)] == said.box and image.size == (256, 256)
    ids = [number for image in data.images.values() for number in image.ann_ids]
    assert len(set(ids)) == len(ids) and len({said.id for said in data.expressions}) == len(data.expressions)


# words for places: read by code that knows the words and the boxes, and nothing of how an expression came about

SIDES = dict(left='left', leftmost='left', right='right', rightmost='right', top='top', uppermost='top', bottom='bottom', lowest='bottom', middle='middle')


def placed(text: str) -> tuple[str, str]:
    "An expression without its word for a place, and the place; '' where there is none."
    text = text.removeprefix('the ')
    if found := re.fullmatch(r'second (.+) from the (left|right)', text): return found[1], f'second {found[2]}'
    if found := re.fullmatch(r'(.+) (?:on|at|in) the (left|right|top|bottom|middle)', text): return found[1], found[2]
    first, rest = text.split(' ', 1) if ' ' in text else (text, '')
    return (rest, SIDES[first]) if first in SIDES else (text, '')


def read_place(scene, text: str) -> set[int]:
    "Every thing that an expression may mean: the things that it names are put in a row, and one is taken out if it stands clear of its neighbours."
    rest, place = placed(text)
    kinds, attributes, _ = parsed(rest)
    named = [i for i, thing in enumerate(scene.things) if fits(thing, kinds, attributes)]
    if not place: return set(named)
    axis, far = (1 if place in ('top', 'bottom') else 0), place.split()[-1] in ('right', 'bottom')
    at = {i: sum(thing.box[axis::2])/2 for i, thing in enumerate(scene.things)}
    row = named if len(named) > 1 else [i for i, thing in enumerate(scene.things) if thing.kind in kinds]
    if len(row) == 1: return {i for i in row if (at[i] > 170.6 if far else at[i] < 85.4)}
    row = sorted(row, key=lambda i: at[i], reverse=far)
    number = 1 if place.startswith('second') else (len(row) - 1)/2 if place == 'middle' else 0
    if number != int(number) or number > len(row) - 1: return set()
    if len(named) == 1 and number: return set() # one red cup is not 'the second red cup'
    i = row[int(number)]
    return {i} & set(named) if all(abs(at[i] - at[j]) >= 16 for j in row if j != i) else set()


def parts(text: str) -> tuple[str, list[str], str | None]:
    "A description in pieces: what stands first, the rest, and the side of the picture."
    text, side = re.fullmatch(r'(.+?)(?: on the (left|right) side of the picture)?', text).groups()
    first, *more = re.split(', | and ', re.sub(r' in an? ', ' in the ', re.sub(' (that|who) is ', ' ', text)))
    return first, more, side


def read_long(scene, text: str) -> set[int]:
    "Every thing that a description may mean."
    first, more, side = parts(text)
    name, relations, other = split_at_verb(first)
    claims = [(relations, other)] if relations else []
    for part in more: # 'holding a cup': the rest of a sentence, so a name for the subject is put before it
        relations, other = split_at_verb(f'it {part}')[1:]
        claims.append((relations, other))
    fit = {i for i, thing in enumerate(scene.things) if fits(thing, *parsed(name)[:2])}
    for relations, other in claims:
        assert len(relations) == 1 or 'on' in relations and ' on ' in text, (text, relations)
        meant = {'on'} if 'on' in relations else relations
        fit = {i for i in fit if any(r.subject == i and r.name in meant and fits(scene.things[r.object], *parsed(other)[:2]) for r in scene.relations)}
    if not side: return fit
    away = {i: sum(scene.things[i].box[::2])/2 if side == 'left' else 256 - sum(scene.things[i].box[::2])/2 for i in fit} # pixels from that edge of the picture
    return {i for i in fit if away[i] <= 128} if min(away.values(), default=256) < 85.4 else set()


def test_the_readers_read():
    scene = world_scene('refer', 0, 34) # a duck on a chair, three below it
    ducks = {name: [thing.box[0] for thing in scene.things].index(x) for name, x in dict(chair=14, brown=80, right=151, flying=22).items()}
    for text, name in (('top duck', 'chair'), ('the duck on the left', 'chair'), ('second duck from the left', 'flying'), ('second duck from the right', 'brown'),
                       ('rightmost yellow duck', 'right'), ('yellow duck on the left', 'flying')): assert read_place(scene, text) == {ducks[name]}, text
    for text in ('bottom duck', 'middle duck', 'leftmost brown duck', 'second brown duck from the right', 'man on the left', 'uppermost man'):
        assert not read_place(scene, text), text
    assert read_place(scene, 'the yellow duck') == {ducks['right'], ducks['flying']}
    for text, name in (('a duck that is standing on a purple chair', 'chair'), ('a duck next to a guy and looking at a man', 'right'),
                       ('a yellow duck on the left side of the picture', 'flying')):
        assert read_long(scene, text) == {ducks[name]}, text
    for text in ('a duck on a red chair', 'a man on the left side of the picture'): assert not read_long(scene, text), text
    assert len(read_long(scene, 'a duck standing')) == 3


@settings(max_examples=60)
@given(some_scene, st.integers(1, 4))
def test_expressions_with_places_and_descriptions_fit_one_thing(scene, each):
    for make, read in ((place_expressions, read_place), (long_expressions, read_long)):
        found = make(scene, each)
        assert found == make(scene, each) and len(set(found)) == len(found)
        assert max(Counter(i for _, i in found).values(), default=0) <= each
        for text, i in found: assert read(scene, text) == {i}, text


def test_expressions_with_places_and_descriptions_fit_one_thing_in_hundreds_of_scenes():
    def several(scene, i): return sum(thing.kind == scene.things[i].kind for thing in scene.things) > 1
    for make, read, least in ((place_expressions, read_place, .9), (long_expressions, read_long, .75)):
        said = [(scene, text, i) for scene in many('refer', 250) for text, i in make(scene, 2)]
        assert all(read(scene, text) == {i} for scene, text, i in said)
        told = {(scene.keys, i) for scene, _, i in said if several(scene, i)}
        there = sum(several(scene, i) for scene in many('refer', 250) for i in range(len(scene.things)))
        assert least < len(told)/there <= 1 and 30 < len({(scene.keys, i) for scene, _, i in said if not several(scene, i)}) < .5*len(told)


def test_fitting_finds_all_that_a_description_fits():
    for scene in many('refer', 60):
        for link in scene.relations:
            subject, thing = scene.things[link.subject], scene.things[link.object]
            for traits in ({}, {'colour': thing.colour}):
                objects = {i for i, other in enumerate(scene.things) if (other.kind, {'colour': other.colour} if traits else {}) == (thing.kind, traits)}
                subjects = {r.subject for r in scene.relations if r.name == link.name and r.object in objects}
                assert fitting(scene, subject.kind, {}, [(link, traits)]) == sorted(i for i in subjects if scene.things[i].kind == subject.kind)


def test_a_description_says_all_that_a_thing_looks_like():
    for scene in many('refer', 100):
        for text, i in long_expressions(scene):
            thing, said = scene.things[i], parsed(split_at_verb(parts(text)[0])[0])[1]
            expected = {name: getattr(thing, name) for name in ('size', 'pattern', 'colour', 'pose') if getattr(thing, name) not in ('plain', 'normal')}
            if len(KINDS[thing.kind].colours) == 1: del expected['colour']
            if re.search(' (riding|chasing|running after) ', text): del expected['pose']
            assert said == expected, text


def test_each_set_has_its_own_shares_of_words():
    texts = {name: [e.text.split() for e in refer_data(7, 250, name).expressions] for name in SPLIT_BY}
    places = {name: np.mean([bool(set(words) & {*PLACES, 'rightmost', 'lowest'}) for words in some]) for name, some in texts.items()}
    length = {name: np.mean([len(words) for words in some]) for name, some in texts.items()}
    the = {name: np.mean([words[0] == 'the' for words in some]) for name, some in texts.items()}
    assert places['refcoco+'] == 0 and .7 < places['refcoco'] < .9 and .02 < places['refcocog'] < .2
    assert max(length['refcoco'], length['refcoco+']) < 4.5 < 6.5 < length['refcocog'] < 10
    assert .1 < the['refcoco'] < .3 < the['refcoco+'] and the['refcocog'] == 0
    kinds = Counter(placed(' '.join(words))[1] for words in texts['refcoco'])
    assert set(kinds) == {'', 'left', 'right', 'top', 'bottom', 'middle', 'second left', 'second right'} and min(kinds.values()) > 10
    assert abs(kinds['left'] - kinds['right']) < 4*(kinds['left'] + kinds['right'])**.5


@given(st.integers(0, 50), st.integers(10, 200))
@settings(max_examples=10)
def test_splits_are_of_whole_pictures_and_cover_everything(seed, count):
    of_picture = defaultdict(set)
    for said in refer_data(seed, 12).expressions: of_picture[said.image_id].add(said.split)
    assert all(len(splits) == 1 for splits in of_picture.values())
    for index in (0, count//3, count - 1):
        scene = world_scene('refer', seed, index)
        assert split_of(scene, count) == split_of(scene, count)
        people = sum(thing.kind in PEOPLE for thing in scene.things)
        if split_of(scene, count).startswith('test'): assert (split_of(scene, count) == 'testA') == (people > 1)
    assert split_of(world_scene('refer', seed, 0), count) == 'train' and split_of(world_scene('refer', seed, count - 1), count).startswith('test')


@pytest.fixture(scope='module')
def tasks_world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp('tasks')/'W', 1, 1, 1, seed=4, quiet=True, vqa=30, vcr=120)


def test_questions_are_read_back_with_their_pictures_and_without_what_is_secret(tasks_world):
    meant = vqa_data(4, 30)
    for split in ('train', 'val'): assert read_vqa(tasks_world/'vqa', split, tasks_world/'images') == meant[split]
    read = read_vqa(tasks_world/'vqa', 'test', tasks_world/'images')
    assert [(each.id, each.text) for each in read] == [(each.id, each.text) for each in meant['test']] and not any(each.answers for each in read)
    secret = [json.loads(line) for line in open(tasks_world/'gold'/'tasks'/'vqa-test.jsonl')]
    assert [(row['question_id'], tuple(row['answers'])) for row in secret] == [(each.id, each.answers) for each in meant['test']]
    for split, questions in meant.items():
        assert all(VQA_SPLITS[split] in each.file_name and task_split(each.image_id) == split for each in questions)
        for each in questions:
            assert len(each.answers) == 10 and each.answer in map(normalise_answer, each.answers) and each.text.startswith(each.kind)
            assert (each.answer_type == 'yes/no') == (each.answer in ('yes', 'no')) and (each.answer_type == 'number') == each.answer.isdigit()


def test_choices_are_read_back_with_their_boxes_and_without_what_is_secret(tasks_world):
    meant = vcr_data(4, 120)
    for split in ('train', 'val'): assert read_vcr(tasks_world/'vcr', split) == meant[split]
    read = read_vcr(tasks_world/'vcr', 'test')
    assert [each.answer_choices for each in read] == [each.answer_choices for each in meant['test']] and not any(each.answer_label is not None for each in read)
    secret = [json.loads(line) for line in open(tasks_world/'gold'/'tasks'/'vcr-test.jsonl')]
    assert [tuple(row.values()) for row in secret] == [(each.annot_id, each.answer_label, each.rationale_label) for each in meant['test']]
    for item in meant['val']:
        scene, found = world_scene('vcr', 4, int(item.img_id.removeprefix('val-'))), read_vcr_objects(tasks_world/'vcr', item)
        assert found.boxes == tuple(thing.box for thing in scene.things) and item.img_fn == picture_id(scene, 'vcr')
        assert Image.open(tasks_world/'vcr'/'vcr1images'/item.img_fn).size == found.size


def test_parts_and_worlds_share_no_scene():
    scenes = [world_scene(part, seed, i) for part in RECIPE_OF for seed in range(3) for i in range(6)]
    assert len({(scene.background, scene.things) for scene in scenes}) == len(scenes)
    assert all(world_scene('val', 2, i) == world_scene('val', 2, i) for i in range(6))


# faults

WRITE = 'import sys; from vlground.worldfiles import write_world; write_world(sys.argv[1], 60, 4, 6, seed=9, quiet=True, vqa=10, vcr=40)'


@pytest.mark.fault(1)
def test_killed_at_any_picture_it_ends_with_the_same_bytes(tmp_path):
    write_world(tmp_path/'whole', 60, 4, 6, seed=9, quiet=True, vqa=10, vcr=40)
    process = begin(WRITE, tmp_path/'killed')
    wait_until(process, lambda: len(list((tmp_path/'killed').glob('images/*.jpg'))) > 8)
    kill(process)
    pictures = len(list((tmp_path/'killed').glob('images/*.jpg')))
    assert pictures < 70, 'it was killed too late to show anything'
    (tmp_path/'killed'/'images'/'captions-000059.part').write_bytes(b'half a picture')
    write_world(tmp_path/'killed', 60, 4, 6, seed=9, quiet=True, vqa=10, vcr=40)
    assert contents(tmp_path/'killed') == contents(tmp_path/'whole')


def test_a_lost_picture_is_drawn_again(small_world, tmp_path):
    copytree(small_world, tmp_path/'W')
    lost = tmp_path/'W'/'images'/'refer-000007.jpg'
    lost.unlink()
    assert draw_pictures(range(6, 9), 'refer', 3, tmp_path/'W'/'images') == 3
    assert contents(tmp_path/'W') == contents(small_world)


@pytest.mark.parametrize('change', [dict(seed=4), dict(pairs=41), dict(val=15), dict(refer=39), dict(vqa=1), dict(vcr=1)])
def test_two_worlds_do_not_mix(small_world, tmp_path, change):
    copytree(small_world, tmp_path/'W')
    with pytest.raises(ValueError, match='holds another world'): write_world(tmp_path/'W', **dict(pairs=40, val=16, refer=40, seed=3, quiet=True) | change)
    assert contents(tmp_path/'W') == contents(small_world)

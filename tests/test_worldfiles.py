"The small world on disk: what is read back is what was meant, and a killed writer goes on."
import json
from collections import defaultdict
from shutil import copytree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import begin, contents, kill, wait_until
from PIL import Image

from vlground.datasets import read_captions
from vlground.drawing import KINDS
from vlground.expressions import read_refer
from vlground.questions import VQA_SPLITS, normalise_answer, read_vqa
from vlground.scenes import PEOPLE, render
from vlground.vcrdata import read_vcr, read_vcr_objects
from vlground.world import captions
from vlground.worldfiles import RECIPE_OF, draw_pictures, picture_id, refer_data, split_of, task_split, vcr_data, vqa_data, world_scene, write_world

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


def test_expressions_are_read_back(small_world):
    assert read_refer(small_world/'refer') == refer_data(3, 40)


def test_an_expression_fits_its_box_and_an_object_of_its_picture():
    data = refer_data(5, 30)
    for said in data.expressions:
        scene, image = world_scene('refer', 5, said.image_id), data.images[said.image_id]
        assert said.box in [thing.box for thing in scene.things if thing.kind == said.category]
        assert image.boxes[image.ann_ids.index(said.ann_id)] == said.box and image.size == (256, 256)
    ids = [number for image in data.images.values() for number in image.ann_ids]
    assert len(set(ids)) == len(ids) and len({said.id for said in data.expressions}) == len(data.expressions)


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

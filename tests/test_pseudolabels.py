"Pseudo labels: offsets stay true on disk, a teacher's answer is checked, thresholds apply when labels are read, the measure counts what it says."
import json
from dataclasses import replace
from shutil import copytree
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlground.boxes import box_iou
from vlground.core import load_json, save_json
from vlground.datasets import CaptionedImage, read_captions
from vlground.phrases import Phrase, noun_phrases
from vlground.grounder import Grounded
from vlground.pseudolabels import (PRESETS, GoldCaption, GoldPhrase, LabelledCaption, Preset, PseudoLabel, believed, check_answer, from_row, label_images,
                                   label_iou, label_is_right, measure_labels, mention_of, phrase_matches, read_gold, read_labels, regions_of, to_lines, to_row)
from vlground.scaleout import label_captions
from vlground.scenes import example_scene, render
from vlground.store import Store


class Pointer:
    "A teacher of three lines: its box is a function of the phrase's length."
    name = 'pointer-1'

    def __call__(self, images, phrases):
        return [Grounded(torch.tensor([[len(text), 1., len(text) + 20, 30] for text in each]).view(-1, 4), torch.full((len(each),), .5), torch.arange(len(each)))
                for each in phrases]


def labelled(*labels, caption='x'*60):
    "A caption with labels given as (start, end, box, score)."
    return LabelledCaption('a', 'a.jpg', caption, tuple(PseudoLabel(Phrase(caption[start:end], start, end), box, score) for start, end, box, score in labels))


boxes = st.tuples(*[st.integers(0, 40)]*2, *[st.integers(5, 40)]*2).map(lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])))
raw_labels = st.lists(st.tuples(st.integers(0, 4), boxes, st.integers(0, 100)), max_size=8).map(
    lambda rows: labelled(*((6*place, 6*place + 5, box, score/100) for place, box, score in rows)))


# making them

AWKWARD = ['', ' ', '!!! ???', '🐕🐈', 'a dog 🐕 on a 🛋 sofa', 'كلب أحمر كبير', 'a red \x00dog and a cat', '.*[a dog](?P<cat>$^ costs $5', 'e\u0301te\u0301, a cafe\u0301 table',
           'a dog\tand\na cat', 'A DOG, the Dog; a dog!', ' '.join(['a red dog near the old house'] * 70)]


def test_offsets_stay_true_through_the_file(tmp_path):
    render(example_scene('A')).resize((60, 40)).save(tmp_path/'a.jpg')
    items = [CaptionedImage(f'a.jpg#{i}', tmp_path/'a.jpg', caption, 'a.jpg') for i, caption in enumerate(AWKWARD)]
    found = read_labels(label_captions(items, tmp_path/'labels', shard_size=5, quiet=True))
    assert [each.caption for each in found] == AWKWARD
    for each in found:
        assert list(each.phrases) == noun_phrases(each.caption) and {label.phrase for label in each.labels} <= set(each.phrases)
        for label in each.labels:
            assert each.caption[label.phrase.start:label.phrase.end] == label.phrase.text != ''
            assert 0 <= label.box[0] < label.box[2] <= 60 and 0 <= label.box[1] < label.box[3] <= 40 and 0 <= label.score <= 1
    assert not any(each.labels for each in found[:3]) and len(found[-1].labels) > 100


def test_captions_without_a_phrase_match_nothing(small_regions):
    regions = Store(small_regions)[0].boxes
    phrases, matches = phrase_matches(labelled(), regions)
    assert phrases == [] and matches.shape == (0, len(regions)) and matches.dtype == torch.bool


def test_any_teacher_will_do_and_is_named(small_world):
    items = read_captions(small_world/'captions.tsv')[:5]
    found = label_images(items, Pointer())
    for item, each in zip(items, found):
        assert (each.id, each.image_id, each.caption, each.error) == (item.id, item.image_id, item.caption, '')
        assert [label.box[0] for label in each.labels] == [len(phrase.text) for phrase in noun_phrases(item.caption)]


@pytest.mark.parametrize('boxes, scores, phrases, told', [
    ([[9, 1, 3, 8]], [.5], [0], 'box 0, .9.0, 1.0, 3.0, 8.0.'), ([[3, 8, 9, 8]], [.5], [0], 'x1 < x2 and y1 < y2'), ([[1, 1, 5, 5], [1, float('nan'), 3, 8]], [.5]*2, [0, 1], 'box 1'),
    ([[1, 1, 61, 8]], [.5], [0], 'picture of 60 x 40 pixels'), ([[60.1, 1, 60.4, 8]], [.5], [0], 'box 0'), ([[-.4, 1, -.1, 8]], [.5], [0], 'box 0'), ([[-1, 1, 5, 8]], [.5], [0], 'box 0'), ([[1, 1, float('inf'), 8]], [.5], [0], 'box 0'),
    ([[1, 1, 5, 8]], [1.5], [0], r'scores must be in .0, 1.'), ([[1, 1, 5, 8]], [float('nan')], [0], 'scores'), ([[1, 1, 5, 8]], [.5], [2], 'whole numbers below 2'),
    ([[1, 1, 5, 8]], [.5], [-1], 'below 2'), ([[1, 1, 5, 8]], [.5], [0.], 'whole numbers'), ([[1, 1, 5, 8]], [.5, .6], [0], r'got .1, 4., .2,., .1,.'), ([1, 1, 5, 8], [.5], [0], 'expected boxes')])
def test_an_answer_that_cannot_be_a_label_is_refused_with_teacher_and_caption(tmp_path, boxes, scores, phrases, told):
    class Wrong:
        name = 'wrong-3'
        def __call__(self, images, asked): return [Grounded(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), torch.tensor(phrases)) for _ in images]
    Image.new('RGB', (60, 40)).save(tmp_path/'a.png')
    with pytest.raises(ValueError, match=told) as problem: label_images([CaptionedImage('a.png#1', tmp_path/'a.png', 'a dog and a cat', 'a.png')], Wrong())
    assert str(problem.value).startswith("teacher wrong-3, caption 'a.png#1': ")


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
def test_what_is_taken_can_be_read_again(tmp_path, dtype):
    "Boxes of any kind of number, some with an edge in the half pixel that rounding may cost."
    answer = Grounded(torch.tensor([[-.25, 1, 60.25, 8], [2, 3, 59, 40]]).to(dtype), torch.tensor([.5, 1.]), torch.tensor([0, 1]))
    class Rounded:
        name = 'rounded-1'
        def __call__(self, images, asked): return [answer]
    Image.new('RGB', (60, 40)).save(tmp_path/'a.png')
    found, = label_images([CaptionedImage('a.png', tmp_path/'a.png', 'a dog and a cat', 'a.png')], Rounded())
    assert [label.box for label in found.labels] == [(0, 1, 60, 8), (2, 3, 59, 40)] and from_row(json.loads(to_lines([found])), 'x, line 1') == found


def test_a_teacher_that_forgets_a_picture(small_world):
    class Forgetful(Pointer):
        def __call__(self, images, phrases): return super().__call__(images, phrases)[1:]
    with pytest.raises(ValueError, match='an answer for each of 3 pictures, got 2 answers'): label_images(read_captions(small_world/'captions.tsv')[:3], Forgetful())


def of_nothing(images, phrases): return {}['weights']


@pytest.mark.parametrize('answer, told', [
    (of_nothing, r"KeyError: 'weights' \(test_pseudolabels.py, line [0-9]+\)"), (lambda images, phrases: None, 'for each of 1 pictures, got NoneType'),
    (lambda images, phrases: (each for each in [1]), 'got generator'), (lambda images, phrases: [None], r'expected Grounded\(boxes, scores, phrases\), got None'),
    (lambda images, phrases: [(torch.zeros(1, 4), torch.zeros(1))], r'scores, phrases\), got tuple'),
    (lambda images, phrases: [(None, torch.zeros(1), torch.zeros(1))], 'of tensors, got NoneType, Tensor, Tensor'), (lambda images, phrases: [('ab', [.5], [0])], 'got str, list, list')])
def test_a_teacher_that_fails_is_named_with_the_captions(tmp_path, answer, told):
    class Teacher:
        name = 'mine-1'
        def __call__(self, images, phrases): return answer(images, phrases)
    Image.new('RGB', (60, 40)).save(tmp_path/'a.png')
    with pytest.raises(ValueError, match=f"teacher mine-1, captions? 'a.png'.*: .*{told}"): label_images([CaptionedImage('a.png', tmp_path/'a.png', 'a dog', 'a.png')], Teacher())


def test_regions_of_pictures_of_another_size_are_refused(small_world, small_labels, small_regions):
    each, store = read_labels(small_labels)[0], Store(small_regions)
    assert each.size == Image.open(small_world/'images'/each.image_id).size and torch.equal(regions_of(each, store), store.get(each.image_id).boxes)
    told = f"picture '{each.image_id}' has 256 x 256 pixels there, but had 512 x 256 when it was labelled"
    resized = replace(each, size=(512, 256))
    with pytest.raises(ValueError, match=told): regions_of(resized, store)
    gold = read_gold(small_world/'gold'/'captions.jsonl')
    with pytest.raises(ValueError, match=told): measure_labels([resized], store, gold)
    assert measure_labels([replace(each, size=None)], store, gold)['captions'] == 1 # labels of people's own need no size


def test_any_number_of_boxes_a_phrase_in_the_order_of_the_phrases(tmp_path):
    class Many:
        name = 'many-1'
        def __call__(self, images, phrases):
            assert [list(each) for each in phrases] == [['a dog', 'a cat']]
            return [Grounded(torch.tensor([[30., 1, 39.98, 9], [1, 1, 9, 9], [2, 2, 8, 60.3]]), torch.tensor([.3, .9, .4]), torch.tensor([1, 0, 1]))]
    Image.new('RGB', (40, 60)).save(tmp_path/'a.png')
    items = [CaptionedImage('a', tmp_path/'a.png', 'a dog and a cat', 'a.png'), CaptionedImage('b', tmp_path/'a.png', '!!!', 'a.png')]
    found, silent = label_images(items, Many()) # the second has no phrase: nobody is asked
    assert [(label.phrase.text, label.box, label.score) for label in found.labels] == [('a dog', (1., 1., 9., 9.), .9), ('a cat', (30., 1., 40., 9.), .3), ('a cat', (2., 2., 8., 60.), .4)]
    assert silent.labels == silent.phrases == () and not silent.error


def test_a_very_thin_box_keeps_its_area(tmp_path):
    answer = Grounded(torch.tensor([[3.01, 1, 3.04, 9]]), torch.ones(1), torch.zeros(1, dtype=torch.int64))
    class Thin:
        name = 'thin-1'
        def __call__(self, images, phrases): return [answer]
    Image.new('RGB', (40, 60)).save(tmp_path/'a.png')
    box = label_images([CaptionedImage('a', tmp_path/'a.png', 'a dog', 'a.png')], Thin())[0].labels[0].box
    assert box[0] < box[2] and box == pytest.approx((3.01, 1, 3.04, 9))


# lines

@given(raw_labels, st.text(max_size=30), st.booleans())
def test_a_line_gives_back_what_was_written(raw, id, failed):
    raw = replace(raw, id=id, error='OSError: broken' if failed else '', phrases=tuple(dict.fromkeys(label.phrase for label in raw.labels)))
    assert from_row(json.loads(to_lines([raw])), 'x, line 1') == raw


@pytest.mark.parametrize('change', [dict(phrases=[[0, 99]]), dict(phrases=[[5, 2]]), dict(phrases=[[0]]), dict(phrases=None), dict(phrases=[['0', '1']]), dict(labels=[[3, 1, 1, 5, 5, .5]]),
    dict(labels=[[-1, 1, 1, 5, 5, .5]]), dict(labels=[[0, 5, 1, 1, 5, .5]]), dict(labels=[[0, 1, 1, 5, 5, 2]]), dict(labels=[[0, 1, 1, 5, .5]]), dict(labels=[[0, 1, float('nan'), 5, 5, .5]]),
    dict(labels=[[0, '1', '1', '5', '5', .5]]), dict(labels=[[0, 1, 1, float('inf'), 5, .5]]), dict(labels=[[0, -2, 1, 5, 5, .5]], size=[60, 40]), dict(labels=[[0, 1, 1, 61, 5, .5]], size=[60, 40]),
    dict(labels=[[0, 1, 1, 5, 5, True]]), dict(labels=[[False, 1, 1, 5, 5, .5]]), dict(phrases=[[False, True]])])
def test_a_line_changed_by_hand_is_refused_with_its_place(change):
    row = to_row(labelled((0, 5, (1., 1., 9., 9.), .5), (6, 9, (1., 1., 9., 9.), .5)))
    with pytest.raises(ValueError, match='^labels.jsonl, line 7: phrases must be'): from_row(row | change, 'labels.jsonl, line 7')
    with pytest.raises(ValueError, match='labels.jsonl, line 7.*labels'): from_row({name: value for name, value in row.items() if name != 'labels'}, 'labels.jsonl, line 7')


@pytest.mark.parametrize('change, told', [(dict(caption=7), 'caption must be'), (dict(caption=list('a dog')), 'caption must be'), (dict(id=[1]), 'id must be'), (dict(image=None), 'image must be'),
    (dict(labels={}), 'labels must be'), (dict(error=5), 'error must be'), (dict(size=[True, True]), 'size must be'), (dict(size=[60]), 'size must be')])
def test_a_field_of_another_type_is_named_with_its_place(change, told):
    row = to_row(labelled((0, 5, (1., 1., 9., 9.), .5)))
    with pytest.raises(ValueError, match=f'^labels.jsonl, line 7: {told}'): from_row(row | change, 'labels.jsonl, line 7')


def test_a_line_that_is_no_json(small_labels, tmp_path):
    copytree(small_labels, tmp_path/'labels')
    path = tmp_path/'labels'/'shard-00001.jsonl'
    lines = path.read_text().split('\n')
    path.write_text('\n'.join([*lines[:3], 'x'*len(lines[3]), *lines[4:]]))
    with pytest.raises(ValueError, match='shard-00001.jsonl: not lines of JSON'): read_labels(tmp_path/'labels')


# reading them

@given(raw_labels)
def test_paper_takes_the_surest_box_of_each_phrase(raw):
    kept = believed(raw, PRESETS['paper']).labels
    places = [label.phrase.start for label in kept]
    assert len(set(places)) == len(places) and set(places) == {label.phrase.start for label in raw.labels}
    for label in kept: assert label.score == max(other.score for other in raw.labels if other.phrase == label.phrase)


@given(raw_labels)
def test_glip_takes_what_is_sure_enough(raw): assert list(believed(raw, PRESETS['glip']).labels) == [label for label in raw.labels if label.score > .5]


@given(raw_labels)
def test_grit_takes_no_two_overlapping_boxes(raw):
    kept = believed(raw, PRESETS['grit']).labels
    assert all(label.score > .65 for label in kept) and set(kept) <= set(raw.labels)
    for i, a in enumerate(kept):
        for b in kept[:i]: assert box_iou(torch.tensor([a.box]), torch.tensor([b.box]))[0, 0] <= .5
    # what was dropped overlaps something surer that was kept
    for label in raw.labels:
        if label.score > .65 and label not in kept:
            assert any(other.score >= label.score and box_iou(torch.tensor([other.box]), torch.tensor([label.box]))[0, 0] > .5 for other in kept)


def test_thresholds_apply_when_read_and_captions_left_empty_may_go(small_labels):
    raw = read_labels(small_labels, Preset())
    assert len(raw) == 40
    for name, preset in PRESETS.items():
        expected = [each for each in (believed(one, preset) for one in raw) if each.labels or not preset.drop_empty]
        assert read_labels(small_labels, name) == read_labels(small_labels, preset) == expected
    assert 0 < len(read_labels(small_labels, 'grit')) < 40 and len(read_labels(small_labels, 'glip')) == 40


def test_unknown_preset(small_labels):
    with pytest.raises(ValueError, match="no preset 'gold'; there are paper, glip, grit"): read_labels(small_labels, 'gold')


def test_folders_that_are_not_finished_labels(small_labels, small_regions, tmp_path):
    with pytest.raises(FileNotFoundError, match='manifest.json: no such file'): read_labels(tmp_path)
    with pytest.raises(ValueError, match='a store of regions, expected labels'): read_labels(small_regions)
    copytree(small_labels, tmp_path/'labels')
    manifest = load_json(small_labels/'manifest.json')
    save_json(manifest | {'format': manifest['format'] + 1}, tmp_path/'labels'/'manifest.json')
    with pytest.raises(ValueError, match='version 2 is newer than version 1'): read_labels(tmp_path/'labels')
    save_json(manifest | {'shards': {'0': manifest['shards']['0']}}, tmp_path/'labels'/'manifest.json')
    with pytest.raises(ValueError, match='labels: shard 1 is still to be written; run the command that makes it again'): read_labels(tmp_path/'labels')
    save_json(manifest, tmp_path/'labels'/'manifest.json')
    for cut in (-1, -40, 0):
        (tmp_path/'labels'/'shard-00001.jsonl').write_bytes((small_labels/'shard-00001.jsonl').read_bytes()[:cut])
        with pytest.raises(ValueError, match=r'shard-00001.jsonl: missing, or not the \d+ bytes that the manifest names'): read_labels(tmp_path/'labels')


# matching and measuring

@given(raw_labels, st.lists(boxes, min_size=1, max_size=5), st.sampled_from([.3, .5, .7]))
@settings(max_examples=60)
def test_a_phrase_matches_what_any_of_its_boxes_matches(raw, regions, threshold):
    phrases, matches = phrase_matches(raw, torch.tensor(regions), threshold)
    assert phrases == list(dict.fromkeys(label.phrase for label in raw.labels)) and matches.shape == (len(phrases), len(regions))
    for phrase, row in zip(phrases, matches.tolist()):
        mine = torch.tensor([label.box for label in raw.labels if label.phrase == phrase])
        assert row == [bool((box_iou(mine, torch.tensor([region])) > threshold).any()) for region in regions]


def test_exactly_one_half_is_no_match():
    half = labelled((0, 5, (152., 40., 248., 140.), 1.))
    assert not phrase_matches(half, torch.tensor([[152., 40, 248, 90]]))[1].any() and phrase_matches(half, torch.tensor([[152., 40, 248, 91]]))[1].all()


DOG, CAT, HOUSE, SUN = (24., 136., 104., 196.), (128., 150., 168., 190.), (152., 40., 248., 140.), (8., 8., 56., 56.)
CAPTION = 'a red dog chasing a small cat near the old house by a famous artist'


def measure(labels, truth, regions=(DOG, CAT, HOUSE, SUN), threshold=.5):
    each = labelled(*labels, caption=CAPTION)
    return measure_labels([each], SimpleNamespace(get=lambda id: SimpleNamespace(boxes=torch.tensor(regions))), {'a': GoldCaption(CAPTION, tuple(truth))}, threshold)


TRUTH = [GoldPhrase(0, 9, 'animals', (DOG,)), GoldPhrase(18, 29, 'animals', (CAT,)), GoldPhrase(35, 48, 'buildings', (HOUSE,)), GoldPhrase(52, 67, 'none', ())]


@pytest.mark.parametrize('labels, right, matched, found', [
    ([(0, 9, DOG, 1.), (18, 29, CAT, 1.), (35, 48, HOUSE, 1.)], 3, 3, 3),
    ([(0, 9, CAT, 1.), (18, 29, CAT, 1.), (35, 48, SUN, 1.)], 1, 3, 1), # the dog's box is on the cat, the house's on the sun
    ([(0, 9, (200., 200., 250., 250.), 1.)], 0, 0, 0), # no region there: not counted against precision
    ([(52, 67, SUN, 1.)], 0, 1, 0), # the artist is not in the picture
    ([(10, 17, DOG, 1.)], 0, 1, 0), # 'chasing' stands for no mention
    ([(2, 9, DOG, 1.), (0, 5, DOG, .5)], 2, 2, 1), # two phrases for one mention: both right, one found
    ([], 0, 0, 0)])
def test_by_hand(labels, right, matched, found):
    counted = measure(labels, TRUTH)
    assert (counted['right'], counted['matched'], counted['found'], counted['gold'], counted['captions']) == (right, matched, found, 3, 1)
    assert counted['precision'] == right/max(matched, 1) and counted['recall'] == found/3 and counted['coverage'] == (matched > 0)
    assert sum(row['matched'] for row in counted['by_kind'].values()) == matched and sum(row['gold'] for row in counted['by_kind'].values()) == 3
    assert not counted['by_kind'].get('none', {}).get('right')


def test_a_region_is_right_by_its_own_place_not_by_the_teachers():
    "The teacher's box matches a region that misses the thing: wrong, although the box itself would do."
    box, region, thing = (0., 0., 100., 100.), (0., 0., 100., 60.), (0., 0., 100., 140.)
    each = [GoldPhrase(0, 9, 'animals', (thing,))]
    assert label_is_right(PseudoLabel(Phrase('a red dog', 0, 9), box, 1.), each)
    found = measure([(0, 9, box, 1.)], each, (region,))
    assert (found['matched'], found['right']) == (1, 0)


def test_the_measure_is_the_plain_count(small_labels, small_regions, small_world):
    "Against a loop that goes through captions, phrases and regions one by one."
    store, gold, matched, right = Store(small_regions), read_gold(small_world/'gold'/'captions.jsonl'), 0, 0
    for each in read_labels(small_labels):
        regions = store.get(each.image_id).boxes.tolist()
        for label in each.labels:
            near = [region for region in regions if box_iou(torch.tensor([label.box]), torch.tensor([region]))[0, 0] > .5]
            matched += bool(near)
            shared = [len(set(range(label.phrase.start, label.phrase.end)) & set(range(mention.start, mention.end))) for mention in gold[each.id].phrases]
            things = gold[each.id].phrases[shared.index(max(shared))].boxes if shared and max(shared) else ()
            right += any(box_iou(torch.tensor([region]), torch.tensor([thing]))[0, 0] > .5 for region in near for thing in things)
    found = measure_labels(read_labels(small_labels), store, gold)
    assert (found['matched'], found['right']) == (matched, right) and found['captions'] == 40
    assert found['precision'] > .3 and found['recall'] > .3 # the world's teacher is often right


def test_truth_for_labels_would_be_perfect(small_world):
    gold = read_gold(small_world/'gold'/'captions.jsonl')
    items = {item.id: item for item in read_captions(small_world/'captions.tsv')}
    perfect = [LabelledCaption(id, id, items[id].caption, tuple(PseudoLabel(Phrase(items[id].caption[p.start:p.end], p.start, p.end), box, 1.)
               for p in truth.phrases for box in p.boxes)) for id, truth in gold.items()]
    boxes = {id: torch.tensor([box for p in truth.phrases for box in p.boxes]).view(-1, 4) for id, truth in gold.items()}
    found = measure_labels(perfect, SimpleNamespace(get=lambda id: SimpleNamespace(boxes=boxes[id])), gold)
    assert found['precision'] == found['recall'] == 1
    # moved by one caption, nearly nothing is right any more
    others = list(gold)[1:] + list(gold)[:1]
    moved = [LabelledCaption(each.id, each.image_id, each.caption, tuple(PseudoLabel(label.phrase, box, 1.) for label, box in zip(each.labels, boxes[other].tolist())))
             for each, other in zip(perfect, others)]
    assert measure_labels(moved, SimpleNamespace(get=lambda id: SimpleNamespace(boxes=boxes[others[list(gold).index(id)]])), gold)['precision'] < .2


@given(st.integers(0, 20), st.integers(1, 20), st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=4))
def test_a_phrase_stands_for_the_mention_it_shares_most_with(start, length, mentions):
    truth = [GoldPhrase(a, a + n, 'x', ()) for a, n in mentions]
    shared = [len(set(range(start, start + length)) & set(range(each.start, each.end))) for each in truth]
    found = mention_of(Phrase('y'*length, start, start + length), truth)
    assert (found is None) == (not any(shared)) and (found is None or shared[found] == max(shared))


def test_gold_of_another_world(small_labels, small_regions, small_world, tmp_path):
    with pytest.raises(ValueError, match="nothing of caption 'captions-000000.jpg'"): measure_labels(read_labels(small_labels), Store(small_regions), {})
    with pytest.raises(FileNotFoundError, match='the truth about captions lies in the gold folder'): read_gold(tmp_path/'captions.jsonl')


def test_gold_with_another_text(small_labels, small_regions, small_world):
    gold = read_gold(small_world/'gold'/'captions.jsonl')
    first = read_labels(small_labels)[0].id
    with pytest.raises(ValueError, match='another text for caption'):
        measure_labels(read_labels(small_labels), Store(small_regions), gold | {first: replace(gold[first], caption='a dog')})


def test_gold_that_cannot_be_read(tmp_path):
    (tmp_path/'gold.jsonl').write_text('{"id": "a", "caption": "a dog", "phrases": []}\n{"id": "b", "caption": "a dog"}\n')
    with pytest.raises(ValueError, match='gold.jsonl, line 2: no field phrases'): read_gold(tmp_path/'gold.jsonl')
    (tmp_path/'gold.jsonl').write_text('{"id": "a", "caption": "a dog", "phrases": []}\nhello\n')
    with pytest.raises(ValueError, match='gold.jsonl, line 2: not JSON'): read_gold(tmp_path/'gold.jsonl')
    (tmp_path/'gold.jsonl').write_bytes(b'{"id": "a", "caption": "\xff", "phrases": []}')
    with pytest.raises(ValueError, match='gold.jsonl, line 1: not JSON'): read_gold(tmp_path/'gold.jsonl')


def phrase(**change): return dict(start=0, end=5, kind='animals', boxes=[[1, 2, 3, 4]]) | change


@pytest.mark.parametrize('change, told', [(dict(phrases=5), 'phrases must be'), (dict(phrases=[1]), 'expected an object'), (dict(id=[1]), 'id must be'), (dict(phrases=[phrase(boxes=3)]), 'boxes must be'),
    (dict(phrases=[phrase(boxes=[3])]), 'boxes must be'), (dict(phrases=[phrase(boxes=[[1, 2]])]), 'boxes must be'), (dict(phrases=[phrase(start='0')]), 'start must be')])
def test_gold_with_a_field_of_another_type(tmp_path, change, told):
    (tmp_path/'gold.jsonl').write_text(json.dumps(dict(id='a', caption='a dog', phrases=[phrase()]) | change) + '\n')
    with pytest.raises(ValueError, match=f'gold.jsonl, line 1: {told}'): read_gold(tmp_path/'gold.jsonl')


@given(raw_labels, boxes)
def test_the_histogram_counts_each_label_that_names_something(raw, thing):
    truth = (GoldPhrase(0, 12, 'animals', (thing,)), GoldPhrase(13, 60, 'none', ()))
    found = measure_labels([raw], SimpleNamespace(get=lambda id: SimpleNamespace(boxes=torch.zeros(0, 4))), {'a': GoldCaption(raw.caption, truth)})
    ious = [iou for label in raw.labels if (iou := label_iou(label, truth)) is not None]
    assert found['iou'] == [sum(min(9, int(10*iou)) == bin for iou in ious) for bin in range(10)] and sum(found['iou']) == sum(label.phrase.start < 12 for label in raw.labels)
    assert found['named'] == any(label.phrase.start < 12 for label in raw.labels) and found['gold'] == 1


def test_named_counts_phrases_without_a_box():
    bare = replace(labelled(caption=CAPTION), phrases=(Phrase(CAPTION[2:9], 2, 9),))
    found = measure_labels([bare], SimpleNamespace(get=lambda id: SimpleNamespace(boxes=torch.tensor([DOG]))), {'a': GoldCaption(CAPTION, tuple(TRUTH))})
    assert (found['named'], found['gold'], found['matched']) == (1, 3, 0)

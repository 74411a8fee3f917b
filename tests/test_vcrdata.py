"Reader and writer of VCR: round trips, files as the originals have them, names, words that point, and files that lie."
import json
from collections import Counter
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import example, given, settings, strategies as st

from vlground.vcrdata import (NAMES, Pointer, VCRItem, VCRObjects, Worded, object_words, read_vcr, read_vcr_objects, vcr_choice, worded, write_vcr,
                          write_vcr_objects)

TEXT = st.text(st.characters(codec='utf-8') | st.sampled_from('\\\t\n\r\0\ufeff\u2028\x85"\''), max_size=8)
quick = settings(max_examples=60, deadline=None)


# files

WORD = st.text(st.characters(codec='utf-8', exclude_categories=['Zs', 'Cc', 'Zl', 'Zp']), min_size=1, max_size=5)

@st.composite
def items(draw, labelled=True, most=4):
    found = []
    for name in draw(st.lists(TEXT, unique=True, max_size=most)):
        objects = tuple(draw(st.lists(st.sampled_from(['person', 'person', 'car', 'dog']), max_size=5)))
        reference = st.lists(st.integers(0, len(objects) - 1), min_size=1, max_size=3).map(tuple) if objects else WORD
        text = st.lists(WORD | reference, max_size=5).map(tuple)
        four = st.lists(text, min_size=4, max_size=4).map(tuple)
        labels = (draw(st.integers(0, 3)), draw(st.integers(0, 3))) if labelled else (None, None)
        found.append(VCRItem(name, draw(TEXT), draw(st.integers(0, 99)), draw(TEXT), draw(TEXT), draw(TEXT), objects, draw(text), draw(four), draw(four), *labels))
    return found

@quick
@given(st.data())
def test_vcr_round_trip(tmp_path_factory, data):
    split = data.draw(st.sampled_from(['train', 'val', 'test']))
    folder, made = tmp_path_factory.mktemp('vcr'), data.draw(items(labelled=split != 'test'))
    write_vcr(made, folder, split)
    assert read_vcr(folder, split) == made # the order too

BOX = st.tuples(*[st.floats(0, 500)]*4, st.floats(0, 1)).map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1, b[4]))
SEGM = st.lists(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 500)), max_size=3).map(tuple), max_size=2).map(tuple)

@quick
@given(st.lists(st.tuples(st.sampled_from(['person', 'car']), BOX, SEGM), max_size=4))
def test_boxes_round_trip(tmp_path_factory, things):
    folder = tmp_path_factory.mktemp('boxes')
    names, boxes, segms = (tuple(column) for column in zip(*things)) if things else ((), (), ())
    found = VCRObjects((600, 502), names, tuple(box[:4] for box in boxes), tuple(box[4] for box in boxes), segms)
    write_vcr_objects(found, folder, 'film/a.json')
    assert read_vcr_objects(folder, replace(ITEM, objects=names, metadata_fn='film/a.json')) == found

ITEM = VCRItem('val-7', 'val-3', 1, 'A_FILM', 'film/a.jpg', 'film/a.json', ('person', 'dog', 'person', 'dog'), ('Does', (2,), 'like', (1, 3), '?'),
               (('Yes', '.'), ('No', ',', (2,), 'is', 'afraid', '.'), ((0,), 'does', '.'), ((0, 2), 'do', '.')), (('a',), ('b', (1,)), ('c',), ('d',)), 1, 3)

FIXED = ('Avery', 'dog', 'Hayden', 'dog') # ITEM's words, on every machine and in every version: a change makes other data of the same files

# a line as it is published, shortened: fields that we do not need stand between those that we do
LINE = {'movie': '3015_A_FILM', 'objects': ['person', 'person', 'person', 'car'], 'interesting_scores': [0], 'answer_likelihood': 'possible', 'img_fn': 'lsmdc/x@0.jpg',
        'metadata_fn': 'lsmdc/x@0.json', 'answer_orig': 'No she does not', 'question': ['Does', [2], 'feel', 'comfortable', '?'],
        'answer_choices': [['Yes', '.'], ['No', 'she', 'does', 'not', '.'], ['Yes', ',', [0, 1]], [[3]]], 'answer_label': 1,
        'rationale_choices': [['a'], ['b'], ['c'], [[2], 'is']], 'rationale_label': 1, 'img_id': 'train-0', 'question_number': 0, 'annot_id': 'train-0', 'match_index': 0}

def write_lines(folder, *rows, split='val'):
    folder.mkdir(exist_ok=True)
    (folder/f'{split}.jsonl').write_text(''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in rows))

def test_a_published_line(tmp_path):
    write_lines(tmp_path, LINE, LINE | {'annot_id': 'train-1'})
    first, second = read_vcr(tmp_path, 'val')
    assert first.question == ('Does', (2,), 'feel', 'comfortable', '?') and first.answer_choices[2] == ('Yes', ',', (0, 1))
    assert (first.annot_id, second.annot_id, first.img_id, first.answer_label, first.rationale_label) == ('train-0', 'train-1', 'train-0', 1, 1)
    secret = {name: value for name, value in LINE.items() if not name.endswith('label')}
    write_lines(tmp_path, secret, split='test')
    assert read_vcr(tmp_path, 'test') == [replace(first, answer_label=None, rationale_label=None)]
    write_lines(tmp_path, secret)
    with pytest.raises(ValueError, match='val.jsonl, line 1, annot_id [^:]*: no field answer_label'): read_vcr(tmp_path, 'val')

@pytest.mark.parametrize('changed, message', [
    ({'question': ['Is', [4], '?']}, r'question refers to \[4\], and the item has 4 objects: expected numbers from 0 to 3'),
    ({'question': ['Is', [-1], '?']}, r'refers to \[-1\]'), ({'question': ['Why', [], '?']}, r'refers to \[\], .* numbers from 0 to 3'),
    ({'objects': []}, 'the item has 0 objects: expected words alone'), ({'question': ['Is', [True], '?']}, r'refers to \[True\]'), ({'question': ['Is', [1.0]]}, r'refers to \[1.0\]'),
    ({'question': ['Is', 2]}, 'expected words and lists of numbers, got 2'), ({'question': 'Is it?'}, 'question must be a list'),
    ({'answer_choices': [['a'], ['b'], ['c']]}, '3 answer_choices; expected four'), ({'rationale_choices': [['a']]*5}, '5 rationale_choices; expected four'),
    ({'answer_choices': [['a'], ['b'], ['c'], [[9]]]}, r'answer 3 refers to \[9\]'), ({'rationale_choices': [['a'], 'b', ['c'], ['d']]}, 'rationale 1 must be a list'),
    ({'answer_label': 4}, 'answer_label is 4; expected 0, 1, 2 or 3'), ({'rationale_label': -1}, 'rationale_label is -1'), ({'answer_label': True}, 'answer_label must be a whole number'),
    ({'rationale_label': None}, 'rationale_label must be a whole number'), ({'objects': ['person', 3]}, 'objects must be texts'), ({'annot_id': 3}, 'annot_id must be text'),
    ({'annot_id': 'train-0'}, "the annot_id 'train-0' was already used in line 1")])
def test_bad_lines_are_named(tmp_path, changed, message):
    write_lines(tmp_path, LINE, '', LINE | {'annot_id': 'train-1'} | changed)
    with pytest.raises(ValueError, match='val.jsonl, line 3(, annot_id [^:]*)?: .*' + message): read_vcr(tmp_path, 'val')

def test_lines_that_are_no_lines(tmp_path):
    for line in ('{"annot_id": "a', '[1, 2]', '\x00', '['*10**5):
        write_lines(tmp_path, LINE, line)
        with pytest.raises(ValueError, match='val.jsonl, line 2(, annot_id [^:]*)?: '): read_vcr(tmp_path, 'val')
    (tmp_path/'val.jsonl').write_bytes(json.dumps(LINE).encode() + b'\n"\xff"\n')
    with pytest.raises(ValueError, match='val.jsonl, line 2: not JSON'): read_vcr(tmp_path, 'val')
    with pytest.raises(FileNotFoundError, match="train.jsonl.*val.jsonl"): read_vcr(tmp_path, 'train')

@pytest.mark.parametrize('wrong, split', [
    (replace(ITEM, question=('Is', (4,))), 'val'), (replace(ITEM, answer_label=None), 'val'), (replace(ITEM, answer_choices=ITEM.answer_choices[:3]), 'val'),
    (replace(ITEM, rationale_label=7), 'train'), (replace(ITEM, question=['Is', [1]]), 'val'), (ITEM, 'test')])
def test_items_that_cannot_be_read_back_are_not_written(tmp_path, wrong, split):
    with pytest.raises(ValueError, match='item val-7'): write_vcr([wrong], tmp_path, split)
    assert not list(tmp_path.iterdir())

def test_ids_of_items_are_unique(tmp_path):
    with pytest.raises(ValueError, match='item val-7'): write_vcr([ITEM, ITEM], tmp_path, 'val')

FOUND = dict(boxes=[[10, 20, 30.5, 40, .99], [0, 0, 640, 480, .5], [1, 1, 2, 2, 1], [5, 5, 9, 9, .7]], segms=[[[[10, 20], [30.5, 40], [10, 40]]], [], [], []],
             names=['person', 'dog', 'person', 'dog'], width=640, height=480)

def write_found(folder, **changed):
    (folder/'vcr1images'/'film').mkdir(parents=True, exist_ok=True)
    (folder/'vcr1images'/'film'/'a.json').write_text(json.dumps(FOUND | changed))

def test_published_boxes(tmp_path):
    write_found(tmp_path)
    found = read_vcr_objects(tmp_path, ITEM)
    assert found.size == (640, 480) and found.boxes[0] == (10, 20, 30.5, 40) and found.scores == (.99, .5, 1, .7)
    assert found.segms[0] == (((10, 20), (30.5, 40), (10, 40)),)
    assert [found.names[i] for token in ITEM.question if isinstance(token, tuple) for i in token] == ['person', 'dog', 'dog']
    write_found(tmp_path, boxes=[[-.4, 0, 640.7, 480, 1]]*4) # rounding
    assert read_vcr_objects(tmp_path, ITEM).boxes[0] == (0, 0, 640, 480)

@pytest.mark.fault(13)
@pytest.mark.parametrize('changed, message', [
    ({'boxes': FOUND['boxes'][:3]}, '4 names, 3 boxes and 4 segms'), ({'boxes': [[1, 2, 3, 4]]*4}, 'box 0 must be x1, y1, x2, y2 and a score'),
    ({'boxes': FOUND['boxes'][:3] + [[5, 5, 5, 9, 1]]}, 'box 3 is'), ({'boxes': FOUND['boxes'][:3] + [[5, 5, 900, 9, 1]]}, 'box 3 is .* inside the picture of 640 x 480'),
    ({'boxes': [[9, 5, 5, 9, 1]]*4}, 'box 0 is'), ({'boxes': [[9, -3, 15, 9, 1]]*4}, 'box 0 is'),
    ({'boxes': [[-.9, 5, -.2, 9, 1]]*4}, 'box 0 is'), ({'boxes': [[640.2, 5, 640.9, 9, 1]]*4}, 'box 0 is'),
    ({'boxes': [[1, 5, 9, float('nan'), 1]]*4}, 'box 0 is'), ({'boxes': [[1, 5, 9, float('inf'), 1]]*4}, 'box 0 is'), ({'boxes': [[1, 5, 9, 9, float('nan')]]*4}, 'box 0 is'),
    ({'boxes': [[float('nan'), 5, 5, 9, 1]]*4}, 'box 0 is'), ({'boxes': [None]*4}, 'box 0 must be'),
    ({'names': ['person']*4}, 'are not the objects of item val-7'), ({'width': '640'}, 'width must be a whole number'), ({'segms': None}, 'segms must be a list')])
def test_bad_boxes_are_named(tmp_path, changed, message):
    write_found(tmp_path, **changed)
    with pytest.raises(ValueError, match='film/a.json: .*' + message): read_vcr_objects(tmp_path, ITEM)

def test_boxes_that_cannot_be_read_back_are_not_written(tmp_path):
    write_found(tmp_path)
    found = read_vcr_objects(tmp_path, ITEM)
    for wrong in (replace(found, scores=found.scores[:2]), replace(found, boxes=((0., 0, 900, 9),)*4), replace(found, boxes=((-.5, 0, 9, 9),)*4), replace(found, segms=())):
        with pytest.raises(ValueError, match='b.json'): write_vcr_objects(wrong, tmp_path, 'b.json')
    assert not (tmp_path/'vcr1images'/'b.json').exists()
    with pytest.raises(FileNotFoundError, match='b.json'): read_vcr_objects(tmp_path, replace(ITEM, metadata_fn='b.json'))


def test_any_folder_will_do(tmp_path, monkeypatch):
    "With spaces and Unicode, relative, and not there yet."
    monkeypatch.chdir(tmp_path)
    write_vcr([ITEM], 'ünï cödé/VCR 1', 'val')
    assert read_vcr(tmp_path/'ünï cödé'/'VCR 1', 'val') == read_vcr('ünï cödé/VCR 1', 'val') == [ITEM]
    write_found(tmp_path)
    found = read_vcr_objects('.', ITEM)
    write_vcr_objects(found, 'ünï cödé/VCR 1', ITEM.metadata_fn)
    assert read_vcr_objects('ünï cödé/VCR 1', ITEM) == found


# names and words

def test_names_are_the_same_everywhere_in_an_item():
    choices = [vcr_choice(ITEM, task) for task in ('answer', 'rationale')]
    called = {}
    for text in (text for choice in choices for text in (choice.question, *choice.options)):
        for pointer in text.pointers: called.setdefault(pointer.object, set()).add(text.text[pointer.start:pointer.end])
    assert {i: len(words) for i, words in called.items()} == {0: 1, 1: 1, 2: 1, 3: 1}
    assert called[1] == called[3] == {'dog'} and called[0] != called[2] and called[0] | called[2] < set(NAMES)

@quick
@given(st.lists(st.sampled_from(['person', 'car']), max_size=120), TEXT, st.integers(0, 5))
def test_names(objects, annot_id, seed):
    item = replace(ITEM, objects=tuple(objects), annot_id=annot_id)
    words = object_words(item, seed)
    people = [word for word, kind in zip(words, objects) if kind == 'person']
    assert len(words) == len(objects) and len(set(people)) == len(people) # nobody shares a name
    assert all(word == 'car' for word, kind in zip(words, objects) if kind != 'person')
    assert words == object_words(replace(item, question=(), question_number=9, img_id='x'), seed) # by id and seed alone
    assert set(people[:len(NAMES)]) <= set(NAMES)

def test_names_are_drawn_fairly_and_fixed_by_the_seed():
    firsts = [object_words(replace(ITEM, annot_id=f'val-{i}'))[0] for i in range(720)]
    assert set(firsts) == set(NAMES) and max(Counter(firsts).values()) < 50 # 20 each on average
    assert [object_words(ITEM, seed)[::2] for seed in (0, 1)] != [object_words(ITEM, seed)[::2] for seed in (1, 0)]
    assert object_words(ITEM) == FIXED
    crowd = object_words(replace(ITEM, objects=('person',)*100))
    assert len(set(crowd)) == 100 and set(crowd[:len(NAMES)]) == set(NAMES) and crowd[len(NAMES)] == crowd[0] + '2'

@quick
@given(st.lists(WORD | st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple), max_size=8), st.lists(WORD, min_size=4, max_size=4))
@example([(0, 1), 'and', (0,)], ['and', 'and', 'x', 'y'])
def test_each_pointer_is_its_word(tokens, words):
    told = worded(tuple(tokens), words)
    flat = [i for token in tokens if isinstance(token, tuple) for i in token]
    assert [told.text[p.start:p.end] for p in told.pointers] == [words[i] for i in flat] and [p.object for p in told.pointers] == flat
    assert all(a.end < b.start for a, b in zip(told.pointers, told.pointers[1:]))
    said = [word for token in tokens for word in ([token] if isinstance(token, str) else ' and '.join(words[i] for i in token).split(' '))]
    assert told.text.split(' ') == (said or [''])

def test_worded():
    assert worded((), []) == Worded('', ())
    assert worded(('so', (0,)), ['Sam']) == Worded('so Sam', (Pointer(3, 6, 0),))
    for token in ((), (-1,), (1,)):
        with pytest.raises(ValueError, match=r'refers to \(.*\), and the item has 1 objects: expected numbers from 0 to 0'): worded(('so', token), ['Sam'])


# choices

def test_the_question_of_a_rationale_holds_the_right_answer():
    asked, explained = vcr_choice(ITEM, 'answer'), vcr_choice(ITEM, 'rationale')
    assert (asked.annot_id, asked.file_name, asked.label, explained.label) == ('val-7', 'film/a.jpg', 1, 3)
    assert explained.question.text == f'{asked.question.text} [SEP] {asked.options[1].text}'
    for pointer in explained.question.pointers: assert explained.question.text[pointer.start:pointer.end] == object_words(ITEM)[pointer.object]
    assert [pointer.object for pointer in explained.question.pointers] == [2, 1, 3, 2]
    assert [option.text for option in explained.options] == ['a', 'b dog', 'c', 'd']
    assert vcr_choice(ITEM, 'rationale', answer=0).question.text.endswith(' [SEP] Yes .')
    assert vcr_choice(ITEM, 'answer', seed=1).question != asked.question

def test_a_secret_answer_must_be_named():
    secret = replace(ITEM, answer_label=None, rationale_label=None)
    assert vcr_choice(secret, 'answer').label is None and vcr_choice(secret, 'rationale', answer=3).label is None
    with pytest.raises(ValueError, match='item val-7: which answer.*label is None'): vcr_choice(secret, 'rationale')
    with pytest.raises(ValueError, match="no task 'both'"): vcr_choice(ITEM, 'both')
    with pytest.raises(ValueError, match='item val-7: which answer'): vcr_choice(ITEM, 'rationale', answer=4)

def test_four_people_in_every_order():
    "A reference keeps its order."
    for order in permutations(range(3)):
        told = worded((order,), ['Sam', 'Kim', 'Lee'])
        assert [p.object for p in told.pointers] == list(order) and told.text == ' and '.join(['Sam', 'Kim', 'Lee'][i] for i in order)

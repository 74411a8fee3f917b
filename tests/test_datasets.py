"Readers and writers of the data sets' own layouts: round trips, files as the originals have them, and files that lie."
import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings, strategies as st

from vlground.datasets import (CaptionedImage, Expression, GoldImage, ReferData, find_images, fraction_of, read_captions, read_pickle, read_refer,
                               write_captions, write_refer)

CHARACTERS = st.characters(codec='utf-8') | st.sampled_from('\\\t\n\r\0\ufeff\u2028\u2029\x0b\x0c\x85"\'#')
NAMES = ('a.jpg', 'b.PNG', 'deep/er/a.jpg', 'with space.webp', 'ünï#1.jpeg', '100%.gif')


# captions

@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')/'images'
    for name in NAMES:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(b'')
    (folder/'notes.txt').write_bytes(b'')
    return folder

def test_find_images(images):
    assert list(find_images(images)) == sorted(NAMES)
    assert all(path == images/name for name, path in find_images(images).items())
    with pytest.raises(FileNotFoundError, match='nowhere'): find_images(images/'nowhere')

@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(CHARACTERS)), max_size=6), st.sampled_from(['tsv', 'jsonl']))
@example([('a.jpg', '\ufeffa\tb\nc\rd\\t\\\\n'), ('a.jpg', '')], 'tsv')
def test_captions_round_trip(images, rows, suffix):
    items, count = [], {}
    for name, caption in rows:
        number = count[name] = count.get(name, -1) + 1
        items.append(CaptionedImage(f'{name}#{number}' if number else name, images/name, caption, name))
    file = images.parent/f'captions.{suffix}'
    write_captions(items, file)
    assert read_captions(file) == items
    assert read_captions(file, images) == items

@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters=''), min_size=1), unique=True, max_size=4), st.text())
def test_jsonl_keeps_any_id_and_half_surrogates(images, ids, caption):
    items = [CaptionedImage(id, images/'a.jpg', caption + '\ud800', 'a.jpg') for id in ids]
    write_captions(items, images.parent/'own.jsonl')
    assert read_captions(images.parent/'own.jsonl') == items

@given(st.text(st.characters(codec='utf-8', exclude_characters='\t\n\r\ufeff')))
@settings(deadline=None)
def test_published_lines_without_escapes_are_taken_as_they_stand(images, caption):
    assume(not any(spelt in caption for spelt in ('\\\\', '\\t', '\\n', '\\r', '\\ufeff')))
    (images.parent/'published.tsv').write_bytes(f'{caption}\thttp://host/a.jpg\n'.encode())
    assert [item.caption for item in read_captions(images.parent/'published.tsv')] == [caption]

@pytest.mark.parametrize('url, key', [
    ('a.jpg', 'a.jpg'), ('images/a.jpg', 'a.jpg'), ('deep/er/a.jpg', 'deep/er/a.jpg'), ('./images/deep/er/a.jpg', 'deep/er/a.jpg'), ('../elsewhere/images/a.jpg', 'a.jpg'),
    ('https://host.org/p/q/a.jpg?size=3#part', 'a.jpg'), ('https://host.org/with%20space.webp', 'with space.webp'), ('http://host.org/deep/er/a.jpg', 'deep/er/a.jpg'), ('100%.gif', '100%.gif')])
def test_which_picture_an_address_means(images, url, key):
    (images.parent/'one.tsv').write_text(f'hello\t{url}\n')
    (item,) = read_captions(images.parent/'one.tsv')
    assert item == CaptionedImage(key, images/key, 'hello', key)

def test_a_missing_picture_is_not_replaced_by_one_of_the_same_name(images):
    (images.parent/'one.tsv').write_text('hello\tcats/b.jpg\n')
    with pytest.raises(FileNotFoundError, match='one.tsv, line 1: cats/b.jpg'): read_captions(images.parent/'one.tsv')

def test_windows_line_ends_mark_and_empty_lines(images):
    (images.parent/'w.tsv').write_bytes('\ufeffhello\ta.jpg\r\n\r\nagain\ta.jpg'.encode())
    assert [item.caption for item in read_captions(images.parent/'w.tsv')] == ['hello', 'again']

def test_missing_pictures_up_to_a_share(images):
    file = images.parent/'m.tsv'
    file.write_text('x\ta.jpg\ny\thttp://h/gone.jpg\nz\ta.jpg\nw\tb.PNG\n')
    with pytest.raises(FileNotFoundError, match=r'1 of 4 pictures.*m.tsv, line 2: http://h/gone.jpg.*max_missing'): read_captions(file, max_missing=0.24)
    with pytest.warns(UserWarning, match='1 of 4'): assert [item.id for item in read_captions(file, max_missing=0.25)] == ['a.jpg', 'a.jpg#1', 'b.PNG']

@pytest.mark.parametrize('name, content, told', [
    ('x.tsv', b'fine\ta.jpg\nno tab here\n', r'x.tsv, line 2: expected caption<TAB>url, got 1 column'),
    ('x.tsv', b'one\ttwo\tthree\n', r'line 1: .*got 3 column'),
    ('x.tsv', b'fine\ta.jpg\ncaf\xe9\ta.jpg\n', r'x.tsv, line 2: not UTF-8'),
    ('x.jsonl', b'{"caption": "x", "image": "a.jpg"}\n{"caption"', r'x.jsonl, line 2: not JSON'),
    ('x.jsonl', b'{"caption": "x", "picture": "a.jpg"}', r'line 1: expected an object with the texts "caption" and "image"'),
    ('x.jsonl', b'{"caption": null, "image": "a.jpg"}', r'line 1: expected'),
    ('x.jsonl', b'["x", "a.jpg"]', r'line 1: expected'),
    ('x.jsonl', b'{"caption": "x", "image": "a.jpg", "id": "i"}\n{"caption": "y", "image": "b.PNG", "id": "i"}', r"line 2: the id 'i' was already used in .*line 1")])
def test_bad_lines_are_named(images, name, content, told):
    (images.parent/name).write_bytes(content)
    with pytest.raises(ValueError, match=told): read_captions(images.parent/name)

def test_what_a_table_cannot_carry_is_refused(images, tmp_path):
    own = CaptionedImage('my id', images/'a.jpg', 'x', 'a.jpg')
    with pytest.raises(ValueError, match="cannot keep the id 'my id'.*jsonl"): write_captions([own], tmp_path/'c.tsv')
    with pytest.raises(ValueError, match='surrogate'): write_captions([replace(own, id='a.jpg', caption='\ud800')], tmp_path/'c.tsv')
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match='c.tsv: no such captions file'): read_captions(tmp_path/'c.tsv')
    with pytest.raises(FileNotFoundError, match='nowhere'): (tmp_path/'c.tsv').touch(); read_captions(tmp_path/'c.tsv', tmp_path/'nowhere')


# pickles

PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
                     lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=20)

@settings(deadline=None)
@given(PLAIN, st.sampled_from([3, 4, 5]))
def test_plain_pickles_are_read(images, value, protocol):
    path = images.parent/'x.p'
    path.write_bytes(pickle.dumps(value, protocol))
    assert read_pickle(path) == value

# what Python 2.7 writes for [{'raw': 'caf\xc3\xa9', 'n': 5L, 'u': u'\xe9'}] with pickle.dump's protocol 0 and cPickle's protocol 2
PYTHON_2 = [b"(lp0\n(dp1\nS'raw'\np2\nS'caf\\xc3\\xa9'\np3\nsS'u'\np4\nV\xe9\np5\nsS'n'\np6\nL5L\nsa.",
            b'\x80\x02]q\x01}q\x02(U\x03rawq\x03U\x05caf\xc3\xa9q\x04U\x01uq\x05X\x02\x00\x00\x00\xc3\xa9q\x06U\x01nq\x07\x8a\x01\x05ua.']

@pytest.mark.parametrize('content', PYTHON_2)
def test_pickles_of_python_2(tmp_path, content):
    (tmp_path/'x.p').write_bytes(content)
    assert read_pickle(tmp_path/'x.p') == [{'raw': 'café', 'u': 'é', 'n': 5}]

def test_bytes_that_are_no_utf_8_do_not_stop_the_reading(tmp_path):
    (tmp_path/'x.p').write_bytes(b"(lp0\nS'caf\\xe9'\np1\na.")
    assert read_pickle(tmp_path/'x.p') == ['caf\ufffd']

class Bomb:
    def __init__(self, target): self.target = target
    def __reduce__(self): return os.system, (f'touch {self.target}',)

BOMBS = {'system': lambda target: pickle.dumps([Bomb(target)]), 'nested': lambda target: pickle.dumps([{'a': (1, {'b': Bomb(target)})}], 0),
         'eval': lambda target: f"cbuiltins\neval\n(S'open({str(target)!r}, chr(119))'\ntR.".encode().replace(b"S'open('", b'S"open(\'').replace(b"chr(119))'", b'chr(119))"'),
         'getattr': lambda target: b"cbuiltins\ngetattr\n(cos\nsystem\nS'__call__'\ntR.", 'stack global': lambda target: b'\x80\x04\x8c\x05posix\x8c\x06system\x93.',
         'build': lambda target: b"ccollections\nOrderedDict.fromkeys\n.", 'array': lambda target: pickle.dumps(np.zeros(3)), 'persistent': lambda target: b'Pabc\n.'}

@pytest.mark.parametrize('kind', BOMBS)
def test_bombs_are_refused_and_do_not_go_off(tmp_path, kind):
    (tmp_path/'refs.p').write_bytes(BOMBS[kind](tmp_path/'boom'))
    with pytest.raises(ValueError, match='refs.p: not a pickle of plain data'): read_pickle(tmp_path/'refs.p')
    assert not (tmp_path/'boom').exists()

def test_the_bomb_would_have_gone_off(tmp_path):
    for kind in ('system', 'nested', 'eval'):
        pickle.loads(BOMBS[kind](tmp_path/kind))
        assert (tmp_path/kind).exists()

@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_rubbish_is_one_clear_error(images, content):
    path = images.parent/'x.p'
    path.write_bytes(content)
    try: read_pickle(path)
    except ValueError as error: assert 'x.p' in str(error)

def test_missing_pickle(tmp_path):
    with pytest.raises(FileNotFoundError, match='x.p'): read_pickle(tmp_path/'x.p')


# referring expressions

@st.composite
def refer_data(draw):
    "Any data set of the family: boxes with awkward fractions, objects nobody refers to, pictures without objects."
    images, expressions, ann_id = {}, [], draw(st.integers(0, 10**6))
    for image_id in draw(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=3)):
        width, height = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
        count = draw(st.integers(0, 3))
        def span(size): return tuple(edge/10_000 for edge in sorted(draw(st.lists(st.integers(0, 10_000*size), min_size=2, max_size=2, unique=True))))
        boxes = []
        for _ in range(count):
            (x1, x2), (y1, y2) = span(width), span(height)
            boxes.append((x1, y1, x2, y2))
        kinds = tuple(draw(st.sampled_from(['dog', 'teddy bear', 'ünder', ''])) for _ in boxes)
        ann_ids = tuple(range(ann_id, ann_id + count))
        ann_id += count
        images[image_id] = GoldImage(image_id, f'folder/COCO_{image_id:012}.jpg', (width, height), ann_ids, tuple(boxes), kinds)
        for number in ann_ids:
            split = draw(st.sampled_from(['train', 'val', 'testA', 'testB']))
            for _ in range(draw(st.integers(0, 2))):
                place = number - ann_ids[0]
                expressions.append(Expression(len(expressions), image_id, images[image_id].file_name, draw(st.text(st.characters(codec='utf-8'))), boxes[place], kinds[place], split, number, number))
    return ReferData(tuple(expressions), images)

@settings(max_examples=60, deadline=None)
@given(refer_data(), st.sampled_from([('refcoco', 'unc'), ('refcoco+', 'unc'), ('refcocog', 'umd')]))
def test_refer_round_trip(images, data, names):
    write_refer(data, images.parent, *names)
    assert read_refer(images.parent, *names) == data

def test_boxes_are_kept_to_four_decimals(tmp_path):
    data = read_refer(original(tmp_path))
    (image,), box = data.images.values(), tuple(np.array([1.1, 2.2, 33.3, 44.4], dtype=np.float32).astype(float).tolist())
    write_refer(ReferData((), {image.id: replace(image, boxes=(box,))}), tmp_path)
    assert read_refer(tmp_path).images[image.id].boxes == ((1.1, 2.2, 33.3, 44.4),)
    for bad in ((1., 1., 1., 5.), (5., 1., 1., 5.), (1., 1., 1.00001, 5.), (1., float('nan'), 2., 5.), (1., 1., 700., 5.)):
        with pytest.raises(ValueError, match='object 1719310 of image 581857.*(no area|not inside)'): write_refer(ReferData((), {image.id: replace(image, boxes=(bad,))}), tmp_path)

def original(folder, **changes): # the two files as the originals have them, with ids, fields and rounding of their kind
    annotation = {'segmentation': [[1., 2., 3., 4.]], 'area': 1234.5, 'iscrowd': 0, 'image_id': 581857, 'bbox': [10.62, 20.5, 100.25, 459.51], 'category_id': 18, 'id': 1719310}
    flat = annotation | {'id': 99, 'bbox': [5., 5., 0., 7.]}
    coco = {'info': {}, 'licenses': [], 'images': [{'license': 1, 'file_name': 'COCO_train2014_000000581857.jpg', 'coco_url': '', 'height': 480, 'width': 640, 'id': 581857}],
            'annotations': [annotation, flat], 'categories': [{'supercategory': 'animal', 'id': 18, 'name': 'dog'}]}
    sentences = [{'tokens': ['the', 'dog'], 'raw': 'The dog ', 'sent_id': number, 'sent': 'the dog'} for number in (0, 1)]
    ref = {'sent_ids': [0, 1], 'file_name': 'COCO_train2014_000000581857_16.jpg', 'ann_id': 1719310, 'ref_id': 0, 'image_id': 581857, 'split': 'train', 'sentences': sentences, 'category_id': 18}
    for place, value in changes.items():
        target = {'annotation': annotation, 'ref': ref, 'sentence': sentences[1], 'image': coco['images'][0]}[place.split('_', 1)[0]]
        key = place.split('_', 1)[1]
        if value is None: del target[key]
        else: target[key] = value
    (folder/'refcoco+').mkdir(parents=True, exist_ok=True)
    (folder/'refcoco+'/'instances.json').write_text(json.dumps(coco))
    (folder/'refcoco+'/'refs(unc).p').write_bytes(pickle.dumps([ref], 2))
    return folder

def test_the_original_layout(tmp_path):
    data = read_refer(original(tmp_path))
    # 20.5 + 459.51 is a hundredth of a pixel below the picture
    box = (10.62, 20.5, 110.87, 480.)
    assert data.images == {581857: GoldImage(581857, 'COCO_train2014_000000581857.jpg', (640, 480), (1719310,), (box,), ('dog',))}
    assert data.expressions == tuple(Expression(number, 581857, 'COCO_train2014_000000581857.jpg', 'The dog ', box, 'dog', 'train', 0, 1719310) for number in (0, 1))
    assert data.split('train') == list(data.expressions)
    with pytest.raises(ValueError, match=r"no split 'testA'; there are \['train'\]"): data.split('testA')

@pytest.mark.parametrize('changes, told', [
    (dict(annotation_bbox=[10, 20, 700, 30]), r'instances.json, annotation id 1719310: bbox .* not inside its picture of 640 x 480'),
    (dict(annotation_bbox=[-40, 20, 70, 30]), 'not inside'), (dict(annotation_bbox=[10, 20, float('nan'), 30]), 'not inside'), (dict(annotation_bbox=[10, 20, 30]), 'four numbers'),
    (dict(annotation_bbox=[10, 20, 0, 30]), r'ref_id 0: its ann_id 1719310 is not among the objects with an area'),
    (dict(annotation_bbox=[10, 20, -5, 30]), 'not among the objects with an area'),
    (dict(annotation_image_id=3), 'annotation id 1719310: its image_id 3 is not among the images'), (dict(annotation_category_id=3), 'category_id 3 is not among the categories'),
    (dict(annotation_bbox=None), 'annotation 0: no field bbox'), (dict(image_width=None), 'image 0: no field width'), (dict(ref_ann_id=5), r'refs\(unc\).p, ref_id 0: its ann_id 5'),
    (dict(ref_image_id=5), r'ref_id 0: its image_id is 5, but its ann_id 1719310 belongs to image 581857'), (dict(ref_split=None), 'reference 0: no field split'),
    (dict(sentence_raw=None), 'ref_id 0: no field raw'), (dict(sentence_sent_id=0), 'ref_id 0: the sent_id 0 occurs twice')])
def test_files_that_lie_are_named(tmp_path, changes, told):
    with pytest.raises(ValueError, match=told): read_refer(original(tmp_path, **changes))

def test_missing_files_of_the_family(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'refs\(google\).p: no such file.*instances.json.*refs\(unc\).p'): read_refer(original(tmp_path), split_by='google')
    (tmp_path/'refcoco+'/'instances.json').unlink()
    with pytest.raises(FileNotFoundError, match='instances.json'): read_refer(tmp_path)
    with pytest.raises(FileNotFoundError, match='nothing'): read_refer(tmp_path/'nowhere')
    (tmp_path/'refcoco+'/'refs(unc).p').write_bytes(pickle.dumps({'a': 1}))
    original_instances = original(tmp_path/'other')/'refcoco+'/'instances.json'
    (tmp_path/'refcoco+'/'instances.json').write_bytes(original_instances.read_bytes())
    with pytest.raises(ValueError, match='expected a list of references, got dict'): read_refer(tmp_path)

def test_the_writer_refuses_what_contradicts_itself(tmp_path):
    data = read_refer(original(tmp_path))
    first, second = data.expressions
    with pytest.raises(ValueError, match='expression 1: differs from others of ref_id 0'): write_refer(replace(data, expressions=(first, replace(second, split='val'))), tmp_path)
    with pytest.raises(ValueError, match='expression 1: its box and category'): write_refer(replace(data, expressions=(first, replace(second, box=(0., 0., 5., 5.)))), tmp_path)
    assert read_refer(tmp_path) == data


# parts

IDS = st.lists(st.text() | st.integers(), unique_by=str)

@given(IDS, st.floats(0.01, 1), st.floats(0.01, 1), st.text())
def test_parts_are_nested_and_keep_the_order(ids, a, b, salt):
    small, large = fraction_of(ids, min(a, b), salt), fraction_of(ids, max(a, b), salt)
    assert set(map(str, small)) <= set(map(str, large)) and large == [id for id in ids if id in large]
    assert fraction_of(ids, 1, salt) == ids
    # whether an id is in does not depend on the others
    assert small == [id for id in ids if fraction_of([id], min(a, b), salt)]

def test_parts_have_about_the_right_size():
    for share in (1/2, 1/4, 1/8, 1/16):
        kept = len(fraction_of(range(20_000), share))
        assert abs(kept - share*20_000) < 4*(20_000*share*(1 - share))**0.5

def test_parts_are_the_same_on_every_machine():
    assert fraction_of([f'{i:05}.jpg' for i in range(80)], 1/16) == ['00023.jpg', '00046.jpg', '00077.jpg']

@pytest.mark.parametrize('share', [0, -0.1, 1.1, float('nan')])
def test_shares_that_are_none(share):
    with pytest.raises(ValueError, match='fraction'): fraction_of([1], share)

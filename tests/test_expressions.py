"Expressions and detections: round trips, files as the originals have them, files that lie, and files that would do harm."
import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st

from vlground.core import load_json
from vlground.expressions import (Detection, Expression, GoldImage, ReferData, box_corners, picture_size, proposals, read_detections, read_refer,
                                  write_detections, write_refer)


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('expressions')


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
def test_refer_round_trip(folder, data, names):
    write_refer(data, folder, *names)
    assert read_refer(folder, *names) == data

def test_boxes_are_kept_to_four_decimals(tmp_path):
    data = read_refer(original(tmp_path))
    (image,), box = data.images.values(), tuple(np.array([1.1, 2.2, 33.3, 44.4], dtype=np.float32).astype(float).tolist())
    write_refer(ReferData((), {image.id: replace(image, boxes=(box,))}), tmp_path)
    assert read_refer(tmp_path).images[image.id].boxes == ((1.1, 2.2, 33.3, 44.4),)
    for bad in ((1., 1., 1., 5.), (5., 1., 1., 5.), (1., 1., 1.00001, 5.), (1., float('nan'), 2., 5.), (1., 1., 700., 5.)):
        with pytest.raises(ValueError, match='object 1719310 of image 581857.*(no area|not inside|four finite|negative width or height)'): write_refer(ReferData((), {image.id: replace(image, boxes=(bad,))}), tmp_path)

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
    (dict(annotation_bbox=[10, 20, 700, 30]), r'instances.json, annotation id 1719310: its box .* not inside its picture of 640 x 480'),
    (dict(annotation_bbox=[-40, 20, 70, 30]), 'not inside'), (dict(annotation_bbox=[10, 20, float('nan'), 30]), 'annotation id 1719310: its box must be four finite numbers'), (dict(annotation_bbox=[10, 20, 30]), 'four finite numbers'),
    (dict(annotation_bbox=[10, 20, 0, 30]), r'ref_id 0: its ann_id 1719310 is not among the objects with an area'),
    (dict(annotation_bbox=[100, 20, -50, 30]), r'instances.json, annotation id 1719310: its box \[100, 20, -50, 30\] has a negative width or height'),
    (dict(annotation_image_id=3), 'annotation id 1719310: its image_id 3 is not among the images'), (dict(annotation_category_id=3), 'category_id 3 is not among the categories'),
    (dict(annotation_bbox=None), 'annotation id 1719310: no field bbox'), (dict(image_width=None), 'image id 581857: no field width'), (dict(ref_ann_id=5), r'refs\(unc\).p, ref_id 0: its ann_id 5'),
    (dict(ref_image_id=5), r'ref_id 0: its image_id is 5, but its ann_id 1719310 belongs to image 581857'), (dict(ref_split=None), r'refs\(unc\).p, ref_id 0: no field split'),
    (dict(sentence_raw=None), 'ref_id 0, a sentence: no field raw'), (dict(sentence_sent_id=0), 'ref_id 0: the sent_id 0 occurs twice')])
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
    (image,) = data.images.values()
    for changes, told in ((dict(expressions=(first, replace(second, id=0))), 'expression 0: its id occurs twice'), (dict(images={581857: replace(image, size=(0, 0))}), '0 x 0 pixels is not the size of a picture'),
                          (dict(images={581857: image, 8: image}), 'image 581857: it stands under the number 8'),
                          (dict(images={581857: image, 8: replace(image, id=8)}), 'object 1719310 of image 8: its id occurs twice')):
        with pytest.raises(ValueError, match=told): write_refer(replace(data, **({'expressions': ()} if 'size' in told else {}), **changes), tmp_path)
    assert read_refer(tmp_path) == data

def test_expressions_of_one_object_come_back_together(tmp_path):
    gold = GoldImage(0, 'a.jpg', (9, 9), (1, 2), ((0., 0., 5., 5.), (1., 1., 3., 3.)), ('dog', 'cat'))
    def about(id, place): return Expression(id, 0, 'a.jpg', 'it', gold.boxes[place], gold.categories[place], 'train', place, gold.ann_ids[place])
    write_refer(ReferData((about(0, 0), about(1, 1), about(2, 0)), {0: gold}), tmp_path)
    assert read_refer(tmp_path) == ReferData((about(0, 0), about(2, 0), about(1, 1)), {0: gold})

@pytest.mark.parametrize('number', [np.float64, np.float32, torch.tensor])
def test_numbers_of_other_libraries_are_written_as_numbers(tmp_path, number):
    gold = GoldImage(0, 'a.jpg', (9, 9), (1,), ((0., 0., 5.5, 5.),), ('dog',))
    write_refer(ReferData((), {0: replace(gold, boxes=(tuple(map(number, gold.boxes[0])),))}), tmp_path)
    assert read_refer(tmp_path).images == {0: gold}
    write_detections([Detection(0, tuple(map(number, gold.boxes[0])), number(.75), 'dog')], tmp_path/'d.json', {0: gold})
    assert read_detections(tmp_path/'d.json', {0: gold})['a.jpg'].tolist() == [[0, 0, 5.5, 5]]
    with pytest.raises(ValueError, match=r'its box \(5.0, 0.0, 5.0, 5.0\) has no area'): write_refer(ReferData((), {0: replace(gold, boxes=(tuple(map(number, (5., 0., 5., 5.))),))}), tmp_path)


# fields of the wrong kind are named with file and id, and never end in a TypeError

ODD = [None, [1719310], {'id': 1}, '7', 7.5, True, float('nan'), (1,), -1, 10**400]
PLACES = {'ref_ref_id': (int, r'refs\(unc\).p, reference 0'), 'ref_ann_id': (None, r'refs\(unc\).p, ref_id 0'), 'ref_image_id': (None, r'refs\(unc\).p, ref_id 0'), 'ref_split': (str, r'refs\(unc\).p, ref_id 0'),
          'ref_sentences': (None, r'refs\(unc\).p, ref_id 0'), 'sentence_raw': (str, r'refs\(unc\).p, ref_id 0'), 'sentence_sent_id': (int, r'refs\(unc\).p, ref_id 0'),
          'image_id': (None, 'instances.json, (image 0|annotation id 1719310)'), 'image_width': (None, 'instances.json, image id 581857'), 'image_file_name': (str, 'instances.json, image id 581857'),
          'annotation_id': (None, r'instances.json, annotation 0|refs\(unc\).p, ref_id 0: its ann_id'), 'annotation_bbox': (None, 'instances.json, annotation id 1719310'),
          'annotation_image_id': (None, 'instances.json, annotation id 1719310'), 'annotation_category_id': (None, 'instances.json, annotation id 1719310')} # place -> what may stand there, where it is

@pytest.mark.parametrize('place, value', [(place, value) for place, (right, _) in PLACES.items() for value in ODD if type(value) is not right], ids=lambda value: repr(value)[:20])
def test_odd_fields_are_named(tmp_path, place, value):
    original(tmp_path, **({place: value} if value is not None else {}))
    if value is None: null(tmp_path, place)
    with pytest.raises(ValueError, match=PLACES[place][1]): read_refer(tmp_path)

def null(folder, place): # `original` deletes what is None
    target, key = place.split('_', 1)
    coco, refs = load_json(folder/'refcoco+'/'instances.json'), pickle.loads((folder/'refcoco+'/'refs(unc).p').read_bytes())
    {'annotation': coco['annotations'][0], 'image': coco['images'][0], 'ref': refs[0], 'sentence': refs[0]['sentences'][1]}[target][key] = None
    (folder/'refcoco+'/'instances.json').write_text(json.dumps(coco))
    (folder/'refcoco+'/'refs(unc).p').write_bytes(pickle.dumps(refs, 2))

@pytest.mark.parametrize('bbox', ['1234', [1, 2, 3, '4'], [1, 2, 3, None], [1, 2, 3, True], [1, 2, 3, 1e300], {'x': 1, 'y': 2, 'w': 3, 'h': 4}, [1, 2, 3, float('inf')]])
def test_boxes_that_are_none(tmp_path, bbox):
    with pytest.raises(ValueError, match='instances.json, annotation id 1719310: (its box|bbox) must be (four finite numbers|a list)'): read_refer(original(tmp_path, annotation_bbox=bbox))

@pytest.mark.parametrize('width', [0, -1, 10**7])
def test_sizes_that_no_picture_has(tmp_path, width):
    with pytest.raises(ValueError, match=f'instances.json, image id 581857: {width} x 480 pixels is not the size of a picture'): read_refer(original(tmp_path, image_width=width))

def test_numbers_that_occur_twice(tmp_path):
    for part in ('images', 'annotations'):
        coco = load_json(original(tmp_path)/'refcoco+'/'instances.json')
        coco[part].append(coco[part][0])
        (tmp_path/'refcoco+'/'instances.json').write_text(json.dumps(coco))
        with pytest.raises(ValueError, match=f'instances.json, {part[:-1]} id [0-9]+: it occurs twice'): read_refer(tmp_path)

@pytest.mark.parametrize('bbox, expected', [([-1, 0, 5, 5], (0., 0., 4., 5.)), ([-.5, -1, 641.5, 482], (0., 0., 640., 480.)), ([636, 477, 5, 4], (636., 477., 640., 480.))])
def test_up_to_one_pixel_is_cut_off(tmp_path, bbox, expected):
    (image,) = read_refer(original(tmp_path, annotation_bbox=bbox)).images.values()
    assert image.boxes == (expected,)

@pytest.mark.parametrize('bbox', [[-1.01, 0, 5, 5], [0, -1.01, 5, 5], [636, 0, 5.01, 5], [0, 477, 5, 4.01]])
def test_more_than_one_pixel_is_a_mistake(tmp_path, bbox):
    with pytest.raises(ValueError, match='annotation id 1719310: its box .* not inside'): read_refer(original(tmp_path, annotation_bbox=bbox))

@settings(max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(['ref_id', 'ann_id', 'image_id', 'split', 'sentences', 'images', 'annotations', 'categories', 'id', 'raw']), inner), max_leaves=12))
def test_any_plain_data_is_read_or_refused_in_one_sentence(folder, value):
    original(folder/'any')
    (folder/'any'/'refcoco+'/'refs(unc).p').write_bytes(pickle.dumps(value))
    try: read_refer(folder/'any')
    except ValueError as error: assert 'refs(unc).p' in str(error)
    (folder/'any'/'refcoco+'/'instances.json').write_text(json.dumps(value))
    try: read_refer(folder/'any')
    except ValueError as error: assert 'instances.json' in str(error) or 'refs(unc).p' in str(error)


# what Python 2 wrote

class Python2(pickle._Pickler):
    "Pickles text as Python 2 did: `str` was bytes, in whatever encoding the file had."
    dispatch = dict(pickle._Pickler.dispatch)
    def save_text(self, text):
        data = text.encode(self.encoding)
        self.write(b'U' + bytes([len(data)]) + data if self.proto else b"S'" + b''.join(b'\\x%02x' % byte for byte in data) + b"'\n")
    dispatch[str] = save_text

@pytest.mark.parametrize('protocol', [0, 2])
@pytest.mark.parametrize('encoding, told', [('utf-8', 'the café'), ('latin-1', 'the caf\ufffd')])
def test_references_written_by_python_2(tmp_path, protocol, encoding, told):
    original(tmp_path, sentence_raw='the café')
    path = tmp_path/'refcoco+'/'refs(unc).p'
    refs = pickle.loads(path.read_bytes())
    with open(path, 'wb') as file:
        pickler = Python2(file, protocol)
        pickler.encoding = encoding
        pickler.dump(refs)
    assert b'\x8c' not in path.read_bytes() and b'X\x03' not in path.read_bytes()
    # Python 2 did not say which encoding it used: UTF-8 is understood, any other spoils the letter and not the reading
    assert [each.text for each in read_refer(tmp_path).expressions] == ['The dog ', told]

class Bomb:
    def __init__(self, target): self.target = target
    def __reduce__(self): return os.system, (f'touch "{self.target}"',)

@pytest.mark.fault(7)
@pytest.mark.parametrize('protocol', range(6))
def test_a_bomb_among_the_references_does_not_go_off(tmp_path, protocol):
    path = original(tmp_path)/'refcoco+'/'refs(unc).p'
    refs = pickle.loads(path.read_bytes())
    refs[0]['sentences'][1]['tokens'] = Bomb(tmp_path/'boom')
    path.write_bytes(pickle.dumps(refs, protocol))
    with pytest.raises(ValueError, match=r'refs\(unc\).p: not a pickle of plain data'): read_refer(tmp_path)
    assert not (tmp_path/'boom').exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path/'boom').exists() # it was a real one

@pytest.mark.parametrize('dataset, split_by', [('refcoco', 'unc'), ('refcoco', 'google'), ('refcocog', 'google'), ('refcocog', 'umd')])
def test_the_other_sets_of_the_family(tmp_path, dataset, split_by):
    original(tmp_path)
    (tmp_path/'refcoco+').rename(tmp_path/dataset)
    (tmp_path/dataset/'refs(unc).p').rename(tmp_path/dataset/f'refs({split_by}).p')
    assert len(read_refer(tmp_path, dataset, split_by).expressions) == 2


# detections and proposals

def mattnet(folder, *changes): # rows as MAttNet writes them, with its numbers of many digits and its own fields
    rows = [{'det_id': 0, 'h5_id': 0, 'box': [10.5, 20.25, 100.0, 50.5], 'image_id': 581857, 'category_id': 18, 'category_name': 'dog', 'score': 0.7013418078422546},
            {'det_id': 1, 'h5_id': 1, 'box': [0.0, 0.0, 640.0, 480.0], 'image_id': 581857, 'category_id': 1, 'category_name': 'person', 'score': 0.9982},
            {'det_id': 2, 'h5_id': 2, 'box': [539.5, 0.0, 101.0, 480.5], 'image_id': 581857, 'category_id': 1, 'category_name': 'person', 'score': 0.3}]
    for place, key, value in changes: rows[place][key] = value
    (folder/'dets.json').write_text(json.dumps(rows))
    return folder/'dets.json'

@pytest.fixture
def images(tmp_path):
    data = read_refer(original(tmp_path))
    return data.images | {7: GoldImage(7, 'empty.jpg', (10, 10), (), (), ())}

def test_detections_as_mattnet_writes_them(tmp_path, images):
    found = read_detections(mattnet(tmp_path), images)
    assert list(found) == ['COCO_train2014_000000581857.jpg', 'empty.jpg']
    # surest first; the last box sticks out by half a pixel, which is cut off
    assert torch.equal(found['COCO_train2014_000000581857.jpg'], torch.tensor([[0, 0, 640, 480], [10.5, 20.25, 110.5, 70.75], [539.5, 0, 640, 480]]))
    assert found['empty.jpg'].shape == (0, 4) and {boxes.dtype for boxes in found.values()} == {torch.float32}
    assert len(read_detections(tmp_path/'dets.json', images, score=.65)['COCO_train2014_000000581857.jpg']) == 2
    assert len(read_detections(tmp_path/'dets.json', images, score=.9982)['COCO_train2014_000000581857.jpg']) == 1
    assert len(read_detections(mattnet(tmp_path, (0, 'box', [640.5, 20, .5, 5])), images)['COCO_train2014_000000581857.jpg']) == 2 # nothing of it is inside

@pytest.mark.parametrize('score', [65, -.1, float('nan')])
def test_a_lowest_score_that_is_none(tmp_path, images, score):
    with pytest.raises(ValueError, match=r'score: expected a number in \[0, 1\], got'): read_detections(mattnet(tmp_path), images, score=score)

@pytest.mark.parametrize('change, told', [
    ((1, 'box', [900, 100, -700, 20]), r'det_id 1: its box .* has a negative width or height'), ((1, 'box', [0, 0, 642, 5]), r'dets.json, det_id 1: its box .* is not inside its picture of 640 x 480'), ((1, 'box', '0 0 5 5'), 'det_id 1: box must be a list'),
    ((1, 'box', [0, 0, float('nan'), 5]), 'det_id 1: its box must be four finite numbers'), ((1, 'image_id', 8), 'det_id 1: its image_id 8 is not among the images'),
    ((1, 'image_id', [581857]), 'det_id 1: image_id must be a whole number'), ((1, 'score', '0.9'), "det_id 1: score must be a number, got '0.9'"),
    ((1, 'score', float('nan')), r'det_id 1: its score must be in \[0, 1\]'), ((1, 'score', 98.2), r'det_id 1: its score must be in \[0, 1\]'),
    ((1, 'det_id', None), r'dets.json, detection 1: det_id must be a whole number')])
def test_detections_that_lie_are_named(tmp_path, images, change, told):
    with pytest.raises(ValueError, match=told): read_detections(mattnet(tmp_path, change), images)

def test_a_file_without_detections(tmp_path, images):
    (tmp_path/'d.json').write_text('{"dets": []}')
    with pytest.raises(ValueError, match='d.json: expected a list of detections, got dict'): read_detections(tmp_path/'d.json', images)
    (tmp_path/'d.json').write_text('[{"box": [0, 0, 1, 1]}]')
    with pytest.raises(ValueError, match='d.json, detection 0: no field det_id'): read_detections(tmp_path/'d.json', images)
    with pytest.raises(FileNotFoundError, match='none.json'): read_detections(tmp_path/'none.json', images)

EDGE = st.integers(0, 100*100).map(lambda hundredths: hundredths/100)
BOX = st.tuples(EDGE, EDGE, EDGE, EDGE).map(lambda e: (min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]), max(e[1], e[3]))).filter(lambda b: b[0] < b[2] and b[1] < b[3])
GOLD = {3: GoldImage(3, 'a.jpg', (100, 100), (1,), ((0., 0., 5., 5.),), ('dog',)), 5: GoldImage(5, 'b/c.jpg', (100, 100), (), (), ())}

@settings(max_examples=60)
@given(st.lists(st.builds(Detection, st.sampled_from([3, 5]), BOX, st.floats(0, 1), st.sampled_from(['dog', 'bench', 'zebra'])), max_size=8), st.floats(0, 1))
def test_detections_round_trip(folder, detections, score):
    write_detections(detections, folder/'dets.json', GOLD)
    found = read_detections(folder/'dets.json', GOLD, score)
    for image in GOLD.values():
        expected = sorted((each for each in detections if each.image_id == image.id and each.score >= score), key=lambda each: -each.score)
        assert torch.equal(found[image.file_name], torch.tensor([each.box for each in expected]).reshape(-1, 4))
    rows = load_json(folder/'dets.json')
    assert [row['det_id'] for row in rows] == list(range(len(detections))) and [row['category_name'] for row in rows] == [each.category for each in detections]
    # one number for each kind, the data set's own where it has one
    assert len({(row['category_name'], row['category_id']) for row in rows}) == len({row['category_name'] for row in rows}) == len({row['category_id'] for row in rows})
    assert all(row['category_id'] == 1 for row in rows if row['category_name'] == 'dog')

@pytest.mark.parametrize('bad', [Detection(4, (0., 0., 5., 5.), .5, 'dog'), Detection(3, (0., 0., 102., 5.), .5, 'dog'), Detection(3, (5., 0., 5., 5.), .5, 'dog'), Detection(3, (5., 0., 1., 5.), .5, 'dog'),
                                 Detection(3, (0., 0., 5., float('nan')), .5, 'dog'), Detection(3, (0., 0., 5., 5.), 1.5, 'dog'), Detection(3, (0., 0., 5., 5.), float('nan'), 'dog')])
def test_detections_that_are_none_are_not_written(tmp_path, bad):
    with pytest.raises(ValueError, match='detection 1: '): write_detections([Detection(3, (0., 0., 5., 5.), .5, 'dog'), bad], tmp_path/'d.json', GOLD)
    assert not list(tmp_path.iterdir())

def said(image_id, split): return Expression(0, image_id, f'{image_id}.jpg', 'it', (0., 0., 5., 5.), 'dog', split, 0, 0)

@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from(['train', 'val', 'testA'])), min_size=1), st.sets(st.sampled_from(['train', 'val', 'testA'])))
def test_gold_boxes_are_given_to_training_pictures_only(rows, splits):
    gold = {i: ((float(i), 0., 5., 5.),)*i for i in range(3)} # picture 0 has no object
    data = ReferData(tuple(said(*row) for row in rows), {i: GoldImage(i, f'{i}.jpg', (9, 9), tuple(range(i)), gold[i], ('dog',)*i) for i in range(3)})
    found = {f'{i}.jpg': torch.rand(3 - i, 4) for i in range(3)} # picture 3 would have no detection
    kept = {name: boxes.clone() for name, boxes in found.items()}
    if splits - {split for _, split in rows}:
        with pytest.raises(ValueError, match='no split'): proposals(data, found, splits)
        return
    choices = proposals(data, found, splits)
    if len(splits) == 1: assert all(torch.equal(boxes, choices[name]) for name, boxes in proposals(data, found, *splits).items())
    for i in range(3):
        of_picture = {split for image_id, split in rows if image_id == i}
        mine = gold[i] if of_picture and of_picture <= splits else ()
        assert torch.equal(choices[f'{i}.jpg'], torch.cat([found[f'{i}.jpg'], torch.tensor(mine).reshape(-1, 4)]))
    assert all(torch.equal(kept[name], found[name]) for name in kept)

def test_proposals_of_pictures_without_detections():
    data = ReferData((said(0, 'train'),), {0: GoldImage(0, '0.jpg', (9, 9), (0,), ((0., 0., 5., 5.),), ('dog',))})
    assert proposals(data, {'0.jpg': torch.empty(0, 4)})['0.jpg'].tolist() == [[0, 0, 5, 5]]
    elsewhere = proposals(data, {'0.jpg': torch.empty(0, 4, dtype=torch.float16, device='meta'), 'other.jpg': torch.empty(2, 4)})['0.jpg']
    assert (elsewhere.dtype, elsewhere.device.type, tuple(elsewhere.shape)) == (torch.float16, 'meta', (1, 4))
    with pytest.raises(ValueError, match='1 pictures have no detections, not even an empty tensor; the first is 0.jpg'): proposals(data, {})


# sizes and boxes


@given(st.integers(-3, 10**6 + 3), st.integers(-3, 10**6 + 3))
@example(10**6, 5)
@example(5, 10**6)
@example(10**6 - 1, 1)
def test_sizes_of_pictures(width, height):
    if 0 < width < 10**6 and 0 < height < 10**6: assert picture_size(width, height, 'a.jpg') == (width, height)
    else:
        with pytest.raises(ValueError, match=f'^a.jpg: {width} x {height} pixels is not the size of a picture'): picture_size(width, height, 'a.jpg')

@given(st.tuples(*[st.floats(-3, 103)]*2), st.tuples(*[st.floats(-3, 103)]*2))
@example((100.9, 0.), (.05, 5.))
@example((-1., 0.), (.5, 5.))
def test_corners_are_inside_or_refused(near, size):
    xywh = (*near, *size)
    far = near[0] + size[0], near[1] + size[1]
    outside = min(near) < -1 or far[0] > 101 or far[1] > 51
    if min(abs(near[0] + 1), abs(near[1] + 1), abs(far[0] - 101), abs(far[1] - 51)) < 1e-3 and near[0] != -1: return # too close to call
    if outside or min(size) < 0:
        with pytest.raises(ValueError, match='^b: its box .* (is not inside its picture of 100 x 50 pixels|has a negative width or height)'): box_corners(xywh, (100, 50), 'b')
        return
    x1, y1, x2, y2 = box_corners(xywh, (100, 50), 'b')
    for edge, expected, end in zip((x1, y1, x2, y2), (*near, *far), (100, 50, 100, 50)): assert edge == pytest.approx(min(max(expected, 0), end), abs=1e-4)
    assert 0 <= x1 <= x2 <= 100 and 0 <= y1 <= y2 <= 50

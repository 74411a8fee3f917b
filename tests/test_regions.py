"Regions: what a detector proposes, what it says of given boxes, where else one may come from; and filling a store from all sorts of pictures."
import json
import os
import pickle
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from shutil import copytree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import begin, contents, finish, kill, wait_until
from PIL import Image
from torchvision.models import get_model, get_model_weights

from vlground.albums import LONGEST, read_picture
from vlground.boxes import box_iou
from vlground.core import load_json, torch_rng
from vlground.detector import ATTRIBUTES, CLASSES, scene_targets, small_faster_rcnn, unship
from vlground.regions import (TorchvisionDetector, check_boxes, choose_regions, coco_model, load_detector, load_object, read_boxes,
                              write_boxes)
from vlground.scenes import CAPTIONS, REFER, make_scene, render
from vlground.store import Store, extract_regions


@pytest.fixture(scope='module')
def detector(): return load_detector(keep=12)


@pytest.fixture(scope='module')
def scenes(): return [make_scene(77, i, (CAPTIONS, REFER)[i % 2]) for i in range(24)]


@pytest.fixture(scope='module')
def seen(detector, scenes): return detector([render(scene) for scene in scenes])


# what it returns

def test_shapes_and_ranges(detector, seen):
    for regions in seen:
        n = len(regions.boxes)
        assert 0 < n <= 12 and regions.boxes.shape == (n, 4) and regions.boxes.dtype == torch.float32 and regions.size == (256, 256)
        assert regions.features.shape == (n, detector.width) and regions.class_probs.shape == (n, len(detector.classes))
        assert (regions.boxes[:, 2:] > regions.boxes[:, :2]).all() and regions.boxes.min() >= 0 and regions.boxes.max() <= 256
        torch.testing.assert_close(regions.class_probs.sum(1), torch.ones(n))
        assert not regions.features.requires_grad and not regions.features.is_inference()


def test_no_two_regions_are_of_the_same_place(seen):
    for regions in seen: assert (box_iou(regions.boxes, regions.boxes) - torch.eye(len(regions.boxes))).max() <= .5 + 1e-4


@pytest.mark.parametrize('size', [(256, 256), (300, 120), (90, 250), (640, 640), (1, 1)])
def test_a_proposed_box_and_the_same_box_given_are_described_alike(detector, scenes, size):
    picture = render(scenes[3]).resize(size)
    found, = detector([picture])
    again, = detector([picture], [found.boxes])
    assert torch.equal(found.boxes, again.boxes) and again.size == size
    torch.testing.assert_close(found.features, again.features, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.class_probs, again.class_probs, atol=1e-3, rtol=1e-3)


def test_other_boxes_have_other_features(detector, scenes):
    picture, boxes = render(scenes[0]), torch.tensor([thing.box for thing in scenes[0].things])
    there, = detector([picture], [boxes])
    moved, = detector([picture], [boxes.flip(0)])
    torch.testing.assert_close(moved.features, there.features.flip(0), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(there.features[0], there.features[1], atol=.1)


def test_a_picture_does_not_depend_on_its_company(detector, scenes, seen):
    for i in (0, 5):
        alone, = detector([render(scenes[i])])
        torch.testing.assert_close(alone.boxes, seen[i].boxes, atol=.01, rtol=1e-4)
        torch.testing.assert_close(alone.features, seen[i].features, atol=1e-3, rtol=1e-3)


def test_no_boxes_no_regions(detector, scenes):
    none, some = detector([render(scenes[0]), render(scenes[1])], [torch.zeros(0, 4), torch.tensor([[10., 10, 60, 60]])])
    assert none.boxes.shape == (0, 4) and none.features.shape == (0, detector.width) and len(some.boxes) == 1


def test_it_finds_things_and_knows_them(detector, scenes, seen):
    gold = [torch.tensor([thing.box for thing in scene.things]) for scene in scenes]
    recall = torch.cat([(box_iou(true, regions.boxes) > .5).any(1) for true, regions in zip(gold, seen)]).float().mean()
    described = detector([render(scene) for scene in scenes], gold)
    truth = {name: torch.cat([scene_targets(scene)[name] for scene in scenes]) for name in ('labels', *ATTRIBUTES)}
    features = torch.cat([regions.features for regions in described])
    def right(answers, name): return float((answers.argmax(1) == truth[name]).float().mean())
    assert recall > .6
    assert right(torch.cat([regions.class_probs for regions in described]), 'labels') > .5 # 52 kinds
    for name, layer in detector.model.attributes.items():
        most_frequent = truth[name].bincount().max()/len(truth[name])
        assert right(layer(features), name) > most_frequent, name


# which candidates become regions

def by_hand(boxes, scores, overlap):
    "Greedy suppression, one box at a time."
    iou, stay = box_iou(boxes, boxes), []
    for row in scores.argsort(descending=True).tolist():
        if all(iou[row, other] <= overlap for other in stay): stay.append(row)
    return stay


@given(st.integers(0, 40), st.integers(0, 10**6), st.integers(1, 50), st.integers(0, 20), st.sampled_from([0., .2, .5, .9]), st.sampled_from([.3, .5, .7]))
@settings(max_examples=60)
def test_ten_to_n_regions_the_surest_apart(n, seed, keep, fewest, threshold, overlap):
    g = torch_rng('candidates', seed)
    corners = torch.rand(n, 2, generator=g)*40
    boxes, scores = torch.cat([corners, corners + 5 + torch.rand(n, 2, generator=g)*20], 1), torch.rand(n, generator=g)
    apart = by_hand(boxes, scores, overlap)
    sure = sum(float(scores[row]) >= threshold for row in apart)
    chosen = choose_regions(boxes, scores, keep, fewest, threshold, overlap)
    assert chosen.tolist() == apart[:min(keep, max(fewest, sure))]


def test_the_limits_of_a_detector(scenes):
    model, picture = unship(small_faster_rcnn(), 'detector'), render(scenes[2])
    def count(**limits): return len(TorchvisionDetector(model, CLASSES, 'x', **limits)([picture])[0].boxes)
    apart = count(keep=100)
    assert 12 < apart < 100
    assert count(keep=1) == 1 and count(keep=12) == 12 and count(keep=100, threshold=1.1) == 10 and count(keep=100, threshold=1.1, fewest=3) == 3
    assert count(keep=4, threshold=1.1) == 4 and count(keep=100, threshold=1.1, fewest=1000) == apart
    assert 3 < count(keep=100, threshold=.2, fewest=3) < apart


@pytest.mark.parametrize('colour', ['white', 'black', 'olive'])
def test_a_picture_with_nothing_in_it(detector, colour):
    blank, = TorchvisionDetector(detector.model, CLASSES, 'x', threshold=.99)([Image.new('RGB', (256, 256), colour)])
    assert 0 < len(blank.boxes) <= 10 and blank.features.isfinite().all()


def test_a_network_that_proposes_nothing(scenes):
    model = unship(small_faster_rcnn(), 'detector')
    model.rpn.score_thresh = 1.1
    for regions in TorchvisionDetector(model, CLASSES, 'x')([render(scenes[0]), render(scenes[1])]):
        assert regions.boxes.shape == (0, 4) and regions.features.shape == (0, 128) and regions.class_probs.shape == (0, len(CLASSES))


# pictures and boxes of all sorts

def test_the_first_picture_leaves_no_trace(scenes, seen):
    "torchvision tells the strides of its maps from the first pictures that it sees, and a thread tells it wrong."
    fresh = load_detector(keep=12)
    thread, = fresh([Image.new('RGB', (250, 3))])
    assert thread.size == (250, 3)
    for regions, expected in zip(fresh([render(scene) for scene in scenes]), seen):
        assert torch.equal(regions.boxes, expected.boxes) and torch.equal(regions.features, expected.features)


def test_very_different_sizes_in_one_batch(detector, scenes):
    pictures = [render(scenes[i]).resize(size) for i, size in enumerate([(256, 256), (1, 1), (3, 2), (2, 3), (40, 900), (1200, 700), (5000, 1), (1, 12544)])]
    for picture, regions in zip(pictures, detector(pictures), strict=True):
        alone, = detector([picture])
        assert regions.size == picture.size and len(regions.boxes) == len(alone.boxes) and regions.features.isfinite().all()
        check_boxes(regions.boxes, 'a region', picture.size)
    assert detector([]) == [] and detector([], []) == []


@pytest.mark.parametrize('chunk', [1, 7, 100])
def test_boxes_are_described_a_chunk_at_a_time(detector, scenes, seen, chunk):
    pieces = TorchvisionDetector(detector.model, CLASSES, 'x', keep=12, chunk=chunk)([render(scene) for scene in scenes[:4]])
    for regions, expected in zip(pieces, seen):
        torch.testing.assert_close(regions.boxes, expected.boxes, atol=.01, rtol=1e-4)
        torch.testing.assert_close(regions.features, expected.features, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_half_precision_finds_the_same_places(detector, scenes, precision):
    whole, half = (TorchvisionDetector(detector.model, CLASSES, 'x', keep=5, precision=each) for each in ('float32', precision))
    for a, b in zip(whole([render(scene) for scene in scenes[:6]]), half([render(scene) for scene in scenes[:6]])):
        assert b.boxes.dtype == b.features.dtype == b.class_probs.dtype == torch.float32
        assert (box_iou(a.boxes, b.boxes).max(1).values > .8).float().mean() >= .8
        assert not torch.equal(a.features, b.features)


BAD = {'reversed': [30., 9, 20, 40], 'without area': [9., 9, 9, 40], 'outside the picture': [-3., 9, 20, 40], 'not four finite numbers': [9., torch.nan, 20, 40]}


@pytest.mark.fault(13)
@pytest.mark.parametrize('fault', BAD)
def test_what_is_no_box_is_refused(detector, scenes, tmp_path, fault):
    good, bad = torch.tensor([[1., 1, 50, 50]]), torch.tensor([[1., 1, 50, 50], BAD[fault]])
    with pytest.raises(ValueError, match=f'picture 1 of the batch: box 1, .* is {fault}; expected 0 <= x1 < x2 <= 256'):
        detector([render(scenes[0])]*2, [good, bad])
    file = write_boxes({'a': good}, tmp_path/'boxes.jsonl')
    before = file.read_bytes()
    with pytest.raises(ValueError, match=f"boxes.jsonl: 'ü 2': box 1, .* is {fault}"): write_boxes({'a': good, 'ü 2': bad}, file)
    assert contents(tmp_path) == {'boxes.jsonl': before}
    file.write_text(json.dumps({'image': 'a', 'boxes': good.tolist()}) + '\n\n' + json.dumps({'image': 'b c', 'boxes': bad.tolist()}) + '\n')
    with pytest.raises(ValueError, match=f"boxes.jsonl, line 3, 'b c': box 1, .* is {fault}"): read_boxes(file)


def test_boxes_must_fit_pictures(detector, scenes):
    picture, box = render(scenes[0]), torch.tensor([[1., 1, 50, 50]])
    with pytest.raises(ValueError, match='boxes for 1 pictures, but 2 pictures'): detector([picture]*2, [box])
    with pytest.raises(ValueError, match=r'picture 0 of the batch: expected boxes of shape \(n, 4\), got \(4,\)'): detector([picture], box)
    with pytest.raises(ValueError, match=r'picture 0 of the batch: expected a tensor of boxes \(n, 4\), got list'): detector([picture], [box.tolist()])
    with pytest.raises(ValueError, match='outside the picture; expected 0 <= x1 < x2 <= 256'): detector([picture], [torch.tensor([[1., 1, 256.5, 50]])])
    check_boxes(torch.tensor([[-.005, 0, 256.005, 9]]), 'rounded', (256, 256))


@pytest.mark.parametrize('wrong, words', [(dict(classes=CLASSES[1:]), '52 names for the 53 classes'), (dict(keep=0), 'keep and chunk must be at least 1'),
                                          (dict(chunk=0), 'at least 1'), (dict(fewest=-1), 'fewest must be at least 0'), (dict(overlap=50), 'overlap an IoU from 0 to 1, got 10 and 50'), (dict(precision='half'), "precision must be float32, bfloat16 or float16, got 'half'")])
def test_a_detector_is_refused_its_settings(detector, wrong, words):
    with pytest.raises(ValueError, match=words): TorchvisionDetector(**dict(model=detector.model, classes=CLASSES, name='x') | wrong)


# boxes in a file

coordinates = st.floats(0, 5000, width=32)


@given(st.dictionaries(st.text(max_size=8), st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=4), max_size=5))
@settings(max_examples=60)
def test_boxes_come_back_to_the_last_bit(tmp_path_factory, boxes):
    def proper(box): return [min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]) + 1., max(box[1], box[3]) + 1.]
    boxes = {id: torch.tensor([proper(box) for box in each], dtype=torch.float32).reshape(-1, 4) for id, each in boxes.items()}
    again = read_boxes(write_boxes(boxes, tmp_path_factory.mktemp('boxes')/'b.jsonl'))
    assert list(again) == list(boxes) and all(torch.equal(again[id], boxes[id]) and again[id].dtype == torch.float32 for id in boxes)


def test_with_scores_the_surest_come_first(tmp_path):
    (tmp_path/'b.jsonl').write_text('{"image": "a", "boxes": [[0,0,1,1],[0,0,2,2],[0,0,3,3]], "scores": [0.1, 0.9, 0.1]}\n')
    assert read_boxes(tmp_path/'b.jsonl')['a'][:, 2].tolist() == [2, 1, 3]


@pytest.mark.parametrize('line, words', [
    ('{"image": "a", "boxes": [[0,0,1,1]]', 'line 2: expected {"image"'), ('[1, 2]', 'line 2: expected'), ('{"image": "a"}', "line 2: expected .*KeyError: 'boxes'"),
    ('{"image": 7, "boxes": []}', 'line 2: the image id must be a string .* got 7'), ('{"image": "first", "boxes": []}', "that no line before has, got 'first'"),
    ('{"image": "a", "boxes": [[0,0,1]]}', r"line 2, 'a': expected boxes of shape \(n, 4\)"), ('{"image": "a", "boxes": [[0,0,1,1],[0,0,1]]}', 'line 2: expected'),
    ('{"image": "a", "boxes": [["0",0,1,1]]}', 'line 2: expected'), ('{"image": "a", "boxes": [[0,0,1,null]]}', 'line 2: expected'),
    ('{"image": "a", "boxes": [[0,0,1,1' + '0'*400 + ']]}', 'line 2: expected .*OverflowError'), ('{"image": "a", "boxes": [[0,0,1,1e99]]}', 'not four finite'),
    ('{"image": "a", "boxes": [[0,0,1,1]], "scores": [0.5, 0.4]}', "line 2, 'a': expected a finite score for each of 1 boxes"),
    ('{"image": "a", "boxes": [[0,0,1,1]], "scores": [NaN]}', 'a finite score'), ('['*100_000, 'line 2: expected .*RecursionError')])
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path, line, words):
    (tmp_path/'b.jsonl').write_text('{"image": "first", "boxes": []}\n' + line + '\n')
    with pytest.raises(ValueError, match=f'b.jsonl, {words}' if words.startswith('line') else words): read_boxes(tmp_path/'b.jsonl')


def test_sizes_files_and_encodings(tmp_path):
    file = write_boxes({'a': torch.tensor([[0., 0, 64, 48]])}, tmp_path/'new folder'/'b.jsonl')
    assert len(read_boxes(file, {'a': (64, 48)})['a']) == len(read_boxes(file, {'another': (1, 1)})['a']) == 1
    with pytest.raises(ValueError, match="line 1, 'a': box 0, .* outside the picture; expected 0 <= x1 < x2 <= 48"): read_boxes(file, {'a': (48, 64)})
    with pytest.raises(FileNotFoundError, match='no such file of boxes'): read_boxes(tmp_path/'none.jsonl')
    file.write_bytes(b'{"image": "\xff", "boxes": []}')
    with pytest.raises(ValueError, match='line 1: .*UnicodeDecodeError'): read_boxes(file)
    with pytest.raises(ValueError, match='the image id 139 is no string'): write_boxes({139: torch.zeros(0, 4)}, file)


# somebody's own

MINE = """
import torch
from vlground.regions import Regions
class Own:
    name, classes, width = 'own', ('background', 'x'), 2
    def __call__(self, images, boxes=None): return [Regions(torch.tensor([[0., 0, 1, 1]]), torch.ones(1, 2), torch.tensor([[.5, .5]]), i.size) for i in images]
class Needy:
    def __init__(self, something): pass
ready, number = Own(), 3
def function(): pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    "The name of a module in the current folder."
    name = f'mine_{tmp_path.name}'.replace('-', '_')
    (tmp_path/f'{name}.py').write_text(MINE)
    (tmp_path/'broken_mine.py').write_text('1/0')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [entry for entry in sys.path if entry])
    yield name
    sys.modules.pop(name, None)


def test_an_object_by_its_address(mine):
    assert type(load_object(f'{mine}:Own')).__name__ == 'Own' and load_object(f'{mine}:number') == 3
    assert load_object(f'{mine}:ready') is load_object(f'{mine}:ready') and load_object(f'{mine}:function').__name__ == 'function'
    assert load_object('pathlib:Path') == Path() and load_object('os:path.join') is os.path.join
    detector = load_detector(f'{mine}:Own')
    assert detector.name == 'own' and detector([Image.new('RGB', (5, 4))])[0].size == (5, 4) and load_detector(f'{mine}:ready').width == 2


def test_a_file_in_the_current_folder_hides_no_library(mine, tmp_path):
    (tmp_path/'colorsys.py').write_text('1/0')
    sys.modules.pop('colorsys', None)
    assert load_object('colorsys:rgb_to_hsv')(1, 1, 1) == (0, 0, 1)


@pytest.mark.parametrize('spec, words', [
    ('Own', 'expected package.module:Name'), (':Own', 'expected package.module:Name'), ('mine:', 'expected package.module:Name'), ('no_such:Own', 'No module named'),
    ('{}:Other', "has no attribute 'Other'"), ('{}:Needy', "missing 1 required positional argument: 'something'"), ('broken_mine:Own', 'ZeroDivisionError'),
    ('../mine:Own', 'invalid format')])
def test_an_address_where_nothing_is(mine, spec, words):
    spec = spec.format(mine)
    with pytest.raises(ValueError, match=words) as caught: load_object(spec)
    assert spec in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('name, words', [('yolo', "no detector named 'yolo'; known: world, coco, coco:NAME"), ('{}:number', 'not a detector, it has no name, classes, width'),
                                         ('{}:function', 'it has no name, classes, width'), ('coco:yolo', "no Faster R-CNN named 'yolo'; it has .*fasterrcnn_resnet50_fpn_v2")])
def test_no_such_detector(mine, name, words):
    if name == '{}:function': words = 'not a detector, it has no name|not a detector, it has no classes' # a function has a __name__, not a name
    with pytest.raises(ValueError, match=words): load_detector(name.format(mine))


# torchvision's

SMALL = 'fasterrcnn_mobilenet_v3_large_320_fpn'


@pytest.mark.parametrize('name', ['fasterrcnn_resnet50_fpn_v2', 'fasterrcnn_resnet50_fpn', 'fasterrcnn_mobilenet_v3_large_fpn'])
def test_any_faster_rcnn_of_torchvision(name, scenes):
    torch.manual_seed(0)
    classes = ['background'] + get_model_weights(name).DEFAULT.meta['categories'][1:]
    detector = TorchvisionDetector(get_model(name, weights=None, weights_backbone=None, min_size=96, max_size=160, rpn_score_thresh=0.), classes, 'x', keep=20)
    pictures = [render(scenes[0]), render(scenes[1]).resize((30, 300)), Image.new('RGB', (2, 1))]
    found = detector(pictures)
    again = detector(pictures, [regions.boxes for regions in found])
    for picture, regions, same in zip(pictures, found, again):
        assert 0 < len(regions.boxes) <= 20 and regions.features.shape == (len(regions.boxes), 1024) == (len(regions.boxes), detector.width)
        assert regions.class_probs.shape == (len(regions.boxes), 91) and regions.size == picture.size
        check_boxes(regions.boxes, 'a region', picture.size)
        torch.testing.assert_close(regions.features, same.features, atol=1e-3, rtol=1e-3)
    none, = detector(pictures[:1], [torch.zeros(0, 4)])
    assert none.features.shape == (0, 1024)
    assert (box_iou(found[0].boxes, found[0].boxes) - torch.eye(len(found[0].boxes))).max() <= .5 + 1e-3


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    "Where torchvision looks for the weights of the smallest of the family; there is no network."
    monkeypatch.setenv('TORCH_HOME', str(tmp_path/'torch'))
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'): monkeypatch.setenv(name, 'http://127.0.0.1:9') # nobody listens there
    monkeypatch.setattr(urllib.request, '_opener', None)
    path = tmp_path/'torch'/'hub'/'checkpoints'/Path(get_model_weights(SMALL).DEFAULT.url).name
    path.parent.mkdir(parents=True)
    return path


def test_coco_weights_from_the_cache(cached, scenes):
    torch.manual_seed(0)
    model = get_model(SMALL, weights=None, weights_backbone=None, num_classes=91)
    torch.save(model.state_dict(), cached)
    detector = load_detector(f'coco:{SMALL}', keep=30, threshold=.9)
    assert detector.name == f'{SMALL}-coco_v1' and detector.classes[:3] == ('background', 'person', 'bicycle') and len(detector.classes) == 91
    assert torch.equal(detector.model.roi_heads.box_predictor.cls_score.weight, model.roi_heads.box_predictor.cls_score.weight)
    assert len(detector([render(scenes[0])])[0].boxes) == 10 # sure of nothing, and the proposals are not thinned beforehand


@pytest.mark.fault(18)
def test_without_a_network_one_error_says_what_to_run(cached):
    with pytest.raises(FileNotFoundError) as caught: load_detector('coco')
    told = str(caught.value)
    assert 'fasterrcnn_resnet50_fpn_v2: its weights are not in' in told and 'could not be downloaded' in told and '\n' not in told
    assert """python -c "from vlground.regions import coco_model; coco_model('fasterrcnn_resnet50_fpn_v2')\"""" in told
    assert list(cached.parent.iterdir()) == []


class Bomb:
    "What a pickle can do: here it makes a folder."
    def __init__(self, folder): self.folder = str(folder)
    def __reduce__(self): return os.mkdir, (self.folder,)


@pytest.mark.fault(7)
@pytest.mark.parametrize('save', [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb, 2))], ids=['torch', 'pickle'])
def test_a_pickle_bomb_is_refused_and_does_not_go_off(cached, tmp_path, save):
    gone_off = tmp_path/'gone off'
    save({'weight': Bomb(gone_off)}, cached)
    with suppress(RuntimeError): torch.load(cached, weights_only=False) # a plain pickle goes off first, and is found wanting then
    assert gone_off.is_dir(), 'the bomb is a dud, and the test would show nothing'
    gone_off.rmdir()
    with pytest.raises(ValueError, match='damaged, or more than weights .* delete it and run again'): coco_model(SMALL)
    assert not gone_off.exists()


@pytest.mark.parametrize('content', [b'', b'\x80\x02half a pickle', b'PK\x03\x04 half a zip'])
def test_damaged_weights(cached, content):
    cached.write_bytes(content)
    with pytest.raises(ValueError, match=f'{cached.name}: damaged, or more than weights'): coco_model(SMALL)


# all sorts of pictures

@pytest.fixture(scope='module')
def odd(tmp_path_factory):
    "A folder of good, strange and broken pictures; the broken ones begin with 'bad'."
    folder, picture = tmp_path_factory.mktemp('odd'), render(make_scene(1, 1, CAPTIONS))
    picture.convert('CMYK').save(folder/'cmyk.jpg')
    picture.quantize(16).save(folder/'palette.png')
    picture.convert('RGBA').save(folder/'alpha.png')
    Image.fromarray(torch.randint(0, 2**16, (40, 30), generator=torch_rng('deep')).to(torch.uint16).numpy()).save(folder/'deep.png')
    picture.convert('L').save(folder/'grey.png')
    picture.save(folder/'moving.gif', save_all=True, append_images=[picture.rotate(90)])
    exif = Image.Exif()
    exif[0x112] = 6 # to be shown turned by a quarter
    picture.crop((0, 0, 200, 100)).save(folder/'turned.jpg', exif=exif)
    picture.resize((1, 1)).save(folder/'one.png')
    picture.resize((70, 1)).save(folder/'thin.png')
    (folder/'sub folder').mkdir()
    picture.save(folder/'sub folder'/'ümlaut.webp')
    for suffix in ('jpg', 'png', 'gif', 'webp'):
        picture.save(folder/f'whole.{suffix}')
        data = (folder/f'whole.{suffix}').read_bytes()
        (folder/f'bad cut.{suffix}').write_bytes(data[:len(data)//2])
        (folder/f'bad empty.{suffix}').write_bytes(b'')
        (folder/f'bad text.{suffix}').write_text('<html>404</html>')
    data = bytearray((folder/'whole.png').read_bytes())
    data[60:90] = bytes(30)
    (folder/'bad bytes.png').write_bytes(data)
    Image.new('RGB', (LONGEST + 1, 1)).save(folder/'bad long.png')
    return folder


@pytest.mark.fault(8)
def test_a_broken_picture_gets_its_error_and_the_shard_is_finished(odd, tmp_path):
    store = Store(extract_regions(odd, tmp_path/'store', keep=4, shard_size=6, batch_size=3, quiet=True, max_errors=1.))
    assert len(store) == sum(path.is_file() for path in odd.rglob('*')) and store.verify() == []
    assert {id for id in store.ids if id.startswith('bad')} == set(store.errors) and all(store.errors.values())
    assert not any(str(odd) in why for why in store.errors.values())
    for id in set(store.ids) - set(store.errors):
        assert store.get(id).size == read_picture(odd/id).size and len(store.get(id).boxes) <= 4 and len(store.get('whole.png').boxes) > 0
    assert 'sub folder/ümlaut.webp' in store.ids and store.get('turned.jpg').size == (100, 200)


@pytest.mark.fault(8)
def test_a_picture_of_a_billion_pixels_is_refused(odd, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    assert 'megapixels: make it smaller' in read_picture(odd/'whole.png')


def test_folders_without_pictures(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder of images'): extract_regions(tmp_path/'nowhere', tmp_path/'store', quiet=True)
    (tmp_path/'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no pictures'): extract_regions(tmp_path/'empty', tmp_path/'store', quiet=True)
    assert not (tmp_path/'store').exists()


def test_another_number_of_regions_is_another_store(small_world, small_regions, tmp_path):
    copytree(small_regions, tmp_path/'store')
    with pytest.raises(ValueError, match='begun with another plan .*made_by'): extract_regions(small_world/'images', tmp_path/'store', keep=9, shard_size=40, quiet=True)
    assert load_json(tmp_path/'store'/'manifest.json') == load_json(small_regions/'manifest.json')


EXTRACT = '''
import sys
from vlground.store import extract_regions
if __name__ == '__main__': extract_regions(sys.argv[1], sys.argv[2], keep=8, shard_size=8, batch_size=4, workers=int(sys.argv[3]), quiet=True)
'''


@pytest.mark.fault(1)
def test_killed_while_extracting_it_ends_with_the_same_bytes(small_world, tmp_path):
    whole = extract_regions(small_world/'images', tmp_path/'whole', keep=8, shard_size=8, batch_size=4, quiet=True)
    (tmp_path/'extract.py').write_text(EXTRACT)
    process = begin(str(tmp_path/'extract.py'), small_world/'images', tmp_path/'killed', 1)
    wait_until(process, lambda: (tmp_path/'killed'/'manifest.json').exists() and len(load_json(tmp_path/'killed'/'manifest.json')['shards']) >= 2)
    kill(process)
    assert len(load_json(tmp_path/'killed'/'manifest.json')['shards']) < 12, 'it was killed too late to show anything'
    finish(begin(str(tmp_path/'extract.py'), small_world/'images', tmp_path/'killed', 2)) # now two workers
    assert contents(tmp_path/'killed') == contents(whole)

"The detector: what it proposes, what it says of given boxes, how it is trained; and filling a store from a folder of all sorts of pictures."
from shutil import copytree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import begin, contents, finish, kill, wait_until
from PIL import Image
from safetensors.torch import load_file

from vlground.boxes import box_iou
from vlground.core import load_json, torch_rng
from vlground.regions import (ATTRIBUTES, CLASSES, SmallBackbone, SmallPyramid, detection_loss, load_detector, scene_batch, scene_targets, ship,
                              small_faster_rcnn, train_detector, unship)
from vlground.scenes import CAPTIONS, REFER, make_scene, render
from vlground.store import LONGEST, Store, extract_regions, read_picture


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


def test_unknown_detector():
    with pytest.raises(ValueError, match="no detector named 'coco'; known: world"): load_detector('coco')


# how it is made

@pytest.mark.parametrize('side', [64, 256])
def test_maps(side):
    pictures = torch.rand(2, 3, side, side)
    assert [tuple(seen.shape[2:]) for seen in SmallPyramid()(pictures)] == [(side//4,)*2, (side//8,)*2, (side//16,)*2]
    assert SmallBackbone()(pictures).shape == (2, 64, side//8, side//8)


@given(st.integers(0, 10**6), st.sampled_from([CAPTIONS, REFER]))
@settings(max_examples=15)
def test_targets_say_what_the_scene_says(index, recipe):
    scene = make_scene(5, index, recipe)
    targets = scene_targets(scene)
    for i, thing in enumerate(scene.things):
        assert tuple(targets['boxes'][i].tolist()) == thing.box and CLASSES[targets['labels'][i]] == thing.kind
        assert {name: ATTRIBUTES[name][targets[name][i]] for name in ATTRIBUTES} == {name: getattr(thing, name) for name in ATTRIBUTES}


def test_batches_depend_on_the_step_alone():
    once, again, other = (scene_batch(step, 1, 3, (CAPTIONS, REFER)) for step in (4, 4, 5))
    assert all(map(torch.equal, once[0], again[0])) and not any(map(torch.equal, once[0], other[0]))
    for picture, target in zip(*once): assert picture.shape == (3, 256, 256) and 0 <= picture.min() and picture.max() <= 1 and len(target['boxes'])


def test_every_weight_is_trained():
    torch.manual_seed(0)
    model = small_faster_rcnn().train()
    parts = detection_loss(model, scene_batch(0, 1, 2, (CAPTIONS,)))
    parts['loss'].backward()
    assert set(ATTRIBUTES) < set(parts) and all(value.isfinite() for value in parts.values())
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    torch.testing.assert_close(parts['loss'], sum(value for name, value in parts.items() if name != 'loss'))


def test_training_is_the_same_twice(tmp_path):
    a, b = (train_detector(tmp_path/name, steps=2, batch_size=2, progress='none') for name in 'ab')
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values())) and not a.training


def test_weights_travel_in_half_precision(tmp_path):
    torch.manual_seed(1)
    model = small_faster_rcnn()
    path = ship(model, 'detector', tmp_path)
    assert all(value.dtype == torch.float16 for value in load_file(path).values() if value.is_floating_point())
    again = unship(small_faster_rcnn(), 'detector', tmp_path)
    for name, value in model.state_dict().items(): torch.testing.assert_close(again.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert not again.training and next(again.parameters()).dtype == torch.float32
    with pytest.raises(FileNotFoundError, match='grounder.safetensors: the weights are missing'): unship(model, 'grounder', tmp_path)


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


def test_a_broken_picture_gets_its_error_and_the_shard_is_finished(odd, tmp_path):
    store = Store(extract_regions(odd, tmp_path/'store', keep=4, shard_size=6, batch_size=3, quiet=True))
    assert len(store) == sum(path.is_file() for path in odd.rglob('*')) and store.verify() == []
    assert {id for id in store.ids if id.startswith('bad')} == set(store.errors) and all(store.errors.values())
    assert not any(str(odd) in why for why in store.errors.values())
    for id in set(store.ids) - set(store.errors):
        assert store.get(id).size == Image.open(odd/id).size and len(store.get(id).boxes) <= 4 and len(store.get('whole.png').boxes) > 0
    assert 'sub folder/ümlaut.webp' in store.ids and store.get('turned.jpg').size == (200, 100)


def test_a_picture_of_a_billion_pixels_is_refused(odd, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    assert 'DecompressionBomb' in read_picture(odd/'whole.png')


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


def test_killed_while_extracting_it_ends_with_the_same_bytes(small_world, tmp_path):
    whole = extract_regions(small_world/'images', tmp_path/'whole', keep=8, shard_size=8, batch_size=4, quiet=True)
    (tmp_path/'extract.py').write_text(EXTRACT)
    process = begin(str(tmp_path/'extract.py'), small_world/'images', tmp_path/'killed', 1)
    wait_until(process, lambda: (tmp_path/'killed'/'manifest.json').exists() and len(load_json(tmp_path/'killed'/'manifest.json')['shards']) >= 2)
    kill(process)
    assert len(load_json(tmp_path/'killed'/'manifest.json')['shards']) < 12, 'it was killed too late to show anything'
    finish(begin(str(tmp_path/'extract.py'), small_world/'images', tmp_path/'killed', 2)) # now two workers
    assert contents(tmp_path/'killed') == contents(whole)

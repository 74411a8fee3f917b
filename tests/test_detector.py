"The world's detector: its network, what it is taught, its training, and the weights that ship."
import math
import os
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import contents
from safetensors.torch import load_file
from torch import nn

from vlground.boxes import box_iou
from vlground.detector import (ATTRIBUTES, CLASSES, DATA, POSES, BoxHead, Residual, SmallBackbone, SmallPyramid, convolution, detection_loss,
                               scene_batch, scene_targets, ship, small_faster_rcnn, train_detector, unship)
from vlground.drawing import KINDS
from vlground.scenes import CAPTIONS, REFER, make_scene

# the network

@pytest.mark.parametrize('side', [64, 256])
def test_maps(side):
    pictures = torch.rand(2, 3, side, side)
    assert [tuple(seen.shape[2:]) for seen in SmallPyramid()(pictures)] == [(side//4,)*2, (side//8,)*2, (side//16,)*2]
    assert SmallBackbone()(pictures).shape == (2, 64, side//8, side//8)


def test_small_parts():
    x = torch.randn(2, 8, 12, 16)
    assert convolution(8, 5)(x).shape == (2, 5, 12, 16) and convolution(8, 5, 2)(x).shape == (2, 5, 6, 8) and convolution(8, 5)(x).min() == 0
    block = Residual(8).eval()
    assert block(x).shape == x.shape and not torch.equal(block(x), x.relu())
    nn.init.zeros_(block.body[-1].weight) # nothing to correct
    assert torch.equal(block(x), x.relu())
    assert BoxHead(8, 3, 20)(torch.rand(4, 8, 3, 3)).shape == (4, 20) and BoxHead(8, 3)(torch.rand(0, 8, 3, 3)).shape == (0, 128)


@pytest.mark.parametrize('stage, side', [(0, 20), (1, 60), (2, 140)])
def test_what_a_cell_sees(stage, side):
    picture = torch.rand(1, 3, 256, 256).requires_grad_()
    seen = SmallPyramid().eval()(picture)[stage]
    seen[..., seen.shape[2]//2, seen.shape[3]//2].sum().backward()
    touched = picture.grad[0].abs().sum(0) > 0
    assert int(touched.any(0).sum()) == int(touched.any(1).sum()) == side


def test_the_answers_are_those_of_the_world():
    model = small_faster_rcnn()
    assert CLASSES == ('background', *KINDS) and set(POSES) == {pose for kind in KINDS.values() for pose in kind.poses} and len(set(POSES)) == len(POSES)
    assert set(ATTRIBUTES) == set(model.attributes) == {'colour', 'pattern', 'pose', 'size'}
    assert model.roi_heads.box_predictor.cls_score.out_features == len(CLASSES)


def test_twelve_anchors_at_each_cell():
    model = small_faster_rcnn().eval()
    with torch.no_grad():
        batch, _ = model.transform([torch.rand(3, 256, 256)])
        anchors, = model.rpn.anchor_generator(batch, [model.backbone(batch.tensors)])
    assert anchors.shape == (32*32*12, 4) and (anchors[12:24] - anchors[:12] == torch.tensor([8., 0, 8, 0])).all()
    width, height = (anchors[:12, 2:] - anchors[:12, :2]).unbind(1)
    sides, shapes = (width*height).sqrt(), (height/width).log2().round().tolist() # corners are whole pixels
    assert sorted(shapes) == [-1]*4 + [0]*4 + [1]*4
    for shape in (-1, 0, 1): torch.testing.assert_close(sides[torch.tensor(shapes) == shape], torch.tensor([16., 32, 64, 112]), atol=.5, rtol=0)


# what it is taught

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


def test_a_network_that_knows_nothing_pays_for_it():
    "Before the first step each cross-entropy is that of an even guess."
    torch.manual_seed(0)
    parts = detection_loss(small_faster_rcnn().train(), scene_batch(2, 101, 6, (CAPTIONS, REFER)))
    for name, answers in ({'loss_objectness': 2, 'class': len(CLASSES)} | {name: len(values) for name, values in ATTRIBUTES.items()}).items():
        assert abs(parts[name].item() - math.log(answers)) < .25, name


def test_proposals_of_the_shipped_weights_are_at_the_things():
    torch.manual_seed(0)
    images, targets = scene_batch(0, 7, 24, (CAPTIONS, REFER))
    def recall(model):
        with torch.no_grad():
            batch, _ = model.eval().transform(images)
            found = model.rpn(batch, {'0': model.backbone(batch.tensors)})[0]
        return float(torch.cat([(box_iou(target['boxes'], each) > .5).any(1) for target, each in zip(targets, found)]).float().mean())
    assert recall(small_faster_rcnn()) < .5 < .8 < recall(unship(small_faster_rcnn(), 'detector'))


class Oracle(nn.Module):
    "In place of the cuts: of each proposal the true colour of its thing, and a wrong one of the background."
    def __init__(self, targets):
        super().__init__()
        self.targets = targets

    def forward(self, maps, proposals, sizes):
        rows = []
        for boxes, target in zip(proposals, self.targets):
            overlap, thing = box_iou(target['boxes'], boxes).max(0)
            colour = torch.where(overlap >= .5, target['colour'][thing], (target['colour'][thing] + 1) % len(ATTRIBUTES['colour']))
            rows.append(100*nn.functional.one_hot(colour, 128).float())
        return torch.cat(rows)


def test_attributes_are_asked_of_things_only_and_each_of_its_own():
    images, targets = scene_batch(1, 3, 4, (CAPTIONS, REFER))
    model = small_faster_rcnn().train()
    model.roi_heads.box_roi_pool, model.roi_heads.box_head = Oracle(targets), nn.Identity()
    for name, layer in model.attributes.items():
        nn.init.zeros_(layer.bias)
        nn.init.eye_(layer.weight) # the answer is the first numbers of the vector
    parts = detection_loss(model, (images, targets))
    assert parts['colour'] < 1e-3 < 5 < parts['pose']


def test_the_loss_of_an_attribute_is_the_mean_over_the_things_found():
    images, targets = scene_batch(4, 3, 3, (CAPTIONS, REFER))
    torch.manual_seed(0)
    model = small_faster_rcnn().train()
    torch.manual_seed(1)
    parts = detection_loss(model, (images, targets))
    torch.manual_seed(1) # the same drawing of proposals, step by step
    batch, targets = model.transform(images, targets)
    maps, heads = {'0': model.backbone(batch.tensors)}, model.roi_heads
    proposals, matched, labels, _ = heads.select_training_samples(model.rpn(batch, maps, targets)[0], targets)
    features, things = heads.box_head(heads.box_roi_pool(maps, proposals, batch.image_sizes)), torch.cat(labels) > 0
    for name, answer in model.attributes.items():
        truth = torch.cat([target[name][rows] for target, rows in zip(targets, matched)])
        torch.testing.assert_close(parts[name], F.cross_entropy(answer(features[things]), truth[things]))


@pytest.mark.parametrize('empty', [(0,), (1,), (0, 1)])
def test_pictures_with_nothing_in_them(empty):
    images, _ = scene_batch(0, 1, 2, (CAPTIONS,))
    scenes = [make_scene(1, i, CAPTIONS) for i in range(2)]
    targets = [scene_targets(replace(scene, things=()) if i in empty else scene) for i, scene in enumerate(scenes)]
    assert all(targets[i]['boxes'].shape == (0, 4) for i in empty)
    torch.manual_seed(0)
    model = small_faster_rcnn().train()
    parts = detection_loss(model, (images, targets))
    parts['loss'].backward()
    assert all(value.isfinite() for value in parts.values())
    if len(empty) == 2: assert all(parts[name] == 0 for name in (*ATTRIBUTES, 'box', 'loss_rpn_box_reg'))
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]


# its training

def test_training_is_the_same_twice(tmp_path):
    a, b = (train_detector(tmp_path/name, steps=2, batch_size=2, progress='none') for name in 'ab')
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values())) and not a.training


# weights in files

def test_weights_travel_in_half_precision(tmp_path):
    torch.manual_seed(1)
    model = small_faster_rcnn()
    path = ship(model, 'detector', tmp_path)
    assert all(value.dtype == torch.float16 for value in load_file(path).values() if value.is_floating_point())
    again = unship(small_faster_rcnn(), 'detector', tmp_path)
    for name, value in model.state_dict().items(): torch.testing.assert_close(again.state_dict()[name], value, atol=1e-3, rtol=1e-3)
    assert not again.training and next(again.parameters()).dtype == torch.float32
    with pytest.raises(FileNotFoundError, match='grounder.safetensors: the weights are missing'): unship(model, 'grounder', tmp_path)


def test_shipping_what_ships_gives_the_same_bytes(tmp_path):
    path = ship(unship(small_faster_rcnn(), 'detector'), 'detector', tmp_path)
    assert path.read_bytes() == (DATA/'detector.safetensors').read_bytes()


def test_numbers_too_large_for_half_precision_are_not_shipped(tmp_path):
    for value in (1e6, float('nan')):
        layer = nn.Linear(2, 2)
        nn.init.constant_(layer.bias, value)
        with pytest.raises(ValueError, match='grounder.safetensors: bias holds NaN, or numbers beyond the 65,504'): ship(layer, 'grounder', tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network(tmp_path):
    for name, lesson in (('detector', '08'), ('grounder', '10')):
        ship(nn.Linear(2, 2), name, tmp_path)
        with pytest.raises(ValueError, match=f'{name}.safetensors: weights of another network than this FasterRCNN; .* the command of lesson {lesson}$'):
            unship(small_faster_rcnn(), name, tmp_path)


def test_a_full_disk_leaves_the_old_weights(tmp_path, monkeypatch):
    path = ship(small_faster_rcnn(), 'detector', tmp_path)
    before = contents(tmp_path)
    def full(self, data):
        with open(self, 'wb') as file: file.write(data[:1000])
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match='No space left'): ship(small_faster_rcnn(), 'detector', tmp_path)
    assert contents(tmp_path) == before and path.is_file()


class Bomb:
    "What a pickle can do: here it makes a folder."
    def __init__(self, folder): self.folder = str(folder)
    def __reduce__(self): return os.mkdir, (self.folder,)


@pytest.mark.fault(7)
@pytest.mark.parametrize('save', [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb, 2))], ids=['torch', 'pickle'])
def test_a_pickle_bomb_is_refused_and_does_not_go_off(tmp_path, save):
    gone_off, file = tmp_path/'gone off', tmp_path/'bomb.pt'
    save({'weight': Bomb(gone_off)}, file)
    with suppress(RuntimeError): torch.load(file, weights_only=False) # a plain pickle goes off first, and is found wanting then
    assert gone_off.is_dir(), 'the bomb is a dud, and the test would show nothing'
    gone_off.rmdir()
    file.rename(tmp_path/'detector.safetensors')
    with pytest.raises(ValueError, match='detector.safetensors: not a file of safetensors, or damaged'): unship(small_faster_rcnn(), 'detector', tmp_path)
    assert not gone_off.exists()


@pytest.mark.parametrize('keep', [0, 7, 1000, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    whole = (DATA/'detector.safetensors').read_bytes()
    (tmp_path/'detector.safetensors').write_bytes(whole[:keep])
    with pytest.raises(ValueError, match='detector.safetensors: not a file of safetensors, or damaged'): unship(small_faster_rcnn(), 'detector', tmp_path)

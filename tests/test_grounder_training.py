"Training a grounder: who is responsible, the loss, batches from the world and from anybody's data, mirrored pictures, runs that can be repeated."
import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms.functional import pil_to_tensor

from vlground.boxes import box_iou
from vlground.core import load_json
from vlground.grounder import (PAPER, WORLD, GrounderConfig, OneStageGrounder, ResnetPyramid, VectorEncoder, candidates, decode, letterbox,
                               out_of_square, phrase_ids)
from vlground.grounder_training import LabelledPhrase, fit_grounder, flipped, grounding_batch, grounding_loss, item_batch, responsible, train_grounder
from vlground.phrases import load_tokenizer
from vlground.scenes import TEACHER, example_scene, make_scene, render
from vlground.logs import read_log
from vlground.training import TrainConfig
from vlground.world import short_labels

CELLS = [tuple(cell) for cell in candidates(WORLD).tolist()]
BEFORE, FIRST, LAST = (9.7238817, 8.2853851), (9.2992, 8.1361), (9.1905, 8.0084) # loss and choice of the first step, the tenth and the last
SMALL = GrounderConfig(side=64, width=8, head=4, hidden=6)
# whole pixels, so that whether a centre lies on the edge of a cell is not a matter of rounding
boxes_inside = st.tuples(st.integers(0, 250), st.integers(0, 250), st.integers(4, 256), st.integers(4, 256)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 256), min(b[1] + b[3], 256))).filter(lambda b: min(b[2] - b[0], b[3] - b[1]) >= 4)


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


@pytest.fixture(scope='module')
def read(tokenizer): return partial(phrase_ids, tokenizer=tokenizer)


def likeness(box, cell):
    w, h = box[2] - box[0], box[3] - box[1]
    shared = min(w, cell[2])*min(h, cell[3])
    return shared/(w*h + cell[2]*cell[3] - shared)


def encode(box):
    "By hand: which candidate should answer for a box, and with what numbers."
    x, y, w, h = (box[0] + box[2])/2, (box[1] + box[3])/2, box[2] - box[0], box[3] - box[1]
    holding = [i for i, cell in enumerate(CELLS) if x//cell[4] == cell[0] and y//cell[4] == cell[1]]
    assert len(holding) == 9
    best = max(holding, key=lambda i: likeness(box, CELLS[i]))
    column, row, aw, ah, stride = CELLS[best]
    def logit(share): return math.log(max(share, 1e-6)/max(1 - share, 1e-6))
    return best, (logit(x/stride - column), logit(y/stride - row), math.log(w/aw), math.log(h/ah), 30.)


# the loss

@given(st.lists(boxes_inside, min_size=1, max_size=3))
@settings(max_examples=25)
def test_an_output_that_encodes_a_box_decodes_to_it_and_costs_nothing(boxes):
    answers, true = torch.zeros(len(boxes), 4032, 5), torch.tensor(boxes).float()
    for row, box in enumerate(boxes):
        best, numbers = encode(box)
        answers[row, best] = torch.tensor(numbers)
    found, scores = decode(answers, WORLD)
    torch.testing.assert_close(found, true, atol=.01, rtol=1e-4)
    # a tie between anchors may be broken either way
    shapes = [sorted({round(likeness(box, cell), 9) for cell in CELLS}) for box in boxes]
    if all(each[-1] - each[-2] > 1e-4 for each in shapes):
        assert responsible(true, WORLD).tolist() == [encode(box)[0] for box in boxes]
        assert grounding_loss(answers, true, WORLD)['loss'] < 1e-3


def test_a_centre_on_a_line_belongs_to_the_next_cell():
    (number,) = responsible(torch.tensor([[24., 136, 104, 196]]), WORLD).tolist()
    assert CELLS[number] == (2, 5, 92, 64, 32) # the centre is at x = 64
    for box in ((0, 0, 2, 2), (254, 254, 256, 256), (0, 0, 256, 256)):
        column, row, _, _, stride = CELLS[responsible(torch.tensor([box]).float(), WORLD)]
        assert column*stride <= (box[0] + box[2])/2 < (column + 1)*stride and row*stride <= (box[1] + box[3])/2 < (row + 1)*stride


def test_what_lowers_the_loss_finds_the_box():
    "Numbers that are free to move, moved downhill, end at the boxes."
    boxes = torch.tensor([[24., 136, 104, 196], [128, 150, 168, 190], [2, 3, 250, 240]])
    answers = torch.zeros(3, 4032, 5, requires_grad=True)
    optimizer = torch.optim.Adam([answers], lr=.2)
    for _ in range(150):
        optimizer.zero_grad()
        grounding_loss(answers, boxes, WORLD)['loss'].backward()
        optimizer.step()
    assert box_iou(decode(answers.detach(), WORLD)[0], boxes).diagonal().min() > .9


@pytest.mark.parametrize('config, weight', [(WORLD, 2.5), (GrounderConfig(anchors=WORLD.anchors, anchor_side=256), 5.)], ids=['world', 'paper'])
def test_the_loss_is_a_cross_entropy_and_weighted_squared_errors(config, weight):
    "Two phrases: means over phrases of four squared errors, and of minus the logarithm of the right one's share."
    answers, boxes = torch.randn(2, 4032, 5, generator=torch.Generator().manual_seed(3)), [(30., 40., 90., 100.), (8., 8., 40., 200.)]
    place = choice = 0
    for row, box in zip(answers, boxes):
        best, (tx, ty, tw, th, _) = encode(box)
        said = row[best].tolist()
        def sigmoid(t): return 1/(1 + math.exp(-t))
        place += ((sigmoid(said[0]) - sigmoid(tx))**2 + (sigmoid(said[1]) - sigmoid(ty))**2 + (said[2] - tw)**2 + (said[3] - th)**2)/2
        choice += (math.log(sum(math.exp(c) for c in row[:, 4].tolist())) - said[4])/2
    found = grounding_loss(answers, torch.tensor(boxes), config)
    assert found['place'].item() == pytest.approx(place, rel=1e-3) and found['choice'].item() == pytest.approx(choice, rel=1e-3)
    assert found['loss'].item() == pytest.approx(weight*place + choice, rel=1e-3)


def test_the_loss_in_half_precision():
    answers, boxes = torch.randn(2, 4032, 5, generator=torch.Generator().manual_seed(3)), torch.tensor([[30., 40., 90., 100.], [8., 8., 40., 200.]])
    full, half = grounding_loss(answers, boxes, PAPER), grounding_loss(answers.bfloat16(), boxes, PAPER)
    assert half['loss'].dtype == torch.float32 and half['loss'].item() == pytest.approx(full['loss'].item(), rel=.02)


# mirrored pictures

def test_flipped():
    picture = render(example_scene('A')).crop((0, 0, 200, 256))
    item = flipped(LabelledPhrase(picture, 'The dog on the LEFT, right of the leftmost bright cleft', (24, 136, 104, 196)))
    assert item.phrase == 'The dog on the right, left of the rightmost bright cleft' # words, not letters
    assert item.box == (96, 136, 176, 196) and item.picture.size == (200, 256)
    inside = item.picture.crop((96, 136, 176, 196))
    assert inside.tobytes() == ImageOps.mirror(picture.crop((24, 136, 104, 196))).tobytes() # what the box shows is the same, mirrored


@given(st.text('leftrigh ,mos', max_size=30), st.integers(1, 90), st.integers(1, 90), st.tuples(*[st.integers(0, 90)]*4))
@settings(max_examples=60)
def test_flipping_twice_is_nothing(phrase, width, height, box):
    item = LabelledPhrase(Image.new('L', (width, height)), phrase, box)
    assert flipped(flipped(item))[1:] == item[1:]


# batches of anybody's data

def own_items(n, folder=None):
    items = []
    for i in range(n):
        scene = make_scene(3, i, TEACHER)
        text, target = short_labels(scene)[0]
        picture = render(scene).crop((0, 0, 256, 256 - 10*i)) if scene.things[target].box[3] < 256 - 10*i else render(scene)
        if folder:
            picture.save(folder/f'{i}.png')
            picture = folder/f'{i}.png'
        items.append(LabelledPhrase(picture, text, scene.things[target].box))
    return items


def test_a_batch_holds_each_item_where_it_should_be(read, tokenizer, tmp_path):
    items = own_items(5, tmp_path)
    images, ids, which, boxes = item_batch(0, items, 5, 1, read, SMALL)
    assert images.shape == (5, 3, 64, 64) and which.tolist() == [0, 1, 2, 3, 4] and boxes.shape == (5, 4)
    texts = [tokenizer.decode(row[row > 0].tolist()) for row in ids]
    assert sorted(texts) == sorted(item.phrase for item in items)
    for image, text, box in zip(images, texts, boxes):
        fitting = [item for item in items if item.phrase == text and torch.equal(letterbox(Image.open(item.picture), SMALL).pixels, image)]
        back = out_of_square(box[None], letterbox(Image.open(fitting[0].picture), SMALL))
        torch.testing.assert_close(back, torch.tensor([fitting[0].box]), atol=1e-3, rtol=1e-4)


def test_an_epoch_goes_through_all_items_in_an_order_of_its_own(read):
    items = [LabelledPhrase(Image.new('RGB', (9, 9)), phrase, (1, 1, 5, 5)) for phrase in ('dog', 'cat', 'sun', 'tree', 'bed', 'car')]
    def epoch(number, seed=1): return [row[0].item() for step in (2*number, 2*number + 1) for row in item_batch(step, items, 3, seed, read, SMALL)[1]]
    assert len(set(epoch(0))) == 6 and set(epoch(0)) == set(epoch(1)) and epoch(0) == epoch(0)
    assert len({tuple(epoch(number, seed)) for number in range(3) for seed in range(3)}) > 5


def test_flipping_is_off_unless_asked_for_and_depends_on_the_step_alone(read):
    items = [LabelledPhrase(render(example_scene('A')), 'left dog', (24, 136, 104, 196))]*8
    def lefts(**options): return item_batch(2, items, 8, 1, lambda texts: torch.tensor([[text == 'left dog'] for text in texts]), SMALL, **options)
    assert lefts()[1].all() and not lefts(flip=1.)[1].any()
    some = lefts(flip=.5)
    assert 0 < some[1].sum() < 8 and all(map(torch.equal, some, lefts(flip=.5)))
    x = {(left, round(box[0].item())) for left, box in zip(some[1][:, 0].tolist(), some[3])}
    assert x == {(True, 6), (False, 38)} # 24 and 256 - 104 pixels, in a square of 64


@pytest.mark.fault(13)
@pytest.mark.parametrize('box', [(24, 136, 80, 60), (24, 24, 24, 60), (0, 0, 300, 60), (-5, 0, 20, 20), (float('nan'), 0, 20, 20)])
def test_a_box_that_is_none_is_refused_with_its_item(read, box):
    items = [LabelledPhrase(Image.new('RGB', (100, 80)), 'a dog', (1, 1, 50, 50)), LabelledPhrase(Image.new('RGB', (256, 256)), 'a red cat', box)]
    with pytest.raises(ValueError, match=r"item 1 \('a red cat'\).* is no box x1 < x2, y1 < y2 inside its 256 x 256 pixels"): item_batch(0, items, 2, 1, read, SMALL)


@pytest.mark.parametrize('box', [torch.tensor([24., 136, 104, 196]), torch.tensor([24, 136, 104, 196]), [24, 136, 104, 196], (24., 136., 104., 196.)], ids=lambda box: type(box).__name__)
def test_a_box_may_be_any_four_numbers(read, box):
    assert item_batch(0, [LabelledPhrase(Image.new('RGB', (256, 256)), 'a dog', box)]*2, 2, 1, read, SMALL, flip=1.)[3][0].tolist() == [38, 34, 58, 49]


def test_a_box_of_three_numbers_and_no_items_at_all(read):
    with pytest.raises(ValueError, match=r"item [01] \('a dog'\): \(1.0, 1.0, 5.0\) is no box"): item_batch(0, [LabelledPhrase(Image.new('RGB', (9, 9)), 'a dog', (1, 1, 5))]*2, 2, 1, read, SMALL)
    with pytest.raises(ValueError, match='items: expected at least one labelled phrase'): item_batch(0, [], 2, 1, read, SMALL)


def test_a_broken_picture_is_named(read, tmp_path):
    (tmp_path/'cut.png').write_bytes(b'\x89PNG\r\n\x1a\n and no more')
    items = [LabelledPhrase(tmp_path/'cut.png', 'a dog', (1, 1, 5, 5))]*2
    with pytest.raises(ValueError, match=r"item [01] \('a dog'\): its picture cannot be read: .*cut.png"): item_batch(0, items, 2, 1, read, SMALL)


# training

def test_batches_of_the_world_depend_on_the_step_alone(tokenizer):
    once, again, other = (grounding_batch(step, 1, 3, tokenizer) for step in (4, 4, 5))
    assert all(map(torch.equal, once, again)) and not torch.equal(once[0], other[0])
    images, ids, which, boxes = once
    for text, picture, box in zip(ids, which.tolist(), boxes.tolist()):
        scene = make_scene(1, 4*3 + picture, TEACHER)
        assert (tokenizer.decode(text[text > 0].tolist()), tuple(box)) in {(label, scene.things[i].box) for label, i in short_labels(scene)}
        assert torch.equal(images[picture], pil_to_tensor(render(scene))/255)
    assert max(which.bincount()) <= 3


@pytest.mark.parametrize('config', [WORLD, GrounderConfig(width=32, head=16, hidden=24)], ids=['world', 'paper'])
def test_every_weight_is_trained(tokenizer, config):
    torch.manual_seed(0)
    model = OneStageGrounder(config, tokenizer.get_vocab_size()).train()
    images, ids, which, boxes = grounding_batch(0, 1, 2, tokenizer)
    grounding_loss(model(images, ids, which), boxes, config)['loss'].backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]


def test_training_is_the_same_twice(tmp_path):
    a, b = (train_grounder(tmp_path/name, steps=2, batch_size=2, progress='none') for name in 'ab')
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values())) and not a.training
    assert load_json(tmp_path/'a'/'config.json')['grounder']['place_weight'] == 2.5


def test_the_first_steps_of_the_weights_that_ship(tmp_path):
    "Losses of the run that made them, as the code that made them logged them: 11 steps with three pictures."
    train_grounder(tmp_path/'one', steps=1, batch_size=3, progress='none')
    only, = (line['parts'] for line in read_log(tmp_path/'one'))
    assert (only['loss'], only['choice']) == pytest.approx(BEFORE, rel=1e-5) # the same on every processor
    train_grounder(tmp_path/'eleven', steps=11, batch_size=3, progress='none')
    for line, expected in zip(read_log(tmp_path/'eleven'), (FIRST, LAST), strict=True): # steps magnify the last bits: measured on two processors, 0.7 %
        assert (line['parts']['loss'], line['parts']['choice']) == pytest.approx(expected, rel=1e-2)


def test_anybodys_data_eyes_and_ears(tmp_path):
    "A grounder with a ResNet and outside vectors learns two items by heart, and goes on from where it stopped."
    items = own_items(2)
    def read(phrases): return torch.tensor([[float(phrase == item.phrase) for item in items] + [1.] for phrase in phrases])
    torch.manual_seed(0)
    model = OneStageGrounder(SMALL, backbone=ResnetPyramid('resnet18'), text=VectorEncoder(3, SMALL.width))
    batches = partial(item_batch, items=items, size=2, seed=0, read=read, config=SMALL)
    fit_grounder(model, batches, TrainConfig(steps=30, batch_size=2, learning_rate=3e-3, clip=5., threads=1), tmp_path/'run', 'none')
    log = read_log(tmp_path/'run')
    assert log[-1]['parts']['loss'] < log[0]['parts']['loss'] - 1 and not model.training
    with pytest.raises(ValueError, match='grounder.width'):
        other = OneStageGrounder(GrounderConfig(side=64, width=4, head=4, hidden=6), backbone=ResnetPyramid('resnet18'), text=VectorEncoder(3, 4))
        fit_grounder(other, batches, TrainConfig(steps=30, batch_size=2, learning_rate=3e-3, clip=5., threads=1), tmp_path/'run', 'none')

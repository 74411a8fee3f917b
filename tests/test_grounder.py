"The one-stage grounder: boxes into numbers and back, pictures of any size, phrases of any kind, and whether it listens to the phrase."
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from vlground.boxes import box_iou
from vlground.grounder import (ANCHORS, SIDE, STRIDES, OneStageGrounder, OneStageTeacher, PhraseEncoder, candidates, coordinate_map, decode,
                               grounding_batch, grounding_loss, letterbox, load_grounder, phrase_ids, train_grounder)
from vlground.phrases import load_tokenizer
from vlground.scenes import TEACHER, make_scene, render
from vlground.world import short_labels

CELLS = [(x, y, *anchor, stride) for stride, anchors in zip(STRIDES, ANCHORS) for anchor in anchors for y in range(SIDE//stride) for x in range(SIDE//stride)]
# whole pixels, so that whether a centre lies on the edge of a cell is not a matter of rounding
boxes_inside = st.tuples(st.integers(0, 250), st.integers(0, 250), st.integers(4, 256), st.integers(4, 256)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 256), min(b[1] + b[3], 256))).filter(lambda b: min(b[2] - b[0], b[3] - b[1]) >= 4)


@pytest.fixture(scope='module')
def teacher(): return load_grounder()


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


def encode(box):
    "By hand: which candidate should answer for a box, and with what numbers."
    x, y, w, h = (box[0] + box[2])/2, (box[1] + box[3])/2, box[2] - box[0], box[3] - box[1]
    def likeness(cell):
        shared = min(w, cell[2])*min(h, cell[3])
        return shared/(w*h + cell[2]*cell[3] - shared)
    holding = [i for i, cell in enumerate(CELLS) if x//cell[4] == cell[0] and y//cell[4] == cell[1]]
    best = max(holding, key=lambda i: likeness(CELLS[i]))
    column, row, aw, ah, stride = CELLS[best]
    def logit(share): return math.log(max(share, 1e-6)/max(1 - share, 1e-6))
    return best, (logit(x/stride - column), logit(y/stride - row), math.log(w/aw), math.log(h/ah), 30.)


def answers_for(boxes):
    answers = torch.zeros(len(boxes), len(CELLS), 5)
    for row, box in enumerate(boxes):
        best, numbers = encode(box)
        answers[row, best] = torch.tensor(numbers)
    return answers


# numbers

def test_candidates_are_every_cell_with_every_anchor():
    assert candidates().tolist() == [list(map(float, cell)) for cell in CELLS] and len(CELLS) == 4032


def test_the_network_answers_in_the_order_of_the_candidates():
    "With weights that give each anchor of each stride its own confidence, the answers line up with the candidates."
    model = OneStageGrounder(20).eval()
    for number, scale in enumerate(model.scales):
        nn.init.zeros_(scale.fuse[-1].weight)
        scale.fuse[-1].bias.data = torch.tensor([[0., 0., 0., 0., 10.*number + anchor] for anchor in range(3)]).flatten()
    answers = model(torch.rand(1, 3, SIDE, SIDE), torch.tensor([[5, 6]]), torch.tensor([0]))[0, :, 4]
    for (_, _, *anchor, stride), confidence in zip(CELLS, answers.tolist()):
        number = STRIDES.index(stride)
        assert confidence == 10*number + ANCHORS[number].index(tuple(anchor))


@given(st.integers(1, 9), st.integers(1, 9))
def test_coordinate_map(height, width):
    found = coordinate_map(height, width)
    for row in range(height):
        for column in range(width):
            left, right, top, bottom = 2*column/width - 1, 2*(column + 1)/width - 1, 2*row/height - 1, 2*(row + 1)/height - 1
            expected = [left, top, right, bottom, (left + right)/2, (top + bottom)/2, 1/width, 1/height]
            torch.testing.assert_close(found[:, row, column], torch.tensor(expected))


@given(st.lists(boxes_inside, min_size=1, max_size=3))
@settings(max_examples=25)
def test_an_output_that_encodes_a_box_decodes_to_it_and_costs_nothing(boxes):
    answers, true = answers_for(boxes), torch.tensor(boxes).float()
    found, scores = decode(answers)
    torch.testing.assert_close(found, true, atol=.01, rtol=1e-4)
    assert (scores > .999).all()
    # a tie between anchors may be broken either way, which costs
    if all(sorted(likenesses(box))[-1] - sorted(likenesses(box))[-2] > 1e-4 for box in boxes): assert grounding_loss(answers, true)['loss'] < 1e-3


def likenesses(box):
    w, h = box[2] - box[0], box[3] - box[1]
    return [min(w, aw)*min(h, ah)/(w*h + aw*ah - min(w, aw)*min(h, ah)) for anchors in ANCHORS for aw, ah in anchors]


def test_what_lowers_the_loss_finds_the_box():
    "Numbers that are free to move, moved downhill, end at the boxes."
    boxes = torch.tensor([[24., 136, 104, 196], [128, 150, 168, 190], [2, 3, 250, 240]])
    answers = torch.zeros(3, 4032, 5, requires_grad=True)
    optimizer = torch.optim.Adam([answers], lr=.2)
    for _ in range(150):
        optimizer.zero_grad()
        grounding_loss(answers, boxes)['loss'].backward()
        optimizer.step()
    assert box_iou(decode(answers.detach())[0], boxes).diagonal().min() > .9


def test_the_loss_is_a_cross_entropy_and_five_times_two_squared_errors():
    answers, box = torch.randn(1, 4032, 5, generator=torch.Generator().manual_seed(3)), (30., 40., 90., 100.)
    best, (tx, ty, tw, th, _) = encode(box)
    said = answers[0, best].tolist()
    def sigmoid(t): return 1/(1 + math.exp(-t))
    place = ((sigmoid(said[0]) - sigmoid(tx))**2 + (sigmoid(said[1]) - sigmoid(ty))**2)/2 + ((said[2] - tw)**2 + (said[3] - th)**2)/2
    choice = math.log(sum(math.exp(c) for c in answers[0, :, 4].tolist())) - said[4]
    found = grounding_loss(answers, torch.tensor([box]))
    assert found['place'].item() == pytest.approx(place, rel=1e-3) and found['choice'].item() == pytest.approx(choice, rel=1e-3)
    assert found['loss'].item() == pytest.approx(5*place + choice, rel=1e-3)


# pictures of any size

@given(st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=25)
def test_letterbox_keeps_the_picture_whole_and_in_the_middle(width, height):
    square, scale, left, top = letterbox(Image.new('RGB', (width, height), (255, 0, 0)))
    assert square.shape == (3, SIDE, SIDE) and scale == SIDE/max(width, height)
    red = (square[0] == 1) & (square[1] == 0)
    y, x = red.nonzero(as_tuple=True)
    assert (x.min(), y.min()) == (left, top) and red.sum() == (x.max() - x.min() + 1)*(y.max() - y.min() + 1)
    assert abs((x.max() + 1 - x.min()) - width*scale) <= 1 and abs((y.max() + 1 - y.min()) - height*scale) <= 1
    assert abs(left - (SIDE - 1 - x.max())) <= 1 and abs(top - (SIDE - 1 - y.max())) <= 1


class Says(nn.Module):
    "A network that says, whatever it is shown, that the box is here."
    def __init__(self, box):
        super().__init__()
        self.answers = nn.Parameter(answers_for([box]))

    def forward(self, images, ids, which): return self.answers.expand(len(ids), -1, -1)


@given(st.integers(20, 600), st.integers(20, 600), st.tuples(*[st.floats(.05, .95)]*4))
@settings(max_examples=25)
def test_boxes_come_back_in_the_pixels_of_the_picture(tokenizer, width, height, shares):
    (x1, x2), (y1, y2) = sorted(shares[:2]), sorted(shares[2:])
    box = (x1*width, y1*height, x2*width, y2*height)
    scale = SIDE/max(width, height)
    assume(min(box[2] - box[0], box[3] - box[1])*scale >= 4)
    _, _, left, top = letterbox(Image.new('RGB', (width, height)))
    inside = (box[0]*scale + left, box[1]*scale + top, box[2]*scale + left, box[3]*scale + top)
    (found, _), = OneStageTeacher(Says(inside), tokenizer, 'test')([Image.new('RGB', (width, height))], [['a dog']])
    torch.testing.assert_close(found, torch.tensor([box]), atol=.1, rtol=1e-3)


@pytest.mark.parametrize('size', [(1, 1), (1, 90), (2000, 30), (256, 256)])
def test_boxes_lie_in_the_picture(teacher, size):
    (boxes, scores), = teacher([Image.new('RGB', size, (10, 200, 30))], [['a dog', 'the sky']])
    assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= size[0]).all() and (boxes[:, [1, 3]] <= size[1]).all()
    assert ((0 < scores) & (scores <= 1)).all()


# phrases of any kind

def test_pictures_without_phrases(teacher):
    picture = render(make_scene(1, 1, TEACHER))
    (none, no_scores), (some, _), (again, _) = teacher([picture]*3, [[], ['a dog', 'a cat'], []])
    assert none.shape == again.shape == (0, 4) and no_scores.shape == (0,) and some.shape == (2, 4)
    assert [boxes.shape for boxes, _ in teacher([picture]*2, [[], []])] == [(0, 4), (0, 4)] and teacher([], []) == []


@pytest.mark.parametrize('phrase', ['', ' ', '🐕', 'كلب أحمر', 'a\x00dog', '.*(?P<x>', 'dog '*3000, 'żółw'])
def test_strange_phrases_get_a_box_and_change_nothing_else(teacher, phrase):
    picture = render(make_scene(1, 2, TEACHER))
    (alone, _), (both, scores) = teacher([picture, picture], [['a dog'], ['a dog', phrase]])
    assert both.shape == (2, 4) and both.isfinite().all() and scores.isfinite().all()
    torch.testing.assert_close(both[:1], alone, atol=.05, rtol=1e-3)


def test_an_answer_does_not_depend_on_the_company(teacher):
    scenes = [make_scene(4, i, TEACHER) for i in range(4)]
    phrases = [[text for text, _ in short_labels(scene)] for scene in scenes]
    together = teacher([render(scene) for scene in scenes], phrases)
    few_at_once = OneStageTeacher(teacher.model, teacher.tokenizer, 'test', at_once=2)([render(scene) for scene in scenes], phrases)
    for scene, each, (boxes, scores), (others, _) in zip(scenes, phrases, together, few_at_once):
        (alone, alone_scores), = teacher([render(scene)], [each])
        torch.testing.assert_close(boxes, alone, atol=.05, rtol=1e-3)
        torch.testing.assert_close(boxes, others, atol=.05, rtol=1e-3)
        torch.testing.assert_close(scores, alone_scores, atol=1e-3, rtol=1e-2)


def test_phrase_ids(tokenizer):
    ids = phrase_ids(['a red dog', 'dog', 'a '*99], tokenizer)
    assert ids.shape == (3, 16) and (ids[0] > 0).sum() == 3 and (ids[1] > 0).sum() == 1 and ids[0, 2] == ids[1, 0]
    torch.manual_seed(0)
    encoder = PhraseEncoder(tokenizer.get_vocab_size(), 32).eval()
    torch.testing.assert_close(encoder(ids)[1], encoder(phrase_ids(['dog'], tokenizer))[0]) # padding is not read
    torch.testing.assert_close(encoder(ids).norm(dim=1), torch.ones(3))


# what it has learnt

def test_it_points_at_what_the_phrase_says(teacher):
    "Right about the labels of unseen scenes, and much worse when the labels of a scene change places: it is the words that it follows."
    scenes = [make_scene(99, i, TEACHER) for i in range(40)]
    labels = [short_labels(scene) for scene in scenes]
    answers = teacher([render(scene) for scene in scenes], [[text for text, _ in each] for each in labels])
    def accuracy(shift):
        hits = []
        for scene, each, (boxes, _) in zip(scenes, labels, answers):
            targets = [each[(n + shift) % len(each)][1] for n in range(len(each))]
            if len(each) > 1: hits += (box_iou(boxes, torch.tensor([scene.things[i].box for i in targets])).diagonal() > .5).tolist()
        return np.mean(hits)
    assert accuracy(0) > .5 and accuracy(1) < accuracy(0)/3


# how it is made

def test_batches_depend_on_the_step_alone(tokenizer):
    once, again, other = (grounding_batch(step, 1, 3, tokenizer) for step in (4, 4, 5))
    assert all(map(torch.equal, once, again)) and not torch.equal(once[0], other[0])
    images, ids, which, boxes = once
    for text, picture, box in zip(ids, which.tolist(), boxes.tolist()):
        scene = make_scene(1, 4*3 + picture, TEACHER)
        assert (tokenizer.decode(text[text > 0].tolist()), tuple(box)) in {(label, scene.things[i].box) for label, i in short_labels(scene)}
        assert torch.equal(images[picture], pil_to_tensor(render(scene))/255)
    assert max(which.bincount()) <= 3


def test_every_weight_is_trained(tokenizer):
    torch.manual_seed(0)
    model = OneStageGrounder(tokenizer.get_vocab_size()).train()
    images, ids, which, boxes = grounding_batch(0, 1, 2, tokenizer)
    grounding_loss(model(images, ids, which), boxes)['loss'].backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]


def test_training_is_the_same_twice(tmp_path):
    a, b = (train_grounder(tmp_path/name, steps=2, batch_size=2, progress='none') for name in 'ab')
    assert all(map(torch.equal, a.state_dict().values(), b.state_dict().values())) and not a.training


def test_unknown_teacher():
    with pytest.raises(ValueError, match="no teacher named 'glip'; known: world"): load_grounder('glip')

"The one-stage grounder: candidates, eyes and ears of other kinds, pictures of any size, phrases of any kind, and whether it listens to the phrase."
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from vlground.boxes import box_iou
from vlground.core import load_json
from vlground.grounder import (COCO_ANCHORS, FLICKR_ANCHORS, PAPER, WORLD, FusionScale, Grounded, GrounderConfig, OneStageGrounder, OneStageTeacher,
                               PhraseEncoder, ResnetPyramid, VectorEncoder, WorldPyramid, candidates, coordinate_map, decode, hits, into_square,
                               letterbox, out_of_square, phrase_ids, world_teacher)
from vlground.phrases import load_tokenizer
from vlground.scenes import TEACHER, example_scene, make_scene, render
from vlground.checkpoints import config_from
from vlground.world import short_labels


def cells_of(config):
    "Every candidate, one by one."
    found = []
    for number, stride in enumerate(config.strides):
        for w, h in config.anchors[3*number:3*number + 3]:
            shape = w*config.side/config.anchor_side, h*config.side/config.anchor_side
            found += [(x, y, *shape, stride) for y in range(config.side//stride) for x in range(config.side//stride)]
    return found


CELLS = cells_of(WORLD)
SMALL = GrounderConfig(side=64, width=16, head=8, hidden=12) # the published shape, narrower


BOXES = [[132.79, 152.41, 175.16, 188.35], [132.87, 151.09, 174.36, 190.74], [154.39, 40.7, 252.59, 143.3]]
SCORES = [0.2414, 0.7484, 0.9716]


@pytest.fixture(scope='module')
def teacher(): return world_teacher()


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


def answers_for(boxes):
    "Answers in which one candidate, the same for no two boxes alike, says the box, and says it surely."
    answers = torch.zeros(len(boxes), len(CELLS), 5)
    for row, (x1, y1, x2, y2) in enumerate(boxes):
        x, y, holding = (x1 + x2)/2, (y1 + y2)/2, []
        for number, (column, line, w, h, stride) in enumerate(CELLS):
            if column*stride <= x < (column + 1)*stride and line*stride <= y < (line + 1)*stride: holding.append(number)
        number = holding[row % len(holding)]
        column, line, w, h, stride = CELLS[number]
        def logit(share): return math.log(max(share, 1e-6)/max(1 - share, 1e-6))
        answers[row, number] = torch.tensor([logit(x/stride - column), logit(y/stride - line), math.log((x2 - x1)/w), math.log((y2 - y1)/h), 30.])
    return answers


# candidates and places

@pytest.mark.parametrize('config', [WORLD, PAPER, SMALL, GrounderConfig(anchors=FLICKR_ANCHORS, side=416)], ids=['world', 'paper', 'small', 'flickr'])
def test_candidates_are_every_cell_with_every_anchor(config):
    torch.testing.assert_close(candidates(config), torch.tensor(cells_of(config)).float())


def test_the_published_shape():
    assert PAPER == GrounderConfig() and len(candidates(PAPER)) == 4032
    assert (PAPER.width, PAPER.side, PAPER.place_weight, PAPER.longest, PAPER.strides) == (512, 256, 5., 20, (8, 16, 32))
    assert COCO_ANCHORS[0] == (10, 13) and COCO_ANCHORS[-1] == (373, 326) and FLICKR_ANCHORS[0] == (29, 26) and FLICKR_ANCHORS[-1] == (352, 294)
    areas = [w*h for w, h in COCO_ANCHORS]
    assert areas == sorted(areas) # the fine grid has the small ones


@pytest.mark.parametrize('wrong, words', [(dict(side=250), 'multiple of each stride'), (dict(anchors=COCO_ANCHORS[:8]), 'three anchors each'),
                                          (dict(anchors=((0, 5),)*9), 'above 0')])
def test_a_wrong_shape_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words): GrounderConfig(**wrong)


def test_a_shape_survives_json(tmp_path):
    from dataclasses import asdict

    from vlground.core import save_json
    save_json(asdict(SMALL), tmp_path/'shape.json')
    again = config_from(GrounderConfig, load_json(tmp_path/'shape.json'))
    assert torch.equal(candidates(again), candidates(SMALL))
    a, b = (OneStageGrounder(config, 20).state_dict() for config in (SMALL, again))
    assert {name: weight.shape for name, weight in a.items()} == {name: weight.shape for name, weight in b.items()}


@given(st.integers(1, 9), st.integers(1, 9))
def test_coordinate_map(height, width):
    found = coordinate_map(height, width)
    for row in range(height):
        for column in range(width):
            left, right, top, bottom = 2*column/width - 1, 2*(column + 1)/width - 1, 2*row/height - 1, 2*(row + 1)/height - 1
            expected = [left, top, right, bottom, (left + right)/2, (top + bottom)/2, 1/height, 1/width]
            torch.testing.assert_close(found[:, row, column], torch.tensor(expected))


@pytest.mark.parametrize('config', [WORLD, SMALL], ids=['world', 'paper'])
def test_the_network_answers_in_the_order_of_the_candidates(config):
    "With weights that give each anchor of each stride its own confidence, the answers line up with the candidates."
    model = OneStageGrounder(config, 20).eval()
    for number, scale in enumerate(model.scales):
        nn.init.zeros_(scale.fuse[-1].weight)
        scale.fuse[-1].bias.data = torch.tensor([[0., 0., 0., 0., 10.*number + anchor] for anchor in range(3)]).flatten()
    answers = model(torch.rand(1, 3, config.side, config.side), torch.tensor([[5, 6]]), torch.tensor([0]))[0, :, 4]
    for (*_, stride), confidence, number in zip(cells_of(config), answers.tolist(), range(len(answers))):
        scale = config.strides.index(stride)
        before = sum(3*(config.side//s)**2 for s in config.strides[:scale])
        assert confidence == 10*scale + (number - before)//(config.side//stride)**2


@given(st.lists(st.tuples(*[st.integers(0, 200)]*2, *[st.integers(4, 56)]*2).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])), min_size=1, max_size=4))
@settings(max_examples=20)
def test_what_a_candidate_says_is_decoded(boxes):
    "Whichever of the nine candidates that hold the centre says it."
    found, scores = decode(answers_for(boxes), WORLD)
    torch.testing.assert_close(found, torch.tensor(boxes).float(), atol=.01, rtol=1e-4)
    assert (scores > .999).all() and (scores <= 1).all()


@pytest.mark.parametrize('kind', [torch.bfloat16, torch.float16, torch.float64])
def test_decoding_does_not_need_full_precision(kind):
    box = [(150, 170, 190, 230)]
    found, scores = decode(answers_for(box).to(kind), WORLD)
    assert (found - torch.tensor(box)).abs().max() < .5 and found.dtype == (kind if kind == torch.float64 else torch.float32) and scores.isfinite().all()


# what the network is made of

def test_the_sum_of_three_maps_is_the_convolution_of_their_concatenation():
    torch.manual_seed(0)
    scale, x, vectors = FusionScale(10, SMALL).eval(), torch.randn(2, 10, 5, 7), torch.randn(2, 16)
    seen = nn.functional.normalize(scale.mapping(x), dim=1)
    joined = torch.cat([seen, vectors[:, :, None, None].expand(-1, -1, 5, 7), coordinate_map(5, 7).expand(2, -1, -1, -1)], 1)
    weight = torch.cat([scale.seen.weight, scale.said.weight[:, :, None, None], scale.where.weight], 1)
    expected = scale.fuse(nn.functional.conv2d(joined, weight)).view(2, 3, 5, 5, 7).permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(scale(scale.see(x), vectors, torch.arange(2)), expected, atol=1e-5, rtol=1e-4)


def test_the_published_layers():
    "512 wide: maps mapped by 1 x 1, then 1 x 1, 3 x 3, 1 x 1, 1 x 1 to 256 and the answers; the LSTM's last state of two directions."
    scale = FusionScale(1024, PAPER)
    assert scale.mapping[0].kernel_size == (1, 1)
    windows = [(layer.in_channels, layer.out_channels, layer.kernel_size[0]) for layer in scale.fuse.modules() if isinstance(layer, nn.Conv2d)]
    assert windows == [(512, 512, 3), (512, 512, 1), (512, 256, 1), (256, 15, 1)]
    assert scale.seen.in_channels + scale.said.in_features + scale.where.in_channels == 512 + 512 + 8
    text = PhraseEncoder(30, PAPER)
    assert text.mapping[0].in_features == 1024 and text.lstm.bidirectional and text.mapping[3].p == .1


@pytest.mark.parametrize('config', [WORLD, SMALL], ids=['mean of all words', 'last word'])
def test_a_phrase_does_not_depend_on_padding(config):
    torch.manual_seed(0)
    encoder = PhraseEncoder(40, config).eval()
    long, short = torch.tensor([[7, 8, 9, 10], [5, 6, 0, 0]]), torch.tensor([[5, 6]])
    torch.testing.assert_close(encoder(long)[1:], encoder(short))
    torch.testing.assert_close(encoder(long).norm(dim=1), torch.ones(2))
    assert not torch.allclose(encoder(torch.tensor([[5, 6]])), encoder(torch.tensor([[6, 5]]))) # order counts


@pytest.mark.parametrize('backbone', [WorldPyramid, lambda: ResnetPyramid('resnet18')], ids=['world', 'resnet'])
@pytest.mark.parametrize('text', ['lstm', 'vectors'])
def test_eyes_and_ears_can_be_exchanged(backbone, text):
    torch.manual_seed(0)
    eyes, vectors = backbone(), text == 'vectors'
    model = OneStageGrounder(SMALL, 20, eyes, VectorEncoder(6, SMALL.width) if vectors else None)
    texts = torch.randn(3, 6, requires_grad=True) if vectors else torch.tensor([[5, 6], [7, 0], [5, 6]])
    answers = model(torch.rand(2, 3, 64, 64), texts, torch.tensor([0, 0, 1]))
    assert answers.shape == (3, 3*(64 + 16 + 4), 5) and answers.isfinite().all()
    answers.square().sum().backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    if vectors: assert texts.grad is None # whoever made the vectors does not learn


def test_any_module_with_three_maps_will_do(tokenizer):
    class Eyes(nn.Module):
        channels = (3, 3, 3)
        def forward(self, x): return [nn.functional.avg_pool2d(x, stride) for stride in (8, 16, 32)]
    model = OneStageGrounder(SMALL, tokenizer.get_vocab_size(), Eyes())
    (answer,) = OneStageTeacher(model, lambda phrases: phrase_ids(phrases, tokenizer), 'x')([Image.new('RGB', (40, 64))], [['a dog']])
    assert isinstance(answer, Grounded)


def test_bert_vectors_from_outside():
    "The real model class with tiny random weights: the mean of the last four layers at [CLS]."
    transformers = pytest.importorskip('transformers', reason="BERT needs the extra: pip install 'vlground[hf]'")
    torch.manual_seed(0)
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=2000, hidden_size=24, num_hidden_layers=5, num_attention_heads=2, intermediate_size=32)).eval()
    tokenizer = load_tokenizer()
    tokenizer.enable_padding()
    def read(phrases):
        pieces = tokenizer.encode_batch(list(phrases))
        ids, mask = (torch.tensor([getattr(each, name) for each in pieces]) for name in ('ids', 'attention_mask'))
        with torch.no_grad(): states = bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        return torch.stack(states[-4:]).mean(0)[:, 0]
    model = OneStageGrounder(SMALL, text=VectorEncoder(24, SMALL.width))
    (first,), (second,) = (OneStageTeacher(model, read, 'bert')([render(example_scene('A'))], [phrases]) for phrases in (['a dog', 'the old house'], ['a dog']))
    torch.testing.assert_close(first.boxes[:1], second.boxes, atol=.05, rtol=1e-3) # padding is not read


# pictures of any size

@given(st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=25)
def test_letterbox_keeps_the_picture_whole_and_in_the_middle(width, height):
    square = letterbox(Image.new('RGB', (width, height), (255, 0, 0)), WORLD)
    assert square.pixels.shape == (3, 256, 256) and square.scale == 256/max(width, height) and square.size == (width, height)
    red = (square.pixels[0] == 1) & (square.pixels[1] == 0)
    y, x = red.nonzero(as_tuple=True)
    assert (x.min(), y.min()) == (square.left, square.top) and red.sum() == (x.max() - x.min() + 1)*(y.max() - y.min() + 1)
    assert abs((x.max() + 1 - x.min()) - width*square.scale) <= 1 and abs((y.max() + 1 - y.min()) - height*square.scale) <= 1
    assert abs(square.left - (255 - x.max())) <= 1 and abs(square.top - (255 - y.max())) <= 1
    torch.testing.assert_close(square.pixels[:, ~red], torch.tensor(WORLD.mean)[:, None].expand(3, int((~red).sum())))


def test_padding_is_nothing_to_the_network():
    "It has the mean colour, which normalising makes 0."
    square = letterbox(Image.new('RGB', (64, 8)), PAPER)
    mean, std = (torch.tensor(values)[:, None, None] for values in (PAPER.mean, PAPER.std))
    assert ((square.pixels - mean)/std)[:, :100].abs().max() < 1e-6


boxes_in = st.tuples(st.integers(1, 500), st.integers(1, 500), st.tuples(*[st.floats(0, 1)]*4))


@given(boxes_in)
def test_into_the_square_and_out_again(case):
    width, height, (a, b, c, d) = case
    box = torch.tensor([[min(a, c)*width, min(b, d)*height, max(a, c)*width, max(b, d)*height]], dtype=torch.float64)
    square = letterbox(Image.new('L', (width, height)), SMALL)
    torch.testing.assert_close(out_of_square(into_square(box, square), square), box, atol=1e-6, rtol=1e-6)
    wild = out_of_square(torch.tensor([[-50., -9, 300, 70]]), square)
    assert (wild >= 0).all() and (wild <= torch.tensor([width, height, width, height])).all()


class Says(nn.Module):
    "A network that says, whatever it is shown, that the box is here."
    def __init__(self, box):
        super().__init__()
        self.answers, self.config = nn.Parameter(answers_for([box])), WORLD

    def see(self, images): return images

    def answer(self, seen, texts, which): return self.answers.expand(len(texts), -1, -1)


def says(box): return OneStageTeacher(Says(box), lambda phrases: torch.zeros(len(phrases), 1), 'says-1')


@given(st.integers(20, 600), st.integers(20, 600), st.tuples(*[st.floats(.05, .95)]*4))
@settings(max_examples=25)
def test_boxes_come_back_in_the_pixels_of_the_picture(width, height, shares):
    (x1, x2), (y1, y2) = sorted(shares[:2]), sorted(shares[2:])
    box = (x1*width, y1*height, x2*width, y2*height)
    scale = 256/max(width, height)
    assume(min(box[2] - box[0], box[3] - box[1])*scale >= 4)
    picture = Image.new('RGB', (width, height))
    inside = into_square(torch.tensor([box]), letterbox(picture, WORLD))[0].tolist()
    (found,) = says(inside)([picture], [['a dog']])
    torch.testing.assert_close(found.boxes, torch.tensor([box]), atol=.1, rtol=1e-3)


def test_a_box_in_the_padding_is_not_given_out():
    "A wide picture has padding above and below, a tall one beside it: the phrase has no box there, and others keep their number."
    above = says((100, 10, 160, 50)) # the picture is at y from 96 to 160
    wide, square = Image.new('RGB', (400, 100)), Image.new('RGB', (256, 256))
    (none, some, empty) = above([wide, square, wide], [['a dog', 'a cat'], ['a dog'], []])
    assert none.boxes.shape == (0, 4) and none.scores.shape == (0,) and none.phrases.shape == (0,) and none.phrases.dtype == torch.int64
    assert some.boxes.shape == (1, 4) and len(empty.boxes) == 0
    (beside,) = says((2, 100, 40, 160))([Image.new('RGB', (100, 400))], [['a dog']])
    assert len(beside.boxes) == 0
    (partly,) = above([Image.new('RGB', (256, 200))], [['a dog']]) # y from 28
    torch.testing.assert_close(partly.boxes, torch.tensor([[100., 0, 160, 22]]), atol=.01, rtol=1e-3)


def test_phrases_keep_their_numbers_when_one_has_no_box():
    class Some(Says):
        def answer(self, seen, texts, which): # every second phrase is answered in the padding
            return torch.cat([self.answers if i % 2 else answers_for([(100, 110, 160, 150)]) for i in range(len(texts))])
    teacher = OneStageTeacher(Some((100, 10, 160, 50)), lambda phrases: torch.zeros(len(phrases), 1), 'some-1')
    (answer,) = teacher([Image.new('RGB', (400, 100))], [list('abcde')])
    assert answer.phrases.tolist() == [0, 2, 4] and len(answer.boxes) == len(answer.scores) == 3


@pytest.mark.parametrize('size', [(1, 1), (1, 90), (2000, 30), (256, 256), (30, 3000)])
def test_boxes_lie_in_the_picture_and_have_an_area(teacher, size):
    (answer,) = teacher([Image.new('RGB', size, (10, 200, 30))], [['a dog', 'the sky', 'a house']])
    boxes = answer.boxes
    assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= size[0]).all() and (boxes[:, [1, 3]] <= size[1]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert ((0 < answer.scores) & (answer.scores <= 1)).all() and len(answer.scores) == len(boxes) == len(answer.phrases)


@pytest.mark.parametrize('mode', ['L', 'P', 'RGBA', 'CMYK', '1', 'LA', 'I'])
def test_pictures_of_any_mode(teacher, mode):
    (answer,) = teacher([render(example_scene('A')).convert(mode)], [['the house']])
    assert answer.boxes.isfinite().all() and len(answer.boxes) == 1


# phrases of any kind, any number

def test_pictures_without_phrases(teacher):
    picture = render(make_scene(1, 1, TEACHER))
    none, some, again = teacher([picture]*3, [[], ['a dog', 'a cat'], []])
    assert none.boxes.shape == again.boxes.shape == (0, 4) and none.scores.shape == (0,) and some.boxes.shape == (2, 4) and some.phrases.tolist() == [0, 1]
    assert [answer.boxes.shape for answer in teacher([picture]*2, [[], []])] == [(0, 4), (0, 4)] and teacher([], []) == []


def test_a_list_of_phrases_for_each_picture(teacher):
    picture = render(make_scene(1, 1, TEACHER))
    with pytest.raises(ValueError, match='1 pictures, 2 lists of phrases'): teacher([picture], [['a dog'], ['a cat']])
    for phrases, told in ((['a dog'], 'a dog'), (['a dog', 'a cat'], 'a dog'), ([''], '')):
        with pytest.raises(ValueError, match=rf"expected a list of phrases for each picture, got a text; write \[\['{told}'\]\]"): teacher([picture], phrases)


@pytest.mark.parametrize('phrase', ['', ' ', '🐕', 'كلب أحمر', 'a\x00dog', '.*(?P<x>', 'dog '*3000, 'żółw', 'e\u0301te\u0301'])
def test_strange_phrases_get_a_box_and_change_nothing_else(teacher, phrase):
    picture = render(make_scene(1, 2, TEACHER))
    alone, both = teacher([picture, picture], [['a dog'], ['a dog', phrase]])
    assert both.boxes.shape == (2, 4) and both.boxes.isfinite().all() and both.scores.isfinite().all()
    torch.testing.assert_close(both.boxes[:1], alone.boxes, atol=.05, rtol=1e-3)


def test_an_answer_does_not_depend_on_the_company(teacher):
    scenes = [make_scene(4, i, TEACHER) for i in range(4)]
    phrases = [[text for text, _ in short_labels(scene)] for scene in scenes]
    pictures = [render(scene) for scene in scenes]
    together = teacher(pictures, phrases)
    few_at_once = OneStageTeacher(teacher.model, teacher.read, 'test', phrases_at_once=2, pictures_at_once=3)(pictures, phrases)
    for picture, each, answer, other in zip(pictures, phrases, together, few_at_once):
        (alone,) = teacher([picture], [each])
        for one in (alone, other):
            torch.testing.assert_close(answer.boxes, one.boxes, atol=.05, rtol=1e-3)
            torch.testing.assert_close(answer.scores, one.scores, atol=1e-3, rtol=1e-2)
            assert torch.equal(answer.phrases, one.phrases)


def test_ten_thousand_phrases_are_worked_through_in_pieces(tokenizer):
    "Never more at once than asked for, the picture is looked at once, and no phrase is lost."
    seen, asked = [], []
    class Counting(OneStageGrounder):
        def see(self, images): return seen.append(len(images)) or super().see(images)
        def answer(self, maps, texts, which): return asked.append(len(texts)) or super().answer(maps, texts, which)
    torch.manual_seed(0)
    model = Counting(GrounderConfig(side=32, width=8, head=0, hidden=4, strides=(8, 16, 32)), tokenizer.get_vocab_size())
    counting = OneStageTeacher(model, lambda phrases: phrase_ids(phrases, tokenizer), 'counting-1')
    words = ['dog', 'cat', 'a red house', 'sun']
    (answer,) = counting([Image.new('RGB', (32, 32))], [[words[i % 4] for i in range(10_000)]])
    assert seen == [1] and sum(asked) == 10_000 and max(asked) <= 2**14//8 and len(asked) > 1
    assert answer.phrases.tolist() == list(range(10_000))
    torch.testing.assert_close(answer.boxes[:4].repeat(2500, 1), answer.boxes, atol=1e-3, rtol=1e-3)


def test_many_pictures_are_worked_through_in_pieces(teacher):
    seen = []
    class Counting(Says):
        def see(self, images): return seen.append(len(images)) or images
    OneStageTeacher(Counting((100, 110, 160, 150)), lambda phrases: torch.zeros(len(phrases), 1), 'x')([Image.new('RGB', (9, 9))]*150, [['a dog']]*150)
    assert seen == [64, 64, 22]


def test_phrase_ids(tokenizer):
    ids = phrase_ids(['a red dog', 'dog', 'a '*99], tokenizer)
    assert ids.shape == (3, 16) and (ids[0] > 0).sum() == 3 and (ids[1] > 0).sum() == 1 and ids[0, 2] == ids[1, 0]
    assert phrase_ids(['a '*99], tokenizer, 20).shape == (1, 20)
    assert phrase_ids([], tokenizer).shape == (0, 1) and phrase_ids([], tokenizer).dtype == torch.int64


def test_a_grounder_without_words_is_refused():
    with pytest.raises(ValueError, match='give vocabulary, the number of word pieces, or a text encoder'): OneStageGrounder(WORLD)


# device and precision

def test_half_precision(teacher):
    "Under autocast, as on a GPU, the boxes are nearly the same; a model in bfloat16 or float16 works as well."
    picture, phrases = render(example_scene('A')), ['a small cat', 'the house', 'the sun']
    (full,) = teacher([picture], [phrases])
    with torch.autocast('cpu', torch.bfloat16): (mixed,) = teacher([picture], [phrases])
    low, half = (OneStageTeacher(world_teacher().model.to(kind), teacher.read, 'x')([picture], [phrases])[0] for kind in (torch.bfloat16, torch.float16))
    for answer in (mixed, low, half):
        assert answer.boxes.dtype == answer.scores.dtype == torch.float32 and box_iou(answer.boxes, full.boxes).diagonal().min() > .8


def test_a_broken_network_gives_no_boxes():
    teacher = says((100, 110, 160, 150))
    teacher.model.answers.data[:] = torch.nan
    (answer,) = teacher([Image.new('RGB', (256, 256))], [['a dog', 'a cat']])
    assert len(answer.boxes) == len(answer.scores) == len(answer.phrases) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no NVIDIA GPU')
def test_on_a_gpu(teacher):
    picture, phrases = render(example_scene('A')), ['a small cat', 'the house', 'the sun']
    (here,), (there,) = teacher([picture], [phrases]), world_teacher('cuda')([picture], [phrases])
    assert there.boxes.device.type == 'cpu' and box_iou(here.boxes, there.boxes).diagonal().min() > .95


def test_the_same_twice(teacher):
    picture = render(example_scene('B'))
    (a,), (b,) = (teacher([picture], [['a kid', 'the ball', 'a tree']]) for _ in range(2))
    assert all(map(torch.equal, a, b))


# what it has learnt

def test_the_weights_that_ship_say_what_they_always_said(teacher):
    "Boxes and scores of the running example as they were when the weights were made."
    (answer,) = teacher([render(example_scene('A'))], [['a red dog', 'a small cat', 'the old house']])
    assert teacher.name == 'world-one-stage-1'
    torch.testing.assert_close(answer.boxes, torch.tensor(BOXES), atol=.05, rtol=0)
    torch.testing.assert_close(answer.scores, torch.tensor(SCORES), atol=.005, rtol=0)


def test_it_points_at_what_the_phrase_says(teacher):
    "Right about the labels of unseen scenes, and much worse when the labels of a scene change places: it is the words that it follows."
    scenes = [make_scene(99, i, TEACHER) for i in range(40)]
    labels = [short_labels(scene) for scene in scenes]
    answers = teacher([render(scene) for scene in scenes], [[text for text, _ in each] for each in labels])
    def accuracy(shift):
        rows = [(answer, scene, each) for answer, scene, each in zip(answers, scenes, labels) if len(each) > 1]
        truth = [torch.tensor([scene.things[each[(n + shift) % len(each)][1]].box for n in range(len(each))]) for _, scene, each in rows]
        return hits([answer for answer, _, _ in rows], truth).float().mean()
    assert accuracy(0) > .5 and accuracy(1) < accuracy(0)/3


# measuring

def hits_by_hand(answers, truth, threshold):
    found = []
    for answer, boxes in zip(answers, truth):
        for phrase, true in enumerate(boxes):
            mine = [(float(score), box) for box, score, which in zip(*answer) if which == phrase]
            if not mine: found.append(False)
            else: found.append(float(box_iou(max(mine, key=lambda pair: pair[0])[1][None], true[None])) > threshold)
    return found


@given(st.integers(0, 10**6), st.floats(.1, .9))
@settings(max_examples=40)
def test_hits_are_those_of_the_surest_boxes(seed, threshold):
    chance = random.Random(seed)
    def box(): return [chance.randint(0, 9), chance.randint(0, 9), chance.randint(10, 20), chance.randint(10, 20)]
    answers, truth = [], []
    for _ in range(chance.randint(0, 3)):
        p, n = chance.randint(0, 4), chance.randint(0, 6)
        truth.append(torch.tensor([box() for _ in range(p)], dtype=torch.float32).view(-1, 4))
        n = n if p else 0
        scores = torch.tensor([s/100 for s in chance.sample(range(100), n)])
        phrases = torch.tensor([chance.randrange(p) for _ in range(n)], dtype=torch.int64)
        answers.append(Grounded(torch.tensor([box() for _ in range(n)], dtype=torch.float32).view(-1, 4), scores, phrases))
    found = hits(answers, truth, threshold)
    assert found.dtype == torch.bool and found.tolist() == hits_by_hand(answers, truth, threshold)


def test_answers_that_do_not_fit_the_truth_are_refused():
    box = torch.tensor([[0., 0, 9, 9]])
    def says(phrase): return Grounded(box, torch.ones(1), torch.tensor([phrase]))
    with pytest.raises(ValueError, match='2 answers, 1 tensors of true boxes'): hits([says(0)]*2, [box])
    for phrase in (1, -1):
        with pytest.raises(ValueError, match=f'picture 1: a box for phrase {phrase}, and 1 true boxes'): hits([says(0), says(phrase)], [box]*2)


def test_scores_tell_right_from_wrong(teacher):
    scenes = [make_scene(98, i, TEACHER) for i in range(40)]
    labels = [short_labels(scene) for scene in scenes]
    answers = teacher([render(scene) for scene in scenes], [[text for text, _ in each] for each in labels])
    right = hits(answers, [torch.tensor([scene.things[i].box for _, i in each]).view(-1, 4) for scene, each in zip(scenes, labels)]).numpy()
    scores = torch.cat([answer.scores for answer in answers]).numpy()
    assert np.mean(scores[right]) > np.mean(scores[~right]) + .1

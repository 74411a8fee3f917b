"Teachers with an open vocabulary: which words were asked, whose box it is, where it lies; by planted answers, by the library's own way, and on pictures and captions of any kind."
import json
import pickle
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.ops import box_iou
from transformers import AutoProcessor, Florence2ForConditionalGeneration, GroundingDinoForObjectDetection, Owlv2ForObjectDetection

from vlground.checks_labels import untrained_checkpoint
from vlground.grounder import Grounded, world_teacher
from vlground.teachers import (Florence2Teacher, GroundingDinoTeacher, Owlv2Teacher, askable, best_boxes, build_prompt, find_signs, load_teacher, location_boxes,
                               phrase_scores, pixel_boxes, split_passes, teacher_faults, token_rows)

KINDS = ('grounding-dino', 'owlv2', 'florence-2')
every_kind = pytest.mark.parametrize('kind', KINDS)
SEPARATORS = {101, 102, 1012, 1029} # [CLS], [SEP], full stop and question mark in BERT's vocabulary
ODD = ['', ' ', '.', '???', 'a st. bernard', 'is it a dog? a cat.', '[SEP] dog [CLS]', '<image> <loc_5> dog', '<|endoftext|> cat', '<s></s><pad><OCR>', 'dog\x00cat', '🐕 a 🐈‍⬛',
       'كلب أحمر', 'e\u0301 a\u0308 \u200b\u0301', '\u0301', 'a'*500, 'a red dog '*5000, '.*+?^${}()|[]\\', 'DOG', '狗', '\t\n a dog \n']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    "An untrained checkpoint of each kind."
    return {kind: untrained_checkpoint(kind, tmp_path_factory.mktemp('hub')/kind) for kind in KINDS}


@pytest.fixture(scope='module')
def teachers(checkpoints): return {kind: load_teacher(f'{kind}:{folder}') for kind, folder in checkpoints.items()}


def noise(width, height, seed=0, mode='RGB'):
    "A picture of random blocks."
    pixels = torch.randint(256, (6, 6, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).resize((width, height), Image.Resampling.NEAREST).convert(mode)


def with_model(teacher, model, **changes):
    "The same teacher with another network behind it."
    settings = dict(boxes_per_phrase=teacher.boxes_per_phrase, floor=teacher.floor, at_once=teacher.at_once) | changes
    return type(teacher)(model, teacher.processor, 'planted', **settings)


class Planted(nn.Module):
    "A network that says what it is told, and remembers what it was asked."
    def __init__(self, real, says):
        super().__init__()
        self.config, self.device, self.dtype, self.says, self.asked = real.config, torch.device('cpu'), torch.float32, says, []

    def forward(self, **inputs):
        self.asked.append(inputs)
        return self.says(inputs)


# shares, prompts, scores

@given(st.lists(st.tuples(*[st.floats(0, 1)]*4), max_size=5), st.integers(1, 2000), st.integers(1, 2000))
def test_pixel_boxes(shares, width, height):
    found = pixel_boxes(torch.tensor(shares).reshape(-1, 4), (width, height))
    assert found.shape == (len(shares), 4) and found.dtype == torch.float32
    for (cx, cy, w, h), box in zip(shares, found.tolist()):
        assert box == pytest.approx([(cx - w/2)*width, (cy - h/2)*height, (cx + w/2)*width, (cy + h/2)*height], abs=.01)


def greedy(boxes, scores, size, most, floor, same):
    "What `best_boxes` should give, one box at a time."
    rows = []
    for phrase in range(scores.shape[1]):
        taken = []
        for i in sorted(range(len(boxes)), key=lambda i: -scores[i, phrase]):
            box = [min(max(v, 0.), float(size[k % 2])) for k, v in enumerate(boxes[i].tolist())]
            if scores[i, phrase] > floor and box[2] > box[0] and box[3] > box[1]:
                if all(box_iou(torch.tensor([box]), torch.tensor([other]))[0, 0] <= same for other, _ in taken): taken.append((box, scores[i, phrase].item()))
        rows += [(phrase, *each) for each in taken[:most]]
    return rows


@given(st.integers(0, 12), st.integers(0, 4), st.integers(0, 10**6), st.sampled_from([1, 2, 5]), st.sampled_from([0., .05, .4]))
@settings(max_examples=60)
def test_best_boxes_are_those_of_a_loop(n, p, seed, most, floor):
    generator = torch.Generator().manual_seed(seed)
    centres, sides = 120*torch.rand(n, 2, generator=generator) - 10, 60*torch.rand(n, 2, generator=generator) - 5 # some outside, some reversed
    boxes = torch.cat([centres, centres + sides], 1)
    boxes = torch.cat([boxes, boxes[:n//2] + .5]) # near twins
    scores = torch.rand(len(boxes), p, generator=generator)
    found = best_boxes(boxes, scores, (100, 80), most, floor, .8)
    expected = greedy(boxes, scores, (100, 80), most, floor, .8)
    assert isinstance(found, Grounded) and found.phrases.dtype == torch.int64
    assert found.phrases.tolist() == [phrase for phrase, *_ in expected]
    torch.testing.assert_close(found.boxes, torch.tensor([box for _, box, _ in expected]).reshape(-1, 4))
    torch.testing.assert_close(found.scores, torch.tensor([score for *_, score in expected]))


def test_best_boxes_drop_what_is_no_box():
    nan = float('nan')
    boxes = torch.tensor([[nan, 0, 9, 9], [5, 5, 5, 9], [9, 9, 5, 5], [-9, -9, -1, -1], [200, 5, 300, 9], [1, 2, 3, 4]])
    found = best_boxes(boxes, torch.tensor([[.9]]*5 + [[.1]]), (100, 100))
    assert found.boxes.tolist() == [[1, 2, 3, 4]]
    assert not len(best_boxes(boxes, torch.full((6, 1), nan), (100, 100)).boxes)


@given(st.lists(st.text(st.characters(codec='utf-8'), max_size=30) | st.sampled_from(ODD), max_size=6))
@settings(max_examples=150)
def test_every_phrase_has_its_own_tokens_in_the_prompt(teachers, phrases):
    "Whatever a caption holds: the tokens of a phrase are those that it has alone, and the only separators are ours."
    tokenizer = teachers['grounding-dino'].tokenizer
    texts, counts = askable(phrases, tokenizer, teachers['grounding-dino'].signs, 20)
    texts = [text for text, count in zip(texts, counts) if count]
    prompt, spans = build_prompt(texts)
    assert [prompt[start:end] for start, end in spans] == texts
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    ids, rows = torch.tensor(encoded['input_ids']), token_rows(torch.tensor(encoded['offset_mapping']), spans)
    assert rows.shape == (len(texts), len(ids)) and (rows.sum(0) <= 1).all()
    for text, row, count in zip(texts, rows, filter(None, counts)):
        assert ids[row].tolist() == tokenizer(text, add_special_tokens=False)['input_ids'] and row.sum() == count <= 20
        assert not SEPARATORS & set(ids[row].tolist())
    assert sum(id in SEPARATORS for id in ids.tolist()) == 2 + len(texts)


def test_signs_are_those_of_the_tokenizer_the_added_and_ours_the_longest_first(checkpoints):
    tokenizer = AutoProcessor.from_pretrained(checkpoints['grounding-dino']).tokenizer
    tokenizer.add_tokens(['<added>'])
    signs = find_signs(tokenizer, ('<a', '<ab>', '.*'))
    assert signs.sub('-', '[SEP]x<added>x<ab>x<ax.*x..') == '-x-x-x-x-x..'


@every_kind
def test_askable_phrases_hold_no_signs_and_are_not_moved(teachers, kind):
    teacher = teachers[kind]
    texts, counts = askable(ODD, teacher.tokenizer, teacher.signs, teacher.longest)
    special = set(teacher.tokenizer.all_special_ids) - {teacher.tokenizer.unk_token_id}
    for phrase, text, count in zip(ODD, texts, counts):
        assert len(text) <= len(phrase) and all(a == b or b == ' ' for a, b in zip(phrase, text))
        assert not special & set(teacher.tokenizer(text, add_special_tokens=False)['input_ids'])
        assert count <= teacher.longest and (count > 0 or not text.strip() or kind == 'grounding-dino')
    assert counts[0] == counts[1] == 0 and counts[ODD.index('DOG')] > 0


@given(st.integers(0, 5), st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=4), st.integers(0, 10**6))
def test_phrase_scores_are_means_of_sigmoids(n, rows, seed):
    logits = 5*torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    logits[:, 5] = -torch.inf # padding
    found = phrase_scores(logits.half(), torch.tensor(rows, dtype=torch.bool).reshape(-1, 6))
    assert found.shape == (n, len(rows)) and found.dtype == torch.float32
    for i in range(n):
        for j, row in enumerate(rows):
            values = [1/(1 + 2.718281828459045**-x) for x, mine in zip(logits[i].tolist(), row) if mine and x > -1e9] + [0.]*(row[5])
            assert found[i, j].item() == pytest.approx(sum(values)/len(values) if values else 0, abs=5e-3)


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(1, 40))
@example([3, 5, 4, 4], 8)
def test_split_passes(costs, room):
    passes = split_passes(costs, room)
    assert [number for some in passes for number in some] == list(range(len(costs))) and all(passes)
    assert all(len(some) == 1 or sum(costs[number] for number in some) <= room for some in passes)
    # none of them could have taken the next phrase too
    assert all(sum(costs[number] for number in some) + costs[after[0]] > room for some, after in zip(passes, passes[1:]))


# Grounding DINO

def fires_on(positions):
    "Box k fires on the k-th token of each text and on no other; it lies in the k-th column of the picture."
    def says(inputs):
        (b, t), n = inputs['input_ids'].shape, positions
        logits = torch.full((b, n, 32), -torch.inf)
        logits[:, :, :t] = torch.where(torch.arange(n)[:, None] == torch.arange(t), 9., -9.)
        boxes = torch.stack([torch.tensor([(k + .5)/n, .5, 1/n, .5]) for k in range(n)]).expand(b, n, 4)
        return SimpleNamespace(logits=logits, pred_boxes=boxes)
    return says


def columns(answer, width, positions): return [round(box[0].item()*positions/width) for box in answer.boxes]


def test_a_phrase_gets_the_boxes_of_its_own_tokens(teachers):
    real = teachers['grounding-dino']
    network = Planted(real.model, fires_on(32))
    asked = [['a red ball', 'ball', 'a red ball', 'two kids'], [], ['the old house.']]
    answers = with_model(real, network, floor=.1)([noise(320, 64), noise(64, 64), noise(640, 200)], asked)
    assert len(network.asked) == 1 and network.asked[0]['input_ids'].shape[0] == 2 # the picture without phrases is not looked at
    # [CLS] a red ball . ball . a red ball . two kid ##s . [SEP]
    first = sorted(zip(answers[0].phrases.tolist(), columns(answers[0], 320, 32)))
    assert first == [(0, 1), (0, 2), (0, 3), (1, 5), (2, 7), (2, 8), (2, 9), (3, 11), (3, 12), (3, 13)]
    for phrase, score in zip(answers[0].phrases, answers[0].scores): assert score.item() == pytest.approx(1 if phrase == 1 else 1/3, abs=.01)
    assert not len(answers[1].boxes)
    assert sorted(columns(answers[2], 640, 32)) == [1, 2, 3] and answers[2].boxes[0, 1::2].tolist() == [50, 150]


def test_what_does_not_fit_goes_into_another_pass(teachers):
    "30 tokens fit beside the ends; each phrase of three costs four."
    real, phrases = teachers['grounding-dino'], ['a red ball', '...', *['the small dog']*9, 'cat']
    network = Planted(real.model, fires_on(32))
    answer, = with_model(real, network, floor=.3, at_once=1)([noise(320, 64)], [phrases])
    assert [inputs['input_ids'].shape[1] for inputs in network.asked] == [30, 16] # 7 phrases of four tokens and two ends; 3 phrases and 'cat'
    assert len(network.asked) == 2 and (network.asked[0]['input_ids'].shape[1] - 2)//4 == 7
    by_phrase = {number: sorted(column for phrase, column in zip(answer.phrases.tolist(), columns(answer, 320, 32)) if phrase == number) for number in range(12)}
    assert by_phrase[0] == [1, 2, 3] and by_phrase[1] == [] and by_phrase[2] == [5, 6, 7] and by_phrase[7] == [25, 26, 27]
    assert by_phrase[8] == [1, 2, 3] and by_phrase[10] == [9, 10, 11] and by_phrase[11] == [13]


@pytest.mark.parametrize('size', [(96, 64), (64, 96), (300, 100), (64, 64)])
def test_grounding_dino_puts_boxes_where_the_library_does(teachers, size):
    teacher, image = with_model(teachers['grounding-dino'], teachers['grounding-dino'].model, boxes_per_phrase=99), noise(*size, seed=3)
    answer, = teacher([image], [['dog']]) # one token: its score is the library's largest over all tokens, unless a special token is larger
    inputs = teacher.processor(images=image, text='dog.', return_tensors='pt')
    with torch.no_grad(): output = teacher.model(**inputs)
    theirs = teacher.processor.post_process_grounded_object_detection(output, inputs['input_ids'], 0., .25, [image.size[::-1]])[0]['boxes']
    expected = best_boxes(theirs, output.logits[0, :, 1:2].sigmoid(), image.size, 99)
    assert len(answer.boxes) and torch.allclose(answer.boxes, expected.boxes, atol=.01) and torch.allclose(answer.scores, expected.scores, atol=1e-5)


# OWLv2

@pytest.mark.parametrize('size', [(200, 100), (100, 200), (150, 150), (640, 427)])
def test_owlv2_undoes_its_square(teachers, size):
    "A network that finds a thing at known pixels of the square: the box is at these pixels of the picture."
    width, height = size
    boxes, side = [(10, 20, 60, 90), (5, 5, 50, 40), (width - 30, height - 30, width + 30, height + 30)], max(size)
    def says(inputs):
        shares = torch.tensor([[(x1 + x2)/2/side, (y1 + y2)/2/side, (x2 - x1)/side, (y2 - y1)/side] for x1, y1, x2, y2 in boxes])
        return SimpleNamespace(pred_boxes=shares[None], logits=torch.tensor([[[9., -9], [-9, 9], [8, -9]]]))
    answer, = with_model(teachers['owlv2'], Planted(teachers['owlv2'].model, says))([noise(*size)], [['a cat', 'a dog']])
    assert answer.phrases.tolist() == [0, 0, 1]
    expected = torch.tensor([boxes[0], (width - 30, height - 30, width, height), boxes[1]]).float()
    torch.testing.assert_close(answer.boxes, expected, atol=.01, rtol=0)


def test_owlv2_with_different_numbers_of_phrases(teachers):
    "Column k of a picture's logits is its k-th phrase; the columns that fill up short lists are nobody's."
    asked = [['a cat', 'a dog', 'a cat'], ['a dog'], [], ['...']]
    real = teachers['owlv2']
    def says(inputs):
        b, q = len(inputs['pixel_values']), len(inputs['input_ids'])//len(inputs['pixel_values'])
        assert inputs['input_ids'].shape[1] == 16
        firsts = inputs['input_ids'].reshape(b, q, 16)
        logits = torch.stack([torch.full((3, q), -9.) for _ in range(b)])
        for i in range(b):
            for k in range(q): logits[i, k, k] = 9.
        return SimpleNamespace(logits=logits, pred_boxes=torch.tensor([[.1, .1, .1, .1], [.3, .3, .1, .1], [.5, .5, .1, .1]]).expand(b, 3, 4), firsts=firsts)
    network = Planted(real.model, says)
    answers = with_model(real, network)([noise(100, 100)]*4, asked)
    assert [answer.phrases.tolist() for answer in answers] == [[0, 1, 2], [0], [], [0]]
    assert [answer.boxes[:, 0].round().tolist() for answer in answers] == [[5, 25, 45], [5], [], [5]]
    ids = network.asked[0]['input_ids'].reshape(3, 3, 16)
    assert torch.equal(ids[0, 0], ids[0, 2]) and torch.equal(ids[0, 1], ids[1, 0]) and not torch.equal(ids[0, 0], ids[0, 1])


@pytest.mark.parametrize('size', [(96, 64), (64, 96), (64, 64)])
def test_owlv2_puts_boxes_where_the_library_does(teachers, size):
    "The library gives each box the phrase that it answers best; of ours, those must be the same."
    teacher, image, asked = with_model(teachers['owlv2'], teachers['owlv2'].model, boxes_per_phrase=99), noise(*size, seed=5), ['a red dog', 'cat']
    answer, = teacher([image], [asked])
    inputs = teacher.processor(images=image, text=[asked], return_tensors='pt')
    with torch.no_grad(): output = teacher.model(**inputs)
    theirs = teacher.processor.post_process_grounded_object_detection(output, 0., [image.size[::-1]])[0]
    scores = torch.zeros(len(theirs['scores']), 2)
    scores[torch.arange(len(scores)), theirs['labels']] = theirs['scores']
    expected = best_boxes(theirs['boxes'], scores, image.size, 99, same=1.)
    assert len(expected.boxes)
    for box, score, phrase in zip(*expected):
        surer = answer.boxes[(answer.phrases == phrase) & (answer.scores >= score - 1e-4)]
        assert box_iou(box[None], surer).max() > .8 # the same box, or a surer twin of it


# Florence-2

def test_location_boxes_by_hand():
    beliefs = torch.zeros(12, 1000)
    written = [None, 100, 200, 300, 400, 500, 600, None, 10, 20, 30, 40]
    for token, place in enumerate(written):
        if place is not None: beliefs[token, place - 5:place + 5] = .08 # ten places of .08 within reach, and twenty more of .01 out of it
    beliefs[4, 400 - 10:400 + 11] = .01
    boxes, scores = location_boxes(written, beliefs)
    torch.testing.assert_close(boxes, torch.tensor([[.1005, .2005, .3005, .4005], [.0105, .0205, .0305, .0405]]))
    assert scores.tolist() == pytest.approx([(.8**3*.21)**.25, .8], rel=1e-5)
    for nothing in ([], [None, None], [1, 2, 3, None, 4]): assert [len(part) for part in location_boxes(nothing, torch.zeros(len(nothing), 1000))] == [0, 0]
    # at the edge of the picture half of the places are missing
    assert location_boxes([0, 0, 999, 999], torch.full((4, 1000), .001))[1].item() == pytest.approx(.011)


class Writes(nn.Module):
    "A Florence-2 that writes what it is told, each token with a chance of one half."
    def __init__(self, real, answers):
        super().__init__()
        self.config, self.device, self.dtype, self.answers, self.questions = real.config, torch.device('cpu'), torch.float32, answers, 0
        self.embedding = nn.Embedding(real.config.text_config.vocab_size, 4)

    def get_image_features(self, pictures): return torch.zeros(len(pictures), 5, 4)
    def get_input_embeddings(self): return self.embedding
    def get_encoder(self): return lambda inputs_embeds, attention_mask: inputs_embeds

    def generate(self, encoder_outputs, **settings):
        some = self.answers[self.questions:self.questions + len(encoder_outputs)]
        self.questions += len(some)
        longest = max(map(len, some))
        tokens = torch.tensor([[2, *answer, *[1]*(longest - len(answer))] for answer in some])
        v = self.config.text_config.vocab_size
        logits = torch.zeros(longest, len(some), v).scatter(2, tokens[:, 1:].T[:, :, None], torch.log(torch.tensor(v - 1.)).item())
        return SimpleNamespace(sequences=tokens, logits=tuple(logits))


def test_florence_reads_boxes_out_of_words(teachers):
    real = teachers['florence-2']
    def ids(text): return real.tokenizer(text, add_special_tokens=False)['input_ids']
    answers = [ids('<s>a dog<loc_100><loc_200><loc_500><loc_600><loc_0><loc_0><loc_999><loc_999></s>'), ids('<s>nothing</s>'),
               ids('<s>cat<loc_1><loc_2><loc_3></s>'), ids('<s>stop<poly><loc_1><loc_2><loc_300><loc_400><loc_5><loc_6></poly></s>'), ids('<s><loc_500><loc_600><loc_100><loc_200></s>')]
    network = Writes(real.model, answers)
    found = with_model(real, network, at_once=1)([noise(200, 100), noise(100, 100), noise(100, 300)], [['a dog', 'x', 'cat'], [], ['stop', 'reversed']])
    assert network.questions == 5
    assert found[0].phrases.tolist() == [0, 0] and not len(found[1].boxes) and not len(found[2].boxes)
    order = found[0].boxes[:, 0].argsort(descending=True)
    torch.testing.assert_close(found[0].boxes[order], torch.tensor([[20.1, 20.05, 100.1, 60.05], [.1, .05, 199.9, 99.95]]), atol=1e-3, rtol=0)
    n = real.model.config.text_config.vocab_size
    assert found[0].scores[order[0]].item() == pytest.approx(.5 + 20*.5/(n - 1), rel=1e-3) # the place itself, and twenty about it


def test_florence_is_asked_as_the_library_would_ask_it(teachers, monkeypatch):
    "Token for token the same is written, for phrases of different lengths about pictures of different shapes."
    teacher, wrote = teachers['florence-2'], []
    images, asked = [noise(120, 80, 1), noise(50, 90, 2)], [['a dog', 'the old house by the sea', 'cat'], ['dog', 'a']]
    pairs = [(image, phrase) for image, each in zip(images, asked) for phrase in each]
    inputs = teacher.processor(images=[image for image, _ in pairs], text=[f'<OPEN_VOCABULARY_DETECTION>{phrase}' for _, phrase in pairs], padding=True, return_tensors='pt')
    theirs = teacher.model.generate(**inputs, num_beams=1, do_sample=False, early_stopping=False, max_new_tokens=48 + 4*teacher.boxes_per_phrase)
    real = teacher.model.generate
    monkeypatch.setattr(teacher.model, 'generate', lambda **settings: wrote.append(real(**settings)) or wrote[-1])
    teacher(images, asked)
    assert len(wrote) == 1 and torch.equal(wrote[0].sequences, theirs)


@given(st.lists(st.lists(st.integers(0, 999), min_size=4, max_size=4), max_size=4), st.integers(40, 700), st.integers(40, 700))
@settings(max_examples=40)
def test_florences_boxes_are_those_of_the_librarys_post_processing(teachers, boxes, width, height):
    "To a pixel: the library rounds down to whole ones."
    teacher = teachers['florence-2']
    text = 'a dog' + ''.join(f'<loc_{place}>' for box in boxes for place in box)
    network = Writes(teacher.model, [teacher.tokenizer(f'<s>{text}</s>', add_special_tokens=False)['input_ids']])
    answer, = with_model(teacher, network, boxes_per_phrase=9)([noise(width, height)], [['a dog']])
    theirs = torch.tensor(teacher.processor.post_process_generation(text, task='<OPEN_VOCABULARY_DETECTION>', image_size=(width, height))['<OPEN_VOCABULARY_DETECTION>']['bboxes']).reshape(-1, 4).float()
    real = [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes if x1 < x2 and y1 < y2]
    assert len(answer.boxes) <= len(real) and (len(answer.boxes) > 0) == (len(real) > 0)
    for box in answer.boxes: assert ((theirs <= box + 1e-3) & (box < theirs + 1 + 1e-3)).all(1).any()


# all of them

def assert_sound(answers, images, asked):
    assert len(answers) == len(images)
    for answer, image, each in zip(answers, images, asked):
        boxes, scores, phrases = answer
        assert boxes.shape == (len(scores), 4) and len(phrases) == len(scores) and boxes.dtype == scores.dtype == torch.float32 and phrases.dtype == torch.int64
        assert boxes.isfinite().all() and (boxes >= 0).all() and (boxes <= torch.tensor([*image.size, *image.size])).all() and (boxes[:, 2:] > boxes[:, :2]).all()
        assert ((scores > 0) & (scores <= 1)).all() and ((phrases >= 0) & (phrases < len(each))).all()


@pytest.mark.fault(9)
@every_kind
def test_odd_captions_and_odd_pictures(teachers, kind):
    images = [noise(64, 48), noise(1, 1), noise(3, 3), noise(400, 4), noise(4, 401), noise(33, 90, mode='L'), noise(50, 50, mode='P')]
    asked = [ODD, ['a dog'], ODD[:3], ['a dog', ''], ['a dog'], [], ['dog']*70]
    answers = teachers[kind](images, asked)
    assert_sound(answers, images, asked)
    blank = [number for number, phrase in enumerate(ODD) if not phrase.strip()]
    assert not set(blank) & set(answers[0].phrases.tolist()) and not len(answers[5].boxes)
    for image in images: assert_sound(teachers[kind]([image], [['a dog']]), [image], [['a dog']]) # without a larger one beside it in the batch
    assert teachers[kind]([], []) == [] and [len(answer.boxes) for answer in teachers[kind](images[:2], [[], []])] == [0, 0]


@every_kind
def test_an_answer_does_not_depend_on_the_batch(teachers, kind):
    "Pictures of one size, other pictures beside them, other numbers of phrases, batches of other sizes."
    images, asked = [noise(80, 64, seed) for seed in range(5)], [['a dog'], ['a cat', 'the old house', 'dog'], [], ['dog', 'a'], ['a red ball']]
    together = teachers[kind](images, asked)
    alone = [teachers[kind]([image], [each])[0] for image, each in zip(images, asked)]
    pairs = with_model(teachers[kind], teachers[kind].model, at_once=2)(images, asked)
    assert any(len(answer.boxes) for answer in together)
    for other in (alone, pairs):
        for a, b in zip(together, other):
            assert a.phrases.tolist() == b.phrases.tolist()
            torch.testing.assert_close(a.boxes, b.boxes, atol=.05, rtol=0)
            torch.testing.assert_close(a.scores, b.scores, atol=1e-3, rtol=0)


@every_kind
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_runs_and_gives_sound_float32_answers(teachers, kind, dtype):
    images, asked = [noise(96, 64), noise(64, 96)], [['a red dog', 'cat'], ['dog']]
    answers = with_model(teachers[kind], teachers[kind].model, dtype=dtype)(images, asked)
    assert_sound(answers, images, asked)
    if kind == 'owlv2' and dtype == torch.float16: # the others choose among near ties, which half precision may break the other way
        teacher = teachers[kind]
        with torch.no_grad():
            full, half = (list(each.ask(images, asked)) for each in (teacher, with_model(teacher, teacher.model, dtype=dtype)))
        for (boxes, scores), (true, sure) in zip(half, full):
            torch.testing.assert_close(boxes, true, atol=1, rtol=0)
            torch.testing.assert_close(scores, sure, atol=.01, rtol=0)


def test_a_gpu_means_half_precision_and_a_cpu_does_not(teachers):
    real = teachers['owlv2']
    network = Planted(real.model, None)
    assert with_model(real, network).dtype == torch.float32
    network.device = torch.device('cuda')
    assert with_model(real, network).dtype == torch.float16 and with_model(real, network, dtype=torch.float32).dtype == torch.float32


def test_nan_and_lack_of_memory_are_told(teachers):
    def nan(inputs): return SimpleNamespace(pred_boxes=torch.rand(1, 3, 4), logits=torch.full((1, 3, 1), float('nan')))
    with pytest.raises(ValueError, match='planted: the network answered NaN in torch.float32; build the teacher with dtype=torch.float32'):
        with_model(teachers['owlv2'], Planted(teachers['owlv2'].model, nan))([noise(64, 64)], [['a dog']])
    def full(inputs): raise torch.OutOfMemoryError('CUDA out of memory')
    with pytest.raises(RuntimeError, match='no memory for 1 passes at once: lower the batch size'):
        with_model(teachers['owlv2'], Planted(teachers['owlv2'].model, full))([noise(64, 64)], [['a dog']])


# by name

def test_the_name_says_which_weights(checkpoints, teachers, tmp_path):
    "A copy elsewhere has the same name; other weights under the same name have another."
    copy = shutil.copytree(checkpoints['owlv2'], tmp_path/'elsewhere'/'owlv2')
    (copy/'README.md').write_text('a note')
    assert load_teacher(f'owlv2:{copy}').name == teachers['owlv2'].name and teachers['owlv2'].name.startswith('owlv2:owlv2@')
    other = load_teacher(f'owlv2:{untrained_checkpoint("owlv2", tmp_path/"other"/"owlv2", seed=1)}')
    assert other.name != teachers['owlv2'].name and other.name.startswith('owlv2:owlv2@')
    assert str(tmp_path) not in other.name


@every_kind
def test_a_folder_is_loaded_and_answers_alike(checkpoints, teachers, kind):
    architecture = {'grounding-dino': GroundingDinoForObjectDetection, 'owlv2': Owlv2ForObjectDetection, 'florence-2': Florence2ForConditionalGeneration}[kind]
    ours = {'grounding-dino': GroundingDinoTeacher, 'owlv2': Owlv2Teacher, 'florence-2': Florence2Teacher}[kind]
    built = ours(architecture.from_pretrained(checkpoints[kind]), AutoProcessor.from_pretrained(checkpoints[kind]), 'built')
    image = noise(80, 64, 4)
    for a, b in zip(built([image], [['a dog', 'cat']])[0], teachers[kind]([image], [['a dog', 'cat']])[0]): assert torch.equal(a, b)
    assert teachers[kind].model.dtype == torch.float32 and not teachers[kind].model.training


@pytest.fixture
def hub(monkeypatch, tmp_path):
    "An empty cache, and a hub that nobody answers for."
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', 'http://127.0.0.1:9')
    return tmp_path/'cache'


@pytest.mark.fault(18)
@every_kind
def test_without_weights_or_network_one_sentence_says_what_to_run(hub, kind):
    usual = {'grounding-dino': 'IDEA-Research/grounding-dino-tiny', 'owlv2': 'google/owlv2-base-patch16-ensemble', 'florence-2': 'florence-community/Florence-2-base'}[kind]
    with pytest.raises(FileNotFoundError, match=f'{kind}: {usual} is not on this machine and cannot be fetched .*hf download {usual}.*{kind}:FOLDER'): load_teacher(kind)


def test_what_was_fetched_is_taken_without_a_network_and_named_by_its_commit(hub, checkpoints):
    commit, repository = 'a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0', hub/'models--ann--tiny-dino'
    shutil.copytree(checkpoints['grounding-dino'], repository/'snapshots'/commit)
    (repository/'refs').mkdir()
    (repository/'refs'/'main').write_text(commit)
    teacher = load_teacher('grounding-dino:ann/tiny-dino')
    assert teacher.name == 'grounding-dino:ann/tiny-dino@a1b2c3d4e5f6' and len(teacher([noise(64, 64)], [['dog']])[0].boxes)
    (repository/'snapshots'/commit/'model.safetensors').unlink() # a download that was stopped half way is not taken for a whole one
    with pytest.raises(FileNotFoundError, match='hf download ann/tiny-dino'): load_teacher('grounding-dino:ann/tiny-dino')


def test_names_that_are_wrong(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="no teacher named 'glip'; there are world, grounding-dino, owlv2, florence-2"): load_teacher('glip')
    with pytest.raises(ValueError, match="no teacher named 'world:large'"): load_teacher('world:large')
    with pytest.raises(FileNotFoundError, match='no such folder'): load_teacher(f'owlv2:{tmp_path/"none"}')
    with pytest.raises(FileNotFoundError, match='no such folder'): load_teacher('owlv2:runs/tuned/owl')
    with pytest.raises(ValueError, match="says 'owlv2'; grounding-dino expects 'grounding-dino'"): load_teacher(f'grounding-dino:{checkpoints["owlv2"]}')
    with pytest.raises(FileNotFoundError, match='config.json'): load_teacher(f'owlv2:{tmp_path}')
    assert load_teacher('world').name == world_teacher().name


def damaged(checkpoints, tmp_path, kind='owlv2'): return shutil.copytree(checkpoints[kind], tmp_path/'damaged')


def test_a_checkpoint_that_is_not_whole(checkpoints, tmp_path):
    folder = damaged(checkpoints, tmp_path)
    weights = (folder/'model.safetensors').read_bytes()
    (folder/'model.safetensors').write_bytes(weights[:len(weights)//2])
    with pytest.raises(ValueError, match='damaged@.*: not a whole checkpoint of owlv2'): load_teacher(f'owlv2:{folder}')
    shutil.copy(checkpoints['grounding-dino']/'model.safetensors', folder/'model.safetensors')
    with pytest.raises(ValueError, match='weights are not those of owlv2'): load_teacher(f'owlv2:{folder}')
    (folder/'config.json').write_text('{')
    with pytest.raises(ValueError, match='config.json, line 1: not valid JSON'): load_teacher(f'owlv2:{folder}')


@pytest.mark.parametrize('kind, missing, told', [('grounding-dino', 'vocab.txt', 'vocabulary of its tokenizer is missing'), ('owlv2', 'vocab.json', 'not a whole checkpoint'),
    ('owlv2', 'preprocessor_config.json', 'not a whole checkpoint'), ('florence-2', 'tokenizer_config.json', 'not a whole checkpoint')])
def test_a_file_that_is_missing(checkpoints, tmp_path, kind, missing, told):
    folder = damaged(checkpoints, tmp_path, kind)
    (folder/missing).unlink()
    with pytest.raises(ValueError, match=f'damaged@.*{told}'): load_teacher(f'{kind}:{folder}')


class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return open, (str(self.path), 'w')


@pytest.mark.fault(7)
def test_a_pickle_among_the_weights_is_not_opened(checkpoints, tmp_path):
    folder = damaged(checkpoints, tmp_path)
    (folder/'model.safetensors').unlink()
    (folder/'pytorch_model.bin').write_bytes(pickle.dumps(Bomb(tmp_path/'exploded')))
    with pytest.raises(ValueError, match='not a whole checkpoint of owlv2'): load_teacher(f'owlv2:{folder}')
    assert not (tmp_path/'exploded').exists()
    pickle.loads((folder/'pytorch_model.bin').read_bytes()) # it is a bomb
    assert (tmp_path/'exploded').exists()


def test_the_older_layout_of_florence_is_told_apart(checkpoints, tmp_path):
    folder = damaged(checkpoints, tmp_path, 'florence-2')
    config = json.loads((folder/'config.json').read_text())
    config['vision_config'] |= dict(model_type='davit', dim_embed=[128, 256, 512, 1024])
    (folder/'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match='needs code from the hub; take one of florence-community'): load_teacher(f'florence-2:{folder}')


def test_without_transformers(monkeypatch, checkpoints):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='the teacher owlv2 needs the library transformers: pip install transformers'): load_teacher(f'owlv2:{checkpoints["owlv2"]}')
    assert load_teacher('world').name
    monkeypatch.setitem(sys.modules, 'transformers', SimpleNamespace(__version__='4.45.0'))
    with pytest.raises(ImportError, match='florence-2 needs a newer transformers than 4.45.0'): load_teacher('florence-2')


def test_anybodys_own(tmp_path, monkeypatch):
    (tmp_path/'mine_of_the_test.py').write_text('class Nobody:\n    name = "nobody-1"\n    def __call__(self, images, phrases): return [None for _ in images]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = load_teacher('mine_of_the_test:Nobody')
    assert teacher.name == 'nobody-1' and teacher([1, 2], [[], []]) == [None, None]
    with pytest.raises(ValueError, match='mine_of_the_test:Nowhere'): load_teacher('mine_of_the_test:Nowhere')


# what is wrong with a teacher

class Sound:
    "Points at the left half of the picture."
    name = 'sound-1'

    def answer(self, image, n):
        return Grounded(torch.tensor([[0., 0, image.width/2, image.height]]).repeat(n, 1), torch.full((n,), .5), torch.arange(n))

    def __call__(self, images, phrases): return [self.answer(image, len(each)) for image, each in zip(images, phrases)]


def broken(change):
    "A sound teacher whose every answer is changed."
    class Broken(Sound):
        def answer(self, image, n): return change(super().answer(image, n), image)
    return Broken()


def test_sound_teachers_have_no_faults(teachers):
    for teacher in (Sound(), world_teacher(), *teachers.values()): assert teacher_faults(teacher) == []
    class Silent(Sound):
        def answer(self, image, n): return super().answer(image, 0)
    assert teacher_faults(Silent()) == []


@pytest.mark.parametrize('change, told', [
    (lambda a, image: a[:2], 'expected Grounded'),
    (lambda a, image: None, 'got NoneType'),
    (lambda a, image: Grounded(a.boxes.tolist(), a.scores, a.phrases), 'three tensors'),
    (lambda a, image: a._replace(boxes=a.boxes.reshape(-1)), 'expected (n, 4), (n,) and (n,)'),
    (lambda a, image: a._replace(scores=a.scores[:, None]), 'expected (n, 4), (n,) and (n,)'),
    (lambda a, image: a._replace(phrases=a.phrases[:1]), 'with the same n'),
    (lambda a, image: Grounded(torch.tensor(1.), torch.tensor(1.), torch.tensor(1)), 'the shapes (), (), ()'),
    (lambda a, image: a._replace(phrases=a.phrases.float()), 'floats and int64'),
    (lambda a, image: a._replace(boxes=a.boxes.long()), 'floats and int64'),
    (lambda a, image: a._replace(boxes=a.boxes*float('nan')), 'NaN'),
    (lambda a, image: a._replace(scores=a.scores/0), 'infinity'),
    (lambda a, image: a._replace(scores=a.scores*100), 'scores run from 50 to 50'),
    (lambda a, image: a._replace(scores=a.scores - 1), 'expected [0, 1]'),
    (lambda a, image: a._replace(phrases=a.phrases + 1), 'a box is for phrase 2; 2 were asked, counted from 0'),
    (lambda a, image: a._replace(phrases=a.phrases - 1), 'a box is for phrase -1'),
    (lambda a, image: Grounded(torch.tensor([[1., 1, 9, 9]]), torch.ones(1), torch.tensor([0])), 'picture 1 (0 phrases): a box is for phrase 0'),
    (lambda a, image: a._replace(boxes=a.boxes/torch.tensor([*image.size]*2)), 'shares of the picture'),
    (lambda a, image: a._replace(boxes=a.boxes[:, [2, 3, 0, 1]]), 'no area'),
    (lambda a, image: a._replace(boxes=a.boxes + 5), 'reaches out of the picture'),
    (lambda a, image: a._replace(boxes=a.boxes - 5), 'reaches out of the picture'),
    (lambda a, image: a._replace(scores=torch.rand(len(a.scores))), 'gave two answers'),
    (lambda a, image: image.paste((0, 0, 0), (0, 0, 9, 9)) or a, 'changed the pictures'),
    (lambda a, image: 1/0, 'raised ZeroDivisionError: division by zero'),
])
def test_every_fault_is_told(change, told):
    faults = teacher_faults(broken(change))
    assert faults and any(told in fault for fault in faults), faults


def test_faults_of_the_whole():
    class Nameless(Sound): name = ' '
    class Short(Sound):
        def __call__(self, images, phrases): return super().__call__(images, phrases)[:2]
    class Lazy(Sound):
        def __call__(self, images, phrases): return (self.answer(image, len(each)) for image, each in zip(images, phrases))
    assert 'no name' in teacher_faults(Nameless())[0] and len(teacher_faults(Nameless())) == 1
    assert 'gave 2 answers; expected a list of three' in teacher_faults(Short())[0]
    assert 'gave generator; expected a list of three' in teacher_faults(Lazy())[0]
    assert teacher_faults(SimpleNamespace(name='x')) == ['it cannot be called: write __call__(self, images, phrases)']

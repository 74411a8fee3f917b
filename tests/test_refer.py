"Referring expressions: targets, ceiling and chance by brute force, accuracy, zero-shot answers, fine-tuning."
import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from PIL import Image
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import contents

from vlground.boxes import box_iou
from vlground.core import load_json
from vlground.datasets import fraction_of
from vlground.expressions import ReferData, read_refer
from vlground.finetuning import FinetuneConfig, freeze_unreached, open_start, start_of
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.grounder import world_teacher
from vlground.refer import (ExpressionData, ReferModel, blind_accuracy, finetune_grounder, finetune_refer, pointing_accuracy, predict, predict_regions, refer_accuracy, refer_boxes, refer_loss,
                            with_other_sets, write_refer_page, zero_shot_regions)
from vlground.regions import write_boxes
from vlground.store import Store, extract_regions
from vlground.training import TrainConfig


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions, in_memory=True)


@pytest.fixture(scope='module')
def refer(small_world): return read_refer(small_world/'refer')


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


EIGHT = FinetuneConfig(regions=8)


@pytest.fixture(scope='module')
def data(refer, store): return ExpressionData(refer.split('testB'), store, start_of(fresh(store)), EIGHT)


def fresh(store, grounding='phrase', seed=0): # with the heads of pre-training
    return PretrainingModel(replace(PRESETS['mini'], grounding=grounding, seed=seed), load_tokenizer().get_vocab_size(), store.feature_width, len(store.classes))


# the question

@pytest.mark.parametrize('regions', [2, 5, 8])
def test_ceiling_and_chance_by_going_through_everything(refer, store, regions):
    data = ExpressionData(refer.split('train'), store, start_of(fresh(store)), replace(EIGHT, regions=regions))
    possible = guessed = 0.
    for said, ious in zip(refer.split('train'), data.ious, strict=True):
        candidates = [(0., 0., 256., 256.), *map(tuple, store.get(said.file_name).boxes[:regions].tolist())]
        fits = [float(box_iou(torch.tensor([box]), torch.tensor([said.box]))[0, 0]) for box in candidates]
        assert ious.tolist() == pytest.approx(fits)
        possible, guessed = possible + any(fit > .5 for fit in fits), guessed + sum(fit > .5 for fit in fits)/len(fits)
    assert data.ceiling() == pytest.approx(possible/len(data)) and data.chance() == pytest.approx(guessed/len(data), rel=1e-5)
    assert 0 < data.chance() < data.ceiling() <= 1


def test_a_batch_holds_what_belongs_together(data, tokenizer):
    rows = [3, 0, 7]
    batch, ious = data.batch(rows)
    assert ious.shape == batch.region_mask.shape == batch.locations.shape[:2]
    for sample, row in enumerate(rows):
        real = batch.region_mask[sample]
        assert torch.equal(ious[sample][real], data.ious[row]) and not ious[sample][~real].any()
        assert tokenizer.decode(batch.input_ids[sample].tolist()) == data.expressions[row].text.lower()
        x1, y1, x2, y2 = (batch.locations[sample, 1, :4]*256).tolist()
        assert box_iou(torch.tensor([[x1, y1, x2, y2]]), torch.tensor([data.expressions[row].box]))[0, 0].item() == pytest.approx(data.ious[row][1].item(), abs=1e-4)


def test_pictures_without_regions_and_no_expressions(refer, store):
    lost = [replace(refer.split('val')[0], file_name='lost.jpg')]
    with pytest.raises(ValueError, match=rf'1 pictures have no regions; sent_id {lost[0].id} needs the regions of lost.jpg; run vlground_regions'): ExpressionData(lost, store, start_of(fresh(store)))
    with pytest.raises(ValueError, match='there are no samples'): ExpressionData([], store, start_of(fresh(store)))


# the answer

@given(st.lists(st.tuples(st.floats(-6, 6), st.floats(0, 1), st.booleans()), min_size=1, max_size=6))
def test_the_loss_is_a_sum_over_regions_against_their_iou(rows):
    logits, ious, mask = (torch.tensor([column]) for column in zip(*rows))
    expected = 0.
    for logit, iou, real in rows:
        iou = torch.tensor(iou).item() # as float32 has it
        target, p = (iou if iou >= .5 else 0.), 1/(1 + math.exp(-logit))
        if real: expected -= target*math.log(p) + (1 - target)*math.log(1 - p)
    assert refer_loss(logits, ious, mask).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    twice = refer_loss(torch.cat([logits, logits]), torch.cat([ious, ious]), torch.cat([mask, mask]))
    assert twice.item() == pytest.approx(expected, rel=1e-4, abs=1e-5) # a mean over expressions


def test_an_iou_of_exactly_one_half_is_aimed_at_but_is_not_right(data):
    ious = torch.tensor([[.5, 0.]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert refer_loss(torch.tensor([[0., -20]]), ious, mask) < refer_loss(torch.tensor([[-20., -20]]), ious, mask)
    class One:
        ious = [torch.tensor([.5, .2])]
        def __len__(self): return 1
    assert refer_accuracy([torch.tensor([1., 0.])], One()) == 0
    One.ious = [torch.tensor([.51, .2])]
    assert refer_accuracy([torch.tensor([1., 0.])], One()) == 1


def test_accuracy_of_the_best_and_of_the_worst(data):
    assert refer_accuracy(data.ious, data) == data.ceiling() and refer_accuracy([-iou for iou in data.ious], data) == 0
    blind = [refer_accuracy([torch.rand(len(iou), generator=torch.Generator().manual_seed(seed)) for iou in data.ious], data) for seed in range(60)]
    assert abs(sum(blind)/60 - data.chance()) < .04


@pytest.mark.parametrize('batch_size', [1, 7, 128])
def test_scores_do_not_depend_on_the_batch_and_padding_is_never_the_answer(data, store, batch_size):
    model, start = ReferModel(start_of(fresh(store)), seed=3), fresh(store)
    for found, expected in ((predict_regions(model, data, batch_size), predict_regions(model, data, 16)), (zero_shot_regions(start, data, batch_size), zero_shot_regions(start, data, 16))):
        assert [len(row) for row in found] == [len(iou) for iou in data.ious]
        for a, b in zip(found, expected): torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    batch, _ = data.batch(range(len(data)))
    assert (model(batch)[~batch.region_mask] == -1e4).all() and (batch.region_mask.sum(1).unique().numel() > 1 or batch.region_mask.all())


def test_zero_shot_is_the_grounding_head_asked_of_the_whole_expression(data, store):
    start = fresh(store)
    found = zero_shot_regions(start, data)
    for row in (0, 4, len(data) - 1):
        batch, _ = data.batch([row])
        words = int(batch.word_mask.sum())
        scores = start.grounding.score_all(start.backbone(batch), torch.tensor([[0, 1, words - 1]]))[0] # without [CLS] and [SEP]
        torch.testing.assert_close(found[row][1:], scores[1:], atol=1e-4, rtol=1e-3)
        assert found[row][0] == -torch.inf
    with pytest.raises(ValueError, match='without the grounding loss: it has no f_align'): zero_shot_regions(fresh(store, 'none'), data)


def test_both_arms_get_the_same_head(store):
    a, b, other = ReferModel(start_of(fresh(store)), 5), ReferModel(start_of(fresh(store, 'none')), 5), ReferModel(start_of(fresh(store)), 6)
    assert torch.equal(a.score.weight, b.score.weight) and not torch.equal(a.score.weight, other.score.weight)


def test_fine_tuning_leaves_the_start_as_it_was(data, store):
    start = start_of(fresh(store))
    before = start.backbone.word_embedding.weight.clone()
    with torch.no_grad(): ReferModel(start).backbone.word_embedding.weight.add_(1)
    assert torch.equal(start.backbone.word_embedding.weight, before)


def test_what_the_loss_does_not_reach_is_not_trained(data, store):
    model, (batch, ious) = ReferModel(start_of(fresh(store))), data.batch(range(4))
    def loss(): return refer_loss(model(batch), ious, batch.region_mask)
    loss().backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    before = {name for name, _ in model.named_parameters()}
    model.zero_grad()
    assert set(freeze_unreached(model, loss())) == before - reached != set()
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == reached
    assert all(weight.grad is None for weight in model.parameters()) and freeze_unreached(model, loss()) == []


# fine-tuning

FEW = FinetuneConfig(steps=30, batch_size=16, regions=8, learning_rate=3e-3)


@pytest.fixture(scope='module')
def run(refer, small_regions, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp('refer')/'run'
    return folder, finetune_refer(refer, small_regions, folder, start_of(fresh(store)), FEW, ('val', 'train'), every=15, progress='none')


def test_it_learns_what_it_is_shown(run):
    _, result = run
    assert 2*result['train']['chance'] < result['train']['accuracy'] <= result['train']['ceiling']


def test_what_is_saved_is_what_was_answered(run, refer, store):
    folder, result = run
    for name in ('val', 'train'):
        split = ExpressionData(refer.split(name), store, start_of(fresh(store)), EIGHT)
        rows = [json.loads(line) for line in open(folder/f'predictions-{name}.jsonl')]
        assert [(row['id'], row['text'], tuple(row['box'])) for row in rows] == [(said.id, said.text, said.box) for said in refer.split(name)]
        assert result[name] == dict(accuracy=refer_accuracy([torch.tensor(row['scores']) for row in rows], split), ceiling=split.ceiling(), chance=split.chance(), gold=0., n=len(split))
        assert all(row['regions'][0] == [0, 0, 256, 256] and len(row['regions']) == len(row['scores']) and row['image'] == said.file_name for row, said in zip(rows, split.expressions))
    assert load_json(folder/'result.json') == result


def test_the_same_run_twice_and_a_finished_one_again(run, refer, small_regions, store, tmp_path):
    again = finetune_refer(refer, small_regions, tmp_path/'again', start_of(fresh(store)), FEW, ('val', 'train'), every=0, progress='none')
    read_back = finetune_refer(refer, small_regions, run[0], start_of(fresh(store)), FEW, ('val', 'train'), every=15, progress='none')
    assert again == read_back == run[1]
    assert (tmp_path/'again'/'predictions-val.jsonl').read_bytes() == (run[0]/'predictions-val.jsonl').read_bytes()


OTHER = dict(fraction=.5, words=9, regions=7, steps=31, epochs=2., batch_size=8, accumulate=2, learning_rate=1e-3, head_rate=2., drops=(.5,), warmup=.2, weight_decay=.1, precision='bfloat16', save_every=7, seed=1)


@pytest.mark.parametrize('name', [*OTHER, 'start', 'expressions', 'pictures', 'hard'])
def test_another_run_in_the_same_folder_is_refused_and_changes_nothing(run, refer, small_regions, store, name):
    assert set(OTHER) | {'blind'} == set(asdict(FEW)), 'every setting is tried'
    before, config, start, data = contents(run[0]), FEW, start_of(fresh(store)), refer
    if name == 'start': start = start_of(fresh(store, seed=9))
    elif name == 'expressions': data = replace(refer, expressions=tuple(replace(said, text=said.text + ' now') for said in refer.expressions))
    elif name == 'pictures': data = replace(refer, expressions=tuple(replace(said, file_name=refer.expressions[0].file_name) for said in refer.expressions))
    elif name != 'hard': config = replace(FEW, **{name: OTHER[name]})
    with pytest.raises(ValueError, match=rf'begun with another configuration .*{dict(pictures="expressions").get(name, name)}: .* before, .* now'):
        finetune_refer(data, small_regions, run[0], start, config, ('val', 'train'), name == 'hard', every=15, progress='none')
    assert contents(run[0]) == before


def test_expressions_without_a_word_are_refused(refer, store):
    for text in ('', '  \t', '\u200b'):
        silent = [refer.split('val')[0], replace(refer.split('val')[1], text=text)]
        with pytest.raises(ValueError, match=rf'1 texts have no word .* the first is that of sent_id {silent[1].id};'): ExpressionData(silent, store, start_of(fresh(store)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU here')
def test_fine_tuning_on_a_graphics_card(refer, small_regions, store, tmp_path):
    assert finetune_refer(refer, small_regions, tmp_path/'run', start_of(fresh(store)), FEW, progress='none', device='cuda')['val']['n'] == len(refer.split('val'))


def test_a_fraction_is_of_pictures(refer, small_regions, store, tmp_path):
    result = finetune_refer(refer, small_regions, tmp_path/'half', start_of(fresh(store)), replace(FEW, steps=1, fraction=.5), progress='none')
    pictures = set(fraction_of([str(said.image_id) for said in refer.split('train')], .5))
    assert result['expressions'] == sum(str(said.image_id) in pictures for said in refer.split('train')) < len(refer.split('train'))


def test_splits_that_are_not_there(refer, small_regions, store, tmp_path):
    with pytest.raises(ValueError, match="no split 'testC'"): finetune_refer(refer, small_regions, tmp_path/'a', start_of(fresh(store)), FEW, ('testC',), progress='none')
    untrained = ReferData(tuple(said for said in refer.expressions if said.split != 'train'), refer.images)
    with pytest.raises(ValueError, match="no split 'train'"): finetune_refer(untrained, small_regions, tmp_path/'b', start_of(fresh(store)), FEW, progress='none')


# one picture, one expression

def test_predict_says_what_the_run_said(run, refer, small_world):
    rows = [json.loads(line) for line in open(run[0]/'predictions-val.jsonl')]
    for row in rows[:3]:
        found = predict(run[0], small_world/'images'/row['image'], row['text'])
        boxes, scores = torch.tensor(row['regions']), torch.tensor(row['scores']).sigmoid()
        order = scores.argsort(descending=True)
        torch.testing.assert_close(found.scores, scores[order], atol=1e-3, rtol=0)
        assert (found.boxes[0] - boxes[order][0]).abs().max() < .02 and found.box == tuple(found.boxes[0].tolist()) and found.image.size == (256, 256)
        assert row['text'] in found.fig(truth=row['box']).axes[0].get_title()


@pytest.mark.parametrize('text, told', [('', 'no word that the vocabulary knows'), ('?!', 'no word that the vocabulary knows')])
def test_an_expression_that_says_nothing(run, small_world, text, told):
    with pytest.raises(ValueError, match=told): predict(run[0], small_world/'images'/'refer-000001.jpg', text)


def test_a_picture_that_cannot_be_read_and_another_detector(run, small_world, tmp_path):
    (tmp_path/'broken.jpg').write_bytes(b'no picture')
    with pytest.raises(ValueError, match='broken.jpg: '): predict(run[0], tmp_path/'broken.jpg', 'a dog')
    with pytest.raises(ValueError, match='there is no detector'): predict(run[0], small_world/'images'/'refer-000001.jpg', 'a dog', detector='worlds')


def test_the_page_shows_the_same_expressions_whatever_the_model(run, small_world, tmp_path):
    page = write_refer_page(run[0]/'predictions-val.jsonl', small_world/'images', tmp_path/'page.html', 5).read_text()
    rows = [json.loads(line) for line in open(run[0]/'predictions-val.jsonl')]
    shown = [row['id'] for row in rows if f'sent_id {row["id"]}<' in page]
    assert len(shown) == page.count('<img') == 5 and 'http' not in page
    (tmp_path/'other.jsonl').write_text(''.join(json.dumps(row | dict(scores=[-score for score in row['scores']])) + '\n' for row in rows))
    other = write_refer_page(tmp_path/'other.jsonl', small_world/'images', tmp_path/'other.html', 5).read_text()
    assert [row['id'] for row in rows if f'sent_id {row["id"]}<' in other] == shown
    with pytest.raises(ValueError, match=r'the picture of sent_id \d+'): write_refer_page(run[0]/'predictions-val.jsonl', tmp_path, tmp_path/'page.html', 5)


# true boxes in training

@pytest.mark.parametrize('most', [8, 10, 36])
def test_gold_boxes_are_candidates_in_training_pictures_alone(refer, store, small_world, tmp_path, most):
    found = {image.file_name: store.get(image.file_name).boxes for image in refer.images.values()}
    boxes = refer_boxes(refer, found, most)
    trained = {said.file_name for said in refer.split('train')}
    for image in refer.images.values():
        kept, gold = boxes[image.file_name], torch.tensor(image.boxes)
        assert len(kept) <= most
        if image.file_name in trained: assert torch.equal(kept[-len(gold):], gold) and torch.equal(kept[:-len(gold)], found[image.file_name][:most - len(gold)])
        elif any(said.file_name == image.file_name for said in refer.expressions): assert torch.equal(kept, found[image.file_name][:most])
    described = extract_regions(small_world/'images', tmp_path/'regions', boxes=write_boxes(boxes, tmp_path/'boxes.jsonl'), quiet=True)
    config = replace(EIGHT, regions=most)
    assert ExpressionData(refer.split('train'), Store(described), start_of(fresh(store)), config).ceiling() == 1


def test_gold_boxes_that_would_be_cut_off_or_that_are_measured_are_told(refer, store, small_world, tmp_path):
    found = {image.file_name: store.view(store.index[image.file_name]).boxes for image in refer.images.values()}
    boxes = refer_boxes(refer, found, 9)
    regions = extract_regions(small_world/'images', tmp_path/'regions', boxes=write_boxes(boxes, tmp_path/'boxes.jsonl'), quiet=True)
    def tuned(out, data=refer, **changes): return finetune_refer(data, regions, tmp_path/out, start_of(fresh(store)), replace(FEW, steps=1, **changes), progress='none')
    with pytest.raises(ValueError, match=r'refer-\d+.jpg has 9 regions, and 8 are read: the true box of sent_id \d+ is cut off; raise --most_regions, or lower --most of vlground_boxes'): tuned('cut', regions=8)
    assert tuned('whole', regions=9)['val']['gold'] == 0
    swapped = ReferData(tuple(replace(said, split=dict(train='val', val='train').get(said.split, said.split)) for said in refer.expressions), refer.images)
    assert tuned('swapped', swapped, regions=9)['val']['gold'] == 1, 'it is measured on pictures whose true boxes are candidates'
    given = extract_regions(small_world/'images', tmp_path/'given', boxes=write_boxes(found, tmp_path/'found.jsonl'), quiet=True) # somebody's detections: more than are read, and none of them true
    assert finetune_refer(refer, given, tmp_path/'detections', start_of(fresh(store)), replace(FEW, steps=1, regions=5), progress='none')['val']['gold'] == 0
    whole = [replace(said, box=(0., 0., 256., 256.)) for said in refer.split('val')] # region 0, which is always there
    assert ExpressionData(whole, store, start_of(fresh(store)), EIGHT).gold() == 0


def test_more_gold_boxes_than_regions(refer, store):
    found = {image.file_name: store.get(image.file_name).boxes for image in refer.images.values()}
    with pytest.raises(ValueError, match=r'refer-\d+.jpg: it has \d+ gold boxes, and 2 regions are read'): refer_boxes(refer, found, 2)


# what it is compared with

def test_several_sets_never_train_on_what_is_measured(small_world, refer):
    others = [read_refer(small_world/'refer', 'refcoco'), read_refer(small_world/'refer', 'refcocog', 'umd')]
    leaking = replace(others[0], expressions=tuple(replace(said, split='train') for said in others[0].expressions)) # trains on all pictures
    joint = with_other_sets(refer, [leaking, others[1]])
    measured = {said.file_name for said in refer.expressions if said.split != 'train'}
    trained = joint.split('train')
    assert not measured & {said.file_name for said in trained} and len({said.id for said in joint.expressions}) == len(joint.expressions)
    for split in ('val', 'testA', 'testB'): assert joint.split(split) == refer.split(split)
    expected = len(refer.split('train')) + sum(said.split == 'train' and said.file_name not in measured for each in (leaking, others[1]) for said in each.expressions)
    assert len(trained) == expected > 2*len(refer.split('train')) and with_other_sets(refer, []) == refer


def test_a_finished_run_is_a_start(run, refer, small_regions, store, tmp_path):
    first = open_start(run[0])
    assert torch.equal(first.backbone.word_embedding.weight, ReferModel(first).backbone.word_embedding.weight) and first.described() == start_of(fresh(store)).described()
    assert not torch.equal(first.backbone.word_embedding.weight, fresh(store).backbone.word_embedding.weight)
    again = finetune_refer(refer, small_regions, tmp_path/'then', first, FEW, ('val', 'train'), progress='none')
    assert again['train']['accuracy'] >= run[1]['train']['accuracy'] - .05


def test_the_grounder_itself(refer, small_world, tmp_path):
    teacher, images = world_teacher(), small_world/'images'
    said = refer.split('testB')[:20]
    answers = [teacher([Image.open(images/each.file_name)], [[each.text]])[0].boxes for each in said]
    right = [len(boxes) > 0 and box_iou(boxes[:1], torch.tensor([each.box]))[0, 0].item() > .5 for boxes, each in zip(answers, said)]
    assert pointing_accuracy(teacher, said, images) == pytest.approx(sum(right)/20)
    how = TrainConfig(steps=2, batch_size=4, learning_rate=1e-3, threads=1)
    before = next(teacher.model.parameters()).clone()
    tuned = finetune_grounder(teacher, refer.split('train'), images, tmp_path/'grounder', how, progress='none')
    assert torch.equal(next(teacher.model.parameters()), before) and tuned.name.endswith('-finetuned') and 0 <= pointing_accuracy(tuned, said, images) <= 1
    with pytest.raises(ValueError, match='begun with another configuration .*expressions'): finetune_grounder(teacher, refer.split('val'), images, tmp_path/'grounder', how, progress='none')
    with pytest.raises(ValueError, match='lost.jpg: '): pointing_accuracy(teacher, [replace(said[0], file_name='lost.jpg')], images)


def test_words_alone(refer, store):
    train, test = (ExpressionData(refer.split(split), store, start_of(fresh(store)), EIGHT) for split in ('train', 'testB'))
    assert blind_accuracy(train, test) == blind_accuracy(train, test)
    for data in (train, test): data.ious = [torch.eye(len(iou))[2] for iou in data.ious] # region 2 is always right
    assert blind_accuracy(train, test) == 1
    for data in (test,): data.ious = [torch.zeros(len(iou)) for iou in data.ious]
    assert blind_accuracy(train, test) == 0


def test_blind_has_nothing_to_choose_from(refer, store):
    with pytest.raises(ValueError, match='nothing to choose from'): ExpressionData(refer.split('val'), store, start_of(fresh(store)), replace(EIGHT, blind=True))

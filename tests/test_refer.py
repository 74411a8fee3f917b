"Referring expressions: targets, ceiling and chance by brute force, accuracy, zero-shot answers, fine-tuning."
import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import contents

from vlground.boxes import box_iou
from vlground.core import load_json
from vlground.datasets import fraction_of
from vlground.expressions import ReferData, read_refer
from vlground.finetuning import freeze_unreached
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.refer import ExpressionData, ReferConfig, ReferModel, finetune_refer, predict_regions, refer_accuracy, refer_loss, zero_shot_regions
from vlground.store import Store


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions, in_memory=True)


@pytest.fixture(scope='module')
def refer(small_world): return read_refer(small_world/'refer')


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


@pytest.fixture(scope='module')
def data(refer, store, tokenizer): return ExpressionData(refer.split('testB'), store, tokenizer, regions=8)


def fresh(store, grounding='phrase', seed=0):
    return PretrainingModel(replace(PRESETS['mini'], grounding=grounding, seed=seed), load_tokenizer().get_vocab_size(), store.feature_width, len(store.classes))


# the question

@pytest.mark.parametrize('regions', [2, 5, 8])
def test_ceiling_and_chance_by_going_through_everything(refer, store, tokenizer, regions):
    data = ExpressionData(refer.split('train'), store, tokenizer, regions=regions)
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


def test_pictures_without_regions_and_no_expressions(refer, store, tokenizer):
    lost = [replace(refer.split('val')[0], file_name='lost.jpg')]
    with pytest.raises(ValueError, match='1 pictures with expressions have no regions, the first is lost.jpg; run vlground_regions'): ExpressionData(lost, store, tokenizer)
    with pytest.raises(ValueError, match='there are no expressions'): ExpressionData([], store, tokenizer)


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
    model, start = ReferModel(fresh(store), seed=3), fresh(store)
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
    a, b, other = ReferModel(fresh(store), 5), ReferModel(fresh(store, 'none'), 5), ReferModel(fresh(store), 6)
    assert torch.equal(a.score.weight, b.score.weight) and not torch.equal(a.score.weight, other.score.weight)


def test_fine_tuning_leaves_the_start_as_it_was(data, store):
    start = fresh(store)
    before = start.backbone.word_embedding.weight.clone()
    with torch.no_grad(): ReferModel(start).backbone.word_embedding.weight.add_(1)
    assert torch.equal(start.backbone.word_embedding.weight, before)


def test_what_the_loss_does_not_reach_is_not_trained(data, store):
    model, (batch, ious) = ReferModel(fresh(store)), data.batch(range(4))
    def loss(): return refer_loss(model(batch), ious, batch.region_mask)
    loss().backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    before = {name for name, _ in model.named_parameters()}
    model.zero_grad()
    assert set(freeze_unreached(model, loss())) == before - reached != set()
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == reached
    assert all(weight.grad is None for weight in model.parameters()) and freeze_unreached(model, loss()) == []


# fine-tuning

FEW = ReferConfig(steps=30, batch_size=16, regions=8, learning_rate=3e-3)


@pytest.fixture(scope='module')
def run(refer, small_regions, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp('refer')/'run'
    return folder, finetune_refer(refer, small_regions, folder, fresh(store), FEW, ('val', 'train'), every=15, progress='none')


def test_it_learns_what_it_is_shown(run):
    _, result = run
    assert 2*result['train']['chance'] < result['train']['accuracy'] <= result['train']['ceiling']


def test_what_is_saved_is_what_was_answered(run, refer, store, tokenizer):
    folder, result = run
    for name in ('val', 'train'):
        split = ExpressionData(refer.split(name), store, tokenizer, 20, 8)
        rows = [json.loads(line) for line in open(folder/f'predictions-{name}.jsonl')]
        assert [(row['id'], row['text'], tuple(row['box'])) for row in rows] == [(said.id, said.text, said.box) for said in refer.split(name)]
        assert result[name] == dict(accuracy=refer_accuracy([torch.tensor(row['scores']) for row in rows], split), ceiling=split.ceiling(), chance=split.chance(), n=len(split))
    saved = load_json(folder/'result.json')
    assert saved['config']['steps'] == 30 and {key: saved[key] for key in result} == result


def test_the_same_run_twice_and_a_finished_one_again(run, refer, small_regions, store, tmp_path):
    again = finetune_refer(refer, small_regions, tmp_path/'again', fresh(store), FEW, ('val', 'train'), every=0, progress='none')
    read_back = finetune_refer(refer, small_regions, run[0], fresh(store), FEW, ('val', 'train'), every=15, progress='none')
    assert again == read_back == run[1]
    assert (tmp_path/'again'/'predictions-val.jsonl').read_bytes() == (run[0]/'predictions-val.jsonl').read_bytes()


OTHER = dict(fraction=.5, words=9, regions=7, steps=31, batch_size=8, learning_rate=1e-3, weight_decay=.1, seed=1)


@pytest.mark.parametrize('name', [*OTHER, 'start', 'expressions'])
def test_another_run_in_the_same_folder_is_refused_and_changes_nothing(run, refer, small_regions, store, name):
    assert set(OTHER) == set(asdict(FEW)), 'every setting is tried'
    before, config, start, data = contents(run[0]), FEW, fresh(store), refer
    if name == 'start': start = fresh(store, seed=9)
    elif name == 'expressions': data = replace(refer, expressions=tuple(replace(said, text=said.text + ' now') for said in refer.expressions))
    else: config = replace(FEW, **{name: OTHER[name]})
    with pytest.raises(ValueError, match=rf'begun with another configuration .*{name}: .* before, .* now'):
        finetune_refer(data, small_regions, run[0], start, config, ('val', 'train'), every=15, progress='none')
    assert contents(run[0]) == before


def test_expressions_without_a_word_are_refused(refer, store, tokenizer):
    for text in ('', '  \t', '\u200b'):
        silent = [refer.split('val')[0], replace(refer.split('val')[1], text=text)]
        with pytest.raises(ValueError, match=rf'1 expressions have no word .* the first has the sent_id {silent[1].id};'): ExpressionData(silent, store, tokenizer)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU here')
def test_fine_tuning_on_a_graphics_card(refer, small_regions, store, tmp_path):
    assert finetune_refer(refer, small_regions, tmp_path/'run', fresh(store), FEW, progress='none', device='cuda')['val']['n'] == len(refer.split('val'))


def test_a_fraction_is_of_pictures(refer, small_regions, store, tmp_path):
    result = finetune_refer(refer, small_regions, tmp_path/'half', fresh(store), replace(FEW, steps=1, fraction=.5), progress='none')
    pictures = set(fraction_of([str(said.image_id) for said in refer.split('train')], .5))
    assert result['expressions'] == sum(str(said.image_id) in pictures for said in refer.split('train')) < len(refer.split('train'))


def test_splits_that_are_not_there(refer, small_regions, store, tmp_path):
    with pytest.raises(ValueError, match="no split 'testC'"): finetune_refer(refer, small_regions, tmp_path/'a', fresh(store), FEW, ('testC',), progress='none')
    untrained = ReferData(tuple(said for said in refer.expressions if said.split != 'train'), refer.images)
    with pytest.raises(ValueError, match="no split 'train'"): finetune_refer(untrained, small_regions, tmp_path/'b', fresh(store), FEW, progress='none')

"Fine-tuning on VCR: objects and regions, tags, both losses, Q→AR by id, the leaderboard's table, and runs that are read back."
import csv
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlground.core import load_json, torch_rng
from vlground.finetuning import FinetuneConfig, Start
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.regions import write_boxes
from vlground.store import Store, extract_regions
from vlground.vcr import TASKS, ChoiceData, ChoiceModel, choice_accuracy, choice_loss, finetune_vcr, leaderboard_rows, object_boxes, predict_choices, write_leaderboard
from vlground.vcrdata import read_vcr, read_vcr_objects, vcr_choice
from vlground.worldfiles import write_world

CONFIG = FinetuneConfig(steps=6, batch_size=4, words=60, regions=12)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Folder of vcr, folder of the regions, store, items by split."
    folder = tmp_path_factory.mktemp('vcr')
    W = write_world(folder/'W', 1, 1, 1, seed=6, quiet=True, vcr=160)
    items = {split: read_vcr(W/'vcr', split) for split in ('train', 'val', 'test')}
    write_boxes(object_boxes(W/'vcr', [item for some in items.values() for item in some]), folder/'boxes.jsonl')
    regions = extract_regions(W/'vcr'/'vcr1images', folder/'regions', boxes=folder/'boxes.jsonl', quiet=True)
    return W/'vcr', regions, Store(regions, in_memory=True), items


def start_of(store, kind='vilbert', seed=0):
    model = PretrainingModel(replace(PRESETS['mini'], backbone=kind, seed=seed), load_tokenizer().get_vocab_size(), store.feature_width, len(store.classes))
    return Start(model.backbone, kind, model.shape.spread, 'world', 60)


def test_objects_are_the_first_regions_and_words_point_at_them(world):
    folder, _, store, items = world
    data = ChoiceData(items['val'], store, start_of(store), CONFIG)
    for item in items['val']:
        assert torch.allclose(store.get(item.img_fn).boxes, torch.tensor(read_vcr_objects(folder, item).boxes))
    for row, (task, choice) in enumerate(data.choices[:12]):
        for option in range(4):
            encoding, points = data.texts.encodings[4*row + option], data.texts.pointing[4*row + option]
            for sequence, text in enumerate((choice.question, choice.options[option])):
                for each in text.pointers:
                    pieces = [i for i, ((a, b), of) in enumerate(zip(encoding.offsets, encoding.sequence_ids)) if of == sequence and each.start <= a and b <= each.end and a < b]
                    assert pieces and all(points[i] == each.object + 1 for i in pieces)


def test_proposals_of_a_detector_come_after_the_objects(world, tmp_path):
    folder, _, store, items = world
    both = object_boxes(folder, items['val'], store)
    alone = object_boxes(folder, items['val'])
    assert both.keys() == alone.keys() == {item.img_fn for item in items['val']}
    for name, boxes in both.items(): assert torch.equal(boxes[:len(alone[name])], alone[name]) and len(boxes) == 2*len(alone[name])


def test_a_batch_has_four_texts_a_choice_and_the_right_answer_in_the_second_question(world):
    _, _, store, items = world
    data = ChoiceData(items['val'], store, start_of(store), CONFIG)
    batch, labels = data.batch([0, 1, len(data) - 2])
    assert batch.input_ids.shape[0] == 12 and labels.tolist() == [items['val'][0].answer_label, items['val'][0].rationale_label, items['val'][-1].answer_label]
    assert [task for task, _ in data.choices[:4]] == [*TASKS]*2
    right = data.choices[0][1].options[labels[0]].text
    assert data.choices[1][1].question.text == f'{data.choices[0][1].question.text} [SEP] {right}'
    separators = (batch.input_ids[:4] == load_tokenizer().token_to_id('[SEP]')).sum(1).tolist(), (batch.input_ids[4:8] == load_tokenizer().token_to_id('[SEP]')).sum(1).tolist()
    assert separators == ([2]*4, [3]*4)
    assert torch.equal(batch.features[0], batch.features[3]) and not torch.equal(batch.features[0], batch.features[8])
    secret = ChoiceData(items['test'], store, start_of(store), CONFIG, tasks=('answer',))
    assert secret.batch([0])[1].tolist() == [-1]


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_losses(seed, n):
    logits, labels = 3*torch.randn(n, 4, generator=torch_rng('logits', seed)), torch.randint(4, (n,), generator=torch_rng('labels', seed))
    chances = logits.double().softmax(1)
    assert choice_loss(logits, labels).item() == pytest.approx(-sum(chances[i, k].log().item() for i, k in enumerate(labels.tolist()))/n, rel=1e-4)
    each = logits.double().sigmoid()
    by_hand = -sum((each[i, k] if k == labels[i] else 1 - each[i, k]).log().item() for i in range(n) for k in range(4))/(4*n)
    assert choice_loss(logits, labels, 'sigmoid').item() == pytest.approx(by_hand, rel=1e-4)


def test_both_are_right_by_id_and_not_by_row(world):
    _, _, store, items = world
    data = ChoiceData(items['train'], store, start_of(store), CONFIG)
    logits = torch.randn(len(data), 4, generator=torch_rng('random'))
    found, best = choice_accuracy(logits, data), logits.argmax(1).tolist()
    answers = {choice.annot_id: best[i] == choice.label for i, (task, choice) in enumerate(data.choices) if task == 'answer'}
    reasons = {choice.annot_id: best[i] == choice.label for i, (task, choice) in enumerate(data.choices) if task == 'rationale'}
    n = len(items['train'])
    assert found == dict(answer=sum(answers.values())/n, rationale=sum(reasons.values())/n, joint=sum(answers[id] and reasons[id] for id in answers)/n, items=n)
    order = torch.randperm(len(data), generator=torch_rng('order')).tolist() # rows in another order: the same shares
    data.choices = [data.choices[i] for i in order]
    assert choice_accuracy(logits[order], data) == found
    data.choices = [each for each in data.choices if each != next(one for one in data.choices if one[0] == 'answer')]
    with pytest.raises(ValueError, match='are not those whose rationales were'): choice_accuracy(logits[:len(data.choices)], data)


def test_a_model_of_each_backbone(world):
    _, _, store, items = world
    for kind in ('vilbert', 'vlbert'):
        data, model = ChoiceData(items['val'], store, start_of(store, kind), CONFIG), ChoiceModel(start_of(store, kind))
        batch, _ = data.batch([0, 2])
        encoded = model.backbone(batch)
        pooled = encoded.pooled_words if kind == 'vlbert' else encoded.pooled_words*encoded.pooled_regions
        assert torch.allclose(model(batch), model.head(pooled).view(2, 4))
        assert torch.allclose(predict_choices(model, data, 3), predict_choices(model, data, 50), atol=1e-5) and model.training


def test_the_leaderboards_table(world, tmp_path):
    _, _, store, items = world
    model, given = ChoiceModel(start_of(store)), (store, start_of(store), CONFIG)
    rows = leaderboard_rows(model, items['test'], *given)
    write_leaderboard(rows, tmp_path/'test.csv')
    read = list(csv.DictReader(open(tmp_path/'test.csv', newline='')))
    names = ['annot_id', *(f'answer_{i}' for i in range(4)), *(f'rationale_conditioned_on_a{a}_{i}' for a in range(4) for i in range(4))]
    assert list(read[0]) == names and [row['annot_id'] for row in read] == [item.annot_id for item in items['test']]
    for row in read:
        for name in ('answer', *(f'rationale_conditioned_on_a{a}' for a in range(4))): assert sum(float(row[f'{name}_{i}']) for i in range(4)) == pytest.approx(1, abs=1e-4)
    # of an item with labels, the column of the right answer is what the rationale task predicts
    known = items['val'][:3]
    table = leaderboard_rows(model, [replace(item, answer_label=None, rationale_label=None) for item in known], *given)
    data = ChoiceData(known, *given, tasks=('rationale',))
    for row, item, chances in zip(table, known, predict_choices(model, data).softmax(1).tolist()):
        assert [row[f'rationale_conditioned_on_a{item.answer_label}_{i}'] for i in range(4)] == pytest.approx(chances, abs=1e-5)


@pytest.mark.parametrize('kind', ['vilbert', 'vlbert'])
def test_a_run_is_read_back_and_writes_the_table_of_the_test(world, tmp_path, kind):
    _, regions, store, items = world
    run = dict(train=items['train'], splits=dict(val=items['val'], test=items['test'][:3]), regions=regions, out=tmp_path/'run', config=CONFIG, progress='none')
    result = finetune_vcr(start=start_of(store, kind), **run)
    assert result == load_json(tmp_path/'run'/'result.json') == finetune_vcr(start=start_of(store, kind), **run)
    assert result['items'] == len(items['train']) and result['val']['items'] == len(items['val']) and (tmp_path/'run'/'leaderboard-test.csv').exists()
    assert load_json(tmp_path/'run'/'config.json')['data']['loss'] == ('sigmoid' if kind == 'vlbert' else 'softmax')
    with pytest.raises(ValueError, match='loss'): finetune_vcr(start=start_of(store, kind), **run | dict(loss='softmax' if kind == 'vlbert' else 'sigmoid'))


def test_a_fraction_keeps_whole_pictures(world, tmp_path):
    _, regions, store, items = world
    half = finetune_vcr(items['train'], dict(val=items['val']), regions, tmp_path, start_of(store), replace(CONFIG, fraction=.5), progress='none')
    assert 0 < half['items'] < len(items['train'])


def test_blind_models_see_no_tags_either(world):
    _, _, store, items = world
    data = ChoiceData(items['val'], store, start_of(store, 'vlbert'), replace(CONFIG, blind=True))
    batch, _ = data.batch([0])
    assert batch.word_regions is None and not batch.features.any()


@pytest.mark.parametrize('change, config, said', [
    ({}, replace(CONFIG, regions=1), 'objects, and 1 regions are read; raise --most_regions'),
    (dict(img_fn='gone.jpg'), CONFIG, 'val-0 needs the regions of gone.jpg'),
    (dict(objects=('person',)*12), CONFIG, 'item val-0: its picture has fewer regions')])
def test_items_that_cannot_be_used(world, change, config, said):
    _, _, store, items = world
    with pytest.raises(ValueError, match=said): ChoiceData([replace(items['val'][0], **change)], store, start_of(store), config)


def test_wrong_words(world, tmp_path):
    _, regions, store, items = world
    with pytest.raises(ValueError, match="no loss 'hinge'; there are softmax, sigmoid"): finetune_vcr(items['train'], {}, regions, tmp_path, start_of(store), CONFIG, loss='hinge')
    with pytest.raises(ValueError, match='which answer is to be explained'): ChoiceData(items['test'], store, start_of(store), CONFIG)
    assert vcr_choice(items['val'][0], 'answer').label == items['val'][0].answer_label

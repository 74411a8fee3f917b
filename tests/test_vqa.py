"Fine-tuning on VQA: batches, heads, the official accuracy by type, submissions, and runs that are read back."
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from vlground.core import load_json, rng, torch_rng
from vlground.datasets import fraction_of
from vlground.finetuning import FinetuneConfig, Start
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.questions import answer_vocabulary, normalise_answer, read_answers, read_vqa
from vlground.store import Store, extract_regions
from vlground.vqa import AnswerModel, QuestionData, answer_accuracy, answer_loss, finetune_vqa, predict_answers, write_submission
from vlground.worldfiles import write_world

CONFIG = FinetuneConfig(steps=8, batch_size=16, regions=6)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "Folder of the regions, store, questions by split, labels."
    folder = tmp_path_factory.mktemp('vqa')
    W = write_world(folder/'W', 1, 1, 1, seed=8, quiet=True, vqa=60)
    regions = extract_regions(W/'images', folder/'regions', keep=6, quiet=True)
    splits = {split: read_vqa(W/'vqa', split, W/'images') for split in ('train', 'val', 'test')}
    return regions, Store(regions, in_memory=True), splits, answer_vocabulary([*splits['train'], *splits['val']], least=2)


def start_of(store, kind='vilbert', seed=0):
    model = PretrainingModel(replace(PRESETS['mini'], backbone=kind, seed=seed), load_tokenizer().get_vocab_size(), store.feature_width, len(store.classes))
    return Start(model.backbone, kind, model.shape.spread, 'world', 60)


def official(answer, people):
    "The accuracy as it was first described: the mean over the ten subsets of nine people of min(n/3, 1)."
    same = [normalise_answer(each) == answer for each in people]
    return sum(min((sum(same) - out)/3, 1) for out in same)/10


def test_targets_are_the_scores_of_the_answers_that_people_gave(world):
    _, store, splits, labels = world
    data = QuestionData(splits['train'], store, labels, start_of(store), CONFIG)
    _, targets = data.batch(range(20))
    for question, row in zip(splits['train'], targets):
        for answer, label in labels.items(): assert row[label] == pytest.approx(official(answer, question.answers), abs=1e-6)
    assert data.ceiling() == pytest.approx(sum(max(official(answer, each.answers) for answer in labels) for each in splits['train'])/len(data))


@pytest.mark.parametrize('kind', ['vilbert', 'vlbert'])
def test_each_backbone_reads_its_own_form(world, kind):
    _, store, splits, labels = world
    data, model = QuestionData(splits['val'], store, labels, start_of(store, kind), CONFIG), AnswerModel(start_of(store, kind), len(labels)).eval()
    batch, targets = data.batch([0, 3, 5])
    masks = batch.input_ids == load_tokenizer().token_to_id('[MASK]')
    assert masks.sum(1).tolist() == ([1, 1, 1] if kind == 'vlbert' else [0, 0, 0])
    logits, encoded = model(batch), model.backbone(batch)
    expected = model.head(encoded.words[masks] if kind == 'vlbert' else encoded.pooled_words*encoded.pooled_regions)
    assert torch.allclose(logits, expected) and logits.shape == targets.shape
    assert torch.equal(AnswerModel(start_of(store, kind), len(labels), seed=3).head[1].weight, AnswerModel(start_of(store, kind, seed=1), len(labels), seed=3).head[1].weight)


def test_the_loss_asks_for_every_answer_by_itself():
    logits, targets = torch.randn(4, 6, generator=torch_rng('loss')), torch.rand(4, 6, generator=torch_rng('targets'))
    by_hand = -sum(t*torch.log(p) + (1 - t)*torch.log(1 - p) for row, goal in zip(logits.sigmoid(), targets) for p, t in zip(row, goal))/4
    assert answer_loss(logits, targets) == pytest.approx(by_hand.item(), rel=1e-5)


def test_accuracy_by_type_on_random_answers(world):
    _, store, splits, labels = world
    data = QuestionData(splits['val'], store, labels, start_of(store), CONFIG)
    logits, names = torch.randn(len(data), len(labels), generator=torch_rng('random')), list(labels)
    found = answer_accuracy(logits, data)
    rights = [official(names[best], each.answers) for best, each in zip(logits.argmax(1).tolist(), splits['val'])]
    assert found['all'] == dict(accuracy=pytest.approx(sum(rights)/len(rights)), n=len(rights))
    for kind, n in Counter([each.answer_type for each in splits['val']] + [each.kind for each in splits['val']]).items():
        some = [right for right, each in zip(rights, splits['val']) if kind in (each.answer_type, each.kind)]
        assert found[kind] == dict(accuracy=pytest.approx(sum(some)/n), n=n)


def test_a_run_answers_every_split_and_is_read_back(world, tmp_path):
    regions, store, splits, labels = world
    run = dict(train=splits['train'], splits={'val': splits['val'], 'test': splits['test']}, labels=labels, regions=regions, out=tmp_path/'run', config=CONFIG, progress='none')
    result = finetune_vqa(start=start_of(store), **run)
    assert result == load_json(tmp_path/'run'/'result.json') == finetune_vqa(start=start_of(store), **run)
    assert result['questions'] == len(splits['train']) and result['val']['all']['n'] == len(splits['val']) and 'test' not in result
    for split in ('val', 'test'):
        rows = load_json(tmp_path/'run'/f'submission-{split}.json')
        assert [row['question_id'] for row in rows] == [each.id for each in splits[split]] and {row['answer'] for row in rows} <= set(labels)
    assert read_answers(tmp_path/'run'/'answers.json') == labels
    with pytest.raises(ValueError, match='start'): finetune_vqa(start=start_of(store, seed=1), **run)


def test_a_fraction_of_the_pictures(world, tmp_path):
    regions, store, splits, labels = world
    result = finetune_vqa(splits['train'], {'val': splits['val']}, labels, regions, tmp_path, start_of(store), replace(CONFIG, fraction=.5), progress='none')
    wanted = set(fraction_of(sorted({str(each.image_id) for each in splits['train']}), .5))
    assert result['questions'] == sum(str(each.image_id) in wanted for each in splits['train']) < len(splits['train'])


def test_blind_models_answer_the_same_whatever_the_picture(world):
    _, store, splits, labels = world
    asked = [replace(splits['val'][0], file_name=each.file_name) for each in splits['val'][:24:8]]
    data = QuestionData(asked, store, labels, start_of(store), replace(CONFIG, blind=True))
    logits = predict_answers(AnswerModel(start_of(store), len(labels)), data)
    assert torch.equal(logits, logits[:1].expand_as(logits))
    assert not torch.equal(*predict_answers(AnswerModel(start_of(store), len(labels)), QuestionData(asked, store, labels, start_of(store), CONFIG))[:2])


def test_predictions_do_not_depend_on_their_neighbours(world):
    _, store, splits, labels = world
    data, model = QuestionData(splits['val'], store, labels, start_of(store), CONFIG), AnswerModel(start_of(store), len(labels))
    assert torch.allclose(predict_answers(model, data, 5), predict_answers(model, data, 64), atol=1e-5) and model.training


@pytest.mark.parametrize('change, said', [
    (lambda each: replace(each, text='☃?'), 'question_id {id}; leave them out'), (lambda each: replace(each, file_name='gone.jpg'), 'question_id {id} needs the regions of gone.jpg')])
def test_questions_that_cannot_be_asked(world, change, said):
    _, store, splits, labels = world
    broken = [splits['val'][0], change(splits['val'][1])]
    with pytest.raises(ValueError, match=said.format(id=broken[1].id)): QuestionData(broken, store, labels, start_of(store), CONFIG)


def test_no_answer_and_no_question(world, tmp_path):
    regions, store, splits, _ = world
    with pytest.raises(ValueError, match='no answer has a label'): finetune_vqa(splits['train'], {}, {}, regions, tmp_path, start_of(store), CONFIG)
    with pytest.raises(ValueError, match='there are no samples'): QuestionData([], store, {'yes': 0}, start_of(store), CONFIG)


def test_a_submission_is_a_list_of_ids_and_answers(world, tmp_path):
    _, store, splits, labels = world
    data = QuestionData(splits['test'], store, labels, start_of(store), CONFIG)
    best = [int(rng('best', i).integers(len(labels))) for i in range(len(data))]
    write_submission(torch.nn.functional.one_hot(torch.tensor(best), len(labels)).float(), data, tmp_path/'answers.json')
    assert json.loads((tmp_path/'answers.json').read_text()) == [dict(question_id=each.id, answer=list(labels)[i]) for each, i in zip(splits['test'], best)]

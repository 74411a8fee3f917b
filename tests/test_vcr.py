"Fine-tuning on VCR: objects and regions, tags, both losses, Q→AR by id, the leaderboard's table, runs that are read back, pages, and one picture."
import csv
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlground.checkpoints import load_finished
from vlground.core import load_json, torch_rng
from vlground.finetuning import FinetuneConfig
from vlground.finetuning import start_of as start_in_memory
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.regions import write_boxes
from vlground.store import Store, extract_regions
from vlground.vcr import (TASKS, ChoiceData, ChoiceModel, choice_accuracy, choice_items, choice_loss, finetune_vcr, leaderboard_rows, object_boxes, predict, predict_choices,
                          prediction_rows, write_choice_page, write_leaderboard)
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
    return start_in_memory(model)


def test_objects_are_the_first_regions_and_words_point_at_them(world):
    folder, _, store, items = world
    data = ChoiceData(items['val'], store, start_of(store), CONFIG)
    for item in items['val']:
        assert torch.allclose(store.get(item.img_fn).boxes, torch.tensor(read_vcr_objects(folder, item).boxes))
    for row, (task, choice) in enumerate(data.choices[:12]):
        for option in range(4):
            encoding = data.texts.tokenizer.encode(choice.question.text, choice.options[option].text)
            points = data.batch([row])[0].word_regions[option].tolist()
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
    assert choice_loss(logits, labels).item() == pytest.approx(-sum(chances[i, k].log().item() for i, k in enumerate(labels.tolist()))/n, rel=1e-4, abs=1e-6)
    each = logits.double().sigmoid()
    by_hand = -sum((each[i, k] if k == labels[i] else 1 - each[i, k]).log().item() for i in range(n) for k in range(4))/(4*n)
    assert choice_loss(logits, labels, 'sigmoid').item() == pytest.approx(by_hand, rel=1e-4, abs=1e-6)


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


# predictions, pages, one picture

@pytest.fixture(scope='module')
def runs(world, tmp_path_factory):
    "Three short runs: a ViLBERT that sees, a blind one, and a VL-BERT."
    _, regions, store, items = world
    folder = tmp_path_factory.mktemp('runs')
    for name, kind, blind in (('seeing', 'vilbert', False), ('blind', 'vilbert', True), ('single', 'vlbert', False)):
        finetune_vcr(items['train'], dict(val=items['val'], test=items['test'][:2]), regions, folder/name, start_of(store, kind), replace(CONFIG, blind=blind), progress='none')
    return folder


def finished_model(store, run, kind='vilbert'):
    model = ChoiceModel(start_of(store, kind))
    load_finished(model, run)
    return model


def test_predictions_are_the_chances_of_the_model_item_by_item(world, runs):
    _, _, store, items = world
    rows = [json.loads(line) for line in open(runs/'seeing'/'predictions-val.jsonl')]
    data = ChoiceData(items['val'], store, start_of(store), CONFIG)
    logits = predict_choices(finished_model(store, runs/'seeing'), data)
    assert [row['annot_id'] for row in rows] == [item.annot_id for item in items['val']]
    for row, made in zip(rows, prediction_rows(logits, data), strict=True): assert all(torch.equal(torch.tensor(row[task]), made[task]) for task in TASKS) # to the last bit
    for (task, choice), four in zip(data.choices, logits.double().softmax(1)):
        row = rows[[item.annot_id for item in items['val']].index(choice.annot_id)]
        assert row[task] == pytest.approx(four.tolist(), abs=1e-6) and sum(row[task]) == pytest.approx(1, abs=1e-5)
    assert not (runs/'seeing'/'predictions-test.jsonl').exists() # nobody knows the right answer there
    result = load_json(runs/'seeing'/'result.json')['val']
    by_id = {row['annot_id']: row for row in rows}
    right = [(by_id[item.annot_id]['answer'].index(max(by_id[item.annot_id]['answer'])) == item.answer_label,
              by_id[item.annot_id]['rationale'].index(max(by_id[item.annot_id]['rationale'])) == item.rationale_label) for item in items['val']]
    assert result['joint'] == sum(a and r for a, r in right)/len(right)


def test_a_run_describes_its_start_and_its_detector(runs):
    config = load_json(runs/'seeing'/'config.json')
    assert config['task'] == 'vcr' and config['start']['kind'] == 'vilbert' and config['made_by']['detector'] and config['made_by']['keep'] is None


def files_of(runs): return {name: runs/name/'predictions-val.jsonl' for name in ('seeing', 'blind')}


def test_choice_items_have_the_real_pictures_boxes_and_chances(world, runs, tmp_path):
    folder, _, _, items = world
    some = items['val'][5:0:-1] # another order than the file's
    found = choice_items(some, folder, files_of(runs))
    rows = {name: {row['annot_id']: row for row in map(json.loads, open(file))} for name, file in files_of(runs).items()}
    for item, made in zip(some, found, strict=True):
        assert made.image.size == read_vcr_objects(folder, item).size and made.boxes == list(read_vcr_objects(folder, item).boxes) and made.names == item.objects
        assert (made.question, made.answers, made.rationales) == (item.question, item.answer_choices, item.rationale_choices)
        assert (made.answer_label, made.rationale_label) == (item.answer_label, item.rationale_label)
        assert list(made.answer_probabilities) == ['seeing', 'blind']
        for name in rows: assert (made.answer_probabilities[name], made.rationale_probabilities[name]) == tuple(rows[name][item.annot_id][task] for task in TASKS)
    lines = open(runs/'seeing'/'predictions-val.jsonl').read().splitlines(keepends=True)
    (tmp_path/'short.jsonl').write_text(''.join(lines[:-2]))
    with pytest.raises(ValueError, match=rf'short.jsonl: it has no line for 2 of {len(items["val"])} items, the first is {items["val"][-2].annot_id}'):
        choice_items(items['val'], folder, {'model': tmp_path/'short.jsonl'})
    (tmp_path/'other.jsonl').write_text('{"question_id": 3, "answers": []}\n')
    with pytest.raises(ValueError, match='other.jsonl, line 1 .are these predictions of another task..: no field annot_id, answer, rationale'): choice_items(some, folder, {'model': tmp_path/'other.jsonl'})
    with pytest.raises(FileNotFoundError, match='none.jsonl'): choice_items(some, folder, {'model': tmp_path/'none.jsonl'})
    with pytest.raises((ValueError, FileNotFoundError), match='gone.jpg.*item val-5'): choice_items([replace(some[0], img_fn='gone.jpg')], folder, files_of(runs))


class Addresses(HTMLParser):
    "What a page asks for."
    def __init__(self):
        super().__init__()
        self.found = []
    def handle_starttag(self, tag, attributes): self.found += [value for name, value in attributes if name in ('src', 'href', 'srcset', 'data', 'poster')]


def test_a_page_shows_first_where_models_differ_and_stands_alone(world, runs, tmp_path):
    folder, _, _, items = world
    rows = {name: {row['annot_id']: row for row in map(json.loads, open(file))} for name, file in files_of(runs).items()}
    def right(name, item, task, label): return rows[name][item.annot_id][task].index(max(rows[name][item.annot_id][task])) == label
    def differs(item, tasks=TASKS): return any(right('seeing', item, task, label) != right('blind', item, task, label) for task, label in zip(tasks, (item.answer_label, item.rationale_label)))
    n = sum(map(differs, items['val']))
    assert 0 < n < len(items['val'])
    page = write_choice_page(items['val'], folder, files_of(runs), tmp_path/'page.html', count=n + 2).read_text(encoding='utf-8')
    addresses = Addresses()
    addresses.feed(page)
    assert addresses.found and all(address.startswith('data:') for address in addresses.found) and f'of {n} items; these come first' in page
    assert page == write_choice_page(items['val'][::-1], folder, files_of(runs), tmp_path/'again.html', count=n + 2).read_text(encoding='utf-8') # whatever their order
    given = json.loads(page[page.index('{"view": "choices"'):].split(', {"item"')[0].replace('\\u003c', '<'))
    labels = {(item.answer_label, item.rationale_label, json.dumps([[round(x, 4) for x in rows['seeing'][item.annot_id]['answer']]])): item for item in items['val']}
    shown = [labels[each['labels']['answers'], each['labels']['rationales'], json.dumps([[round(x, 4) for x in each['probabilities']['answers'][0]]])] for each in given['items']]
    assert len(shown) == n + 2 and all(map(differs, shown[:n])) and not any(map(differs, shown[n:]))
    about_answers = [differs(item, TASKS[:1]) for item in shown]
    assert about_answers == sorted(about_answers, reverse=True) # the page opens on the answers


def test_a_page_of_one_model_and_wrong_pages(world, runs, tmp_path):
    folder, _, _, items = world
    page = write_choice_page(items['val'], folder, {'ours': runs/'single'/'predictions-val.jsonl'}, tmp_path/'one.html').read_text(encoding='utf-8')
    assert f'12 of {len(items["val"])} choices' in page and 'A hash of their ids' in page
    with pytest.raises(ValueError, match='one or two models, got 3'): write_choice_page(items['val'], folder, dict.fromkeys('abc', runs/'single'/'predictions-val.jsonl'), tmp_path/'x.html')
    with pytest.raises(ValueError, match='at least one'): write_choice_page([], folder, files_of(runs), tmp_path/'x.html')
    assert not (tmp_path/'x.html').exists()


def one_picture(world):
    folder, _, _, items = world
    item = next(item for item in items['val'] if len(item.objects) > 3)
    return item, dict(picture=folder/'vcr1images'/item.img_fn, boxes=read_vcr_objects(folder, item).boxes, names=item.objects, question=item.question, options=item.answer_choices)


@pytest.mark.parametrize('name, kind', [('seeing', 'vilbert'), ('single', 'vlbert')])
def test_predict_says_what_the_data_set_would(world, runs, name, kind):
    _, _, store, _ = world
    item, given = one_picture(world)
    found = predict(runs/name, **given, reasons=item.rationale_choices, answer=item.answer_label)
    same = ChoiceData([replace(item, annot_id='picture')], store, start_of(store, kind), CONFIG) # names of people are drawn by the id
    answers, reasons = predict_choices(finished_model(store, runs/name, kind), same).softmax(1).tolist()
    assert found.item.answer_probabilities[name] == pytest.approx(answers, abs=1e-4) and found.item.rationale_probabilities[name] == pytest.approx(reasons, abs=1e-4)
    assert (found.best, found.explained, found.reason) == (answers.index(max(answers)), item.answer_label, reasons.index(max(reasons)))
    assert found.item.answer_label == item.answer_label and found.item.rationale_label is None
    assert found.fig().axes and found.fig('rationales').axes


def test_predict_takes_lists_pictures_in_memory_and_no_reasons(world, runs):
    item, given = one_picture(world)
    with Image.open(given['picture']) as picture: picture.load()
    def plain(text): return [token if isinstance(token, str) else list(token) for token in text]
    found = predict(runs/'seeing', **given | dict(picture=picture, boxes=torch.tensor(given['boxes']), names=list(item.objects), question=plain(item.question), options=[plain(each) for each in item.answer_choices]))
    assert found.item.answer_probabilities == predict(runs/'seeing', **given).item.answer_probabilities and found.item.question == item.question
    assert found.reason is None and found.explained is None and found.item.rationale_probabilities == {}
    with pytest.raises(ValueError, match='no reasons were asked for'): found.fig('rationales')


def test_without_a_right_answer_the_models_own_is_explained(world, runs):
    item, given = one_picture(world)
    own = predict(runs/'seeing', **given, reasons=item.rationale_choices)
    told = predict(runs/'seeing', **given, reasons=item.rationale_choices, answer=own.best)
    assert own.explained == own.best and own.item.answer_label is None and own.item.rationale_probabilities == told.item.rationale_probabilities
    others = [predict(runs/'seeing', **given, reasons=item.rationale_choices, answer=answer).item.rationale_probabilities for answer in range(4) if answer != own.best]
    assert own.item.rationale_probabilities not in others
    texts = ' '.join(text.get_text() for ax in own.fig('rationales').axes for text in ax.texts)
    assert 'The right answer is not known.' in texts


def test_a_question_about_a_picture_without_objects_and_a_blind_model(world, runs):
    picture = Image.new('RGB', (64, 48), 'white')
    texts = [('it', 'is', word, '.') for word in ('red', 'white', 'dark', 'late')]
    for name in ('seeing', 'blind'):
        found = predict(runs/name, picture, [], [], ('what', 'is', 'it', '?'), texts)
        assert sum(found.item.answer_probabilities[name]) == pytest.approx(1, abs=1e-5)
    item, given = one_picture(world)
    dark = predict(runs/'blind', **given | dict(picture=Image.new('RGB', Image.open(given['picture']).size))).item
    assert dark.answer_probabilities == predict(runs/'blind', **given).item.answer_probabilities


@pytest.mark.parametrize('change, said', [
    (dict(question=('Where', 'is', (99,), '?')), r'question: .* refers to \(99,\), and the item has'),
    (dict(question=('Where', 'is', (-1,), '?')), r'question: .* refers to \(-1,\)'),
    (dict(question='Where is it?'), 'question: expected words and tuples of object numbers'),
    (dict(question=('Where', 'is', 0, '?')), 'question: expected words and tuples of object numbers'),
    (dict(question=()), 'question says nothing'),
    (dict(options=[('a',)]*3), 'options: expected four answers to choose from, got 3'),
    (dict(options=[('a',), ('b',), ('?',), ('c',)]), r'options\[2\] says nothing'),
    (dict(reasons=[('a',)]*2), 'reasons: expected four, or none, got 2'),
    (dict(reasons=[('a',), ('b',), (), ('c',)]), r'reasons\[2\] says nothing'),
    (dict(answer=4), 'answer: expected the number of the right one, 0 to 3, or None, got 4'),
    (dict(boxes=[(0., 0., 9., 9.)]), 'names: expected 1, one for each box'),
    (dict(boxes=[(0., 0., 9., 9.)]*13, names=('person',)*13), 'boxes: 13 were given, and the model was trained to read 12 at most'),
    (dict(boxes=[(0., 0., 9., 9999.)], names=('person',)), 'boxes: box 0.*outside the picture'),
    (dict(boxes=[(9., 0., 0., 9.)], names=('person',)), 'boxes: box 0.*reversed'),
    (dict(boxes=[(0., 0., 9.)], names=('person',)), r'boxes: expected boxes of shape \(n, 4\)'),
    (dict(detector='nothing:here'), 'nothing')])
def test_wrong_questions(world, runs, change, said):
    _, given = one_picture(world)
    with pytest.raises(Exception, match=said) as told: predict(runs/'seeing', **given | change)
    if 'detector' not in change: assert told.type is ValueError and '\n' not in str(told.value)


def test_runs_that_are_not_of_this_task(world, runs, tmp_path):
    _, given = one_picture(world)
    with pytest.raises(ValueError, match='is not the folder of a fine-tuning on vcr'): predict(tmp_path, **given)
    (tmp_path/'config.json').write_text(json.dumps(load_json(runs/'seeing'/'config.json') | dict(task='vqa')))
    with pytest.raises(ValueError, match='fine-tuned on vqa, and vcr was asked for'): predict(tmp_path, **given)
    (tmp_path/'config.json').write_text((runs/'seeing'/'config.json').read_text())
    with pytest.raises(FileNotFoundError, match='has not ended'): predict(tmp_path, **given)
    with pytest.raises(ValueError, match='gone.jpg'): predict(runs/'seeing', **given | dict(picture=tmp_path/'gone.jpg'))

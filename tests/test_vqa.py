"Fine-tuning on VQA: batches, heads, the official accuracy by type, submissions, runs that are read back, and answers to look at."
import json
import re
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser

import matplotlib.colors as colors
import pytest
import torch
from browser import browser # noqa: F401
from PIL import Image

from vlground import finetuning
from vlground.core import GREEN, GREY, ORANGE, load_json, rng, torch_rng
from vlground.datasets import fraction_of
from vlground.finetuning import FinetuneConfig
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.questions import answer_vocabulary, normalise_answer, read_answers, read_vqa
from vlground.store import Store, extract_regions
from vlground.vqa import (Answered, AnswerModel, QuestionData, answer_accuracy, answer_loss, answer_rows, finetune_vqa, predict, predict_answers, surest_answers, write_answer_page,
                          write_submission)
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
    return finetuning.start_of(PretrainingModel(replace(PRESETS['mini'], backbone=kind, seed=seed), load_tokenizer().get_vocab_size(), store.feature_width, len(store.classes)))


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
    found = answer_accuracy([names[best] for best in logits.argmax(1)], data)
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
    found = predict_answers(AnswerModel(start_of(store), len(labels)), data)
    assert found[0] == found[1] == found[2]
    first, second = predict_answers(AnswerModel(start_of(store), len(labels)), QuestionData(asked, store, labels, start_of(store), CONFIG))[:2]
    assert first != second


def test_predictions_do_not_depend_on_their_neighbours(world):
    _, store, splits, labels = world
    data, model = QuestionData(splits['val'], store, labels, start_of(store), CONFIG), AnswerModel(start_of(store), len(labels))
    for few, many in zip(predict_answers(model, data, 5), predict_answers(model, data, 64), strict=True):
        assert [answer for answer, _ in few] == [answer for answer, _ in many]
        assert [chance for _, chance in few] == pytest.approx([chance for _, chance in many], abs=1e-5) and len(few) == 5
    assert model.training


@pytest.mark.parametrize('change, said', [
    (lambda each: replace(each, text='☃?'), 'question_id {id}; put it in other words or leave it out'), (lambda each: replace(each, file_name='gone.jpg'), 'question_id {id} needs the regions of gone.jpg')])
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
    write_submission([list(labels)[i] for i in best], data, tmp_path/'answers.json')
    assert json.loads((tmp_path/'answers.json').read_text()) == [dict(question_id=each.id, answer=list(labels)[i]) for each, i in zip(splits['test'], best)]


# looking at what a model says

def rows_of(file): return [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]


@pytest.fixture(scope='module')
def images(world): return world[0].parent/'W'/'images'


@pytest.fixture(scope='module')
def runs(world, tmp_path_factory):
    "Finished runs: of each backbone, and a blind one."
    regions, store, splits, labels = world
    folder = tmp_path_factory.mktemp('runs')
    for name in ('vilbert', 'vlbert', 'blind'):
        start = start_of(store, 'vilbert' if name == 'blind' else name)
        finetune_vqa(splits['train'], {split: splits[split] for split in ('val', 'test')}, labels, regions, folder/name, start, replace(CONFIG, blind=name == 'blind'), progress='none')
    return folder


def test_predictions_hold_what_was_asked_and_the_five_surest_answers(world, runs):
    _, _, splits, labels = world
    for split in ('val', 'test'):
        rows, said = rows_of(runs/'vilbert'/f'predictions-{split}.jsonl'), load_json(runs/'vilbert'/f'submission-{split}.json')
        for row, question, sent in zip(rows, splits[split], said, strict=True):
            assert list(row) == ['question_id', 'image', 'question', 'answers', 'people']
            assert (row['question_id'], row['image'], row['question'], row['people']) == (question.id, question.file_name, question.text, list(question.answers))
            assert row['answers'][0][0] == sent['answer'] and len({answer for answer, _ in row['answers']}) == 5 and {answer for answer, _ in row['answers']} <= set(labels)
            chances = [chance for _, chance in row['answers']]
            assert chances == sorted(chances, reverse=True) and all(0 <= chance <= 1 and chance == round(chance, 4) for chance in chances)
        assert all(row['people'] for row in rows) == (split == 'val')


def test_rows_agree_with_the_logits(world):
    _, store, splits, labels = world
    data = QuestionData(splits['val'][:7], store, labels, start_of(store), CONFIG)
    logits, names = 3*torch.randn(7, len(labels), generator=torch_rng('rows')), list(labels)
    for row, found in zip(logits.tolist(), answer_rows(surest_answers(logits, labels), data), strict=True):
        by_hand = sorted(((1/(1 + 2.718281828459045**-logit), name) for logit, name in zip(row, names)), reverse=True)[:5]
        assert [answer for answer, _ in found['answers']] == [name for _, name in by_hand]
        assert [chance for _, chance in found['answers']] == pytest.approx([chance for chance, _ in by_hand], abs=1e-4)


def test_of_equal_answers_the_first_is_surer_and_few_are_enough():
    assert surest_answers(torch.tensor([[1., 2., 2.]]), {'a': 0, 'b': 1, 'c': 2})[0] == [('b', pytest.approx(.8808, abs=1e-4)), ('c', pytest.approx(.8808, abs=1e-4)), ('a', pytest.approx(.7311, abs=1e-4))]
    sure = surest_answers(torch.tensor([[90., 100.], [1., 0.]]), {'a': 0, 'b': 1}, 1) # both chances of the first are 1 in 32 bits
    assert sure == [[('b', 1.)], [('a', pytest.approx(.7311, abs=1e-4))]]


@pytest.mark.parametrize('name', ['vilbert', 'vlbert', 'blind'])
def test_one_call_says_what_the_run_said(world, runs, images, name):
    rows = rows_of(runs/name/'predictions-val.jsonl')
    for row in rows[::len(rows)//3]:
        answered = predict(runs/name, images/row['image'], row['question'])
        assert answered.text == row['question'] and answered.answer == answered.answers[0] and len(answered.answers) == len(answered.chances) == min(10, len(world[3]))
        assert list(answered.answers[:5]) == [answer for answer, _ in row['answers']]
        assert answered.chances[:5] == pytest.approx([chance for _, chance in row['answers']], abs=2e-4)
    held = predict(runs/name, Image.open(images/row['image']).convert('RGBA'), row['question'])
    assert held.chances == pytest.approx(answered.chances, abs=1e-5) and held.image.mode == 'RGB' and held.image.size == answered.image.size


def test_a_blind_run_says_the_same_of_every_picture(world, runs, images):
    first, second = (predict(runs/'blind', images/world[2]['val'][i].file_name, 'how many dogs are there?') for i in (0, -1))
    assert first.chances == second.chances and first.image.tobytes() != second.image.tobytes()


def test_a_long_question_is_cut_as_in_the_training(runs, images, world):
    picture, words = images/world[2]['val'][0].file_name, 'is the dog on the chair and is the cat on the chair and is it so'
    assert predict(runs/'vlbert', picture, words).chances == pytest.approx(predict(runs/'vlbert', picture, words + ' and a red boat').chances, abs=1e-6)


@pytest.mark.parametrize('text', ['', '  ', '?!', '☃'])
def test_what_is_no_question(runs, images, world, text):
    with pytest.raises(ValueError, match='is not a question') as error: predict(runs/'vilbert', images/world[2]['val'][0].file_name, text)
    assert repr(text) in str(error.value)


def test_what_cannot_be_asked(runs, images, world, tmp_path, monkeypatch):
    picture = images/world[2]['val'][0].file_name
    with pytest.raises(ValueError, match=r"no word that the vocabulary knows.*the question '犬\?'") as error: predict(runs/'vilbert', picture, '犬?')
    assert 'question_id' not in str(error.value)
    (tmp_path/'notes.jpg').write_text('not a picture')
    with pytest.raises(ValueError, match=r'notes\.jpg: not a picture'): predict(runs/'vilbert', tmp_path/'notes.jpg', 'is it red?')
    with pytest.raises(ValueError, match=r'gone\.jpg'): predict(runs/'vilbert', tmp_path/'gone.jpg', 'is it red?')
    with pytest.raises(ValueError, match='not the folder of a fine-tuning on vqa'): predict(tmp_path, picture, 'is it red?')
    other = tmp_path/'other'
    other.mkdir()
    for name in ('config.json', 'summary.json', 'final.safetensors'): (other/name).write_bytes((runs/'vilbert'/name).read_bytes())
    with pytest.raises(FileNotFoundError, match='answers.json is missing: run this fine-tuning again'): predict(other, picture, 'is it red?')
    (other/'config.json').write_text(json.dumps(load_json(other/'config.json') | dict(task='refer')))
    with pytest.raises(ValueError, match='fine-tuned on refer, and vqa was asked for'): predict(other, picture, 'is it red?')
    (other/'config.json').write_bytes((runs/'vilbert'/'config.json').read_bytes())
    (other/'summary.json').unlink()
    with pytest.raises(FileNotFoundError, match='has not ended'): predict(other, picture, 'is it red?')


def test_the_hidden_word_needs_a_place(world):
    _, store, splits, labels = world
    with pytest.raises(ValueError, match='words is 4, and a pair of texts needs at least 5'): QuestionData(splits['val'], store, labels, start_of(store, 'vlbert'), replace(CONFIG, words=4))
    mask = load_tokenizer().token_to_id('[MASK]')
    assert (QuestionData(splits['val'], store, labels, start_of(store, 'vlbert'), replace(CONFIG, words=5)).batch(range(9))[0].input_ids == mask).sum(1).tolist() == [1]*9
    QuestionData(splits['val'], store, labels, start_of(store), replace(CONFIG, words=4))


@pytest.mark.parametrize('people', [(), ('two',)*6 + ('2',) + ('1',)*3])
def test_the_figure_marks_the_answer_and_what_people_said(people):
    answered = Answered(Image.new('RGB', (40, 30)), 'how many?', ('2', 'no', '1', 'red', '3', '4', '5'), (.9, .5, .4, .2, .1, .05, .01))
    figure = answered.fig(people)
    picture, bars = figure.axes
    assert figure._suptitle.get_text() == 'how many?' and [label.get_text() for label in bars.get_yticklabels()] == list(answered.answers[:5])
    filled = [patch for patch in bars.patches if patch.get_fill()]
    assert [patch.get_width() for patch in filled] == [.9, .5, .4, .2, .1] and bars.get_xlabel() and picture.get_xlabel()
    expected = [(GREEN, ''), (ORANGE, '//'), (GREEN, ''), (ORANGE, '//'), (ORANGE, '//')] if people else [(GREY, '')]*5
    assert [(colors.to_hex(patch.get_facecolor()), patch.get_hatch() or '') for patch in filled] == expected
    edge, = [patch for patch in bars.patches if not patch.get_fill()]
    assert edge.get_linewidth() >= 3 and edge.get_y() == filled[0].get_y() and edge.get_width() == .9
    assert bars.texts[0].get_text() == ('0.90, 7 of 10 people' if people else '0.90')
    figure.canvas.draw()


class Page(HTMLParser):
    "Tags that are open, pictures, headings, and all addresses."
    def __init__(self, text):
        super().__init__()
        self.open, self.pictures, self.addresses, self.headings, self.wrong = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, given):
        given = dict(given)
        self.addresses += [given[name] for name in ('src', 'href') if name in given]
        if tag == 'img': self.pictures.append(given)
        elif tag not in ('meta', '!doctype'): self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open[-1] != tag: self.wrong.append((self.open[-1], tag))
        self.open.pop()

    def handle_data(self, text):
        if self.open and self.open[-1] == 'h2': self.headings.append(text)


@pytest.fixture
def predictions(tmp_path):
    "Predictions about three kinds of question, and their pictures in folders: a file and a folder."
    rows = [('what is <b>on</b> the "chair"?', [['duck', .91], ['sheep', .33], ['a & b', .2], ['2', .1], ['3', .05]], ['duck']*6 + ['sheep']*2 + ['horse', 'kitten']),
            ('is it red?', [['yes', .51], ['no', .49], ['1', .01], ['2', .01], ['red', 0.]], ['no']*10),
            ('how many are there?', [['2', .99], ['3', .2], ['4', .1], ['no', .01], ['1', .01]], ['3']*7 + ['two']*2 + ['2'])]
    (tmp_path/'images'/'val2014').mkdir(parents=True)
    for i in range(3): Image.new('RGB', (900 + i, 300), (200, 40*i, 90)).save(tmp_path/'images'/'val2014'/f'{i}.jpg')
    lines = [json.dumps(dict(question_id=i, image=f'val2014/{i}.jpg', question=question, answers=answers, people=people)) for i, (question, answers, people) in enumerate(rows)]
    (tmp_path/'predictions-val.jsonl').write_text('\n'.join(lines) + '\n')
    return tmp_path/'predictions-val.jsonl', tmp_path/'images'


def test_the_page_shows_answers_verdicts_and_what_people_said(predictions, tmp_path):
    file, pictures = predictions
    text = write_answer_page(file, pictures, tmp_path/'page.html').read_text(encoding='utf-8')
    page = Page(text)
    assert page.open == [] and not page.wrong and len(page.pictures) == 3 and all(each['src'].startswith('data:image/jpeg;base64,') and each['alt'] for each in page.pictures)
    assert set(page.addresses) == {each['src'] for each in page.pictures} and 'http' not in text and '<script' not in text
    assert sorted(page.headings) == sorted(['what is <b>on</b> the "chair"?', 'is it red?', 'how many are there?']) and '<b>on' not in text
    parts = {unescape(re.search('<h2>(.*?)</h2>', part)[1]): part for part in text.split('<article>')[1:]}
    said = parts['what is <b>on</b> the "chair"?']
    assert '✓ right</strong>, accuracy 1.0' in said and 'duck (6), sheep (2), horse (1), kitten (1)' in said and 'a &amp; b' in said
    assert re.findall('<li class="(.*?)">', said) == ['said first', 'said', 'unsaid', 'unsaid', 'unsaid'] and 'width:91.0%' in said and '6 of 10' in said
    assert '✗ wrong</strong>, accuracy 0.0' in parts['is it red?'] and re.findall('<li class="(.*?)">', parts['is it red?'])[:2] == ['unsaid first', 'said']
    # compared in one form, two is 2
    assert '3 of 10' in parts['how many are there?'] and '≈ partly right</strong>, accuracy 0.9' in parts['how many are there?']
    assert f'accuracy of 3 questions is {1.9/3:.1%}' in text


def test_the_page_chooses_by_a_hash_whatever_the_order(predictions, tmp_path):
    file, pictures = predictions
    chosen = sorted(range(3), key=lambda i: sha256(str(i).encode()).hexdigest())[:2]
    def shown(): return [int(re.search(r'val2014/(\d)', each['alt'])[1]) for each in Page(write_answer_page(file, pictures, tmp_path/'page.html', 2).read_text(encoding='utf-8')).pictures]
    assert shown() == chosen
    file.write_text('\n'.join(file.read_text().splitlines()[::-1]) + '\n')
    assert shown() == chosen


def test_a_page_of_a_run_and_of_its_secret_split(runs, images, tmp_path):
    text = write_answer_page(runs/'vilbert'/'predictions-val.jsonl', images, tmp_path/'val.html', 3).read_text(encoding='utf-8')
    assert f'{load_json(runs/"vilbert"/"result.json")["val"]["all"]["accuracy"]:.1%}' in text
    text = write_answer_page(runs/'vilbert'/'predictions-test.jsonl', images, tmp_path/'test.html', 3).read_text(encoding='utf-8')
    assert text.count('What people say is secret.') == 3 and 'accuracy' not in text and 'nobody' not in text and ' of 10' not in text and text.count('<li class=" first">') == 3


@pytest.mark.browser
@pytest.mark.parametrize('width', [400, 1280])
def test_the_page_fits_in_a_browser(browser, predictions, tmp_path, width): # noqa: F811
    page, wrong = browser.new_page(viewport={'width': width, 'height': 900}), []
    page.on('console', lambda message: wrong.append(message.text))
    page.on('request', lambda request: None if request.url.startswith(('data:', 'file:')) else wrong.append(request.url))
    page.goto(write_answer_page(*predictions, tmp_path/'page.html').as_uri())
    assert not wrong and page.evaluate('document.documentElement.scrollWidth') <= width
    assert page.evaluate('[...document.images].every(image => image.naturalWidth && image.getBoundingClientRect().right <= innerWidth)')
    tracks = page.evaluate('[...document.querySelectorAll("article .track")].map(track => track.getBoundingClientRect().width)')
    assert len(tracks) == 15 and min(tracks) >= 48
    bars = page.evaluate('[...document.querySelectorAll("article .track i")].map(bar => bar.getBoundingClientRect().width/bar.parentElement.getBoundingClientRect().width)')
    assert max(bars) == pytest.approx(.99, abs=.01)
    side_by_side = page.evaluate('document.querySelector("article h2").getBoundingClientRect().left >= document.querySelector("article img").getBoundingClientRect().right')
    assert side_by_side == (width > 640)
    page.close()


def test_pages_that_cannot_be_made(predictions, tmp_path):
    file, pictures = predictions
    lines = file.read_text().splitlines()
    def refused(text, kind=ValueError, **changes):
        with pytest.raises(kind, match=text): write_answer_page(**dict(predictions=file, images=pictures, file=tmp_path/'page.html') | changes)
        assert not (tmp_path/'page.html').exists()
    refused('gone.jsonl: there are no predictions', FileNotFoundError, predictions=tmp_path/'gone.jsonl')
    refused('count must be at least 1 question, got 0', count=0)
    file.write_text(lines[0] + '\n{"question_id": 3\n')
    refused('predictions-val.jsonl, line 2: not JSON')
    file.write_text(lines[0] + '\n{"sent_id": 3, "image": "0.jpg"}\n')
    refused('line 2 .are these predictions of another task..: no field question_id, question, answers, people')
    file.write_text(json.dumps(json.loads(lines[0]) | dict(answers=[])) + '\n')
    refused('question_id 0 has no answers')
    file.write_text('')
    refused('predictions-val.jsonl: it holds no predictions')
    file.write_text(lines[0] + '\n')
    (pictures/'val2014'/'0.jpg').write_text('not a picture')
    refused('val2014/0.jpg, the picture of question_id 0: not a picture')
    (pictures/'val2014'/'0.jpg').unlink()
    refused('there is no val2014/0.jpg, which question_id 0 of .* is about', FileNotFoundError)

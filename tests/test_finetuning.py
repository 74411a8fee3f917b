"What the tasks share: starts, texts about pictures, rates, and a run that ends with the same bits after kills."
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from vlground import vilbert, vlbert
from vlground.checkpoints import load_finished
from vlground.core import load_json, save_json
from vlground import finetuning
from vlground.finetuning import (FinetuneConfig, PictureTexts, chosen_by_hash, describe_run, dropping, figure_part, finetune, freeze_unreached, fresh_start, in_float32, look_at, of_fraction, open_finished,
                                 open_start, read_predictions, score_all, write_figures, write_predictions)
from vlground.logs import read_log
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.store import Store

TOKENIZER = load_tokenizer()


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions, in_memory=True)


def start_of(store, kind='vilbert', seed=0):
    model = PretrainingModel(replace(PRESETS['mini'], backbone=kind, seed=seed), TOKENIZER.get_vocab_size(), store.feature_width, len(store.classes))
    return finetuning.start_of(model)


def texts_of(store, texts, images=None, **options):
    images = images or store.ids[:len(texts)]
    return PictureTexts(texts, images, [f'sample {i}' for i in range(len(texts))], store, TOKENIZER, regions=6, **options)


# starts

def test_a_published_checkpoint_is_a_start(tmp_path, monkeypatch):
    for kind, module, shape, build in (('vilbert', vilbert, vilbert.ViLBERTConfig.tiny(), vilbert.ViLBERT), ('vlbert', vlbert, vlbert.VLBERTConfig.tiny(), vlbert.VLBERT)):
        model = build(shape)
        heads = vilbert.PretrainingHeads(model, shape.region_classes) if kind == 'vilbert' else vlbert.vlbert_heads(model)
        save_file({name: tensor.contiguous().clone() for name, tensor in module.to_reference(model, heads).items()}, tmp_path/f'{kind}.safetensors')
        load = module.load_reference
        monkeypatch.setattr(module, 'load_reference', lambda file, load=load, shape=shape: load(file, shape))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore') # the published ViLBERT has weights that it never uses
            start = open_start(f'{kind}:{tmp_path}/{kind}.safetensors')
        assert (start.kind, start.tokenizer) == (kind, 'bert-base-uncased') and start.max_words == shape.max_words - 2*(kind == 'vlbert')
        for name, weight in model.state_dict().items(): assert torch.equal(start.backbone.state_dict()[name], weight)


def test_what_is_no_start(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such checkpoint of the published vlbert'): open_start('vlbert:nowhere.bin')
    with pytest.raises(FileNotFoundError, match='not the folder of a pre-training'): open_start(tmp_path)


# texts

def test_a_batch_is_what_the_store_and_the_tokenizer_say(store):
    texts = ['a red dog', 'the cat that is on the table', 'a boat']
    data = texts_of(store, texts)
    batch, seen = data.batch([2, 1]), store.batch(torch.tensor([2, 1]), 6, targets=False)
    assert torch.equal(batch.features, seen.features) and torch.equal(batch.locations, seen.locations) and torch.equal(batch.region_mask, seen.mask)
    for row, i in enumerate((2, 1)):
        ids = TOKENIZER.encode(texts[i]).ids
        assert batch.input_ids[row, :len(ids)].tolist() == ids and batch.word_mask[row].sum() == len(ids)
    assert batch.word_regions is None and not batch.segment_ids.any() and len(data) == 3


def test_pairs_are_two_segments_and_cut_where_they_are_longer(store):
    data = texts_of(store, [('a dog', 'a very small red boat on a table near a house')]*2, words=9)
    batch = data.batch([0])
    assert batch.input_ids.shape[1] == 9 and data.tokens(0)[:4] == ['[CLS]', 'a', 'dog', '[SEP]'] and data.tokens(0)[-1] == '[SEP]'
    assert batch.segment_ids[0].tolist() == [0]*4 + [1]*5
    assert TOKENIZER.truncation is None # the tokenizer that was given stays as it was


@given(st.integers(0, 1), st.integers(0, 3), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_words_point_at_regions(store, sequence, word, region):
    pair = ('a red dog here', 'two small cats there')
    starts = [0, *(i + 1 for i, letter in enumerate(pair[sequence]) if letter == ' ')]
    end = (pair[sequence] + ' ').index(' ', starts[word])
    data = texts_of(store, [pair], pointing=[[(sequence, starts[word], end, region)]])
    batch, encoding = data.batch([0]), data.tokenizer.encode(*pair)
    pointed = {(of, at) for (first, last), of, points in zip(encoding.offsets, encoding.sequence_ids, batch.word_regions[0].tolist()) if points for at in range(first, last)}
    assert set(batch.word_regions[0].tolist()) == {0, region} and pointed == {(sequence, at) for at in range(starts[word], end)}


def test_a_word_that_points_changes_what_vlbert_sees_and_not_what_vilbert_sees(store):
    batches = [texts_of(store, ['a red dog'], pointing=[points]).batch([0]) for points in ([], [(0, 6, 9, 2)])]
    for kind, changes in (('vilbert', False), ('vlbert', True)):
        backbone = start_of(store, kind).backbone
        if kind == 'vlbert': nn.init.ones_(backbone.look_words.weight) # at 0, as it begins, no word shows anything
        first, second = (backbone(batch).words for batch in batches)
        assert torch.equal(first, second) != changes
    whole = texts_of(store, ['a red dog']).batch([0])
    backbone = start_of(store, 'vlbert').backbone
    assert torch.equal(backbone(whole).words, backbone(batches[0]).words) # pointing nowhere is showing the whole picture


def test_blind_batches_hold_nothing_of_the_picture(store):
    first, second = (texts_of(store, ['a dog'], [store.ids[i]], blind=True, pointing=[[(0, 2, 5, 3)]]).batch([0]) for i in (0, 5))
    assert torch.equal(first.features, second.features) and not first.features.any() and not first.locations.any() and first.word_regions is None
    assert first.region_mask.tolist() == [[True]] and start_of(store).backbone(first).words.isfinite().all()


@pytest.mark.parametrize('change, said', [
    (dict(texts=['', 'a dog']), '1 texts have no word that the vocabulary knows, the first is that of sample 0'),
    (dict(texts=['a dog', '☃ ☃']), 'the first is that of sample 1'),
    (dict(images=['one.jpg', 'one.jpg']), '1 pictures have no regions; sample 0 needs the regions of one.jpg; run vlground_regions'),
    (dict(images=['one.jpg']), 'images: expected one for each of 2 texts, got 1'),
    (dict(texts=[], images=[]), 'there are no samples: check the split and the fraction')])
def test_samples_that_cannot_be_used(store, change, said):
    given = dict(texts=['a dog', 'a cat'], images=store.ids[:2]) | change
    with pytest.raises(ValueError, match=said.replace('(', r'\(')): PictureTexts(given['texts'], given['images'], ['sample 0', 'sample 1'], store, TOKENIZER)


# rates

@given(st.integers(10, 2000), st.floats(0, .5), st.lists(st.floats(.51, .99), max_size=3))
def test_the_rate_rises_stays_and_drops(steps, warmup, drops):
    course = dropping(FinetuneConfig(warmup=warmup, drops=tuple(sorted(drops))), steps)
    if not drops: return
    factors = [course(step) for step in range(steps)]
    rising = round(warmup*steps)
    assert all(b > a for a, b in zip(factors[:rising], factors[1:rising])) and factors[max(0, rising - 1)] == 1
    for step in range(rising, steps): assert factors[step] == pytest.approx(.1**sum(step >= drop*steps for drop in drops))


@pytest.mark.parametrize('change, said', [(dict(fraction=0.), 'fraction must be above 0'), (dict(words=2), 'words must be at least 3'), (dict(regions=0), 'regions must be at least 1'),
    (dict(epochs=-1.), 'epochs must be 0 or more'), (dict(head_rate=-1.), 'head_rate must be 0 or more'), (dict(drops=(.5, 1.)), 'drops must be rising shares'), (dict(drops=(.7, .5)), 'drops must be rising')])
def test_settings_that_make_no_sense(change, said):
    with pytest.raises(ValueError, match=said): FinetuneConfig(**change)


# the run

class Toy(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.backbone, self.head = start.backbone, nn.Linear(start.backbone.region_width, 1)

    def forward(self, batch): return self.head(self.backbone(batch).regions[:, 0])[:, 0]


class Parity:
    def __init__(self, store, count=12): self.texts, self.count = texts_of(store, [f'the {word} dog' for word in ('red', 'blue')*6]), count
    def __len__(self): return self.count
    def name(self, i): return f'sample {i}'
    def batch(self, rows): return self.texts.batch([i % 12 for i in rows]), torch.tensor([float(i % 2) for i in rows])


def loss(model, made): return nn.functional.binary_cross_entropy_with_logits(model(made[0]), made[1])


def trained(store, out, workers=0, accept_changes=False, **options):
    torch.manual_seed(0)
    model = Toy(start_of(store))
    told = describe_run('toy', start_of(store), store, samples=12)
    return model, finetune(model, Parity(store), loss, None, out, FinetuneConfig(steps=20, batch_size=6, **options), told, progress='none', accept_changes=accept_changes, workers=workers)


def test_two_rates(store, tmp_path):
    still, _ = trained(store, tmp_path/'a', head_rate=0.)
    torch.manual_seed(0)
    before = Toy(start_of(store))
    assert torch.equal(still.head.weight, before.head.weight) and not torch.equal(still.backbone.text.words.weight, before.backbone.text.words.weight)
    moved, _ = trained(store, tmp_path/'b', head_rate=1.)
    assert not torch.equal(moved.head.weight, before.head.weight)
    assert load_json(tmp_path/'a'/'config.json')['finetune']['head_rate'] == 0


def test_epochs_are_passes_over_the_samples(store, tmp_path):
    torch.manual_seed(0)
    summary = finetune(Toy(start_of(store)), Parity(store), loss, None, tmp_path, FinetuneConfig(epochs=2.5, batch_size=6), {}, progress='none')
    assert summary['steps'] == 5


def test_workers_and_parts_of_a_batch_change_nothing(store, tmp_path):
    model, _ = trained(store, tmp_path/'whole')
    ahead, _ = trained(store, tmp_path/'ahead', workers=2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), ahead.state_dict().values()))
    parts, summary = trained(store, tmp_path/'parts', accumulate=3)
    assert summary['steps'] == 20
    for a, b in zip(model.state_dict().values(), parts.state_dict().values()): torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize('samples, every, measured', [(12, None, [200, 230]), (215, None, [215, 230]), (12, 90, [90, 180, 230]), (12, 0, [230])])
def test_when_a_run_is_measured(store, tmp_path, samples, every, measured):
    how = FinetuneConfig(steps=230, batch_size=1, words=8)
    finetune(Toy(start_of(store)), Parity(store, samples), loss, lambda model: {'one': 1.}, tmp_path, how, {}, every, progress='none')
    assert [line['step'] for line in read_log(tmp_path) if 'evaluation' in line] == measured


def test_samples_of_a_broken_step_are_named(store, tmp_path):
    class Broken(Parity): # the numbers of sample 7 are no numbers
        def batch(self, rows):
            batch, targets = super().batch(rows)
            return batch, torch.where(torch.tensor([i == 7 for i in rows]), torch.nan, targets)
    finetune(Toy(start_of(store)), Broken(store), loss, None, tmp_path, FinetuneConfig(steps=4, batch_size=6), {}, progress='none')
    skipped = [line for line in read_log(tmp_path) if 'skipped' in line]
    assert len(skipped) == 2 and all('sample 7' in line['samples'] and len(line['samples']) == 6 for line in skipped) # once in each pass


def test_a_worker_that_dies_names_its_samples(store, tmp_path):
    class Broken(Parity):
        def batch(self, rows):
            if 7 in rows: os._exit(1)
            return super().batch(rows)
    with pytest.raises(ChildProcessError, match='sample 7'):
        finetune(Toy(start_of(store)), Broken(store), loss, None, tmp_path, FinetuneConfig(steps=4, batch_size=6), {}, progress='none', workers=1)


def test_other_settings_leave_nothing_of_the_run_before(store, tmp_path):
    trained(store, tmp_path)
    left = [tmp_path/name for name in ('result.json', 'predictions-val.jsonl', 'submission-test.json', 'leaderboard-test.csv')]
    for file in left: file.write_text('{}')
    with pytest.raises(ValueError, match='learning_rate'): trained(store, tmp_path, learning_rate=.5)
    assert all(file.exists() for file in left), 'refused: nothing is lost'
    trained(store, tmp_path, learning_rate=.5, accept_changes=True)
    assert not any(file.exists() for file in left)


def test_workers_that_do_not_fork(store, small_regions, tmp_path):
    _, summary = trained(store, tmp_path/'here')
    (tmp_path/'afresh.py').write_text(f'''
import multiprocessing, sys, torch
sys.path.insert(0, {os.path.dirname(__file__)!r})
from vlground.store import Store
from test_finetuning import trained
if __name__ == '__main__':
    multiprocessing.set_start_method('spawn')
    torch.set_num_threads(1)
    print(trained(Store({str(small_regions)!r}, in_memory=True), {str(tmp_path/'there')!r}, workers=1)[1]['sha256'])
''')
    said = subprocess.run([sys.executable, tmp_path/'afresh.py'], capture_output=True, text=True, timeout=240)
    assert said.stdout.split()[-1:] == [summary['sha256']], said.stderr


def test_a_head_answers_in_float32():
    head, states = nn.Linear(8, 3), torch.randn(5, 8)
    with torch.autocast('cpu', torch.bfloat16):
        assert head(states).dtype == torch.bfloat16
        torch.testing.assert_close(in_float32(head, states), (states.double() @ head.weight.double().T + head.bias.double()).float(), atol=1e-6, rtol=1e-5)
        assert in_float32(head, states.bfloat16()).dtype == torch.float32


def test_a_finished_run_is_read_back_and_another_start_is_refused(store, tmp_path):
    first, summary = trained(store, tmp_path)
    again, same = trained(store, tmp_path)
    assert summary == same and torch.equal(first.head.weight, again.head.weight)
    with pytest.raises(ValueError, match='learning_rate'): trained(store, tmp_path, learning_rate=.5)


def test_what_the_loss_does_not_reach_is_left_alone(store):
    model = Toy(start_of(store))
    left_out = freeze_unreached(model, loss(model, Parity(store).batch([0, 1])))
    assert any('pooler' in name for name in left_out) and not any(name.startswith('head') for name in left_out)
    assert freeze_unreached(model, loss(model, Parity(store).batch([0, 1]))) == []


# what a run leaves, and what opens it again

@pytest.mark.parametrize('kind', ['vilbert', 'vlbert'])
def test_a_start_is_made_again_from_its_description(store, kind):
    start = start_of(store, kind)
    described = json.loads(json.dumps(start.described()))
    again, twin, other = fresh_start(described, 3), fresh_start(described, 3), fresh_start(described, 4)
    assert again.described() == start.described() and again.max_words == start.max_words
    weights = [next(each.backbone.parameters()) for each in (again, twin, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with torch.inference_mode(): # not the same weights, the same model
        again.backbone.load_state_dict(start.backbone.state_dict())
        batch = texts_of(store, ['a red dog', 'a cat']).batch([0, 1])
        assert torch.equal(again.backbone.eval()(batch).regions, start.backbone.eval()(batch).regions)


def test_a_finished_run_is_opened_without_what_it_started_from(store, tmp_path):
    model, _ = trained(store, tmp_path)
    finished = open_finished(tmp_path, 'toy')
    again = Toy(finished.start)
    load_finished(again, finished.folder)
    assert finished.config == FinetuneConfig(steps=20, batch_size=6) and finished.detector == store.manifest['made_by']['detector']
    assert torch.equal(torch.stack(score_all(again, Parity(store))), torch.stack(score_all(model, Parity(store))))
    further = open_start(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(further.backbone.state_dict().values(), model.backbone.state_dict().values()))


def test_what_is_no_finished_run(store, tmp_path):
    with pytest.raises(ValueError, match='not the folder of a fine-tuning on vqa'): open_finished(tmp_path/'nothing', 'vqa')
    trained(store, tmp_path/'run')
    with pytest.raises(ValueError, match='fine-tuned on toy, and vcr was asked for'): open_finished(tmp_path/'run', 'vcr')
    config = load_json(tmp_path/'run'/'config.json')
    save_json(config | dict(finetune=config['finetune'] | dict(cosine=True)), tmp_path/'run'/'config.json') # as another version of the package might write it
    with pytest.raises(ValueError, match="config.json: FinetuneConfig has no 'cosine'; it has fraction"): open_finished(tmp_path/'run')
    save_json(config, tmp_path/'run'/'config.json')
    (tmp_path/'run'/'summary.json').unlink()
    with pytest.raises(FileNotFoundError, match='has not ended; run it again'): open_finished(tmp_path/'run')
    with pytest.raises(FileNotFoundError, match='has not ended'): open_start(tmp_path/'run')


def test_weights_that_changed_since_are_refused(store, tmp_path):
    trained(store, tmp_path)
    (tmp_path/'final.safetensors').write_bytes(b'something else')
    with pytest.raises(ValueError, match='missing or changed since the run ended'): open_start(tmp_path)


def test_scores_are_without_dropout_and_leave_the_model_as_it_was(store):
    model, data = Toy(start_of(store)), Parity(store)
    model.head = nn.Sequential(nn.Dropout(.5), model.head)
    for training in (True, False):
        model.train(training)
        first, second = score_all(model, data, 12), score_all(model, data, 5)
        assert model.training is training and len(first) == 12 and first[0].dtype == torch.float32
        torch.testing.assert_close(torch.stack(first), torch.stack(second), atol=1e-5, rtol=1e-4)
    half = score_all(model, data, precision='bfloat16')
    assert half[0].dtype == torch.float32 and 0 < (torch.stack(half) - torch.stack(first)).abs().max() < .1
    assert score_all(model, data, 5, keep=lambda logits: logits.sign().tolist()) == torch.stack(first).sign().tolist()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.sampled_from([1., .5, .25, .125]))
def test_a_fraction_takes_whole_pictures(pictures, fraction):
    samples = list(enumerate(pictures))
    kept = of_fraction(samples, lambda each: str(each[1]), fraction)
    assert {picture for _, picture in kept}.isdisjoint({picture for each, picture in samples if (each, picture) not in kept}) and kept == sorted(kept)
    assert set(of_fraction(samples, lambda each: str(each[1]), fraction/2)) <= set(kept) and (fraction < 1 or kept == samples)


def test_a_picture_is_described_as_the_store_has_it(store, small_world, tmp_path):
    trained(store, tmp_path/'run')
    finished, id = open_finished(tmp_path/'run'), store.ids[3]
    for picture in (small_world/'images'/id, Image.open(small_world/'images'/id)):
        alone = look_at(picture, finished)
        torch.testing.assert_close(alone[0].boxes, store.get(id).boxes, atol=.01, rtol=0)
        torch.testing.assert_close(alone[0].features.float(), store.get(id).features.float(), atol=.02, rtol=.02)
    given_boxes = torch.tensor([[10., 20, 60, 90], [0, 0, 256, 256]])
    assert torch.equal(look_at(small_world/'images'/id, finished, boxes=given_boxes)[0].boxes, given_boxes)
    with pytest.raises(ValueError, match='was trained on regions of another-1'): look_at(small_world/'images'/id, replace(finished, detector='another-1'))
    with pytest.raises(ValueError, match='nowhere.jpg: '): look_at(tmp_path/'nowhere.jpg', finished)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5), max_size=4), min_size=1, max_size=6))
def test_predictions_are_read_as_they_were_written(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp('predictions')/'rows.jsonl'
    write_predictions(rows, file)
    assert read_predictions(file) == rows


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_tensors_are_read_back_to_the_last_bit(tmp_path_factory, numbers):
    file, scores = tmp_path_factory.mktemp('predictions')/'rows.jsonl', torch.tensor([numbers, numbers[::-1]])
    write_predictions([dict(id=1, scores=scores, one=scores[0, 0], labels=torch.tensor([2**40 + 1, 3]))], file)
    row = read_predictions(file)[0]
    assert row['labels'] == [2**40 + 1, 3] and torch.tensor(row['one']) == scores[0, 0]
    assert torch.equal(torch.tensor(read_predictions(file, dict(id=int, scores=list))[0]['scores']), scores)


def test_predictions_of_something_else(tmp_path):
    write_predictions([dict(id=1), dict(id='two')], tmp_path/'rows.jsonl')
    with pytest.raises(ValueError, match="rows.jsonl, line 2 .are these predictions of another task..: id must be a whole number, got 'two'"): read_predictions(tmp_path/'rows.jsonl', dict(id=int))
    (tmp_path/'rows.jsonl').write_text('')
    with pytest.raises(ValueError, match='rows.jsonl: it holds no predictions; run the fine-tuning again'): read_predictions(tmp_path/'rows.jsonl')


def test_predictions_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='rows.jsonl: there are no predictions'): read_predictions(tmp_path/'rows.jsonl')


def test_examples_do_not_depend_on_order_or_scores():
    rows = [dict(id=i, score=i/7) for i in range(50)]
    chosen = [row['id'] for row in chosen_by_hash(rows, 8)]
    assert [row['id'] for row in chosen_by_hash([row | dict(score=0) for row in reversed(rows)], 8)] == chosen and len(set(chosen)) == 8
    assert chosen != sorted(chosen) and len(chosen_by_hash(rows, 80)) == 50


def test_a_page_of_figures_carries_them_and_escapes_its_words(tmp_path):
    def figure(): return plt.subplots(figsize=(1, 1))[0]
    page = write_figures({'<1>': figure(), 'two': figure()}, tmp_path/'page.html', 'A & B', 'x < y').read_text(encoding='utf-8')
    assert page.count('src="data:image/png;base64,') == 2 and '&lt;1&gt;' in page and 'A &amp; B' in page and '<1>' not in page and 'http' not in page
    assert figure_part(figure(), 'says "so"').startswith('<img alt="says &quot;so&quot;"')

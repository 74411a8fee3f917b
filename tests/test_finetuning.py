"What the tasks share: starts, texts about pictures, rates, and a run that ends with the same bits after kills."
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from vlground import vilbert, vlbert
from vlground.core import load_json
from vlground.finetuning import FinetuneConfig, PictureTexts, Start, dropping, finetune, freeze_unreached, open_start
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel
from vlground.store import Store

TOKENIZER = load_tokenizer()


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions, in_memory=True)


def start_of(store, kind='vilbert', seed=0):
    model = PretrainingModel(replace(PRESETS['mini'], backbone=kind, seed=seed), TOKENIZER.get_vocab_size(), store.feature_width, len(store.classes))
    return Start(model.backbone, kind, model.shape.spread, 'world', 60)


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
    assert batch.input_ids.shape[1] == 9 and data.encodings[0].tokens[:4] == ['[CLS]', 'a', 'dog', '[SEP]'] and data.encodings[0].tokens[-1] == '[SEP]'
    assert batch.segment_ids[0].tolist() == [0]*4 + [1]*5
    assert TOKENIZER.truncation is None # the tokenizer that was given stays as it was


@given(st.integers(0, 1), st.integers(0, 3), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_words_point_at_regions(store, sequence, word, region):
    pair = ('a red dog here', 'two small cats there')
    starts = [0, *(i + 1 for i, letter in enumerate(pair[sequence]) if letter == ' ')]
    end = (pair[sequence] + ' ').index(' ', starts[word])
    data = texts_of(store, [pair], pointing=[[(sequence, starts[word], end, region)]])
    batch, encoding = data.batch([0]), data.encodings[0]
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
    def __init__(self, store): self.texts = texts_of(store, [f'the {word} dog' for word in ('red', 'blue')*6])
    def __len__(self): return 12
    def batch(self, rows): return self.texts.batch(rows), torch.tensor([float(i % 2) for i in rows])


def loss(model, made): return nn.functional.binary_cross_entropy_with_logits(model(made[0]), made[1])


def trained(store, out, **options):
    torch.manual_seed(0)
    model = Toy(start_of(store))
    return model, finetune(model, Parity(store), loss, None, out, FinetuneConfig(steps=20, batch_size=6, **options), {}, progress='none')


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

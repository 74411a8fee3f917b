"Pre-training: the batch of a step, who is grounded and who is not, arms that differ in the loss alone, and run folders that say what is wrong."
from collections import Counter
from dataclasses import asdict, replace
from shutil import copytree

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import contents
from torch import nn

from vlground.boxes import box_iou
from vlground.core import load_json, save_json, torch_rng
from vlground.datasets import fraction_of, read_captions
from vlground.objectives import pretraining_losses
from vlground.phrases import Phrase, load_tokenizer
from vlground.batches import BatchConfig, CaptionData, TrainingBatches
from vlground.pretrain import PRESETS, PretrainConfig, PretrainingModel, build_model, gold_captions, load_start, measure_model, new_model, pretrain, training_of
from vlground.pseudolabels import LabelledCaption, PseudoLabel, read_gold, read_labels
from vlground.scaleout import label_captions
from vlground.store import Store, extract_regions
from vlground.logs import read_log

MINI = PRESETS['mini']


@pytest.fixture(scope='module')
def store(small_regions): return Store(small_regions, in_memory=True)


@pytest.fixture(scope='module')
def labelled(small_labels): return read_labels(small_labels)


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


@pytest.fixture(scope='module')
def data(store, labelled, tokenizer): return CaptionData(store, labelled, tokenizer, words=24, regions=8)


@pytest.fixture(scope='module')
def held_out(small_world):
    items = read_captions(small_world/'captions-val.tsv', small_world/'images')
    return gold_captions([LabelledCaption(item.id, item.image_id, item.caption, ()) for item in items], read_gold(small_world/'gold'/'captions-val.jsonl'))


def sizes(store, tokenizer): return dict(vocabulary=tokenizer.get_vocab_size(), feature_width=store.feature_width, region_classes=len(store.classes))


def same(a, b): # two batches
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x is y for x, y in zip(vars(a).values(), vars(b).values()))


def made(data, step, size, seed, **settings):
    "The batch of a step, as the model gets it."
    return TrainingBatches(data, size, seed, BatchConfig(**settings))(step).to('cpu')


def row_of(data, batch, sample):
    "Which caption's pieces a sample shows, where nothing is masked: its place in the data."
    shown = torch.where(batch.word_labels[sample] >= 0, batch.word_labels[sample], batch.input_ids[sample])
    return [i for i in range(len(data)) if shown[shown > 0].tolist() == data.pieces(i).tolist()]


# batches

@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 10**6))
@settings(max_examples=15)
def test_a_batch_depends_on_its_step_alone(data, step, size, seed):
    assert same(made(data, step, size, seed), made(data, step, size, seed))
    made(data, step + 1, size, seed)
    assert not same(made(data, step, size, seed), made(data, step + 1, size, seed)) or size == 1
    assert not same(made(data, step, size, seed), made(data, step, size, seed + 1)) or size == 1


def pictures_of(data, batch):
    "Which picture each sample shows, told by its locations."
    every = data.plain(range(len(data))).locations
    wide = batch.locations.shape[1]
    return [next(i for i, one in enumerate(every) if torch.equal(one[:wide], each)) for each in batch.locations]


def test_an_epoch_shows_every_picture_once_in_another_order_each_time(data):
    epochs = [[i for step in range(5*epoch, 5*epoch + 5) for i in pictures_of(data, made(data, step, 8, 0))] for epoch in range(2)]
    assert all(sorted(seen) == list(range(40)) for seen in epochs) and epochs[0] != epochs[1]
    # steps need not divide the epoch
    assert Counter(i for step in range(40) for i in pictures_of(data, made(data, step, 7, 0))) == Counter(list(range(40))*7)


def test_half_of_the_captions_are_wrong_and_said_to_be(data):
    own = wrong = 0
    for step in range(12):
        batch = made(data, step, 20, 1)
        for sample, picture in enumerate(pictures_of(data, batch)):
            shown = row_of(data, batch, sample)
            assert shown, 'the caption of no picture'
            if batch.aligned[sample]: assert picture in shown
            own, wrong = own + bool(batch.aligned[sample]), wrong + (picture not in shown)
    assert 90 < own < 150 and 240 - own - wrong < 12 # now and then the wrong caption is the same


def test_only_true_captions_are_grounded(data):
    for step in range(10):
        batch = made(data, step, 16, 2)
        assert batch.aligned[batch.spans[:, 0]].all() and batch.aligned[batch.pair_samples].all()
        assert (batch.spans[batch.pair_rows, 0] == batch.pair_samples).all()
    assert not batch.aligned.all() and len(batch.pair_rows)


@pytest.mark.parametrize('level', ['phrase', 'token'])
@pytest.mark.parametrize('cap', [None, 2])
def test_pairs_say_what_the_labels_say(store, labelled, tokenizer, level, cap):
    data = CaptionData(store, labelled, tokenizer, 24, 8, level=level, cap=cap)
    for step in range(4):
        batch = made(data, step, 20, 3)
        rows = [(i, *span) for i, span in enumerate(batch.spans.tolist())]
        if level == 'token': rows = [(i, sample, piece, piece + 1) for i, sample, first, last in rows for piece in range(first, last)]
        pictures, drawn = pictures_of(data, batch), Counter()
        for sample, row, region, label in zip(*(getattr(batch, f'pair_{name}').tolist() for name in ('samples', 'rows', 'regions', 'labels'))):
            each = labelled[pictures[sample]]
            phrase, owner, first, last = rows[row]
            encoding = tokenizer.encode(each.caption)
            start, end = encoding.offsets[batch.spans[phrase, 1]][0], encoding.offsets[batch.spans[phrase, 2] - 1][1]
            mine, = [one for one in each.labels if (one.phrase.start, one.phrase.end) == (start, end)]
            iou = box_iou(torch.tensor([mine.box]), store.get(each.image_id).boxes[[region - 1]])[0, 0]
            assert owner == sample and bool(iou > .5) == bool(label)
            drawn[sample, label] += 1
        for sample in {sample for sample, _ in drawn}:
            assert drawn[sample, 0.] == drawn[sample, 1.] and (cap is None or drawn[sample, 1.] <= cap)


def test_what_is_masked_can_be_told_from_what_is_not(data):
    batch = made(data, 0, 40, 5)
    whole = data.plain(pictures_of(data, batch))
    chosen = batch.word_labels >= 0
    assert 20 < chosen.sum() < 120 and (batch.input_ids[chosen] == 4).float().mean() > .6 # [MASK]
    assert not (chosen & ~batch.word_mask).any() and not chosen[:, 0].any()
    hidden = (batch.features == 0).all(2) & batch.region_mask
    assert hidden.any() and not (hidden & ~batch.region_labels).any() and not batch.region_labels[:, 0].any()
    assert torch.equal(batch.locations, whole.locations) and torch.equal(batch.region_targets[batch.region_labels], whole.region_targets[batch.region_labels])


@pytest.mark.fault(9)
def test_captions_without_phrases_cost_nothing(store, labelled, tokenizer):
    silent = CaptionData(store, [replace(each, labels=()) for each in labelled[:4]], tokenizer, 24, 8)
    batch = made(silent, 0, 4, 0)
    assert len(batch.spans) == len(batch.pair_rows) == 0
    model = PretrainingModel(MINI, **sizes(store, tokenizer))
    losses = model(batch)
    assert losses['grounding'] == 0 and losses['loss'].isfinite()
    losses['loss'].backward()
    assert all((weight.grad == 0).all() for weight in model.grounding.parameters())


@pytest.mark.fault(9)
def test_phrases_that_the_longest_caption_cuts_are_dropped_and_counted(store, labelled, tokenizer):
    total = sum(len(each.labels) for each in labelled)
    for words in (6, 9, 24):
        data = CaptionData(store, labelled, tokenizer, words, 8)
        assert data.cut + sum(len(data.phrases(i)[0]) for i in range(len(data))) == total and max(len(data.pieces(i)) for i in range(len(data))) <= words
        assert all((data.phrases(i)[0][:, 1] <= words - 1).all() for i in range(len(data))) # before [SEP]
    assert CaptionData(store, labelled, tokenizer, 6, 8).cut > CaptionData(store, labelled, tokenizer, 9, 8).cut > 0


def test_captions_of_pictures_without_regions(store, labelled, tokenizer):
    with pytest.raises(ValueError, match="no regions of 1 labelled pictures, the first is x.jpg"): CaptionData(store, [replace(labelled[0], image_id='x.jpg')], tokenizer)
    with pytest.raises(ValueError, match='no labelled captions'): CaptionData(store, [], tokenizer)


# arms

def test_arms_begin_alike_and_ask_the_same_of_words_and_regions(data, store, tokenizer):
    ours, base = (PretrainingModel(replace(MINI, grounding=level), **sizes(store, tokenizer)) for level in ('phrase', 'none'))
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in base.state_dict().items())
    batch = made(data, 0, 16, 0)
    a, b = ours(batch), base(batch)
    assert all(torch.equal(a[name], b[name]) for name in ('word', 'region', 'alignment'))
    assert b['grounding'] == 0 < a['grounding'] and torch.isclose(a['loss'], b['loss'] + 20*a['grounding'])


def test_a_grounding_loss_of_weight_zero_is_the_baseline_to_the_last_bit(small_regions, small_labels, tmp_path):
    few = replace(MINI, steps=4, batch_size=8, regions=8)
    ours = pretrain(small_regions, small_labels, tmp_path/'ours', replace(few, grounding_weight=0.), progress='none')
    base = pretrain(small_regions, small_labels, tmp_path/'base', replace(few, grounding='none'), progress='none')
    real = pretrain(small_regions, small_labels, tmp_path/'real', few, progress='none')
    for name, value in base.state_dict().items(): assert torch.equal(ours.state_dict()[name], value), name
    assert not torch.equal(real.backbone.word_embedding.weight, base.backbone.word_embedding.weight)


@pytest.mark.parametrize('backbone, level, spe', [('vilbert', 'token', True), ('vlbert', 'phrase', False), ('vlbert', 'none', True), ('vlbert', 'phrase', 'after'), ('vilbert', 'none', 'after')])
def test_other_settings_are_trained_too(small_regions, small_labels, tmp_path, backbone, level, spe):
    config = replace(MINI, backbone=backbone, grounding=level, spe=spe, steps=2, batch_size=6, regions=8)
    model = pretrain(small_regions, small_labels, tmp_path/'run', config, progress='none')
    assert type(model.backbone).__name__.lower() == backbone and (model.shape.spe, model.shape.spe_after) == (bool(spe), spe == 'after') and (model.grounding is None) == (level == 'none')
    parts = read_log(tmp_path/'run')[-1]['parts'] if 'parts' in read_log(tmp_path/'run')[-1] else read_log(tmp_path/'run')[0]['parts']
    assert all(value == value for value in parts.values()) and (parts['grounding'] > 0) == (level != 'none')


@pytest.mark.parametrize('backbone', ['vilbert', 'vlbert'])
def test_small_is_larger_than_mini(data, store, tokenizer, backbone):
    mini, small = (PretrainingModel(replace(MINI, backbone=backbone, size=size), **sizes(store, tokenizer)) for size in ('mini', 'small'))
    count = [sum(weight.numel() for weight in model.parameters()) for model in (mini, small)]
    assert 3 < count[1]/count[0] < 8 and small.backbone.word_width == 2*mini.backbone.word_width
    assert small(made(data, 0, 4, 0))['loss'].isfinite()


@pytest.mark.parametrize('wrong', [dict(backbone='bert'), dict(size='huge'), dict(grounding='sentence'), dict(fraction=0.), dict(fraction=8.), dict(epochs=-1.), dict(grounding_weight=-20.), dict(spe='before'),
                                   dict(alignment_weight=float('nan')), dict(bert_rate=-.1)])
def test_settings_that_do_not_exist(wrong):
    with pytest.raises(ValueError, match=f'PretrainConfig: {next(iter(wrong))} must be'): PretrainConfig(**wrong)


@pytest.mark.parametrize('wrong', [dict(precision='half'), dict(optimizer='sgd'), dict(batch_size=0), dict(warmup=10.), dict(steps=0), dict(learning_rate=0.), dict(steps=1e3)])
def test_what_the_loop_would_refuse_is_refused_before_data_are_opened(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))} must be'): PretrainConfig(**wrong)


@given(captions=st.integers(0, 5000), batch_size=st.integers(1, 700), epochs=st.sampled_from([.25, 1., 2., 10.]))
def test_steps_of_epochs(captions, batch_size, epochs):
    steps = training_of(replace(MINI, epochs=epochs, batch_size=batch_size), captions).steps
    if captions < batch_size: assert steps == max(1, round(epochs)) # too few for a batch: an epoch is one
    else: assert steps == 1 or abs(steps*batch_size - epochs*captions) <= epochs*(batch_size - 1) + batch_size/2
    assert training_of(replace(MINI, batch_size=batch_size, steps=7), captions).steps == 7


@pytest.mark.parametrize('backbone', ['vilbert', 'vlbert'])
@pytest.mark.parametrize('level', ['phrase', 'token', 'none'])
@pytest.mark.parametrize('changes', [dict(), dict(alignment_weight=0.), dict(grounding_weight=0.), dict(alignment_weight=0., grounding_weight=0.)])
def test_what_no_loss_reaches_is_not_trained_and_all_else_is(data, store, tokenizer, backbone, level, changes):
    data = CaptionData(store, data.labelled, tokenizer, 24, 8, level='phrase' if level == 'none' else level)
    model, from_bert = new_model(replace(MINI, backbone=backbone, grounding=level, **changes), sizes(store, tokenizer))
    model(made(data, 0, 16, 0))['loss'].backward()
    assert not from_bert and {name for name, weight in model.named_parameters() if weight.grad is None} == {name for name, weight in model.named_parameters() if not weight.requires_grad}


@pytest.mark.parametrize('backbone', ['vilbert', 'vlbert'])
def test_a_bert_to_begin_with(store, tokenizer, tmp_path, backbone):
    transformers = pytest.importorskip('transformers')
    few, config = sizes(store, tokenizer), replace(MINI, backbone=backbone)
    shape = new_model(config, few)[0].shape
    words = shape if backbone == 'vlbert' else None
    width, layers, heads, wide = (words.width, words.layers, words.heads, words.feedforward) if words else (shape.word_width, shape.word_layers, shape.word_heads, shape.word_feedforward)
    bert = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=few['vocabulary'], hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=wide, max_position_embeddings=64))
    for i, weight in enumerate(bert.parameters()): weight.data.normal_(0, .05, generator=torch_rng('bert', i))
    bert.save_pretrained(tmp_path/'bert')
    plain, (begun, names) = new_model(config, few)[0].state_dict(), new_model(replace(config, bert=str(tmp_path/'bert')), few)
    assert torch.equal(begun.backbone.word_embedding.weight, bert.bert.embeddings.word_embeddings.weight)
    layer = (begun.backbone.layers if words else begun.backbone.word_layers)[-1]
    assert torch.equal(layer.feedforward.up.weight, bert.bert.encoder.layer[-1].intermediate.dense.weight)
    changed = {name for name, weight in begun.named_parameters() if not torch.equal(weight, plain[name])}
    assert names == changed and not any(name.startswith('grounding') or 'region' in name for name in names) and 'heads.word_bias' in names


# runs

@pytest.fixture(scope='module')
def run(small_regions, small_labels, held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')/'ours'
    config = replace(MINI, steps=40, batch_size=16, regions=8, learning_rate=3e-3)
    return folder, pretrain(small_regions, small_labels, folder, config, held_out, every=20, progress='none')


def test_it_learns(run):
    lines = read_log(run[0])
    parts, known = [line['parts'] for line in lines if 'parts' in line], [line['evaluation'] for line in lines if 'evaluation' in line]
    for name in ('word', 'region', 'loss'): assert parts[-1][name] < parts[0][name], name
    assert len(known) == 2 and set(known[0]) == {'alignment', 'pairs', 'phrases'} and known[-1]['pairs'] > .5
    about = load_json(run[0]/'config.json')
    assert about['data']['captions'] == 40 and about['pretrain']['steps'] == about['train']['steps'] == 40


def test_a_run_folder_is_all_it_takes(run):
    folder, trained = run
    for model in (build_model(folder), load_start(folder), load_start(str(folder))):
        assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), trained.state_dict().values()))
    fresh, other, again = (load_start(f'scratch:{folder}', seed) for seed in (1, 2, 1))
    assert fresh.shape == trained.shape and fresh.state_dict().keys() == trained.state_dict().keys()
    for a, b, same_expected in ((fresh, again, True), (fresh, other, False), (fresh, trained, False)):
        assert torch.equal(a.backbone.word_embedding.weight, b.backbone.word_embedding.weight) == same_expected


@pytest.mark.fault(2)
def test_run_folders_that_are_none(run, tmp_path):
    for start in (tmp_path, f'scratch:{tmp_path}'):
        with pytest.raises(FileNotFoundError, match='is not the folder of a pre-training'): load_start(start)
    copytree(run[0], tmp_path/'run')
    weights = bytearray((tmp_path/'run'/'final.safetensors').read_bytes())
    weights[-5] ^= 1
    (tmp_path/'run'/'final.safetensors').write_bytes(weights)
    with pytest.raises(ValueError, match='missing or changed since the run ended'): build_model(tmp_path/'run')
    (tmp_path/'run'/'summary.json').unlink()
    with pytest.raises(FileNotFoundError, match='has not ended; run it again'): build_model(tmp_path/'run')
    about = load_json(tmp_path/'run'/'config.json')
    save_json(about | {'pretrain': about['pretrain'] | {'colour': 'red'}}, tmp_path/'run'/'config.json')
    with pytest.raises(ValueError, match="PretrainConfig has no 'colour'"): build_model(tmp_path/'run')
    save_json({'train': about['train']}, tmp_path/'run'/'config.json')
    with pytest.raises(FileNotFoundError, match='is not the folder of a pre-training'): build_model(tmp_path/'run')


OTHER = dict(swap=.3, objective='aligned', masked='exclude', whole_words=True, overlap='zero', divide_by='seen', buckets=False, lstm_layers=2, bidirectional=True, tokenizer='mine.json',
             bert='some', epochs=2., accumulate=2, bert_rate=.1, warmup=.2, optimizer='bert-adam', clip=2., precision='bfloat16', compile=True, save_every=7, backbone='vlbert', size='tiny', spe=False, grounding='token', form='product', grounding_weight=5., alignment_weight=0., preset='glip', threshold=.6, cap=3,
             fraction=.5, words=20, regions=7, steps=41, batch_size=8, learning_rate=1e-3, weight_decay=.1, seed=1)


@pytest.mark.fault(5)
@pytest.mark.parametrize('name', OTHER)
def test_another_configuration_in_the_same_folder_is_refused_and_changes_nothing(run, small_regions, small_labels, tmp_path, monkeypatch, tokenizer, name):
    assert set(OTHER) == set(asdict(MINI)), 'every setting is tried'
    copytree(run[0], tmp_path/'run')
    monkeypatch.chdir(tmp_path)
    tokenizer.save('mine.json')
    monkeypatch.setattr('vlground.pretrain.load_text', lambda *parts: None)
    before, config = contents(tmp_path/'run'), PretrainConfig(**load_json(run[0]/'config.json')['pretrain'])
    with pytest.raises(ValueError, match=rf'begun with another configuration .*pretrain\.{name}: .* before, .* now'):
        pretrain(small_regions, small_labels, tmp_path/'run', replace(config, **{name: OTHER[name]}), every=20, progress='none')
    assert contents(tmp_path/'run') == before


@pytest.mark.fault(5)
def test_other_data_in_the_same_folder_are_refused(run, small_regions, small_labels, small_world, tmp_path):
    config = PretrainConfig(**load_json(run[0]/'config.json')['pretrain'])
    fewer = label_captions(read_captions(small_world/'captions.tsv')[:39], tmp_path/'labels', quiet=True)
    with pytest.raises(ValueError, match=r'data\.labels: .* before.*data\.captions: 40 before, 39 now'): pretrain(small_regions, fewer, run[0], config, every=20, progress='none')
    other = extract_regions(small_world/'images', tmp_path/'regions', keep=9, quiet=True)
    with pytest.raises(ValueError, match=r'data\.regions: .* before, .* now'): pretrain(other, small_labels, run[0], config, every=20, progress='none')


@pytest.mark.fault(5)
def test_changes_that_are_accepted(run, small_regions, small_labels, tmp_path):
    copytree(run[0], tmp_path/'run')
    config = PretrainConfig(**load_json(run[0]/'config.json')['pretrain'])
    longer = replace(config, steps=44)
    model = pretrain(small_regions, small_labels, tmp_path/'run', longer, every=20, progress='none', accept_changes=True)
    assert load_json(tmp_path/'run'/'config.json')['pretrain']['steps'] == load_json(tmp_path/'run'/'summary.json')['steps'] == 44
    assert torch.equal(build_model(tmp_path/'run').backbone.word_embedding.weight, model.backbone.word_embedding.weight)


@pytest.mark.fault(5)
@pytest.mark.parametrize('change, told', [(dict(steps=10), 'its last checkpoint is of step 2[05], and 10 steps are asked for'), (dict(grounding='token'), 'its checkpoint is of another model'),
                                          (dict(size='tiny'), 'its checkpoint is of another model')])
def test_changes_that_cannot_be_accepted_change_nothing(small_regions, small_labels, tmp_path, change, told):
    config = replace(MINI, steps=30, batch_size=4, regions=8, save_every=20)
    class Stop(Exception): pass
    def stop_at_25(model, data, asked=[]):
        asked.append(0)
        if len(asked) == 25: raise Stop
        return {}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr('vlground.pretrain.measure_model', stop_at_25)
        pretrain(small_regions, small_labels, tmp_path/'run', config, [read_labels(small_labels)[0]], every=1, progress='none')
    before = contents(tmp_path/'run')
    with pytest.raises(ValueError, match=told): pretrain(small_regions, small_labels, tmp_path/'run', replace(config, **change), progress='none', accept_changes=True)
    assert contents(tmp_path/'run') == before and load_json(tmp_path/'run'/'config.json')['train']['steps'] == 30


def test_wrong_folders(small_regions, small_labels, small_world, tmp_path):
    for regions, labels, error, told in ((tmp_path, small_labels, FileNotFoundError, 'manifest.json: no such file'), (small_labels, small_labels, ValueError, 'store of labels, expected regions'),
                                         (small_regions, small_regions, ValueError, 'store of regions, expected labels'), (small_regions, small_world, FileNotFoundError, 'manifest.json: no such file')):
        with pytest.raises(error, match=told): pretrain(regions, labels, tmp_path/'run', MINI, progress='none')
    assert not (tmp_path/'run').exists()


def test_a_fraction_is_of_the_pictures_and_the_same_everywhere(small_regions, small_labels, labelled, tmp_path):
    pretrain(small_regions, small_labels, tmp_path/'run', replace(MINI, steps=1, batch_size=4, regions=8, fraction=.5), progress='none')
    expected = len(fraction_of([each.image_id for each in labelled], .5))
    assert load_json(tmp_path/'run'/'config.json')['data']['captions'] == expected and 10 < expected < 30


# measuring

def test_gold_captions_say_all_that_is_there(small_world, held_out):
    gold = read_gold(small_world/'gold'/'captions-val.jsonl')
    for each in held_out:
        assert [(label.phrase.start, label.phrase.end, label.box) for label in each.labels] == [(p.start, p.end, box) for p in gold[each.id].phrases for box in p.boxes]
        assert all(each.caption[label.phrase.start:label.phrase.end] == label.phrase.text for label in each.labels)


class Knows(nn.Module):
    "A head that has the answers in its pocket: how sure it is of aligned pairs, and for each phrase of the data the region it gives the highest score."
    def __init__(self, sign, best):
        super().__init__()
        self.sign, self.best, self.asked = sign, best, 0

    def forward(self, encoded, batch): return self.sign*(batch.pair_labels*2 - 1)

    def score_all(self, encoded, spans):
        scores = torch.zeros(len(spans), encoded.regions.shape[1])
        for row in scores:
            row[self.best[self.asked]] = 1
            self.asked += 1
        return scores


@pytest.mark.parametrize('sign, share', [(1, 1.), (-1, 0.)])
def test_who_knows_all_is_told_so(store, tokenizer, held_out, sign, share):
    data = CaptionData(store, held_out, tokenizer, 24, 8)
    model = PretrainingModel(MINI, **sizes(store, tokenizer))
    rows = [row for i in range(len(data)) for row in data.phrases(i)[1]]
    best = [1 + int(row.nonzero()[0, 0] if sign > 0 and row.any() else (~row).nonzero()[0, 0]) for row in rows]
    model.grounding = Knows(sign, best)
    aligned = iter([1 if sign > 0 else 0, 0 if sign > 0 else 1]*10) # column 0 says that the caption belongs
    def alignment(encoded): return torch.tensor([[1., 0.] if next(aligned) else [0., 1.]]).expand(len(encoded.words), 2)
    model.heads.alignment = alignment
    assert measure_model(model, data, batch_size=5) == {'alignment': share, 'pairs': share, 'phrases': share}


def test_who_knows_nothing_is_right_half_the_time(store, tokenizer, held_out):
    data = CaptionData(store, held_out, tokenizer, 24, 8)
    found = measure_model(PretrainingModel(MINI, **sizes(store, tokenizer)), data)
    assert .3 < found['pairs'] < .7 and .3 < found['alignment'] < .7 and found['phrases'] < .5
    assert measure_model(PretrainingModel(replace(MINI, grounding='none'), **sizes(store, tokenizer)), data).keys() == {'alignment'}
    assert found == measure_model(PretrainingModel(MINI, **sizes(store, tokenizer)), data)


def test_one_caption_has_no_wrong_one(store, tokenizer, held_out):
    model = PretrainingModel(MINI, **sizes(store, tokenizer))
    assert set(measure_model(model, CaptionData(store, held_out[:2], tokenizer, 24, 8))) >= {'alignment'}
    with pytest.raises(ValueError, match='at least two captions.*got 1'): measure_model(model, CaptionData(store, held_out[:1], tokenizer, 24, 8))


@pytest.mark.parametrize('training', [True, False])
def test_measuring_leaves_a_model_in_its_mode_and_takes_any_batch_size(store, tokenizer, held_out, training):
    data, model = CaptionData(store, held_out, tokenizer, 24, 8), PretrainingModel(MINI, **sizes(store, tokenizer)).train(training)
    assert measure_model(model, data) == measure_model(model, data, batch_size=3)
    assert model.training == training


def test_losses_of_a_batch_are_those_of_lesson_17(data, store, tokenizer):
    model, batch = PretrainingModel(replace(MINI, alignment_weight=3., grounding_weight=5.), **sizes(store, tokenizer)), made(data, 0, 8, 0)
    mine, parts = model(batch), pretraining_losses(model.backbone(batch), batch, model.heads, model.grounding)
    assert all(torch.equal(mine[name], parts[name]) for name in ('word', 'region', 'alignment', 'grounding'))
    assert torch.isclose(mine['loss'], parts['word'] + parts['region'] + 3*parts['alignment'] + 5*parts['grounding'])


def test_a_phrase_named_twice_is_two_phrases(store, labelled, tokenizer):
    caption, image = 'a dog and a dog', labelled[0].image_id
    box = tuple(store.get(image).boxes[0].tolist())
    twice = LabelledCaption('x', image, caption, tuple(PseudoLabel(Phrase('a dog', start, start + 5), box, 1.) for start in (0, 10)))
    data = CaptionData(store, [twice], tokenizer, 24, 8)
    assert data.phrases(0)[0].tolist() == [[1, 3], [4, 6]] and data.phrases(0)[1].shape[0] == 2 and data.phrases(0)[1][:, 0].all()
    pairs = data.pairs([0], [torch_rng('pairs')])
    assert set(pairs['pair_rows'].tolist()) == {0, 1} and pairs['spans'].tolist() == [[0, 1, 3], [0, 4, 6]]


def test_the_preset_of_the_paper_is_the_papers():
    paper = asdict(PRESETS['paper'])
    assert (paper['size'], paper['batch_size'], paper['learning_rate'], paper['grounding_weight'], paper['alignment_weight'], paper['words']) == ('base', 512, 1e-4, 20., 1., 36)


def test_captions_of_unreadable_pictures_are_left_out_and_counted(small_world, tmp_path):
    copytree(small_world/'images', tmp_path/'images')
    (tmp_path/'images'/'captions-000003.jpg').write_bytes(b'no picture')
    items = read_captions(small_world/'captions.tsv', tmp_path/'images')
    regions = extract_regions(tmp_path/'images', tmp_path/'regions', keep=4, quiet=True)
    labels = label_captions(items, tmp_path/'labels', quiet=True)
    with pytest.warns(UserWarning, match='1 of 40 captions are left out'): pretrain(regions, labels, tmp_path/'run', replace(PRESETS['mini'], steps=1, batch_size=4), progress='none')
    assert load_json(tmp_path/'run'/'config.json')['data']['captions'] == 39


def test_a_store_without_classes_is_refused(small_labels, tmp_path, monkeypatch):
    class Bare:
        classes = ('unknown',)
    monkeypatch.setattr('vlground.pretrain.open_store', lambda *_, **__: Bare())
    with pytest.raises(ValueError, match='imported without class distributions'): pretrain(tmp_path/'regions', small_labels, tmp_path/'run', progress='none')

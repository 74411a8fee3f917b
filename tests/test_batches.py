"Batches of captions: what is drawn belongs to the sample, parts join to the whole, counts add up, packed is dense, labels are read when they are needed."
import json
import multiprocessing
import pickle
from dataclasses import asdict, fields, replace
from shutil import copytree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlground.alignment import sample_pairs
from vlground.batches import BatchConfig, CaptionData, LabelFiles, PackedBatch, TrainingBatches, loss_counts
from vlground.core import load_json, save_json
from vlground.loading import batches_ahead
from vlground.objectives import masked_pairs
from vlground.phrases import load_tokenizer, train_tokenizer
from vlground.pseudolabels import PRESETS, Preset, read_labels
from vlground.regions import Regions
from vlground.store import Store, StoreWriter


@pytest.fixture(scope='module')
def tokenizer(): return load_tokenizer()


@pytest.fixture(scope='module')
def store(small_regions, tmp_path_factory):
    "Pictures with one to eight regions."
    whole = Store(small_regions)
    writer = StoreWriter(tmp_path_factory.mktemp('some')/'regions', whole.ids, whole.feature_width, whole.classes, {'name': 'some'}, shard_size=16)
    for number, ids in writer.missing():
        some = [(whole.get(id), 1 + whole.index[id] % 8) for id in ids]
        writer.write(number, [Regions(each.boxes[:n], each.features[:n], each.class_probs[:n], each.size) for each, n in some])
    return Store(writer.folder)


@pytest.fixture(scope='module')
def files(small_labels): return LabelFiles(small_labels)


@pytest.fixture(scope='module')
def data(store, files, tokenizer): return CaptionData(store, files, tokenizer, words=24, regions=8)


def values(it):
    "Every tensor of a batch, packed or not, by name."
    found = {}
    for field in fields(it):
        value = getattr(it, field.name)
        if isinstance(value, torch.Tensor): found[field.name] = value
        elif value is not None: found |= {f'{field.name}.{name}': each for name, each in values(value).items()}
    return found


def same(a, b):
    a, b = values(a), values(b)
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def drawn_for(batch, at):
    "All that a row of a batch shows, without padding."
    words, regions, pairs = int(batch.word_mask[at].sum()), int(batch.region_mask[at].sum()), batch.pair_samples == at
    assert not batch.input_ids[at, words:].any() and not batch.features[at, regions:].any() and (batch.word_labels[at, words:] < 0).all()
    parts = [batch.input_ids[at, :words], batch.word_labels[at, :words], batch.region_labels[at, :regions], batch.features[at, :regions], batch.locations[at, :regions],
             batch.region_targets[at, :regions], batch.spans[batch.pair_rows[pairs], 1:], batch.pair_regions[pairs], batch.pair_labels[pairs]]
    return [bool(batch.aligned[at]), *(part.tolist() for part in parts)]


# no 'divisor': the published rule counts padding, and so the neighbours
CONFIGS = st.builds(BatchConfig, words=st.just(24), regions=st.just(8), swap=st.sampled_from([0., .5, 1.]), whole_words=st.booleans(), overlap=st.sampled_from([None, 'zero']),
                    divide_by=st.sampled_from(['all', 'seen']), objective=st.sampled_from(['always', 'aligned']), masked=st.sampled_from(['keep', 'exclude']),
                    buckets=st.booleans(), cap=st.sampled_from([None, 1]))


# what is drawn belongs to the sample

@given(CONFIGS, st.integers(0, 2**40), st.integers(0, 60), st.sampled_from([(12, 1), (12, 12), (12, 3), (7, 7), (40, 2), (64, 4)]), st.sampled_from([(5, 1), (8, 8), (30, 3)]))
@settings(max_examples=25)
def test_a_sample_is_the_same_in_every_batch(data, config, seed, step, one, other):
    def seen(size, parts, steps):
        made = TrainingBatches(data, size, seed, config)
        found = {}
        for number in steps:
            for part in range(parts):
                batch = made(number, part, parts).to('cpu')
                for at, key in enumerate(made.sampler.step(number, part, parts)): found[key] = drawn_for(batch, at)
        return found
    first = seen(*one, [step])
    epochs = {epoch for epoch, _ in first}
    places = range(min(epochs)*40//other[0], ((max(epochs) + 1)*40 - 1)//other[0] + 1)
    second = seen(*other, places)
    assert first.keys() <= second.keys() and all(second[key] == first[key] for key in first)


def test_the_published_divisor_depends_on_the_neighbours(data):
    "It counts padding, which is why it is left out above."
    config = BatchConfig(words=24, regions=8, overlap='divisor')
    def seen(parts): return [drawn_for(batch, at) for part in range(parts) for batch in [TrainingBatches(data, 40, 0, config)(0, part, parts).to('cpu')] for at in range(len(batch.input_ids))]
    assert seen(1) != seen(40)


@given(st.integers(0, 2**40), st.integers(0, 5))
@settings(max_examples=10)
def test_draws_depend_on_seed_and_epoch_alone(data, seed, epoch):
    whose, own, seeds = TrainingBatches(data, 3, seed).draws(epoch)
    for other in (TrainingBatches(data, 40, seed), TrainingBatches(data, 8, seed, BatchConfig(buckets=False, whole_words=True))):
        other.draws(epoch + 2), other.draws(epoch + 1) # in any order
        assert all(np.array_equal(a, b) for a, b in zip((whose, own, seeds), other.draws(epoch)))
    assert (whose[own] == torch.arange(40)[own]).all() and len(set(seeds.tolist())) == 40
    assert not np.array_equal(seeds, TrainingBatches(data, 3, seed).draws(epoch + 1)[2])


def test_samples_with_one_caption_throw_their_own_dice(store, files, tokenizer):
    "The same caption forty times: each copy has masks and pairs of its own, and other ones in the next epoch."
    again = CaptionData(store, [files[7]]*40, tokenizer, 24, 8)
    made = TrainingBatches(again, 40, 0)
    rows = [tuple(map(str, drawn_for(made(step).to('cpu'), at)[2:4])) for step in range(2) for at in range(40)]
    assert len(set(rows)) > 60


# parts

@given(CONFIGS, st.integers(0, 2**40), st.integers(0, 30), st.sampled_from([1, 2, 3, 4, 6, 12]))
@settings(max_examples=20)
def test_parts_join_to_the_whole_and_counts_add_up(data, config, seed, step, parts):
    made = TrainingBatches(data, 12, seed, config)
    whole, pieces = made(step).to('cpu'), [made(step, part, parts).to('cpu') for part in range(parts)]
    assert sum((made.sampler.step(step, part, parts) for part in range(parts)), []) == made.sampler.step(step)
    assert [drawn_for(whole, at) for at in range(12)] == [drawn_for(piece, at) for piece in pieces for at in range(12//parts)]
    assert torch.equal(torch.stack([piece.counts for piece in pieces]).sum(0), whole.counts)
    with pytest.raises(ValueError, match='cannot be cut into 5 equal parts'): made(step, 0, 5)


@pytest.mark.parametrize('level', ['phrase', 'token'])
@given(config=CONFIGS, seed=st.integers(0, 2**40))
@settings(max_examples=10)
def test_counts_are_what_a_loop_counts(store, files, tokenizer, level, config, seed):
    made = TrainingBatches(CaptionData(store, files, tokenizer, 24, 8, level=level, cap=config.cap), 16, seed, config)
    batch = made(0).to('cpu')
    words = regions = pairs = 0
    for at, right in enumerate(batch.aligned.tolist()):
        if config.objective == 'aligned' and not right: continue
        words += sum(label >= 0 for label in batch.word_labels[at].tolist())
        regions += sum(batch.region_labels[at].tolist())
    for sample, hidden in zip(batch.pair_samples.tolist(), masked_pairs(batch, level).tolist()): pairs += bool(batch.aligned[sample]) and not (hidden and config.masked == 'exclude')
    assert batch.counts.tolist() == [words, regions, pairs] and batch.counts.dtype == torch.float32
    assert torch.equal(loss_counts(batch, level, config.objective, config.masked), batch.counts)


# packed

@given(CONFIGS, st.integers(0, 2**40))
@settings(max_examples=15)
def test_packed_is_dense(data, config, seed):
    made = TrainingBatches(data, 8, seed, config)
    packed = made(0)
    batch = packed.to('cpu')
    rows = [i for _, i in made.sampler.step(0)]
    whole = data.plain(rows, made.draws(0)[0][rows])
    chosen, hidden = batch.region_labels, (batch.features == 0).all(2) & batch.region_mask
    assert packed.features.dtype == torch.float16 and len(packed.batch.features) == 0 and packed.batch.region_targets is None
    assert batch.features.dtype == batch.region_targets.dtype == torch.float32 and batch.features.shape == whole.features.shape
    seen = ~hidden
    seen[:, 0] = False
    assert torch.equal(batch.features[seen], whole.features[seen]), 'what is not hidden has the stored bits'
    assert torch.equal(batch.region_targets[chosen], whole.region_targets[chosen]) and not batch.region_targets[~chosen].any()
    single = batch.region_mask.clone()
    single[:, 0] = False
    divisor = single.sum(1) if config.divide_by == 'all' and config.overlap is None else (single & ~hidden).sum(1)
    assert torch.allclose(batch.features[:, 0], batch.features[:, 1:].sum(1)/divisor.clamp(min=1)[:, None], atol=1e-5)
    for name in ('locations', 'region_mask', 'word_mask', 'segment_ids'): assert torch.equal(getattr(batch, name), getattr(whole, name))
    shown = torch.where(batch.word_labels >= 0, batch.word_labels, batch.input_ids)
    assert torch.equal(shown, whole.input_ids), 'labels say what stood there'


def test_packed_without_a_chosen_region(data):
    made = TrainingBatches(data, 1, 0)
    packed = next(packed for packed in map(made, range(200)) if not packed.batch.region_labels.any())
    assert packed.chosen.shape == (0,) and packed.targets.shape == (0, len(data.store.classes)) and not packed.to('cpu').region_targets.any()


# other processes

@pytest.mark.parametrize('config', [BatchConfig(words=24, regions=8), BatchConfig(words=24, regions=8, whole_words=True, buckets=False)])
def test_pickled_and_back_it_makes_the_same_batches(data, config):
    made = TrainingBatches(data, 8, 3, config)
    for warm in (False, True):
        if warm: made(7), made.sampler.order(1)
        back = pickle.loads(pickle.dumps(made))
        assert all(same(made(step), back(step)) for step in (0, 4, 11)) and back.data is not made.data
        assert back.sampler.lengths is None or back.sampler.lengths.__self__ is back
    assert same(made(2), pickle.loads(pickle.dumps(made(2))))


def test_a_spawned_process_makes_the_same_batches(data):
    made = TrainingBatches(data, 8, 3)
    with multiprocessing.get_context('spawn').Pool(1) as pool: theirs = pool.starmap(made, [(0,), (3, 1, 2)])
    assert same(theirs[0], made(0)) and same(theirs[1], made(3, 1, 2))


def test_workers_make_the_same_batches(data):
    made, keys = TrainingBatches(data, 8, 3), [(0,), (1,), (2, 1, 2)]
    with batches_ahead(made, keys, 2, describe=made.describe) as batches: assert all(same(batch, made(*key)) for batch, key in zip(batches, keys, strict=True))


# labels that are read when they are needed

@pytest.mark.parametrize('preset', [*PRESETS, Preset(score=.9, drop_empty=True), Preset()])
def test_files_hold_what_read_labels_reads(small_labels, preset):
    files, read = LabelFiles(small_labels, preset), read_labels(small_labels, preset)
    assert len(files) == len(read) > 0 and list(files) == read and [files[i] for i in range(-3, 3)] == [read[i] for i in range(-3, 3)]
    assert files[2:9:3] == read[2:9:3] and files[:0] == []
    assert files.images == [each.image_id for each in read] and files.failed.tolist() == [bool(each.error) for each in read]
    with pytest.raises(IndexError): files[len(read)]


@given(st.lists(st.integers(0, 39), max_size=12))
@settings(max_examples=20)
def test_only_some_of_the_files(files, rows):
    some = files.only(rows)
    assert list(some) == [files[i] for i in rows] and some.images == [files.images[i] for i in rows] and some.lengths.tolist() == files.lengths[rows].tolist()
    assert len(files) == 40 and list(some.only(range(len(rows))[::-1])) == [files[i] for i in rows[::-1]]


def test_lengths_are_near_the_pieces(files, data, store, tokenizer):
    pieces = np.array([len(tokenizer.encode(each.caption).ids) for each in files])
    assert np.corrcoef(files.lengths, pieces)[0, 1] > .9 and np.array_equal(data.lengths, CaptionData(store, list(files), tokenizer).lengths)


def test_buckets_leave_less_padding(data):
    def padding(**settings):
        made = TrainingBatches(data, 8, 0, BatchConfig(words=24, regions=8, **settings))
        return np.mean([1 - made(step).batch.word_mask.float().mean() for step in range(5)])
    assert padding(buckets=True) < .6*padding(buckets=False)


def changed(labels, folder, change, number=1):
    "A copy of a folder of labels in which a shard's bytes are others, and the manifest knows."
    copytree(labels, folder)
    path = folder/f'shard-{number:05}.jsonl'
    path.write_bytes(change(path.read_bytes()))
    manifest = load_json(folder/'manifest.json')
    manifest['shards'][str(number)][path.name]['bytes'] = path.stat().st_size
    save_json(manifest, folder/'manifest.json')
    return folder


def with_line(number, line):
    def change(content):
        lines = content.split(b'\n')
        lines[number] = line(lines[number]) if callable(line) else line
        return b'\n'.join(lines)
    return change


@pytest.mark.parametrize('change, told', [
    (with_line(4, b'{"id": "x", "caption'), 'shard 1, line 5: not JSON'), (with_line(0, b''), 'shard 1, line 1: not JSON'), (with_line(19, b'\xff\xfe\xff'), 'shard 1, line 20: not JSON'),
    (with_line(3, b'[1, 2]'), 'shard 1, line 4'), (with_line(2, lambda line: json.dumps(json.loads(line) | {'labels': [[99, 1, 1, 2, 2, .5]]}).encode()), 'shard 1, line 3'),
    (with_line(6, b'['*100_000), 'shard 1, line 7: not JSON'),
    (lambda content: content[:-1], '19 whole lines, expected 20'), (lambda content: content + b'{}\n', '21 whole lines, expected 20')])
def test_a_bad_line_is_named(small_labels, tmp_path, change, told):
    folder = changed(small_labels, tmp_path/'labels', change)
    with pytest.raises(ValueError, match=told) as caught: LabelFiles(folder)
    assert str(folder) in str(caught.value)


def test_captions_with_odd_characters(small_labels, tmp_path):
    "Only a line break ends a line, whatever else Python would take for one; and bytes are counted, not characters."
    def odd(line): return json.dumps(json.loads(line) | dict(caption='ein Häuschen\u2028am\x85 Fluß 🐕', phrases=[[4, 12]], labels=[[0, 1, 1, 20, 20, .5]]), ensure_ascii=False).encode()
    folder = changed(small_labels, tmp_path/'labels', with_line(4, odd))
    files = LabelFiles(folder)
    assert list(files) == read_labels(folder) and files[24].labels[0].phrase.text == 'Häuschen' and files[25].id == LabelFiles(small_labels)[25].id


def test_wrong_folders_and_presets(small_labels, small_regions, tmp_path):
    with pytest.raises(ValueError, match="there is no preset 'mine'"): LabelFiles(small_labels, 'mine')
    with pytest.raises(ValueError, match='store of regions, expected labels'): LabelFiles(small_regions)
    with pytest.raises(FileNotFoundError, match='manifest.json'): LabelFiles(tmp_path)


def test_a_shard_that_changes_later_is_noticed(small_labels, tmp_path):
    copytree(small_labels, tmp_path/'labels')
    files = LabelFiles(tmp_path/'labels')
    path = tmp_path/'labels'/'shard-00000.jsonl'
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match='missing, or not the'): files[0]


# captions with their regions

def test_prepared_anew_or_remembered(store, files, tokenizer, data):
    anew = CaptionData(store, files, tokenizer, 24, 8, remembered=0)
    for i in range(0, 40, 7):
        assert torch.equal(anew.pieces(i), data.pieces(i)) and all(np.array_equal(a, b) for a, b in zip(anew.phrases(i), data.phrases(i)))
    assert same(TrainingBatches(anew, 16, 0)(1), TrainingBatches(data, 16, 0)(1)) and anew.cut == data.cut


def test_the_tokenizer_of_others_stays_as_it_was(store, files):
    tokenizer = load_tokenizer()
    CaptionData(store, files, tokenizer, words=5)
    assert len(tokenizer.encode('a red dog chasing a small cat').ids) == 9


@given(st.integers(0, 2**40), st.sampled_from(['phrase', 'token']), st.sampled_from([None, 0, 2]))
@settings(max_examples=15)
def test_pairs_of_many_captions_are_those_of_each(store, files, tokenizer, seed, level, cap):
    data = CaptionData(store, files, tokenizer, 24, 8, level=level, cap=cap)
    rows = [3, None, 11, 3]
    def generators(): return [torch.Generator().manual_seed((seed + k) % 2**40) for k in range(4)]
    found, before = data.pairs(rows, generators()), 0
    for sample, (i, generator) in enumerate(zip(rows, generators())):
        mine = found['pair_samples'] == sample
        if i is None:
            assert not mine.any() and not (found['spans'][:, 0] == sample).any()
            continue
        spans, matches, _ = data.phrases(i)
        assert torch.equal(found['spans'][found['spans'][:, 0] == sample][:, 1:], spans)
        if level == 'token': matches = torch.stack([row for row, (first, last) in zip(matches, spans.tolist()) for _ in range(first, last)])
        expected = sample_pairs(matches, generator, cap)
        for got, want in zip((found['pair_rows'][mine] - before, found['pair_regions'][mine] - 1, found['pair_labels'][mine]), expected): assert torch.equal(got, want)
        before += len(matches)


# settings and what they say

@pytest.mark.parametrize('wrong, told', [(dict(objective='never'), 'objective must be always or aligned'), (dict(masked='drop'), 'masked must be'), (dict(overlap='half'), 'overlap must be None or'),
    (dict(divide_by='some'), 'divide_by must be'), (dict(threshold=1.), r'threshold must be an IoU in \[0, 1\)'), (dict(threshold=float('nan')), 'threshold'), (dict(swap=1.1), 'swap must be a share'),
    (dict(words=2), 'words must be at least 3'), (dict(regions=0), 'regions must be at least 1'), (dict(cap=-1), 'cap must be'), (dict(overlap='divisor', divide_by='seen'), 'divisor of its own')])
def test_wrong_settings(wrong, told):
    with pytest.raises(ValueError, match=f'BatchConfig: .*{told}'): BatchConfig(**wrong)
    with pytest.raises(ValueError): replace(BatchConfig(), **wrong)


def test_settings_go_through_json(): assert BatchConfig(**json.loads(json.dumps(asdict(BatchConfig(cap=3, overlap='zero'))))) == BatchConfig(cap=3, overlap='zero')


def test_a_tokenizer_without_a_mask_is_refused(files):
    bare = train_tokenizer([each.caption for each in files], 300)
    class Bare:
        tokenizer = type('T', (), {'token_to_id': lambda self, piece: None if piece == '[MASK]' else bare.token_to_id(piece)})()
        store = None
        def __len__(self): return 4
    with pytest.raises(ValueError, match=r'must know \[PAD\] as 0, \[CLS\], \[SEP\] and \[MASK\]'): TrainingBatches(Bare(), 2, 0)


def test_whole_words_are_hidden_or_not(store, files, tokenizer):
    odd = [replace(each, caption='a greenhouse and a skyscraper', labels=(), phrases=()) for each in files[:8]]
    made = TrainingBatches(CaptionData(store, odd, tokenizer, 24, 8), 8, 0, BatchConfig(whole_words=True))
    pieces = tokenizer.encode(odd[0].caption)
    for step in range(20):
        for labels in (made(step).batch.word_labels >= 0).tolist():
            for word in set(pieces.word_ids) - {None}: assert len({hidden for hidden, owner in zip(labels, pieces.word_ids) if owner == word}) == 1


def test_samples_are_described(data):
    made = TrainingBatches(data, 40, 1)
    whose, own, _ = made.draws(0)
    for line, (_, i) in zip(made.describe(0), made.sampler.step(0), strict=True):
        each = data.labelled[i]
        shard, record = divmod(data.store.index[each.image_id], data.store.manifest['shard_size'])
        assert line.startswith(f'{each.id} (shard-{shard:05} record {record})')
        assert ('with the caption of' not in line) if own[i] else line.endswith(f' with the caption of {data.labelled[int(whose[i])].id}')


@pytest.mark.gpu
def test_packed_on_a_gpu(data):
    if not torch.cuda.is_available(): pytest.skip('no GPU')
    packed = TrainingBatches(data, 8, 0)(0)
    assert isinstance(packed.pin_memory(), PackedBatch) and same(packed.pin_memory().to('cuda').to('cpu'), packed.to('cpu'))

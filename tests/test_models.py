"Backbones, grounding head and losses: shapes, padding, gradients, faults 10 and 12, precision and device."
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from vlground.grounding import GroundingHead, phrase_states, token_rows
from vlground.objectives import LossWeights, mask_regions, mask_words, pretraining_losses
from vlground.spe import spatial_encoding
from vlground.transformer import Attention, Batch, Dropout, Encoded, Linear, attention_bias, attention_maps, init_weights
from vlground.vilbert import PretrainingHeads, ViLBERT, ViLBERTConfig
from vlground.vlbert import VLBERT, VLBERTConfig, geometry_encoding, vlbert_heads

PAD, CLS, SEP, MASK, VOCABULARY, CLASSES, FEATURES = 0, 2, 3, 4, 120, 17, 32
LOSSES = 'word', 'region', 'alignment', 'grounding'
CALM = dict(dropout=0., attention_dropout=0.)


class FiveLines(nn.Module):
    'The smallest backbone that the objectives accept'
    def __init__(self, generator=None):
        super().__init__()
        self.word_embedding, self.look = nn.Embedding(VOCABULARY, 20), nn.Linear(FEATURES + 5, 28)
        self.mix_words, self.mix_regions = nn.Linear(20 + 28, 20), nn.Linear(20 + 28, 28)
        self.pool_words, self.pool_regions = nn.Linear(20, 12), nn.Linear(28, 12)
        self.word_width, self.region_width, self.pooled_width = 20, 28, 12
        init_weights(self, 0.15, generator)

    def forward(self, batch):
        words, regions = self.word_embedding(batch.input_ids), self.look(torch.cat([batch.features, batch.locations], -1))
        gist = torch.cat([words.mean(1, keepdim=True), regions.mean(1, keepdim=True)], -1)
        words, regions = words + self.mix_words(gist), regions + self.mix_regions(gist)
        return Encoded(words, regions, self.pool_words(words[:, 0]), self.pool_regions(regions[:, 0]))


def open_eyes(model):
    'VL-BERT sees nothing until its visual LayerNorms have moved away from 0'
    for norm in model.look_words, model.look_regions: nn.init.ones_(norm.weight)
    return model


BACKBONES = {
    'vilbert': lambda g=None: ViLBERT(ViLBERTConfig.tiny(spe=True, **CALM), g),
    'vlbert': lambda g=None: open_eyes(VLBERT(VLBERTConfig.tiny(feature_width=FEATURES, geometry_width=64, spe=True, **CALM), g)),
    'five lines': FiveLines}
both = pytest.mark.parametrize('name', ['vilbert', 'vlbert'])
every = pytest.mark.parametrize('name', BACKBONES)
levels = pytest.mark.parametrize('level', ['phrase', 'token'])


def make_batch(seed=0, b=6, t=12, r=9, level='phrase'):
    g = torch.Generator().manual_seed(seed)
    word_mask = torch.arange(t) < torch.randint(8, t + 1, (b, 1), generator=g)
    region_mask = torch.arange(r) < torch.randint(4, r + 1, (b, 1), generator=g)
    ids = torch.randint(10, VOCABULARY, (b, t), generator=g) * word_mask
    ids[:, 0] = CLS
    hidden, word_labels = mask_words(ids, word_mask, (CLS, SEP), MASK, VOCABULARY, g, rate=0.3)
    corners = torch.rand(b, r, 2, 2, generator=g).sort(-2).values.flatten(-2)
    locations = torch.cat([corners, torch.rand(b, r, 1, generator=g)], -1)
    locations[:, 0] = torch.tensor([0., 0., 1., 1., 1.])
    seen, region_labels = mask_regions(torch.randn(b, r, FEATURES, generator=g), region_mask, g, rate=0.3)
    sample = torch.arange(b).repeat_interleave(2)
    spans = torch.stack([sample, torch.tensor([1, 5]).repeat(b), torch.tensor([4, 7]).repeat(b)], 1)
    rows = token_rows(spans) if level == 'token' else spans
    pair_rows = torch.arange(len(rows)).repeat_interleave(2)
    real = region_mask[..., None]
    return Batch(hidden, word_mask, (torch.arange(t) > 6).long().expand(b, t), seen * real, locations * real, region_mask, word_labels,
        region_labels, torch.rand(b, r, CLASSES, generator=g).softmax(-1), torch.arange(b) % 3 > 0,
        spans, rows[pair_rows, 0], pair_rows, torch.randint(1, 4, pair_rows.shape, generator=g), torch.tensor([1., 0.]).repeat(len(rows)))


def make_model(name, level='phrase', form='product', seed=0):
    g = torch.Generator().manual_seed(seed)
    backbone = BACKBONES[name](g)
    heads = vlbert_heads(backbone, g) if name == 'vlbert' else PretrainingHeads(backbone, CLASSES, spread=0.15, generator=g)
    return nn.ModuleDict(dict(backbone=backbone, heads=heads,
        grounding=GroundingHead(backbone.word_width, backbone.region_width, 24, level, form, spread=0.15, generator=g)))


def losses_of(model, batch, **choices):
    return pretraining_losses(model['backbone'](batch), batch, model['heads'], model['grounding'], **choices)


def padded(batch, words, regions, junk):
    'The same samples in a larger rectangle whose padding holds junk'
    def wider(x, n, fill): return None if x is None else torch.cat([x, torch.full_like(x[:, :1].expand(-1, n, *x.shape[2:]), fill)], 1)
    fill_words = dict(input_ids=50, word_mask=False, segment_ids=1, word_labels=-1)
    fill_regions = dict(features=junk, locations=0.7, region_mask=False, region_labels=False, region_targets=0.)
    return replace(batch, **{name: wider(getattr(batch, name), words, fill) for name, fill in fill_words.items()},
        **{name: wider(getattr(batch, name), regions, fill) for name, fill in fill_regions.items()})


@every
@levels
@pytest.mark.parametrize('form', ['product', 'inner', 'concat'])
def test_every_objective_on_every_backbone(name, level, form):
    model, batch = make_model(name, level, form), make_batch(level=level)
    encoded = model['backbone'](batch)
    assert encoded.words.shape == (6, 12, model['backbone'].word_width) and encoded.regions.shape == (6, 9, model['backbone'].region_width)
    losses = losses_of(model, batch)
    assert all(losses[part] > 0 for part in LOSSES)
    assert torch.allclose(losses['total'], losses['word'] + losses['region'] + losses['alignment'] + 20 * losses['grounding'])
    losses['total'].backward()
    assert {n for n, p in model.named_parameters() if p.grad is None or not (p.grad != 0).any()} == set()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_vlbert_starts_blind_and_opens_its_eyes():
    model, batch = make_model('vlbert'), make_batch()
    model['backbone'] = VLBERT(model['backbone'].config, torch.Generator().manual_seed(0))
    other = replace(batch, features=batch.features * 2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    assert torch.equal(model['backbone'](batch).words, model['backbone'](other).words)
    losses_of(model, batch)['total'].backward()
    optimiser.step()
    assert not torch.equal(model['backbone'](batch).words, model['backbone'](other).words)


@both
def test_padding_changes_nothing(name):
    model, batch = make_model(name).double(), make_batch().to(dtype=torch.float64)
    wide = padded(batch, 5, 3, junk=100.)
    near, far = model['backbone'](batch), model['backbone'](wide)
    assert torch.allclose(near.words[batch.word_mask], far.words[wide.word_mask])
    assert torch.allclose(near.regions[batch.region_mask], far.regions[wide.region_mask])
    assert torch.allclose(near.pooled_words, far.pooled_words) and torch.allclose(near.pooled_regions, far.pooled_regions)
    for part in LOSSES: assert torch.allclose(losses_of(model, batch)[part], losses_of(model, wide)[part]), part


@both
def test_samples_do_not_see_each_other(name):
    model, batch = make_model(name).double(), make_batch().to(dtype=torch.float64)
    mixed = replace(batch, **{k: getattr(batch, k).roll(1, 0) for k in
        ('input_ids', 'word_mask', 'segment_ids', 'features', 'locations', 'region_mask')})
    assert torch.allclose(model['backbone'](batch).words.roll(1, 0), model['backbone'](mixed).words)


@both
def test_order_of_regions_does_not_matter(name):
    model, batch = make_model(name).double(), make_batch().to(dtype=torch.float64)
    order = torch.tensor([0, 3, 1, 2, *range(4, 9)])
    mixed = replace(batch, **{k: getattr(batch, k)[:, order] for k in ('features', 'locations', 'region_mask')})
    near, far = model['backbone'](batch), model['backbone'](mixed)
    assert torch.allclose(near.regions[:, order], far.regions) and torch.allclose(near.words, far.words)


@pytest.mark.fault(12)
@both
@pytest.mark.parametrize('side', ['word', 'region', 'both'])
def test_rows_of_padding_alone_are_finite(name, side):
    model, batch = make_model(name), make_batch()
    masks = [f'{s}_mask' for s in (('word', 'region') if side == 'both' else (side,))]
    batch = replace(batch, **{m: getattr(batch, m) & (torch.arange(6) != 2)[:, None] for m in masks})
    losses = losses_of(model, batch)
    assert all(loss.isfinite() for loss in losses.values())
    losses['total'].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


NOTHING = {
    'word': lambda b: dict(word_labels=torch.full_like(b.word_labels, -1)),
    'region': lambda b: dict(region_labels=torch.zeros_like(b.region_labels)),
    'grounding': lambda b: {k: getattr(b, k)[:0] for k in ('spans', 'pair_samples', 'pair_rows', 'pair_regions', 'pair_labels')}}


@pytest.mark.fault(10)
@every
@levels
@pytest.mark.parametrize('part', NOTHING)
def test_nothing_to_ask_is_exactly_zero(name, level, part):
    model, batch = make_model(name, level), make_batch(level=level)
    losses = losses_of(model, replace(batch, **NOTHING[part](batch)))
    assert losses[part].item() == 0 and all(losses[other] > 0 for other in LOSSES if other != part)
    losses[part].backward(retain_graph=True)
    asked = {'word': ['heads.word_transform.0.weight', 'heads.word_bias'],
        'region': ['heads.region_classes.weight', 'heads.region_transform.0.weight'],
        'grounding': [f'grounding.{n}' for n, _ in model['grounding'].named_parameters()]}[part]
    gradients = {n: p.grad for n, p in model.named_parameters()}
    assert all(gradients[n] is not None and (gradients[n] == 0).all() for n in asked)
    model.zero_grad()
    losses['total'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.fault(10)
@levels
@pytest.mark.parametrize('label', [0., 1.])
def test_pairs_of_one_kind_only(level, label):
    model, batch = make_model('vilbert', level), make_batch(level=level)
    losses = losses_of(model, replace(batch, pair_labels=torch.full_like(batch.pair_labels, label)))
    assert losses['grounding'] > 0 and losses['total'].isfinite()


@pytest.mark.fault(10)
def test_phrases_without_a_pair():
    model, batch = make_model('vilbert'), make_batch()
    losses = losses_of(model, replace(batch, **{k: getattr(batch, k)[:0] for k in ('pair_samples', 'pair_rows', 'pair_regions', 'pair_labels')}))
    assert losses['grounding'].item() == 0
    losses['total'].backward()


def test_swapped_captions_are_not_grounded():
    model, batch = make_model('vilbert'), make_batch()
    none = losses_of(model, replace(batch, aligned=torch.zeros(6, dtype=torch.bool)))
    assert none['grounding'].item() == 0
    none['total'].backward()
    assert all((p.grad == 0).all() for p in model['grounding'].parameters())
    # what a swapped sample's pairs say must not count
    lying = replace(batch, pair_labels=torch.where(batch.aligned[batch.pair_samples], batch.pair_labels, 1 - batch.pair_labels))
    assert torch.equal(losses_of(model, batch)['grounding'], losses_of(model, lying)['grounding'])


def test_objective_aligned_asks_only_where_the_caption_belongs():
    model, batch = make_model('vilbert').double(), make_batch().to(dtype=torch.float64)
    kept, encoded = batch.aligned[:, None], model['backbone'](batch)
    by_hand = replace(batch, word_labels=torch.where(kept, batch.word_labels, -1), region_labels=batch.region_labels & kept)
    aligned, expected = (pretraining_losses(encoded, b, model['heads'], objective=o) for b, o in ((batch, 'aligned'), (by_hand, 'always')))
    assert torch.allclose(aligned['word'], expected['word']) and torch.allclose(aligned['region'], expected['region'])
    assert not torch.allclose(aligned['word'], losses_of(model, batch)['word'])


def test_without_grounding_and_with_weight_zero():
    model, batch = make_model('vilbert'), make_batch()
    encoded = model['backbone'](batch)
    without = pretraining_losses(encoded, batch, model['heads'])
    zero = pretraining_losses(encoded, batch, model['heads'], model['grounding'], LossWeights(grounding=0))
    assert without['grounding'] == zero['grounding'] == 0 and torch.equal(without['total'], zero['total'])
    assert pretraining_losses(encoded, batch, model['heads'], weights=LossWeights(0, 0, 0, 0))['total'] == 0


def test_heads_on_masked_positions_give_the_same_loss_as_everywhere():
    model, batch = make_model('vilbert'), make_batch()
    encoded, losses = model['backbone'](batch), losses_of(model, batch)
    everywhere = nn.functional.cross_entropy(model['heads'].words(encoded.words).flatten(0, 1), batch.word_labels.flatten(), ignore_index=-1)
    assert abs(everywhere - losses['word']) < 1e-5
    divergence = nn.functional.kl_div(model['heads'].regions(encoded.regions).log_softmax(-1), batch.region_targets, reduction='none').sum(-1)
    assert abs((divergence * batch.region_labels).sum() / batch.region_labels.sum() - losses['region']) < 1e-5


@both
def test_the_same_generator_gives_the_same_weights(name):
    first, second, other = make_model(name, seed=1), make_model(name, seed=1), make_model(name, seed=2)
    torch.manual_seed(5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters()))


@both
def test_saved_loaded_and_copied_with_the_shared_embedding(name, tmp_path):
    model, batch = make_model(name), make_batch()
    save_file(model.state_dict(), tmp_path / 'model.safetensors')
    fresh = make_model(name, seed=9)
    fresh.load_state_dict(load_file(tmp_path / 'model.safetensors'))
    for again in fresh, deepcopy(model):
        assert torch.equal(losses_of(model, batch)['total'], losses_of(again, batch)['total'])
        # one step on the copy moves its decoder and its embedding together
        losses_of(again, batch)['word'].backward()
        assert again['backbone'].word_embedding.weight.grad.abs().sum() > 0 and model['backbone'].word_embedding.weight.grad is None


@every
def test_double_precision_throughout(name):
    model, batch = make_model(name).double(), make_batch().to(dtype=torch.float64)
    losses = losses_of(model, batch)
    assert {loss.dtype for loss in losses.values()} == {torch.float64}
    assert torch.allclose(losses['total'].float(), losses_of(make_model(name), make_batch())['total'], rtol=1e-4)


@both
def test_bfloat16_autocast(name):
    model, batch = make_model(name), make_batch()
    with torch.autocast('cpu', torch.bfloat16): losses = losses_of(model, batch)
    losses['total'].backward()
    assert abs(losses['total'] - losses_of(model, batch)['total']) < 0.5 and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU')
@every
@levels
def test_on_a_gpu(name, level):
    model, batch = make_model(name, level).double(), make_batch(level=level).to(dtype=torch.float64)
    expected = losses_of(model, batch)
    model, batch = model.cuda(), batch.to('cuda')
    losses = losses_of(model, batch)
    losses['total'].backward()
    for part in LOSSES: assert torch.allclose(losses[part].cpu(), expected[part])
    encoded = model['backbone'](batch)
    assert model['grounding'].score_all(encoded, batch.spans).is_cuda
    assert mask_regions(batch.features, batch.region_mask, torch.Generator('cuda'))[0].is_cuda
    assert mask_words(batch.input_ids, batch.word_mask, (CLS,), MASK, VOCABULARY, torch.Generator())[0].is_cuda


@levels
@pytest.mark.parametrize('form', ['product', 'inner'])
def test_pair_scores_are_entries_of_the_full_table(level, form):
    model, batch = make_model('vilbert', level, form), make_batch(level=level)
    encoded, head = model['backbone'](batch), model['grounding']
    rows = token_rows(batch.spans) if level == 'token' else batch.spans
    table = head.score_all(encoded, rows)
    assert table.shape == (len(rows), 9) and torch.allclose(head(encoded, batch), table[batch.pair_rows, batch.pair_regions], atol=1e-6)
    assert head.score_all(encoded, batch.spans[:0]).shape == (0, 9)
    pieces = head.score_all(encoded, token_rows(batch.spans)).split((batch.spans[:, 2] - batch.spans[:, 1]).tolist())
    if level == 'token': assert torch.allclose(head.score_all(encoded, batch.spans), torch.stack([p.mean(0) for p in pieces]), atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10), st.integers(1, 5)), max_size=12))
def test_rows_and_rectangles_as_a_loop_would_make_them(drawn):
    spans = torch.tensor([(sample, first, first + length) for sample, first, length in drawn], dtype=torch.long).reshape(-1, 3)
    assert token_rows(spans).tolist() == [[sample, i, i + 1] for sample, first, last in spans.tolist() for i in range(first, last)]
    words = torch.arange(4 * 16).reshape(4, 16, 1)
    rectangle = phrase_states(words, spans)
    for row, (sample, first, last) in zip(rectangle, spans.tolist()): assert torch.equal(row[:last - first], words[sample, first:last])


def test_what_follows_a_phrase_does_not_reach_it():
    model, batch = make_model('vilbert'), make_batch()
    encoded, head = model['backbone'](batch), model['grounding']
    short, long = batch.spans[1:2], torch.tensor([[0, 1, 12]])
    assert torch.allclose(head.score_all(encoded, short), head.score_all(encoded, torch.cat([short, long]))[:1], atol=1e-6)
    assert not torch.allclose(head.score_all(encoded, short), head.score_all(encoded, short - torch.tensor([0, 0, 1])))


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 20))
def test_masking_of_words(seed, b, t):
    ids = torch.randint(0, 30, (b, t), generator=torch.Generator().manual_seed(seed))
    mask = ids != PAD
    (hidden, labels), again = (mask_words(ids, mask, (CLS, SEP), MASK, 30, torch.Generator().manual_seed(seed), rate=0.5) for _ in range(2))
    assert torch.equal(hidden, again[0]) and torch.equal(labels, again[1])
    chosen = labels >= 0
    assert not (chosen & ((ids == PAD) | (ids == CLS) | (ids == SEP))).any()
    assert torch.equal(labels[chosen], ids[chosen]) and torch.equal(hidden[~chosen], ids[~chosen]) and ((0 <= hidden) & (hidden < 30)).all()


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 12))
def test_masking_of_regions(seed, b, r):
    g = torch.Generator().manual_seed(seed)
    features, mask = torch.rand(b, r, 3, generator=g) + 0.1, torch.arange(r) < torch.randint(0, r + 1, (b, 1), generator=g)
    seen, chosen = mask_regions(features, mask, g, rate=0.5)
    real = mask & (torch.arange(r) > 0)
    assert not (chosen & ~real).any() and seen.isfinite().all() and (seen[:, 1:][~real[:, 1:]] == 0).all()
    assert torch.equal(seen[real & ~chosen], features[real & ~chosen])
    assert torch.allclose(seen[:, 0], seen[:, 1:].sum(1) / real.sum(1, keepdim=True).clamp(min=1), atol=1e-5)


def test_one_sample_is_masked_without_a_batch_dimension():
    g = torch.Generator().manual_seed(0)
    hidden, labels = mask_words(torch.tensor([CLS, 11, 12, SEP]), torch.ones(4).bool(), (CLS, SEP), MASK, 30, g, rate=1.)
    assert labels.tolist() == [-1, 11, 12, -1]
    seen, chosen = mask_regions(torch.ones(3, 2), torch.tensor([True, True, False]), torch.Generator().manual_seed(0), rate=1., zeroed=1.)
    assert chosen.tolist() == [False, True, False] and (seen == 0).all()


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=1, max_size=6))
def test_spatial_encoding_is_bounded_and_knows_only_the_centre(boxes):
    corners = torch.tensor(boxes)[None]
    locations, mask = torch.cat([corners, torch.zeros(1, len(boxes), 1)], -1), torch.ones(1, len(boxes), dtype=torch.bool)
    code = spatial_encoding(locations, 16, mask)
    centre = (corners[..., :2] + corners[..., 2:]) / 2
    assert code.abs().max() <= 1 and torch.allclose(code, spatial_encoding(torch.cat([centre, centre, locations[..., 4:]], -1), 16, mask), atol=1e-5)


@pytest.mark.parametrize('model, config', [(ViLBERT, ViLBERTConfig), (VLBERT, VLBERTConfig)])
def test_spe_is_added_and_has_no_parameters(model, config):
    widths, batch = dict(feature_width=FEATURES, **CALM), make_batch()
    without, with_spe = (model(config.tiny(spe=spe, **widths), torch.Generator().manual_seed(0)) for spe in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(without.state_dict().values(), with_spe.state_dict().values(), strict=True))
    assert not torch.allclose(without(batch).regions, with_spe(batch).regions, atol=0.1)
    if model is ViLBERT:
        image, where = without.image, spatial_encoding(batch.locations, 64, batch.region_mask)
        summed = image.features(batch.features) + image.locations(batch.locations) + where
        assert torch.allclose(with_spe.image(batch.features, batch.locations, batch.region_mask), image.norm(summed))


@both
def test_spe_options(name):
    batch, build = make_batch(), {'vilbert': (ViLBERT, ViLBERTConfig), 'vlbert': (VLBERT, VLBERTConfig)}[name]
    def states(**options):
        model = build[0](build[1].tiny(feature_width=FEATURES, **CALM | options), torch.Generator().manual_seed(0))
        return model.embed(batch)[:, 12:21] if name == 'vlbert' else model.image(batch.features, batch.locations, batch.region_mask)
    plain, width = states(), states().shape[-1]
    for coordinates in 2, 4:
        where = spatial_encoding(batch.locations, width, batch.region_mask, coordinates=coordinates)
        assert torch.allclose(states(spe=True, spe_after=True, spe_coordinates=coordinates), plain + where, atol=1e-6)
        assert not torch.allclose(states(spe=True, spe_coordinates=coordinates), plain + where, atol=.1)
    assert torch.equal(states(spe_after=True, spe_coordinates=4), plain)


@pytest.mark.fault(12)
def test_spatial_encoding_of_padding_is_zero():
    code = spatial_encoding(torch.rand(2, 3, 5), 16, torch.tensor([[True, False, True], [False, False, True]]))
    assert (code == 0).all(-1).tolist() == [[False, True, False], [True, True, False]]


def test_vlbert_replaces_masked_regions_but_never_the_global_one():
    model, batch = make_model('vlbert')['backbone'], make_batch()
    features = torch.where(batch.features == 0, 1., batch.features)
    features[:, 0] = features[0, 2] = 0
    before = model.embed(replace(batch, features=features))
    with torch.no_grad():
        model.masked_object.weight += 1
        model.masked_features.weight += 1
    changed = (model.embed(replace(batch, features=features)) != before).any(-1)
    assert changed.nonzero().tolist() == [[0, 12 + 2]]


@pytest.mark.fault(13)
def test_spatial_encoding_of_broken_boxes_is_finite():
    nan, inf = float('nan'), float('inf')
    boxes = torch.tensor([[[nan] * 5, [0.5, 0.5, 0.5, 0.5, 0], [0.9, 0.9, 0.1, 0.1, 0.64], [-2, -2, 3, 3, 25], [inf, 0, inf, 1, 1]]])
    assert spatial_encoding(boxes, 16, torch.ones(1, 5, dtype=torch.bool)).isfinite().all()


@both
def test_errors_say_what_to_do(name):
    model, batch = make_model(name), make_batch()
    with pytest.raises(ValueError, match='set feature_width'): model['backbone'](replace(batch, features=batch.features[..., :8]))
    long = padded(batch, 60, 0, 0.)
    with pytest.raises(ValueError, match='max_words'): model['backbone'](long)
    if name == 'vilbert':
        with pytest.raises(ValueError, match='locations have width 4, expected 5'): model['backbone'](replace(batch, locations=batch.locations[..., :4]))
    with pytest.raises(ValueError, match='heads'): ViLBERT(ViLBERTConfig.tiny(word_heads=5))


def test_dropout_is_off_in_evaluation_and_on_in_training():
    model, batch = ViLBERT(ViLBERTConfig.tiny(), torch.Generator().manual_seed(0)), make_batch()
    assert torch.equal(model.eval()(batch).words, model(batch).words)
    assert not torch.equal(model.train()(batch).words, model(batch).words)


def test_a_batch_equals_itself_only_and_names_a_misplaced_dtype():
    batch = make_batch()
    assert batch == batch and batch != replace(batch) and len({batch, replace(batch)}) == 2
    encoded = make_model('vilbert')['backbone'](batch)
    assert encoded == encoded and encoded != replace(encoded)
    with pytest.raises(TypeError, match='to\\(dtype=torch.bfloat16\\)'): batch.to(torch.bfloat16)


@pytest.mark.parametrize('mask', [torch.tensor([[1, 0]]), torch.tensor([[1., 0.]]), torch.tensor([[1, 0]], dtype=torch.uint8)])
def test_a_mask_of_numbers_is_refused(mask):
    with pytest.raises(ValueError, match='mask.bool'): attention_bias(mask)
    assert attention_bias(mask.bool()).tolist() == [[[[0., -10000.]]]]


def test_attention_used_wrongly_says_so():
    x = torch.rand(1, 3, 8)
    with pytest.raises(ValueError, match='needs a context'): Attention(8, 2, context_width=6)(x)
    with pytest.raises(ValueError, match='takes no context'): Attention(8, 2)(x, None, x)
    for width, heads, inner in ((8, 0, None), (8, -2, None), (8, 3, None), (8, 2, 0), (0, 2, None)):
        with pytest.raises(ValueError, match='heads'): Attention(width, heads, inner)


class ByKeyword(nn.Module):
    'Hands over bias and context by name, asks one module twice, and drops out'
    def __init__(self):
        super().__init__()
        self.read, self.look = Attention(8, 2, dropout=.5), Attention(8, 2, context_width=6, dropout=.5)
        self.calm = nn.Dropout(.5).eval()
        init_weights(self, .5, torch.Generator().manual_seed(0))

    def forward(self, words, regions, bias):
        words = self.calm(self.read(self.read(words)))
        return self.look(words, bias=bias, context=regions, return_maps=True)[0]


def test_maps_of_attention_called_by_keyword_without_dropout():
    g = torch.Generator().manual_seed(0)
    model, words, regions = ByKeyword(), torch.randn(2, 5, 8, generator=g), torch.randn(2, 4, 6, generator=g)
    bias = attention_bias(torch.tensor([[True]*4, [True, False, True, False]]))
    maps = attention_maps(model, words, regions, bias)
    assert model.training and model.look.training and not model.calm.training
    assert list(maps) == ['read', 'look'] and torch.equal(maps['read'], model.read(words, return_maps=True)[1])
    once = model.eval().read(words)
    assert torch.allclose(maps['look'], model.look(model.read(once), bias, regions, True)[1], atol=1e-6)
    assert (maps['look'][1, ..., [1, 3]] == 0).all()
    with pytest.raises(ValueError, match='needs a context'): attention_maps(model.train(), words, None, bias)
    assert model.training and model.read.training and not attention_maps(nn.Linear(8, 8), words)


@given(st.floats(0, .99), st.lists(st.integers(0, 9), max_size=3), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_dropout_zeroes_and_scales(p, shape, dtype):
    torch.manual_seed(0)
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    out = Dropout(p)(x)
    assert out.shape == x.shape and out.dtype == dtype
    kept = out != 0
    assert torch.allclose(out[kept], torch.ones_like(out[kept]) / (1 - p), rtol=2e-2)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    torch.manual_seed(0)
    assert torch.equal(Dropout(p)(x), out) and torch.equal(Dropout(p).eval()(x), x)


def test_dropout_loses_the_asked_share_and_each_number_by_itself():
    torch.manual_seed(0)
    for p in .05, .1, .5, .9:
        lost = (Dropout(p)(torch.ones(2000, 500)) == 0).double()
        assert abs(lost.mean() - p) < 2e-3 and abs(Dropout(p)(torch.ones(2000, 500)).mean() - 1) < 2e-2
        # neighbours, and numbers drawn in one go, have nothing to do with each other
        for step in 1, 2, 3, 4, 500: assert abs(torch.corrcoef(torch.stack([lost.flatten()[:-step], lost.flatten()[step:]]))[0, 1]) < 5e-3
    for p in -.1, 1, 1.5:
        with pytest.raises(ValueError, match='a share from 0 to below 1'): Dropout(p)


@pytest.mark.parametrize('setting', [dict(geometry_width=0), dict(geometry_width=-8), dict(geometry_width=4), dict(geometry_width=12), dict(spe_coordinates=3)])
def test_vlbert_settings_that_fit_nothing(setting):
    with pytest.raises(ValueError, match=f'{next(iter(setting))} must be .*, not {next(iter(setting.values()))}'): VLBERTConfig.tiny(**setting)


def test_codes_of_boxes_are_computed_in_single_precision():
    locations = make_batch().locations
    for dtype in (torch.bfloat16, torch.float16):
        short = locations.to(dtype)
        assert geometry_encoding(short, 2048).dtype == dtype and torch.equal(geometry_encoding(short, 2048), geometry_encoding(short.float(), 2048).to(dtype))
    double = geometry_encoding(locations.double(), 2048)
    assert double.dtype == torch.float64 and torch.allclose(double.float(), geometry_encoding(locations, 2048), atol=1e-4) and not torch.equal(double, geometry_encoding(locations, 2048).double())
    assert torch.equal(geometry_encoding(torch.tensor([[[0, 0, 1, 1, 1]]]), 16), geometry_encoding(torch.tensor([[[0., 0, 1, 1, 1]]]), 16))
    for width in (12, 4, 0, -8):
        with pytest.raises(ValueError, match=f'positive multiple of 8 .*, not {width}'): geometry_encoding(locations, width)


@pytest.mark.parametrize('crosses', [False, True])
def test_attention_drops_weights_in_training_only(crosses):
    torch.manual_seed(0)
    attention = Attention(8, 2, context_width=6 if crosses else None, dropout=.5)
    x, context, bias = torch.randn(3, 5, 8), torch.randn(3, 4, 6) if crosses else None, attention_bias(torch.rand(3, 4 if crosses else 5) < .7)
    plain, maps = attention(x, bias, context, return_maps=True)
    assert torch.allclose(attention.eval()(x, bias, context), plain, atol=1e-6)
    value = attention.key_value(context).chunk(2, -1)[1] if crosses else attention.query_key_value(x).chunk(3, -1)[2]
    attention.train()
    torch.manual_seed(1)
    thinned = Dropout(.5)(maps) @ value.unflatten(-1, (2, -1)).transpose(1, 2)
    torch.manual_seed(1)
    assert torch.allclose(attention(x, bias, context), attention.output(thinned.transpose(1, 2).flatten(2)), atol=1e-6)
    assert not torch.allclose(attention(x, bias, context), plain, atol=1e-2)


@pytest.mark.parametrize('shape', [(2, 7, 768), (5, 768), (768,), (0, 3, 768), (1, 2, 3, 768)])
def test_a_wide_affine_map_is_the_usual_one(shape):
    torch.manual_seed(0)
    ours, usual = Linear(768, 1024), nn.Linear(768, 1024)
    usual.load_state_dict(ours.state_dict())
    x = torch.randn(*shape[:-1], 2*shape[-1])[..., ::2] # not contiguous
    results = []
    for map_ in (ours, usual):
        each = x.clone().requires_grad_()
        y = map_(each)
        y.square().sum().backward()
        results.append((y.detach(), each.grad, map_.weight.grad, map_.bias.grad))
    for a, b in zip(*results, strict=True): assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)
    assert ours.double()(x.double()).dtype == torch.float64
    with torch.autocast('cpu', torch.bfloat16): assert ours.float()(x).dtype == torch.bfloat16
    ours.weight.requires_grad_(False)
    ours.weight.grad = None
    if x.numel(): assert ours(x.clone().requires_grad_()).sum().backward() is None and ours.weight.grad is None

"The grounding head: forms, the LSTM and its options against a loop over phrases, faults; and the heat maps."
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch import nn

from vlground.grounding import FORMS, LEVELS, GroundingHead, heat_map, phrase_attention, phrase_states, show_heat_maps, token_rows
from vlground.transformer import Batch, Encoded, attention_maps, init_weights
from vlground.vilbert import ViLBERT, ViLBERTConfig
from vlground.vlbert import VLBERT, VLBERTConfig

SPANS = torch.tensor([[0, 1, 4], [0, 6, 8], [1, 2, 3], [1, 0, 9]])
forms = pytest.mark.parametrize('form', FORMS)
levels = pytest.mark.parametrize('level', LEVELS)
readers = pytest.mark.parametrize('reader', [{}, dict(lstm_layers=2), dict(bidirectional=True), dict(lstm_layers=3, bidirectional=True)], ids=str)


def generator(seed=0): return torch.Generator().manual_seed(seed)
def make_head(**choices): return GroundingHead(12, 10, 8, spread=0.3, generator=generator(), **choices)


def make_encoded(seed=0, dtype=torch.float32):
    g = generator(seed)
    return Encoded(torch.randn(2, 9, 12, generator=g).to(dtype), torch.randn(2, 4, 10, generator=g).to(dtype), torch.zeros(2, 8), torch.zeros(2, 8))


def make_batch(level='phrase', spans=SPANS):
    rows = spans if level == 'phrase' else token_rows(spans)
    pair_rows = torch.arange(len(rows)).repeat_interleave(2)
    regions = torch.arange(len(pair_rows)) % 3 + 1
    return Batch(*[torch.zeros(2, 1)]*5, torch.ones(2, 4, dtype=torch.bool), spans=spans, pair_samples=rows[pair_rows, 0], pair_rows=pair_rows, pair_regions=regions, pair_labels=(regions == 1).float())


# the LSTM

def read_one_by_one(head, words, spans):
    'What an LSTM that knows one phrase at a time reads: forwards its state at the last piece, backwards that at the first'
    found, width = [], head.lstm.hidden_size
    for sample, first, last in spans.tolist():
        out = head.lstm(words[sample:sample + 1, first:last])[0][0]
        found.append(torch.cat([out[-1, :width], out[0, width:]]))
    return head.bend(head.words(torch.stack(found)))


@readers
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_packed_phrases_are_read_as_one_by_one(reader, dtype):
    head, encoded = make_head(**reader).to(dtype), make_encoded(dtype=dtype)
    words = encoded.words.requires_grad_()
    got, expected = head.language(words, SPANS), read_one_by_one(head, words, SPANS)
    assert got.dtype == dtype and torch.allclose(got, expected, atol=1e-6)
    inputs = [words, *head.lstm.parameters()]
    for a, b in zip(torch.autograd.grad(got.square().sum(), inputs), torch.autograd.grad(expected.square().sum(), inputs)):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_one_layer_forwards_is_the_rectangle_read_at_the_last_piece():
    head, words = make_head(), make_encoded().words
    out = head.lstm(phrase_states(words, SPANS))[0]
    last = out[torch.arange(len(SPANS)), SPANS[:, 2] - SPANS[:, 1] - 1]
    assert torch.allclose(head.language(words, SPANS), head.bend(head.words(last)), atol=1e-6)


@readers
def test_a_phrase_is_read_the_same_in_any_company(reader):
    head, words = make_head(**reader), make_encoded().words
    alone = torch.cat([head.language(words, SPANS[i:i + 1]) for i in range(len(SPANS))])
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(head.language(words, SPANS), alone, atol=1e-6)
    assert torch.allclose(head.language(words, SPANS[order]), alone[order], atol=1e-6)
    changed = words.clone()
    changed[0, 4:6] = 9 # between two phrases
    changed[0, 8] = 9 # behind one
    assert torch.allclose(head.language(changed, SPANS[:3]), alone[:3], atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(1, 6)), min_size=1, max_size=8), st.booleans())
def test_any_phrases(drawn, bidirectional):
    spans = torch.tensor([(sample, first, min(9, first + length)) for sample, first, length in drawn])
    head, words = make_head(bidirectional=bidirectional), make_encoded().words
    assert torch.allclose(head.language(words, spans), read_one_by_one(head, words, spans), atol=1e-6)


def test_phrases_of_one_piece_and_no_phrase():
    head, encoded = make_head(), make_encoded()
    single = torch.tensor([[0, 3, 4], [1, 8, 9]])
    assert torch.allclose(head.language(encoded.words, single), read_one_by_one(head, encoded.words, single), atol=1e-6)
    assert head.score_all(encoded, SPANS[:0]).shape == (0, 4)
    none = replace(make_batch(), spans=SPANS[:0], pair_samples=SPANS[:0, 0], pair_rows=SPANS[:0, 0], pair_regions=SPANS[:0, 0], pair_labels=torch.zeros(0))
    scores = head(encoded, none)
    scores.sum().backward()
    assert scores.shape == (0,) and all((p.grad == 0).all() for p in head.parameters())
    with pytest.raises(ValueError, match='at least one phrase'): head.language(encoded.words, SPANS[:0])
    with pytest.raises(ValueError, match='at least one phrase'): head(encoded, replace(make_batch(), spans=SPANS[:0]))


def test_the_lstm_stays_in_float32_under_autocast():
    head, encoded = make_head(), make_encoded()
    seen = []
    head.lstm.register_forward_hook(lambda module, args, out: seen.append((args[0].data.dtype, out[1][0].dtype)))
    with torch.autocast('cpu', torch.bfloat16): scores = head(encoded, make_batch())
    assert seen == [(torch.float32, torch.float32)] and scores.dtype == torch.bfloat16
    assert (scores.float() - head(encoded, make_batch())).abs().max() < 0.1
    scores.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in head.parameters())


def test_packing_costs_little():
    head, g = GroundingHead(64, 64, 64), generator()
    lengths, first, sample = torch.randint(1, 6, (192,), generator=g), torch.randint(0, 19, (192,), generator=g), torch.arange(64).repeat_interleave(3)
    spans, words = torch.stack([sample, first, first + lengths], 1), torch.randn(64, 24, 64, generator=g)
    def rectangle(): head.lstm(phrase_states(words, spans))[0].sum().backward()
    def packed(): head.language(words, spans).sum().backward()
    def seconds(f):
        start = time.perf_counter()
        for _ in range(10): f()
        return time.perf_counter() - start
    ratio = min(seconds(packed) for _ in range(5)) / min(seconds(rectangle) for _ in range(5))
    print(f'packed / rectangle: {ratio:.2f}')
    assert ratio < 5 # a guard against a loop over phrases, not a measurement


# forms and levels

@levels
def test_initial_weights_are_drawn_in_the_order_of_the_parts(level):
    head = GroundingHead(12, 10, 8, level=level, generator=generator())
    parts = ([nn.LSTM(12, 12, batch_first=True)] if level == 'phrase' else []) + [nn.Linear(12, 8), nn.Linear(10, 8), nn.Linear(8, 1)]
    init_weights(parts := nn.ModuleList(parts), 0.02, generator())
    assert len(list(head.parameters())) == len(list(parts.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(head.parameters(), parts.parameters()))
    names = ['lstm.weight_ih_l0', 'lstm.weight_hh_l0', 'lstm.bias_ih_l0', 'lstm.bias_hh_l0'] if level == 'phrase' else []
    assert list(head.state_dict()) == names + ['words.weight', 'words.bias', 'regions.weight', 'regions.bias', 'grounding.weight', 'grounding.bias']


@forms
@levels
@readers
def test_pairs_are_entries_of_the_full_table(form, level, reader):
    head, encoded, batch = make_head(form=form, level=level, **reader), make_encoded(), make_batch(level)
    rows = SPANS if level == 'phrase' else token_rows(SPANS)
    table, scores = head.score_all(encoded, rows), head(encoded, batch)
    assert table.shape == (len(rows), 4) and torch.allclose(scores, table[batch.pair_rows, batch.pair_regions], atol=1e-6)
    scores.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@forms
def test_forms_by_hand(form):
    head, language, vision = make_head(form=form), torch.randn(8, generator=generator(1)), torch.randn(8, generator=generator(2))
    if form == 'product': expected = sum(w*a*b for w, a, b in zip(head.grounding.weight[0], language, vision)) + head.grounding.bias[0]
    elif form == 'inner': expected = sum(a*b for a, b in zip(language, vision))/8**.5 + head.offset[0]
    else: expected = head.grounding[2](head.grounding[0](torch.cat([language, vision])).relu())[0]
    assert torch.allclose(head.score(language, vision), expected, atol=1e-6)
    table = head.score(torch.randn(3, 1, 8, generator=generator(3)), torch.randn(3, 5, 8, generator=generator(4)))
    assert table.shape == (3, 5)


def test_which_forms_bend_the_sides():
    for form, relu in (('product', True), ('concat', True), ('inner', False)):
        assert isinstance(make_head(form=form).bend, nn.ReLU) == relu
        for asked in (True, False): assert isinstance(make_head(form=form, relu=asked).bend, nn.ReLU) == asked


def test_concat_can_prefer_another_region_for_another_phrase():
    'Which a single linear layer on both sides cannot: its table is a row plus a column'
    head = make_head(form='concat')
    with torch.no_grad():
        for weight in head.parameters(): weight.zero_()
        head.grounding[0].weight[0, [0, 8]], head.grounding[0].weight[1, [0, 8]] = torch.tensor([1., -1.]), torch.tensor([-1., 1.])
        head.grounding[2].weight[0, :2] = -1 # -|language - vision|
    sides = torch.zeros(2, 8)
    sides[1, 0] = 1
    assert head.score(sides[:, None], sides).tolist() == [[0, -1], [-1, 0]]


# faults

@pytest.mark.parametrize('choices, words', [(dict(level='sentence'), "level must be 'phrase' or 'token', not 'sentence'"),
    (dict(form='bilinear'), "form must be 'product' or 'inner' or 'concat', not 'bilinear'")])
def test_unknown_choices_are_named(choices, words):
    with pytest.raises(ValueError, match=words): make_head(**choices)


@levels
@pytest.mark.parametrize('span', [[2, 0, 1], [-1, 0, 1], [0, -1, 2], [0, 3, 3], [0, 4, 3], [1, 8, 10]])
def test_spans_outside_the_words_are_named(level, span):
    spans = torch.cat([SPANS, torch.tensor([span])])
    for ask in (lambda: make_head(level=level).language(make_encoded().words, spans), lambda: make_head(level=level).score_all(make_encoded(), spans)):
        with pytest.raises(ValueError, match=rf'spans\[4\] = \[{span[0]}, {span[1]}, {span[2]}\]: expected a sample below 2 and 0 <= first < last <= 9'): ask()
    with pytest.raises(ValueError, match=r'spans\[4\]'): phrase_attention(torch.rand(2, 3, 9, 4), spans)


def test_spans_without_a_sample_are_refused():
    for wrong in (SPANS[:, 1:], SPANS[0], SPANS.float()):
        with pytest.raises(ValueError, match=r'integers of shape \(p, 3\)'): make_head().language(make_encoded().words, wrong)


@levels
def test_pairs_outside_are_named(level):
    head, encoded, batch = make_head(level=level), make_encoded(), make_batch(level)
    rows = {'phrase': 4, 'token': 15}[level]
    def with_third(name, value):
        changed = getattr(batch, name).clone()
        changed[2] = value
        return replace(batch, **{name: changed})
    for name, value, words in (('pair_rows', rows, rf'pair_rows\[2\] = {rows}: expected one of the {rows} rows'), ('pair_rows', -1, 'pair_rows'),
            ('pair_samples', 1, 'the sample of the pair'), ('pair_regions', 4, '1 to 3'), ('pair_regions', 0, 'global')):
        with pytest.raises(ValueError, match=words): head(encoded, with_third(name, value))


@pytest.mark.parametrize('name', ['pair_samples', 'pair_rows', 'pair_regions'])
def test_pairs_whose_parts_do_not_go_together_are_refused(name):
    batch = make_batch()
    for count in (0, 1, 7):
        with pytest.raises(ValueError, match=f"'{name}': {count}"): make_head()(make_encoded(), replace(batch, **{name: getattr(batch, name)[:count]}))


@pytest.mark.parametrize('name', ['spans', 'pair_samples', 'pair_rows', 'pair_regions'])
def test_a_batch_without_pairs_is_refused(name):
    with pytest.raises(ValueError, match=f'needs {name} in the batch'): make_head()(make_encoded(), replace(make_batch(), **{name: None}))


def test_pairs_of_the_other_level_are_noticed():
    encoded = make_encoded()
    with pytest.raises(ValueError, match='the other level'): make_head(level='phrase')(encoded, make_batch('token'))
    with pytest.raises(ValueError, match='the other level'): make_head(level='token')(encoded, make_batch('phrase'))


# heat maps

LOCATIONS = torch.tensor([[0, 0, 1, 1, 1], [0, 0, .5, .5, .25], [.25, .25, .5, .5, .0625], [.75, .75, 1, 1, .0625], [0, 0, 0, 0, 0]])


def test_heat_map_by_hand():
    found = heat_map(torch.tensor([100., 1., 2., 3., 100.]), LOCATIONS, (16, 8))
    assert found.shape == (8, 16) and found.dtype == np.float64
    assert (found[:2, :8] == 1).all() and (found[6:, 12:] == 3).all()
    assert (found[2:4, 4:8] == 2).all() # the larger number of two
    assert np.array_equal(heat_map(torch.tensor([100., 2., 1., 3., 100.]), LOCATIONS, (16, 8))[:4, :8], np.full((4, 8), 2.)) # whichever box has it
    assert np.isnan(found[:6, 8:]).all() and np.isnan(found[4:, :12]).all() # neither global region nor padding


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)]*5), max_size=6), st.integers(1, 30), st.integers(1, 30))
def test_heat_map_pixel_by_pixel(drawn, width, height):
    locations = torch.tensor([(0, 0, 1, 1)] + [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in drawn]).float()
    values = torch.tensor([9.] + [value for *_, value in drawn])
    found, expected = heat_map(values, locations, (width, height)), np.full((height, width), np.nan)
    inside = np.zeros((len(values), height, width), bool)
    for i, (x1, y1, x2, y2) in enumerate(locations.tolist()):
        for y in range(height):
            for x in range(width): inside[i, y, x] = i > 0 and x1*width <= x + .5 < x2*width and y1*height <= y + .5 < y2*height
    for y in range(height):
        for x in range(width):
            here = [values[i].item() for i in range(1, len(values)) if inside[i, y, x]]
            if here: expected[y, x] = max(here)
    assert np.array_equal(found, expected, equal_nan=True)
    for value, where in list(zip(values.tolist(), inside))[1:]: assert (found[where] >= value).all()


def test_heat_map_does_not_depend_on_the_order_of_regions_and_stays_inside():
    values, order = torch.rand(5, generator=generator()), torch.tensor([0, 3, 1, 4, 2])
    assert np.allclose(heat_map(values, LOCATIONS, (20, 10)), heat_map(values[order], LOCATIONS[order], (20, 10)), equal_nan=True)
    over = LOCATIONS.clone()
    over[1, :2], over[3, 2:4] = -.5, 1.5 # beyond the edges
    assert np.allclose(heat_map(values, LOCATIONS, (20, 10)), heat_map(values, over, (20, 10)), equal_nan=True)


def test_heat_map_faults():
    for values, locations in ((torch.rand(4), LOCATIONS), (torch.rand(1, 5), LOCATIONS), (torch.rand(5), LOCATIONS[:, :3]), (torch.rand(5), LOCATIONS[None])):
        with pytest.raises(ValueError, match='of one picture'): heat_map(values, locations, (8, 8))
    pixels = LOCATIONS*torch.tensor([60, 40, 60, 40, 1])
    for ask in (lambda: heat_map(torch.rand(5), pixels, (60, 40)), lambda: show_heat_maps(np.zeros((40, 60, 3), np.uint8), pixels, torch.rand(5), torch.rand(5), 'x')):
        with pytest.raises(ValueError, match='expected shares of the picture'): ask()


def tiny_batch(t=9, r=5):
    g = generator()
    region_mask = torch.tensor([[True]*5, [True]*3 + [False]*2])
    locations = LOCATIONS.expand(2, 5, 5)*region_mask[..., None]
    return Batch(torch.randint(5, 100, (2, t), generator=g), torch.ones(2, t, dtype=torch.bool), torch.zeros(2, t, dtype=torch.int64),
        torch.randn(2, r, 32, generator=g)*region_mask[..., None], locations, region_mask)


@pytest.mark.parametrize('name', ['vilbert', 'vlbert'])
def test_phrase_attention_of_both_backbones(name):
    batch = tiny_batch()
    model = ViLBERT(ViLBERTConfig.tiny(), generator()) if name == 'vilbert' else VLBERT(VLBERTConfig.tiny(feature_width=32, geometry_width=64), generator())
    maps = attention_maps(model.eval(), batch)['joint_layers.0.words.attention' if name == 'vilbert' else 'layers.1.attention']
    found = phrase_attention(maps, SPANS)
    assert torch.allclose(found.sum(1), torch.ones(4)) and torch.allclose(found[1], maps[0, :, 6:8].mean((0, 1)))
    assert torch.allclose(torch.stack([phrase_attention(maps, SPANS, head) for head in range(maps.shape[1])]).mean(0), found, atol=1e-6)
    regions = found if name == 'vilbert' else found[:, 9:14] # one stream: pieces, regions, [END]
    assert regions.shape == (4, 5) and (regions[2:, 3:] < 1e-6).all() # sample 1 has padding there
    for head in (-1, maps.shape[1]):
        with pytest.raises(ValueError, match='head must be 0 to'): phrase_attention(maps, SPANS, head)
    assert phrase_attention(maps, SPANS[:0]).shape == (0, maps.shape[-1])
    with pytest.raises(ValueError, match=r'expected \(b, heads, t, k\)'): phrase_attention(maps[0], SPANS)


def test_show_heat_maps():
    before = plt.get_fignums()
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    figure = show_heat_maps(picture, LOCATIONS, torch.tensor([.6, .1, .2, .1, 0.]), torch.tensor([9., -1., 0., 2., 9.]), '$5 dog')
    assert isinstance(figure, Figure) and plt.get_fignums() == before
    assert figure.get_suptitle() == '$5 dog'
    figure.savefig('/dev/null', format='png')
    plain, attention, grounding = figure.axes[:3]
    assert [ax.get_title() for ax in figure.axes[:3]] == ['the regions', 'attention (weight)', 'grounding (probability)']
    assert len(figure.axes) == 5 and len(plain.patches) == 3 # two colour bars; neither global region nor padding
    assert attention.patches[0].get_bbox().extents.tolist() == [15, 10, 30, 20] # region 2
    assert grounding.patches[0].get_bbox().extents.tolist() == [45, 30, 60, 40] # region 3
    assert grounding.images[1].get_clim() == (0, 1) and np.nanmax(grounding.images[1].get_array()) == pytest.approx(1/(1 + np.exp(-2)))
    with pytest.raises(ValueError, match='nothing to paint'): show_heat_maps(picture, LOCATIONS[[0, 4]], torch.ones(2), torch.ones(2), 'x')
    for weights, scores in ((torch.rand(14), torch.rand(5)), (torch.rand(5), torch.rand(4)), (torch.rand(1, 5), torch.rand(1, 5))):
        with pytest.raises(ValueError, match='expected 5 weights and scores.*columns first'): show_heat_maps(picture, LOCATIONS, weights, scores, 'x')

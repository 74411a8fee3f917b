"Objectives: whole words, overlapping regions, wrong captions, pairs that ask about something hidden; faults 10, 12 and 13."
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vlground.boxes import box_iou
from vlground.grounding import GroundingHead, token_rows
from vlground.objectives import (OVERLAP, LossWeights, continuing_pieces, grounding_loss, mask_regions, mask_words, masked_pairs, overlapping, pretraining_losses,
                                 swap_captions, word_loss, word_starts)
from vlground.phrases import load_tokenizer
from vlground.transformer import Batch, Encoded, init_weights
from vlground.vilbert import PretrainingHeads

PAD, CLS, SEP, MASK, VOCABULARY, CLASSES, FEATURES = 0, 2, 3, 4, 60, 7, 6
NAN, INF = float('nan'), float('inf')
seeds = st.integers(0, 2**31)
levels = pytest.mark.parametrize('level', ['phrase', 'token'])


def generator(seed=0): return torch.Generator().manual_seed(seed)


class Small(nn.Module):
    "A backbone without attention: each state from its own input."
    word_width = region_width = pooled_width = 12

    def __init__(self):
        super().__init__()
        self.word_embedding, self.look = nn.Embedding(VOCABULARY, 12), nn.Linear(FEATURES, 12)
        init_weights(self, .5, generator())

    def forward(self, batch):
        words, regions = self.word_embedding(batch.input_ids), self.look(batch.features)
        return Encoded(words, regions, words.mean(1), regions.mean(1))


@pytest.fixture
def model():
    backbone = Small()
    return backbone, PretrainingHeads(backbone, CLASSES, spread=.5, generator=generator(1))


def head(level): return GroundingHead(12, 12, 10, level, spread=.5, generator=generator(2))


def make_batch(level='phrase', seed=0, b=5, t=10, r=6):
    g = generator(seed)
    ids = torch.randint(10, VOCABULARY, (b, t), generator=g)
    word_mask, region_mask = torch.ones(b, t, dtype=torch.bool), torch.ones(b, r, dtype=torch.bool)
    hidden, word_labels = mask_words(ids, word_mask, (), MASK, VOCABULARY, g)
    seen, region_labels = mask_regions(torch.randn(b, r, FEATURES, generator=g), region_mask, g)
    sample = torch.arange(b).repeat_interleave(2)
    spans = torch.stack([sample, torch.tensor([1, 6]).repeat(b), torch.tensor([5, t]).repeat(b)], 1)
    rows = token_rows(spans) if level == 'token' else spans
    pair_rows = torch.arange(len(rows)).repeat_interleave(2)
    return Batch(hidden, word_mask, torch.zeros_like(ids), seen, torch.zeros(b, r, 5), region_mask, word_labels, region_labels,
        torch.rand(b, r, CLASSES, generator=g).softmax(-1), torch.arange(b) != 1, spans, rows[pair_rows, 0], pair_rows,
        torch.randint(1, r, pair_rows.shape, generator=g), torch.tensor([1., 0.]).repeat(len(rows)))


# words

def masked_by_loop(ids, real, special, continues, dice, rate):
    "What `mask_words` does, one word after the other, with the same dice."
    hidden, labels = ids.clone(), torch.full_like(ids, -1)
    for row in range(len(ids)):
        free = [bool(real[row, i]) and int(ids[row, i]) not in special for i in range(ids.shape[1])]
        words = []
        for i in range(ids.shape[1]):
            if not free[i]: continue
            if continues[row, i] and i and free[i - 1]: words[-1].append(i)
            else: words.append([i])
        for word in words:
            if dice[0, row, word[0]] >= rate: continue
            for i in word:
                labels[row, i] = ids[row, i]
                if dice[1, row, word[0]] < .8: hidden[row, i] = MASK
                elif dice[1, row, word[0]] < .9: hidden[row, i] = int(dice[2, row, i] * 30)
    return hidden, labels


@given(seeds, st.integers(1, 4), st.integers(1, 14), st.sampled_from([0., .15, .5, 1.]))
def test_whole_words_as_a_loop_would_choose_them(seed, b, t, rate):
    g = generator(seed)
    ids, continues = torch.randint(0, 30, (b, t), generator=g), torch.rand(b, t, generator=g) < .5
    found = mask_words(ids, ids != PAD, (CLS, SEP), MASK, 30, generator(seed + 1), rate, continues)
    expected = masked_by_loop(ids, ids != PAD, (CLS, SEP), continues, torch.rand(3, b, t, generator=generator(seed + 1)), rate)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_whole_words_are_chosen_as_one_and_at_the_same_rate():
    ids = torch.tensor([[CLS, *([11, 12, 13] * 5), SEP]]).expand(4000, -1)
    continues = (ids == 12) | (ids == 13)
    hidden, labels = mask_words(ids, torch.ones_like(ids, dtype=torch.bool), (CLS, SEP), MASK, 30, generator(), continues=continues)
    chosen, masked = labels[:, 1:-1].reshape(-1, 3) >= 0, hidden[:, 1:-1].reshape(-1, 3) == MASK
    assert (chosen.all(1) == chosen.any(1)).all() and abs(chosen.float().mean() - .15) < .01
    # all pieces of a word become [MASK], or (but by chance) none
    assert abs(masked.all(1)[chosen[:, 0]].float().mean() - .8) < .02 and (masked.any(1) & ~masked.all(1)).float().mean() < .003
    random = chosen[:, 0] & ~masked.any(1) & (hidden[:, 1:-1].reshape(-1, 3) != ids[:, 1:-1].reshape(-1, 3)).any(1)
    pieces = hidden[:, 1:-1].reshape(-1, 3)[random]
    assert (pieces[:, 0] != pieces[:, 1]).float().mean() > .8 # drawn for each piece


def test_without_continuing_pieces_nothing_changes():
    ids = torch.randint(0, 30, (20, 9), generator=generator())
    each, same = (mask_words(ids, ids != PAD, (CLS, SEP), MASK, 30, generator(3), continues=c) for c in (None, torch.zeros_like(ids, dtype=torch.bool)))
    assert torch.equal(each[0], same[0]) and torch.equal(each[1], same[1])


def test_what_continues_nothing_begins_a_word():
    free = torch.tensor([True, True, False, True, True, False, False, True])
    assert word_starts(torch.ones(8, dtype=torch.bool), free).tolist() == [0, 0, 2, 3, 3, 5, 6, 7]
    assert word_starts(torch.tensor([[True], [False]]), torch.tensor([[True], [True]])).tolist() == [[0], [0]]
    assert word_starts(torch.zeros(2, 0, dtype=torch.bool), torch.zeros(2, 0, dtype=torch.bool)).shape == (2, 0)


@pytest.mark.parametrize('caption', ['a zebra skateboarding near the old house', "isn't it, two kids play ball", 'ÉCOLE \u0000 \U0001f600 naïveté'])
def test_continuing_pieces_are_those_of_the_same_word(caption):
    encoding = load_tokenizer().encode(caption)
    words = encoding.word_ids
    table = continuing_pieces(load_tokenizer())
    assert table.shape == (load_tokenizer().get_vocab_size(),) and table.dtype == torch.bool
    assert table[encoding.ids].tolist() == [i > 0 and words[i] is not None and words[i] == words[i - 1] for i in range(len(words))]


def test_special_ids_in_any_collection():
    ids = torch.randint(0, 9, (5, 9), generator=generator())
    first, *others = (mask_words(ids, ids != PAD, special, MASK, 30, generator(3), 1.) for special in ((CLS, SEP), {CLS, SEP}, [SEP, CLS]))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other))


def test_errors_of_words():
    ids = torch.ones(2, 3, dtype=torch.int64)
    for wrong in (torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r'continues must be bool of shape \(2, 3\)'): mask_words(ids, ids > 0, (), MASK, 30, continues=wrong)
    with pytest.raises(ValueError, match='rate'): mask_words(ids, ids > 0, (), MASK, 30, rate=15)
    with pytest.raises(ValueError, match="'@@'"): continuing_pieces(load_tokenizer(), '@@')


# regions

def make_regions(seed, b, r):
    g = generator(seed)
    corners = torch.rand(b, r, 2, 2, generator=g).sort(-2).values.flatten(-2)
    corners[:, r//2:] = corners[:, :r - r//2] + .03 * torch.rand(b, r - r//2, 4, generator=g) # neighbours
    mask = torch.arange(r) < torch.randint(1, r + 1, (b, 1), generator=g)
    return torch.rand(b, r, 3, generator=g) + .1, torch.cat([corners, torch.rand(b, r, 1, generator=g)], -1), mask


def regions_by_loop(features, locations, mask, dice, rate, zeroed, overlap, divide_by):
    "What `mask_regions` does, one region after the other, with the same dice."
    seen, chosen = torch.zeros_like(features), torch.zeros_like(mask)
    for i in range(len(features)):
        regions = [k for k in range(1, mask.shape[1]) if mask[i, k]]
        asked = [k for k in regions if dice[0, i, k] < rate]
        lost = {k for k in asked if dice[1, i, k] < zeroed}
        def near(k, others): return any(k == other or box_iou(locations[i, k, :4][None], locations[i, other, :4][None]) > .4 for other in others)
        if overlap == 'zero': lost = {k for k in regions if near(k, lost)}
        for k in regions:
            chosen[i, k] = k in asked
            if k not in lost: seen[i, k] = features[i, k]
        count = len(regions)
        if overlap == 'zero' or divide_by == 'seen': count -= len(lost)
        if overlap == 'divisor': count = mask.shape[1] - 1 - sum(near(k, asked) for k in regions)
        seen[i, 0] = seen[i, 1:].sum(0) / max(count, 1)
    return seen, chosen


@given(seeds, st.integers(1, 3), st.integers(1, 9), st.sampled_from([(None, 'all'), (None, 'seen'), ('divisor', 'all'), ('zero', 'all'), ('zero', 'seen')]), st.sampled_from([.15, .5, 1.]))
def test_rules_of_overlap_and_divisor_as_a_loop_would_apply_them(seed, b, r, rules, rate):
    features, locations, mask = make_regions(seed, b, r)
    seen, chosen = mask_regions(features, mask, generator(seed), rate, .7, locations, *rules)
    expected = regions_by_loop(features, locations, mask, torch.rand(2, b, r, generator=generator(seed)), rate, .7, *rules)
    assert torch.equal(chosen, expected[1]) and torch.allclose(seen, expected[0], atol=1e-6)


@given(seeds)
def test_overlap_rules_choose_the_same_regions_and_agree_where_nothing_overlaps(seed):
    features, locations, mask = make_regions(seed, 3, 8)
    (plain, chosen), *others = [mask_regions(features, mask, generator(seed), .4, locations=locations, overlap=overlap) for overlap in (None, 'divisor', 'zero')]
    assert all(torch.equal(chosen, other) for _, other in others)
    assert torch.equal(others[0][0][:, 1:], plain[:, 1:]) # 'divisor' changes the global region alone
    assert ((others[1][0] == plain).all(-1) | (others[1][0] == 0).all(-1))[:, 1:].all()
    apart = torch.zeros(3, 8, 5)
    apart[..., 0] = torch.arange(8) / 8
    apart[..., 2:4] = apart[..., :2] + .1
    (plain, _), (zero, _) = (mask_regions(features, mask, generator(seed), .4, locations=apart, overlap=overlap) for overlap in (None, 'zero'))
    assert torch.equal(zero[:, 1:], plain[:, 1:])


def test_an_overlap_of_exactly_the_threshold_does_not_count_and_the_global_region_never_does():
    boxes = torch.tensor([[0., 0, 100, 100], [0, 0, 100, 100], [0, 0, 100, 40], [0, 0, 100, 41], [200, 200, 201, 201]])
    marked = torch.tensor([False, True, False, False, False])
    assert OVERLAP == .4 and overlapping(boxes, marked).tolist() == [True, True, False, True, False]
    features = torch.ones(5, 2)
    seen, chosen = mask_regions(features, torch.ones(5, dtype=torch.bool), generator(), 1., 1., boxes, 'zero')
    assert chosen.tolist() == [False, True, True, True, True] and (seen == 0).all()


def test_the_published_divisor_counts_padding():
    # one chosen of three regions, one of the others overlaps it; 5 slots: 5 - 2 are counted
    boxes = torch.tensor([[0., 0, 9, 9], [0, 0, 4, 4], [0, 0, 4, 3.9], [5, 5, 9, 9], [0, 0, 0, 0], [0, 0, 0, 0]])
    features, mask = torch.tensor([[0.], [2.], [4.], [8.], [0.], [0.]]), torch.tensor([True] * 4 + [False] * 2)
    def shown(r, overlap, rate=.15):
        first_alone = [False, True] + [False] * (r - 2)
        seed = next(s for s in range(999) if mask_regions(features[:r], mask[:r], generator(s))[1].tolist() == first_alone)
        return mask_regions(features[:r], mask[:r], generator(seed), rate, 1., boxes[:r], overlap)[0].flatten().tolist()
    assert [shown(6, overlap) for overlap in (None, 'divisor', 'zero')] == [[4, 0, 4, 8, 0, 0], [4, 0, 4, 8, 0, 0], [8, 0, 0, 8, 0, 0]]
    assert shown(5, 'divisor')[0] == 6 and shown(4, 'divisor')[0] == 12 # one slot fewer: 12 / (4 - 2), 12 / (3 - 2)
    assert shown(4, 'divisor', 1.)[0] == 0 # never divided by 0


def test_the_mean_of_what_is_seen():
    # as VL-BERT: 3 regions and padding, the first hidden
    features, mask = torch.tensor([[9.], [2.], [4.], [8.], [1.]]), torch.tensor([True] * 4 + [False])
    seed = next(s for s in range(999) if mask_regions(features, mask, generator(s))[1].tolist() == [False, True, False, False, False])
    for divide_by, expected in (('all', 4.), ('seen', 6.)):
        assert mask_regions(features, mask, generator(seed), zeroed=1., divide_by=divide_by)[0].flatten().tolist() == [expected, 0, 4, 8, 0]
        assert mask_regions(features, mask, generator(seed), zeroed=0., divide_by=divide_by)[0][0] == (2 + 4 + 8) / 3 # chosen, but kept
    assert (mask_regions(features, mask, generator(), 1., 1., divide_by='seen')[0] == 0).all() # never divided by 0


@pytest.mark.parametrize('value', [NAN, INF, -INF])
def test_what_is_padding_or_hidden_may_be_anything(value):
    features, mask = torch.ones(2, 5, 3), torch.tensor([[True, True, True, True, False]] * 2)
    plain, broken = features * mask[..., None], features.masked_fill(~mask[..., None], value)
    broken[:, 0] = value # the global region is computed anew
    for seed in range(9):
        (seen, chosen), (expected, same) = (mask_regions(x, mask, generator(seed), .5) for x in (broken, plain))
        assert torch.equal(seen, expected) and torch.equal(chosen, same)
    assert (mask_regions(torch.full((2, 5, 3), value), mask, generator(), 1., 1.)[0] == 0).all()


def test_pictures_in_any_number():
    for shape in ((), (0,), (2, 3)):
        features, locations, mask = torch.ones(*shape, 4, 2), torch.rand(*shape, 4, 5).half(), torch.ones(*shape, 4, dtype=torch.bool)
        for overlap in (None, 'divisor', 'zero'):
            seen, chosen = mask_regions(features, mask, generator(), locations=locations, overlap=overlap)
            assert seen.shape == features.shape and chosen.shape == mask.shape


def test_errors_of_regions():
    features, mask = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="'both'"): mask_regions(features, mask, overlap='both')
    with pytest.raises(ValueError, match="divide_by must be 'all' or 'seen', not 'hidden'"): mask_regions(features, mask, divide_by='hidden')
    with pytest.raises(ValueError, match='divisor of its own'): mask_regions(features, mask, locations=torch.ones(2, 3, 5), overlap='divisor', divide_by='seen')
    for overlap in ('divisor', 'zero'):
        with pytest.raises(ValueError, match='give locations'): mask_regions(features, mask, overlap=overlap)
        with pytest.raises(ValueError, match=r'locations must have shape \(2, 3, 5\)'): mask_regions(features, mask, locations=torch.ones(2, 4, 5), overlap=overlap)
    for wrong in (dict(rate=-1.), dict(zeroed=90)):
        with pytest.raises(ValueError, match='share from 0 to 1'): mask_regions(features, mask, **wrong)


# wrong captions

@given(seeds, st.integers(0, 12), st.integers(1, 50))
def test_captions_are_swapped_with_the_draws_of_old(seed, b, count):
    g = generator(seed)
    rows = torch.randint(count, (b,), generator=g).tolist()
    whose, aligned = swap_captions(rows, count, generator(seed))
    g = generator(seed)
    true, other = torch.rand(b, generator=g) < .5, torch.randint(count, (b,), generator=g)
    assert torch.equal(aligned, true) and torch.equal(whose, torch.where(true, torch.tensor(rows, dtype=torch.int64), other))


def test_shares_of_swapped_captions():
    rows = torch.arange(1000)
    for rate in (0., .3, 1.):
        whose, aligned = swap_captions(rows, 1000, generator(), rate)
        assert abs(aligned.float().mean() - (1 - rate)) < .05 and torch.equal(whose[aligned], rows[aligned])
        assert whose.dtype == torch.int64 and ((0 <= whose) & (whose < 1000)).all()
    assert swap_captions(rows, 1000, generator(), 0.)[1].all()
    # of one caption, a random one is its own, and still counts as swapped
    whose, aligned = swap_captions([0], 1, generator(), 1.)
    assert whose.tolist() == [0] and aligned.tolist() == [False]


def test_errors_of_wrong_captions():
    with pytest.raises(ValueError, match='rate'): swap_captions([0], 1, rate=2)
    for rows in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match='from 0 to count - 1 = 2'): swap_captions(rows, 3)


# pairs of something hidden

def masked_by_asking(batch, level):
    rows = batch.spans.tolist() if level == 'phrase' else [[s, i, i + 1] for s, first, last in batch.spans.tolist() for i in range(first, last)]
    found = []
    for row, region in zip(batch.pair_rows.tolist(), batch.pair_regions.tolist()):
        sample, first, last = rows[row]
        found.append(bool(batch.region_labels[sample, region]) or any(batch.word_labels[sample, i] >= 0 for i in range(first, last)))
    return found


@levels
def test_masked_pairs_as_a_loop_would_find_them(level):
    for seed in range(20):
        batch = make_batch(level, seed)
        assert masked_pairs(batch, level).tolist() == masked_by_asking(batch, level)
    assert masked_pairs(replace(batch, word_labels=None), level).tolist() == batch.region_labels[batch.pair_samples, batch.pair_regions].tolist()
    assert not masked_pairs(replace(batch, word_labels=None, region_labels=None), level).any()


@levels
def test_excluded_pairs_take_no_part(model, level):
    backbone, heads = model
    batch, grounding = make_batch(level), head(level)
    encoded, out = backbone(batch), masked_pairs(batch, level)
    assert out.any() and not out.all()
    kept = {name: getattr(batch, name)[~out] for name in ('pair_samples', 'pair_rows', 'pair_regions', 'pair_labels')}
    excluded = grounding_loss(encoded, batch, grounding, 'exclude')
    assert torch.allclose(excluded, grounding_loss(encoded, replace(batch, **kept), grounding))
    lying = replace(batch, pair_labels=torch.where(out, 1 - batch.pair_labels, batch.pair_labels))
    assert torch.equal(excluded, grounding_loss(encoded, lying, grounding, 'exclude')) and not torch.allclose(excluded, grounding_loss(encoded, batch, grounding))
    whole = pretraining_losses(encoded, batch, heads, grounding, masked='exclude')
    assert torch.equal(whole['grounding'], excluded)
    assert torch.equal(pretraining_losses(encoded, batch, heads, grounding)['grounding'], grounding_loss(encoded, batch, grounding, 'keep'))


def test_errors_of_losses(model):
    backbone, heads = model
    batch = make_batch()
    encoded = backbone(batch)
    for call in (lambda: grounding_loss(encoded, batch, head('phrase'), 'drop'), lambda: pretraining_losses(encoded, batch, heads, masked='drop')):
        with pytest.raises(ValueError, match="'drop'"): call()
    with pytest.raises(ValueError, match="'word'"): masked_pairs(batch, 'word')
    with pytest.raises(ValueError, match='needs aligned'): pretraining_losses(encoded, replace(batch, aligned=None), heads, weights=LossWeights(alignment=0), objective='aligned')
    needed = dict(word=['word_labels'], region=['region_labels', 'region_targets'], alignment=['aligned'],
        grounding=['spans', 'pair_samples', 'pair_rows', 'pair_regions', 'pair_labels'])
    for name, fields in needed.items():
        for field in fields:
            with pytest.raises(ValueError, match=f'the {name} loss needs {field} in the batch'): pretraining_losses(encoded, replace(batch, **{field: None}), heads, head('phrase'))
    for objective in ('always', 'aligned'):
        with pytest.raises(ValueError, match=r'aligned must be bool, .* got torch.int64'):
            pretraining_losses(encoded, replace(batch, aligned=batch.aligned.long()), heads, weights=LossWeights(alignment=0), objective=objective)


# heads on masked positions alone

def test_heads_work_on_masked_positions_alone(model):
    backbone, heads = model
    batch = make_batch(t=10)
    encoded, hidden = backbone(batch), int((batch.word_labels >= 0).sum())
    with FlopCounterMode(display=False) as counted: loss = word_loss(encoded, batch, heads)
    with FlopCounterMode(display=False) as everywhere: scores = heads.words(encoded.words)
    assert 0 < hidden < 50 and counted.get_total_flops() * 50 == everywhere.get_total_flops() * hidden
    assert abs(nn.functional.cross_entropy(scores.flatten(0, 1), batch.word_labels.flatten(), ignore_index=-1) - loss) < 1e-5


# faults

@pytest.mark.fault(10)
@levels
def test_fault_10_every_pair_excluded_is_exactly_zero(model, level):
    backbone, heads = model
    grounding, batch = head(level), make_batch(level)
    batch = replace(batch, word_labels=torch.ones_like(batch.word_labels))
    losses = pretraining_losses(backbone(batch), batch, heads, grounding, masked='exclude')
    assert losses['grounding'].item() == 0
    losses['total'].backward()
    assert all((p.grad == 0).all() for p in grounding.parameters()) and all(p.grad.isfinite().all() for p in heads.parameters())


@pytest.mark.fault(10)
@levels
def test_fault_10_no_pair_at_all_with_masked_pairs_excluded(model, level):
    backbone, heads = model
    batch = make_batch(level)
    for names in (('pair_samples', 'pair_rows', 'pair_regions', 'pair_labels'), ('spans', 'pair_samples', 'pair_rows', 'pair_regions', 'pair_labels')):
        empty, grounding = replace(batch, **{name: getattr(batch, name)[:0] for name in names}), head(level)
        losses = pretraining_losses(backbone(empty), empty, heads, grounding, masked='exclude')
        assert losses['grounding'].item() == 0
        losses['total'].backward()
        assert all(p.grad is not None and (p.grad == 0).all() for p in grounding.parameters())


@pytest.mark.fault(10)
def test_fault_10_nothing_hidden_in_any_aligned_sample(model):
    backbone, heads = model
    batch = replace(make_batch(), aligned=torch.zeros(5, dtype=torch.bool))
    losses = pretraining_losses(backbone(batch), batch, heads, objective='aligned')
    assert losses['word'].item() == losses['region'].item() == 0 and losses['alignment'] > 0
    losses['total'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())


@pytest.mark.fault(12)
@pytest.mark.parametrize('overlap', [None, 'divisor', 'zero'])
def test_fault_12_rows_of_padding_alone(overlap):
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    seen, chosen = mask_regions(torch.ones(2, 4, 3), nothing, generator(), 1., 1., torch.zeros(2, 4, 5), overlap)
    assert (seen == 0).all() and not chosen.any()
    hidden, labels = mask_words(torch.zeros(2, 4, dtype=torch.int64), nothing, (CLS,), MASK, 30, generator(), 1., ~nothing)
    assert (hidden == 0).all() and (labels == -1).all()
    alone = torch.tensor([[True, False, False, False]] * 2) # the global region and no other
    assert (mask_regions(torch.ones(2, 4, 3), alone, generator(), 1., 1., torch.zeros(2, 4, 5), overlap)[0] == 0).all()


BROKEN = {'no area': [.5, .5, .5, .9], 'reversed': [.9, .9, .1, .1], 'outside': [-2., -2., 3., 3.], 'NaN': [NAN] * 4, 'one NaN': [.1, NAN, .9, .9], 'infinite': [-INF, 0., INF, 1.]}


@pytest.mark.fault(13)
@pytest.mark.parametrize('name', BROKEN)
@pytest.mark.parametrize('overlap', ['divisor', 'zero'])
def test_fault_13_broken_boxes_are_neighbours_of_none_and_yield_no_nan(name, overlap):
    locations = torch.tensor([[[0., 0, 1, 1], BROKEN[name], BROKEN[name], [.1, .1, .3, .3], [.6, .6, .9, .9]]])
    features, mask = torch.ones(1, 5, 2), torch.ones(1, 5, dtype=torch.bool)
    for seed in range(20):
        seen, chosen = mask_regions(features, mask, generator(seed), .5, 1., locations, overlap)
        assert seen.isfinite().all()
        # not even of each other, unless it is a box after all
        if name != 'outside': assert torch.equal((seen[0, 1:] == 0).all(-1), chosen[0, 1:])
    if name != 'outside': assert not overlapping(locations, torch.tensor([[False, True, True, False, False]])).any()


@pytest.mark.fault(13)
def test_fault_13_broken_boxes_in_training(model):
    backbone, heads = model
    features, mask = torch.randn(5, 6, FEATURES, generator=generator()), torch.ones(5, 6, dtype=torch.bool)
    locations = torch.tensor([*BROKEN.values()]).expand(5, 6, 4)
    seen, chosen = mask_regions(features, mask, generator(), .5, locations=locations, overlap='zero')
    losses = pretraining_losses(backbone(replace(make_batch(), features=seen)), replace(make_batch(), features=seen, region_labels=chosen), heads, head('phrase'))
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU')
@levels
def test_on_a_gpu(model, level):
    batch = make_batch(level)
    there = batch.to('cuda')
    assert torch.equal(masked_pairs(there, level).cpu(), masked_pairs(batch, level))
    ids, continues = torch.randint(0, 30, (4, 9), generator=generator()), torch.rand(4, 9, generator=generator()) < .5
    here, over = (mask_words(x, x != PAD, (CLS,), MASK, 30, generator(1), continues=c) for x, c in ((ids, continues), (ids.cuda(), continues.cuda())))
    assert over[0].is_cuda and all(torch.equal(a, b.cpu()) for a, b in zip(here, over))
    features, locations, mask = make_regions(0, 3, 8)
    for overlap in (None, 'divisor', 'zero'):
        here, over = (mask_regions(*(x.to(place) for x in (features, mask)), generator(1), locations=locations.to(place), overlap=overlap) for place in ('cpu', 'cuda'))
        assert over[0].is_cuda and torch.allclose(here[0], over[0].cpu()) and torch.equal(here[1], over[1].cpu())
    whose, aligned = swap_captions(torch.arange(9).cuda(), 9, generator(1))
    assert whose.is_cuda and torch.equal(whose.cpu(), swap_captions(torch.arange(9), 9, generator(1))[0])
    assert mask_regions(features.cuda(), mask.cuda(), torch.Generator('cuda').manual_seed(1), locations=locations.cuda(), overlap='zero')[0].is_cuda

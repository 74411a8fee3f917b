"Properties of the alignment matrix and of the balanced sampler."
from collections import Counter
from math import comb

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from vlground.alignment import alignment_matrix, sample_pairs

seeds = st.integers(0, 2**32)


def from_seed(seed): return torch.Generator().manual_seed(seed)


@st.composite
def captions(draw):
    "Spans (p, 2) inside a caption framed by one special token on each side, matches (p, r), length with padding, pieces of the caption."
    pieces, regions, padding = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(0, 4))
    first = st.integers(1, pieces)
    spans = draw(st.lists(first.flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, pieces + 1))), max_size=5))
    matches = draw(st.lists(st.lists(st.booleans(), min_size=regions, max_size=regions), min_size=len(spans), max_size=len(spans)))
    spans, matches = torch.tensor(spans, dtype=torch.int64).reshape(-1, 2), torch.tensor(matches, dtype=torch.bool).reshape(-1, regions)
    return spans, matches, 1 + pieces + 1 + padding, pieces


@st.composite
def tables(draw, max_rows=6, max_columns=7):
    "A bool matrix (rows, regions)."
    rows, columns = draw(st.integers(0, max_rows)), draw(st.integers(0, max_columns))
    return torch.tensor(draw(st.lists(st.booleans(), min_size=rows*columns, max_size=rows*columns)), dtype=torch.bool).reshape(rows, columns)


@given(captions())
def test_an_entry_is_set_when_a_phrase_contains_the_word_and_matches_the_region(caption):
    spans, matches, n_words, _ = caption
    matrix = alignment_matrix(spans, matches, n_words)
    assert matrix.shape == (n_words, 1 + matches.shape[1]) and matrix.dtype == torch.bool
    expected = {(word, 1 + region) for phrase, region in matches.nonzero().tolist() for word in range(*spans[phrase].tolist())}
    assert set(map(tuple, matrix.nonzero().tolist())) == expected


@given(captions())
def test_special_tokens_padding_and_the_global_region_are_empty(caption):
    spans, matches, n_words, pieces = caption
    matrix = alignment_matrix(spans, torch.ones_like(matches), n_words)
    assert not matrix[0].any() and not matrix[pieces + 1:].any()
    assert not matrix[:, 0].any()


@given(captions(), seeds)
def test_permuting_the_regions_permutes_the_columns(caption, seed):
    spans, matches, n_words, _ = caption
    order = torch.randperm(matches.shape[1], generator=from_seed(seed))
    moved = alignment_matrix(spans, matches[:, order], n_words)
    assert torch.equal(moved[:, 1:], alignment_matrix(spans, matches, n_words)[:, 1:][:, order])


@given(captions(), seeds)
def test_the_order_of_the_phrases_does_not_matter(caption, seed):
    spans, matches, n_words, _ = caption
    order = torch.randperm(len(spans), generator=from_seed(seed))
    assert torch.equal(alignment_matrix(spans[order], matches[order], n_words), alignment_matrix(spans, matches, n_words))


@given(captions())
def test_more_padding_only_adds_empty_rows(caption):
    spans, matches, n_words, _ = caption
    longer = alignment_matrix(spans, matches, n_words + 3)
    assert torch.equal(longer[:n_words], alignment_matrix(spans, matches, n_words)) and not longer[n_words:].any()


def test_a_phrase_with_two_boxes_and_phrases_that_share_a_word():
    spans, matches = torch.tensor([[1, 3], [1, 3], [2, 5]]), torch.eye(3, dtype=torch.bool)
    assert alignment_matrix(spans, matches, 6).nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2], [2, 3], [3, 3], [4, 3]]


@pytest.mark.parametrize('spans, matches, n_words, words', [
    ([[1, 4], [3, 9]], [[True], [True]], 8, ['spans[1]', '[3, 9]', 'n_words = 8']),
    ([[-1, 2]], [[True]], 8, ['spans[0]', '[-1, 2]']),
    ([[3, 3]], [[True]], 8, ['spans[0]', 'first < last']),
    ([[5, 3]], [[True]], 8, ['spans[0]', 'first < last']),
    ([[1, 2], [3, 4]], [[True]], 8, ['matches', '(2, regions)', '(1, 1)']),
    ([[1, 2]], [[.7]], 8, ['matches', 'bool', 'float32']),
    ([[1, 2]], [True], 8, ['matches', '(1,)']),
    ([1, 2], [[True]], 8, ['spans', '(p, 2)', '(2,)']),
    ([[1, 2, 3]], [[True]], 8, ['spans', '(p, 2)', '(1, 3)']),
])
def test_a_wrong_matrix_is_named(spans, matches, n_words, words):
    with pytest.raises(ValueError) as error: alignment_matrix(torch.tensor(spans), torch.tensor(matches), n_words)
    assert all(word in str(error.value) for word in words)


def allowed(matches):
    "Positives and negatives that may be drawn, as sets of (row, column)."
    rows = matches.tolist()
    cells = [(row, column) for row in range(len(rows)) if any(rows[row]) for column in range(len(rows[row]))]
    return {cell for cell in cells if rows[cell[0]][cell[1]]}, {cell for cell in cells if not rows[cell[0]][cell[1]]}


@given(tables(), seeds, st.one_of(st.none(), st.integers(0, 5)))
def test_a_draw_is_balanced_true_and_without_repeats(matches, seed, cap):
    rows, columns, labels = sample_pairs(matches, from_seed(seed), cap)
    assert rows.dtype == columns.dtype == torch.int64 and labels.dtype == torch.float32
    assert rows.shape == columns.shape == labels.shape and rows.ndim == 1
    positives, negatives = allowed(matches)
    k = min(len(positives), len(negatives), *([] if cap is None else [cap]))
    assert labels.tolist() == [1]*k + [0]*k
    pairs = list(zip(rows.tolist(), columns.tolist()))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs[:k]) <= positives and set(pairs[k:]) <= negatives


@given(tables(), seeds)
def test_labels_agree_with_the_matches(matches, seed):
    rows, columns, labels = sample_pairs(matches, from_seed(seed))
    assert torch.equal(matches[rows, columns].float(), labels)


@given(tables(), seeds)
def test_a_row_without_a_match_is_never_drawn(matches, seed):
    rows, _, _ = sample_pairs(matches, from_seed(seed))
    assert matches.any(dim=1)[rows].all()


@given(tables(), seeds, st.integers(0, 2**32))
def test_the_generator_decides_everything(matches, seed, elsewhere):
    torch.manual_seed(elsewhere)
    one = sample_pairs(matches, from_seed(seed))
    torch.manual_seed(elsewhere + 1)
    other = sample_pairs(matches, from_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_the_generator_moves_on_and_the_global_stream_does_not():
    matches, generator = torch.eye(5, 20, dtype=torch.bool), from_seed(3)
    before = torch.get_rng_state()
    draws = {tuple(sample_pairs(matches, generator)[1].tolist()) for _ in range(5)}
    assert len(draws) == 5
    assert torch.equal(torch.get_rng_state(), before)


nothing_to_draw = {'no positive': torch.zeros(3, 4), 'no row': torch.zeros(0, 4), 'no region': torch.zeros(3, 0), 'no negative': torch.ones(3, 4)}


@pytest.mark.parametrize('matches', nothing_to_draw.values(), ids=nothing_to_draw.keys())
def test_a_picture_without_positives_or_negatives_gives_nothing(matches):
    rows, columns, labels = sample_pairs(matches.bool(), from_seed(0))
    assert rows.shape == columns.shape == labels.shape == (0,)
    assert rows.dtype == columns.dtype == torch.int64 and labels.dtype == torch.float32


def chi_square(counts, expected): return sum((count - expected)**2/expected for count in counts)


@pytest.mark.parametrize('cap', [None, 2])
def test_every_pair_has_the_same_chance(cap):
    matches = torch.zeros(4, 6, dtype=torch.bool)
    matches[0, :4] = matches[2, 1] = matches[3, 5] = True # six positives spread unevenly, and row 1 without any
    positives, negatives = allowed(matches)
    assert (len(positives), len(negatives)) == (6, 12)
    generator, draws, k = from_seed(11), 6000, 6 if cap is None else cap
    counts = Counter()
    for _ in range(draws):
        rows, columns, _ = sample_pairs(matches, generator, cap)
        counts.update(zip(rows.tolist(), columns.tolist()))
    for pairs in (positives, negatives):
        expected = draws*k/len(pairs)
        # drawing without replacement makes the statistic smaller than chi-square with n - 1 degrees of freedom, so its 99.9 % bound is a safe one
        assert chi_square([counts[pair] for pair in pairs], expected) < {6: 20.5, 12: 31.3}[len(pairs)]


def test_every_subset_of_negatives_has_the_same_chance():
    matches = torch.tensor([[True, True, False, False, False, False]])
    generator, subsets = from_seed(7), Counter()
    for _ in range(3000):
        _, columns, labels = sample_pairs(matches, generator)
        subsets[frozenset(columns[labels == 0].tolist())] += 1
    assert len(subsets) == comb(4, 2) and chi_square(subsets.values(), 500) < 20.5 # 99.9 % for 5 degrees of freedom


@given(captions(), seeds)
def test_matrix_and_sampler_together_draw_no_special_token(caption, seed):
    spans, matches, n_words, pieces = caption
    assume(matches.any())
    rows, columns, labels = sample_pairs(alignment_matrix(spans, matches, n_words)[:, 1:], from_seed(seed))
    assert ((rows >= 1) & (rows <= pieces)).all() and ((columns >= 0) & (columns < matches.shape[1])).all()


@pytest.mark.parametrize('matches, cap, words', [
    (torch.zeros(3, 4), None, ['matches', 'bool', 'float32']),
    (torch.zeros(4, dtype=torch.bool), None, ['matches', '(rows, regions)', '(4,)']),
    (torch.zeros(3, 4, dtype=torch.bool), -1, ['cap', '-1']),
])
def test_a_wrong_draw_is_named(matches, cap, words):
    with pytest.raises(ValueError) as error: sample_pairs(matches, from_seed(0), cap)
    assert all(word in str(error.value) for word in words)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_a_generator_on_the_cpu_serves_matches_on_the_gpu():
    matches = torch.eye(5, 20, dtype=torch.bool)
    on_gpu = sample_pairs(matches.cuda(), from_seed(0))
    assert all(part.is_cuda for part in on_gpu)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(on_gpu, sample_pairs(matches, from_seed(0))))

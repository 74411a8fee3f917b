"The checks behind the exercises of lesson 15."
import torch
from checking import assert_check

from vlground import checks_backbones as checks


def positions(word_mask, regions, lengths=None, end=1, spread=False):
    places = torch.arange(word_mask.shape[1]).repeat(len(word_mask), 1)
    lengths = word_mask.sum(1) if lengths is None else lengths
    standing = lengths[:, None] + (torch.arange(regions) if spread else torch.zeros(regions, dtype=torch.int64))
    return torch.cat([places, standing, lengths[:, None] + end], 1)


def test_check_element_positions():
    assert_check(checks.check_element_positions, positions, [
        (lambda word_mask, regions: positions(word_mask, regions)[:, :-1], 'the last for [END]'),
        (lambda word_mask, regions: positions(word_mask, regions).float(), 'int64'),
        (lambda word_mask, regions: positions(word_mask, regions) + 1, 'count 0, 1, 2'),
        (lambda word_mask, regions: positions(word_mask, regions, spread=True), 'no order'),
        (lambda word_mask, regions: positions(word_mask, regions, end=0), 'the next one'),
        (lambda word_mask, regions: positions(word_mask, regions, end=regions), 'the next one'),
        (lambda word_mask, regions: positions(word_mask, regions, torch.full((len(word_mask),), word_mask.shape[1])), 'own length'),
        (lambda word_mask, regions: positions(word_mask, regions, word_mask.sum(1)[:1].repeat(len(word_mask))), 'length of its own'),
        (lambda word_mask, regions: positions(word_mask, regions, word_mask.sum(1).clamp(min=2)), 'Another batch'),
    ])


def looks(looks, points_at, none=0, shift=0):
    return torch.stack([torch.stack([look[none if region < 0 else region + shift] for region in row.tolist()]) for look, row in zip(looks, points_at)])


def overwriting(given, points_at):
    points_at[points_at < 0] = 0
    return looks(given, points_at)


def test_check_looks_of_words():
    assert_check(checks.check_looks_of_words, looks, [
        (lambda given, points_at: looks(given, points_at)[0], 'the shape is'),
        (lambda given, points_at: looks(torch.cat([given, given[:, :1]], 1), points_at, shift=1), 'nothing is added'),
        (lambda given, points_at: given[:, :1].expand(-1, points_at.shape[1], -1), 'nothing is added'),
        (lambda given, points_at: looks(given, points_at.sort(1).values), 'each gets its own'),
        (lambda given, points_at: looks(given, points_at, none=-1), 'the last region'),
        (lambda given, points_at: looks(given[:1].expand_as(given), points_at), 'its own picture'),
        (overwriting, 'belongs to the caller'),
        (lambda given, points_at: looks(given, points_at)*(points_at >= 0)[..., None], 'the whole picture'),
        (lambda given, points_at: looks(given, points_at)[..., :2].repeat(1, 1, 3)[..., :given.shape[-1]], 'width of 5'),
    ])


def squares(maps, word_mask, region_mask, ask_padding=False, give_padding=False, scale=False, mean_given=False, add_heads=False, first_head=False):
    t, r, found = word_mask.shape[1], region_mask.shape[1], []
    maps = maps[:, 0] if first_head else maps.sum(1) if add_heads else maps.mean(1)
    for each, words, regions in zip(maps, word_mask, region_mask):
        ask = [torch.ones(t, dtype=torch.bool), torch.ones(r, dtype=torch.bool)] if ask_padding else [words, regions]
        give = [torch.ones(t, dtype=torch.bool), torch.ones(r, dtype=torch.bool)] if give_padding else [words, regions]
        starts = 0, t
        square = torch.stack([torch.stack([each[a:a + len(asks)][asks][:, b:b + len(gives)][:, gives].sum(-1).mean()/(gives.sum() if mean_given else 1)
                                           for b, gives in zip(starts, give)]) for a, asks in zip(starts, ask)])
        found.append(square/square.sum(1, keepdim=True) if scale else square)
    return torch.stack(found)


def test_check_four_squares():
    assert_check(checks.check_four_squares, squares, [
        (lambda *arguments: squares(*arguments)[0], 'the shape is'),
        (lambda *arguments: squares(*arguments).flip(1), 'identity'),
        (lambda *arguments: squares(*arguments).transpose(1, 2), 'transposed'),
        (lambda *arguments: squares(*arguments, scale=True), 'scaled up'),
        (lambda *arguments: squares(*arguments, mean_given=True), 'Add up'),
        (lambda *arguments: squares(*arguments, add_heads=True), 'Two heads'),
        (lambda *arguments: squares(*arguments, first_head=True), 'Two heads'),
        (lambda *arguments: squares(*arguments, ask_padding=True), 'do not ask'),
        (lambda *arguments: squares(*arguments, give_padding=True), 'columns'),
        (lambda *arguments: squares(*arguments)[:1].expand(len(arguments[0]), 2, 2), 'Several samples'),
    ])

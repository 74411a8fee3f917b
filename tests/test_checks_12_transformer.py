"The checks behind the exercises of lesson 12."
import torch
from checking import assert_check

from vlground import checks_backbones as checks


def real_pieces(lengths): return torch.tensor([[True]*length + [False]*(max(lengths) - length) for length in lengths])


def places(lengths): return torch.arange(max(lengths)), torch.tensor(lengths)[:, None]


def test_check_real_pieces():
    assert_check(checks.check_real_pieces, real_pieces, [
        (lambda lengths: real_pieces(lengths).T, 'a row for each caption'),
        (lambda lengths: torch.arange(lengths[0]) < torch.tensor(lengths)[:, None], 'need not be the first'),
        (lambda lengths: torch.arange(3) < torch.tensor(lengths)[:, None], 'need not be the first'),
        (lambda lengths: real_pieces(lengths).float(), 'bool'),
        (lambda lengths: ~real_pieces(lengths), 'real is True'),
        (lambda lengths: real_pieces(lengths).flip(1), 'start of its row'),
        (lambda lengths: places(lengths)[0] <= places(lengths)[1], 'Off by one'),
        (lambda lengths: places(lengths)[0] < places(lengths)[1] + (places(lengths)[1] == 2), 'Off by one'),
        (lambda lengths: places(lengths)[0] < places(lengths)[1].clamp(min=1), 'without a piece'),
    ])


def head_parts(mixed, weight): return torch.einsum('bhts,whs->bhtw', mixed, weight.reshape(len(weight), *mixed.shape[1::2]))


def every_other(mixed, weight):
    heads = mixed.shape[1]
    return torch.stack([mixed[:, head] @ weight[:, head::heads].T for head in range(heads)], 1)


def test_check_head_parts():
    assert_check(checks.check_head_parts, head_parts, [
        (lambda mixed, weight: head_parts(mixed, weight).sum(1), 'not yet summed'),
        (lambda mixed, weight: head_parts(mixed, weight).transpose(1, 2), 'not yet summed'),
        (lambda mixed, weight: head_parts(mixed, weight) + 1, 'without a bias'),
        (every_other, 'not every other column'),
        (lambda mixed, weight: mixed @ weight[:, :mixed.shape[-1]].T, 'columns 0 and 1'),
        (lambda mixed, weight: head_parts(mixed, weight.T if weight.shape[0] == weight.shape[1] and mixed.shape[1] > 1 else weight), 'rows and columns'),
        (lambda mixed, weight: head_parts(mixed, weight)[:, :, :1].expand(-1, -1, mixed.shape[2], -1), 'One head'),
        (lambda mixed, weight: head_parts(mixed, weight)[:1].expand(len(mixed), -1, -1, -1), 'Several samples'),
    ])


def join_halves(a, log_a, b, log_b, least=-torch.inf):
    top = torch.maximum(log_a, log_b).clamp(min=least)
    one, other = ((each - top).exp()[:, None] for each in (log_a, log_b))
    return (one*a + other*b)/(one + other)


def overflowing(a, log_a, b, log_b):
    one, other = log_a.exp()[:, None], log_b.exp()[:, None]
    return (one*a + other*b)/(one + other)


def without_axis(a, log_a, b, log_b):
    share = (log_a - log_b).sigmoid()
    if share.shape[0] not in (1, a.shape[1]): share = share[:, None]
    return share*a + (1 - share)*b


def test_check_join_halves():
    assert_check(checks.check_join_halves, join_halves, [
        (lambda a, log_a, b, log_b: a + b, 'the mean of the two'),
        (lambda a, log_a, b, log_b: (a + b)/2, '3/4'),
        (lambda a, log_a, b, log_b: (log_a.exp()[:, None]*a + log_b.exp()[:, None]*b)/2, '3/4'),
        (lambda a, log_a, b, log_b: join_halves(a, log_b, b, log_a), 'a and b exchanged'),
        (lambda a, log_a, b, log_b: join_halves(a, torch.maximum(log_a, log_b), b, torch.minimum(log_a, log_b)), 'share of the second'),
        (lambda a, log_a, b, log_b: join_halves(a, log_a.mean().expand(len(a)), b, log_b.mean().expand(len(a))), 'share of its own'),
        (without_axis, 'second axis'),
        (overflowing, 'is infinite'),
        (lambda a, log_a, b, log_b: join_halves(a, log_a, b, log_b, least=0.), 'is 0 in float32'),
        (lambda a, log_a, b, log_b: join_halves(a, (log_a - log_b).clamp(-5, 5), b, log_b*0), 'no share'),
    ])

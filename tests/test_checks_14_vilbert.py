"The checks behind the exercises of lesson 14 on ViLBERT."
import torch
import torch.nn.functional as F
from checking import assert_check

from vlground import checks_backbones as checks


def exchanges_before(order): return [sum(kind == 'joint' for kind, _ in order[:place]) for place, (kind, _) in enumerate(order) if kind == 'word']


def test_check_exchanges_before():
    assert_check(checks.check_exchanges_before, exchanges_before, [
        (lambda order: [number + 1 for number in exchanges_before(order)], 'the answer is a list of one number, 0'),
        (lambda order: [sum(kind == 'joint' for kind, _ in order[:place]) for place in range(len(order))], 'one number for each *word* layer'),
        (lambda order: sum(kind == 'joint' for kind, _ in order), 'check its type'),
        (lambda order: [number + .4 for number in exchanges_before(order)], 'the answer is a list of one number, 0'),
        (lambda order: [0]*len(exchanges_before(order)), 'the third once'),
        (lambda order: [sum(kind == 'joint' for kind, _ in order[:place + 2]) for place, (kind, _) in enumerate(order) if kind == 'word'], 'have met nobody'),
        (lambda order: [sum(kind == 'joint' for kind, _ in order)*(i > 1 or len(order) == 2) for i in range(len(exchanges_before(order)))], 'what runs after'),
        (lambda order: [sum(kind != 'word' for kind, _ in order[:place]) for place, (kind, _) in enumerate(order) if kind == 'word'], 'a region layer is no exchange'),
        (lambda order: [min(number, 1) for number in exchanges_before(order)], 'each co-attention counts'),
        (lambda order: [sum(a == 'joint' != b for (a, _), (b, _) in zip(order[:place], order[1:place + 1])) for place, (kind, _) in enumerate(order) if kind == 'word'], 'follow one another'),
        (lambda order: exchanges_before(order) or [0], 'empty list'),
    ])


def words_ask(tensors, words, regions, heads, query='query2', key='key1', bias=1, root=None, axis=-1, cut=lambda x, heads: x.reshape(len(x), heads, -1).transpose(0, 1)):
    asked, asking = (cut(F.linear(states, tensors[f'{name}.weight'], bias*tensors[f'{name}.bias']), heads) for states, name in ((regions, key), (words, query)))
    return (torch.einsum('htd,hrd->htr', asking, asked)/(root or asking.shape[-1])**.5).softmax(axis)


def test_check_words_ask():
    def with_(**changes): return lambda *arguments: words_ask(*arguments, **changes)
    def where_it_fits(**changes): # wrong where words and regions are of one width only
        def answer(tensors, words, regions, heads):
            return words_ask(tensors, words, regions, heads, **(changes if words.shape[1] == regions.shape[1] else {}))
        return answer
    assert_check(checks.check_words_ask, words_ask, [
        (with_(query='query1'), 'stream 2'),
        (lambda tensors, words, regions, heads: words_ask(tensors, regions, words, heads, query='query1', key='key2'), '(1, 3, 2)'),
        (lambda *arguments: words_ask(*arguments).mean(0), '(1, 3, 2)'),
        (with_(axis=-2), 'last axis'),
        (where_it_fits(query='query1', key='key2'), 'is it query2'),
        (where_it_fits(key='value1'), 'is it query2'),
        (with_(root=1), 'root of 4'),
        (with_(bias=0), 'biases'),
        (lambda tensors, words, regions, heads: words_ask(tensors, words, regions, heads, root=len(tensors['query2.bias'])), "the root is that of one head's size"),
        (lambda tensors, words, regions, heads: words_ask(tensors, words, regions, 1).expand(heads, -1, -1), 'a softmax of its own'),
        (with_(cut=lambda x, heads: torch.stack([x[:, head::heads] for head in range(heads)])), 'not every other number'),
        (with_(cut=lambda x, heads: x.reshape(heads, len(x), -1)), 'a block of the width'),
    ])
    assert checks.check_words_ask(lambda *arguments: words_ask(*arguments).double()) # right in any precision


def step_of(kind, maps, t, r):
    if kind == 'word': return torch.block_diag((torch.eye(t) + maps)/2, torch.eye(r))
    if kind == 'region': return torch.block_diag(torch.eye(t), (torch.eye(r) + maps)/2)
    return (torch.eye(t + r) + torch.cat([torch.cat([torch.zeros(t, t), maps[0]], 1), torch.cat([maps[1], torch.zeros(r, r)], 1)]))/2


def roll_out(steps, t, r, step_of=step_of):
    shares = torch.eye(t + r)
    for kind, maps in steps: shares = step_of(kind, maps, t, r) @ shares
    return shares


def from_the_right(steps, t, r):
    shares = torch.eye(t + r)
    for kind, maps in steps: shares = shares @ step_of(kind, maps, t, r)
    return shares


def one_after_the_other(kind, maps, t, r):
    if kind != 'joint': return step_of(kind, maps, t, r)
    words, regions = torch.eye(t + r), torch.eye(t + r)
    words[:t] = step_of(kind, maps, t, r)[:t]
    regions[t:] = step_of(kind, maps, t, r)[t:]
    return regions @ words


def exchanged(kind, maps, t, r): return step_of(kind, maps[::-1] if t == r and kind == 'joint' else maps, t, r)


def test_check_roll_out():
    def with_(other): return lambda steps, t, r: roll_out(steps, t, r, other)
    assert_check(checks.check_roll_out, roll_out, [
        (lambda steps, t, r: torch.zeros(t + r, t + r), 'the identity'),
        (lambda steps, t, r: roll_out(steps, t, r)[:t], 'the identity'),
        (with_(lambda kind, maps, t, r: torch.block_diag(maps, torch.eye(r)) if kind == 'word' else step_of(kind, maps, t, r)), 'half the identity'),
        (with_(lambda kind, maps, t, r: torch.block_diag((torch.eye(t) + maps)/2, torch.eye(r)/2) if kind == 'word' else step_of(kind, maps, t, r)), 'stay as they were'),
        (with_(lambda kind, maps, t, r: torch.block_diag((torch.eye(r) + maps)/2, torch.eye(t)) if kind == 'region' else step_of(kind, maps, t, r)), 'lower right block'),
        (with_(one_after_the_other), 'one after the other'),
        (with_(exchanged), 'other stream'),
        (from_the_right, 'from the left'),
        (lambda steps, t, r: from_the_right(steps, t, r) if len({kind for kind, _ in steps}) > 1 else roll_out(steps, t, r), 'then a co-attention'),
    ])

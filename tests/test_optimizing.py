"How the weights move: the rate of every step, the groups of weights, and both optimisers against loops written out in numpy."
import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.optim import AdamW

from vlground.core import torch_rng
from vlground.optimizing import BertAdam, keep_memory, linear_warmup_decay, make_optimizer, parameter_groups


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 20))


def by_hand(weight, gradients, rates, decay, corrected, eps=1e-6, first=.9, second=.999, clip=math.inf):
    "One tensor in float64; a gradient of None leaves it alone."
    weight, m, v, t = weight.copy(), np.zeros_like(weight), np.zeros_like(weight), 0
    for g, rate in zip(gradients, rates):
        if g is None: continue
        t, g = t + 1, g*min(1, clip/(math.sqrt(float((g**2).sum())) + 1e-6))
        m, v = first*m + (1 - first)*g, second*v + (1 - second)*g*g
        m_hat, v_hat = (m/(1 - first**t), v/(1 - second**t)) if corrected else (m, v)
        weight = weight - rate*(m_hat/(np.sqrt(v_hat) + eps) + decay*weight)
    return weight


def case_of(seed, shapes, steps, scale):
    "Weights, gradients of each step (some None) and rates."
    draws = np.random.default_rng(seed)
    weights = [draws.normal(size=shape) for shape in shapes]
    gradients = [[None if draws.random() < .2 else scale*draws.normal(size=shape) for shape in shapes] for _ in range(steps)]
    return weights, gradients, draws.uniform(1e-4, .1, steps)


def moved(optimizer_of, weights, gradients, rates):
    "The weights after all steps."
    parameters = [nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = optimizer_of(parameters)
    for step, rate in zip(gradients, rates):
        for parameter, g in zip(parameters, step): parameter.grad = None if g is None else torch.tensor(g)
        for group in optimizer.param_groups: group['lr'] = rate
        optimizer.step()
    return [parameter.detach().numpy() for parameter in parameters]


SHAPES = st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.integers(0, 10**6), SHAPES, st.integers(0, 6), st.sampled_from([1e-3, .1, 1., 100.]), st.sampled_from([0., .01, .5]), st.sampled_from([.3, 1., math.inf]))
def test_bert_adam_is_the_loop_written_out(seed, shapes, steps, scale, decay, clip):
    weights, gradients, rates = case_of(seed, shapes, steps, scale)
    found = moved(lambda parameters: BertAdam(parameters, weight_decay=decay, clip=clip), weights, gradients, rates)
    for i, weight in enumerate(weights):
        np.testing.assert_allclose(found[i], by_hand(weight, [step[i] for step in gradients], rates, decay, corrected=False, clip=clip), rtol=1e-9, atol=1e-11)


@settings(deadline=None)
@given(st.integers(0, 10**6), SHAPES, st.integers(0, 6), st.sampled_from([0., .01, .5]))
def test_adamw_is_the_loop_written_out(seed, shapes, steps, decay):
    weights, gradients, rates = case_of(seed, shapes, steps, 1.)
    found = moved(lambda parameters: AdamW(parameters, betas=(.9, .999), eps=1e-6, weight_decay=decay), weights, gradients, rates)
    for i, weight in enumerate(weights):
        np.testing.assert_allclose(found[i], by_hand(weight, [step[i] for step in gradients], rates, decay, corrected=True), rtol=1e-9, atol=1e-11)


def test_bert_adam_has_the_published_defaults():
    assert BertAdam([nn.Parameter(torch.ones(1))]).defaults == dict(lr=1e-4, betas=(.9, .999), eps=1e-6, weight_decay=.01, clip=1.)


def test_bert_adam_clips_each_tensor_by_itself_and_leaves_the_gradient():
    long, short = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    long.grad, short.grad = torch.tensor([30., 40.]), torch.tensor([.03, .04])
    optimizer = BertAdam([long, short])
    optimizer.step()
    assert torch.allclose(optimizer.state[long]['exp_avg'], torch.tensor([.06, .08]), atol=1e-6) # a tenth of (0.6, 0.8)
    assert torch.allclose(optimizer.state[short]['exp_avg'], torch.tensor([.003, .004]))
    assert long.grad.tolist() == [30, 40] and torch.equal(short.grad, torch.tensor([.03, .04]))


def test_bert_adam_takes_its_first_step_three_times_too_long():
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    weight.grad = torch.full_like(weight, .5)
    BertAdam([weight], lr=.01, eps=0., weight_decay=0.).step()
    assert abs(weight.item() + .01*.1/math.sqrt(.001)) < 1e-12


def test_a_weight_without_gradient_stays_and_so_does_a_zero_gradient_but_for_decay():
    still, decayed = (nn.Parameter(torch.ones(3)) for _ in range(2))
    decayed.grad = torch.zeros(3)
    BertAdam([still, decayed], lr=.1, weight_decay=.5).step()
    assert still.tolist() == [1]*3 and torch.allclose(decayed, torch.full((3,), .95))


def test_a_step_with_a_gradient_that_is_not_a_number_shows():
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([math.nan, 1.])
    BertAdam([weight]).step()
    assert weight.isnan().all() # its norm is none; the loop skips such steps beforehand


@pytest.mark.parametrize('name', ['adamw', 'bert-adam'])
def test_an_optimizer_goes_on_from_its_saved_state(name):
    "The same bits as one that was never stopped."
    def step(model, optimizer, number):
        optimizer.zero_grad()
        x = torch.randint(20, (8,), generator=torch_rng('state', number))
        nn.functional.cross_entropy(model(x), 3*x % 20).backward()
        for group in optimizer.param_groups: group['lr'] = 1e-2
        optimizer.step()
    model = make_model()
    optimizer = make_optimizer(model, .01, name)
    for number in range(3): step(model, optimizer, number)
    other = copy.deepcopy(model)
    resumed = make_optimizer(other, .01, name)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for number in range(3, 6):
        step(model, optimizer, number)
        step(other, resumed, number)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters()))


@pytest.mark.parametrize('clip', [0., -1., math.nan])
def test_a_limit_is_above_zero(clip):
    with pytest.raises(ValueError, match='above 0'): BertAdam(make_model().parameters(), clip=clip)
    with pytest.raises(ValueError, match='above 0'): make_optimizer(make_model(), .01, 'bert-adam', clip=clip)


def test_a_closure_is_refused_and_not_forgotten():
    with pytest.raises(TypeError): BertAdam(make_model().parameters()).step(lambda: 1.)


# which weights decay, and how fast each goes

def rate_by_name(name): return {'0': 2., '1': .5}.get(name[0], 1.)


@given(st.sampled_from(['matrices', 'vectors']), st.sampled_from([None, rate_by_name]), st.sets(st.integers(0, 6), max_size=6), st.floats(0, 1))
def test_every_trained_weight_is_in_one_group(decayed, rate_of, frozen, decay):
    model = make_model()
    named = dict(model.named_parameters())
    for i in frozen: list(named.values())[i].requires_grad_(False)
    groups = parameter_groups(model, decay, rate_of, decayed)
    found = [id(parameter) for group in groups for parameter in group['params']]
    assert len(found) == len(set(found)) and set(found) == {id(each) for each in named.values() if each.requires_grad}
    for group in groups:
        for parameter in group['params']:
            name = next(name for name, each in named.items() if each is parameter)
            assert group['weight_decay'] == (decay if (parameter.ndim > 1) == (decayed == 'matrices') else 0)
            assert group['factor'] == (rate_of(name) if rate_of else 1)


def test_groups_come_in_the_same_order_whatever_the_order_of_the_layers():
    "A checkpoint knows weights by their place."
    found = [[(len(group['params']), group['factor']) for group in parameter_groups(make_model(), .01, rate_by_name)] for _ in range(2)]
    assert found[0] == found[1] == [(1, .5), (1, 1.), (1, 2.), (1, .5), (3, 1.)]


def test_a_faster_group_moves_farther():
    model = make_model()
    before = copy.deepcopy(model)
    optimizer = make_optimizer(model, 0., rate_of=lambda name: 2.5 if name.startswith('4.') else 1.)
    for group in optimizer.param_groups: group['lr'] = 1e-3*group['factor']
    nn.functional.cross_entropy(model(torch.arange(20)), torch.arange(20)).backward()
    optimizer.step()
    far = [float((model[i].weight - before[i].weight).detach().abs().max()) for i in (1, 4)]
    assert far == pytest.approx([1e-3, 2.5e-3], rel=.02)


def test_what_is_wrong_is_named():
    model = make_model()
    with pytest.raises(ValueError, match="matrices or vectors, got 'biases'"): parameter_groups(model, .01, decayed='biases')
    with pytest.raises(ValueError, match='weight_decay must not be negative, got -0.1'): parameter_groups(model, -.1)
    with pytest.raises(ValueError, match=r'4\.weight: .*negative, got -1'): parameter_groups(model, .01, lambda name: -1. if name == '4.weight' else 1.)
    with pytest.raises(ValueError, match="adamw or bert-adam, got 'sgd'"): make_optimizer(model, .01, 'sgd')
    for name in ('adamw', 'bert-adam'):
        for empty in (make_model().requires_grad_(False), nn.ReLU()):
            with pytest.raises(ValueError, match='nothing to train'): make_optimizer(empty, .01, name)


def test_make_optimizer_says_what_it_made():
    adamw, bert_adam = make_optimizer(make_model(), .02), make_optimizer(make_model(), .02, 'bert-adam', clip=.5)
    assert type(adamw) is AdamW and [group['weight_decay'] for group in adamw.param_groups] == [.02, 0]
    assert adamw.defaults['betas'] == (.9, .999) and adamw.defaults['eps'] == 1e-6 and adamw.defaults['fused']
    assert type(bert_adam) is BertAdam and [group['weight_decay'] for group in bert_adam.param_groups] == [0, .02]
    assert [group['clip'] for group in bert_adam.param_groups] == [.5, .5]


# the rate of every step

@given(st.integers(2, 2000), st.floats(0, 1))
def test_the_schedule_rises_and_falls_in_straight_lines(steps, warmup):
    factors = [linear_warmup_decay(step, steps, warmup) for step in range(steps)]
    rising = round(warmup*steps)
    assert all(factor == pytest.approx((step + 1)/rising) for step, factor in enumerate(factors[:rising]))
    assert all(factor == pytest.approx((steps - step)/(steps - rising)) for step, factor in enumerate(factors) if step >= rising)
    assert max(factors) == 1 and min(factors) > 0


def test_the_published_formula_is_a_step_behind_while_it_rises():
    def published(step, steps, warmup): return step/steps/warmup if step/steps < warmup else (step/steps - 1)/(warmup - 1)
    assert published(0, 1000, .1) == 0
    assert all(linear_warmup_decay(step, 1000, .1) == pytest.approx(published(step + (step < 100), 1000, .1)) for step in range(1000))


@pytest.mark.parametrize('step, steps, warmup, said', [(-1, 10, .1, 'step -1'), (10, 10, .1, 'steps 0 to 9'), (0, 0, .1, 'a run of 0 steps'), (0, 10, -.1, 'in .0, 1.'), (0, 10, 1.5, 'got 1.5'), (0, 10, math.nan, 'got nan')])
def test_a_step_outside_of_the_run_is_refused(step, steps, warmup, said):
    with pytest.raises(ValueError, match=said): linear_warmup_decay(step, steps, warmup)


def test_keep_memory_says_whether_it_took_effect():
    assert keep_memory() in (True, False) and keep_memory() == keep_memory()


def test_keep_memory_where_there_is_no_such_setting(monkeypatch):
    def nothing(name): raise TypeError
    monkeypatch.setattr('ctypes.CDLL', nothing)
    assert keep_memory() is False

"What a training costs on paper: counts against real tensors, files and batches."
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlground import scale
from vlground.batches import CaptionData, TrainingBatches
from vlground.checkpoints import RunFolder
from vlground.optimizing import make_optimizer
from vlground.phrases import load_tokenizer
from vlground.pretrain import PRESETS, PretrainingModel, open_data
from vlground.scale import CARDS, Card, card_at_hand, data_cost, describe_plan, measured_rate, plan_training, readable, sample_cost
from vlground.transformer import Batch

SIZES = dict(vocabulary=200, feature_width=64, region_classes=60)
PUBLISHED = dict(vocabulary=30522, feature_width=2048, region_classes=1601)
MINI = PRESETS['mini']


def measured(config, samples):
    "FLOP of the forward pass, of the backward pass, and bytes kept, of a real model on real numbers."
    model, t, r, kept, held = PretrainingModel(config, **SIZES), config.words, config.regions + 1, {}, []
    ids, words, regions = torch.ones(samples, t, dtype=torch.int64), torch.ones(samples, t, dtype=torch.bool), torch.ones(samples, r, dtype=torch.bool)
    batch = Batch(ids, words, torch.zeros_like(ids), torch.ones(samples, r, SIZES['feature_width']), torch.zeros(samples, r, 5), regions)
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}

    def keep(tensor):
        held.append(tensor)
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoded = model.backbone(batch)
        hidden = round(.15*samples*config.words), round(.15*samples*config.regions)
        out = [model.heads.words(encoded.words[0, :1].expand(hidden[0], -1)), model.heads.regions(encoded.regions[0, :1].expand(hidden[1], -1)), model.heads.alignment(encoded)]
        losses = [each.log_softmax(-1).sum() for each in out]
    with FlopCounterMode(display=False) as backward: sum(losses).backward()
    return forward.get_total_flops()/samples, backward.get_total_flops()/samples, sum(size for place, size in kept.items() if place not in weights)/samples


@pytest.mark.parametrize('changes', [dict(size='mini'), dict(size='small'), dict(size='tiny'), dict(size='mini', backbone='vlbert'), dict(size='mini', words=10, regions=5)],
                         ids=lambda changes: ' '.join(map(str, changes.values())))
def test_counts_without_numbers_are_those_of_real_ones(changes):
    config = replace(MINI, grounding='none', **changes)
    cost, (forward, backward, kept) = sample_cost(config, SIZES), measured(config, 2)
    assert cost.forward == forward
    # nobody asks for the gradient of the batch itself
    assert .95*cost.step < forward + backward <= cost.step
    assert cost.parameters == sum(weight.numel() for weight in PretrainingModel(config, **SIZES).parameters())
    # dropout keeps a mask in 8 bits there, in 32 bits on a processor
    if changes['size'] != 'tiny': assert cost.saved == pytest.approx(kept, rel=.01)


def test_the_published_size():
    cost = sample_cost(replace(PRESETS['paper'], grounding='none'), PUBLISHED)
    assert (round(cost.forward/1e9, 1), round(cost.step/1e9, 1)) == (15.7, 47.1)
    with_grounding = sample_cost(PRESETS['paper'], PUBLISHED)
    assert 0 < with_grounding.forward - cost.forward < .01*cost.forward


def test_log_probabilities_of_hidden_words_are_counted():
    few, many = (sample_cost(replace(MINI, grounding='none'), SIZES | dict(vocabulary=size)) for size in (1000, 31000))
    assert many.saved - few.saved == pytest.approx(.15*24*30000*4, rel=.1)


@pytest.mark.parametrize('level', ['phrase', 'token'])
def test_the_grounding_head_by_hand(level):
    config = replace(MINI, grounding=level)
    extra = sample_cost(config, SIZES, phrases=4, pairs=8).forward - sample_cost(replace(config, grounding='none'), SIZES).forward
    pieces, width = 12, 64 # three pieces a phrase
    lstm, words = 2*pieces*4*2*width*width, 2*width*width*(4 if level == 'phrase' else pieces)
    regions = 2*8*width*width
    assert words + regions <= extra <= 1.2*((lstm if level == 'phrase' else 0) + words + regions)


def test_bytes_to_the_device_are_those_of_a_batch(small_regions, small_labels):
    config = replace(MINI, regions=8, batch_size=16)
    store, labelled = open_data(small_regions, small_labels, config)
    data = CaptionData(store, labelled, load_tokenizer('world'), config.words, config.regions)
    packed = TrainingBatches(data, config.batch_size, 0, config)(0)
    tensors = [value for part in (packed, packed.batch) for value in vars(part).values() if isinstance(value, torch.Tensor)]
    real = sum(each.numel()*each.element_size() for each in tensors)/config.batch_size
    sizes = dict(vocabulary=200, feature_width=store.feature_width, region_classes=len(store.classes))
    assert .7*real < sample_cost(config, sizes).input < 1.3*real # captions are shorter than the longest, chosen regions more or fewer


def test_a_checkpoint_is_twelve_bytes_a_weight(tmp_path):
    model = PretrainingModel(MINI, **SIZES)
    optimizer = make_optimizer(model, .01)
    for weight in model.parameters(): weight.grad = torch.zeros_like(weight)
    optimizer.step()
    RunFolder(tmp_path/'run').save(model, optimizer, {'step': 1})
    size = max(path.stat().st_size for path in (tmp_path/'run'/'checkpoints').iterdir())
    assert size == pytest.approx(12*sample_cost(MINI, SIZES).parameters, rel=.05)


@given(st.integers(1, 10**10), st.integers(1, 100), st.integers(1, 4096))
def test_data_grow_with_pairs(pairs, regions, shard_size):
    one, all_of_them = data_cost(1, regions), data_cost(pairs, regions, shard_size=shard_size)
    assert all_of_them.store == pairs*one.store and all_of_them.labels == pairs*one.labels
    assert (all_of_them.shards - 1)*shard_size < pairs <= all_of_them.shards*shard_size and all_of_them.shard <= all_of_them.store


@given(st.floats(1e-5, 1e25), st.sampled_from(['B', 's', 'FLOP']))
def test_readable_says_what_was_meant(value, unit):
    factors = dict(B=1, kB=1e3, MB=1e6, GB=1e9, TB=1e12, FLOP=1, MFLOP=1e6, GFLOP=1e9, TFLOP=1e12, PFLOP=1e15, EFLOP=1e18,
                   days=86400, hours=3600, minutes=60, s=1, ms=1e-3) | {'µs': 1e-6}
    number, name = readable(value, unit).split()
    assert abs(float(number.replace(',', ''))*factors[name] - value) <= max(.051*value, .51 if unit != 's' else 0)
    assert len(number) < 7 or name in ('TB', 'days', 'EFLOP', 'FLOP')


@settings(max_examples=15)
@given(st.integers(1, 16), st.integers(1, 8), st.integers(1, 8))
def test_cards_and_parts_share_the_work(at_once, cards, parts):
    config = replace(MINI, batch_size=at_once*cards*parts, accumulate=parts, grounding='none')
    one, shared = plan_training(replace(config, accumulate=1), 1000, SIZES), plan_training(config, 1000, SIZES, cards)
    assert shared.flops == one.flops and shared.fixed == one.fixed and shared.memory <= one.memory
    assert shared.at_once == at_once


@pytest.mark.parametrize('cards, parts', [(3, 1), (1, 3), (32, 4)])
def test_what_the_training_would_refuse_is_not_planned(cards, parts):
    with pytest.raises(ValueError, match=f'a batch of 64 cannot be cut into equal parts for {cards} cards times accumulate={parts}'):
        plan_training(replace(MINI, batch_size=64, accumulate=parts), 1000, SIZES, cards)


def test_half_the_bits_are_not_half_the_memory():
    full, half = (plan_training(replace(MINI, precision=precision), 1000, SIZES) for precision in ('float32', 'bfloat16'))
    assert half.fixed > full.fixed and .5*full.sample < half.sample < full.sample


@pytest.mark.parametrize('captions, cards', [(0, 1), (10, 0)])
def test_nothing_to_plan(captions, cards):
    with pytest.raises(ValueError, match=f'{captions} captions and {cards} cards'): plan_training(MINI, captions, SIZES, cards)


def test_rates():
    assert measured_rate('cpu', torch.float32, 128, 2) > 1e7
    assert CARDS['A100'].peak('bfloat16') == 312e12 and CARDS['V100'].peak('bfloat16') == CARDS['V100'].peak('float32') == 15.7e12


@pytest.mark.parametrize('name, known', [
    ('NVIDIA H200', 'H200'), ('NVIDIA H100 80GB HBM3', 'H100'), ('NVIDIA A100-SXM4-40GB', 'A100'), ('Tesla V100-SXM2-32GB', 'V100'), ('NVIDIA GeForce RTX 2080 Ti', 'RTX 2080 Ti'),
    ('NVIDIA GH200 480GB', None), ('NVIDIA H100 PCIe', None), ('NVIDIA H200 NVL', None), ('NVIDIA GeForce RTX 4090 Laptop GPU', None), ('Tesla V100S-PCIE-32GB', None), ('something new', None)])
def test_a_card_is_known_by_its_whole_name_and_has_its_own_memory(monkeypatch, name, known):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: name)
    monkeypatch.setattr(torch.cuda, 'get_device_properties', lambda i: SimpleNamespace(total_memory=40*2**30))
    monkeypatch.setattr(scale, 'measured_rate', lambda *given: 7e12)
    assert card_at_hand() == (name, CARDS[known]._replace(gib=40) if known else Card(7, 7, 40))


def described(monkeypatch, config, here=Card(.1, .05, float('nan')), captions=3_119_449, sizes=None, cards=1, **more):
    monkeypatch.setattr(scale, 'card_at_hand', lambda: ('this one', here))
    text = describe_plan(plan_training(config, captions, sizes, cards), config, cards, **more)
    return {line.split('  ')[0]: re.split(' {2,}', line, maxsplit=1)[1] for line in text.split('\n')}


def test_a_plan_in_words(monkeypatch):
    lines = described(monkeypatch, PRESETS['paper'], price=2)
    assert lines['steps'] == '60,920 of 512 captions, 10.0 epochs' and '47.2 GFLOP a caption' in lines['operations']
    assert 'NOT fit into 11 GiB' in lines['on 1 x RTX 2080 Ti'] and 'no bfloat16: float32' in lines['on 1 x RTX 2080 Ti']
    assert 'at 2 an hour' in lines['on 1 x H200'] and 'an hour' not in lines['on 1 x this one'] and '*' not in lines and 'labels on 1' not in lines


def test_a_card_without_bfloat16_needs_the_memory_of_float32(monkeypatch):
    # a share of 128 captions fits into 11 GiB in 16 bits, but not in 32
    assert plan_training(PRESETS['paper'], 1000, cards=4).memory < 11*2**30 < plan_training(replace(PRESETS['paper'], precision='float32'), 1000, cards=4).memory
    lines = described(monkeypatch, PRESETS['paper'], here=Card(100, 50, 11), cards=4)
    assert 'NOT fit into 11 GiB' in lines['on 4 x RTX 2080 Ti'] and 'NOT fit' not in lines['on 4 x this one']


def test_a_small_model_is_told_in_its_units_and_reaches_no_share_of_a_large_card(monkeypatch):
    lines = described(monkeypatch, MINI, captions=4000, sizes=SIZES)
    assert 'MFLOP' in lines['operations'] and 'MB' in lines['memory of a card'] and 'MB' in lines['a checkpoint'] and 'kB' in lines['to the device']
    assert ' * ' in lines['on 1 x H200'] and ' * ' not in lines['on 1 x this one'] and 'small model' in lines['*']


def test_cards_share_extraction_and_labelling(monkeypatch):
    lines = described(monkeypatch, PRESETS['paper'], captions=86400*80, cards=8, pictures_per_s=5, labels_per_s=2.5)
    assert lines['processes'] == '8, each takes 64 captions at once' and lines['regions on 8'].startswith('2.0 days') and lines['labels on 8'].startswith('4.0 days')

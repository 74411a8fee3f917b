"The benchmark of a training step: what it prints is there and adds up; how fast a machine is, no test may ask."
import json
import math
from unittest.mock import patch

import pytest
import torch

from vlground import bench_models
from vlground.bench import BENCHES
from vlground.bench_models import FORWARDS, MEASURES, Trainee, bench_model, step_batch, time_in_turns, without
from vlground.transformer import Attention, Dropout, Linear, TransformerLayer
from vlground.vilbert import ViLBERTConfig

MINI = ViLBERTConfig.mini(dropout=.1, attention_dropout=.1)


@pytest.fixture(scope='module')
def found():
    with patch.object(bench_models, '_others', return_value=0.): # other tests run at the same time, for whose end it would wait
        return bench_model(config=MINI, samples=2, rounds=2, threads=1, compile=False, product=256)


def test_the_command_knows_it():
    assert BENCHES['model'] is bench_model


def test_figures_are_plain_positive_and_belong_together(found):
    assert json.loads(json.dumps(found)) == found, 'plain JSON'
    assert all(found[name] > 0 and math.isfinite(found[name]) for name in ('fp32', 'bf16', 'grounding_share', 'grounding_share_bf16'))
    assert (found['samples'], found['threads'], found['rounds']) == (2, 1, 2)
    for bits in ('fp32', 'bf16'):
        step = found['steps'][bits]
        assert step['seconds']['least'] <= step['seconds']['median'] <= step['seconds']['most']
        assert step['ratio'] == found[bits] >= step['ratio_to_best_product'] and step['samples_per_s'] == pytest.approx(2/step['seconds']['median'])


def test_each_measure_has_its_ratio_and_what_was_not_measured_says_so(found):
    for name in MEASURES: assert set(found['measures'][name]) == {'fp32', 'bf16'} and min(found['measures'][name].values()) > 0
    assert found['compiled'] == found['measures']['compiled layers'] == 'not measured'
    if not torch.cuda.is_available(): assert found['gpu'] == 'not measured'


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with patch.object(bench_models, '_measured', side_effect=RuntimeError), pytest.raises(RuntimeError): bench_model(config=MINI, samples=1, threads=before + 1)
    assert torch.get_num_threads() == before


def test_a_batch_asks_for_every_loss():
    batch = step_batch(MINI, samples=3)
    assert batch.input_ids.shape == (3, 36) and batch.features.shape == (3, 37, MINI.feature_width) and batch.region_targets.shape == (3, 37, MINI.region_classes)
    assert (batch.word_labels >= 0).any() and batch.region_labels.any() and not batch.region_labels[:, 0].any() and batch.pair_regions.min() > 0
    assert torch.equal(batch.pair_samples, batch.spans[batch.pair_rows, 0]) and batch.aligned.any() and not batch.aligned.all()
    assert all(torch.equal(getattr(batch, name), getattr(step_batch(MINI, samples=3), name)) for name in ('input_ids', 'features', 'pair_regions'))


def test_a_measure_taken_back_changes_nothing_but_time():
    torch.manual_seed(0)
    trainee = Trainee(MINI, samples=2)
    trainee.parts.eval()
    kept = Attention.forward, Dropout.forward, Linear.forward, TransformerLayer.forward
    plain = trainee.losses().item()
    for measure in FORWARDS:
        with without(measure): assert trainee.losses().item() == pytest.approx(plain, abs=1e-4)
    assert trainee.losses_everywhere().item() == pytest.approx(plain, abs=1e-4)
    assert (Attention.forward, Dropout.forward, Linear.forward, TransformerLayer.forward) == kept, 'all is as it was'


def test_a_step_that_others_disturb_is_timed_again_a_few_times():
    calls = []
    with patch.object(bench_models, '_others', side_effect=iter(range(0, 10**6, 10))): # ten seconds of others each time it is asked
        seconds, products = time_in_turns({'step': lambda: calls.append(1)}, rounds=2, size=8, patience=3)
    assert len(calls) == 1 + 2*3 and len(seconds['step']) == 2 and len(products) == 2*4

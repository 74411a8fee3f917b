"The benchmark of training: what each figure is taken from, on data of a few pictures."
from dataclasses import replace

import pytest
import torch

from vlground.bench_training import Bench, published_data
from vlground.logs import read_log
from vlground.pretrain import PRESETS
from vlground.store import Store


@pytest.fixture
def bench(small_regions, small_labels, tmp_path):
    return Bench(tmp_path, replace(PRESETS['mini'], batch_size=8, regions=8), (small_regions, small_labels))


def test_bare_and_whole_steps_are_those_of_the_same_training(bench, tmp_path):
    assert 0 < bench.bare(3)
    seconds, share = bench.whole(20)
    lines = [line for line in read_log(tmp_path/'run-1') if 'parts' in line]
    assert lines[-1]['step'] == 40 and 0 <= share < 1
    # two lines of ten steps are left out, the other two are measured
    assert seconds == pytest.approx(sum(80/line['samples_per_s'] for line in lines[2:])/20)
    assert share == pytest.approx(sum(line['data_wait']*80/line['samples_per_s'] for line in lines[2:])/seconds/20)


def test_bare_steps_are_compiled_where_the_training_is(bench, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda model: compiled.append(model))
    assert bench.bare(1) > 0 and not compiled
    bench.config = replace(bench.config, compile=True)
    assert bench.bare(1) > 0 and len(compiled) == 1


def test_batches_alone_and_checkpoints(bench):
    assert bench.input_rate(3) > 0 and bench.checkpoint_seconds(2) > 0


def test_data_of_the_published_sizes_can_be_trained_on(tmp_path):
    data = published_data(tmp_path/'data', 8)
    store = Store(data[0])
    assert store.feature_width == 2048 and len(store.classes) == 1601 and len(store[0].boxes) == 36
    config = replace(PRESETS['mini'], batch_size=4, regions=36, words=36)
    assert Bench(tmp_path, config, data).bare(1) > 0

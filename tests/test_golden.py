"Our models with the published code's tiny weights against the published code's own numbers (tests/golden)."
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlground.objectives import LossWeights, pretraining_losses
from vlground.spe import spatial_encoding
from vlground.transformer import Attention, Batch, attention_maps
from vlground import vilbert as vilbert_module
from vlground import vlbert as vlbert_module
from vlground.published import tensor_names
from vlground.vilbert import PretrainingHeads, TaskHeads, ViLBERT, ViLBERTConfig, load_reference
from vlground.vlbert import VLBERT, VLBERTConfig, geometry_encoding

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture
def close(record_property):
    'Compare, and note the largest difference for the summary at the end'
    def compare(name, ours, golden, tolerance=2e-5):
        worst = (ours - golden).abs().max().item()
        record_property(f'difference: {name}', f'{worst:.1e}')
        assert ours.shape == golden.shape and worst < tolerance, f'{name}: {worst:.1e}'
    return compare


def arrays(name):
    return {k: torch.tensor(v) for k, v in np.load(GOLDEN / name).items()}


@cache
def vilbert():
    golden = arrays('vilbert_tiny.npz')
    with pytest.warns(match='q_dense'): published = load_reference(GOLDEN / 'vilbert_tiny.safetensors', ViLBERTConfig.from_reference(GOLDEN / 'vilbert_tiny.config.json'))
    model, heads = published.model, published.heads
    no_global = torch.zeros(3, 1)
    batch = Batch(golden['input_ids'], golden['attention_mask'].bool(), golden['token_type_ids'], golden['image_feat'], golden['image_loc'],
        golden['image_attention_mask'].bool(), golden['masked_lm_labels'], torch.cat([no_global, golden['image_label'] == 1], 1).bool(),
        torch.cat([no_global[..., None].expand(3, 1, 17), golden['image_target']], 1), golden['next_sentence_label'] == 0)
    return golden, model, heads, batch


def test_vilbert_states_and_scores(close):
    golden, model, heads, batch = vilbert()
    encoded = model(batch)
    for name, ours in {'sequence_output_t': encoded.words, 'sequence_output_v': encoded.regions, 'pooled_output_t': encoded.pooled_words,
            'pooled_output_v': encoded.pooled_regions, 'prediction_scores_t': heads.words(encoded.words),
            'prediction_scores_v': heads.regions(encoded.regions), 'seq_relationship_score': heads.alignment(encoded)}.items():
        close(name, ours, golden[name], 1e-5)


def test_vilbert_blocks(close):
    golden, model, _, batch = vilbert()
    seen, blocks = [], {'act.text_embedding': model.text, 'act.image_embedding': model.image}
    blocks |= {f'act.t_layer{i}': layer for i, layer in enumerate(model.word_layers)}
    blocks |= {f'act.v_layer{i}': layer for i, layer in enumerate(model.region_layers)}
    blocks |= {f'act.c_layer{i}': layer for i, layer in enumerate(model.joint_layers)}
    handles = [block.register_forward_hook(lambda _, args, out, name=name: seen.append((name, out))) for name, block in blocks.items()]
    model(batch)
    for handle in handles: handle.remove()
    assert [name for name, _ in seen] == ['act.text_embedding', 'act.image_embedding', 'act.t_layer0', 'act.t_layer1', 'act.c_layer0',
        'act.t_layer2', 'act.v_layer0', 'act.c_layer1', 'act.v_layer1', 'act.t_layer3']
    for name, out in seen:
        if isinstance(out, tuple):
            close(f'{name}_t', out[0], golden[f'{name}_t'])
            close(f'{name}_v', out[1], golden[f'{name}_v'])
        else: close(name, out, golden[name])


def test_vilbert_attention(close):
    golden, model, _, batch = vilbert()
    maps = attention_maps(model, batch)
    names = {'word_layers.{}.attention': 'attn.t{}', 'region_layers.{}.attention': 'attn.v{}',
        'joint_layers.{}.words.attention': 'attn.c{}.text_to_image', 'joint_layers.{}.regions.attention': 'attn.c{}.image_to_text'}
    ours = {theirs.format(i): maps[name.format(i)] for name, theirs in names.items() for i in range(4) if name.format(i) in maps}
    assert set(ours) == {name for name in golden if name.startswith('attn.')}
    for name in ours: close(name, ours[name], golden[name])


def gradients(model, heads):
    'The gradient of every published tensor, cut out of ours where ours is joined'
    found, layout = {}, vilbert_module.layout(model.config)
    for module, names in (model, layout.names['model']), (heads, layout.names['heads']):
        tensors = dict(module.named_parameters())
        for ours, parts in tensor_names(module, names).items(): found |= dict(zip(parts, tensors[ours].grad.chunk(len(parts))))
    return found


def test_vilbert_losses_and_gradients(close, record_property):
    golden, model, heads, batch = vilbert()
    model.zero_grad()
    heads.zero_grad()
    losses = pretraining_losses(model(batch), batch, heads, weights=LossWeights())
    for ours, theirs in {'word': 'masked_lm_loss', 'region': 'masked_img_loss', 'alignment': 'next_sentence_loss'}.items():
        close(theirs, losses[ours].reshape(()), golden[theirs].reshape(()), 1e-5)
    losses['total'].backward()
    norms, ours = {}, gradients(model, heads)
    for name, norm in golden.items():
        if name.startswith('gradnorm.'):
            norms[name] = ours[name.removeprefix('gradnorm.')].norm().item(), norm.item()
            # the keys' biases have no effect, their gradient is noise
            assert norms[name][0] == pytest.approx(norms[name][1], rel=1e-4, abs=1e-6), name
        if name.startswith('grad.'): close(name, ours[name.removeprefix('grad.')], golden[name])
    published = load_file(GOLDEN / 'vilbert_tiny.safetensors')
    record_property('difference: gradient norms, relative', f'{max(abs(a - b) / b for a, b in norms.values() if b > 1e-3):.1e}')
    assert len(norms) == len(ours) == sum('q_dense' not in name and name != 'cls.predictions.decoder.weight' for name in published)


def keys(name):
    'Published names and shapes, from a list of them'
    lines = (GOLDEN / f'{name}.keys.txt').read_text().splitlines()
    return {line.split(' ', 1)[0]: tuple(map(int, re.findall(r'\d+', line.split(' ', 1)[1]))) for line in lines}


def test_vilbert_task_heads(close):
    golden, scores = arrays('vilbert_tiny_vltasks.npz'), None
    state = load_file(GOLDEN / 'vilbert_tiny.safetensors') | load_file(GOLDEN / 'vilbert_tiny_vltasks_heads.safetensors')
    with pytest.warns(match='q_dense'): published = load_reference(state, ViLBERTConfig.tiny())
    _, _, _, batch = vilbert()
    assert not published.missing
    encoded = published.model(batch)
    scores = published.tasks(encoded, batch.region_mask)
    # the batch is odd: in place of pairs the published code gives its pre-training scores
    ours = {'vil_prediction': scores['answers'], 'vil_prediction_gqa': scores['gqa_answers'], 'vil_logit': scores['match'],
        'vil_tri_prediction': scores['entailment'], 'vision_logit': scores['regions'][..., None], 'linguisic_logit': scores['words'][..., None],
        'vil_binary_prediction': published.heads.alignment(encoded), 'vision_prediction': published.heads.regions(encoded.regions),
        'linguisic_prediction': published.heads.words(encoded.words)}
    assert ours.keys() == golden.keys() and 'pair' not in scores
    for name in golden: close(name, ours[name], golden[name])


@pytest.mark.parametrize('name, config, tasks', [('vilbert_base', ViLBERTConfig.base(), False), ('vilbert_base_vltasks', ViLBERTConfig.base(), True),
    ('vilbert_tiny', ViLBERTConfig.tiny(), False)])
def test_vilbert_key_for_key(name, config, tasks):
    with torch.device('meta'):
        model = ViLBERT(config)
        heads, task_heads = PretrainingHeads(model, config.region_classes), TaskHeads(config) if tasks else None
    written = vilbert_module.to_reference(model, heads, task_heads)
    assert {key: tuple(tensor.shape) for key, tensor in written.items()} == keys(name)
    if name == 'vilbert_base': assert len(written) == 533
    if tasks: assert len(written) == 559


def test_vlbert_key_for_key():
    with torch.device('meta'):
        model = VLBERT(VLBERTConfig.tiny())
        written = vlbert_module.to_reference(model, vlbert_module.vlbert_heads(model))
    # the published pre-training has no relationship loss, and then no pooler
    shapes = {key: tuple(tensor.shape) for key, tensor in written.items() if 'pooler' not in key and 'relationsip' not in key}
    assert shapes == keys('vlbert_tiny')


def test_published_size_and_round_trip(record_property):
    g = torch.Generator().manual_seed(0)
    state = {name: torch.rand(shape, generator=g) for name, shape in keys('vilbert_base').items()}
    state['cls.predictions.decoder.weight'] = state['bert.embeddings.word_embeddings.weight']
    never_used = sum(tensor.numel() for name, tensor in state.items() if 'q_dense' in name)
    with pytest.warns(match='24 .*q_dense'): published = load_reference(state)
    ours = sum(p.numel() for part in published.parts.values() for p in part.parameters())
    record_property('difference: parameters of the base model', f'{ours:,}, and {never_used:,} that are never used')
    assert never_used == 11_020_800 and ours == 250_044_029 - never_used
    written = published.to_reference()
    assert list(written) == list(state) and all(torch.equal(written[name], state[name]) for name in state)


@cache
def vlbert():
    golden = arrays('vlbert_tiny.npz')
    with pytest.warns(match='missing'): published = vlbert_module.load_reference(GOLDEN / 'vlbert_tiny.safetensors', VLBERTConfig.tiny())
    boxes, size = golden['boxes'], golden['im_info'][:, None, [0, 1, 0, 1]]
    word_mask, region_mask = golden['text'] > 0, boxes[:, :, 0] > -1.5
    # a region may be chosen (it has labels) and yet left as it is
    masked, chosen = golden['mvrc_ops'] == 1, golden['mvrc_labels'].sum(-1) > 0
    batch = Batch(golden['text'], word_mask, torch.zeros_like(golden['text']), torch.where(masked[..., None], 0., boxes[..., 4:]),
        torch.cat([boxes[..., :4] / size, torch.zeros(2, 4, 1)], -1), region_mask, golden['mlm_labels'], chosen, golden['mvrc_labels'])
    return golden, published, batch


def test_vlbert_states_scores_and_losses(close):
    golden, published, batch = vlbert()
    model, heads, word_mask, region_mask = published.model, published.heads, batch.word_mask, batch.region_mask
    states, encoded = model.embed(batch), model(batch)
    real = torch.cat([word_mask, region_mask, torch.ones(2, 1).bool()], 1)
    for i in range(2): close(f'VL-BERT embedding_output, sample {i}', states[i][real[i]], golden['embedding_output'][i, :real[i].sum()])
    close('VL-BERT mlm_logits', heads.words(encoded.words)[word_mask], golden['mlm_logits'][word_mask])
    close('VL-BERT mvrc_logits', heads.regions(encoded.regions)[region_mask], golden['mvrc_logits'][region_mask])
    losses = pretraining_losses(encoded, batch, heads, weights=LossWeights(alignment=0))
    close('VL-BERT mlm_loss', losses['word'], golden['mlm_loss'])
    # theirs is a cross-entropy with soft labels, which is our divergence plus the labels' own entropy
    labels = golden['mvrc_labels'][batch.region_labels]
    region = losses['region'] - torch.special.xlogy(labels, labels).sum(-1).mean()
    close('VL-BERT mvrc_loss', region, golden['mvrc_loss'])
    close('VL-BERT loss', losses['word'] + region, golden['loss'])


def test_vlbert_geometry(close):
    golden = arrays('vlbert_tiny.npz')
    corners = golden['coordinate_embeddings_in']
    locations = torch.cat([corners[:, :4] / corners[:, [4, 5, 4, 5]], torch.zeros(4, 1)], 1)
    close('VL-BERT coordinate_embeddings', geometry_encoding(locations[None], 2048)[0], golden['coordinate_embeddings_out'].flatten(1))


@pytest.mark.parametrize('waves', [4, 8])
@pytest.mark.parametrize('image, height, width', [(0, 5, 7), (1, 4, 5)])
def test_detr_sine(close, waves, image, height, width):
    golden = arrays('detr_sine.npz')[f'pos_nf{waves}_norm1'][image, :, :height, :width]
    # DETR divides by the last position + 1e-6
    y, x = torch.meshgrid((torch.arange(height) + 1) / (height + 1e-6), (torch.arange(width) + 1) / (width + 1e-6), indexing='ij')
    grid = torch.stack([x, y, x, y, torch.zeros_like(x)], -1).reshape(1, -1, 5)
    ours = spatial_encoding(grid, 2 * waves, torch.ones(1, height * width, dtype=torch.bool))
    close(f'DETR sine, {waves} waves, image {image}', ours[0].T.reshape(golden.shape), golden, 1e-6)


def test_attention_of_every_layer_is_ours():
    _, model, _, _ = vilbert()
    assert sum(isinstance(part, Attention) for part in model.modules()) == 4 + 2 + 2 * 2

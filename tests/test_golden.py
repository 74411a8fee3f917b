"Our models with the published code's tiny weights against the published code's own numbers (tests/golden)."
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlground.objectives import LossWeights, pretraining_losses
from vlground.spe import spatial_encoding
from vlground.transformer import Attention, Batch, attention_maps
from vlground.vilbert import BEGINNINGS, PretrainingHeads, ViLBERT, ViLBERTConfig, load_reference, rename
from vlground.vlbert import VLBERT, VLBERTConfig, geometry_encoding
from vlground.vlbert import load_reference as load_vlbert

GOLDEN = Path(__file__).parent / 'golden'


def close(name, ours, golden, tolerance=2e-5):
    worst = (ours - golden).abs().max().item()
    print(f'{name:45} largest difference {worst:.1e}')
    assert ours.shape == golden.shape and worst < tolerance, f'{name}: {worst:.1e}'


def arrays(name):
    return {k: torch.tensor(v) for k, v in np.load(GOLDEN / name).items()}


@cache
def vilbert():
    golden = arrays('vilbert_tiny.npz')
    model = ViLBERT(ViLBERTConfig.tiny()).eval()
    heads = PretrainingHeads(model, 17).eval()
    load_reference(model, load_file(GOLDEN / 'vilbert_tiny.safetensors'), heads)
    no_global = torch.zeros(3, 1)
    batch = Batch(golden['input_ids'], golden['attention_mask'].bool(), golden['token_type_ids'], golden['image_feat'], golden['image_loc'],
        golden['image_attention_mask'].bool(), golden['masked_lm_labels'], torch.cat([no_global, golden['image_label'] == 1], 1).bool(),
        torch.cat([no_global[..., None].expand(3, 1, 17), golden['image_target']], 1), golden['next_sentence_label'] == 0)
    return golden, model, heads, batch


def test_vilbert_states_and_scores():
    golden, model, heads, batch = vilbert()
    encoded = model(batch)
    for name, ours in {'sequence_output_t': encoded.words, 'sequence_output_v': encoded.regions, 'pooled_output_t': encoded.pooled_words,
            'pooled_output_v': encoded.pooled_regions, 'prediction_scores_t': heads.words(encoded.words),
            'prediction_scores_v': heads.regions(encoded.regions), 'seq_relationship_score': heads.alignment(encoded)}.items():
        close(name, ours, golden[name], 1e-5)


def test_vilbert_blocks():
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


def test_vilbert_attention():
    golden, model, _, batch = vilbert()
    maps = attention_maps(model, batch)
    names = {'word_layers.{}.attention': 'attn.t{}', 'region_layers.{}.attention': 'attn.v{}',
        'joint_layers.{}.words.attention': 'attn.c{}.text_to_image', 'joint_layers.{}.regions.attention': 'attn.c{}.image_to_text'}
    ours = {theirs.format(i): maps[name.format(i)] for name, theirs in names.items() for i in range(4) if name.format(i) in maps}
    assert set(ours) == {name for name in golden if name.startswith('attn.')}
    for name in ours: close(name, ours[name], golden[name])


def gradient(model, heads, name):
    'The gradient of a published tensor, cut out of ours where ours is joined'
    ours, parameters = rename(name, BEGINNINGS), dict(model.named_parameters()) | dict(heads.named_parameters())
    if ours in parameters: return parameters[ours].grad
    part = ours.split('.')[-2]
    for joined in ('query_key_value', 'key_value'):
        if (whole := ours.replace(f'.{part}.', f'.{joined}.')) in parameters:
            parts = joined.split('_')
            return parameters[whole].grad.chunk(len(parts))[parts.index(part)]


def test_vilbert_losses_and_gradients():
    golden, model, heads, batch = vilbert()
    model.zero_grad()
    heads.zero_grad()
    losses = pretraining_losses(model(batch), batch, heads, weights=LossWeights())
    for ours, theirs in {'word': 'masked_lm_loss', 'region': 'masked_img_loss', 'alignment': 'next_sentence_loss'}.items():
        close(theirs, losses[ours].reshape(()), golden[theirs].reshape(()), 1e-5)
    losses['total'].backward()
    checked = 0
    for name, norm in golden.items():
        if name.startswith('gradnorm.'):
            ours = gradient(model, heads, name.removeprefix('gradnorm.')).norm().item()
            # the keys' biases have no effect, their gradient is noise
            assert ours == pytest.approx(norm.item(), rel=1e-4, abs=1e-6), name
            checked += 1
        if name.startswith('grad.'): close(name, gradient(model, heads, name.removeprefix('grad.')), golden[name])
    published = load_file(GOLDEN / 'vilbert_tiny.safetensors')
    assert checked == sum(rename(name, BEGINNINGS) is not None for name in published)


def test_published_size_key_for_key():
    lines = (GOLDEN / 'vilbert_base.keys.txt').read_text().splitlines()
    state = {line.split(' ', 1)[0]: torch.empty(eval(line.split(' ', 1)[1]), device='meta') for line in lines}
    assert len(state) == 533
    with torch.device('meta'):
        model = ViLBERT(ViLBERTConfig.base())
        heads = PretrainingHeads(model, 1601)
    load_reference(model, state, heads)
    never_used = sum(t.numel() for name, t in state.items() if 'q_dense' in name)
    ours = sum(p.numel() for part in (model, heads) for p in part.parameters())
    assert never_used == 11_020_800 and ours == 250_044_029 - never_used
    with pytest.raises(RuntimeError, match='text.norm.bias'):
        load_reference(model, {name: t for name, t in state.items() if name != 'bert.embeddings.LayerNorm.bias'})


def test_vlbert():
    golden = arrays('vlbert_tiny.npz')
    model = VLBERT(VLBERTConfig.tiny()).eval()
    heads = PretrainingHeads(model, 17, region_norm=False).eval()
    load_vlbert(model, load_file(GOLDEN / 'vlbert_tiny.safetensors'), heads)
    boxes, size = golden['boxes'], golden['im_info'][:, None, [0, 1, 0, 1]]
    word_mask, region_mask = golden['text'] > 0, boxes[:, :, 0] > -1.5
    # a region may be chosen (it has labels) and yet left as it is
    masked, chosen = golden['mvrc_ops'] == 1, golden['mvrc_labels'].sum(-1) > 0
    batch = Batch(golden['text'], word_mask, torch.zeros_like(golden['text']), torch.where(masked[..., None], 0., boxes[..., 4:]),
        torch.cat([boxes[..., :4] / size, torch.zeros(2, 4, 1)], -1), region_mask, golden['mlm_labels'], chosen, golden['mvrc_labels'])
    states, encoded = model.embed(batch), model(batch)
    real = torch.cat([word_mask, region_mask, torch.ones(2, 1).bool()], 1)
    for i in range(2): close(f'embedding_output, sample {i}', states[i][real[i]], golden['embedding_output'][i, :real[i].sum()])
    close('mlm_logits', heads.words(encoded.words)[word_mask], golden['mlm_logits'][word_mask])
    close('mvrc_logits', heads.regions(encoded.regions)[region_mask], golden['mvrc_logits'][region_mask])
    losses = pretraining_losses(encoded, batch, heads, weights=LossWeights(alignment=0))
    close('mlm_loss', losses['word'], golden['mlm_loss'])
    # theirs is a cross-entropy with soft labels, which is our divergence plus the labels' own entropy
    labels = golden['mvrc_labels'][chosen]
    close('mvrc_loss', losses['region'] - torch.special.xlogy(labels, labels).sum(-1).mean(), golden['mvrc_loss'])
    corners = golden['coordinate_embeddings_in']
    locations = torch.cat([corners[:, :4] / corners[:, [4, 5, 4, 5]], torch.zeros(4, 1)], 1)
    close('coordinate_embeddings', geometry_encoding(locations[None], 2048)[0], golden['coordinate_embeddings_out'].flatten(1))


@pytest.mark.parametrize('waves', [4, 8])
@pytest.mark.parametrize('image, height, width', [(0, 5, 7), (1, 4, 5)])
def test_detr_sine(waves, image, height, width):
    golden = arrays('detr_sine.npz')[f'pos_nf{waves}_norm1'][image, :, :height, :width]
    # DETR divides by the last position + 1e-6
    y, x = torch.meshgrid((torch.arange(height) + 1) / (height + 1e-6), (torch.arange(width) + 1) / (width + 1e-6), indexing='ij')
    grid = torch.stack([x, y, x, y, torch.zeros_like(x)], -1).reshape(1, -1, 5)
    ours = spatial_encoding(grid, 2 * waves, torch.ones(1, height * width, dtype=torch.bool))
    close(f'DETR sine, {waves} waves, image {image}', ours[0].T.reshape(golden.shape), golden, 1e-6)


def test_attention_of_every_layer_is_ours():
    _, model, _, _ = vilbert()
    assert sum(isinstance(part, Attention) for part in model.modules()) == 4 + 2 + 2 * 2

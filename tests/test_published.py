"Published checkpoints: names, spellings, wrappers, what is missing or left over, and the way back, bit for bit."
import io
import pickle
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from vlground import vilbert, vlbert
from vlground.core import load_json, save_json
from vlground.published import read_bert, read_state, tensor_names
from vlground.transformer import Batch, attention_bias
from vlground.vilbert import PretrainingHeads, TaskHeads, ViLBERT, ViLBERTConfig
from vlground.vlbert import VLBERT, VLBERTConfig, vlbert_heads

GOLDEN = Path(__file__).parent / 'golden'
TINY, TINY_VL = ViLBERTConfig.tiny(), VLBERTConfig.tiny()
pytestmark = pytest.mark.filterwarnings('ignore:.*tensors. [0-9]')


@cache
def golden(name='vilbert_tiny'):
    return load_file(GOLDEN / f'{name}.safetensors')


def same(written, state):
    'The same keys in the same order, types and bits'
    assert list(written) == list(state)
    for name in state: assert written[name].dtype == state[name].dtype and torch.equal(written[name], state[name]), name


def old_spelling(state):
    'As a checkpoint of 2019 spells it: saved from a wrapped model, LayerNorms with gamma and beta'
    return {'module.' + name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta'): tensor for name, tensor in state.items()}


def test_the_published_file_and_back():
    with pytest.warns(match=r'8 \(.*q_dense1.*\) are read by no forward pass'): published = vilbert.load_reference(GOLDEN / 'vilbert_tiny.safetensors', TINY)
    assert not published.missing and published.tasks is None and not published.model.training
    assert set(published.aside) == {name for name in golden() if 'q_dense' in name}
    same(published.to_reference(), golden())


def test_prefix_and_missing_heads():
    state = {f'module.{name}': tensor for name, tensor in golden().items() if 'imagePredictions' not in name and 'bi_seq' not in name}
    with pytest.warns(match=r'8 \(cls.imagePredictions.*are missing, and the model keeps its initial values there'): published = vilbert.load_reference(state, TINY)
    assert len(published.missing) == 8 and all(name.startswith(('cls.imagePredictions', 'cls.bi_seq')) for name in published.missing)
    same(published.to_reference(), state)


SPELLINGS = {'as it is': lambda state: state, 'old': old_spelling, 'twice wrapped': lambda state: {f'module.module.{name}': t for name, t in state.items()},
    'body alone': lambda state: {name.removeprefix('bert.'): t for name, t in state.items() if name.startswith('bert.')},
    'half precision': lambda state: {name: t.half() for name, t in state.items()}, 'bfloat16': lambda state: {name: t.bfloat16() for name, t in state.items()},
    'with heads of tasks': lambda state: state | golden('vilbert_tiny_vltasks_heads'),
    'with heads of other tasks': lambda state: state | {'vil_prediction.main.0.weight_g': torch.rand(()), 'vil_prediction.main.0.weight_v': torch.rand(4, 72)},
    'a head of one task': lambda state: state | {name: t for name, t in golden('vilbert_tiny_vltasks_heads').items() if name.startswith('vil_logit')},
    'without the tied copy': lambda state: {name: t for name, t in state.items() if name != 'cls.predictions.decoder.weight'},
    'without what is never used': lambda state: {name: t for name, t in state.items() if 'q_dense' not in name}}


@pytest.mark.parametrize('ending, wrapper', [('safetensors', None), ('bin', None), ('bin', 'model_state_dict'), ('bin', 'state_dict')])
@pytest.mark.parametrize('spelling', SPELLINGS)
def test_every_spelling_and_container(tmp_path, spelling, ending, wrapper):
    state, path = SPELLINGS[spelling](golden()), tmp_path / f'weights.{ending}'
    if ending == 'safetensors':
        save_file({name: t.clone() for name, t in state.items()}, path)
        state = load_file(path) # which has them sorted
    else: torch.save({wrapper: state, 'optimizer_state_dict': {'state': {0: {'step': 3}}}, 'global_step': 7} if wrapper else state, path)
    published, plain = vilbert.load_reference(path, TINY), vilbert.load_reference(golden(), TINY)
    same(published.to_reference(), state)
    for name, tensor in plain.model.state_dict().items(): assert torch.allclose(published.model.state_dict()[name], tensor, atol=0.01, rtol=0.01)


def test_trained_weights_are_written_under_the_names_of_the_file():
    published = vilbert.load_reference(old_spelling(golden()), TINY)
    with torch.no_grad(): published.model.joint_layers[1].words.attention.key_value.weight += 1
    written, before = published.to_reference(), old_spelling(golden())
    changed = {name for name in written if not torch.equal(written[name], before[name])}
    assert changed == {f'module.bert.encoder.c_layer.1.biattention.{part}1.weight' for part in ('key', 'value')}


def test_a_model_of_ours_and_back(tmp_path):
    model = ViLBERT(TINY)
    heads, tasks = PretrainingHeads(model, 17), TaskHeads(TINY, 31, 7)
    save_file(vilbert.to_reference(model, heads, tasks), tmp_path / 'ours.safetensors')
    again = vilbert.load_reference(tmp_path / 'ours.safetensors', TINY)
    for ours, theirs in (model, again.model), (heads, again.heads), (tasks, again.tasks):
        for name, tensor in ours.state_dict().items(): assert torch.equal(tensor, theirs.state_dict()[name])
    assert again.tasks.answers[-1].out_features == 31 and again.tasks.gqa_answers[-1].out_features == 7
    assert all((tensor == 0).all() for name, tensor in load_file(tmp_path / 'ours.safetensors').items() if 'q_dense' in name)


@pytest.mark.parametrize('module, parts', [(vilbert, lambda: (m := ViLBERT(TINY), PretrainingHeads(m, 17), TaskHeads(TINY))), (vlbert, lambda: (m := VLBERT(TINY_VL), vlbert_heads(m)))])
def test_every_tensor_has_a_name(module, parts):
    parts = parts()
    for part, names in zip(parts, module.layout(parts[0].config).names.values(), strict=True): assert tensor_names(part, names).keys() == part.state_dict().keys()


def test_pairs_need_an_even_batch():
    tasks = TaskHeads(TINY).eval()
    model = ViLBERT(TINY).eval()
    batch = Batch(torch.ones(4, 3).long(), torch.ones(4, 3).bool(), torch.zeros(4, 3).long(), torch.rand(4, 2, 32), torch.rand(4, 2, 5), torch.tensor([[True, False]] * 4))
    encoded = model(batch)
    scores = tasks(encoded, batch.region_mask)
    pooled = encoded.pooled_words * encoded.pooled_regions
    assert scores['pair'].shape == (2, 2) and torch.allclose(scores['pair'][1], tasks.pair(torch.cat([pooled[2], pooled[3]])), atol=1e-5)
    assert (scores['regions'][:, 1] < -9000).all() and (scores['regions'][:, 0] > -9000).all() and scores['words'].shape == (4, 3)


def without(*parts): return {name: t for name, t in golden().items() if not any(part in name for part in parts)}


WRONG = {
    'lacks tensors of ViLBERT: 1 (bert.embeddings.LayerNorm.bias)': lambda: without('bert.embeddings.LayerNorm.bias'),
    'knows none of the tensors of ViLBERT; its first is layer1.conv': lambda: {'layer1.conv': torch.zeros(2)},
    'cls.predictions.decoder.weight differs from bert.embeddings.word_embeddings.weight': lambda: golden() | {'cls.predictions.decoder.weight': torch.zeros(120, 48)},
    'has both bert.t_pooler.dense.bias and module.bert.t_pooler.dense.bias': lambda: golden() | {'module.bert.t_pooler.dense.bias': torch.zeros(72)},
    'has shape (9, 32), image.features.weight of this configuration (64, 32): pass the configuration':
        lambda: golden() | {'bert.v_embeddings.image_embeddings.weight': torch.zeros(9, 32)},
    'has shape (144, 7), joint_layers.0.words.attention.key_value.weight': lambda: golden() | {
        f'bert.encoder.c_layer.0.biattention.{part}1.weight': torch.zeros(72, 7) for part in ('key', 'value')},
    'biattention.key1.weight + bert.encoder.c_layer.0.biattention.value1.weight have the shapes (70, 64), (74, 64)': lambda: golden() | {
        f'bert.encoder.c_layer.0.biattention.{part}1.weight': torch.zeros(rows, 64) for part, rows in (('key', 70), ('value', 74))},
    'cls.predictions.bias have the shapes (): expected one and the same, not empty': lambda: golden() | {'cls.predictions.bias': torch.zeros(())},
    'has layers beyond this configuration: 16 (bert.encoder.layer.4': lambda: golden() | {
        name.replace('layer.3', 'layer.4'): t for name, t in golden().items() if 'encoder.layer.3' in name},
    'has layers beyond this configuration: 32 (bert.encoder.c_layer.2': lambda: golden() | {
        name.replace('layer.1', 'layer.2'): t for name, t in golden().items() if 'c_layer.1' in name and 'q_dense' not in name},
    'expected tensors by name': lambda: {'state_dict': {}, 'epoch': 3}}


@pytest.mark.parametrize('message', WRONG)
def test_wrong_checkpoints(message):
    with pytest.raises(ValueError) as error: vilbert.load_reference(WRONG[message](), TINY)
    assert message in str(error.value)


def test_another_size():
    with pytest.raises(ValueError, match='pass the configuration of that checkpoint|lacks tensors of ViLBERT'): vilbert.load_reference(golden())
    with pytest.raises(ValueError, match='lacks tensors of VLBERT|knows none'): vlbert.load_reference(golden(), TINY_VL)


class Dangerous:
    def __reduce__(self): return (print, ('code of a checkpoint has run',))


def test_files_that_are_no_checkpoint(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match='nowhere.bin: there is no such file'): read_state(tmp_path / 'nowhere.bin')
    with pytest.raises(FileNotFoundError, match='there is no such file'): read_state(tmp_path)
    for ending in 'safetensors', 'bin':
        path = tmp_path / f'half.{ending}'
        (save_file if ending == 'safetensors' else torch.save)({'a': torch.rand(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ValueError, match=f'half.{ending}: not a whole checkpoint'): read_state(path)
    (tmp_path / 'empty.bin').touch()
    with pytest.raises(ValueError, match='empty.bin: not a whole checkpoint'): read_state(tmp_path / 'empty.bin')
    torch.save({'a': Dangerous()}, tmp_path / 'dangerous.bin')
    with pytest.raises(ValueError, match='dangerous.bin: not tensors alone'): read_state(tmp_path / 'dangerous.bin')
    (tmp_path / 'text.bin').write_text('<html>404</html>')
    with pytest.raises(ValueError, match='text.bin: a web page and no checkpoint'): read_state(tmp_path / 'text.bin')
    (tmp_path / 'pickle.bin').write_bytes(pickle.dumps([1, 2], protocol=2))
    with pytest.raises(ValueError, match='pickle.bin'): read_state(tmp_path / 'pickle.bin')
    assert 'has run' not in capsys.readouterr().out


@given(st.data())
def test_damaged_checkpoints_are_refused_or_read(data):
    buffer = io.BytesIO()
    legacy, ending = data.draw(st.booleans()), data.draw(st.integers(1, 600))
    torch.save({'a': torch.arange(40.), 'b': torch.ones(3)}, buffer, _use_new_zipfile_serialization=not legacy)
    broken = bytearray(buffer.getvalue())
    if data.draw(st.booleans()): broken = broken[:ending]
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=4)): broken[place] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / 'broken.bin').write_bytes(broken)
        try: assert all(isinstance(tensor, torch.Tensor) for tensor in read_state(path).values())
        except ValueError as error: assert 'broken.bin' in str(error)


def test_containers_and_wrappers(tmp_path):
    state = {'a': torch.rand(3), 'b': torch.rand(2)}
    save_file(state, tmp_path / 'wrong.bin')
    torch.save({'model': {'state_dict': state}, 'epoch': 3}, tmp_path / 'deep.SAFETENSORS')
    for name in 'wrong.bin', 'deep.SAFETENSORS': same(read_state(tmp_path / name), state)
    compiled = {f'module._orig_mod.{name}': t for name, t in golden().items()}
    same(vilbert.load_reference(compiled, TINY).to_reference(), compiled)


def test_what_is_kept_aside_is_a_copy_that_can_be_written(tmp_path):
    shared, turned = torch.rand(4, 3), torch.rand(5, 2).T
    state = golden() | {'extra.a': shared, 'extra.b': shared, 'extra.turned': turned, 'vil_other.weight': nn.Parameter(torch.rand(2))}
    published = vilbert.load_reference(state, TINY)
    save_file(published.to_reference(), tmp_path / 'again.safetensors')
    again = load_file(tmp_path / 'again.safetensors')
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    published.to_reference()['extra.a'].add_(1)
    assert torch.equal(published.to_reference()['extra.a'], shared) and not published.to_reference()['vil_other.weight'].requires_grad


def test_doubles_are_rounded_and_said_so():
    state = {name: t.double() for name, t in golden().items()}
    same(vilbert.load_reference(state, TINY).to_reference(), state)
    state['bert.t_pooler.dense.bias'] = state['bert.t_pooler.dense.bias'] / 3
    with pytest.warns(match=r'1 \(bert.t_pooler.dense.bias\) are doubles and rounded to float32'): vilbert.load_reference(state, TINY)


def test_a_table_that_only_its_own_code_reads():
    with pytest.warns(match=r'1 \(bert.embeddings.task_embeddings.weight\) are kept aside although its own code reads them, so that scores will differ'):
        vilbert.load_reference(golden() | {'bert.embeddings.task_embeddings.weight': torch.rand(20, 48)}, TINY)


def test_a_diverged_run_can_be_read():
    nan = torch.full((120, 48), torch.nan)
    vilbert.load_reference(golden() | {'cls.predictions.decoder.weight': nan, 'bert.embeddings.word_embeddings.weight': nan}, TINY)


@given(st.sampled_from(sorted(load_file(GOLDEN / 'vilbert_tiny.safetensors'))), st.integers(0, 3))
def test_plain_names_are_stable(name, wraps):
    layout = vilbert.layout(TINY)
    assert layout.plain(name) == name and layout.plain('module.' * wraps + name) == name
    assert layout.plain(name.removeprefix('bert.')) == name


# VL-BERT

def test_vlbert_and_back():
    with pytest.warns(match=r'4 \(vlbert.pooler.dense.*missing'): published = vlbert.load_reference(GOLDEN / 'vlbert_tiny.safetensors', TINY_VL)
    assert len(published.missing) == 4
    same(published.to_reference(), golden('vlbert_tiny'))
    for spelling in old_spelling(golden('vlbert_tiny')), {n.replace('vlbert.', 'vlbert._module.'): t for n, t in golden('vlbert_tiny').items()}:
        same(vlbert.load_reference(spelling, TINY_VL).to_reference(), spelling)
    with pytest.raises(ValueError, match='lacks tensors of VLBERT'):
        vlbert.load_reference({n: t for n, t in golden('vlbert_tiny').items() if 'end_embedding' not in n}, TINY_VL)


def test_vlbert_with_its_relationship_loss():
    g = torch.Generator().manual_seed(0)
    rows = 'vlbert.relationsip_head.caption_image_relationship'
    extra = {'vlbert.pooler.dense.weight': torch.randn(48, 48, generator=g), 'vlbert.pooler.dense.bias': torch.randn(48, generator=g),
        f'{rows}.weight': torch.randn(2, 48, generator=g), f'{rows}.bias': torch.randn(2, generator=g)}
    published = vlbert.load_reference(golden('vlbert_tiny') | extra, TINY_VL)
    assert not published.missing
    same(published.to_reference(), golden('vlbert_tiny') | extra)
    batch = Batch(torch.randint(1, 120, (3, 6), generator=g), torch.ones(3, 6).bool(), torch.zeros(3, 6).long(), torch.rand(3, 4, 2048, generator=g),
        torch.rand(3, 4, 5, generator=g), torch.ones(3, 4).bool())
    encoded = published.model(batch)
    pooled = (encoded.words[:, 0] @ extra['vlbert.pooler.dense.weight'].T + extra['vlbert.pooler.dense.bias']).tanh()
    theirs = pooled @ extra[f'{rows}.weight'].T + extra[f'{rows}.bias']
    # there label 1 says that the caption belongs, here label 0
    assert torch.allclose(published.heads.alignment(encoded), theirs[:, [1, 0]], atol=1e-5)


# configurations

def test_configuration_of_the_published_code(tmp_path):
    theirs = load_json(GOLDEN / 'vilbert_tiny.config.json')
    ours = ViLBERTConfig.from_reference(GOLDEN / 'vilbert_tiny.config.json')
    assert ours == ViLBERTConfig.tiny(spread=0.02) == ViLBERTConfig.from_reference(theirs)
    assert ViLBERTConfig.from_reference(theirs, spe=True).spe
    save_json(theirs | {'bi_intermediate_size': 5, 'visual_target': 0, 'fast_mode': False}, tmp_path / 'c.json')
    assert ViLBERTConfig.from_reference(tmp_path / 'c.json') == ours
    for change, message in (({'hidden_act': 'relu'}, "hidden_act is 'relu'; this model knows 'gelu' only"), ({'v_hidden_dropout_prob': .3}, 'v_hidden_dropout_prob is 0.3'),
            ({'task_specific_tokens': True}, 'task_specific_tokens is True'), ({'colour': 1}, 'unknown setting colour')):
        save_json(theirs | change, tmp_path / 'c.json')
        with pytest.raises(ValueError, match=f'c.json: {message}'): ViLBERTConfig.from_reference(tmp_path / 'c.json')
    with pytest.raises(ValueError, match='lacks vocab_size'): ViLBERTConfig.from_reference({n: v for n, v in theirs.items() if n != 'vocab_size'})
    # read only where the model is another
    assert ViLBERTConfig.from_reference(theirs | {'num_negative': 128}) == ours


def test_joints_as_a_list():
    listed = ViLBERTConfig.tiny(word_joints=[2, 3], region_joints=[0, 1])
    assert listed == ViLBERTConfig.tiny() and hash(listed) == hash(ViLBERTConfig.tiny()) and listed.word_joints == (2, 3)


@pytest.mark.parametrize('settings, message', [
    (dict(word_joints=(3, 2)), r'word_joints must be whole numbers of word layers done, each from 0 to 4 and none smaller than the one before, not \(3, 2\)'),
    (dict(region_joints=(0, 3)), 'region_joints must be .* each from 0 to 2'),
    (dict(word_joints=(2.0, 3)), 'word_joints must be whole numbers'),
    (dict(spe_coordinates=3), 'spe_coordinates must be 2 .* or 4 .*, not 3'),
    (dict(spe=True, region_width=66), 'region_width must be a multiple of 4, not 66'),
    (dict(spe=True, spe_coordinates=4, region_width=68), 'region_width must be a multiple of 8, not 68')])
def test_sizes_that_cannot_be_are_refused_at_once(settings, message):
    with pytest.raises(ValueError, match=message): ViLBERTConfig.tiny(**settings)
    assert ViLBERTConfig.tiny(region_width=68, spe=True) and ViLBERTConfig.tiny(region_width=66) # fits, and not asked


# text from a BERT

@pytest.fixture(scope='module')
def berts(tmp_path_factory):
    'Tiny BERTs as the library saves them: with the word head, without, and something else'
    transformers = pytest.importorskip('transformers', reason='transformers is not installed')
    folder, sizes = tmp_path_factory.mktemp('berts'), dict(vocab_size=120, hidden_size=48, num_attention_heads=4, intermediate_size=96, max_position_embeddings=50)
    torch.manual_seed(0)
    for name, layers in ('whole', 4), ('two', 2), ('six', 6):
        transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=layers, initializer_range=.15, **sizes)).save_pretrained(folder / name)
    transformers.BertModel(transformers.BertConfig(num_hidden_layers=4, **sizes)).save_pretrained(folder / 'body')
    transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=4, **sizes | dict(vocab_size=99))).save_pretrained(folder / 'words')
    transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=4, hidden_act='relu', **sizes)).save_pretrained(folder / 'relu')
    transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=4, **sizes | dict(num_attention_heads=8))).save_pretrained(folder / 'heads')
    transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=4, **sizes | dict(hidden_size=64))).save_pretrained(folder / 'wide')
    untied = transformers.BertForMaskedLM(transformers.BertConfig(num_hidden_layers=4, tie_word_embeddings=False, **sizes))
    untied.save_pretrained(folder / 'untied')
    (folder / 'broken').mkdir()
    (folder / 'broken' / 'config.json').write_text('{"model_type": "bert"')
    (folder / 'empty').mkdir()
    transformers.RobertaForMaskedLM(transformers.RobertaConfig(num_hidden_layers=4, **sizes)).save_pretrained(folder / 'roberta')
    return folder


def test_words_of_a_bert_are_its_words(berts):
    from transformers import BertForMaskedLM
    config = ViLBERTConfig.tiny(word_joints=(), region_joints=())
    model = ViLBERT(config).eval()
    heads = PretrainingHeads(model, 17).eval()
    vilbert.load_text(model, str(berts / 'whole'), heads)
    ids, mask = torch.randint(1, 120, (2, 9)), torch.arange(9) < torch.tensor([[9], [6]])
    segments = (torch.arange(9) > 4).long().expand(2, 9)
    theirs = BertForMaskedLM.from_pretrained(berts / 'whole').eval()(ids * mask, mask, segments, output_hidden_states=True)
    batch = Batch(ids * mask, mask, segments, torch.rand(2, 3, 32), torch.rand(2, 3, 5), torch.ones(2, 3).bool())
    words = model(batch).words
    assert torch.allclose(words[mask], theirs.hidden_states[-1][mask], atol=2e-5) and torch.allclose(heads.words(words)[mask], theirs.logits[mask], atol=2e-5)
    states = model.text(batch.input_ids, segments)
    for layer, expected in zip(model.word_layers, theirs.hidden_states[1:], strict=True):
        states = layer(states, attention_bias(mask))
        assert torch.allclose(states[mask], expected[mask], atol=2e-5)


def test_vlbert_from_a_bert(berts):
    model = VLBERT(VLBERTConfig.tiny(layers=4))
    heads, before = vlbert_heads(model), {name: t.clone() for name, t in model.state_dict().items()}
    vlbert.load_text(model, str(berts / 'whole'), heads)
    _, state = read_bert(str(berts / 'whole'))
    assert torch.equal(model.words.weight, state['bert.embeddings.word_embeddings.weight'])
    assert torch.equal(model.segments.weight[:2], state['bert.embeddings.token_type_embeddings.weight']) and torch.equal(model.segments.weight[2], before['segments.weight'][2])
    # this BERT knows 50 positions, the model 64
    assert torch.equal(model.positions.weight[:50], state['bert.embeddings.position_embeddings.weight']) and torch.equal(model.positions.weight[50:], before['positions.weight'][50:])
    assert torch.equal(heads.word_bias, state['cls.predictions.bias']) and torch.equal(model.look.weight, before['look.weight'])
    assert torch.equal(model.layers[3].attention.query_key_value.weight[48:96], state['bert.encoder.layer.3.attention.self.key.weight'])


def test_berts_that_do_not_fit(berts):
    model = ViLBERT(TINY)
    heads = PretrainingHeads(model, 17)
    bias = heads.word_bias.clone()
    for name, message in (('two', 'it has fewer layers than this model'), ('six', 'has 6 layers, more than this model'), ('words', r'has shape \(99, 48\), text.words.weight'),
            ('relu', "relu: its hidden_act is 'relu', that of this model 'gelu'"), ('heads', 'heads: its num_attention_heads is 8, that of this model 4'), ('roberta', 'is a roberta, not a BERT'),
            ('wide', 'pass the configuration of that checkpoint'), ('untied', 'its word head has a table of its own'), ('broken', 'broken holds no whole BERT'), ('empty', 'empty holds no whole BERT')):
        with pytest.raises(ValueError, match=message): vilbert.load_text(model, str(berts / name), heads)
    with pytest.warns(match='no word head'): vilbert.load_text(model, str(berts / 'body'), heads)
    assert torch.equal(heads.word_bias, bias)


def test_a_bert_that_cannot_be_fetched(monkeypatch):
    pytest.importorskip('transformers', reason='transformers is not installed')
    import huggingface_hub.constants
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(FileNotFoundError, match='bert-base-nowhere is not a folder that holds a BERT.*hf download bert-base-nowhere'): vilbert.load_text(ViLBERT(TINY), 'bert-base-nowhere')
    with pytest.raises(FileNotFoundError, match='there is no such folder$'): vilbert.load_text(ViLBERT(TINY), '/there/is/no/bert')

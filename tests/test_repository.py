"The repository is in order: exported, clean, complete, without residue, and its modules build on one another in one direction."
import ast
import base64
import configparser
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from notebooks import MODULES, NOTEBOOKS, ROOT, cells, directives, ids, imports, load, module_of, notebook_of, outputs, python, source

SETTINGS = configparser.ConfigParser(delimiters=['='])
SETTINGS.read(ROOT/'settings.ini')
MACHINE_PATH = re.compile(r'(?<![\w.:/~-])/(?:home|work|tmp|root|Users|mnt|private)/[\w.-]+')
LEFT_OUT = shutil.ignore_patterns('.git', '.venv*', '__pycache__', '*.egg-info', 'build', 'dist', '.ipynb_checkpoints', '.pytest_cache', '.hypothesis', '_docs', '_proc')
every_notebook = pytest.mark.parametrize('path', NOTEBOOKS, ids=ids(NOTEBOOKS))
every_module = pytest.mark.parametrize('path', MODULES, ids=ids(MODULES))


def bin_of(name: str) -> str: return str(Path(sys.executable).parent/name)


def run(*command: str, cwd: Path, **env: str) -> str:
    "Run a command in `cwd` and give what it printed; fail with that if it fails."
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    done = subprocess.run(command, cwd=cwd, env=os.environ | {'PATH': path} | env, capture_output=True, text=True)
    assert done.returncode == 0, f'{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}'
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    "Every file below a folder but those that Python leaves."
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file() and '__pycache__' not in path.parts}


@pytest.fixture
def copy(tmp_path) -> Path:
    "A copy of the repository without what is built."
    shutil.copytree(ROOT, tmp_path/'copy', symlinks=True, ignore=LEFT_OUT)
    return tmp_path/'copy'


# export, clean, README

def test_export_changes_nothing_and_twice_gives_the_same_bytes(copy):
    before = files(copy)
    run(bin_of('nbdev_export'), cwd=copy)
    first = files(copy)
    assert first.keys() == before.keys()
    assert not [name for name in before if first[name] != before[name]], 'run nbdev_export and commit'
    run(bin_of('nbdev_export'), cwd=copy)
    assert files(copy) == first


def test_modules_come_from_their_notebooks(copy):
    "Without the modules there, export makes each of them again."
    before = files(copy/'vlground')
    for path in (copy/'vlground').glob('*.py'):
        if path.stem != '__init__': path.unlink()
    run(bin_of('nbdev_export'), cwd=copy)
    assert files(copy/'vlground') == before


def test_clean_changes_nothing(copy):
    before = files(copy)
    run(bin_of('nbdev_clean'), cwd=copy)
    assert not [name for name, content in files(copy).items() if before.get(name) != content], 'run nbdev_clean and commit'


def test_readme_is_made_from_the_index():
    run(sys.executable, 'tools/readme.py', '--check', cwd=ROOT)


def test_readme_check_can_fail(copy):
    (copy/'README.md').write_text((copy/'README.md').read_text() + '\nmore\n')
    with pytest.raises(AssertionError, match='README.md'): run(sys.executable, 'tools/readme.py', '--check', cwd=copy)


def test_readme_links_and_pictures_exist():
    targets = re.findall(r'\]\(([^)#\s]+)\)', (ROOT/'README.md').read_text())
    assert targets
    missing = [target for target in targets if not re.match(r'https?://', target) and not (ROOT/target).exists()]
    assert not missing


@pytest.mark.parametrize('heading', ['Run it', 'Test it'])
def test_readme_commands_are_one_line(heading):
    found = re.findall(rf'^## {heading}\n\n```sh\n(.+)\n```$', (ROOT/'README.md').read_text(), re.M)
    assert len(found) == 1, f'expected one fenced sh block of one line right under "## {heading}"'
    assert found[0].startswith('python3 -m venv ')


def test_the_results_shown_are_those_of_the_files():
    from vlground.claims import as_markdown, claim_rows, claims_of
    from vlground.demo import demo_table
    from vlground.verdicts import read_tables
    shown = [''.join(output['data']['text/markdown']) for _, output in outputs(ROOT/'nbs'/'index.ipynb') if 'text/markdown' in output.get('data', {})]
    runs = [json.loads((ROOT/'results'/f'{name}.json').read_text(encoding='utf-8')) for name in ('demo', 'demo-again')]
    measured, readme = read_tables(ROOT/'results'), (ROOT/'README.md').read_text(encoding='utf-8')
    assert shown == [demo_table(*runs), as_markdown(claim_rows(claims_of(measured.cells, measured.beside)))] and all(table in readme for table in shown)


def test_notebooks_are_merged_by_nbdev(copy):
    "Two branches that differ in an output only merge without a conflict, through the committed driver."
    path = copy/'nbs'/'00_core.ipynb'
    def git(*words): return run('git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'commit.gpgsign=false', *words, cwd=copy)
    def commit(text):
        notebook = json.loads(path.read_text())
        next(cell for cell in notebook['cells'] if cell.get('outputs'))['outputs'] = [{'name': 'stdout', 'output_type': 'stream', 'text': [text]}]
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + '\n')
        git('commit', '-qam', text)
    git('init', '-q', '-b', 'main')
    git('config', '--local', 'include.path', '../.gitconfig')
    git('add', '-A', '.')
    git('commit', '-qm', 'start')
    git('checkout', '-qb', 'other')
    commit('other')
    git('checkout', '-q', 'main')
    commit('main')
    git('merge', '-q', '--no-edit', 'other')
    assert not any('<<<<' in source(cell) for cell in json.loads(path.read_text())['cells'])
    assert 'nbdev-merge' in (ROOT/'.gitattributes').read_text() and (ROOT/'.gitconfig').is_file()


# notebooks

@every_notebook
def test_cells_have_ids(path):
    notebook = load(path)
    names = [cell.get('id') for cell in notebook['cells']]
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
    assert all(names) and len(set(names)) == len(names)


@every_notebook
def test_no_residue(path):
    notebook = load(path)
    assert path.stat().st_size < 1_000_000
    assert set(notebook['metadata']) <= {'kernelspec'}, 'run nbdev_clean'
    for number, output in outputs(path):
        where, text = f'{path.name}, cell {number}', json.dumps(output)
        assert output['output_type'] != 'error', f'{where}: an error'
        assert not any('widget' in kind for kind in output.get('data', {})), f'{where}: widget state'
        plain = ''.join(output.get('text', '')) + ''.join(output.get('data', {}).get('text/plain', ''))
        assert '\r' not in plain and not re.search(r'\d%\||it/s|s/it', plain), f'{where}: a progress bar'
        assert 'Warning' not in plain, f'{where}: a warning'
        assert not re.search(r'\bat 0x[0-9a-f]{6}', text), f'{where}: an address in memory'
        for picture in (data for kind, data in output.get('data', {}).items() if kind.startswith('image/')):
            size = len(base64.b64decode(''.join(picture))) if not ''.join(picture).lstrip().startswith('<') else len(''.join(picture))
            assert size < 150_000, f'{where}: a figure of {size/1000:.0f} kB'


@every_notebook
def test_no_machine_path(path):
    for number, cell in enumerate(cells(path)):
        for text in [source(cell)] + [json.dumps(output, ensure_ascii=False) for output in cell.get('outputs', []) if 'image/png' not in output.get('data', {})]:
            assert not MACHINE_PATH.search(text), f'{path.name}, cell {number}: {MACHINE_PATH.search(text).group()}'


def test_no_machine_path_elsewhere():
    others = MODULES + [ROOT/name for name in 'README.md settings.ini setup.py _quarto.yml MANIFEST.in .gitignore'.split()] + list((ROOT/'tools').glob('*')) + list((ROOT/'.ci').glob('*')) + list((ROOT/'results').glob('*'))
    for path in others: assert not MACHINE_PATH.search(path.read_text()), f'{path.name}: {MACHINE_PATH.search(path.read_text()).group()}'


def test_a_machine_path_would_be_found():
    for text in ('see /home/ann/data', '"/tmp/abc123"', "('/work/main')"): assert MACHINE_PATH.search(text)
    for text in ('https://example.org/home/page', '~/work/x', '../tmp/x', 'and/or', './work/x'): assert not MACHINE_PATH.search(text)


@every_notebook
def test_title_and_module(path):
    first = source(cells(path)[0])
    assert cells(path)[0]['cell_type'] == 'markdown' and re.match(r'# [^\n]+\n\n> [^\n]+', first), 'a title and a one-line subtitle come first'
    if path.stem != 'index': assert module_of(path) == path.stem.split('_', 1)[1], 'NN_name.ipynb exports the module name'


@every_notebook
def test_every_exported_name_is_used(path):
    "Each public function and class of a lesson's module appears in one of its other code cells; constants speak for themselves."
    if path.stem in ('index', '90_bench', '90_bench_models', '90_bench_training', '90_checks', '90_checks_backbones', '90_checks_labels', '90_checks_objectives', '90_checks_tables', '90_checks_tasks', '90_checks_training', '90_curves', '91_cli', '90_demo'): pytest.skip('not a lesson')
    module = import_module(f'vlground.{module_of(path)}')
    shown = '\n'.join(source(cell) for cell in cells(path, 'code') if not {'export', 'exports'} & directives(cell).keys())
    unused = [name for name in module.__all__ if not name.isupper() and not re.search(rf'\b{name}\b', shown)]
    assert not unused, f'exported and never shown: {unused}'


# modules

@every_module
def test_no_orphan(path):
    name = notebook_of(path)
    assert name, f'{path.name} was not exported by a notebook'
    assert (ROOT/'nbs'/name).is_file(), f'{path.name}: its notebook {name} does not exist'
    assert module_of(ROOT/'nbs'/name) == path.stem


def home_of(module: str) -> str:
    "The stem of the notebook that makes a module."
    return Path(notebook_of(ROOT/'vlground'/f'{module}.py')).stem


CHECKS = ('checks', 'checks_backbones', 'checks_labels', 'checks_objectives', 'checks_tables', 'checks_tasks', 'checks_training')
ENDS = (*CHECKS, 'bench', 'bench_models', 'bench_training', 'cli', 'curves', 'demo') # the appendix


@every_module
def test_modules_import_lower_lessons_only(path):
    if path.stem in ENDS: pytest.skip('it may use the whole package')
    wrong = [module for module in imports(path.read_text()) if module not in ('__version__', '_modidx') and not home_of(module) < home_of(path.stem)]
    assert not wrong, f'{path.stem} imports {wrong}, which come later in the course'


@every_notebook
def test_notebooks_import_lower_lessons_only(path):
    "The checks behind the exercises are an exception, and its own module: another process cannot import from a notebook."
    if module_of(path) in ENDS: pytest.skip('it may use the whole package')
    found = {module for cell in cells(path, 'code') for module in imports(python(cell))} - {*CHECKS, '__version__'}
    wrong = [module for module in found if path.stem != 'index' and not home_of(module) <= path.stem]
    assert not wrong, f'{path.stem} imports {wrong}, which come later in the course'


def test_no_import_circle():
    graph = {path.stem: imports(path.read_text()) & {other.stem for other in MODULES} for path in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_imports_are_found():
    assert imports('from vlground.core import rng\nimport vlground.boxes as b\nfrom vlground import world\nfrom .store import Store\nimport torch') == {'core', 'boxes', 'world', 'store'}
    assert imports('def f():\n    from vlground.core import rng') == {'core'}


@every_module
def test_no_star_import_and_nothing_unfinished(path):
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        assert not (isinstance(node, ast.ImportFrom) and any(name.name == '*' for name in node.names)), f'{path.name}: import *'
    for word in ('NotImplementedError', 'TODO', 'FIXME', 'XXX'): assert word not in text, f'{path.name}: {word}'


@every_module
def test_lines_are_not_too_long(path):
    long = [number for number, line in enumerate(path.read_text().split('\n'), 1) if len(line) > 200]
    assert not long, f'{path.name}: lines {long} are longer than 200 characters'


def parameters(definition: ast.FunctionDef, lines: list[str]):
    "Each parameter of a function with its annotation and whether a comment stands on its line."
    every = definition.args.posonlyargs + definition.args.args + definition.args.kwonlyargs + [a for a in (definition.args.vararg, definition.args.kwarg) if a]
    return [(a.arg, a.annotation, '# ' in lines[a.lineno - 1]) for a in every if a.arg not in ('self', 'cls')]


@every_module
def test_exported_functions_are_documented(path):
    "A docstring of a line, and for each parameter of a public function its type and, beside it, its shape and unit."
    text = path.read_text()
    lines, problems = text.split('\n'), []
    def look(definition, owner=''):
        if definition.name.startswith('_'): return
        name = owner + definition.name
        if not ast.get_docstring(definition) and not (owner and definition.name == 'forward'): problems.append(f'{name}: no docstring')
        for parameter, annotation, comment in parameters(definition, lines):
            if annotation is None: problems.append(f'{name}: {parameter} has no type')
            if not comment: problems.append(f'{name}: {parameter} has no comment')
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef): look(node)
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            if not ast.get_docstring(node): problems.append(f'{node.name}: no docstring')
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.decorator_list: look(inner, f'{node.name}.')
    assert not problems, f'{path.name}: ' + '; '.join(problems)


def test_importing_is_quick_and_brings_no_extras():
    "What the package adds to the libraries that it stands on, in processor time; and nothing optional comes along."
    names = [path.stem for path in MODULES]
    code = 'import importlib, sys, time\nimport torch, torchvision.ops, matplotlib.pyplot, textblob, tokenizers, fastcore.script, tqdm\nbefore = time.process_time()\n' \
           f'for name in {names}: importlib.import_module("vlground." + name)\n' \
           'print(time.process_time() - before, [name for name in ("transformers", "ray", "lmdb", "msgpack", "h5py", "webdataset", "pyarrow", "jupyterlab", "nbdev", "hypothesis", "playwright") if name in sys.modules])'
    def once() -> float:
        seconds, extras = run(sys.executable, '-c', code, cwd=ROOT).strip().split(' ', 1)
        assert extras == '[]', f'imported along with the package: {extras}'
        return float(seconds)
    seconds = once()
    assert seconds < 1.5 or once() < 1.5, f'importing every module took {seconds:.1f} s beyond the libraries'


# site and package

def sidebar(contents) -> list[str]:
    "The files of a sidebar in order."
    return [name for entry in contents for name in ([entry] if isinstance(entry, str) else sidebar(entry['contents']))]


def test_sidebar_lists_every_notebook_in_order():
    listed = sidebar(yaml.safe_load((ROOT/'_quarto.yml').read_text())['website']['sidebar']['contents'])
    missing = [name for name in listed if not (ROOT/'nbs'/name).is_file()]
    assert not missing, f'in the sidebar of _quarto.yml and not in nbs: {missing}'
    unlisted = {path.name for path in NOTEBOOKS} - set(listed)
    assert not unlisted, f'in nbs and not in the sidebar of _quarto.yml: {unlisted}'
    assert listed == ['index.ipynb', *sorted(listed[1:])] and len(set(listed)) == len(listed)


def test_quarto_file_is_shared():
    link = ROOT/'nbs'/'_quarto.yml'
    assert link.is_symlink() and os.readlink(link) == os.path.join('..', '_quarto.yml')
    config = yaml.safe_load(link.read_text())
    for name in config['metadata-files']: assert (ROOT/'nbs'/name).is_file()
    for theme in config['format']['html']['theme']['dark']: assert theme == 'default' or (ROOT/'nbs'/theme).is_file()
    assert yaml.safe_load((ROOT/'nbs'/'nbdev.yml').read_text())['project']['output-dir'] == SETTINGS['DEFAULT']['doc_path']


def test_markdown_links_between_notebooks_exist():
    broken = [(path.name, target) for path in NOTEBOOKS for cell in cells(path, 'markdown') for target in re.findall(r'\]\(([^)#\s]+)\)', source(cell))
              if not re.match(r'(https?:|attachment:|mailto:)', target) and not (ROOT/'nbs'/target).exists()]
    assert not broken


def test_commands_exist():
    for line in SETTINGS['DEFAULT']['console_scripts'].split():
        module, name = line.split('=')[1].split(':')
        assert inspect.isfunction(getattr(import_module(module), name)), line


def test_the_wheel_is_complete(copy, tmp_path):
    run(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation', '-w', str(tmp_path/'wheel'), '.', cwd=copy)
    with zipfile.ZipFile(next((tmp_path/'wheel').glob('*.whl'))) as wheel:
        names = set(wheel.namelist())
        info = next(name.split('/')[0] for name in names if '.dist-info/' in name)
        scripts, metadata = (wheel.read(f'{info}/{name}').decode() for name in ('entry_points.txt', 'METADATA'))
    expected = {f'vlground/{name}' for name in files(ROOT/'vlground')}
    assert expected <= names, f'not in the wheel: {sorted(expected - names)}'
    assert not {name for name in names if name.endswith('.py')} - expected
    assert any(name.endswith('LICENSE') for name in names)
    for line in SETTINGS['DEFAULT']['console_scripts'].split(): assert line.split('=')[0] in scripts
    for extra in ('dev', 'hf', 'ray', 'tables', 'transfer'): assert f'Provides-Extra: {extra}' in metadata
    assert 'Requires-Python: >=3.11' in metadata and 'Requires-Dist: torch>=2.6' in metadata

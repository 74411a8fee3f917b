"What the tests ask of notebooks: cells, sources, outputs, modules."
import ast
import json
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
MODULES = sorted(path for path in (ROOT/'vlground').glob('*.py') if path.stem not in ('__init__', '_modidx'))


def ids(paths: list[Path]) -> list[str]: return [path.stem for path in paths]


@cache
def load(path: Path) -> dict: return json.loads(path.read_text(encoding='utf-8'))


def cells(path: Path, kind: str = '') -> list[dict]: return [cell for cell in load(path)['cells'] if cell['cell_type'].startswith(kind)]


def source(cell: dict) -> str: return ''.join(cell['source'])


def outputs(path: Path) -> list[tuple[int, dict]]:
    "Each output of a notebook with the number of its cell."
    return [(number, output) for number, cell in enumerate(cells(path)) for output in cell.get('outputs', [])]


def directives(cell: dict) -> dict[str, str]:
    "The `#| name: value` lines of a cell; a bare flag has an empty value."
    lines = re.findall(r'(?m)^\s*#\|\s*([\w.-]+)(?::[ \t]*|[ \t]+|$)(.*)$', source(cell))
    return {name: value.strip() for name, value in lines}


def module_of(path: Path) -> str | None:
    "The module that a notebook exports."
    return next((directives(cell)['default_exp'] for cell in cells(path, 'code') if 'default_exp' in directives(cell)), None)


def notebook_of(module: Path) -> str | None:
    "The file name of the notebook that a module says it comes from."
    found = re.search(r'File to edit: \.\./nbs/(\S+\.ipynb)\.', module.read_text(encoding='utf-8'))
    return found and found.group(1)


def imports(code: str, package: str = 'vlground') -> set[str]:
    "The modules of the package that a piece of code imports, anywhere in it."
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import): found |= {name.name.split('.')[1] for name in node.names if name.name.startswith(package + '.')}
        elif isinstance(node, ast.ImportFrom):
            module = ('' if not node.level else package + '.') + (node.module or '')
            if module.rstrip('.') == package: found |= {name.name for name in node.names}
            elif module.startswith(package + '.'): found.add(module.split('.')[1])
    return found


def python(cell: dict) -> str:
    "The source of a code cell without magics and shell lines."
    return '\n'.join(line for line in source(cell).split('\n') if not re.match(r'\s*[%!]', line))

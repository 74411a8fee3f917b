"""Make README.md from nbs/index.ipynb, without Quarto.

    python tools/readme.py            write README.md
    python tools/readme.py --check    say whether README.md is what would be written; exit code 1 if not
"""
import argparse
import difflib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def from_top(markdown: str) -> str:
    "Markdown whose links and pictures are relative to nbs, made relative to the top folder."
    def moved(found: re.Match) -> str:
        target = found.group(2)
        if re.match(r'[a-z]+:|#|/', target): return found.group(0)
        return f'{found.group(1)}nbs/{target}{found.group(3)}'
    return re.sub(r'(\]\()([^)\s]+)(\))', moved, markdown)


def cell_text(cell: dict) -> str:
    "A cell as markdown: text as it is, code fenced, its output below it, as text if it is Markdown; `echo: false` leaves the code out."
    source = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return from_top(source)
    if re.search(r'(?m)^#\|\s*(hide|eval:\s*false)', source): return ''
    parts = [] if re.search(r'(?m)^#\|\s*echo:\s*false', source) else [f'```python\n{source}\n```']
    for output in cell['outputs']:
        data = output.get('data', {})
        if 'text/markdown' in data:
            parts.append(from_top(''.join(data['text/markdown'])))
            continue
        if any(kind.startswith('image/') for kind in data): raise ValueError('index.ipynb: a code cell draws a figure: save it under nbs/images and show it from a text cell')
        parts.append('```\n' + ''.join(output.get('text', data.get('text/plain', ''))).rstrip('\n') + '\n```')
    return '\n\n'.join(parts)


def readme() -> str:
    "The text of README.md."
    notebook = json.loads((ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8'))
    texts = [cell_text(cell).strip('\n') for cell in notebook['cells']]
    return '<!-- made from nbs/index.ipynb by tools/readme.py: edit that -->\n\n' + '\n\n'.join(text for text in texts if text) + '\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='change nothing, compare')
    check, path, text = parser.parse_args().check, ROOT/'README.md', readme()
    if not check: path.write_text(text, encoding='utf-8')
    elif path.read_text(encoding='utf-8') != text:
        sys.stderr.writelines(difflib.unified_diff(path.read_text(encoding='utf-8').splitlines(True), text.splitlines(True), 'README.md', 'nbs/index.ipynb'))
        print('README.md is not what nbs/index.ipynb says: run python tools/readme.py', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__': sys.exit(main())

"""Look at what vlground_demo left: are the figures there, and can they be true?

    python .ci/check_demo.py FOLDER [--size small|full] [--seconds N]
"""
import argparse
import json
import math
import re
import sys
from pathlib import Path

LIMITS = {'small': 5*60, 'full': 18*60} # seconds on two cores, as promised


def problems_of(demo: dict, size: str) -> list[str]:
    "What is missing from demo.json or out of range."
    found = []

    def number(low: float, high: float, *path: str) -> float | None:
        value = demo
        for key in path: value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value): found.append(f'{".".join(path)}: expected a number, got {value!r}')
        elif not low <= value <= high: found.append(f'{".".join(path)}: {value} is not between {low} and {high}')
        else: return value
        return None

    number(1, 24*3600, 'seconds')
    for key in ('precision', 'recall', 'coverage'): number(.02, 1, 'labels', key)
    chance, ceiling = number(0, 1, 'refer', 'chance'), number(0, 1, 'refer', 'ceiling')
    if chance is not None and ceiling is not None and not chance < ceiling: found.append(f'refer: chance {chance} is not below the ceiling {ceiling}')
    for arm in ('baseline', 'ours'):
        accuracy = number(0, 1, 'refer', arm, 'accuracy')
        number(0, .5, 'refer', arm, 'stderr')
        number(1, math.inf, 'refer', arm, 'n')
        if accuracy is not None and ceiling is not None and accuracy > ceiling + 1e-9: found.append(f'refer.{arm}: accuracy {accuracy} is above the ceiling {ceiling}')
        if accuracy is not None and chance is not None and accuracy < chance/2: found.append(f'refer.{arm}: accuracy {accuracy} is far below chance {chance}')
    if not any('fraction' in key for key in list(demo) + list(demo.get('refer', {}))): found.append('no figures for the fractions of the referring data')
    gap, spread = number(-1, 1, 'refer', 'difference', 'accuracy'), number(0, 1, 'refer', 'difference', 'stderr')
    if size == 'full' and not found and gap <= 2*spread:
        found.append(f'refer: ours is ahead by {gap:.3f}, not more than twice the standard error of the difference ({spread:.3f})')
    return found


def problems_of_report(html: str) -> list[str]:
    "What the report lacks, and what it would fetch from outside."
    found = [f'report.html has no {name}' for name, pattern in (('table', '<table'), ('picture', r'<(img|svg)\b')) if not re.search(pattern, html)]
    return found + [f'report.html fetches {target[:80]}' for target in re.findall(r'<(?:img|script|link)[^>]+(?:src|href)="(https?:[^"]+|/[^"]+)"', html)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--size', choices=LIMITS, default='full')
    parser.add_argument('--seconds', type=float, help='how long the run took; a warning is printed if that is more than promised')
    args = parser.parse_args()
    demo = json.loads((args.folder/'demo.json').read_text(encoding='utf-8'))
    found = problems_of(demo, args.size) + problems_of_report((args.folder/'report.html').read_text(encoding='utf-8'))
    print(json.dumps({key: demo.get(key) for key in ('seconds', 'labels', 'refer')}, indent=1))
    if args.seconds and args.seconds > LIMITS[args.size]: print(f'NOTE: it took {args.seconds:.0f} s, more than the {LIMITS[args.size]} s promised for two cores')
    for problem in found: print(f'WRONG {problem}', file=sys.stderr)
    return 1 if found else 0


if __name__ == '__main__': sys.exit(main())

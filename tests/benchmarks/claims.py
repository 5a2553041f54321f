"""The articles' claims: tables, verdicts, figures with error bars, and all measurements.

    python tests/benchmarks/claims.py [NAME ...] [--seeds N] [--output FOLDER]

Names are those of `claims.CLAIMS`; without any, all are measured. `--seeds` is the number of seeds,
from 0; by default that of each claim. NAME.png is written to the folder, and all values to
claims.json, which keeps the claims that it has already.
"""

import argparse
import dataclasses
import json
import pathlib
import time

from keras_genai.callbacks import save_figure
from keras_genai.claims import CLAIMS
from keras_genai.files import read_json


def main():
    parser = argparse.ArgumentParser(description="Measure the articles' claims.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CLAIMS))
    parser.add_argument("--seeds", type=int, metavar="N")
    parser.add_argument("--output", type=pathlib.Path, metavar="FOLDER")
    args = parser.parse_args()
    if unknown := set(args.names) - set(CLAIMS):
        parser.error(f"NAME: expected {', '.join(CLAIMS)}, got {', '.join(sorted(unknown))}")
    if args.seeds is not None and args.seeds < 2:
        parser.error(f"--seeds: expected at least 2, got {args.seeds}")
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
    for name in args.names or CLAIMS:
        start = time.perf_counter()
        claim = CLAIMS[name](**({} if args.seeds is None else {"seeds": range(args.seeds)}))
        minutes = (time.perf_counter() - start) / 60
        print(f"\n## {name}: {claim.source}, {minutes:.1f} minutes\n\n{claim.statement}\n")
        print(f"{claim.table()}\n{claim.verdict}", flush=True)
        if args.output is not None:
            save_figure(claim.plot(), args.output / f"{name}.png")
            path = args.output / "claims.json"
            claims = read_json(path) if path.exists() else {}
            claims[name] = dataclasses.asdict(claim)
            text = json.dumps(claims, indent=1, ensure_ascii=False, default=lambda x: x.tolist())
            path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

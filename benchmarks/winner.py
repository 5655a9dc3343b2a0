"""Whether the winner is better if proxies count: searches are drawn, and one network of each is chosen.

    python benchmarks/winner.py

The true mIoU of 60 candidates deviates by 0.013. Their proxies correlate with it by rho, and deviate by 0.005 between
seeds. The best of them by proxy, and two references, are trained end to end with some seeds, of which one deviates by
`noise`. Each line has, for the choice by the means of these runs alone and for that by `estimated_mious`, how often it
is the truly best of those trained, and by how much it is worse on average, in points of 0.01 mIoU.
"""

import argparse
import itertools
import json
import random
import statistics

from nasseg.planning.final.estimate import estimated_mious

CANDIDATES, REFERENCES, DEVIATION, PROXY_NOISE = 60, 2, 0.013, 0.005
FINALS = ((2, 2), (5, 2), (10, 3))
NOISES = (0.004, 0.013, 0.018)
CORRELATIONS = (0.0, 0.4, 0.7, 0.9)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=2000, help="drawn for each line")
    args = parser.parse_args()
    print(f"{'finalists':>9} {'seeds':>5} {'noise':>6} {'rho':>4} | by means: best, worse by | weighed: best, worse by")
    rows = []
    for (finalists, seeds), noise, correlation in itertools.product(FINALS, NOISES, CORRELATIONS):
        rng = random.Random(f"{finalists} {seeds} {noise} {correlation}")
        drawn = [searched(rng, finalists, seeds, noise, correlation) for _ in range(args.searches)]
        row = {"finalists": finalists, "seeds": seeds, "noise": noise, "correlation": correlation}
        for way in ("means", "weighed"):
            losses = [search[way] for search in drawn]
            row[way] = {
                "best": statistics.fmean(loss == 0 for loss in losses),
                "points": 100 * statistics.fmean(losses),
            }
        # Of the same searches, so the standard error is that of the difference.
        differences = [100 * (search["weighed"] - search["means"]) for search in drawn]
        row["gain_error"] = statistics.stdev(differences) / len(drawn) ** 0.5
        rows.append(row)
        cells = [f"{row[way]['best']:8.3f} {row[way]['points']:8.3f}" for way in ("means", "weighed")]
        line = "       | ".join(cells)
        print(f"{finalists:9} {seeds:5} {noise:6} {correlation:4} | {line}  ± {row['gain_error']:.3f}", flush=True)
    print(json.dumps({"benchmark": "winner", "searches": args.searches, "rows": rows}))


def searched(rng, finalists, seeds, noise, correlation):
    """Draw a search; return by how much the chosen network is worse than the best of the final, for each way."""
    networks = []
    for _ in range(CANDIDATES + REFERENCES):
        true = rng.gauss(0.3, DEVIATION)
        other = rng.gauss(0.3, DEVIATION)
        seen = correlation * true + (1 - correlation**2) ** 0.5 * other
        networks.append((true, rng.gauss(seen, PROXY_NOISE)))
    references, candidates = networks[:REFERENCES], networks[REFERENCES:]
    best_first = sorted(candidates, key=lambda network: network[1], reverse=True)
    contenders = [*best_first[:finalists], *references]
    runs = [[rng.gauss(true, noise) for _ in range(seeds)] for true, _ in contenders]
    estimates = {
        "means": [statistics.fmean(each) for each in runs],
        "weighed": estimated_mious(runs, [proxy for _, proxy in contenders]),
    }
    best = max(true for true, _ in contenders)
    return {way: best - contenders[values.index(max(values))][0] for way, values in estimates.items()}


if __name__ == "__main__":
    main()
